//! Poster models by year: trains or evaluates a model per year and one of all years, and writes their report.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::compatibility::check_features;
use super::pooled_years::{self, Pooled};
use super::{HeldOutPredictions, RunContext};
use crate::classify::{RunIdentity, SavedModel};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::{Predictions, compute_metrics};
use crate::extract::Extractor;
use crate::manifest::imbalance::Resampled;
use crate::manifest::{Manifest, Split};
use crate::models::Precision;
use crate::posters::years::{self, YearPlan};
use crate::posters::{self, ClipCounts, ModelGrouping, OverallModel, PosterIndex, YearModel};
use crate::recipe::Classify;
use crate::report;
use crate::report::compare::{Part, duplicates};
use crate::report::posters::{ModelRow, PosterExample, PosterReport};
use crate::store::FeatureStore;

/// Directory and name of the model of all years.
const OVERALL: &str = "all";

/// Trains a model of all clips and, by year, one per year with enough clips. Writes their directories, posters.json and the
/// report. Returns the summary for the terminal. Removes the runs of years that posters.json listed and that have no model now.
///
/// `data` contains all clips; `resampled` describes the resampling of its training clips.
///
/// # Errors
/// Returns an error if the task is not multi-label, no year has enough clips, training fails, or a file cannot be written.
pub fn train(
    context: &RunContext<'_>,
    data: &DatasetSplits,
    manifest: &Manifest,
    by: ModelGrouping,
    resampled: Option<Resampled>,
) -> Result<String> {
    let Classify { window, pool, min_clips, .. } = context.recipe.classify;
    let out = &context.files.out;
    if data.task != Task::MultiLabel {
        return Err(Error::Data("models by year are multi-label: pass --task multi-label".into()));
    }
    let plan = match by {
        ModelGrouping::Year => years::plan(data, manifest, window, min_clips),
        ModelGrouping::None => YearPlan::default(),
    };
    if !pool {
        plan.skipped.iter().for_each(|skipped| (context.on_message)(&skipped.to_string()));
    }
    if by == ModelGrouping::Year && plan.years.is_empty() {
        let reason = match plan.skipped.first() {
            Some(first) => format!("no year has enough clips ({first}); lower classify.min_clips in the recipe"),
            None => "no clip has a year; add a column `year` to the manifest".into(),
        };
        return Err(Error::Data(format!("{}: {reason}, or pass --by none", manifest.source.display())));
    }
    let earlier = PosterIndex::read(out).ok();
    let mut models = describe(context, data, manifest, by);
    let train_overall = || {
        (context.on_message)(&format!("{OVERALL}: {} training clips", data.training_set().len()));
        train_run(context, data, &out.join(OVERALL))
    };
    let (years, overall, pooling) = if pool {
        let overall = train_overall()?;
        let common = SavedModel::load(&out.join(OVERALL))?.model;
        let Pooled { years, report } = pooled_years::train(context, data, manifest, &plan, common.as_ref(), &overall)?;
        (years, overall, Some(report))
    } else {
        let mut years = Vec::new();
        for (year, part) in &plan.years {
            (context.on_message)(&format!("{year}: {} training clips", part.training_set().len()));
            years.push((*year, train_run(context, part, &out.join(year.to_string()))?));
        }
        (years, train_overall()?, None)
    };
    let labels = models.labels.len();
    models.years = years.iter().map(|(year, held_out)| year_model(*year, held_out, labels)).collect();
    models.overall = Some(OverallModel {
        directory: OVERALL.into(),
        thresholds: posters::thresholds(overall.model.get(&Split::Val), labels),
    });
    models.write(out)?;
    if let Some(earlier) = earlier {
        remove_other_years(out, &earlier, &models)?;
    }

    let split = reported_split(&overall.model);
    let split_of: HashMap<&str, Split> =
        manifest.clips.iter().filter_map(|clip| Some((clip.id.as_str(), clip.split?))).collect();
    let report = PosterReport {
        posters: &models,
        part: split.map_or("", Split::name),
        rows: split.map(|split| model_rows(&years, Some(&overall), split)).unwrap_or_default(),
        example: split.map(|split| example(&models, out, data, manifest, split)).transpose()?.flatten(),
        resampled,
        duplicates: duplicates::find(context.store, |id| split_of.get(id).map_or(Part::All, |&split| split.into()))?,
        skipped: plan.skipped.iter().filter(|_| !pool).map(|skipped| skipped.to_string()).collect(),
        warnings: [data.warnings.clone(), plan.warnings].concat(),
        pooling,
    };
    report::posters::write(out, &report)?;
    Ok(report::posters::summary(&report))
}

/// Trains a model and writes its directory, which has no page.
fn train_run(context: &RunContext<'_>, data: &DatasetSplits, out: &Path) -> Result<HeldOutPredictions> {
    let held_out = context.train(data, out)?;
    report::complete(out)?;
    Ok(held_out)
}

