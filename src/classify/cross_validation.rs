//! Cross-validation: each clip is predicted by a model that was fitted without it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ndarray::Array2;

use super::experiment::{Experiment, check_classes, constant_predictions, most_frequent_labels};
use super::{
    Classifier, Constant, FitContext, FitOutput, FitSettings, ModelMetadata, RunCalibration, RunIdentity, SavedModel,
    build, predict, predictions,
};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::multi_label::Thresholds;
use crate::evaluate::predictions::table::csv_error;
use crate::evaluate::{Epoch, Predictions, SeedResult, compute_metrics};
use crate::manifest::Split;

/// The fold of each training clip, for each repetition.
#[derive(Debug, Clone, PartialEq)]
pub struct Folds {
    /// Number of folds, K ≥ 2.
    pub count: usize,
    /// Fold of each clip of the training split, below K; one list per repetition.
    pub of_clip: Vec<Vec<usize>>,
}

impl Folds {
    /// Writes a table with the fold of each clip, one column per repetition.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_csv(&self, ids: &[String], path: &Path) -> Result<()> {
        let mut table = csv::Writer::from_path(path).map_err(csv_error(path))?;
        let names = (0..self.of_clip.len()).map(|repetition| format!("fold_{repetition}"));
        table.write_record(std::iter::once("id".into()).chain(names)).map_err(csv_error(path))?;
        for (i, id) in ids.iter().enumerate() {
            let folds = self.of_clip.iter().map(|folds| folds[i].to_string());
            table.write_record(std::iter::once(id.clone()).chain(folds)).map_err(csv_error(path))?;
        }
        table.flush().map_err(Error::io(path))
    }
}

/// The model that predicts a fold, if it differs from the model of the run.
#[derive(Clone)]
pub struct FoldFit {
    /// The settings of its fit.
    pub settings: FitSettings,
    /// The clips of the training split, with the features of its pooling.
    pub train: Arc<Dataset>,
}

/// The least number of folds of a classifier: those with early stopping need one of the folds for it.
pub fn min_folds(trained: bool) -> usize {
    if trained { 3 } else { 2 }
}

