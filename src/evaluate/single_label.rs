//! Metrics of one label a clip, as scikit-learn defines them (`labels` = all classes, `zero_division` = 0).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Predictions;

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

/// One class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerClass {
    /// The class.
    pub label: String,
    /// Clips of the class predicted as it.
    pub tp: u64,
    /// Clips of other classes predicted as it: the rest of its column.
    pub fp: u64,
    /// Clips of the class predicted as another: the rest of its row.
    #[serde(rename = "fn")]
    pub fn_: u64,
    /// Clips of other classes predicted as other classes.
    pub tn: u64,
    /// One-vs-rest accuracy, (TP + TN) / n.
    pub accuracy: f64,
    /// TP / (TP + FP), 0 where the class was never predicted.
    pub precision: f64,
    /// TP / (TP + FN), 0 where no clip has the class.
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN), 0 where the divisor is.
    pub f1: f64,
    /// Clips of the class, TP + FN.
    pub support: u64,
}

/// One cell off the diagonal of the confusion matrix.
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

/// All metrics of one split: the object of metrics.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SingleLabel {
    /// Labelled clips; clips without a label are left out of everything.
    pub n: usize,
    /// Share of clips whose predicted class is the true one.
    pub accuracy: f64,
    /// k → share of clips whose true class is among the k highest scores, for k = 1, 3, 5 up to the number of classes.
    /// Equal scores rank the lower class index first. Only k = 1 (the accuracy) where there are no scores.
    pub top_k: BTreeMap<usize, f64>,
    /// Unweighted mean over all classes, absent ones (which count as 0) included.
    #[serde(rename = "macro")]
    pub macro_: Average,
    /// From the summed counts; with one label a clip each equals the accuracy.
    pub micro: Average,
    /// Mean over the classes weighted by support.
    pub weighted: Average,
    /// Class names, in the order of the rows and columns of `confusion`.
    pub labels: Vec<String>,
    /// Counts, C × C: rows true, columns predicted.
    pub confusion: Vec<Vec<u64>>,
    /// Every class against the rest, in the order of `labels`.
    pub per_class: Vec<PerClass>,
    /// The class with clips whose F1 is lowest (ties: lower recall, then lower index).
    pub hardest: Option<String>,
    /// The class with clips whose F1 is highest (ties: higher recall, then lower index).
    pub easiest: Option<String>,
    /// The largest cells off the diagonal, at most ten, largest first (ties: in reading order).
    pub largest_confusions: Vec<Confused>,
    /// Expected calibration error; absent without scores, or where a score lies outside [0, 1].
    pub expected_calibration_error: Option<f64>,
}

/// Measures predictions.
pub fn measure(predictions: &Predictions) -> SingleLabel {
    let _ = predictions;
    todo!()
}
