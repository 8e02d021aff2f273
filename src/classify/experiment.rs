//! One classifier on one data set: fits over several seeds, predictions, and the constant predictor as baseline.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{
    Classifier, Constant, FitContext, FitSettings, Model, ModelMetadata, RunCalibration, RunIdentity, SavedModel,
    build, predict,
};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::multi_label::{Averages, LabelMatrix, Thresholds};
use crate::evaluate::{Epoch, Predictions, SeedResult, SplitMetrics, compute_metrics};
use crate::manifest::Split;

/// The results of an experiment. Predictions, curves and model are those of the first seed.
pub struct Experiment {
    /// The model with its metadata.
    pub saved: SavedModel,
    /// Predictions for the splits val and test, if they have clips.
    pub splits: BTreeMap<Split, Predictions>,
    /// The calibration of the scores, which the model, and all predictions of the experiment, include.
    pub calibration: Option<RunCalibration>,
    /// Predictions for clips without a label, if there are any.
    pub unlabeled: Option<Predictions>,
    /// Metrics of the constant predictor on the same splits.
    pub constant: BTreeMap<Split, SplitMetrics>,
    /// Predictions of the constant predictor on the same splits.
    pub constant_predictions: BTreeMap<Split, Predictions>,
    /// Learning curves; empty for classifiers without epochs.
    pub curves: Vec<Epoch>,
    /// Name of the score in the curves: `accuracy` or `mAP`.
    pub score_name: &'static str,
    /// The epoch (counted from 1) whose parameters were kept, for classifiers with epochs.
    pub kept_epoch: Option<usize>,
    /// Results of each seed.
    pub seeds: Vec<SeedResult>,
    /// Duration of the fit, in seconds.
    pub train_seconds: f64,
    /// Notes of all fits without duplicates.
    pub notes: Vec<String>,
}

/// Fits the classifier of `settings` with the seeds 0, 1, …, `settings.seeds` − 1; deterministic classifiers are fitted once.
/// The classifier is fitted to [`DatasetSplits::training_set`], the constant predictor to the clips before resampling. With
/// `settings.refit`, this fit predicts val, and one to the clips of train and val, for the number of epochs that it kept, is the model and
/// predicts the other clips. `progress` is called with the seed after each epoch. `metadata` is completed with the task, the classes and the
/// number of features.
///
/// # Errors
/// Returns an error if there is only one class, the classifier cannot be fitted to the data, or its scores cannot be calibrated.
pub fn run(
    data: &DatasetSplits,
    settings: &FitSettings,
    metadata: ModelMetadata,
    threads: usize,
    progress: &mut dyn FnMut(u64, &Epoch),
) -> Result<Experiment> {
    run_classifier(data, build(settings).as_ref(), settings, metadata, threads, progress)
}

