//! Runs: classifiers fitted to a store, each with its folder. What kinoprobe-classify does for one of them, and ([`by_year`])
//! for one a year.

pub mod by_year;

use std::collections::BTreeMap;
use std::path::Path;

use crate::classify::{ModelMetadata, SavedModel, experiment};
use crate::dataset::DatasetSplits;
use crate::error::Result;
use crate::evaluate::{Epoch, Predictions};
use crate::manifest::{Manifest, Split};
use crate::posters::{Clips, years};
use crate::recipe::{Classify, Recipe, RunFiles};
use crate::report::{self, Evaluation, Metrics, Run};
use crate::store::FeatureStore;

/// What all runs of one call have in common.
pub struct Job<'a> {
    /// The features.
    pub store: &'a FeatureStore,
    /// The recipe, with the files' absolute paths.
    pub recipe: &'a Recipe,
    /// The files, as they were given.
    pub files: &'a RunFiles,
    /// Threads at the most; the models do not depend on it.
    pub threads: usize,
    /// Told the seed with every epoch.
    pub progress: &'a dyn Fn(u64, &Epoch),
    /// Told what is done next, in words.
    pub say: &'a dyn Fn(&str),
}

/// What came of one run, beside its folder.
pub struct Fit {
    /// Labeled clips of each split.
    pub clips: Clips,
    /// The model's predictions for val and test, where they have clips.
    pub model: BTreeMap<Split, Predictions>,
    /// The constant predictor's.
    pub constant: BTreeMap<Split, Predictions>,
}

impl Job<'_> {
    /// Fits to `data` and writes the run's folder `out`.
    ///
    /// # Errors
    /// The classifier cannot be fitted to the data, or a file cannot be written.
    pub fn run(&self, data: &DatasetSplits, out: &Path) -> Result<Fit> {
        let Job { recipe, files, .. } = self;
        let provenance = self.store.provenance().clone();
        let Classify { classifier, pooling, .. } = recipe.classify;
        let metadata = ModelMetadata::new(&provenance, &recipe.method, classifier, pooling);
        let progress = &mut |seed, epoch: &Epoch| (self.progress)(seed, epoch);
        let experiment = experiment::run(data, &recipe.classify.fit_settings(), metadata, self.threads, progress)?;
        experiment.saved.save(out)?;
        let fit = Fit {
            clips: years::count_clips(data),
            model: experiment.splits.clone(),
            constant: experiment.constant_predictions,
        };
        let run = Run {
            method: recipe.method.clone(),
            classifier: classifier.name().into(),
            untrained: self.store.untrained(),
            provenance,
            recipe: (*recipe).clone(),
            splits: experiment.splits,
            unlabeled: experiment.unlabeled,
            constant: experiment.constant,
            curves: experiment.curves,
            measure: experiment.score_name,
            kept_epoch: experiment.kept_epoch,
            seeds: experiment.seeds,
            train_seconds: experiment.train_seconds,
            features: files.features.clone(),
            manifest: files.manifest.clone(),
            root: files.root.clone(),
            warnings: [data.warnings.clone(), experiment.notes].concat(),
        };
        report::write_run(out, &run)?;
        Ok(fit)
    }
}

/// The predictions of a saved model for all clips of `data`, without training, and what is known of them; `source` is the
/// model's folder.
///
/// # Errors
/// As [`SavedModel::predict`].
pub fn evaluation(
    saved: &SavedModel,
    source: &Path,
    store: &FeatureStore,
    manifest: &Manifest,
    data: &DatasetSplits,
) -> Result<Evaluation> {
    let metadata = &saved.metadata;
    let mut table = saved.predict_all(data)?;
    table.warnings.extend(manifest.warnings.iter().cloned());
    if store.provenance().model_sha256 != metadata.model_sha256 {
        table.warnings.push(other_network(store));
    }
    let metrics = Metrics {
        method: metadata.method.clone(),
        classifier: metadata.classifier.name().into(),
        untrained: metadata.untrained || store.untrained(),
        model_sha256: metadata.model_sha256.clone(),
        features: store.path().into(),
        manifest: manifest.source.clone(),
        ..Metrics::new()
    };
    Ok(Evaluation { source: source.into(), metrics, table })
}

/// What is to be said where a store is not of the network that a model knows.
fn other_network(store: &FeatureStore) -> String {
    format!("{} was made by another network than the features the model was fitted to", store.path().display())
}
