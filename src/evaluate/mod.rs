//! Scores → numbers: metrics as scikit-learn defines them, intervals and tests.
//!
//! - [`predictions`]: what was predicted for which clip, and its CSV form
//! - [`single_label`]: the metrics of one label a clip
//! - [`ranking`]: how well scores order clips: average precision, areas under curves
//! - [`significance`]: bootstrap intervals, McNemar's test, Holm's correction
//!
//! A new metric of one label a clip is one field of [`SingleLabel`] and one line in [`single_label::measure`].

pub mod predictions;
pub mod ranking;
pub mod significance;
pub mod single_label;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use predictions::Predictions;
pub use single_label::SingleLabel;

use crate::manifest::Split;

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

/// What one seed gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// The scores on each split that was measured.
    pub splits: BTreeMap<Split, SeedScore>,
    /// Seconds of training.
    pub seconds: f64,
}

/// The two numbers of a seed on a split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SeedScore {
    /// Top-1 accuracy, in [0, 1].
    pub accuracy: f64,
    /// Unweighted mean of the classes' F1, in [0, 1].
    pub macro_f1: f64,
}
