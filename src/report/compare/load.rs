//! Reads the runs of a comparison from their directories.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::{ComparedRun, Part, RunKind, common_task, task_name, task_of};
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::predictions::PredictionTable;
use crate::evaluate::predictions::table::csv_error;
use crate::files::directory_of;
use crate::manifest::Manifest;
use crate::posters::INDEX_FILE;
use crate::report::metrics::Metrics;

/// Share of the test clips of two runs that must be common to both, so that they have the same test set. It is below 1, since
/// single clips may have no features; two random splits of the same clips share less.
const MIN_COMMON_CLIPS: f64 = 0.5;

/// File that only the directory of a comparison contains.
pub(super) const COMPARISON_FILE: &str = "compare.json";

/// The runs of a comparison, and the directories that are not part of it.
#[derive(Debug, Clone, Default)]
pub struct LoadedRuns {
    /// Runs with unique names.
    pub runs: Vec<ComparedRun>,
    /// Directories that were found but not read.
    pub skipped: Vec<SkippedDirectory>,
}

/// A directory that is not part of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedDirectory {
    /// The directory.
    pub directory: PathBuf,
    /// Why it is not part of the comparison.
    pub reason: String,
}

/// Reads the directory of a run: metrics.json and predictions.csv.
///
/// # Errors
/// Returns an error if the directory is not that of a run or if a file in it is invalid.
pub fn load(directory: &Path) -> Result<ComparedRun> {
    let path = directory.join("metrics.json");
    if !path.is_file() {
        return Err(Error::Table {
            path: directory.to_path_buf(),
            line: None,
            message: "contains no metrics.json and no run: pass a directory written by kinoprobe-classify or \
                      kinoprobe-evaluate, or a directory of them"
                .into(),
        });
    }
    let metrics = Metrics::read(&path)?;
    let predictions = directory.join("predictions.csv");
    if !predictions.is_file() {
        let message = "contains metrics.json, but no predictions.csv: repeat the run, which writes both".into();
        return Err(Error::Table { path: directory.to_path_buf(), line: None, message });
    }
    let table = PredictionTable::read_csv(&predictions, Some(metrics.identity.task))?;
    let mut parts: BTreeMap<Part, Predictions> =
        table.splits_present().into_iter().map(|split| (split.into(), table.select_split(split))).collect();
    if parts.is_empty() {
        parts.insert(Part::All, table.predictions.clone());
    }
    let name = match (metrics.identity.method.as_str(), metrics.identity.classifier.as_str()) {
        ("", _) => directory.file_name().map_or("predictions".into(), |name| name.to_string_lossy().into_owned()),
        (method, classifier) => format!("{method} · {classifier}"),
    };
    Ok(ComparedRun {
        name,
        kind: RunKind::Run,
        identity: metrics.identity,
        inputs: metrics.inputs,
        directory: Some(directory.to_path_buf()),
        extract_seconds: metrics.extract_seconds,
        training_seconds: metrics.training_seconds,
        parts,
        constant: metrics.constant.into_iter().map(|(split, metrics)| (split.into(), metrics)).collect(),
        unlabeled: unlabeled_ids(&directory.join("submission.csv"))?,
    })
}

