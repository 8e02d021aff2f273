//! Per-label decision thresholds, tuned on the validation split.

use serde::{Deserialize, Serialize};

use super::averages::{Averages, LabelMatrix};
use crate::dataset::Task;
use crate::evaluate::counts::ratio;
use crate::evaluate::predictions::{DEFAULT_THRESHOLD, Predictions};

/// The threshold of a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelThreshold {
    /// Name of the label.
    pub label: String,
    /// Minimum score at which the label is predicted.
    pub threshold: f32,
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

impl Thresholds {
    /// Tunes the thresholds: for each label the score with the highest F1 (ties: the highest score), or
    /// [`DEFAULT_THRESHOLD`] if no clip has the label. `None` without scores or labeled clips, and for single-label tasks.
    pub fn tune(predictions: &Predictions) -> Option<Self> {
        let rows = predictions.labeled_rows();
        let scores = predictions.scores.as_ref().filter(|_| !rows.is_empty())?;
        if predictions.task != Task::MultiLabel {
            return None;
        }
        let truth = LabelMatrix::from_sets(&predictions.truth, &rows, predictions.classes.len());
        let threshold = |class: usize| {
            let column: Vec<f32> = rows.iter().map(|&row| scores[(row, class)]).collect();
            best_threshold(&truth.label(class), &column).unwrap_or(DEFAULT_THRESHOLD)
        };
        Self::evaluate(predictions, &(0..predictions.classes.len()).map(threshold).collect::<Vec<_>>())
    }

    /// Applies the thresholds to other clips. Labels are matched by name; a label without a threshold gets
    /// [`DEFAULT_THRESHOLD`]. `None` without scores or labeled clips.
    pub fn apply(&self, predictions: &Predictions) -> Option<Self> {
        let threshold = |label: &String| {
            let tuned = self.per_label.iter().find(|tuned| tuned.label == *label);
            tuned.map_or(DEFAULT_THRESHOLD, |tuned| tuned.threshold)
        };
        Self::evaluate(predictions, &predictions.classes.iter().map(threshold).collect::<Vec<_>>())
    }

    fn evaluate(predictions: &Predictions, thresholds: &[f32]) -> Option<Self> {
        let rows = predictions.labeled_rows();
        let scores = predictions.scores.as_ref().filter(|_| !rows.is_empty())?.select(ndarray::Axis(0), &rows);
        let truth = LabelMatrix::from_sets(&predictions.truth, &rows, predictions.classes.len());
        let predicted = LabelMatrix::from_thresholds(&scores, thresholds);
        let per_label = truth
            .counts(&predicted)
            .into_iter()
            .zip(&predictions.classes)
            .zip(thresholds)
            .map(|((counts, label), &threshold)| LabelThreshold {
                label: label.clone(),
                threshold,
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

/// Returns the score that maximizes F1 as a threshold (ties: the highest score); `None` if no clip has the label.
fn best_threshold(truth: &[bool], scores: &[f32]) -> Option<f32> {
    let positives = truth.iter().filter(|&&has| has).count() as u64;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
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
