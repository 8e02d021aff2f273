//! Evaluation of predictions: metrics as scikit-learn defines them, confidence intervals and significance tests.
//!
//! - [`predictions`]: predictions of clips, and their CSV format
//! - [`single_label`]: metrics for one label per clip
//! - [`multi_label`]: metrics for any number of labels per clip
//! - [`split_metrics`]: the metrics of a split, independent of the task; read by reports and comparisons
//! - [`ranking`]: metrics of scores: average precision, areas under curves
//! - [`reliability`]: bins of scores, calibration error
//! - [`bootstrap`]: resamples and their intervals; [`units`]: what they resample
//! - [`intervals`]: the intervals of a split
//! - [`significance`]: paired comparisons, McNemar's test, Holm's correction
//! - [`label_errors`]: clips whose given label is likely wrong
//! - [`counts`]: precision, recall, F1 and confusions from counts
//!
//! To add a metric, add a field to [`SingleLabelMetrics`] or [`MultiLabelMetrics`], compute it in `compute_metrics` of that
//! module, and list it in [`SplitMetrics::values`].

pub mod bootstrap;
pub mod counts;
pub mod intervals;
pub mod label_errors;
pub mod multi_label;
pub mod predictions;
pub mod ranking;
pub mod reliability;
pub mod significance;
pub mod single_label;
pub mod split_metrics;
pub mod units;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use counts::{Confusion, PrecisionRecallF1};
pub use multi_label::MultiLabelMetrics;
pub use predictions::Predictions;
pub use single_label::SingleLabelMetrics;
pub use split_metrics::{HeadlineMetrics, SplitMetrics, compute_metrics, evaluate_resampled, evaluate_splits};

use crate::manifest::Split;

/// An epoch of training: one point of the learning curves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, starting at 1.
    pub epoch: usize,
    /// Mean loss over the training clips during the epoch, with dropout.
    pub train_loss: f64,
    /// Accuracy or mAP over the training clips during the epoch, in [0, 1].
    pub train_score: f64,
    /// Mean loss over the validation clips.
    pub val_loss: f64,
    /// Accuracy or mAP over the validation clips, in [0, 1].
    pub val_score: f64,
    /// Learning rate of the last step of the epoch.
    pub learning_rate: f64,
    /// End of the epoch in seconds since the Unix epoch.
    pub time: f64,
}

/// Returns the time in seconds since the Unix epoch.
pub fn unix_time() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The result of training with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// Headline metrics of each evaluated split.
    pub splits: BTreeMap<Split, HeadlineMetrics>,
    /// Training time in seconds.
    pub seconds: f64,
}
