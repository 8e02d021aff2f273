//! Scores → numbers: metrics as scikit-learn defines them, intervals and tests.
//!
//! - [`predictions`]: what was predicted for which clip, and its CSV form
//! - [`single_label`]: the metrics of one label a clip
//! - [`multi_label`]: the metrics of any number of labels a clip
//! - [`measured`]: either of them, as reports and comparisons read it
//! - [`ranking`]: how well scores order clips: average precision, areas under curves
//! - [`significance`]: bootstrap intervals, McNemar's test, Holm's correction
//!
//! A new metric is one field of [`SingleLabel`] or [`MultiLabel`], one line in its `measure`, and one line in
//! [`Measured::numbers`] to show it everywhere.

pub mod measured;
pub mod multi_label;
pub mod predictions;
pub mod ranking;
pub mod significance;
pub mod single_label;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use measured::{Measured, measure, measure_parts};
pub use multi_label::MultiLabel;
pub use predictions::Predictions;
pub use single_label::SingleLabel;

use crate::manifest::Split;

/// Precision, recall and F1, each in [0, 1]; a quotient with a zero divisor is 0.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Average {
    /// TP / (TP + FP).
    pub precision: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN).
    pub f1: f64,
}

/// One cell off the diagonal of the confusion matrix; with several labels a clip, a label that was missed on clips that
/// were given the other one wrongly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confused {
    /// The true class.
    pub label: String,
    /// The class predicted instead.
    pub predicted: String,
    /// How many clips.
    pub count: u64,
    /// Their share of the true class, in (0, 1].
    pub share: f64,
}

/// How many confusions are named.
const LARGEST: usize = 10;

/// The largest counts of `confusion`, C × C (rows true, columns predicted instead), off the diagonal, largest first (ties:
/// in reading order); `support` is how many clips have each class.
fn largest_confusions(labels: &[String], confusion: &[Vec<u64>], support: &[u64]) -> Vec<Confused> {
    let mut cells: Vec<Confused> = Vec::new();
    for (truth, row) in confusion.iter().enumerate() {
        for (predicted, &count) in row.iter().enumerate().filter(|&(predicted, &count)| predicted != truth && count > 0)
        {
            cells.push(Confused {
                label: labels[truth].clone(),
                predicted: labels[predicted].clone(),
                count,
                share: ratio(count, support[truth]),
            });
        }
    }
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.count));
    cells.truncate(LARGEST);
    cells
}

/// A quotient; 0 where the divisor is.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// One epoch of training: a point of the learning curves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean loss over the training clips, with dropout on, as training saw it.
    pub train_loss: f64,
    /// Accuracy or mAP over the training clips, in [0, 1], as training saw it.
    pub train_score: f64,
    /// Mean loss over the validation clips.
    pub val_loss: f64,
    /// Accuracy or mAP over the validation clips, in [0, 1].
    pub val_score: f64,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
}

/// The headline numbers of a part by their keys: `accuracy` and `macro_f1`, or `map` and `micro_f1`.
pub type Score = BTreeMap<String, f64>;

/// What one seed gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// The headline numbers of each split that was measured.
    pub splits: BTreeMap<Split, Score>,
    /// Seconds of training.
    pub seconds: f64,
}

/// Asserts that `ours` has every key and number of `theirs`, to 1e-12.
#[cfg(test)]
fn assert_close(path: &str, ours: &serde_json::Value, theirs: &serde_json::Value) {
    match (ours, theirs) {
        (serde_json::Value::Number(a), serde_json::Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-12, "{path}: {a} is not {b}");
        }
        (serde_json::Value::Array(a), serde_json::Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| assert_close(&format!("{path}[{i}]"), a, b));
        }
        (ours, serde_json::Value::Object(b)) => {
            b.iter().for_each(|(key, b)| assert_close(&format!("{path}.{key}"), &ours[key.as_str()], b));
        }
        (a, b) => assert_eq!(a, b, "{path}"),
    }
}
