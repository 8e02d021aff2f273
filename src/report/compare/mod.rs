//! Several runs side by side: one table with intervals, a test for every pair, fusion, time, pictures.
//!
//! [`load`] reads a run's folder, [`late::fuse`] and (from the features) [`early::fuse`] add rows, [`compare`] measures
//! everything, [`write`] writes report.html, compare.md, compare.csv, compare.json and the pictures.

pub mod duplicates;
pub mod early;
pub mod late;
mod page;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

pub use duplicates::Duplicates;
pub use page::{summary, tables, write};

use super::metrics::Metrics;
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::evaluate::predictions::PredictionTable;
use crate::evaluate::predictions::table::csv_error;
use crate::evaluate::significance::{PairedComparison, compare_paired, holm};
use crate::evaluate::{Predictions, SplitMetrics, evaluate_splits};
use crate::store::FeatureStore;

/// Which part of the data a number is of, in the order of importance reversed: the test split is shown first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Predictions without a split.
    All,
    /// The training split.
    Train,
    /// The validation split.
    Val,
    /// The test split.
    Test,
}

impl Part {
    /// `all`, `train`, `val`, `test`.
    pub fn name(self) -> &'static str {
        match self {
            Part::All => "all",
            Part::Train => "train",
            Part::Val => "val",
            Part::Test => "test",
        }
    }
}

/// Where an entry's predictions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A run's folder.
    Run,
    /// The mean of several runs' probabilities.
    LateFusion,
    /// A classifier trained on several methods' features side by side.
    EarlyFusion,
}

/// One row to be: predictions and what is known of them.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Unique among the entries.
    pub name: String,
    /// Where its predictions come from.
    pub kind: Kind,
    /// The method; of fusions, those that are fused.
    pub method: String,
    /// The classifier.
    pub classifier: String,
    /// Whether seeded (untrained) weights are behind it.
    pub untrained: bool,
    /// The run's folder.
    pub folder: Option<PathBuf>,
    /// The store it was trained on.
    pub features: Option<PathBuf>,
    /// The manifest it was trained with.
    pub manifest: Option<PathBuf>,
    /// The folder below which the manifest's paths lie, where one was given.
    pub root: Option<PathBuf>,
    /// Seconds of extraction of all clips.
    pub extract_seconds: Option<f64>,
    /// Seconds of training.
    pub training_seconds: Option<f64>,
    /// Predictions of each part.
    pub parts: BTreeMap<Part, Predictions>,
    /// The constant predictor's accuracy, or mAP, on each part.
    pub constant: BTreeMap<Part, f64>,
    /// Clips without a label, which belong to no split.
    pub unlabeled: HashSet<String>,
}

/// Everything that the report says.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// `kinoprobe-comparison`.
    pub format: &'static str,
    /// 1.
    pub format_version: u32,
    /// Whether clips have one label or several.
    pub task: Task,
    /// The rows: runs as given, then fusions.
    pub rows: Vec<Row>,
    /// Every pair of rows, on every part that both have, by accuracy, or by mAP and by micro F1.
    pub pairs: Vec<Pair>,
    /// Clips that look alike across splits, by store.
    pub duplicates: Vec<Duplicates>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// One row.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Where its predictions come from.
    pub kind: Kind,
    /// The method or methods.
    pub method: String,
    /// The classifier.
    pub classifier: String,
    /// Whether seeded (untrained) weights are behind it.
    pub untrained: bool,
    /// The run's folder.
    pub folder: Option<PathBuf>,
    /// Seconds of extraction, clips in the store and seconds of video, where the store tells.
    pub extraction: Option<Extraction>,
    /// Seconds of training.
    pub training_seconds: Option<f64>,
    /// Metrics of each part.
    pub parts: BTreeMap<Part, SplitMetrics>,
    /// The constant predictor's accuracy, or mAP, on each part.
    pub constant: BTreeMap<Part, f64>,
}