/// Reads the directories of runs and makes their names unique. A directory that is not that of a run stands for the directories
/// in it, in natural order of their names. Those that cannot be compared are skipped: directories without a run, runs that
/// cannot be read, and runs of another task, with other labels of a clip, or with another test set (fewer than half of the test
/// clips in common) than the reference. The reference is the first run that `directories` names itself, otherwise the first run
/// of the test set that most runs have. The directory `out` of the comparison and hidden directories are not mentioned.
///
/// # Errors
/// Returns an error if a directory that is named itself is not that of a run and contains none that can be compared, if a file in
/// it is invalid, if it has other labels of a clip than the reference, or if the runs have different tasks.
pub fn load_all(directories: &[PathBuf], out: &Path) -> Result<LoadedRuns> {
    // Runs that were named themselves are never skipped.
    let mut entries: Vec<(PathBuf, bool)> = Vec::new();
    let mut skipped = Vec::new();
    let named: HashSet<PathBuf> = directories.iter().filter_map(|directory| directory.canonicalize().ok()).collect();
    for directory in directories {
        let contained = if is_run(directory) { Vec::new() } else { directories_in(directory, out) };
        if contained.is_empty() {
            entries.push((directory.clone(), true));
        }
        let unnamed = |path: &PathBuf| path.canonicalize().map_or(true, |path| !named.contains(&path));
        entries.extend(contained.into_iter().filter(unnamed).map(|path| (path, false)));
    }
    let mut loaded: Vec<(ComparedRun, bool)> = Vec::new();
    // In parallel, since reading predictions is most of the work; results and errors are in the order of the directories.
    let results: Vec<Result<ComparedRun>> = entries.par_iter().map(|(directory, _)| load(directory)).collect();
    for ((directory, is_named), result) in entries.into_iter().zip(results) {
        match result {
            Ok(run) => loaded.push((run, is_named)),
            Err(error) if is_named => return Err(error),
            Err(error) => {
                let reason = not_a_run(&directory).unwrap_or_else(|| error.to_string());
                skipped.push(SkippedDirectory { directory, reason });
            }
        }
    }
    let reference = loaded.iter().find(|(_, is_named)| *is_named).map(|(run, _)| run);
    let reference = reference.or_else(|| most_common_test_set(&loaded)).cloned();
    let mut runs = Vec::new();
    for (run, is_named) in loaded {
        let differs = reference.as_ref().filter(|first| is_named && task_of(first) == task_of(&run));
        if let Some(labels) = differs.and_then(|first| different_labels(first, &run)) {
            let path = run.directory.unwrap_or_default();
            return Err(Error::Table {
                path,
                line: None,
                message: format!("{labels}: run both with the same manifest"),
            });
        }
        let difference = reference.as_ref().filter(|_| !is_named).and_then(|first| difference(first, &run));
        match (difference, &run.directory) {
            (Some(reason), Some(directory)) => {
                skipped.push(SkippedDirectory { directory: directory.clone(), reason });
            }
            _ => runs.push(run),
        }
    }
    if runs.is_empty() {
        let reasons = skipped.iter().map(|skip| format!("\n  {}: {}", skip.directory.display(), skip.reason));
        let message = format!("contains no run that can be compared:{}", reasons.collect::<String>());
        let path = directories.first().cloned().unwrap_or_default();
        return Err(Error::Table { path, line: None, message });
    }
    make_names_unique(&mut runs);
    common_task(&runs)?;
    Ok(LoadedRuns { runs, skipped })
}

fn is_run(directory: &Path) -> bool {
    directory.join("metrics.json").is_file()
}

/// Returns the directories in a directory in natural order, without hidden ones and `out`.
fn directories_in(directory: &Path, out: &Path) -> Vec<PathBuf> {
    let out = out.canonicalize().ok();
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let is_out = |path: &Path| out.is_some() && path.canonicalize().ok() == out;
    let mut found: Vec<PathBuf> = entries.filter(|path| path.is_dir() && !hidden(path) && !is_out(path)).collect();
    found.sort_by(|a, b| natord::compare(&a.to_string_lossy(), &b.to_string_lossy()));
    found
}

/// Describes a directory that is not that of a run.
fn not_a_run(directory: &Path) -> Option<String> {
    if is_run(directory) {
        return None;
    }
    let contains = |name: &str| directory.join(name).is_file();
    Some(if contains(COMPARISON_FILE) {
        "a comparison, not a run".into()
    } else if contains(INDEX_FILE) {
        format!("a set of models by year: compare runs in it, such as {}", directory.join("all").display())
    } else if contains("recipe.toml") {
        "no metrics.json: the run has not been completed; train it again".into()
    } else {
        "no metrics.json: not a run".into()
    })
}

/// Returns the first run of the test set that most runs have.
fn most_common_test_set(runs: &[(ComparedRun, bool)]) -> Option<&ComparedRun> {
    let sets: Vec<(Task, HashSet<&str>)> =
        runs.iter().filter_map(|(run, _)| Some((task_of(run)?, test_ids(run)))).collect();
    let same =
        |i: usize| sets.iter().filter(|(task, ids)| *task == sets[i].0 && common(&sets[i].1, ids).is_none()).count();
    // `max_by_key` returns the last of equal elements.
    let i = (0..sets.len()).rev().max_by_key(|&i| same(i))?;
    Some(&runs[i].0)
}

/// Returns the ids of the test clips, none without a test split.
fn test_ids(run: &ComparedRun) -> HashSet<&str> {
    run.parts.get(&Part::Test).into_iter().flat_map(|part| part.ids.iter().map(String::as_str)).collect()
}

