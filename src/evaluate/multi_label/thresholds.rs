//! Per-label decision thresholds, tuned on the validation split.

use serde::{Deserialize, Serialize};

use super::averages::{Averages, LabelMatrix};
use crate::dataset::Task;
use crate::evaluate::counts::ratio;
use crate::evaluate::predictions::{DEFAULT_THRESHOLD, Predictions};
use crate::evaluate::ranking::descending;

/// Minimum number of validation clips of a label for which its threshold is tuned. The score with the highest F1 of fewer clips
/// depends on single clips: with one clip it is the score of that clip, however low.
pub const MIN_CLIPS: u64 = 5;

/// The threshold of a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelThreshold {
    /// Name of the label.
    pub label: String,
    /// Minimum score at which the label is predicted.
    pub threshold: f32,
    /// `true` if the threshold is tuned, `false` if it is [`DEFAULT_THRESHOLD`], because fewer than [`MIN_CLIPS`] validation clips
    /// have the label. Files of earlier versions, which tuned all of them, lack the key.
    #[serde(default = "yes")]
    pub tuned: bool,
    /// F1 of the label with the threshold, in [0, 1]; `None` if no clip has the label.
    pub f1: Option<f64>,
}

/// Thresholds and the metrics of the label sets that they predict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Thresholds in the order of the classes.
    pub per_label: Vec<LabelThreshold>,
    /// Precision, recall and F1 with these thresholds.
    #[serde(flatten)]
    pub averages: Averages,
    /// Fraction of clips with the correct label set, in [0, 1].
    pub exact_match: f64,
    /// Fraction of wrong (clip, label) pairs, in [0, 1].
    pub hamming_loss: f64,
}

fn yes() -> bool {
    true
}

impl Thresholds {
    /// Tunes the thresholds: for each label the score with the highest F1 (ties: the highest score), or
    /// [`DEFAULT_THRESHOLD`] if fewer than [`MIN_CLIPS`] clips have the label. `None` without scores or labeled clips, and for single-label tasks.
    pub fn tune(predictions: &Predictions) -> Option<Self> {
        let rows = predictions.labeled_rows();
        let scores = predictions.scores.as_ref().filter(|_| !rows.is_empty())?;
        if predictions.task != Task::MultiLabel {
            return None;
        }
        let truth = LabelMatrix::from_sets(&predictions.truth, &rows, predictions.classes.len());
        let threshold = |class: usize| {
            let column: Vec<f32> = rows.iter().map(|&row| scores[(row, class)]).collect();
            best_threshold(&truth.label(class), &column)
        };
        Self::evaluate(predictions, &(0..predictions.classes.len()).map(threshold).collect::<Vec<_>>())
    }

    /// Applies the thresholds to other clips. Labels are matched by name; a label without a threshold gets
    /// [`DEFAULT_THRESHOLD`]. `None` without scores or labeled clips.
    pub fn apply(&self, predictions: &Predictions) -> Option<Self> {
        let threshold = |label: &String| {
            let tuned = self.per_label.iter().find(|tuned| tuned.label == *label);
            tuned.filter(|tuned| tuned.tuned).map(|tuned| tuned.threshold)
        };
        Self::evaluate(predictions, &predictions.classes.iter().map(threshold).collect::<Vec<_>>())
    }

    /// Returns the thresholds in the order of the classes.
    pub fn values(&self) -> Vec<f32> {
        self.per_label.iter().map(|label| label.threshold).collect()
    }

    /// Returns the names of the labels whose threshold is not tuned.
    pub fn not_tuned(&self) -> Vec<&str> {
        self.per_label.iter().filter(|label| !label.tuned).map(|label| label.label.as_str()).collect()
    }

    /// Computes the metrics with these thresholds, or [`DEFAULT_THRESHOLD`] for labels without one.
    fn evaluate(predictions: &Predictions, tuned: &[Option<f32>]) -> Option<Self> {
        let rows = predictions.labeled_rows();
        let scores = predictions.scores.as_ref().filter(|_| !rows.is_empty())?.select(ndarray::Axis(0), &rows);
        let truth = LabelMatrix::from_sets(&predictions.truth, &rows, predictions.classes.len());
        let thresholds: Vec<f32> = tuned.iter().map(|tuned| tuned.unwrap_or(DEFAULT_THRESHOLD)).collect();
        let predicted = LabelMatrix::from_thresholds(&scores, &thresholds);
        let per_label = truth
            .counts(&predicted)
            .into_iter()
            .zip(&predictions.classes)
            .zip(tuned)
            .map(|((counts, label), tuned)| LabelThreshold {
                label: label.clone(),
                threshold: tuned.unwrap_or(DEFAULT_THRESHOLD),
                tuned: tuned.is_some(),
                f1: (counts.support() > 0).then(|| counts.metrics().f1),
            })
            .collect();
        Some(Self {
            per_label,
            averages: Averages::compute(&truth, &predicted),
            exact_match: truth.exact_match(&predicted),
            hamming_loss: truth.hamming_loss(&predicted),
        })
    }
}

/// Returns the score that maximizes F1 as a threshold (ties: the highest score); `None` if fewer than [`MIN_CLIPS`] clips have
/// the label.
fn best_threshold(truth: &[bool], scores: &[f32]) -> Option<f32> {
    let positives = truth.iter().filter(|&&has| has).count() as u64;
    if positives < MIN_CLIPS {
        return None;
    }
    let order = descending(scores);
    let (mut tp, mut best) = (0, (0.0, None));
    for (rank, &i) in order.iter().enumerate() {
        tp += u64::from(truth[i]);
        let ends_threshold = order.get(rank + 1).is_none_or(|&next| scores[next] != scores[i]);
        let f1 = ratio(2 * tp, rank as u64 + 1 + positives);
        if ends_threshold && f1 > best.0 {
            best = (f1, Some(scores[i]));
        }
    }
    best.1
}