/// What extraction took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Extraction {
    /// Seconds.
    pub seconds: f64,
    /// Clips in the store, where it could be opened.
    pub clips: Option<usize>,
    /// Seconds of video in it.
    pub video_seconds: Option<f64>,
}

/// Two rows on the clips that both predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The part of the data.
    pub part: Part,
    /// The first row's name.
    pub first: String,
    /// The second row's name.
    pub second: String,
    /// The number compared, counts, difference and p.
    #[serde(flatten)]
    pub paired: PairedComparison,
    /// p after Holm's correction over the part's pairs by the same number.
    pub p_holm: f64,
}

/// Reads a run's folder: metrics.json and predictions.csv.
///
/// # Errors
/// The folder is no run's (the sentence says what is missing), or a file in it is wrong.
pub fn load(folder: &Path) -> Result<Entry> {
    let path = folder.join("metrics.json");
    if !path.is_file() {
        return Err(Error::Table {
            path: folder.to_path_buf(),
            line: None,
            message: "no metrics.json in it: give the folder that kinoprobe-classify or kinoprobe-evaluate wrote"
                .into(),
        });
    }
    let metrics = Metrics::read(&path)?;
    let table = PredictionTable::read_csv(&folder.join("predictions.csv"), Some(metrics.task))?;
    let mut parts: BTreeMap<Part, Predictions> =
        table.splits_present().into_iter().map(|split| (part_of(split), table.select_split(split))).collect();
    if parts.is_empty() {
        parts.insert(Part::All, table.predictions.clone());
    }
    let name = match (metrics.method.as_str(), metrics.classifier.as_str()) {
        ("", "") => folder.file_name().map_or("predictions".into(), |name| name.to_string_lossy().into_owned()),
        (method, classifier) => format!("{method} · {classifier}"),
    };
    let given = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
    Ok(Entry {
        name,
        kind: Kind::Run,
        method: metrics.method,
        classifier: metrics.classifier,
        untrained: metrics.untrained,
        folder: Some(folder.to_path_buf()),
        features: given(metrics.features),
        manifest: given(metrics.manifest),
        root: metrics.root,
        extract_seconds: metrics.extract_seconds,
        training_seconds: metrics.training_seconds,
        parts,
        constant: metrics.constant.iter().map(|(&split, metrics)| (part_of(split), metrics.primary().1)).collect(),
        unlabeled: unlabeled(&folder.join("submission.csv"))?,
    })
}

/// Reads the folders of runs and names the entries apart.
///
/// # Errors
/// As [`load`]; or the runs are of different tasks.
pub fn load_all(folders: &[PathBuf]) -> Result<Vec<Entry>> {
    let mut entries = folders.iter().map(|folder| load(folder)).collect::<Result<Vec<_>>>()?;
    name_apart(&mut entries);
    one_task(&entries)?;
    Ok(entries)
}

/// The task of all entries.
fn one_task(entries: &[Entry]) -> Result<Task> {
    let task_of = |entry: &Entry| entry.parts.values().next().map(|part| part.task);
    let mut tasks = entries.iter().filter_map(|entry| Some((entry, task_of(entry)?)));
    let Some((first, task)) = tasks.next() else { return Ok(Task::default()) };
    let several = |task| if task == Task::MultiLabel { "several labels" } else { "one label" };
    match tasks.find(|(_, other)| *other != task) {
        None => Ok(task),
        Some((other, other_task)) => Err(Error::Data(format!(
            "{} has {} a clip and {} has {}: their numbers do not mean the same; compare runs of one task",
            first.name,
            several(task),
            other.name,
            several(other_task)
        ))),
    }
}

