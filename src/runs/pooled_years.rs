//! Models of years that are corrections of the model of all years, and the models without pooling that they are compared with.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::{HeldOutPredictions, RunContext};
use crate::classify::pooled::{self, STRENGTHS};
use crate::classify::{Model, experiment};
use crate::dataset::DatasetSplits;
use crate::error::Result;
use crate::evaluate::{Epoch, Predictions};
use crate::manifest::{Manifest, Split};
use crate::posters::years::{self, SkippedYear, YearPlan};
use crate::report;
use crate::report::posters::{Pooling, Variant};

/// Years that the training clips of the models span that the pooled ones are compared with.
const WINDOW: i32 = 10;

/// The models of all years that have a labeled clip.
pub struct Pooled {
    /// Their predictions, in ascending order.
    pub years: Vec<(i32, HeldOutPredictions)>,
    /// How they were chosen, and the models without pooling on the same clips.
    pub report: Pooling,
}

/// Trains a model for every year with a labeled clip and writes its directory. The model of a year of `plan` is a correction of the
/// common model by its training clips; the other years have the common model. `overall` are the predictions of the common model.
///
/// # Errors
/// Returns an error if the common model cannot be corrected, a model cannot be trained, or a file cannot be written.
pub fn train(
    context: &RunContext<'_>,
    data: &DatasetSplits,
    manifest: &Manifest,
    plan: &YearPlan,
    common: &dyn Model,
    overall: &HeldOutPredictions,
) -> Result<Pooled> {
    let threads = context.threads;
    let losses =
        plan.years.iter().map(|(_, part)| pooled::validation_losses(common, part.training_set(), &part.val, threads));
    let choice = pooled::choose(&losses.collect::<Result<Vec<_>>>()?);
    (context.on_message)(&format!("strength of the common model: {}", choice.strength));
    let mut years = BTreeMap::new();
    for ((year, part), &strength) in plan.years.iter().zip(&choice.of_part) {
        (context.on_message)(&format!("{year}: {} training clips, strength {strength}", part.training_set().len()));
        years.insert(*year, correct(context, common, strength, *year, part)?);
    }
    let planned: Vec<i32> = years.keys().copied().collect();
    let year_of = years::years_by_id(manifest);
    for SkippedYear { year, reason, clips } in &plan.skipped {
        if clips.splits().iter().all(|(_, part)| part.is_empty()) {
            continue;
        }
        (context.on_message)(&format!("{year} has the model of all years: {reason}"));
        // The training clips are those of the common model.
        let part = data.filter(|split, id| split == Some(Split::Train) || year_of.get(id) == Some(year));
        years.insert(*year, correct(context, common, f64::INFINITY, *year, &part)?);
    }
    let valid: usize = plan.years.iter().map(|(_, part)| part.val.len()).sum();
    let elements = (valid * data.train.classes.len()).max(1) as f64;
    let of_plan = planned.iter().map(|year| &years[year].model);
    let pooled = Variant { name: "pooled".into(), predictions: concat(of_plan), seconds: None };
    let others = baselines(context, data, manifest, plan, overall, &pooled)?;
    let report = Pooling {
        losses: STRENGTHS.into_iter().zip(choice.losses.map(|loss| loss / elements)).collect(),
        strength: choice.strength,
        uncorrected: planned.iter().zip(&choice.of_part).filter(|(_, s)| s.is_infinite()).map(|(y, _)| *y).collect(),
        few: plan.skipped.iter().filter(|y| years.contains_key(&y.year)).map(|y| (y.year, y.reason.clone())).collect(),
        variants: [vec![pooled], others].concat(),
    };
    Ok(Pooled { years: years.into_iter().collect(), report })
}

/// Trains the model of one year and writes its directory.
fn correct(
    context: &RunContext<'_>,
    common: &dyn Model,
    strength: f64,
    year: i32,
    part: &DatasetSplits,
) -> Result<HeldOutPredictions> {
    let classifier = pooled::Pooled { common, strength };
    let settings = context.recipe.classify.fit_settings();
    let on_epoch = &mut |_, _: &Epoch| {};
    let experiment =
        experiment::run_classifier(part, &classifier, &settings, context.metadata(), context.threads, on_epoch)?;
    let out = context.files.out.join(year.to_string());
    let held_out = context.write(part, experiment, &out)?;
    report::complete(&out)?;
    Ok(held_out)
}

/// Predicts the held-out clips of the years of `plan` without pooling: by the model of all years, and by models of a year and of
/// [`WINDOW`] years, which are trained for it and not saved.
fn baselines(
    context: &RunContext<'_>,
    data: &DatasetSplits,
    manifest: &Manifest,
    plan: &YearPlan,
    overall: &HeldOutPredictions,
    pooled: &Variant,
) -> Result<Vec<Variant>> {
    let train = |name: String, parts: &[&DatasetSplits]| -> Result<Variant> {
        (context.on_message)(&format!("for comparison: {name}"));
        let start = Instant::now();
        let splits =
            parts.iter().map(|part| Ok(context.experiment(part)?.splits)).collect::<Result<Vec<BTreeMap<_, _>>>>()?;
        Ok(Variant { name, predictions: concat(splits.iter()), seconds: Some(start.elapsed().as_secs_f64()) })
    };
    let windows = years::plan(data, manifest, Some(WINDOW), context.recipe.classify.min_clips);
    let of_year: HashMap<i32, &DatasetSplits> = windows.years.iter().map(|(year, part)| (*year, part)).collect();
    let windows: Vec<&DatasetSplits> =
        plan.years.iter().map(|(year, part)| of_year.get(year).copied().unwrap_or(part)).collect();
    let alone: Vec<&DatasetSplits> = plan.years.iter().map(|(_, part)| part).collect();
    let all = pooled.predictions.iter().map(|(split, part)| (*split, overall.model[split].select_ids(&part.ids)));
    Ok(vec![
        Variant { name: "one model for all years".into(), predictions: all.collect(), seconds: None },
        train(format!("sliding windows of {WINDOW} years"), &windows)?,
        train("one model per year".into(), &alone)?,
    ])
}

/// Concatenates the predictions of several models for each split.
fn concat<'a>(models: impl Iterator<Item = &'a BTreeMap<Split, Predictions>>) -> BTreeMap<Split, Predictions> {
    let mut all: BTreeMap<Split, Predictions> = BTreeMap::new();
    for (&split, part) in models.flatten() {
        let joined = match all.remove(&split) {
            Some(joined) => joined.concat(part.clone()),
            None => part.clone(),
        };
        all.insert(split, joined);
    }
    all
}
