//! A model for each year, and one for all: their runs, posters.json and the report; and the same models measured again.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{Fit, Job};
use crate::classify::SavedModel;
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::{Predictions, compute_metrics};
use crate::extract::Extractor;
use crate::manifest::imbalance::Resampled;
use crate::manifest::{Manifest, Split};
use crate::posters::years::{self, YearPlan};
use crate::posters::{self, By, Clips, OverallModel, Posters, YearModel};
use crate::recipe::Classify;
use crate::report;
use crate::report::compare::{Part, duplicates};
use crate::report::posters::{Example, Report, Row};
use crate::store::FeatureStore;

/// The folder of the model of all clips.
const ALL: &str = "all";

/// Fits a model of all clips and, by year, one for every year that has enough of them; writes their folders, posters.json and
/// the report. Gives what to print.
///
/// `data` is that of all clips, `resampled` what was done to its training clips.
///
/// # Errors
/// The task is not multi-label; no year has enough clips; a fit fails; a file cannot be written.
pub fn fit(
    job: &Job<'_>,
    data: &DatasetSplits,
    manifest: &Manifest,
    by: By,
    resampled: Option<Resampled>,
) -> Result<String> {
    let Classify { window, min_clips, .. } = job.recipe.classify;
    let out = &job.files.out;
    if data.task != Task::MultiLabel {
        return Err(Error::Data("models by year give several labels a clip: take --task multi-label".into()));
    }
    let plan = match by {
        By::Year => years::plan(data, manifest, window, min_clips),
        By::None => YearPlan::default(),
    };
    plan.skipped.iter().for_each(|skipped| (job.say)(skipped));
    if by == By::Year && plan.years.is_empty() {
        let why = match plan.skipped.first() {
            Some(first) => format!("no year has enough clips ({first}); lower classify.min_clips in the recipe"),
            None => "no clip has a year; give the manifest a column `year`".into(),
        };
        return Err(Error::Data(format!("{}: {why}, or take --by none", manifest.source.display())));
    }
    let mut set = describe(job, data, manifest, by);
    let mut fits: Vec<(i32, Fit)> = Vec::new();
    for (year, part) in &plan.years {
        (job.say)(&format!("{year}: {} training clips", part.training_set().len()));
        let folder = year.to_string();
        fits.push((*year, job.run(part, &out.join(&folder))?));
        let (_, fit) = &fits[fits.len() - 1];
        let measured = measured_part(&fit.model).map(|split| compute_metrics(&fit.model[&split]));
        set.years.push(YearModel {
            year: *year,
            folder,
            thresholds: posters::thresholds(fit.model.get(&Split::Val), set.labels.len()),
            clips: fit.clips,
            metrics: measured.as_ref().map(posters::metrics).unwrap_or_default(),
        });
    }
    (job.say)(&format!("all: {} training clips", data.training_set().len()));
    let all = job.run(data, &out.join(ALL))?;
    set.overall = Some(OverallModel {
        folder: ALL.into(),
        thresholds: posters::thresholds(all.model.get(&Split::Val), set.labels.len()),
    });
    set.write(out)?;

    let part = measured_part(&all.model);
    let of_split: HashMap<&str, Split> =
        manifest.clips.iter().filter_map(|clip| Some((clip.id.as_str(), clip.split?))).collect();
    let report = Report {
        posters: &set,
        part: part.map_or("", Split::name),
        rows: part.map(|part| rows(&fits, Some(&all), part)).unwrap_or_default(),
        example: part.map(|part| example(&set, out, data, manifest, part)).transpose()?.flatten(),
        resampled,
        duplicates: duplicates::find(job.store, |id| match of_split.get(id) {
            Some(Split::Train) => Part::Train,
            Some(Split::Val) => Part::Val,
            Some(Split::Test) => Part::Test,
            None => Part::All,
        })?,
        skipped: plan.skipped,
        warnings: [data.warnings.clone(), plan.warnings].concat(),
    };
    report::posters::write(out, &report)?;
    Ok(report::posters::summary(&report))
}

