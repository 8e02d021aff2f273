//! metrics.json: what a run's folder says to programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::evaluate::{SeedResult, SplitMetrics};
use crate::manifest::Split;

/// The version of the layout below.
const FORMAT_VERSION: u32 = 1;

/// The object of metrics.json; `metrics["val"]["accuracy"]` is the accuracy on the validation split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// `kinoprobe-metrics`.
    pub format: String,
    /// 1.
    pub format_version: u32,
    /// Whether a clip has one label or several; the splits' objects follow it.
    pub task: Task,
    /// The method whose features were read.
    pub method: String,
    /// The classifier.
    pub classifier: String,
    /// Whether the features come from seeded (untrained) weights.
    pub untrained: bool,
    /// Which weights: `published`, `registry`, `file`, `seeded`, `none`.
    pub weights: String,
    /// The network or algorithm.
    pub model: String,
    /// SHA-256 of what ran.
    pub model_sha256: String,
    /// The execution provider that extracted.
    pub provider: String,
    /// The store, as it was given.
    pub features: PathBuf,
    /// The manifest, as it was given.
    pub manifest: PathBuf,
    /// The folder below which the manifest's paths lie, where one was given.
    pub root: Option<PathBuf>,
    /// The version of kinoprobe.
    pub tool_version: String,
    /// Seconds of training of the first seed.
    pub training_seconds: Option<f64>,
    /// Seconds of extraction, as the store records them.
    pub extract_seconds: Option<f64>,
    /// The epoch with the highest validation accuracy, counted from 1.
    pub best_epoch: Option<usize>,
    /// Spread over the seeds.
    pub seeds: Option<Seeds>,
    /// What the constant predictor gets on each split.
    pub constant: BTreeMap<Split, SplitMetrics>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The training split, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<SplitMetrics>,
    /// The validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<SplitMetrics>,
    /// The test split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<SplitMetrics>,
    /// Everything, where predictions were evaluated by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<SplitMetrics>,
}

/// What the seeds gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seeds {
    /// Each seed.
    pub results: Vec<SeedResult>,
    /// Mean and deviation over them of each headline number.
    pub summary: BTreeMap<Split, BTreeMap<String, Spread>>,
}

/// Mean and sample standard deviation (n − 1; 0 for one value).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The deviation.
    pub std: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, std: if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() } }
    }
}

impl Seeds {
    /// Sums seeds up; `None` where there is none.
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
    /// Empty metrics of this version's format.
    pub fn new() -> Self {
        Self {
            format: "kinoprobe-metrics".into(),
            format_version: FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            ..Self::default()
        }
    }

    /// Where a split's metrics stand.
    pub fn split_mut(&mut self, split: Split) -> &mut Option<SplitMetrics> {
        match split {
            Split::Train => &mut self.train,
            Split::Val => &mut self.val,
            Split::Test => &mut self.test,
        }
    }

    /// Reads a metrics.json.
    ///
    /// # Errors
    /// The file cannot be read, is no JSON, or is of another format or version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let wrong = |message: String| Error::Table { path: path.to_path_buf(), line: None, message };
        let metrics: Self =
            serde_json::from_str(&text).map_err(|error| wrong(format!("no metrics of a run: {error}")))?;
        if metrics.format != "kinoprobe-metrics" || metrics.format_version != FORMAT_VERSION {
            return Err(wrong(format!(
                "format `{}` version {}, not `kinoprobe-metrics` version {FORMAT_VERSION}: run classify again",
                metrics.format, metrics.format_version
            )));
        }
        Ok(metrics)
    }

    /// Writes a metrics.json under a temporary name and renames it, so that it is never half there.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let partial = path.with_extension("json.partial");
        let text = serde_json::to_string_pretty(self).expect("metrics are plain data with text keys");
        std::fs::write(&partial, text + "\n").map_err(Error::io(&partial))?;
        std::fs::rename(&partial, path).map_err(Error::io(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_the_samples() {
        let spread = Spread::of(&[0.5, 0.7, 0.9]);
        assert!((spread.mean - 0.7).abs() < 1e-12 && (spread.std - 0.2).abs() < 1e-12);
        assert_eq!(Spread::of(&[0.4]), Spread { mean: 0.4, std: 0.0 });
    }
}