/// Returns the number of common clips of two test sets if it is too low; a run without test clips fits to every run.
fn common(first: &HashSet<&str>, second: &HashSet<&str>) -> Option<usize> {
    let common = first.intersection(second).count();
    let total = first.len() + second.len() - common;
    let differ = !first.is_empty() && !second.is_empty() && (common as f64) < MIN_COMMON_CLIPS * total as f64;
    differ.then_some(common)
}

/// Returns why `run` cannot be compared with `reference`; `None` if it can.
fn difference(reference: &ComparedRun, run: &ComparedRun) -> Option<String> {
    let (expected, task) = (task_of(reference)?, task_of(run)?);
    if expected != task {
        return Some(format!("{}, while {} is {}", task_name(task), reference.name, task_name(expected)));
    }
    let (expected, own) = (test_ids(reference), test_ids(run));
    if let Some(common) = common(&expected, &own) {
        return Some(format!(
            "another test set: {common} of its {} test clips are among the {} of {}",
            own.len(),
            expected.len(),
            reference.name
        ));
    }
    different_labels(reference, run)
}

/// Returns a description of a clip that has other labels in `run` than in `reference`; `None` if there is none.
fn different_labels(reference: &ComparedRun, run: &ComparedRun) -> Option<String> {
    let labels: HashMap<&str, Vec<&str>> = reference.parts.values().flat_map(labels_by_id).collect();
    let differs =
        |(id, own): (&str, Vec<&str>)| labels.get(id).filter(|others| **others != own).map(|_| id.to_string());
    let id = run.parts.values().flat_map(labels_by_id).find_map(differs)?;
    Some(format!("other labels than {}, such as those of clip `{id}`", reference.name))
}

/// Returns the sorted names of the labels of each labeled clip.
fn labels_by_id(part: &Predictions) -> impl Iterator<Item = (&str, Vec<&str>)> {
    part.labeled_rows().into_iter().map(|row| {
        let mut names: Vec<&str> = part.truth[row].iter().map(|&class| part.classes[class].as_str()).collect();
        names.sort_unstable();
        (part.ids[row].as_str(), names)
    })
}

/// Returns the ids of a submission.csv; empty if the file does not exist.
fn unlabeled_ids(path: &Path) -> Result<HashSet<String>> {
    if !path.is_file() {
        return Ok(HashSet::new());
    }
    let mut reader = csv::Reader::from_path(path).map_err(csv_error(path))?;
    let first = |record: csv::StringRecord| record.get(0).unwrap_or_default().to_string();
    reader.records().map(|record| record.map(first).map_err(csv_error(path))).collect()
}

/// Makes names unique: appends the name of the directory to a repeated name, then a number if it still repeats.
pub fn make_names_unique(runs: &mut [ComparedRun]) {
    let mut used_names: HashSet<String> = HashSet::new();
    for run in runs {
        if used_names.contains(&run.name)
            && let Some(directory) = run.directory.as_ref().and_then(|directory| directory.file_name())
        {
            run.name = format!("{} ({})", run.name, directory.to_string_lossy());
        }
        let name = run.name.clone();
        let mut number = 2;
        while !used_names.insert(run.name.clone()) {
            run.name = format!("{name} #{number}");
            number += 1;
        }
    }
}

impl ComparedRun {
    /// Loads the manifest of a run, or the manifest.csv with its drawn split if the run drew one.
    ///
    /// # Errors
    /// Returns an error if the run names no manifest, or it cannot be read.
    pub fn manifest(&self) -> Result<Manifest> {
        let Some(original) = self.inputs.manifest() else {
            return Err(Error::Data(format!("{} does not name its manifest", self.name)));
        };
        let with_split =
            self.directory.as_deref().map(|directory| directory.join("manifest.csv")).filter(|path| path.is_file());
        let root = self.inputs.root.as_deref();
        match with_split {
            None => Manifest::load_labels(original, root),
            Some(manifest) if root.is_some() => Manifest::load_labels(&manifest, root),
            // The paths are relative to the directory of the original manifest, and may lead out of it.
            Some(manifest) => {
                let directory = if original.is_dir() { original } else { directory_of(original) };
                Manifest::load_labels_relative_to(&manifest, directory)
            }
        }
    }
}
