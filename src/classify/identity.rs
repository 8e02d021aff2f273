//! The identity of a run: which classifier was trained on which features.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Task;
use crate::store::Provenance;

/// Identifies a run by its classifier and the features it reads.
///
/// Model files, metrics.json, posters.json and compare.json flatten it into their own objects. Fields that are unknown, such
/// as all of them for predictions of other programs, are empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunIdentity {
    /// Single-label or multi-label.
    pub task: Task,
    /// Name of the method whose features are read; of fusions, the names of all methods joined by ` + `.
    pub method: String,
    /// Name of the classifier: a value of `--classifier`.
    pub classifier: String,
    /// `true` if the features come from seeded (untrained) weights.
    pub untrained: bool,
    /// Origin of the weights: `published`, `registry`, `file`, `seeded` or `none`.
    pub weights: String,
    /// Name of the network or algorithm that computed the features.
    pub model: String,
    /// SHA-256 of the ONNX file (or centroids) that computed the features, hexadecimal.
    pub model_sha256: String,
    /// Execution provider that computed the features.
    pub provider: String,
}

impl RunIdentity {
    /// Returns the identity of the run of a classifier on the features of `provenance`.
    pub fn new(task: Task, classifier: &str, provenance: &Provenance) -> Self {
        Self {
            task,
            method: provenance.method.clone(),
            classifier: classifier.into(),
            untrained: provenance.untrained(),
            weights: provenance.weights.clone(),
            model: provenance.model.clone(),
            model_sha256: provenance.model_sha256.clone(),
            provider: provenance.provider.clone(),
        }
    }

    /// Returns the identity of a fusion of runs. It is untrained if any of them is.
    ///
    /// # Panics
    /// Panics if `runs` is empty.
    pub fn of_fusion(runs: &[&RunIdentity], classifier: &str) -> Self {
        // The methods of other programs' predictions are unknown.
        let methods: Vec<&str> = runs.iter().map(|run| run.method.as_str()).filter(|name| !name.is_empty()).collect();
        Self {
            task: runs[0].task,
            method: methods.join(" + "),
            classifier: classifier.into(),
            untrained: runs.iter().any(|run| run.untrained),
            ..Self::default()
        }
    }
}

/// Input files of a run, with paths as given on the command line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInputs {
    /// Feature store; empty if unknown.
    pub features: PathBuf,
    /// Manifest; empty if unknown.
    pub manifest: PathBuf,
    /// Root directory of the manifest's paths, if one was given.
    pub root: Option<PathBuf>,
}

impl RunInputs {
    /// Returns the feature store, if known.
    pub fn features(&self) -> Option<&Path> {
        known(&self.features)
    }

    /// Returns the manifest, if known.
    pub fn manifest(&self) -> Option<&Path> {
        known(&self.manifest)
    }
}

fn known(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}