/// Predicts each clip of the training split by a model that was fitted to the other folds, and fits the model of the run to all of them.
///
/// `settings` are those of the model of the run. `of_fold` are the models that predict the folds, (repetition, fold), if they were selected
/// without that fold; empty if all have `settings` and the features of `data`.
///
/// The predictions of the split val are those of the folds (of the first repetition). Classifiers with early stopping use the fold after the
/// predicted one for it, so that a clip does not influence the model that predicts it; the model of the run uses the first fold. The
/// predictions of the test split are those of the model of the run, whose scores are calibrated on the predictions of the folds. Repetitions
/// have other folds, and their numbers as seeds. `progress` is called with the number of the fit after each epoch; there are
/// repetitions · K + 1 fits. K is at least [`min_folds`].
///
/// # Errors
/// Returns an error if there is only one class, or the classifier cannot be fitted to the folds.
pub fn run(
    data: &DatasetSplits,
    settings: &FitSettings,
    of_fold: &[Vec<FoldFit>],
    folds: &Folds,
    metadata: ModelMetadata,
    threads: usize,
    progress: &mut dyn FnMut(u64, &Epoch),
) -> Result<Experiment> {
    check_classes(data)?;
    settings.calibrate.check(data.task)?;
    let kind = settings.classifier.kind();
    let trained = kind.capabilities().trained;
    let classes = &data.train.classes;
    let start = Instant::now();
    let mut first: Option<(Predictions, Predictions)> = None;
    let (mut seeds, mut notes) = (Vec::new(), Vec::new());
    for (repetition, fold_of) in folds.of_clip.iter().enumerate() {
        let start = Instant::now();
        let seed = repetition as u64;
        let mut scores = OutOfFold::new(&data.train);
        let mut constant_scores = OutOfFold::new(&data.train);
        for fold in 0..folds.count {
            let (settings, train) = match of_fold.get(repetition) {
                Some(of_fold) => (&of_fold[fold].settings, of_fold[fold].train.as_ref()),
                None => (settings, &data.train),
            };
            let parts = Parts::new(train, fold_of, Some(fold), trained.then_some((fold + 1) % folds.count));
            let fit = (repetition * folds.count + fold) as u64;
            let mut progress = |epoch: &Epoch| progress(fit, epoch);
            let mut context = FitContext::new(seed, data.task, threads, &mut progress);
            let fitted = build(settings).fit(&parts.train, &parts.stop, &mut context)?;
            if repetition == 0 {
                notes.extend(fitted.notes.into_iter().map(|note| format!("fold {fold}: {note}")));
            }
            scores.add(&parts, &predict(data.task, fitted.model.as_ref(), classes, &parts.held_out)?);
            let constant = Constant.fit(&parts.train, &parts.stop, &mut context)?;
            let mut constant = predict(data.task, constant.model.as_ref(), classes, &parts.held_out)?;
            if data.task == Task::MultiLabel {
                constant.predicted.fill(most_frequent_labels(&parts.train));
            }
            constant_scores.add(&parts, &constant);
        }
        let (predicted, constant) = (scores.finish(data, false)?, constant_scores.finish(data, true)?);
        let mut calibrated = BTreeMap::from([(Split::Val, predicted.clone())]);
        RunCalibration::fit(settings.calibrate, &mut calibrated)?;
        let headlines = calibrated.iter().map(|(&split, part)| (split, compute_metrics(part).headline_map()));
        seeds.push(SeedResult { seed, splits: headlines.collect(), seconds: start.elapsed().as_secs_f64() });
        first.get_or_insert((predicted, constant));
    }
    let (out_of_fold, constant) = first.expect("there is at least one repetition");

    let parts = Parts::new(&data.train, &folds.of_clip[0], None, trained.then_some(0));
    let fit = (folds.of_clip.len() * folds.count) as u64;
    let mut on_epoch = |epoch: &Epoch| progress(fit, epoch);
    let mut context = FitContext::new(0, data.task, threads, &mut on_epoch);
    let fitted = build(settings).fit(&parts.train, &parts.stop, &mut context)?;
    let mut splits = BTreeMap::from([(Split::Val, out_of_fold)]);
    let mut of_constant = BTreeMap::from([(Split::Val, constant)]);
    if !data.test.is_empty() {
        splits.insert(Split::Test, predict(data.task, fitted.model.as_ref(), classes, &data.test)?);
        of_constant.extend(constant_predictions(data)?);
    }
    let calibration = RunCalibration::fit(settings.calibrate, &mut splits)?;
    let FitOutput { model, curves, score_name, kept_epoch, notes: final_notes } =
        fitted.calibrate(calibration.as_ref());
    notes.extend(final_notes);
    let unlabeled = match data.unlabeled.is_empty() {
        true => None,
        false => Some(predict(data.task, model.as_ref(), classes, &data.unlabeled)?),
    };
    let metadata = ModelMetadata {
        identity: RunIdentity { task: data.task, classifier: kind.name().into(), ..metadata.identity },
        classes: classes.clone(),
        dim: data.train.dim(),
        thresholds: Thresholds::tune(&splits[&Split::Val]).map(|tuned| tuned.values()),
        ..metadata
    };
    Ok(Experiment {
        saved: SavedModel { metadata, model },
        constant: of_constant.iter().map(|(split, part)| (*split, compute_metrics(part))).collect(),
        constant_predictions: of_constant,
        splits,
        calibration,
        unlabeled,
        curves,
        score_name,
        kept_epoch,
        seeds,
        train_seconds: start.elapsed().as_secs_f64(),
        notes,
    })
}

/// The parts of the training split of one fit.
struct Parts {
    train: Dataset,
    /// For early stopping; may be empty.
    stop: Dataset,
    /// Clips to predict, and their indices.
    held_out: Dataset,
    indices: Vec<usize>,
}

impl Parts {
    fn new(data: &Dataset, fold_of: &[usize], held_out: Option<usize>, stop: Option<usize>) -> Self {
        let select = |keep: &dyn Fn(usize) -> bool| (0..data.len()).filter(|&i| keep(fold_of[i])).collect::<Vec<_>>();
        let indices = select(&|fold| Some(fold) == held_out);
        Self {
            train: data.select(&select(&|fold| Some(fold) != held_out && Some(fold) != stop)),
            stop: data.select(&select(&|fold| Some(fold) == stop)),
            held_out: data.select(&indices),
            indices,
        }
    }
}

/// Predictions of the folds, in the order of the clips.
struct OutOfFold {
    scores: Array2<f32>,
    predicted: Vec<Vec<usize>>,
}

impl OutOfFold {
    fn new(data: &Dataset) -> Self {
        Self { scores: Array2::zeros(data.targets.dim()), predicted: vec![Vec::new(); data.len()] }
    }

    fn add(&mut self, parts: &Parts, predictions: &Predictions) {
        let scores = predictions.scores.as_ref().expect("models predict scores");
        for (row, &index) in parts.indices.iter().enumerate() {
            self.scores.row_mut(index).assign(&scores.row(row));
            self.predicted[index] = predictions.predicted[row].clone();
        }
    }

    /// Returns the predictions; with `keep_sets`, the predicted sets are those of the folds.
    fn finish(self, data: &DatasetSplits, keep_sets: bool) -> Result<Predictions> {
        let mut all = predictions(data.task, self.scores, &data.train.classes, &data.train)?;
        if keep_sets {
            all.predicted = self.predicted;
        }
        Ok(all)
    }
}
