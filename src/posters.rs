//! Posters: a model of genres for each year, and one for all, in one folder with `posters.json`.
//!
//! Each model is an ordinary run's folder below it; [`heads`] scores pictures with them.

pub mod heads;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use heads::{Head, PosterModels, Scores};

/// The file's name in the folder of a set of models.
pub const FILE: &str = "posters.json";
/// Its format, and the version of its layout.
const FORMAT: (&str, u32) = ("kinoprobe-posters", 1);

/// What there is one model of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Each year.
    Year,
    /// All posters.
    None,
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
    /// The labels, C of them.
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
    /// From which score on each of its labels is given.
    pub thresholds: Vec<f32>,
    /// Labelled clips of each split.
    pub clips: Clips,
    /// Metrics on held-out clips, in [0, 1].
    pub metrics: BTreeMap<String, f64>,
}

/// The model of all clips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallModel {
    /// Its run's folder, below that of posters.json.
    pub folder: String,
    /// As those of a year.
    pub thresholds: Vec<f32>,
}

/// Labelled clips of each split.
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
    /// Reads the posters.json of the folder `dir`.
    ///
    /// # Errors
    /// It is missing, is no JSON, or is of another format or version.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let wrong = |message: String| Error::Config { path: path.clone(), message };
        let posters: Self = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if (posters.format.as_str(), posters.format_version) != FORMAT {
            let (format, version) = (&posters.format, posters.format_version);
            return Err(wrong(format!(
                "is {format:?} version {version}, where {:?} version {} is read",
                FORMAT.0, FORMAT.1
            )));
        }
        Ok(posters)
    }
}
