//! Losses on tensors, with gradients.

use kinoprobe::classify::loss::Loss;
use kinoprobe::error::Result;
use tch::{Kind, Tensor};

use super::torch::torch;

/// Computes a loss between logits (N, C) and targets (N, C), as [`Loss`] defines it. Targets are multi-hot, or weights in
/// [0, 1] as mixup produces (Zhang et al. 2018); losses are linear in them.
///
/// Label smoothing (Szegedy et al. 2016, section 7) with ε = `smoothing` in [0, 1) replaces the targets t of the
/// cross-entropy by (1 − ε)·t + ε / C, as in `torch.nn.CrossEntropyLoss`: class weights multiply the terms of the sum over
/// classes, and the divisor Σ w·t uses the targets before smoothing. The other losses ignore it.
///
/// # Errors
/// Returns an error if the shapes do not match or libtorch runs out of memory.
pub fn loss(loss: &Loss, logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let logits = torch(logits.f_to_kind(Kind::Float))?;
    let weights = |weights: &[f64]| {
        torch(Tensor::f_from_slice(weights).and_then(|w| w.f_to_kind(Kind::Float)?.f_to_device(logits.device())))
    };
    // Logarithms of the probability p of a label and of 1 − p.
    let log_p = || logits.f_log_sigmoid();
    let log_q = || logits.f_neg()?.f_log_sigmoid();
    // The mean of t·positive + (1 − t)·negative, where both are logarithms.
    let mean =
        |positive: &Tensor, negative: &Tensor| negative.f_lerp_tensor(positive, targets)?.f_mean(Kind::Float)?.f_neg();
    match loss {
        Loss::CrossEntropy { weights: None } => {
            let log_p = torch(logits.f_log_softmax(-1, Kind::Float))?;
            let targets = smooth(targets, smoothing)?;
            torch(
                targets
                    .f_mul(&log_p)
                    .and_then(|terms| terms.f_sum_dim_intlist(-1, false, Kind::Float)?.f_mean(Kind::Float)?.f_neg()),
            )
        }
        Loss::CrossEntropy { weights: Some(w) } => {
            let w = weights(w)?;
            let log_p = torch(logits.f_log_softmax(-1, Kind::Float))?;
            let smoothed = smooth(targets, smoothing)?;
            torch(smoothed.f_mul(&log_p).and_then(|terms| {
                terms.f_mul(&w)?.f_sum(Kind::Float)?.f_neg()?.f_div(&targets.f_mul(&w)?.f_sum(Kind::Float)?)
            }))
        }
        Loss::BinaryCrossEntropy { positive: None } => torch(log_p().and_then(|log_p| mean(&log_p, &log_q()?))),
        Loss::BinaryCrossEntropy { positive: Some(w) } => {
            let w = weights(w)?;
            torch(log_p().and_then(|log_p| mean(&log_p.f_mul(&w)?, &log_q()?)))
        }
        Loss::Focal { gamma, alpha } => torch(log_p().and_then(|log_p| {
            let log_q = log_q()?;
            let positive = focused(&log_p, &log_q, *gamma)?.f_mul_scalar(*alpha)?;
            mean(&positive, &focused(&log_q, &log_p, *gamma)?.f_mul_scalar(1.0 - alpha)?)
        })),
        Loss::Asymmetric { gamma_positive, gamma_negative, margin } => torch(log_p().and_then(|log_p| {
            let log_q = log_q()?;
            let positive = focused(&log_p, &log_q, *gamma_positive)?;
            mean(&positive, &shifted(&logits, &log_q, *gamma_negative, *margin)?)
        })),
    }
}

/// Returns (1 − ε)·t + ε / C.
fn smooth(targets: &Tensor, epsilon: f64) -> Result<Tensor> {
    let classes = targets.size().last().copied().unwrap_or(1) as f64;
    torch(targets.f_mul_scalar(1.0 - epsilon).and_then(|targets| targets.f_add_scalar(epsilon / classes)))
}

/// Computes (1 − p)^γ·log p from log p and log(1 − p). The power is computed in the logarithm, where the derivative is finite
/// for every γ.
fn focused(log_p: &Tensor, log_q: &Tensor, gamma: f64) -> tch::Result<Tensor> {
    if gamma == 0.0 { Ok(log_p.shallow_clone()) } else { log_q.f_mul_scalar(gamma)?.f_exp()?.f_mul(log_p) }
}

/// Computes pₘ^γ·log(1 − pₘ) with pₘ = max(p − m, 0).
fn shifted(logits: &Tensor, log_q: &Tensor, gamma: f64, margin: f64) -> tch::Result<Tensor> {
    let shifted = logits.f_sigmoid()?.f_sub_scalar(margin)?;
    let positive = shifted.f_gt(0.0)?;
    let log = if margin == 0.0 {
        log_q.shallow_clone()
    } else {
        logits.f_neg()?.f_sigmoid()?.f_add_scalar(margin)?.f_log()?
    };
    // Both the value and the derivative are 0 at and below the margin, where the derivative of the power may be infinite.
    let power = shifted.f_where_scalarother(&positive, 1.0)?.f_pow_tensor_scalar(gamma)?;
    power.f_mul(&log)?.f_where_scalarother(&positive, 0.0)
}

/// Computes NT-Xent, the contrastive loss of SimCLR (Chen et al. 2020, equation 1), between two views (N, D) of the same N
/// images: the mean over the 2·N views of the cross-entropy that identifies the other view of the same image among the
/// 2·N − 1 other views, by cosine similarity divided by `temperature` > 0.
///
/// # Errors
/// Returns an error if the shapes differ or libtorch runs out of memory.
pub fn nt_xent(first: &Tensor, second: &Tensor, temperature: f64) -> Result<Tensor> {
    let n = first.size()[0];
    torch(Tensor::f_cat(&[first, second], 0).and_then(|views| {
        let views = views.f_to_kind(Kind::Float)?;
        let norms = views.f_square()?.f_sum_dim_intlist(-1, true, Kind::Float)?.f_sqrt()?.f_clamp_min(1e-12)?;
        let unit = views.f_div(&norms)?;
        let similarity = unit.f_mm(&unit.f_transpose(0, 1)?)?.f_div_scalar(temperature)?;
        let itself = Tensor::f_eye(2 * n, (Kind::Bool, first.device()))?;
        let others = similarity.f_masked_fill(&itself, f64::NEG_INFINITY)?;
        let partner = Tensor::f_arange(2 * n, (Kind::Int64, first.device()))?.f_roll(n, 0)?;
        others.f_cross_entropy_loss(&partner, None::<&Tensor>, tch::Reduction::Mean, -100, 0.0)
    }))
}
