//! Numbers → JSON, CSV, Markdown, HTML and plots.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::evaluate::{Epoch, Predictions, SeedResult, SingleLabel};
use crate::manifest::Split;
use crate::recipe::Recipe;
use crate::store::Provenance;

/// One classifier trained on one store: everything that its folder under runs/ tells.
#[derive(Debug, Clone)]
pub struct Run {
    /// The method whose features were read.
    pub method: String,
    /// The classifier's name, as `--classifier` takes it.
    pub classifier: String,
    /// The recipe used, flags included.
    pub recipe: Recipe,
    /// How the features were made.
    pub provenance: Provenance,
    /// Whether the features come from seeded (untrained) weights.
    pub untrained: bool,
    /// Predictions for each split that is measured (val, test).
    pub splits: BTreeMap<Split, Predictions>,
    /// Predictions for the clips without a label.
    pub unlabelled: Option<Predictions>,
    /// What the constant predictor gets on each of the splits.
    pub constant: BTreeMap<Split, SingleLabel>,
    /// Learning curves of the first seed; empty for classifiers without epochs.
    pub curves: Vec<Epoch>,
    /// What each seed gave.
    pub seeds: Vec<SeedResult>,
    /// Seconds of training, of the first seed.
    pub train_seconds: f64,
    /// The store, as it was given.
    pub features: PathBuf,
    /// The manifest, as it was given.
    pub manifest: PathBuf,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Writes a run's folder: metrics.json (last), predictions.csv, submission.csv, curves, confusion matrices, tables,
/// recipe.toml and REPORT.md. Files of an earlier run are overwritten; others in the folder are left alone.
///
/// # Errors
/// The folder cannot be made, or a file cannot be written.
pub fn write_run(dir: &Path, run: &Run) -> Result<()> {
    let _ = (dir, run);
    todo!()
}