/// Does the same with a given classifier, whose models are those of `settings`.
///
/// # Errors
/// See [`run`].
pub fn run_classifier(
    data: &DatasetSplits,
    classifier: &dyn Classifier,
    settings: &FitSettings,
    metadata: ModelMetadata,
    threads: usize,
    progress: &mut dyn FnMut(u64, &Epoch),
) -> Result<Experiment> {
    check_classes(data)?;
    if settings.refit && data.val.is_empty() {
        return Err(Error::Data("--refit does not apply: there are no validation clips to add".into()));
    }
    settings.calibrate.check(data.task)?;
    let held_out: Vec<(Split, &Dataset)> =
        data.splits().into_iter().filter(|(split, part)| *split != Split::Train && !part.is_empty()).collect();
    let predict_splits = |model: &dyn Model| -> Result<BTreeMap<Split, Predictions>> {
        held_out
            .iter()
            .map(|(split, part)| Ok((*split, predict(data.task, model, &data.train.classes, part)?)))
            .collect()
    };

    let kind = settings.classifier.kind();
    let mut first = None;
    let (mut seeds, mut notes) = (Vec::new(), Vec::new());
    for seed in 0..if kind.capabilities().trained { settings.seeds } else { 1 } {
        let start = Instant::now();
        let mut progress = |epoch: &Epoch| progress(seed, epoch);
        let mut context = FitContext::new(seed, data.task, threads, &mut progress);
        let mut fitted = classifier.fit(data.training_set(), &data.val, &mut context)?;
        let mut predictions = predict_splits(fitted.model.as_ref())?;
        if settings.refit {
            let last_epoch = fitted.kept_epoch;
            let mut context = FitContext { last_epoch, ..FitContext::new(seed, data.task, threads, &mut progress) };
            let all = data.train.append(&data.val)?;
            let refitted = classifier.fit(&all, &data.val.select(&[]), &mut context)?;
            if !data.test.is_empty() {
                let test = predict(data.task, refitted.model.as_ref(), &data.train.classes, &data.test)?;
                predictions.insert(Split::Test, test);
            }
            fitted.notes.extend(refitted.notes);
            fitted.model = refitted.model;
        }
        let seconds = start.elapsed().as_secs_f64();
        let calibration = RunCalibration::fit(settings.calibrate, &mut predictions)?;
        let fitted = fitted.calibrate(calibration.as_ref());
        let splits = predictions
            .iter()
            .map(|(split, predictions)| (*split, compute_metrics(predictions).headline_map()))
            .collect();
        seeds.push(SeedResult { seed, splits, seconds });
        for note in &fitted.notes {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        first.get_or_insert((fitted, predictions, calibration, seconds));
    }
    let (fitted, splits, calibration, train_seconds) = first.expect("there is at least one seed");

    let constant_predictions = constant_predictions(data)?;
    let constant = constant_predictions.iter().map(|(split, part)| (*split, compute_metrics(part))).collect();
    let unlabeled = match data.unlabeled.is_empty() {
        true => None,
        false => Some(predict(data.task, fitted.model.as_ref(), &data.train.classes, &data.unlabeled)?),
    };
    let metadata = ModelMetadata {
        identity: RunIdentity { task: data.task, classifier: kind.name().into(), ..metadata.identity },
        classes: data.train.classes.clone(),
        dim: data.train.dim(),
        thresholds: splits.get(&Split::Val).and_then(Thresholds::tune).map(|tuned| tuned.values()),
        ..metadata
    };
    Ok(Experiment {
        saved: SavedModel { metadata, model: fitted.model },
        splits,
        calibration,
        unlabeled,
        constant,
        constant_predictions,
        curves: fitted.curves,
        score_name: fitted.score_name,
        kept_epoch: fitted.kept_epoch,
        seeds,
        train_seconds,
        notes,
    })
}

/// Checks that there are several classes.
pub(super) fn check_classes(data: &DatasetSplits) -> Result<()> {
    match &data.train.classes[..] {
        [class] => Err(Error::Data(format!("there is only one class, {class}; a classifier needs at least two"))),
        _ => Ok(()),
    }
}

/// Returns the predictions of the constant predictor for the splits val and test, if they have clips. It is fitted to the training clips
/// before resampling.
///
/// # Errors
/// Returns an error if there is no training clip, or a clip of a single-label task has several labels.
pub fn constant_predictions(data: &DatasetSplits) -> Result<BTreeMap<Split, Predictions>> {
    let mut ignore = |_: &_| {};
    let mut context = FitContext::new(0, data.task, 1, &mut ignore);
    let constant = Constant.fit(&data.train, &data.val, &mut context)?;
    let predict_part = |part: &Dataset| predict(data.task, constant.model.as_ref(), &data.train.classes, part);
    let mut predictions = data
        .splits()
        .into_iter()
        .filter(|(split, part)| *split != Split::Train && !part.is_empty())
        .map(|(split, part)| Ok((split, predict_part(part)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    if data.task == Task::MultiLabel {
        let labels = most_frequent_labels(&data.train);
        predictions.values_mut().for_each(|part| part.predicted.fill(labels.clone()));
    }
    Ok(predictions)
}

/// Returns the label set that the constant predictor assigns to every clip: the k most frequent labels of the training clips,
/// for the k with the highest micro F1 on them (ties: the lowest k).
pub(super) fn most_frequent_labels(train: &Dataset) -> Vec<usize> {
    let (clips, classes) = train.targets.dim();
    let counts: Vec<usize> =
        train.targets.columns().into_iter().map(|c| c.iter().filter(|&&t| t > 0.0).count()).collect();
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
    let rows: Vec<usize> = (0..clips).collect();
    let truth: Vec<Vec<usize>> =
        rows.iter().map(|&i| (0..classes).filter(|&class| train.targets[(i, class)] > 0.0).collect()).collect();
    let truth = LabelMatrix::from_sets(&truth, &rows, classes);
    let f1 = |k: usize| {
        Averages::compute(&truth, &LabelMatrix::from_sets(&vec![order[..k].to_vec(); clips], &rows, classes)).micro.f1
    };
    let mut best = (0.0, 1);
    for k in 1..=classes {
        let f1 = f1(k);
        if f1 > best.0 {
            best = (f1, k);
        }
    }
    let mut labels = order[..best.1].to_vec();
    labels.sort_unstable();
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn constant_labels_maximize_micro_f1() {
        let targets = array![[1., 0., 1.], [1., 0., 1.], [1., 1., 0.], [0., 0., 1.], [1., 0., 0.]];
        let train = Dataset {
            ids: (0..5).map(|i| i.to_string()).collect(),
            groups: vec![None; 5],
            rows: Array2::zeros((5, 1)).into(),
            offsets: (0..=5).collect(),
            targets,
            classes: ["a", "b", "c"].map(String::from).to_vec(),
        };
        // Micro F1: {0} 8/13, {0, 2} 14/18, {0, 1, 2} 16/23.
        assert_eq!(most_frequent_labels(&train), [0, 2]);
    }
}