/// Describes the model of a year.
fn year_model(year: i32, held_out: &HeldOutPredictions, labels: usize) -> YearModel {
    let measured = reported_split(&held_out.model).map(|split| compute_metrics(&held_out.model[&split]));
    YearModel {
        year,
        directory: year.to_string(),
        thresholds: posters::thresholds(held_out.model.get(&Split::Val), labels),
        clips: held_out.clips,
        metrics: measured.as_ref().map(posters::metrics).unwrap_or_default(),
    }
}

/// Removes the runs of the years that `earlier`, the former posters.json of `out`, lists and `models` does not.
fn remove_other_years(out: &Path, earlier: &PosterIndex, models: &PosterIndex) -> Result<()> {
    let is_kept = |year: i32| models.years.iter().any(|model| model.year == year);
    for model in earlier.years.iter().filter(|model| !is_kept(model.year)) {
        // This program names the directory like the year.
        if model.directory == model.year.to_string() {
            report::remove_run(&out.join(&model.directory))?;
        }
    }
    Ok(())
}

/// Describes the models before training.
fn describe(context: &RunContext<'_>, data: &DatasetSplits, manifest: &Manifest, by: ModelGrouping) -> PosterIndex {
    let recipe = context.recipe;
    let identity = RunIdentity::new(data.task, recipe.classify.classifier.name(), context.store.provenance());
    let card = match &recipe.extractor {
        Extractor::Network { card, .. } => card.clone(),
        Extractor::Sift { .. } | Extractor::DenseSift(_) => Default::default(),
    };
    PosterIndex {
        identity: RunIdentity { method: recipe.method.clone(), ..identity },
        card,
        precision: Precision::recorded(context.store.provenance().precision_or_default()),
        demo: manifest.is_demo(),
        labels: data.train.classes.clone(),
        by,
        window: recipe.classify.window,
        ..PosterIndex::new()
    }
}

/// Returns the split that the report shows: test, or val if there are no test clips.
fn reported_split(splits: &BTreeMap<Split, Predictions>) -> Option<Split> {
    [Split::Test, Split::Val].into_iter().find(|split| splits.contains_key(split))
}

/// Returns a row for each year, one for all years combined (each clip predicted by the model of its year), and one for the
/// model of all years.
fn model_rows(
    years: &[(i32, HeldOutPredictions)],
    overall: Option<&HeldOutPredictions>,
    split: Split,
) -> Vec<ModelRow> {
    let mut rows = Vec::new();
    let mut combined: Option<(Predictions, Option<Predictions>, ClipCounts)> = None;
    let by_overall_model = |ids: &[String]| Some(compute_metrics(&overall?.model.get(&split)?.select_ids(ids)));
    for (year, held_out) in years {
        let Some(model) = held_out.model.get(&split) else { continue };
        let (constant, clips) = (held_out.constant.get(&split), held_out.clips);
        rows.push(ModelRow {
            year: Some(*year),
            name: year.to_string(),
            directory: Some(year.to_string()),
            clips,
            model: compute_metrics(model),
            constant: constant.map(compute_metrics),
            all: by_overall_model(&model.ids),
        });
        combined = Some(match combined {
            None => (model.clone(), constant.cloned(), clips),
            Some((models, constants, sum)) => (
                models.concat(model.clone()),
                constants.zip(constant).map(|(constants, constant)| constants.concat(constant.clone())),
                // Training clips are not summed, since windows overlap.
                ClipCounts { train: 0, val: sum.val + clips.val, test: sum.test + clips.test },
            ),
        });
    }
    if let Some((model, constant, clips)) = combined {
        rows.push(ModelRow {
            year: None,
            name: "models of the years".into(),
            directory: None,
            clips: ClipCounts { train: overall.map_or(0, |overall| overall.clips.train), ..clips },
            all: by_overall_model(&model.ids),
            model: compute_metrics(&model),
            constant: constant.as_ref().map(compute_metrics),
        });
    }
    if let Some((overall, model)) = overall.and_then(|overall| Some((overall, overall.model.get(&split)?))) {
        rows.push(ModelRow {
            year: None,
            name: if years.is_empty() { "model of all posters" } else { "model of all years" }.into(),
            directory: Some(OVERALL.into()),
            clips: overall.clips,
            model: compute_metrics(model),
            constant: overall.constant.get(&split).map(compute_metrics),
            all: None,
        });
    }
    rows
}

