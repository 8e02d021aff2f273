//! Label sets as a matrix, and the averages of precision, recall and F1.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::evaluate::counts::{PrecisionRecallF1, ratio};
use crate::evaluate::ranking::top_k_indices;

/// Precision, recall and F1 of label sets in four averages.
///
/// Source: `sklearn.metrics.precision_recall_fscore_support`, except that `macro` excludes labels without a positive clip
/// (scikit-learn counts them as 0).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Averages {
    /// From the counts summed over all labels.
    pub micro: PrecisionRecallF1,
    /// Unweighted mean over the labels with at least one positive clip.
    #[serde(rename = "macro")]
    pub macro_: PrecisionRecallF1,
    /// Mean over the labels weighted by support.
    pub weighted: PrecisionRecallF1,
    /// Mean over the clips of the metrics of their label sets.
    pub samples: PrecisionRecallF1,
}

/// True positives, false positives and false negatives of a label or of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// True positives.
    pub tp: u64,
    /// False positives.
    pub fp: u64,
    /// False negatives.
    pub fn_: u64,
}

impl Counts {
    /// Returns TP + FN.
    pub fn support(self) -> u64 {
        self.tp + self.fn_
    }

    /// Computes precision, recall and F1.
    pub fn metrics(self) -> PrecisionRecallF1 {
        let Self { tp, fp, fn_ } = self;
        PrecisionRecallF1 {
            precision: ratio(tp, tp + fp),
            recall: ratio(tp, tp + fn_),
            f1: ratio(2 * tp, 2 * tp + fp + fn_),
        }
    }

    fn add(&mut self, truth: bool, predicted: bool) {
        self.tp += u64::from(truth && predicted);
        self.fp += u64::from(!truth && predicted);
        self.fn_ += u64::from(truth && !predicted);
    }
}

/// The label sets of N clips over C labels as a boolean matrix, (N, C).
#[derive(Debug, Clone, PartialEq)]
pub struct LabelMatrix(Array2<bool>);

impl LabelMatrix {
    /// Builds the matrix of the sets at `rows`; the elements of `sets` are below `classes`.
    pub fn from_sets(sets: &[Vec<usize>], rows: &[usize], classes: usize) -> Self {
        let mut matrix = Array2::from_elem((rows.len(), classes), false);
        for (i, &row) in rows.iter().enumerate() {
            sets[row].iter().for_each(|&class| matrix[(i, class)] = true);
        }
        Self(matrix)
    }

    /// Selects the labels whose score is at least their threshold; `scores` is (N, C), `thresholds` is (C).
    pub fn from_thresholds(scores: &Array2<f32>, thresholds: &[f32]) -> Self {
        Self(Array2::from_shape_fn(scores.dim(), |(i, class)| scores[(i, class)] >= thresholds[class]))
    }

    /// Selects the `k` labels with the highest scores of every clip (ties: the lower index); `scores` is (N, C).
    pub fn from_top_k(scores: &Array2<f32>, k: usize) -> Self {
        let mut matrix = Array2::from_elem(scores.dim(), false);
        for (i, scores) in scores.outer_iter().enumerate() {
            top_k_indices(&scores.to_vec(), k).into_iter().for_each(|class| matrix[(i, class)] = true);
        }
        Self(matrix)
    }

    /// Returns the matrix, (N, C).
    pub fn matrix(&self) -> ArrayView2<'_, bool> {
        self.0.view()
    }

    /// Returns the column of a label, (N).
    pub fn label(&self, class: usize) -> Vec<bool> {
        self.0.column(class).to_vec()
    }

    /// Counts the predictions of every label, C of them; `self` is the truth.
    pub fn counts(&self, predicted: &Self) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.0.ncols()];
        for (truth, predicted) in self.0.outer_iter().zip(predicted.0.outer_iter()) {
            for (counts, (&truth, &predicted)) in counts.iter_mut().zip(truth.iter().zip(predicted)) {
                counts.add(truth, predicted);
            }
        }
        counts
    }

    /// Computes the fraction of clips with equal sets, in [0, 1]; 0 without clips.
    ///
    /// Source: `sklearn.metrics.accuracy_score` (subset accuracy).
    pub fn exact_match(&self, other: &Self) -> f64 {
        let equal = self.0.outer_iter().zip(other.0.outer_iter()).filter(|(a, b)| a == b).count();
        ratio(equal as u64, self.0.nrows() as u64)
    }

    /// Computes the fraction of (clip, label) pairs that differ, in [0, 1]; 0 without clips.
    ///
    /// Source: `sklearn.metrics.hamming_loss`.
    pub fn hamming_loss(&self, other: &Self) -> f64 {
        let different = self.0.iter().zip(&other.0).filter(|(a, b)| a != b).count();
        ratio(different as u64, self.0.len() as u64)
    }
}

impl Averages {
    /// Computes the averages.
    pub fn compute(truth: &LabelMatrix, predicted: &LabelMatrix) -> Self {
        let counts = truth.counts(predicted);
        let mut total = Counts::default();
        for label in &counts {
            (total.tp, total.fp, total.fn_) = (total.tp + label.tp, total.fp + label.fp, total.fn_ + label.fn_);
        }
        let labels: Vec<(f64, PrecisionRecallF1)> = counts
            .iter()
            .filter(|counts| counts.support() > 0)
            .map(|counts| (counts.support() as f64, counts.metrics()))
            .collect();
        let clips = truth.0.outer_iter().zip(predicted.0.outer_iter()).map(|(truth, predicted)| {
            let mut counts = Counts::default();
            truth.iter().zip(predicted).for_each(|(&truth, &predicted)| counts.add(truth, predicted));
            (1.0, counts.metrics())
        });
        Self {
            micro: total.metrics(),
            macro_: weighted_mean(labels.iter().map(|&(_, metrics)| (1.0, metrics))),
            weighted: weighted_mean(labels.iter().copied()),
            samples: weighted_mean(clips),
        }
    }
}

/// Computes the mean of (weight, metrics) pairs; 0 without pairs.
fn weighted_mean(weighted: impl Iterator<Item = (f64, PrecisionRecallF1)>) -> PrecisionRecallF1 {
    let (mut total, mut sum) = (0.0, PrecisionRecallF1::default());
    for (weight, metrics) in weighted {
        total += weight;
        sum.precision += weight * metrics.precision;
        sum.recall += weight * metrics.recall;
        sum.f1 += weight * metrics.f1;
    }
    if total == 0.0 {
        return sum;
    }
    PrecisionRecallF1 { precision: sum.precision / total, recall: sum.recall / total, f1: sum.f1 / total }
}
