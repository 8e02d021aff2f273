//! Reads and writes metrics.json, the machine-readable results of a run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::classify::{RunCalibration, RunIdentity, RunInputs};
use crate::error::{Error, Result};
use crate::evaluate::bootstrap::METHOD;
use crate::evaluate::reliability::calibration_error;
use crate::evaluate::{SeedResult, SplitMetrics};
use crate::files;
use crate::manifest::Split;

const FORMAT: &str = "kinoprobe-metrics";
/// Name of metrics.json in a directory that is not complete; empty at first.
pub(super) const PARTIAL_FILE: &str = "metrics.json.partial";

/// Format version of [`Metrics`]. Increase it for incompatible changes; a new key is compatible.
pub const FORMAT_VERSION: u32 = 1;

/// Content of metrics.json; `metrics["val"]["accuracy"]` is the accuracy on the validation split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// `kinoprobe-metrics`.
    pub format: String,
    /// [`FORMAT_VERSION`]; 0 in files without it.
    pub format_version: u32,
    /// Classifier and features; the objects of the splits depend on its task.
    #[serde(flatten)]
    pub identity: RunIdentity,
    /// Input files.
    #[serde(flatten)]
    pub inputs: RunInputs,
    /// Version of kinoprobe.
    pub tool_version: String,
    /// Method of the intervals, `BCa bootstrap`; `None` for the percentile intervals of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_method: Option<String>,
    /// Seconds of training of the first seed.
    pub training_seconds: Option<f64>,
    /// Seconds of feature extraction, as the store records them.
    pub extract_seconds: Option<f64>,
    /// Epoch whose parameters were kept, counted from 1.
    pub best_epoch: Option<usize>,
    /// Calibration of the scores, if they are calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationRecord>,
    /// Results over seeds.
    pub seeds: Option<Seeds>,
    /// The search that selected settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchSummary>,
    /// Metrics of the constant baseline on each split.
    pub constant: BTreeMap<Split, SplitMetrics>,
    /// Number of clips without a label, which are predicted but not evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlabeled: Option<usize>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Metrics of the training split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<SplitMetrics>,
    /// Metrics of the validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<SplitMetrics>,
    /// Metrics of the test split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<SplitMetrics>,
    /// Metrics of all clips, for predictions that are evaluated without training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<SplitMetrics>,
}

/// The calibration of a run's scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// Method and parameters, such as `temperature scaling, T = 1.8300`.
    pub method: String,
    /// Expected calibration error of each split before calibration, if it is defined.
    pub expected_calibration_error_before: BTreeMap<Split, f64>,
}

impl CalibrationRecord {
    /// Describes a calibration.
    pub fn new(run: &RunCalibration) -> Self {
        let errors = run.uncalibrated.iter().filter_map(|(&split, part)| Some((split, calibration_error(part)?)));
        Self { method: run.calibration.describe(), expected_calibration_error_before: errors.collect() }
    }

    /// Returns the expected calibration error of a split before calibration, if it is defined.
    pub fn error_before(&self, split: Split) -> Option<f64> {
        self.expected_calibration_error_before.get(&split).copied()
    }
}

/// Results over seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seeds {
    /// Results of each seed.
    pub results: Vec<SeedResult>,
    /// Mean and standard deviation of each headline metric.
    pub summary: BTreeMap<Split, BTreeMap<String, Spread>>,
}

/// A search in metrics.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchSummary {
    /// Number of trials.
    pub trials: usize,
    /// What the trials were scored on.
    pub scored_on: String,
    /// Score of the selected trial, in [0, 1]. It is the highest of all trials, and therefore too high an estimate for new clips.
    pub score: f64,
    /// The selected values.
    pub values: BTreeMap<String, String>,
}

/// Mean and sample standard deviation (divisor n − 1; 0 for one value).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

impl Spread {
    /// Summarizes values, at least one.
    pub(super) fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, std: if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() } }
    }
}

