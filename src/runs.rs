//! Runs: classifiers trained on a store, each with its own directory. [`RunContext::train`] trains one of them, [`by_year`] one
//! per year, [`early_fusion`] one on the features and [`learned_fusion`] one on the scores of several runs. [`TrainedRun`] reads their models,
//! with the runs of a learned fusion, and `predict` applies them to new clips.

pub mod by_year;
mod compatibility;
pub mod early_fusion;
pub mod fusions;
pub mod learned_fusion;
mod pooled_years;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod predict;
pub mod search;
mod stack;
mod trained;

use std::collections::BTreeMap;
use std::path::Path;

pub use trained::{NETWORK_ONNX, NETWORK_OUTPUT, TrainedRun};

use self::compatibility::check_features;
use crate::classify::cross_validation::{self, FoldFit, Folds};
use crate::classify::experiment::Experiment;
use crate::classify::{ModelMetadata, RunIdentity, RunInputs, SavedModel, experiment};
use crate::dataset::DatasetSplits;
use crate::error::{Error, Result};
use crate::evaluate::predictions::PredictionTable;
use crate::evaluate::{Epoch, Predictions};
use crate::extract::codebook::{self, Codebook};
use crate::manifest::{Manifest, Split};
use crate::posters::{ClipCounts, INDEX_FILE, ModelGrouping, years};
use crate::recipe::{Classify, Recipe, RunFiles};
use crate::report::compare::ComparedRun;
use crate::report::search::SearchReport;
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
    /// Folds of a cross-validation; by default, the splits of the data are used.
    pub folds: Option<Folds>,
    /// The models that predict its folds, (repetition, fold), if their settings are not those of the recipe.
    pub of_fold: Vec<Vec<FoldFit>>,
    /// The search that selected the settings of the recipe.
    pub search: Option<SearchReport>,
    /// Maximum number of threads; the models do not depend on it.
    pub threads: usize,
    /// Called with the number of the fit (the seed, or that of a fold) after each epoch.
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

/// Checks that a run does not leave files of another kind of run in its directory: models by year (`by`) beside a single run, or
/// the reverse.
///
/// # Errors
/// Returns an error if `out` is the directory of another kind of run.
pub fn check_output(out: &Path, by: Option<ModelGrouping>) -> Result<()> {
    match by {
        Some(_) => refuse(out, &["metrics.json"], "the directory of a single run, which this run would not replace"),
        None => refuse(
            out,
            &[INDEX_FILE],
            "the directory of poster models (written with --by), which this run would not replace",
        ),
    }
}

/// Checks that an evaluation does not replace the results of a training run.
///
/// # Errors
/// Returns an error if `out` is the directory of trained models.
pub fn check_evaluation_output(out: &Path) -> Result<()> {
    let files = [INDEX_FILE, SavedModel::FILES[0]];
    refuse(out, &files, "the directory of trained models, whose results the evaluation would replace")
}

/// Checks that a comparison does not replace files of a run.
///
/// # Errors
/// Returns an error if `out` is the directory of a run.
pub fn check_comparison_output(out: &Path) -> Result<()> {
    refuse(out, &[INDEX_FILE, "metrics.json"], "the directory of a run")
}

fn refuse(out: &Path, files: &[&str], reason: &str) -> Result<()> {
    if !files.iter().any(|file| out.join(file).is_file()) {
        return Ok(());
    }
    Err(Error::Config { path: out.to_path_buf(), message: format!("{reason}: choose another --out") })
}

