//! Predictions for new clips: their features are extracted as those that the models were trained on.

mod features;
mod output;
mod timeline;

use std::collections::HashMap;
use std::path::PathBuf;

use ndarray::Array2;

pub use output::Format;
pub use timeline::{ClipTimeline, check_replaceable as check_timeline};

use self::features::Source;
use super::TrainedRun;
use super::compatibility::check_features;
use super::early_fusion::concat_part;
use crate::cancel::CancellationToken;
use crate::classify::ModelMetadata;
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::multi_label::Thresholds;
use crate::evaluate::predictions::DEFAULT_THRESHOLD;
use crate::manifest::{Clip, Manifest};
use crate::models::WeightsChoice;
use crate::models::runtime::Device;
use crate::progress::{Event, ProgressSink};
use crate::report::compare::late_fusion;
use crate::store::FeatureStore;

/// Settings of predictions.
pub struct Options {
    /// The models, at least one. The scores of several are averaged: a late fusion.
    pub models: Vec<TrainedRun>,
    /// The clips.
    pub manifest: Manifest,
    /// Store that keeps the features. If the models need several, the names of the others contain their methods. By default,
    /// features are not kept.
    pub features: Option<PathBuf>,
    /// The shots of the clips, for sampling kind `shots`; detected by default.
    pub shots: Option<PathBuf>,
    /// Feature store with the codebook of SIFT; by default that of the run.
    pub codebook: Option<PathBuf>,
    /// Directory of the model cards.
    pub cards: PathBuf,
    /// Source of the network's weights; by default as in training.
    pub weights: Option<WeightsChoice>,
    /// The device that runs networks.
    pub device: Device,
    /// Number of decode threads.
    pub workers: Option<usize>,
    /// Memory in bytes that decode threads share.
    pub memory: Option<u64>,
    /// Retry clips that failed in an earlier run.
    pub retry_failed: bool,
    /// Plan only.
    pub dry_run: bool,
    /// Compute the scores of each row too.
    pub timeline: bool,
}

/// Predictions for the clips of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// Single-label or multi-label.
    pub task: Task,
    /// Class names, C of them.
    pub classes: Vec<String>,
    /// The clips in the order of the manifest.
    pub clips: Vec<PredictedClip>,
    /// The scores of the rows of each clip, if requested.
    pub timeline: Vec<ClipTimeline>,
}

/// The prediction for a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedClip {
    /// Id of the clip.
    pub id: String,
    /// Path as written in the manifest.
    pub path: String,
    /// The scores, or why there are none.
    pub scores: Result<ClassScores, String>,
}

/// Scores of the classes.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// Predicted classes, ascending and below C. Single-label: exactly one.
    pub predicted: Vec<usize>,
    /// The scores of the C classes, in [0, 1].
    pub scores: Vec<f32>,
}

impl Predicted {
    /// Returns the number of clips without a prediction.
    pub fn failed(&self) -> usize {
        self.clips.iter().filter(|clip| clip.scores.is_err()).count()
    }
}

/// Extracts the features of the clips and predicts their classes. Returns `None` for a dry run.
///
/// # Errors
/// Returns an error if the models cannot be combined, their network, codebook or shots are not available or differ from those of
/// the training, the store of the features was made with other settings, every clip failed, or the run is cancelled (an
/// interrupted run continues if the features are kept). Single clips that fail are part of the result.
pub fn run(options: &Options, progress: &dyn ProgressSink, cancel: &CancellationToken) -> Result<Option<Predicted>> {
    let Options { models, manifest, .. } = options;
    let task = models[0].saved.metadata.identity.task;
    if let Some(other) = models.iter().find(|run| run.saved.metadata.identity.task != task) {
        let message =
            "is of another task than the other models: single-label and multi-label scores cannot be averaged";
        return Err(Error::Config { path: other.directory.clone(), message: message.into() });
    }
    check_classes(models, progress)?;
    for run in models.iter().filter(|run| run.saved.metadata.identity.untrained) {
        let message = "UNTRAINED: the model was trained on features of seeded weights; its predictions are meaningless";
        progress.report(Event::Warning(&format!("{}: {message}", run.directory.display())));
    }
    let sources = Source::distinct(models)?;
    if options.timeline {
        timeline::check(models, sources.len())?;
    }
    for warning in &manifest.warnings {
        progress.report(Event::Warning(&format!("{}: {warning}", manifest.source.display())));
    }
    let Some(features) = features::extract(&sources, options, progress, cancel)? else { return Ok(None) };
    for (source, store) in sources.iter().zip(&features.stores).filter(|(source, _)| source.run.network.is_none()) {
        for warning in check_features(source.metadata, store, false)? {
            progress.report(Event::Warning(&warning));
        }
    }
    let store_of = |run: &TrainedRun, metadata: &ModelMetadata| -> &FeatureStore {
        let position = sources.iter().position(|source| source.has_features_of(run, metadata));
        &features.stores[position.expect("every source is extracted")]
    };
    let features_of = |run: &TrainedRun| join_features(run, manifest, |metadata| store_of(run, metadata));
    let members = models.iter().map(|run| run.predict(&features_of));
    let members = members.collect::<Result<Vec<_>>>()?;
    let mut predictions = combine(&members)?;
    if task == Task::MultiLabel {
        predictions.apply_thresholds(&thresholds(models, &predictions.classes, progress)?);
    }
    let timeline = match options.timeline {
        true => timeline::of_clips(models, manifest, &features.stores[0], &predictions.classes)?,
        false => Vec::new(),
    };
    Ok(Some(assemble(predictions, manifest, &features.stores, timeline)))
}

