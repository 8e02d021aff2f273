//! One classifier on one joined data set: fits over seeds, predictions, and the constant predictor beside them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{About, Fitted, Fitting, Model, SavedModel, build, predict};
use crate::dataset::{Dataset, Joined};
use crate::error::{Error, Result};
use crate::evaluate::single_label::{SingleLabel, measure};
use crate::evaluate::{Epoch, Predictions, SeedResult, SeedScore};
use crate::manifest::Split;
use crate::recipe::{ClassifierKind, Classify};

/// What came of it. Predictions, curves and model are the first seed's.
pub struct Experiment {
    /// The model, with what it is.
    pub saved: SavedModel,
    /// Predictions for val and test, where they have clips.
    pub splits: BTreeMap<Split, Predictions>,
    /// Predictions for the clips without a label, where there are any.
    pub unlabelled: Option<Predictions>,
    /// What the constant predictor gets on the same splits.
    pub constant: BTreeMap<Split, SingleLabel>,
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
/// found out here. `progress` is told the seed with every epoch. The classifiers that draw nothing (all but the networks)
/// give the same with every seed, and are fitted once.
///
/// # Errors
/// There is only one class, or the classifier cannot be fitted to the data.
pub fn run(
    data: &Joined,
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
        held_out.iter().map(|(split, part)| Ok((*split, predict(model, &data.train.classes, part)?))).collect()
    };

    let draws = settings.classifier.is_trained();
    let mut first: Option<(Fitted, BTreeMap<Split, Predictions>, f64)> = None;
    let (mut seeds, mut notes) = (Vec::new(), Vec::new());
    for seed in 0..if draws { settings.seeds } else { 1 } {
        let began = Instant::now();
        let mut tell = |epoch: &Epoch| progress(seed, epoch);
        let mut fitting = Fitting { seed, task: data.task, threads, progress: &mut tell };
        let fitted = classifier.fit(&data.train, &data.val, &mut fitting)?;
        let seconds = began.elapsed().as_secs_f64();
        let predictions = predict_splits(fitted.model.as_ref())?;
        let splits = predictions
            .iter()
            .map(|(split, predictions)| {
                let measured = measure(predictions);
                (*split, SeedScore { accuracy: measured.accuracy, macro_f1: measured.macro_.f1 })
            })
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
    let constant =
        predict_splits(constant.model.as_ref())?.iter().map(|(split, part)| (*split, measure(part))).collect();
    let unlabelled = match data.unlabelled.is_empty() {
        true => None,
        false => Some(predict(fitted.model.as_ref(), &data.train.classes, &data.unlabelled)?),
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
        unlabelled,
        constant,
        curves: fitted.curves,
        measure: fitted.measure,
        kept_epoch: fitted.kept_epoch,
        seeds,
        train_seconds,
        notes,
    })
}
