//! Metrics from counts that single-label and multi-label classification share.

use serde::{Deserialize, Serialize};

/// Precision, recall and F1, each in [0, 1]; 0 if the denominator is 0 (`zero_division=0` in scikit-learn).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PrecisionRecallF1 {
    /// TP / (TP + FP).
    pub precision: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN).
    pub f1: f64,
}

/// An off-diagonal cell of the confusion matrix. For multi-label tasks: the number of clips for which `label` is a false negative
/// and `predicted` is a false positive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// The true class.
    pub label: String,
    /// The class predicted instead.
    pub predicted: String,
    /// Number of clips.
    pub count: u64,
    /// `count` divided by the number of clips of the true class, in (0, 1].
    pub share: f64,
}

/// Maximum number of confusions that are listed.
const MAX_CONFUSIONS: usize = 10;

/// Returns the largest nonzero off-diagonal cells of a confusion matrix, in descending order (ties: row-major order).
///
/// `confusion` is C × C, rows true and columns predicted; `support` is the number of clips of each class.
pub(super) fn largest_confusions(labels: &[String], confusion: &[Vec<u64>], support: &[u64]) -> Vec<Confusion> {
    let mut cells: Vec<Confusion> = Vec::new();
    for (truth, row) in confusion.iter().enumerate() {
        for (predicted, &count) in row.iter().enumerate().filter(|&(predicted, &count)| predicted != truth && count > 0)
        {
            cells.push(Confusion {
                label: labels[truth].clone(),
                predicted: labels[predicted].clone(),
                count,
                share: ratio(count, support[truth]),
            });
        }
    }
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.count));
    cells.truncate(MAX_CONFUSIONS);
    cells
}

/// Returns `numerator / denominator`; 0 if the denominator is 0.
pub(super) fn ratio(numerator: u64, denominator: u64) -> f64 {
    if denominator == 0 { 0.0 } else { numerator as f64 / denominator as f64 }
}

/// Asserts that `actual` contains every key and value of `expected`, with a tolerance of 1e-12.
#[cfg(test)]
pub(super) fn assert_close(path: &str, actual: &serde_json::Value, expected: &serde_json::Value) {
    match (actual, expected) {
        (serde_json::Value::Number(a), serde_json::Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-12, "{path}: {a} != {b}");
        }
        (serde_json::Value::Array(a), serde_json::Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| assert_close(&format!("{path}[{i}]"), a, b));
        }
        (actual, serde_json::Value::Object(b)) => {
            b.iter().for_each(|(key, b)| assert_close(&format!("{path}.{key}"), &actual[key.as_str()], b));
        }
        (a, b) => assert_eq!(a, b, "{path}"),
    }
}