/// What is known before the fits.
fn describe(job: &Job<'_>, data: &DatasetSplits, manifest: &Manifest, by: By) -> Posters {
    let provenance = job.store.provenance();
    Posters {
        method: job.recipe.method.clone(),
        card: match &job.recipe.extractor {
            Extractor::Network { card, .. } => card.clone(),
            Extractor::Sift { .. } => String::new(),
        },
        weights: provenance.weights.clone(),
        model_sha256: provenance.model_sha256.clone(),
        untrained: job.store.untrained(),
        demo: manifest.is_demo(),
        labels: data.train.classes.clone(),
        by,
        window: job.recipe.classify.window,
        ..Posters::new()
    }
}

/// The split that is shown: test, or val where there is no test clip.
fn measured_part(parts: &BTreeMap<Split, Predictions>) -> Option<Split> {
    [Split::Test, Split::Val].into_iter().find(|split| parts.contains_key(split))
}

/// A row for every year, one for all years together (each clip by its year's model), and one for the model of all clips.
fn rows(fits: &[(i32, Fit)], all: Option<&Fit>, part: Split) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut together: Option<(Predictions, Option<Predictions>, Clips)> = None;
    let of_all = |ids: &[String]| Some(compute_metrics(&chosen(all?.model.get(&part)?, ids)));
    for (year, fit) in fits {
        let (Some(model), constant, clips) = (fit.model.get(&part), fit.constant.get(&part), fit.clips) else {
            continue;
        };
        rows.push(Row {
            year: Some(*year),
            name: year.to_string(),
            folder: Some(year.to_string()),
            clips,
            model: compute_metrics(model),
            constant: constant.map(compute_metrics),
            all: of_all(&model.ids),
        });
        together = Some(match together {
            None => (model.clone(), constant.cloned(), clips),
            Some((above, under, sum)) => (
                above.concat(model.clone()),
                under.zip(constant).map(|(under, constant)| under.concat(constant.clone())),
                // Windows overlap: the training clips of a sum would count some of them several times.
                Clips { train: 0, val: sum.val + clips.val, test: sum.test + clips.test },
            ),
        });
    }
    if let Some((model, constant, clips)) = together {
        rows.push(Row {
            year: None,
            name: "years together".into(),
            folder: None,
            clips: Clips { train: all.map_or(0, |all| all.clips.train), ..clips },
            all: of_all(&model.ids),
            model: compute_metrics(&model),
            constant: constant.as_ref().map(compute_metrics),
        });
    }
    if let Some((all, model)) = all.and_then(|all| Some((all, all.model.get(&part)?))) {
        rows.push(Row {
            year: None,
            name: "one model of all".into(),
            folder: Some(ALL.into()),
            clips: all.clips,
            model: compute_metrics(model),
            constant: all.constant.get(&part).map(compute_metrics),
            all: None,
        });
    }
    rows
}

/// The predictions for the clips `ids`.
fn chosen(predictions: &Predictions, ids: &[String]) -> Predictions {
    let place: HashMap<&str, usize> = predictions.ids.iter().map(String::as_str).zip(0..).collect();
    predictions.select(&ids.iter().filter_map(|id| place.get(id.as_str()).copied()).collect::<Vec<_>>())
}

