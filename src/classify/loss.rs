//! Losses on logits, and the scores computed from logits.

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

use super::definition::non_negative;
use super::numeric::Real;
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::value_parsers;

/// Settings of the loss; the table `[classify.loss]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct LossSettings {
    /// Loss function [default: cross-entropy for one label per clip, bce for several].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(id = "loss", long = "loss", value_name = "LOSS")]
    pub kind: Option<LossKind>,
    /// Class weights against imbalance (losses cross-entropy, bce).
    #[arg(id = "loss_weights", long = "loss-weights", value_name = "RULE")]
    pub weights: ClassWeights,
    /// γ⁺ of the asymmetric loss.
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub gamma_positive: f64,
    /// γ⁻ of the asymmetric loss.
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub gamma_negative: f64,
    /// Probability margin m of the asymmetric loss.
    #[arg(long, value_name = "X", value_parser = value_parsers::below_one::<f64>)]
    pub margin: f64,
    /// γ of the focal loss.
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub focal_gamma: f64,
    /// α of the focal loss: weight of positives; negatives weigh 1 − α.
    #[arg(long, value_name = "X", value_parser = value_parsers::probability::<f64>)]
    pub focal_alpha: f64,
}

impl Default for LossSettings {
    fn default() -> Self {
        Self {
            kind: None,
            weights: ClassWeights::None,
            gamma_positive: 0.0,
            gamma_negative: 4.0,
            margin: 0.05,
            focal_gamma: 2.0,
            focal_alpha: 0.25,
        }
    }
}

/// Loss functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Softmax and cross-entropy: one label per clip.
    CrossEntropy,
    /// Binary cross-entropy of each label.
    Bce,
    /// Asymmetric loss (Ridnik et al. 2021) of each label.
    Asymmetric,
    /// Focal loss (Lin et al. 2017) of each label.
    Focal,
}

/// Class weights, computed from N training clips of which n_c have class c, of C classes. With linear classifiers they are those of
/// scikit-learn's `class_weight`; for several labels per clip, having a label and lacking it are two classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// All 1.
    None,
    /// Cross-entropy: N/(C·n_c), scikit-learn's `balanced`. Binary cross-entropy: positives weigh (N − n_c)/n_c.
    Balanced,
}

impl LossSettings {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> std::result::Result<(), String> {
        non_negative("classify.loss.gamma_positive", self.gamma_positive)?;
        non_negative("classify.loss.gamma_negative", self.gamma_negative)?;
        non_negative("classify.loss.focal_gamma", self.focal_gamma)?;
        if !(0.0..1.0).contains(&self.margin) {
            return Err("classify.loss.margin must be in [0, 1)".into());
        }
        if !(0.0..=1.0).contains(&self.focal_alpha) {
            return Err("classify.loss.focal_alpha must be in [0, 1]".into());
        }
        Ok(())
    }

    /// Returns the flags that the chosen loss ignores, and its name.
    pub fn unused_flags(&self) -> (&'static [&'static str], String) {
        const ASYMMETRIC: [&str; 3] = ["gamma_positive", "gamma_negative", "margin"];
        const FOCAL: [&str; 2] = ["focal_gamma", "focal_alpha"];
        const BOTH: [&str; 5] = ["gamma_positive", "gamma_negative", "margin", "focal_gamma", "focal_alpha"];
        match self.kind {
            None => (&BOTH, "the default loss".into()),
            Some(LossKind::CrossEntropy) => (&BOTH, "loss cross-entropy".into()),
            Some(LossKind::Bce) => (&BOTH, "loss bce".into()),
            Some(LossKind::Asymmetric) => (&FOCAL, "loss asymmetric".into()),
            Some(LossKind::Focal) => (&ASYMMETRIC, "loss focal".into()),
        }
    }
}

/// A loss between logits z (N, C) and multi-hot targets t (N, C).
///
/// The multi-label losses are means over all N·C elements; p = σ(z).
#[derive(Debug, Clone, PartialEq)]
pub enum Loss {
    /// Softmax and cross-entropy, for exactly one class per clip: −w_class·log softmax(z)_class, summed over the clips and
    /// divided by the sum of their weights, as in `torch.nn.CrossEntropyLoss`.
    CrossEntropy {
        /// w, (C); `None` if all are 1.
        weights: Option<Vec<f64>>,
    },
    /// Binary cross-entropy, −w·t·log p − (1 − t)·log(1 − p), as in `torch.nn.BCEWithLogitsLoss`.
    BinaryCrossEntropy {
        /// w, (C), the weight of positives (`pos_weight`); `None` if all are 1.
        positive: Option<Vec<f64>>,
    },
    /// Asymmetric loss (Ridnik et al. 2021, equations 4 to 6): −(1 − p)^γ⁺·log p for positives, and for negatives
    /// −pₘ^γ⁻·log(1 − pₘ) with pₘ = max(p − m, 0). The gradient includes the focusing factors.
    Asymmetric {
        /// γ⁺ ≥ 0.
        gamma_positive: f64,
        /// γ⁻ ≥ 0.
        gamma_negative: f64,
        /// m in [0, 1).
        margin: f64,
    },
    /// Focal loss (Lin et al. 2017, equation 5): −α·(1 − p)^γ·log p for positives, −(1 − α)·p^γ·log(1 − p) for negatives, as
    /// in `torchvision.ops.sigmoid_focal_loss`.
    Focal {
        /// γ ≥ 0.
        gamma: f64,
        /// α in [0, 1].
        alpha: f64,
    },
}

