//! Losses over a head's outputs (logits), and the scores that belong to them.

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};

use super::numeric::Real;
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::recipe::{self, ClassWeights, LossKind};

/// A loss between logits z (N, C) and multi-hot targets t (N, C).
///
/// The losses of several labels are means over all N·C elements; p is σ(z).
#[derive(Debug, Clone, PartialEq)]
pub enum Loss {
    /// Softmax and cross-entropy: exactly one class a clip. −w_class·log softmax(z)_class, summed over the clips and divided
    /// by the sum of their weights, as `torch.nn.CrossEntropyLoss`.
    CrossEntropy {
        /// w, (C); `None` where all are 1.
        weights: Option<Vec<f64>>,
    },
    /// Binary cross-entropy, −w·t·log p − (1 − t)·log(1 − p), as `torch.nn.BCEWithLogitsLoss`.
    BinaryCrossEntropy {
        /// w, (C), the weight of positives (`pos_weight`); `None` where all are 1.
        positive: Option<Vec<f64>>,
    },
    /// Asymmetric loss (Ridnik et al. 2021, equations 4 to 6): −(1 − p)^γ⁺·log p for positives, and for negatives
    /// −pₘ^γ⁻·log(1 − pₘ) with pₘ = max(p − m, 0). The gradient takes the focusing factors along.
    Asymmetric {
        /// γ⁺ ≥ 0.
        gamma_positive: f64,
        /// γ⁻ ≥ 0.
        gamma_negative: f64,
        /// m in [0, 1).
        margin: f64,
    },
    /// Focal loss (Lin et al. 2017, equation 5): −α·(1 − p)^γ·log p for positives, −(1 − α)·p^γ·log(1 − p) for negatives, as
    /// `torchvision.ops.sigmoid_focal_loss`.
    Focal {
        /// γ ≥ 0.
        gamma: f64,
        /// α in [0, 1].
        alpha: f64,
    },
}

impl Loss {
    /// The loss of `settings` for a task; `targets` (N, C) are those of the training split, which weights are counted on.
    ///
    /// # Errors
    /// The loss does not suit the task, or has no weights.
    pub fn new(settings: &recipe::Loss, task: Task, targets: ArrayView2<'_, f32>) -> Result<Self> {
        let usual = match task {
            Task::SingleLabel => LossKind::CrossEntropy,
            Task::MultiLabel => LossKind::Bce,
        };
        let kind = settings.kind.unwrap_or(usual);
        if (task == Task::SingleLabel) != (kind == LossKind::CrossEntropy) {
            return Err(Error::Data(match task {
                Task::SingleLabel => "classify.loss.kind: one label a clip is learnt by cross-entropy; take it, or --task multi-label",
                Task::MultiLabel => "classify.loss.kind: several labels a clip are learnt by bce, asymmetric or focal; take one, or --task single-label",
            }.into()));
        }
        let balanced = settings.weights == ClassWeights::Balanced;
        if balanced && matches!(kind, LossKind::Asymmetric | LossKind::Focal) {
            return Err(Error::Data(
                "classify.loss.weights: the asymmetric and the focal loss weigh by their own values; take none".into(),
            ));
        }
        let (n, classes) = (targets.nrows() as f64, targets.ncols() as f64);
        let weights = |weight: &dyn Fn(f64) -> f64| {
            let count = |column: ArrayView1<'_, f32>| column.iter().map(|&t| f64::from(t)).sum::<f64>().max(1.0);
            balanced.then(|| targets.columns().into_iter().map(|column| weight(count(column))).collect())
        };
        Ok(match kind {
            LossKind::CrossEntropy => Loss::CrossEntropy { weights: weights(&|count| n / (classes * count)) },
            LossKind::Bce => Loss::BinaryCrossEntropy { positive: weights(&|count| (n - count) / count) },
            LossKind::Asymmetric => Loss::Asymmetric {
                gamma_positive: settings.gamma_positive,
                gamma_negative: settings.gamma_negative,
                margin: settings.margin,
            },
            LossKind::Focal => Loss::Focal { gamma: settings.focal_gamma, alpha: settings.focal_alpha },
        })
    }

    /// Turns logits into the gradient of the loss by them, in place, and gives the loss (N ≥ 1).
    pub fn gradient<T: Real>(&self, mut logits: ArrayViewMut2<'_, T>, targets: ArrayView2<'_, f32>) -> f64 {
        if let Loss::CrossEntropy { weights } = self {
            let loss = self.value(logits.view(), targets);
            scores(Task::SingleLabel, logits.view_mut());
            let of_clip = clip_weights(weights.as_deref(), targets);
            let total: f64 = of_clip.iter().sum();
            for ((mut row, target), weight) in logits.rows_mut().into_iter().zip(targets.rows()).zip(of_clip) {
                let share = T::of(weight / total);
                row.zip_mut_with(&target, |p, &target| *p = (*p - T::of(f64::from(target))) * share);
            }
            return loss;
        }
        let share = 1.0 / logits.len() as f64;
        let mut sum = 0.0;
        for (mut row, target) in logits.rows_mut().into_iter().zip(targets.rows()) {
            for (label, (z, &target)) in row.iter_mut().zip(target).enumerate() {
                let (value, slope) = self.element(z.double(), target > 0.0, label);
                sum += value;
                *z = T::of(slope * share);
            }
        }
        sum / logits.len() as f64
    }