impl RunContext<'_> {
    /// Trains on `data` and writes the directory of the run, `out`, which [`report::complete`] completes.
    ///
    /// # Errors
    /// Returns an error if the classifier cannot be trained on the data or a file cannot be written.
    pub fn train(&self, data: &DatasetSplits, out: &Path) -> Result<HeldOutPredictions> {
        let on_epoch = &mut |seed, epoch: &Epoch| (self.on_epoch)(seed, epoch);
        let experiment = match &self.folds {
            Some(folds) => {
                let (settings, metadata) = (self.recipe.classify.fit_settings(), self.metadata());
                cross_validation::run(data, &settings, &self.of_fold, folds, metadata, self.threads, on_epoch)?
            }
            None => self.experiment(data)?,
        };
        self.write(data, experiment, out)
    }

    /// Trains on `data` without folds. Writes no files.
    fn experiment(&self, data: &DatasetSplits) -> Result<Experiment> {
        let on_epoch = &mut |seed, epoch: &Epoch| (self.on_epoch)(seed, epoch);
        experiment::run(data, &self.recipe.classify.fit_settings(), self.metadata(), self.threads, on_epoch)
    }

    fn metadata(&self) -> ModelMetadata {
        let Classify { classifier, pooling, .. } = self.recipe.classify;
        ModelMetadata::new(self.store.provenance(), &self.recipe.method, classifier, pooling)
    }

    /// Writes the directory of a run, except that it is not complete yet.
    fn write(&self, data: &DatasetSplits, experiment: Experiment, out: &Path) -> Result<HeldOutPredictions> {
        let RunContext { recipe, files, .. } = self;
        report::begin(out)?;
        experiment.saved.save(out)?;
        save_codebook(self.store, &recipe.method, out)?;
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
            recipe: recipe.to_toml(),
            search: self.search.clone(),
            extract_seconds: self.store.provenance().extract_seconds,
            splits: experiment.splits,
            calibration: experiment.calibration,
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

/// Writes the codebook of the features of a store, if they are histograms, to the directory of a run: the model can only be applied
/// to new clips with it.
fn save_codebook(store: &FeatureStore, method: &str, out: &Path) -> Result<()> {
    match Codebook::read(store)? {
        Some(codebook) => codebook.save(store.provenance(), &out.join(codebook::file_name(method))),
        None => Ok(()),
    }
}

/// Writes the directory of a fusion: the files of an evaluation, with `unlabeled`, its predictions for clips without a label.
fn write_fusion(fusion: &ComparedRun, unlabeled: Option<Predictions>, out: &Path) -> Result<()> {
    let parts = fusion.parts.iter().map(|(&part, predictions)| (part.split(), predictions.clone()));
    let mut table: Option<PredictionTable> = None;
    for (split, part) in parts.chain(unlabeled.map(|part| (None, part))) {
        let splits = vec![split; part.len()];
        table = Some(match table {
            None => PredictionTable { predictions: part, splits, warnings: Vec::new() },
            Some(above) => PredictionTable {
                predictions: above.predictions.concat(part),
                splits: [above.splits, splits].concat(),
                warnings: above.warnings,
            },
        });
    }
    let table = table.ok_or_else(|| Error::Data(format!("{} predicts no clip", fusion.name)))?;
    let (identity, inputs) = (fusion.identity.clone(), fusion.inputs.clone());
    report::write_evaluation(out, &Evaluation { source: fusion.name.clone().into(), identity, inputs, table })?;
    report::complete(out)
}

/// Predicts all clips of `data` with a saved model. `source` is the directory of the model. With `force`, features of another
/// network are a warning.
///
/// # Errors
/// Returns an error if the model is a fusion, which reads several stores, if the features were computed by another network, or the error of
/// [`SavedModel::predict`].
pub fn evaluation(
    saved: &SavedModel,
    source: &Path,
    store: &FeatureStore,
    manifest: &Manifest,
    data: &DatasetSplits,
    force: bool,
) -> Result<Evaluation> {
    let ModelMetadata { identity, members, runs, .. } = &saved.metadata;
    if !members.is_empty() || !runs.is_empty() {
        let message =
            "a fusion, which reads the features of several stores: kinoprobe-predict extracts them, and applies it";
        return Err(Error::Config { path: source.to_path_buf(), message: message.into() });
    }
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