/// What is to be said of a part: rows that give every clip the same, and classes that it lacks.
fn standing_out(rows: &[Row], part: Part) -> Vec<String> {
    let measured: Vec<(&Row, &SplitMetrics)> =
        rows.iter().filter_map(|row| Some((row, row.parts.get(&part)?))).collect();
    let collapsed = measured.iter().filter(|(row, _)| row.classifier != "constant");
    let collapsed = collapsed.filter_map(|(row, m)| Some(format!("{}, {}: {}", row.name, part.name(), m.collapsed()?)));
    let absent = measured.iter().find_map(|(_, m)| m.absent()).map(|absent| format!("{}: {absent}", part.name()));
    collapsed.chain(absent).collect()
}

/// The ids of a submission, where there is one.
fn unlabeled(path: &Path) -> Result<HashSet<String>> {
    if !path.is_file() {
        return Ok(HashSet::new());
    }
    let mut reader = csv::Reader::from_path(path).map_err(csv_error(path))?;
    let first = |record: csv::StringRecord| record.get(0).unwrap_or_default().to_string();
    reader.records().map(|record| record.map(first).map_err(csv_error(path))).collect()
}

fn part_of(split: crate::manifest::Split) -> Part {
    match split {
        crate::manifest::Split::Train => Part::Train,
        crate::manifest::Split::Val => Part::Val,
        crate::manifest::Split::Test => Part::Test,
    }
}

/// Gives entries of one name their folder's name too, and where that is not enough a number.
pub fn name_apart(entries: &mut [Entry]) {
    let mut taken: HashSet<String> = HashSet::new();
    for entry in entries {
        if taken.contains(&entry.name)
            && let Some(folder) = entry.folder.as_ref().and_then(|folder| folder.file_name())
        {
            entry.name = format!("{} ({})", entry.name, folder.to_string_lossy());
        }
        let name = entry.name.clone();
        let mut number = 2;
        while !taken.insert(entry.name.clone()) {
            entry.name = format!("{name} #{number}");
            number += 1;
        }
    }
}

/// Measures the entries, pair by pair, and looks for near-duplicates in `stores` (and those the runs name).
///
/// A store that cannot be opened is a warning: the comparison of predictions needs none.
///
/// # Errors
/// There is no entry; two runs were made from different labels, or one with one label a clip and another with several.
pub fn compare(entries: &[Entry], stores: &[PathBuf]) -> Result<Comparison> {
    if entries.is_empty() {
        return Err(Error::Data("nothing to compare: give at least one run's folder".into()));
    }
    let task = one_task(entries)?;
    let mut warnings = Vec::new();
    let mut opened: Vec<(PathBuf, Option<FeatureStore>)> = Vec::new();
    let named = entries.iter().filter(|entry| entry.kind == Kind::Run).filter_map(|entry| entry.features.clone());
    for path in stores.iter().cloned().chain(named) {
        if opened.iter().all(|(known, _)| *known != path) {
            let store = FeatureStore::open(&path);
            if let Err(error) = &store {
                warnings.push(format!("store not read, so neither times nor near-duplicates of it: {error}"));
            }
            opened.push((path, store.ok()));
        }
    }
    let store_of =
        |path: &PathBuf| opened.iter().find(|(known, _)| known == path).and_then(|(_, store)| store.as_ref());
    let rows: Vec<Row> = entries.iter().map(|entry| row(entry, entry.features.as_ref().and_then(store_of))).collect();
    let parts: Vec<Part> = {
        let mut parts: Vec<Part> = rows.iter().flat_map(|row| row.parts.keys().copied()).collect();
        parts.sort_unstable_by(|a, b| b.cmp(a));
        parts.dedup();
        parts
    };
    let mut pairs = Vec::new();
    for &part in &parts {
        warnings.extend(standing_out(&rows, part));
        if let Some(warning) = different_clips(entries, part) {
            warnings.push(warning);
        }
        pairs.extend(pairs_of(entries, part)?);
    }
    let mut found = Vec::new();
    for (path, store) in &opened {
        // The clips of each split are the same for all runs of a store; the first run that names it knows them.
        let entry = entries.iter().find(|entry| entry.features.as_ref() == Some(path)).or(entries.first());
        if let (Some(store), Some(entry)) = (store, entry) {
            match duplicates::of_entry(store, entry) {
                Ok(duplicates) => found.extend(duplicates),
                Err(error) => warnings.push(format!("near-duplicates not looked for: {error}")),
            }
        }
    }
    for duplicates in &found {
        warnings.push(duplicates.sentence());
    }
    let duplicates = found;
    Ok(Comparison { format: "kinoprobe-comparison", format_version: 1, task, rows, pairs, duplicates, warnings })
}

