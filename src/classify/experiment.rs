//! One classifier on one joined data set: fits over seeds, predictions, and the constant predictor beside them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{About, Fitted, Fitting, Model, SavedModel, build, predict};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::multi_label::{Averages, LabelMatrix};
use crate::evaluate::{Epoch, Predictions, SeedResult, SplitMetrics, compute_metrics};
use crate::manifest::Split;
use crate::recipe::{ClassifierKind, Classify};

/// What came of it. Predictions, curves and model are the first seed's.
pub struct Experiment {
    /// The model, with what it is.
    pub saved: SavedModel,
    /// Predictions for val and test, where they have clips.
    pub splits: BTreeMap<Split, Predictions>,
    /// Predictions for the clips without a label, where there are any.
    pub unlabeled: Option<Predictions>,
    /// What the constant predictor gets on the same splits.
    pub constant: BTreeMap<Split, SplitMetrics>,
    /// What it predicts there.
    pub constant_predictions: BTreeMap<Split, Predictions>,
    /// Learning curves; empty for classifiers without epochs.
    pub curves: Vec<Epoch>,
    /// What the scores of the curves are: `accuracy` or `mAP`.
    pub measure: &'static str,
    /// The epoch (counted from 1) that was kept, where there are epochs.
    pub kept_epoch: Option<usize>,
    /// What each seed gave.
    pub seeds: Vec<SeedResult>,
    /// Seconds of the fit.
    pub train_seconds: f64,
    /// Notes of all fits, each once.
    pub notes: Vec<String>,
}

/// Fits the classifier of `settings` with the seeds 0, 1, … as many as `settings.seeds`; `about` is completed by what is
/// found out here. It is trained on [`DatasetSplits::training`]; the constant predictor knows the clips as they were before
/// resampling. `progress` is told the seed with every epoch. The classifiers that draw nothing (all but the networks)
/// give the same with every seed, and are fitted once.
///
/// # Errors
/// There is only one class, or the classifier cannot be fitted to the data.
pub fn run(
    data: &DatasetSplits,
    settings: &Classify,
    about: About,
    threads: usize,
    progress: &mut dyn FnMut(u64, &Epoch),
) -> Result<Experiment> {
    if let [class] = &data.train.classes[..] {
        return Err(Error::Data(format!("there is only one class, {class}: nothing to tell apart")));
    }
    let classifier = build(settings, settings.classifier);
    let held_out: Vec<(Split, &Dataset)> =
        data.splits().into_iter().filter(|(split, part)| *split != Split::Train && !part.is_empty()).collect();
    let predict_splits = |model: &dyn Model| -> Result<BTreeMap<Split, Predictions>> {
        held_out
            .iter()
            .map(|(split, part)| Ok((*split, predict(data.task, model, &data.train.classes, part)?)))
            .collect()
    };

    let draws = settings.classifier.is_trained();
    let mut first: Option<(Fitted, BTreeMap<Split, Predictions>, f64)> = None;
    let (mut seeds, mut notes) = (Vec::new(), Vec::new());
    for seed in 0..if draws { settings.seeds } else { 1 } {
        let began = Instant::now();
        let mut tell = |epoch: &Epoch| progress(seed, epoch);
        let mut fitting = Fitting { seed, task: data.task, threads, progress: &mut tell };
        let fitted = classifier.fit(data.training_set(), &data.val, &mut fitting)?;
        let seconds = began.elapsed().as_secs_f64();
        let predictions = predict_splits(fitted.model.as_ref())?;
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
        first.get_or_insert((fitted, predictions, seconds));
    }
    let (fitted, splits, train_seconds) = first.expect("a recipe has at least one seed");

    let constant = build(settings, ClassifierKind::Constant).fit(
        &data.train,
        &data.val,
        &mut Fitting { seed: 0, task: data.task, threads, progress: &mut |_| {} },
    )?;
    let mut constant = predict_splits(constant.model.as_ref())?;
    if data.task == Task::MultiLabel {
        let labels = commonest(&data.train);
        constant.values_mut().for_each(|part| part.predicted.fill(labels.clone()));
    }
    let constant_predictions = constant;
    let constant = constant_predictions.iter().map(|(split, part)| (*split, compute_metrics(part))).collect();
    let unlabeled = match data.unlabeled.is_empty() {
        true => None,
        false => Some(predict(data.task, fitted.model.as_ref(), &data.train.classes, &data.unlabeled)?),
    };
    let about = About {
        task: data.task,
        classifier: settings.classifier,
        classes: data.train.classes.clone(),
        dim: data.train.dim(),
        ..about
    };
    Ok(Experiment {
        saved: SavedModel { about, model: fitted.model },
        splits,
        unlabeled,
        constant,
        constant_predictions,
        curves: fitted.curves,
        measure: fitted.measure,
        kept_epoch: fitted.kept_epoch,
        seeds,
        train_seconds,
        notes,
    })
}

/// The labels to give every clip where nothing is known of it: the k commonest of the training clips, for the k whose micro
/// F1 there is highest (of equal ones the lowest).
fn commonest(train: &Dataset) -> Vec<usize> {
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
    fn the_constant_labels_are_the_commonest_of_the_best_k() {
        // Clips have 0 and 2 nearly always; 1 hurts more than it helps.
        let targets = array![[1., 0., 1.], [1., 0., 1.], [1., 1., 0.], [0., 0., 1.], [1., 0., 0.]];
        let train = Dataset {
            ids: (0..5).map(|i| i.to_string()).collect(),
            groups: vec![None; 5],
            rows: Array2::zeros((5, 1)),
            offsets: (0..=5).collect(),
            targets,
            classes: ["a", "b", "c"].map(String::from).to_vec(),
        };
        // Micro F1: {0} 8/13, {0, 2} 14/18, {0, 1, 2} 16/23.
        assert_eq!(commonest(&train), [0, 2]);
    }
}
