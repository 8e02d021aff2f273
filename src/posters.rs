//! Posters: a model of genres for each year, all in one folder with `posters.json`.
//!
//! Each model is an ordinary run's folder below it; [`years`] says which clips a year's model learns from and is measured on,
//! and [`heads`] scores pictures with them.

pub mod heads;
pub mod years;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evaluate::multi_label::Thresholds;
use crate::evaluate::predictions::DEFAULT_THRESHOLD;
use crate::evaluate::{Predictions, SplitMetrics};

pub use heads::{Head, PosterModels, Scores};

/// The file's name in the folder of a set of models.
pub const FILE: &str = "posters.json";
/// Its format, and the version of its layout.
const FORMAT: (&str, u32) = ("kinoprobe-posters", 1);
/// The numbers that stand for a model: keys of [`SplitMetrics::values`].
pub const METRICS: [&str; 6] = ["map", "binary_accuracy", "top_1", "top_3", "top_5", "r_precision"];

/// Number of models that are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum By {
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

/// The object of posters.json: the models of a folder, and what they read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Posters {
    /// `kinoprobe-posters`.
    pub format: String,
    /// 1.
    pub format_version: u32,
    /// The method whose features the models read.
    pub method: String,
    /// The card of the network that makes them.
    pub card: String,
    /// Which weights it has: `published`, `registry`, `file`, `seeded`.
    pub weights: String,
    /// SHA-256 of what made the features.
    pub model_sha256: String,
    /// Whether that was a network of seeded (untrained) weights.
    pub untrained: bool,
    /// Whether the models learnt from posters that kinoprobe drew.
    pub demo: bool,
    /// The labels, C of them, the same for every model, in the order of its scores.
    pub labels: Vec<String>,
    /// What there is one model of.
    pub by: By,
    /// How many years the training clips of a year's model span; `None` for the year alone.
    pub window: Option<i32>,
    /// The years' models, by rising year.
    pub years: Vec<YearModel>,
    /// The model of all clips.
    pub overall: Option<OverallModel>,
}

/// The model of a year.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct YearModel {
    /// The year.
    pub year: i32,
    /// Its run's folder, below that of posters.json.
    pub folder: String,
    /// From which score on each of the C labels is given: tuned on the year's validation clips, 0.5 for a label they lack.
    pub thresholds: Vec<f32>,
    /// Labeled clips of each split, the training clips being those of the window.
    pub clips: Clips,
    /// The [`METRICS`] that have a value, on the year's test clips (without any, its validation clips), in [0, 1].
    pub metrics: BTreeMap<String, f64>,
}

/// The model of all clips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallModel {
    /// Its run's folder, below that of posters.json.
    pub folder: String,
    /// As those of a year, tuned on all validation clips.
    pub thresholds: Vec<f32>,
}

/// Labeled clips of each split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clips {
    /// Training.
    pub train: usize,
    /// Validation.
    pub val: usize,
    /// Test.
    pub test: usize,
}

impl Posters {
    /// What is common to all models, without any; to be filled in.
    pub fn new() -> Self {
        Self {
            format: FORMAT.0.into(),
            format_version: FORMAT.1,
            method: String::new(),
            card: String::new(),
            weights: String::new(),
            model_sha256: String::new(),
            untrained: false,
            demo: false,
            labels: Vec::new(),
            by: By::None,
            window: None,
            years: Vec::new(),
            overall: None,
        }
    }

    /// Reads the posters.json of the folder `dir`.
    ///
    /// # Errors
    /// It is missing, is no JSON, or is of another format or version.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let wrong = |message: String| Error::Table { path: path.clone(), line: None, message };
        let posters: Self =
            serde_json::from_str(&text).map_err(|error| wrong(format!("no models of posters: {error}")))?;
        if (posters.format.as_str(), posters.format_version) != FORMAT {
            return Err(wrong(format!(
                "format `{}` version {}, not `{}` version {}: run kinoprobe-classify --by again",
                posters.format, posters.format_version, FORMAT.0, FORMAT.1
            )));
        }
        Ok(posters)
    }

    /// Writes the posters.json of the folder `dir` under a temporary name and renames it, so that it is never half there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (path, partial) = (dir.join(FILE), dir.join(FILE).with_extension("json.partial"));
        let text = serde_json::to_string_pretty(self).expect("it is plain data");
        std::fs::write(&partial, text + "\n").map_err(Error::io(&partial))?;
        std::fs::rename(&partial, &path).map_err(Error::io(&path))
    }
}

impl Default for Posters {
    fn default() -> Self {
        Self::new()
    }
}

/// One threshold for each class of the predictions: that with the highest F1 on them, 0.5 for a label that none has, and for
/// all where there are no predictions.
pub fn thresholds(val: Option<&Predictions>, classes: usize) -> Vec<f32> {
    let tuned = val.and_then(Thresholds::tune);
    tuned
        .map_or(vec![DEFAULT_THRESHOLD; classes], |tuned| tuned.per_label.iter().map(|label| label.threshold).collect())
}

/// The [`METRICS`] of a part that have a value.
pub fn metrics(measured: &SplitMetrics) -> BTreeMap<String, f64> {
    METRICS.into_iter().filter_map(|key| Some((key.to_string(), measured.value(key)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_contract_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let set = Posters {
            method: "effnet".into(),
            labels: vec!["Action".into()],
            by: By::Year,
            years: vec![YearModel {
                year: 2004,
                folder: "2004".into(),
                thresholds: vec![0.5],
                clips: Clips { train: 40, val: 5, test: 5 },
                metrics: BTreeMap::from([("map".into(), 0.5)]),
            }],
            ..Posters::new()
        };
        set.write(folder.path()).unwrap();
        assert_eq!(Posters::read(folder.path()).unwrap(), set);
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.path().join(FILE)).unwrap()).unwrap();
        let expected = serde_json::json!({
            "format": "kinoprobe-posters", "format_version": 1, "method": "effnet", "card": "", "weights": "",
            "model_sha256": "", "untrained": false, "demo": false, "labels": ["Action"], "by": "year", "window": null,
            "years": [{"year": 2004, "folder": "2004", "thresholds": [0.5], "clips": {"train": 40, "val": 5, "test": 5},
                       "metrics": {"map": 0.5}}],
            "overall": null
        });
        assert_eq!(json, expected);
        Posters { format_version: 2, ..set }.write(folder.path()).unwrap();
        let error = Posters::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("version 2, not `kinoprobe-posters` version 1"), "{error}");
    }
}
