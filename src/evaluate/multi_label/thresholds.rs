//! One threshold per label, tuned where it may be looked at and applied where it counts.

use serde::{Deserialize, Serialize};

use super::{Averages, Sets};
use crate::evaluate::predictions::THRESHOLD;
use crate::evaluate::{Predictions, ratio};

/// A label and the score from which it is predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelThreshold {
    /// The label.
    pub label: String,
    /// The threshold.
    pub threshold: f32,
    /// F1 of the label with it, on the clips at hand; absent where none has the label.
    pub f1: Option<f64>,
}

/// Thresholds, and what they give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Every label, in the order of the classes.
    pub per_label: Vec<LabelThreshold>,
    /// Precision, recall and F1 with these thresholds.
    #[serde(flatten)]
    pub averages: Averages,
    /// Share of clips whose predicted set is the true one.
    pub exact_match: f64,
    /// Share of the (clip, label) pairs that are wrong.
    pub hamming_loss: f64,
}

impl Thresholds {
    /// The thresholds with the highest F1 of each label on these clips (of equal ones the highest threshold), and what they
    /// give there: a score that some clip has is where it is cut. A label that no clip has keeps 0.5. `None` without scores
    /// or labeled clips, and for predictions of one label a clip.
    pub fn tune(predictions: &Predictions) -> Option<Self> {
        let rows = predictions.labeled();
        let scores = predictions.scores.as_ref().filter(|_| !rows.is_empty())?;
        if predictions.task != crate::dataset::Task::MultiLabel {
            return None;
        }
        let truth = Sets::of(&predictions.truth, &rows, predictions.classes.len());
        let best = |class: usize| {
            let column: Vec<f32> = rows.iter().map(|&row| scores[(row, class)]).collect();
            best_threshold(&truth.label(class), &column).unwrap_or(THRESHOLD)
        };
        Self::measured(predictions, &(0..predictions.classes.len()).map(best).collect::<Vec<_>>())
    }

    /// What these thresholds give on other clips; labels go by name, and one that was not tuned is cut at 0.5. `None`
    /// without scores or labeled clips.
    pub fn apply(&self, predictions: &Predictions) -> Option<Self> {
        let of = |label: &String| {
            let tuned = self.per_label.iter().find(|tuned| tuned.label == *label);
            tuned.map_or(THRESHOLD, |tuned| tuned.threshold)
        };
        Self::measured(predictions, &predictions.classes.iter().map(of).collect::<Vec<_>>())
    }

    fn measured(predictions: &Predictions, thresholds: &[f32]) -> Option<Self> {
        let rows = predictions.labeled();
        let scores = predictions.scores.as_ref().filter(|_| !rows.is_empty())?.select(ndarray::Axis(0), &rows);
        let truth = Sets::of(&predictions.truth, &rows, predictions.classes.len());
        let predicted = Sets::at_least(&scores, thresholds);
        let per_label = truth
            .counts(&predicted)
            .into_iter()
            .zip(&predictions.classes)
            .zip(thresholds)
            .map(|((counts, label), &threshold)| LabelThreshold {
                label: label.clone(),
                threshold,
                f1: (counts.support() > 0).then(|| counts.average().f1),
            })
            .collect();
        Some(Self {
            per_label,
            averages: Averages::of(&truth, &predicted),
            exact_match: truth.agreement(&predicted),
            hamming_loss: truth.disagreement(&predicted),
        })
    }
}

/// The score from which predicting the label gives the highest F1; of equal ones the highest score. `None` where no clip
/// has the label.
fn best_threshold(truth: &[bool], scores: &[f32]) -> Option<f32> {
    let positives = truth.iter().filter(|&&has| has).count() as u64;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut hits, mut best) = (0, (0.0, None));
    for (place, &i) in order.iter().enumerate() {
        hits += u64::from(truth[i]);
        let ends = order.get(place + 1).is_none_or(|&next| scores[next] != scores[i]);
        let f1 = ratio(2 * hits, place as u64 + 1 + positives);
        if ends && f1 > best.0 {
            best = (f1, Some(scores[i]));
        }
    }
    best.1
}