impl Loss {
    /// Creates the loss of `settings` for a task. Class weights are computed from `targets` (N, C), those of the training
    /// split.
    ///
    /// # Errors
    /// Returns an error if the loss does not support the task or class weights.
    pub fn new(settings: &LossSettings, task: Task, targets: ArrayView2<'_, f32>) -> Result<Self> {
        let default = match task {
            Task::SingleLabel => LossKind::CrossEntropy,
            Task::MultiLabel => LossKind::Bce,
        };
        let kind = settings.kind.unwrap_or(default);
        if (task == Task::SingleLabel) != (kind == LossKind::CrossEntropy) {
            return Err(Error::Data(match task {
                Task::SingleLabel => "classify.loss.kind: single-label tasks use cross-entropy; choose it, or --task multi-label",
                Task::MultiLabel => "classify.loss.kind: multi-label tasks use bce, asymmetric or focal; choose one, or --task single-label",
            }.into()));
        }
        let balanced = settings.weights == ClassWeights::Balanced;
        if balanced && matches!(kind, LossKind::Asymmetric | LossKind::Focal) {
            return Err(Error::Data(
                "classify.loss.weights: the losses asymmetric and focal do not support class weights; use none".into(),
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

    /// Replaces logits by the gradient of the loss with respect to them and returns the loss, for N ≥ 1 clips.
    pub fn gradient<T: Real>(&self, mut logits: ArrayViewMut2<'_, T>, targets: ArrayView2<'_, f32>) -> f64 {
        if let Loss::CrossEntropy { weights } = self {
            let loss = self.value(logits.view(), targets);
            scores(Task::SingleLabel, logits.view_mut());
            let per_clip = clip_weights(weights.as_deref(), targets);
            let total: f64 = per_clip.iter().sum();
            for ((mut row, target), weight) in logits.rows_mut().into_iter().zip(targets.rows()).zip(per_clip) {
                let factor = T::of(weight / total);
                row.zip_mut_with(&target, |p, &target| *p = (*p - T::of(f64::from(target))) * factor);
            }
            return loss;
        }
        let scale = 1.0 / logits.len() as f64;
        let mut sum = 0.0;
        for (mut row, target) in logits.rows_mut().into_iter().zip(targets.rows()) {
            for (label, (z, &target)) in row.iter_mut().zip(target).enumerate() {
                let (value, slope) = self.element(z.double(), target > 0.0, label);
                sum += value;
                *z = T::of(slope * scale);
            }
        }
        sum / logits.len() as f64
    }

    /// Computes the loss over N ≥ 1 clips.
    pub fn value<T: Real>(&self, logits: ArrayView2<'_, T>, targets: ArrayView2<'_, f32>) -> f64 {
        let rows = logits.rows().into_iter().zip(targets.rows());
        if let Loss::CrossEntropy { weights } = self {
            let per_clip = clip_weights(weights.as_deref(), targets);
            let total: f64 = rows
                .zip(&per_clip)
                .map(|((row, target), weight)| {
                    let top = row.fold(T::neg_infinity(), |a, &b| a.max(b));
                    let log_sum = row.iter().map(|&z| (z - top).double().exp()).sum::<f64>().ln() + top.double();
                    let chosen = row.iter().zip(target).map(|(&z, &t)| z.double() * f64::from(t)).sum::<f64>();
                    weight * (log_sum - chosen)
                })
                .sum();
            return total / per_clip.iter().sum::<f64>();
        }
        let elements = rows.flat_map(|(row, target)| {
            let pairs: Vec<(f64, bool)> = row.iter().zip(target).map(|(z, &t)| (z.double(), t > 0.0)).collect();
            pairs.into_iter().enumerate()
        });
        elements.map(|(label, (z, target))| self.element(z, target, label).0).sum::<f64>() / logits.len() as f64
    }

    /// Computes the value and the derivative of one element of a multi-label loss.
    fn element(&self, z: f64, target: bool, label: usize) -> (f64, f64) {
        // The loss of a negative at z is that of a positive at −z.
        let mirrored = |(value, slope): (f64, f64)| (value, -slope);
        match self {
            Loss::CrossEntropy { .. } => unreachable!("softmax couples the classes"),
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

/// Computes −(1 − p)^γ·log p and its derivative with respect to z, γ·(1 − p)^γ·p·log p − (1 − p)^(γ + 1).
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

/// Returns the class weight of each clip.
fn clip_weights(weights: Option<&[f64]>, targets: ArrayView2<'_, f32>) -> Vec<f64> {
    let weight = |target: ArrayView1<'_, f32>| match weights {
        None => 1.0,
        Some(weights) => target.iter().zip(weights).map(|(&t, weight)| f64::from(t) * weight).sum(),
    };
    targets.rows().into_iter().map(weight).collect()
}

/// Replaces logits (N, C) by scores in [0, 1]: softmax (rows sum to 1) for one label per clip, sigmoid for several.
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

/// Computes the share of (clip, label) pairs that are classified correctly at a score threshold of 0.5 (logit ≥ 0); NaN if
/// there are none.
pub fn binary_accuracy(logits: &Array2<f32>, targets: &Array2<f32>) -> f64 {
    let correct = logits.iter().zip(targets).filter(|&(&z, &t)| (z >= 0.0) == (t > 0.0)).count();
    correct as f64 / logits.len() as f64
}

/// Computes the score of an epoch: accuracy for one label per clip (ties: the first of the highest logits), mean average
/// precision for several. NaN if there is no clip or no positive target.
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
