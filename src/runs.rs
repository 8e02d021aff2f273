//! Runs: classifiers trained on a store, each with its own directory. [`RunContext::train`] trains one of them, [`by_year`] one
//! per year, [`early_fusion`] one on the features of several runs.

pub mod by_year;
mod compatibility;
pub mod early_fusion;

use std::collections::BTreeMap;
use std::path::Path;

use self::compatibility::check_features;
use crate::classify::{ModelMetadata, RunIdentity, RunInputs, SavedModel, experiment};
use crate::dataset::DatasetSplits;
use crate::error::Result;
use crate::evaluate::{Epoch, Predictions};
use crate::manifest::{Manifest, Split};
use crate::posters::{ClipCounts, years};
use crate::recipe::{Classify, Recipe, RunFiles};
use crate::report::{self, Evaluation, TrainingRun};
use crate::store::FeatureStore;

/// Inputs and settings that all runs of one command share.
pub struct RunContext<'a> {
    /// Features.
    pub store: &'a FeatureStore,
    /// Recipe with absolute paths in `run`.
    pub recipe: &'a Recipe,
    /// Files, as given on the command line.
    pub files: &'a RunFiles,
    /// Maximum number of threads; the models do not depend on it.
    pub threads: usize,
    /// Called with the seed after each epoch.
    pub on_epoch: &'a dyn Fn(u64, &Epoch),
    /// Called with a message before each step.
    pub on_message: &'a dyn Fn(&str),
}

/// Held-out predictions of a model, in addition to the files of its run.
pub struct HeldOutPredictions {
    /// Number of labeled clips of each split.
    pub clips: ClipCounts,
    /// Predictions of the model for val and test, if they have clips.
    pub model: BTreeMap<Split, Predictions>,
    /// Predictions of the constant baseline.
    pub constant: BTreeMap<Split, Predictions>,
}

impl RunContext<'_> {
    /// Trains on `data` and writes the directory of the run, `out`.
    ///
    /// # Errors
    /// Returns an error if the classifier cannot be trained on the data or a file cannot be written.
    pub fn train(&self, data: &DatasetSplits, out: &Path) -> Result<HeldOutPredictions> {
        let RunContext { recipe, files, .. } = self;
        let provenance = self.store.provenance();
        let on_epoch = &mut |seed, epoch: &Epoch| (self.on_epoch)(seed, epoch);
        let Classify { classifier, pooling, .. } = recipe.classify;
        let metadata = ModelMetadata::new(provenance, &recipe.method, classifier, pooling);
        let experiment = experiment::run(data, &recipe.classify.fit_settings(), metadata, self.threads, on_epoch)?;
        experiment.saved.save(out)?;
        let held_out = HeldOutPredictions {
            clips: years::count_clips(data),
            model: experiment.splits.clone(),
            constant: experiment.constant_predictions,
        };
        let run = TrainingRun {
            identity: experiment.saved.metadata.identity.clone(),
            inputs: RunInputs {
                features: files.features.clone(),
                manifest: files.manifest.clone(),
                root: files.root.clone(),
            },
            recipe: (*recipe).clone(),
            extract_seconds: provenance.extract_seconds,
            splits: experiment.splits,
            unlabeled: experiment.unlabeled,
            constant: experiment.constant,
            curves: experiment.curves,
            score_name: experiment.score_name,
            best_epoch: experiment.kept_epoch,
            seeds: experiment.seeds,
            train_seconds: experiment.train_seconds,
            warnings: [data.warnings.clone(), experiment.notes].concat(),
        };
        report::write_run(out, &run)?;
        Ok(held_out)
    }
}

/// Predicts all clips of `data` with a saved model. `source` is the directory of the model. With `force`, features of another
/// network are a warning.
///
/// # Errors
/// Returns an error if the features were computed by another network, or the error of [`SavedModel::predict`].
pub fn evaluation(
    saved: &SavedModel,
    source: &Path,
    store: &FeatureStore,
    manifest: &Manifest,
    data: &DatasetSplits,
    force: bool,
) -> Result<Evaluation> {
    let identity = &saved.metadata.identity;
    let warnings = check_features(&saved.metadata, store, force)?;
    let mut table = saved.predict_all(data)?;
    table.warnings.extend(manifest.warnings.iter().cloned());
    table.warnings.extend(warnings);
    Ok(Evaluation {
        source: source.into(),
        identity: RunIdentity { untrained: identity.untrained || store.untrained(), ..identity.clone() },
        inputs: RunInputs { features: store.path().into(), manifest: manifest.source.clone(), root: None },
        table,
    })
}
