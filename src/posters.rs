//! Sets of genre models for posters, one per year, in a directory with `posters.json`.
//!
//! Each model is a subdirectory with the files of a run. [`years`] selects the clips of each year's model, and [`heads`] scores
//! images with the models.

pub mod heads;
pub mod years;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::classify::RunIdentity;
use crate::error::{Error, Result};
use crate::evaluate::multi_label::Thresholds;
use crate::evaluate::predictions::DEFAULT_THRESHOLD;
use crate::evaluate::{Predictions, SplitMetrics};
use crate::files;
use crate::models::Precision;

pub use heads::{Head, PosterModels, Scores};

/// File name of the index in a directory of models.
pub const INDEX_FILE: &str = "posters.json";
/// Format and format version of the file.
const FORMAT: (&str, u32) = ("kinoprobe-posters", 1);
/// Keys of the metrics in posters.json, which are keys of [`SplitMetrics::values`].
pub const METRICS: [&str; 6] = ["map", "binary_accuracy", "top_1", "top_3", "top_5", "r_precision"];

/// Grouping of clips into models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ModelGrouping {
    /// One model per year of the manifest, and one for all clips.
    Year,
    /// One model for all clips.
    None,
}

/// Minimum number of labeled clips with features that a year needs; a year with fewer is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MinClips {
    /// Training clips of all years of the window.
    pub train: usize,
    /// Validation clips of the year.
    pub val: usize,
    /// Test clips of the year.
    pub test: usize,
}

impl Default for MinClips {
    fn default() -> Self {
        Self { train: 20, val: 3, test: 3 }
    }
}

/// The index of a directory of poster models, stored in posters.json: the models and their features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PosterIndex {
    /// `kinoprobe-posters`.
    pub format: String,
    /// Format version, 1.
    pub format_version: u32,
    /// Classifier and features, the same for every model.
    #[serde(flatten)]
    pub identity: RunIdentity,
    /// Card of the network that computes the features.
    pub card: String,
    /// Precision of the network; f32 in files without this key.
    #[serde(default)]
    pub precision: Precision,
    /// `true` if the models were trained on generated posters.
    pub demo: bool,
    /// The C labels of all models, in the order of the scores.
    pub labels: Vec<String>,
    /// Grouping of clips into models.
    pub by: ModelGrouping,
    /// Number of years that the training clips of a year's model span; `None` for the year alone.
    pub window: Option<i32>,
    /// The models of years, in ascending order.
    pub years: Vec<YearModel>,
    /// The model for all clips.
    pub overall: Option<OverallModel>,
}

/// A model for one year.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct YearModel {
    /// The year.
    pub year: i32,
    /// Directory of the run, relative to the directory of posters.json.
    #[serde(alias = "folder")]
    pub directory: String,
    /// Score thresholds of the C labels, tuned on the validation clips of the year; 0.5 for labels of fewer than 5 of them.
    pub thresholds: Vec<f32>,
    /// Number of labeled clips of each split. Training clips are those of the window.
    pub clips: ClipCounts,
    /// The defined [`METRICS`] on the test clips of the year (or its validation clips if there are none), in [0, 1].
    pub metrics: BTreeMap<String, f64>,
}

/// The model for all clips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallModel {
    /// Directory of the run, relative to the directory of posters.json.
    #[serde(alias = "folder")]
    pub directory: String,
    /// Score thresholds of the C labels, tuned on all validation clips; 0.5 for labels of fewer than 5 of them.
    pub thresholds: Vec<f32>,
}

/// Number of labeled clips of each split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClipCounts {
    /// Training.
    pub train: usize,
    /// Validation.
    pub val: usize,
    /// Test.
    pub test: usize,
}

impl PosterIndex {
    /// Returns an index without models.
    pub fn new() -> Self {
        Self {
            format: FORMAT.0.into(),
            format_version: FORMAT.1,
            identity: RunIdentity::default(),
            card: String::new(),
            precision: Precision::default(),
            demo: false,
            labels: Vec::new(),
            by: ModelGrouping::None,
            window: None,
            years: Vec::new(),
            overall: None,
        }
    }

    /// Reads the posters.json of the directory `dir`.
    ///
    /// # Errors
    /// Returns an error if the file is missing, is not JSON, or has another format or version.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX_FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let invalid = |message: String| Error::Table { path: path.clone(), line: None, message };
        let posters: Self =
            serde_json::from_str(&text).map_err(|error| invalid(format!("not a set of poster models: {error}")))?;
        if (posters.format.as_str(), posters.format_version) != FORMAT {
            return Err(invalid(format!(
                "format `{}` version {}, not `{}` version {}: run kinoprobe-classify --by again",
                posters.format, posters.format_version, FORMAT.0, FORMAT.1
            )));
        }
        Ok(posters)
    }

    /// Writes posters.json to the directory `dir` atomically (temporary file and rename).
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("the index serializes to JSON");
        files::write_atomic(&dir.join(INDEX_FILE), (text + "\n").as_bytes())
    }
}

impl Default for PosterIndex {
    fn default() -> Self {
        Self::new()
    }
}

/// Computes the threshold with the highest F1 of each class on the validation predictions. The threshold is 0.5 for classes
/// of fewer than [`thresholds::MIN_CLIPS`](crate::evaluate::multi_label::thresholds::MIN_CLIPS) clips, and for all classes if
/// there are no predictions.
pub fn thresholds(val: Option<&Predictions>, classes: usize) -> Vec<f32> {
    let tuned = val.and_then(Thresholds::tune);
    tuned.map_or(vec![DEFAULT_THRESHOLD; classes], |tuned| tuned.values())
}

/// Returns the defined [`METRICS`] of a split.
pub fn metrics(measured: &SplitMetrics) -> BTreeMap<String, f64> {
    METRICS.into_iter().filter_map(|key| Some((key.to_string(), measured.value(key)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Task;

    #[test]
    fn written_files_have_the_documented_layout() {
        let directory = tempfile::tempdir().unwrap();
        let index = PosterIndex {
            identity: RunIdentity { method: "effnet".into(), task: Task::MultiLabel, ..RunIdentity::default() },
            labels: vec!["Action".into()],
            by: ModelGrouping::Year,
            precision: Precision::F32,
            years: vec![YearModel {
                year: 2004,
                directory: "2004".into(),
                thresholds: vec![0.5],
                clips: ClipCounts { train: 40, val: 5, test: 5 },
                metrics: BTreeMap::from([("map".into(), 0.5)]),
            }],
            ..PosterIndex::new()
        };
        index.write(directory.path()).unwrap();
        assert_eq!(PosterIndex::read(directory.path()).unwrap(), index);
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(directory.path().join(INDEX_FILE)).unwrap()).unwrap();
        let expected = serde_json::json!({
            "format": "kinoprobe-posters", "format_version": 1, "task": "multi-label", "method": "effnet", "classifier": "",
            "untrained": false, "weights": "", "model": "", "model_sha256": "", "provider": "", "card": "",
            "precision": "f32", "demo": false, "labels": ["Action"], "by": "year", "window": null,
            "years": [{"year": 2004, "directory": "2004", "thresholds": [0.5], "clips": {"train": 40, "val": 5, "test": 5},
                       "metrics": {"map": 0.5}}],
            "overall": null
        });
        assert_eq!(json, expected);
        PosterIndex { format_version: 2, ..index }.write(directory.path()).unwrap();
        let error = PosterIndex::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("version 2, not `kinoprobe-posters` version 1"), "{error}");
    }
}
