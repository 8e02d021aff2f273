//! Sets of labels as a matrix, their counts, and precision, recall and F1 in four averages.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::per_clip::highest;
use crate::evaluate::{Average, ratio};

/// Precision, recall and F1 of sets of labels, averaged in four ways.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Averages {
    /// From the counts summed over all labels.
    pub micro: Average,
    /// Unweighted mean over the labels that some clip has.
    #[serde(rename = "macro")]
    pub macro_: Average,
    /// Mean over the labels weighted by support.
    pub weighted: Average,
    /// Mean over the clips, each by the labels it has and was given.
    pub samples: Average,
}

/// What one label, or one clip, gets right and wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Given and there.
    pub tp: u64,
    /// Given, but not there.
    pub fp: u64,
    /// There, but not given.
    pub fn_: u64,
}

impl Counts {
    /// How often it is there.
    pub fn support(self) -> u64 {
        self.tp + self.fn_
    }

    /// Precision, recall and F1.
    pub fn average(self) -> Average {
        let Self { tp, fp, fn_ } = self;
        Average { precision: ratio(tp, tp + fp), recall: ratio(tp, tp + fn_), f1: ratio(2 * tp, 2 * tp + fp + fn_) }
    }

    fn add(&mut self, truth: bool, predicted: bool) {
        self.tp += u64::from(truth && predicted);
        self.fp += u64::from(!truth && predicted);
        self.fn_ += u64::from(truth && !predicted);
    }
}

/// Which of C labels each of N clips has, (N, C).
#[derive(Debug, Clone, PartialEq)]
pub struct Sets(Array2<bool>);

impl Sets {
    /// The sets at `rows` of `sets`, whose elements are below `classes`.
    pub fn of(sets: &[Vec<usize>], rows: &[usize], classes: usize) -> Self {
        let mut matrix = Array2::from_elem((rows.len(), classes), false);
        for (i, &row) in rows.iter().enumerate() {
            sets[row].iter().for_each(|&class| matrix[(i, class)] = true);
        }
        Self(matrix)
    }

    /// The labels that score at least their threshold; `scores` is (N, C), `thresholds` (C).
    pub fn at_least(scores: &Array2<f32>, thresholds: &[f32]) -> Self {
        Self(Array2::from_shape_fn(scores.dim(), |(i, class)| scores[(i, class)] >= thresholds[class]))
    }

    /// The `k` highest labels of every clip; of equal scores, the lower label index.
    pub fn highest(scores: &Array2<f32>, k: usize) -> Self {
        let mut matrix = Array2::from_elem(scores.dim(), false);
        for (i, scores) in scores.outer_iter().enumerate() {
            highest(&scores.to_vec(), k).into_iter().for_each(|class| matrix[(i, class)] = true);
        }
        Self(matrix)
    }

    /// The matrix, (N, C).
    pub fn matrix(&self) -> ArrayView2<'_, bool> {
        self.0.view()
    }

    /// Which clips have label `class`, (N).
    pub fn label(&self, class: usize) -> Vec<bool> {
        self.0.column(class).to_vec()
    }

    /// The counts of every label, C of them; `self` is the truth.
    pub fn counts(&self, predicted: &Self) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.0.ncols()];
        for (truth, predicted) in self.0.outer_iter().zip(predicted.0.outer_iter()) {
            for (counts, (&truth, &predicted)) in counts.iter_mut().zip(truth.iter().zip(predicted)) {
                counts.add(truth, predicted);
            }
        }
        counts
    }

    /// Share of the clips whose two sets are the same; 0 without clips.
    pub fn agreement(&self, other: &Self) -> f64 {
        let same = self.0.outer_iter().zip(other.0.outer_iter()).filter(|(a, b)| a == b).count();
        ratio(same as u64, self.0.nrows() as u64)
    }

    /// Share of the (clip, label) pairs in which the two differ; 0 without clips.
    pub fn disagreement(&self, other: &Self) -> f64 {
        let different = self.0.iter().zip(&other.0).filter(|(a, b)| a != b).count();
        ratio(different as u64, self.0.len() as u64)
    }
}

impl Averages {
    /// The averages of `predicted` against `truth`.
    pub fn of(truth: &Sets, predicted: &Sets) -> Self {
        let counts = truth.counts(predicted);
        let mut all = Counts::default();
        for one in &counts {
            (all.tp, all.fp, all.fn_) = (all.tp + one.tp, all.fp + one.fp, all.fn_ + one.fn_);
        }
        let present: Vec<(f64, Average)> = counts
            .iter()
            .filter(|counts| counts.support() > 0)
            .map(|counts| (counts.support() as f64, counts.average()))
            .collect();
        let clips: Vec<(f64, Average)> = truth
            .0
            .outer_iter()
            .zip(predicted.0.outer_iter())
            .map(|(truth, predicted)| {
                let mut counts = Counts::default();
                truth.iter().zip(predicted).for_each(|(&truth, &predicted)| counts.add(truth, predicted));
                (1.0, counts.average())
            })
            .collect();
        Self {
            micro: all.average(),
            macro_: mean(present.iter().map(|&(_, average)| (1.0, average))),
            weighted: mean(present.iter().copied()),
            samples: mean(clips.into_iter()),
        }
    }
}

/// The weighted mean; zeros of nothing.
fn mean(weighted: impl Iterator<Item = (f64, Average)>) -> Average {
    let (mut total, mut sum) = (0.0, Average::default());
    for (weight, average) in weighted {
        total += weight;
        sum.precision += weight * average.precision;
        sum.recall += weight * average.recall;
        sum.f1 += weight * average.f1;
    }
    if total == 0.0 {
        return sum;
    }
    Average { precision: sum.precision / total, recall: sum.recall / total, f1: sum.f1 / total }
}