/// Returns the scores of an example poster of `split` by every model: the first of those with most labels, preferably of a
/// year with a model.
fn example(
    models: &PosterIndex,
    out: &Path,
    data: &DatasetSplits,
    manifest: &Manifest,
    split: Split,
) -> Result<Option<PosterExample>> {
    let year_of = years::years_by_id(manifest);
    let clips = if split == Split::Test { &data.test } else { &data.val };
    let sets = clips.label_sets();
    let rank = |&i: &usize| {
        let year = year_of.get(clips.ids[i].as_str());
        let has_model = models.years.iter().any(|model| Some(&model.year) == year);
        (has_model, sets[i].len())
    };
    let Some(i) = (0..clips.len()).rev().max_by_key(rank) else { return Ok(None) };
    let poster = clips.select(&[i]);
    let years = models.years.iter().map(|model| (model.year.to_string(), &model.directory));
    let overall = models.overall.iter().map(|model| (OVERALL.to_string(), &model.directory));
    let scores = years.chain(overall).map(|(name, directory)| {
        let scores = SavedModel::load(&out.join(directory))?.model.scores(&poster)?;
        Ok((name, scores.row(0).to_vec()))
    });
    Ok(Some(PosterExample {
        id: clips.ids[i].clone(),
        year: year_of.get(clips.ids[i].as_str()).copied(),
        has_label: poster.targets.row(0).iter().map(|&target| target > 0.0).collect(),
        scores: scores.collect::<Result<_>>()?,
    }))
}

/// Evaluates the models of the directory `dir` (with posters.json) on the clips of `manifest`: each model of a year on the clips
/// of that year, the model of all years on all clips. Writes a directory per model below `out`, and a report unless no clip has a
/// label. Returns the summary for the terminal and whether there is a report. Removes evaluations of an earlier call that are
/// not replaced. With `force`, features of another network are a warning.
///
/// # Errors
/// Returns an error if `dir` is incomplete, no clip has features, the features were computed by another network, the models
/// cannot read them, or a file cannot be written.
pub fn evaluate(
    dir: &Path,
    store: &FeatureStore,
    manifest: &Manifest,
    out: &Path,
    force: bool,
) -> Result<(String, bool)> {
    let models = PosterIndex::read(dir)?;
    let year_of = years::years_by_id(manifest);
    let of_years = models.years.iter().map(|model| (Some(model.year), &model.directory));
    let of_overall = models.overall.iter().map(|model| (None, &model.directory));
    let mut joined: Option<DatasetSplits> = None;
    let (mut years, mut overall, mut predicted) = (Vec::new(), None, 0);
    let mut feature_warnings = Vec::new();
    for (year, directory) in of_years.chain(of_overall) {
        let source = dir.join(directory);
        let saved = SavedModel::load(&source)?;
        let data = match &joined {
            Some(data) => data,
            None => joined.insert(Dataset::join_for_evaluation(store, manifest, saved.metadata.pooling)?),
        };
        feature_warnings = check_features(&saved.metadata, store, force)?;
        let data = data.filter(|_, id| year.is_none() || year_of.get(id) == year.as_ref());
        let parts = data.splits().into_iter().filter(|(_, part)| !part.is_empty());
        let model: BTreeMap<Split, Predictions> =
            parts.map(|(split, part)| Ok((split, saved.predict(part)?))).collect::<Result<_>>()?;
        predicted += data.unlabeled.len();
        let evaluation_dir = out.join(directory);
        if model.is_empty() && data.unlabeled.is_empty() {
            if !evaluation_dir.join(SavedModel::FILES[0]).exists() {
                report::remove_run(&evaluation_dir)?;
            }
            continue;
        }
        report::write_evaluation(&evaluation_dir, &super::evaluation(&saved, &source, store, manifest, &data, force)?)?;
        report::complete(&evaluation_dir)?;
        if model.is_empty() {
            continue;
        }
        let held_out = HeldOutPredictions { clips: years::count_clips(&data), model, constant: BTreeMap::new() };
        match year {
            Some(year) => years.push((year, held_out)),
            None => overall = Some(held_out),
        }
    }
    let splits: BTreeMap<Split, Predictions> = years
        .iter()
        .map(|(_, held_out)| held_out)
        .chain(&overall)
        .flat_map(|held_out| held_out.model.clone())
        .collect();
    let Some(split) = reported_split(&splits) else {
        if predicted > 0 {
            report::posters::remove(out)?;
            let summary = format!(
                "{predicted} predictions, no clip is labeled: submission.csv in the directory of each model has them\n"
            );
            return Ok((summary, false));
        }
        return Err(Error::Data(format!(
            "{}: no labeled clip of val or test belongs to a year with a model",
            manifest.source.display()
        )));
    };
    let mut warnings = [manifest.warnings.clone(), joined.map(|data| data.warnings).unwrap_or_default()].concat();
    let without_model = year_of.values().filter(|&&year| !models.years.iter().any(|model| model.year == year)).count();
    if without_model > 0 && models.by == ModelGrouping::Year {
        warnings.push(format!(
            "{without_model} clips belong to years without a model: only the model of all years is evaluated on them"
        ));
    }
    warnings.extend(feature_warnings);
    let report = PosterReport {
        posters: &models,
        part: split.name(),
        rows: model_rows(&years, overall.as_ref(), split),
        example: None,
        resampled: None,
        duplicates: Vec::new(),
        skipped: Vec::new(),
        warnings,
        pooling: None,
    };
    report::posters::write(out, &report)?;
    Ok((report::posters::summary(&report), true))
}