impl Seeds {
    /// Summarizes the results of seeds; `None` if there are none.
    pub fn of(results: &[SeedResult]) -> Option<Self> {
        let mut values: BTreeMap<Split, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
        for (split, score) in results.iter().flat_map(|seed| &seed.splits) {
            for (key, &value) in score {
                values.entry(*split).or_default().entry(key.clone()).or_default().push(value);
            }
        }
        let spreads = |scores: BTreeMap<String, Vec<f64>>| {
            scores.into_iter().map(|(key, values)| (key, Spread::of(&values))).collect()
        };
        let summary = values.into_iter().map(|(split, scores)| (split, spreads(scores))).collect();
        (!results.is_empty()).then(|| Self { results: results.to_vec(), summary })
    }
}

impl Metrics {
    /// Returns empty metrics of the current format version.
    pub fn new() -> Self {
        Self {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            interval_method: Some(METHOD.into()),
            ..Self::default()
        }
    }

    /// Returns the metrics of a split for modification.
    pub fn split_mut(&mut self, split: Split) -> &mut Option<SplitMetrics> {
        match split {
            Split::Train => &mut self.train,
            Split::Val => &mut self.val,
            Split::Test => &mut self.test,
        }
    }

    /// Reads a metrics.json of this or an older version; a file without `format_version` is read as version 0, which has the
    /// same keys as version 1.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a metrics.json, or has a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        /// The keys that all versions share.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Header {
            format: String,
            format_version: u32,
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let invalid = |message: String| Error::Table { path: path.to_path_buf(), line: None, message };
        let not_metrics = |error: serde_json::Error| invalid(format!("not the metrics of a run: {error}"));
        let header: Header = serde_json::from_str(&text).map_err(not_metrics)?;
        if header.format != FORMAT {
            return Err(invalid(format!("not the metrics of a run: format is `{}`, not `{FORMAT}`", header.format)));
        }
        if header.format_version > FORMAT_VERSION {
            return Err(invalid(format!(
                "format version {} is newer than {FORMAT_VERSION}, the newest that this version of kinoprobe ({}) reads: \
                 update kinoprobe",
                header.format_version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        serde_json::from_str(&text).map_err(not_metrics)
    }

    /// Writes metrics.json.partial, which [`complete`] renames.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("metrics are plain data with string keys");
        files::write_atomic(&dir.join(PARTIAL_FILE), (text + "\n").as_bytes())
    }
}

/// Marks the directory of a run or an evaluation as complete, after all its files are written: metrics.json.partial becomes metrics.json.
///
/// # Errors
/// Returns an error if the file cannot be renamed.
pub fn complete(dir: &Path) -> Result<()> {
    let path = dir.join("metrics.json");
    files::rename(&dir.join(PARTIAL_FILE), &path).map_err(Error::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_uses_sample_standard_deviation() {
        let spread = Spread::of(&[0.5, 0.7, 0.9]);
        assert!((spread.mean - 0.7).abs() < 1e-12 && (spread.std - 0.2).abs() < 1e-12);
        assert_eq!(Spread::of(&[0.4]), Spread { mean: 0.4, std: 0.0 });
    }

    /// fixtures/metrics-v1.json was written by kinoprobe-classify before `RunIdentity` existed.
    #[test]
    fn reads_older_files() {
        let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/metrics-v1.json");
        let metrics = Metrics::read(&stored).unwrap();
        let identity = &metrics.identity;
        assert_eq!((identity.method.as_str(), identity.classifier.as_str()), ("strong", "mlp"));
        assert_eq!((identity.model.as_str(), identity.weights.as_str()), ("numbers", "published"));
        assert_eq!(metrics.inputs.features(), Some(Path::new("strong.h5")));
        assert!(metrics.best_epoch.is_some() && metrics.constant.contains_key(&Split::Test));
        let text = std::fs::read_to_string(&stored).unwrap();
        let written = serde_json::to_string_pretty(&metrics).unwrap() + "\n";
        assert_eq!(written, text, "keys, their order and all numbers are unchanged");

        // Files without a version have the same keys.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.json");
        let unversioned = text.replace("\"format_version\": 1,", "");
        assert_ne!(unversioned, text);
        std::fs::write(&path, unversioned).unwrap();
        assert_eq!(Metrics::read(&path).unwrap(), Metrics { format_version: 0, ..metrics });
    }

    #[test]
    fn rejects_newer_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.json");
        std::fs::write(&path, r#"{"format": "kinoprobe-metrics", "format_version": 2, "warnings": {}}"#).unwrap();
        let error = Metrics::read(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.json") && error.contains("format version 2 is newer than 1"), "{error}");
    }
}