    /// The loss over N ≥ 1 clips.
    pub fn value<T: Real>(&self, logits: ArrayView2<'_, T>, targets: ArrayView2<'_, f32>) -> f64 {
        let rows = logits.rows().into_iter().zip(targets.rows());
        if let Loss::CrossEntropy { weights } = self {
            let of_clip = clip_weights(weights.as_deref(), targets);
            let total: f64 = rows
                .zip(&of_clip)
                .map(|((row, target), weight)| {
                    let top = row.fold(T::neg_infinity(), |a, &b| a.max(b));
                    let log_sum = row.iter().map(|&z| (z - top).double().exp()).sum::<f64>().ln() + top.double();
                    let chosen = row.iter().zip(target).map(|(&z, &t)| z.double() * f64::from(t)).sum::<f64>();
                    weight * (log_sum - chosen)
                })
                .sum();
            return total / of_clip.iter().sum::<f64>();
        }
        let elements = rows.flat_map(|(row, target)| {
            let pairs: Vec<(f64, bool)> = row.iter().zip(target).map(|(z, &t)| (z.double(), t > 0.0)).collect();
            pairs.into_iter().enumerate()
        });
        elements.map(|(label, (z, target))| self.element(z, target, label).0).sum::<f64>() / logits.len() as f64
    }

    /// Value and slope of one element of a loss of several labels.
    fn element(&self, z: f64, target: bool, label: usize) -> (f64, f64) {
        // Of a negative, −z is to the loss what z is of a positive.
        let mirrored = |(value, slope): (f64, f64)| (value, -slope);
        match self {
            Loss::CrossEntropy { .. } => unreachable!("its elements depend on each other"),
            Loss::BinaryCrossEntropy { positive } => {
                let weight = positive.as_ref().map_or(1.0, |weights| weights[label]);
                let (value, slope) = if target { focused(z, 0.0) } else { mirrored(focused(-z, 0.0)) };
                if target { (weight * value, weight * slope) } else { (value, slope) }
            }
            Loss::Focal { gamma, alpha } => {
                let (value, slope) = if target { focused(z, *gamma) } else { mirrored(focused(-z, *gamma)) };
                let weight = if target { *alpha } else { 1.0 - alpha };
                (weight * value, weight * slope)
            }
            Loss::Asymmetric { gamma_positive, .. } if target => focused(z, *gamma_positive),
            Loss::Asymmetric { gamma_negative: gamma, margin, .. } => {
                let (p, q) = (sigmoid(z), sigmoid(-z));
                let shifted = p - margin;
                if shifted <= 0.0 {
                    return (0.0, 0.0);
                }
                let log = if *margin == 0.0 { log_sigmoid(-z) } else { (q + margin).ln() };
                let by_power = if *gamma == 0.0 { 0.0 } else { gamma * shifted.powf(gamma - 1.0) * log };
                let focus = shifted.powf(*gamma);
                (-focus * log, (focus * p * q / (q + margin)) - by_power * p * q)
            }
        }
    }
}

/// −(1 − p)^γ·log p and its slope by z, γ·(1 − p)^γ·p·log p − (1 − p)^(γ + 1).
fn focused(z: f64, gamma: f64) -> (f64, f64) {
    let (p, q, log) = (sigmoid(z), sigmoid(-z), log_sigmoid(z));
    let focus = q.powf(gamma);
    (-focus * log, gamma * focus * p * log - focus * q)
}

fn sigmoid(z: f64) -> f64 {
    log_sigmoid(z).exp()
}

fn log_sigmoid(z: f64) -> f64 {
    z.min(0.0) - (-z.abs()).exp().ln_1p()
}

/// The weight of each clip: that of its class.
fn clip_weights(weights: Option<&[f64]>, targets: ArrayView2<'_, f32>) -> Vec<f64> {
    let weight = |target: ArrayView1<'_, f32>| match weights {
        None => 1.0,
        Some(weights) => target.iter().zip(weights).map(|(&t, weight)| f64::from(t) * weight).sum(),
    };
    targets.rows().into_iter().map(weight).collect()
}

/// Turns logits (N, C) into scores in [0, 1], in place: the softmax, whose rows sum to 1, for one label a clip, and the
/// sigmoid for several.
pub fn scores<T: Real>(task: Task, mut logits: ArrayViewMut2<'_, T>) {
    match task {
        Task::SingleLabel => {
            for mut row in logits.axis_iter_mut(Axis(0)) {
                let top = row.fold(T::neg_infinity(), |a, &b| a.max(b));
                row.mapv_inplace(|z| (z - top).exp());
                let sum = row.sum();
                row /= sum;
            }
        }
        Task::MultiLabel => logits.mapv_inplace(|z| T::of(sigmoid(z.double()))),
    }
}

/// The share of (clip, label) pairs for which a score from 0.5 on, a logit from 0 on, says whether the clip has the label;
/// NaN where there is none.
pub fn binary_accuracy(logits: &Array2<f32>, targets: &Array2<f32>) -> f64 {
    let right = logits.iter().zip(targets).filter(|&(&z, &t)| (z >= 0.0) == (t > 0.0)).count();
    right as f64 / logits.len() as f64
}

/// What is watched while training: accuracy (the highest logit, the first of several, is at a target) for one label a
/// clip, mean average precision for several; NaN where there is no clip, or no target.
pub fn score(task: Task, logits: &Array2<f32>, targets: &Array2<f32>) -> f64 {
    match task {
        Task::SingleLabel => {
            let highest = |row: ArrayView1<'_, f32>| {
                row.iter().enumerate().fold(0, |best, (i, z)| if *z > row[best] { i } else { best })
            };
            let rows = logits.rows().into_iter().zip(targets.rows());
            rows.filter(|(row, target)| target[highest(*row)] > 0.0).count() as f64 / logits.nrows() as f64
        }
        Task::MultiLabel => {
            crate::evaluate::ranking::mean_average_precision(targets.view(), logits.view()).unwrap_or(f64::NAN)
        }
    }
}