/// The first poster of a split, of a year that has a model (where one has), of those with most labels, by every model.
fn example(
    set: &Posters,
    out: &Path,
    data: &DatasetSplits,
    manifest: &Manifest,
    part: Split,
) -> Result<Option<Example>> {
    let year_of = years::years_by_id(manifest);
    let clips = if part == Split::Test { &data.test } else { &data.val };
    let sets = clips.label_sets();
    let rank = |&i: &usize| {
        let year = year_of.get(clips.ids[i].as_str());
        let modeled = set.years.iter().any(|model| Some(&model.year) == year);
        (modeled, sets[i].len())
    };
    let Some(i) = (0..clips.len()).rev().max_by_key(rank) else { return Ok(None) };
    let poster = clips.select(&[i]);
    let models = set.years.iter().map(|model| (model.year.to_string(), &model.folder));
    let overall = set.overall.iter().map(|model| (ALL.to_string(), &model.folder));
    let scores = models.chain(overall).map(|(name, folder)| {
        let scores = SavedModel::load(&out.join(folder))?.model.scores(&poster)?;
        Ok((name, scores.row(0).to_vec()))
    });
    Ok(Some(Example {
        id: clips.ids[i].clone(),
        year: year_of.get(clips.ids[i].as_str()).copied(),
        has: poster.targets.row(0).iter().map(|&target| target > 0.0).collect(),
        scores: scores.collect::<Result<_>>()?,
    }))
}

/// Measures the models of the folder `models` (one with posters.json) on the clips of `manifest`: those of every year by the
/// year's model, all by that of all clips, into a folder each below `out`, and a report. Gives what to print.
///
/// # Errors
/// The folder is not complete; no clip has features; the features are not those of the models; a file cannot be written.
pub fn evaluate(models: &Path, store: &FeatureStore, manifest: &Manifest, out: &Path) -> Result<String> {
    let set = Posters::read(models)?;
    let year_of = years::years_by_id(manifest);
    let of_years = set.years.iter().map(|model| (Some(model.year), &model.folder));
    let of_all = set.overall.iter().map(|model| (None, &model.folder));
    let mut joined: Option<DatasetSplits> = None;
    let (mut fits, mut all) = (Vec::new(), None);
    for (year, folder) in of_years.chain(of_all) {
        let source = models.join(folder);
        let saved = SavedModel::load(&source)?;
        let data = match &joined {
            Some(data) => data,
            None => joined.insert(Dataset::join_for_evaluation(store, manifest, saved.metadata.pooling)?),
        };
        let data = data.filter(|_, id| year.is_none() || year_of.get(id) == year.as_ref());
        let parts = data.splits().into_iter().filter(|(_, part)| !part.is_empty());
        let model: BTreeMap<Split, Predictions> =
            parts.map(|(split, part)| Ok((split, saved.predict(part)?))).collect::<Result<_>>()?;
        if model.is_empty() {
            continue;
        }
        report::write_evaluation(&out.join(folder), &super::evaluation(&saved, &source, store, manifest, &data)?)?;
        let fit = Fit { clips: years::count_clips(&data), model, constant: BTreeMap::new() };
        match year {
            Some(year) => fits.push((year, fit)),
            None => all = Some(fit),
        }
    }
    let parts: BTreeMap<Split, Predictions> =
        fits.iter().map(|(_, fit)| fit).chain(&all).flat_map(|fit| fit.model.clone()).collect();
    let Some(part) = measured_part(&parts) else {
        return Err(Error::Data(format!(
            "{}: no labeled clip of val or test is of a year with a model",
            manifest.source.display()
        )));
    };
    let mut warnings = [manifest.warnings.clone(), joined.map(|data| data.warnings).unwrap_or_default()].concat();
    let strangers = year_of.values().filter(|&&year| !set.years.iter().any(|model| model.year == year)).count();
    if strangers > 0 && set.by == By::Year {
        warnings.push(format!(
            "{strangers} clips are of years without a model: only the model of all clips is measured on them"
        ));
    }
    if store.provenance().model_sha256 != set.model_sha256 {
        warnings.push(super::other_network(store));
    }
    let report = Report {
        posters: &set,
        part: part.name(),
        rows: rows(&fits, all.as_ref(), part),
        example: None,
        resampled: None,
        duplicates: Vec::new(),
        skipped: Vec::new(),
        warnings,
    };
    report::posters::write(out, &report)?;
    Ok(report::posters::summary(&report))
}