/// Checks that the scores of several models can be averaged, and warns of classes that a model lacks.
fn check_classes(models: &[TrainedRun], progress: &dyn ProgressSink) -> Result<()> {
    let first = &models[0];
    let classes = |run: &TrainedRun| run.saved.metadata.classes.clone();
    if let Some(other) = models.iter().find(|run| classes(run).iter().all(|class| !classes(first).contains(class))) {
        let (own, others) = (classes(other).join(", "), classes(first).join(", "));
        let message = format!(
            "has the classes {own}, none of those of {} ({others}): only scores of the same classes can be averaged",
            first.directory.display()
        );
        return Err(Error::Config { path: other.directory.clone(), message });
    }
    let missing = late_fusion::missing_classes(&models.iter().map(classes).collect::<Vec<_>>());
    for (run, missing) in models.iter().zip(missing).filter_map(|(run, missing)| Some((run, missing?))) {
        progress.report(Event::Warning(&format!("{}: {missing}", run.directory.display())));
    }
    Ok(())
}

/// Returns the features that a model reads, of the clips that are in all of their stores.
fn join_features<'a>(
    run: &TrainedRun,
    manifest: &Manifest,
    store_of: impl Fn(&ModelMetadata) -> &'a FeatureStore,
) -> Result<Dataset> {
    let join = |source: &&ModelMetadata| -> Result<Dataset> {
        Ok(Dataset::join_for_evaluation(store_of(source), manifest, source.pooling)?.unlabeled)
    };
    let mut parts = run.sources().iter().map(join).collect::<Result<Vec<_>>>()?;
    if parts.len() == 1 { Ok(parts.remove(0)) } else { concat_part(&parts.iter().collect::<Vec<_>>()) }
}

/// Averages the scores of several models.
fn combine(members: &[Predictions]) -> Result<Predictions> {
    match members {
        [only] => Ok(only.clone()),
        members => late_fusion::mean(&members.iter().collect::<Vec<_>>()),
    }
}

/// Returns the thresholds of a multi-label prediction: those of the model, or tuned on the validation clips that all models
/// predicted in training; [`DEFAULT_THRESHOLD`] without them, or if their labels differ.
fn thresholds(models: &[TrainedRun], classes: &[String], progress: &dyn ProgressSink) -> Result<Vec<f32>> {
    if let [TrainedRun { saved, .. }] = models
        && let Some(thresholds) = &saved.metadata.thresholds
    {
        return Ok(thresholds.clone());
    }
    let validation = models.iter().map(TrainedRun::validation).collect::<Result<Option<Vec<_>>>>()?;
    let fused = validation.map(|parts| combine(&parts)).transpose().unwrap_or_else(|error| {
        progress.report(Event::Warning(&format!("the thresholds of the fusion cannot be tuned: {error}")));
        None
    });
    let tuned = fused.as_ref().and_then(Thresholds::tune);
    let of_class = |class: &String| {
        let found = tuned.as_ref()?.per_label.iter().find(|label| label.label == *class)?;
        Some(found.threshold)
    };
    Ok(classes.iter().map(|class| of_class(class).unwrap_or(DEFAULT_THRESHOLD)).collect())
}

fn assemble(
    predictions: Predictions,
    manifest: &Manifest,
    stores: &[FeatureStore],
    timeline: Vec<ClipTimeline>,
) -> Predicted {
    let rows: HashMap<&str, usize> = predictions.ids.iter().map(String::as_str).zip(0..).collect();
    let mut reasons: HashMap<&str, String> = HashMap::new();
    for failure in stores.iter().flat_map(|store| store.failures()) {
        reasons.entry(&failure.id).or_insert_with(|| failure.error.clone());
    }
    let no_scores = Array2::zeros((0, 0));
    let scores = predictions.scores.as_ref().unwrap_or(&no_scores);
    let clip = |clip: &Clip| PredictedClip {
        id: clip.id.clone(),
        path: clip.path.clone(),
        scores: match rows.get(clip.id.as_str()) {
            Some(&row) => {
                Ok(ClassScores { predicted: predictions.predicted[row].clone(), scores: scores.row(row).to_vec() })
            }
            None => Err(reasons.get(clip.id.as_str()).cloned().unwrap_or_else(|| "has no features".into())),
        },
    };
    Predicted {
        task: predictions.task,
        classes: predictions.classes.clone(),
        clips: manifest.clips.iter().map(clip).collect(),
        timeline,
    }
}
