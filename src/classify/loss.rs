//! Losses over a head's outputs (logits), with the scores that belong to them.

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use super::numeric::Real;

/// A loss between logits (N, C) and multi-hot targets (N, C). It decides what a network's outputs mean, so it also turns
/// them into scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Softmax and cross-entropy: exactly one class a clip. −log softmax(z)_class, averaged over the N clips, as
    /// `torch.nn.CrossEntropyLoss`.
    CrossEntropy,
}

impl Loss {
    /// Turns logits into the gradient of the mean loss by them, in place, and gives the mean loss (N ≥ 1).
    pub fn gradient<T: Real>(self, mut logits: ArrayViewMut2<'_, T>, targets: ArrayView2<'_, f32>) -> f64 {
        match self {
            Loss::CrossEntropy => {
                let loss = self.value(logits.view(), targets);
                self.scores(logits.view_mut());
                let share = T::of(1.0 / logits.nrows() as f64);
                logits.zip_mut_with(&targets, |p, &target| *p = (*p - T::of(f64::from(target))) * share);
                loss
            }
        }
    }

    /// The mean loss over N ≥ 1 clips.
    pub fn value<T: Real>(self, logits: ArrayView2<'_, T>, targets: ArrayView2<'_, f32>) -> f64 {
        match self {
            Loss::CrossEntropy => {
                let total: f64 = logits
                    .rows()
                    .into_iter()
                    .zip(targets.rows())
                    .map(|(row, target)| {
                        let top = row.fold(T::neg_infinity(), |a, &b| a.max(b));
                        let log_sum = row.iter().map(|&z| (z - top).double().exp()).sum::<f64>().ln() + top.double();
                        let chosen = row.iter().zip(target).map(|(&z, &t)| z.double() * f64::from(t)).sum::<f64>();
                        log_sum - chosen
                    })
                    .sum();
                total / logits.nrows() as f64
            }
        }
    }

    /// Turns logits into scores in [0, 1], in place: for cross-entropy the softmax, whose rows sum to 1.
    pub fn scores<T: Real>(self, mut logits: ArrayViewMut2<'_, T>) {
        match self {
            Loss::CrossEntropy => {
                for mut row in logits.axis_iter_mut(Axis(0)) {
                    let top = row.fold(T::neg_infinity(), |a, &b| a.max(b));
                    row.mapv_inplace(|z| (z - top).exp());
                    let sum = row.sum();
                    row /= sum;
                }
            }
        }
    }
}