fn row(entry: &Entry, store: Option<&FeatureStore>) -> Row {
    let seconds = entry
        .extract_seconds
        .or(store.map(|store| store.provenance().extract_seconds).filter(|&seconds| seconds > 0.0));
    Row {
        name: entry.name.clone(),
        kind: entry.kind,
        method: entry.method.clone(),
        classifier: entry.classifier.clone(),
        untrained: entry.untrained,
        folder: entry.folder.clone(),
        extraction: seconds.map(|seconds| Extraction {
            seconds,
            clips: store.map(|store| store.clips().len()),
            video_seconds: store.map(|store| store.clips().iter().map(|clip| clip.duration_seconds).sum()),
        }),
        training_seconds: entry.training_seconds,
        parts: evaluate_splits(&entry.parts, Part::Val),
        constant: entry.constant.clone(),
    }
}

/// A sentence where the runs were not measured on the same clips.
fn different_clips(entries: &[Entry], part: Part) -> Option<String> {
    let ids = |entry: &Entry| entry.parts.get(&part).map(|p| p.ids.iter().cloned().collect::<HashSet<String>>());
    let mut sets = entries.iter().filter(|entry| entry.kind == Kind::Run).filter_map(ids);
    let first = sets.next()?;
    sets.any(|set| set != first).then(|| {
        format!("{}: not all runs predicted the same clips; pairs and fusions take only those in common", part.name())
    })
}

fn pairs_of(entries: &[Entry], part: Part) -> Result<Vec<Pair>> {
    let of_part: Vec<(&Entry, &Predictions)> =
        entries.iter().filter_map(|entry| Some((entry, entry.parts.get(&part)?))).collect();
    let chosen: Vec<_> = (0..of_part.len())
        .flat_map(|i| (i + 1..of_part.len()).map(move |j| (i, j)))
        .map(|(i, j)| (of_part[i], of_part[j]))
        .filter(|((_, a), (_, b))| share_a_clip(a, b))
        .collect();
    // In parallel, each with draws of its own: the numbers do not depend on it.
    let compared: Vec<Vec<Pair>> = chosen
        .par_iter()
        .map(|((first, a), (second, b))| {
            let compared = compare_paired(a, b).map_err(|error| {
                Error::Data(format!("{} and {}, {}: {error}", first.name, second.name, part.name()))
            })?;
            let pair =
                |paired| Pair { part, first: first.name.clone(), second: second.name.clone(), paired, p_holm: 1.0 };
            Ok(compared.into_iter().map(pair).collect())
        })
        .collect::<Result<_>>()?;
    let mut pairs: Vec<Pair> = compared.into_iter().flatten().collect();
    let measures: BTreeSet<String> = pairs.iter().map(|pair| pair.paired.measure.clone()).collect();
    for measure in measures {
        let mut family: Vec<&mut Pair> = pairs.iter_mut().filter(|pair| pair.paired.measure == measure).collect();
        let corrected = holm(&family.iter().map(|pair| pair.paired.p).collect::<Vec<_>>());
        family.iter_mut().zip(corrected).for_each(|(pair, p)| pair.p_holm = p);
    }
    Ok(pairs)
}

fn share_a_clip(first: &Predictions, second: &Predictions) -> bool {
    let ids: HashSet<&str> = first.ids.iter().map(String::as_str).collect();
    second.ids.iter().any(|id| ids.contains(id.as_str()))
}
