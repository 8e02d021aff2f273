//! Comparison of runs: a table with intervals, paired significance tests, late fusion, times, plots.
//!
//! [`load_all`] reads the directories of runs, [`late_fusion::fuse`] adds fusions of their scores, [`compare`] evaluates all of
//! them, and [`write`] writes report.html, compare.md, compare.csv, compare.json and the figures.

mod conclusion;
pub mod duplicates;
pub mod late_fusion;
mod load;
mod page;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

pub use duplicates::Duplicates;
pub use load::{LoadedRuns, SkippedDirectory, load, load_all, make_names_unique};
pub use page::{summary, write};
pub use tables::tables;

use crate::classify::{RunIdentity, RunInputs};
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::evaluate::bootstrap::METHOD;
use crate::evaluate::significance::{PairedComparison, Resampled, holm};
use crate::evaluate::{Predictions, SplitMetrics, evaluate_resampled};
use crate::manifest::Split;
use crate::store::FeatureStore;

/// Part of the data. Reports list parts in descending order, the test split first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// All clips, for predictions without splits.
    All,
    /// Training split.
    Train,
    /// Validation split.
    Val,
    /// Test split.
    Test,
}

impl Part {
    /// Returns `all`, `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Part::All => "all",
            Part::Train => "train",
            Part::Val => "val",
            Part::Test => "test",
        }
    }

    /// Returns the split; `None` for all clips.
    pub fn split(self) -> Option<Split> {
        match self {
            Part::All => None,
            Part::Train => Some(Split::Train),
            Part::Val => Some(Split::Val),
            Part::Test => Some(Split::Test),
        }
    }
}

impl From<Split> for Part {
    fn from(split: Split) -> Self {
        match split {
            Split::Train => Part::Train,
            Split::Val => Part::Val,
            Split::Test => Part::Test,
        }
    }
}

/// Origin of the predictions of a compared run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    /// The directory of a run.
    Run,
    /// The mean of the scores of several runs.
    LateFusion,
    /// A classifier trained on the concatenated features of several methods.
    EarlyFusion,
    /// Logistic regression on the scores of several runs.
    LearnedFusion,
}

impl RunKind {
    /// Returns `run`, `late-fusion`, `early-fusion` or `learned-fusion`.
    pub fn name(self) -> &'static str {
        match self {
            RunKind::Run => "run",
            RunKind::LateFusion => "late-fusion",
            RunKind::EarlyFusion => "early-fusion",
            RunKind::LearnedFusion => "learned-fusion",
        }
    }
}

/// A run, or a fusion of runs, with its predictions.
#[derive(Debug, Clone)]
pub struct ComparedRun {
    /// Name, unique within the comparison.
    pub name: String,
    /// Origin of the predictions.
    pub kind: RunKind,
    /// Classifier and features.
    pub identity: RunIdentity,
    /// Input files; empty for fusions.
    pub inputs: RunInputs,
    /// Directory of the run.
    pub directory: Option<PathBuf>,
    /// Seconds of feature extraction for all clips.
    pub extract_seconds: Option<f64>,
    /// Seconds of training.
    pub training_seconds: Option<f64>,
    /// Predictions of each part.
    pub parts: BTreeMap<Part, Predictions>,
    /// Metrics of the constant baseline on each part.
    pub constant: BTreeMap<Part, SplitMetrics>,
    /// Ids of the unlabeled clips, which are not part of a split.
    pub unlabeled: HashSet<String>,
}

impl ComparedRun {
    /// Returns `true` if fusions may include it: a run of any classifier except the constant baseline.
    pub fn is_fusible(&self) -> bool {
        self.kind == RunKind::Run && self.identity.classifier != "constant"
    }
}

/// Results of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// `kinoprobe-comparison`.
    pub format: &'static str,
    /// Format version, 1.
    pub format_version: u32,
    /// Single-label or multi-label.
    pub task: Task,
    /// Method of the intervals, `BCa bootstrap`.
    pub interval_method: &'static str,
    /// The result in one sentence.
    pub conclusion: String,
    /// Name of the row with the highest headline metric on the validation split, the first of equal rows; `None` if there is only
    /// one row, or if a row has no labeled validation clips.
    pub best: Option<String>,
    /// Comparison of that row, or of the only row, with the constant baseline on the first part of the report (test, if there is
    /// one), by the headline metric; `None` if the baseline is unknown.
    pub baseline: Option<PairedComparison>,
    /// Runs in the order given, then fusions.
    pub rows: Vec<ComparisonRow>,
    /// Paired comparisons of all rows on each common part, by accuracy, or by mAP and by micro F1.
    pub pairs: Vec<PairedRuns>,
    /// Near-duplicate clips across splits, by store.
    pub duplicates: Vec<Duplicates>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Directories that were found but are not part of the comparison.
    pub skipped: Vec<SkippedDirectory>,
}

/// Results of one run.
#[derive(Debug, Clone, Serialize)]
pub struct ComparisonRow {
    /// Name, unique within the comparison.
    pub name: String,
    /// Origin of the predictions.
    pub kind: RunKind,
    /// Classifier and features.
    #[serde(flatten)]
    pub identity: RunIdentity,
    /// Directory of the run.
    pub directory: Option<PathBuf>,
    /// Cost of feature extraction, if known.
    pub extraction: Option<Extraction>,
    /// Seconds of training.
    pub training_seconds: Option<f64>,
    /// Metrics of each part.
    pub parts: BTreeMap<Part, SplitMetrics>,
    /// Headline metric (accuracy or mAP) of the constant baseline on each part.
    pub constant: BTreeMap<Part, f64>,
}

/// Cost of feature extraction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Extraction {
    /// Seconds of extraction.
    pub seconds: f64,
    /// Number of clips in the store, if it could be opened.
    pub clips: Option<usize>,
    /// Seconds of video in the store, if it could be opened.
    pub video_seconds: Option<f64>,
}

/// Paired comparison of two rows on the clips that both predict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairedRuns {
    /// Part of the data.
    pub part: Part,
    /// Name of the first row.
    pub first: String,
    /// Name of the second row.
    pub second: String,
    /// Metric, counts, difference and p-value.
    #[serde(flatten)]
    pub paired: PairedComparison,
    /// p-value after Holm's correction over the pairs of the same part and metric.
    pub p_holm: f64,
}

fn task_of(run: &ComparedRun) -> Option<Task> {
    run.parts.values().next().map(|part| part.task)
}

fn task_name(task: Task) -> &'static str {
    if task == Task::MultiLabel { "multi-label" } else { "single-label" }
}

fn common_task(runs: &[ComparedRun]) -> Result<Task> {
    let mut tasks = runs.iter().filter_map(|run| Some((run, task_of(run)?)));
    let Some((first, task)) = tasks.next() else { return Ok(Task::default()) };
    match tasks.find(|(_, other)| *other != task) {
        None => Ok(task),
        Some((other, other_task)) => Err(Error::Data(format!(
            "{} is {} and {} is {}: their metrics are not comparable; pass runs of one task",
            first.name,
            task_name(task),
            other.name,
            task_name(other_task)
        ))),
    }
}

/// Returns a warning for each row whose predictions collapsed on a part, and one for classes without clips.
fn part_warnings(rows: &[ComparisonRow], part: Part) -> Vec<String> {
    let measured: Vec<(&ComparisonRow, &SplitMetrics)> =
        rows.iter().filter_map(|row| Some((row, row.parts.get(&part)?))).collect();
    let collapsed = measured.iter().filter(|(row, _)| row.identity.classifier != "constant");
    let collapsed = collapsed.filter_map(|(row, m)| Some(format!("{}, {}: {}", row.name, part.name(), m.collapsed()?)));
    let absent = measured.iter().find_map(|(_, m)| m.absent()).map(|absent| format!("{}: {absent}", part.name()));
    collapsed.chain(absent).collect()
}

/// Evaluates the runs, compares them in pairs, and searches `stores` and the runs' own stores for near-duplicates.
///
/// A store that cannot be opened results in a warning, since the predictions can be compared without it.
///
/// # Errors
/// Returns an error if `runs` is empty, or if two runs have different tasks or different labels for a clip.
pub fn compare(runs: &[ComparedRun], stores: &[PathBuf]) -> Result<Comparison> {
    if runs.is_empty() {
        return Err(Error::Data("no runs to compare: pass at least one directory of a run".into()));
    }
    let task = common_task(runs)?;
    let mut warnings = Vec::new();
    let mut opened: Vec<(PathBuf, Option<FeatureStore>)> = Vec::new();
    let own_stores = runs.iter().filter(|run| run.kind == RunKind::Run).filter_map(|run| run.inputs.features());
    for path in stores.iter().map(PathBuf::as_path).chain(own_stores) {
        if opened.iter().all(|(known, _)| known != path) {
            let store = FeatureStore::open(path);
            if let Err(error) = &store {
                warnings.push(format!("cannot open store; its times and near-duplicates are missing: {error}"));
            }
            opened.push((path.to_path_buf(), store.ok()));
        }
    }
    let store_of = |path: &Path| opened.iter().find(|(known, _)| known == path).and_then(|(_, store)| store.as_ref());
    // Intervals and pairs use the same resamples.
    let resampled = resample_parts(runs);
    let measured: Vec<BTreeMap<Part, SplitMetrics>> =
        resampled.par_iter().map(|parts| evaluate_resampled(parts, Part::Val)).collect();
    let rows: Vec<ComparisonRow> = runs
        .iter()
        .zip(measured)
        .map(|(run, parts)| comparison_row(run, parts, run.inputs.features().and_then(store_of)))
        .collect();
    let best = conclusion::best_on_validation(&rows);
    let baseline = conclusion::baseline(runs, &resampled, best.as_deref())?;
    let mut pairs = Vec::new();
    for part in parts_of(&rows) {
        warnings.extend(part_warnings(&rows, part));
        if let Some(warning) = different_clips(runs, part) {
            warnings.push(warning);
        }
        pairs.extend(pairs_of(runs, &resampled, part)?);
    }
    let mut duplicates = Vec::new();
    for (path, store) in &opened {
        // All runs of a store have the same splits, so any run that names it will do.
        let run = runs.iter().find(|run| run.inputs.features() == Some(path)).or(runs.first());
        if let (Some(store), Some(run)) = (store, run) {
            match duplicates::of_run(store, run) {
                Ok(found) => duplicates.extend(found),
                Err(error) => warnings.push(format!("cannot search for near-duplicates: {error}")),
            }
        }
    }
    for duplicates in &duplicates {
        warnings.push(duplicates.warning());
    }
    Ok(Comparison {
        format: "kinoprobe-comparison",
        format_version: 1,
        task,
        interval_method: METHOD,
        conclusion: conclusion::conclude(&rows, best.as_deref(), baseline.as_ref(), &pairs),
        best,
        baseline,
        rows,
        pairs,
        duplicates,
        warnings,
        skipped: Vec::new(),
    })
}

/// Resamples the predictions of each part of each run.
fn resample_parts(runs: &[ComparedRun]) -> Vec<BTreeMap<Part, Resampled<'_>>> {
    let predictions: Vec<&Predictions> = runs.iter().flat_map(|run| run.parts.values()).collect();
    let mut resampled = Resampled::of_all(&predictions).into_iter();
    runs.iter().map(|run| run.parts.keys().copied().zip(&mut resampled).collect()).collect()
}

/// Returns the parts of all rows in descending order: the test split first.
fn parts_of(rows: &[ComparisonRow]) -> Vec<Part> {
    let parts: BTreeSet<Part> = rows.iter().flat_map(|row| row.parts.keys().copied()).collect();
    parts.into_iter().rev().collect()
}

fn comparison_row(
    run: &ComparedRun,
    parts: BTreeMap<Part, SplitMetrics>,
    store: Option<&FeatureStore>,
) -> ComparisonRow {
    let seconds =
        run.extract_seconds.or(store.map(|store| store.provenance().extract_seconds).filter(|&seconds| seconds > 0.0));
    ComparisonRow {
        name: run.name.clone(),
        kind: run.kind,
        identity: run.identity.clone(),
        directory: run.directory.clone(),
        extraction: seconds.map(|seconds| Extraction {
            seconds,
            clips: store.map(|store| store.clips().len()),
            video_seconds: store.map(|store| store.clips().iter().map(|clip| clip.duration_seconds).sum()),
        }),
        training_seconds: run.training_seconds,
        parts,
        constant: run.constant.iter().map(|(&part, metrics)| (part, metrics.primary().1)).collect(),
    }
}

/// Returns a warning if the runs do not predict the same clips of a part.
fn different_clips(runs: &[ComparedRun], part: Part) -> Option<String> {
    let ids = |run: &ComparedRun| run.parts.get(&part).map(|p| p.ids.iter().cloned().collect::<HashSet<String>>());
    let mut sets = runs.iter().filter(|run| run.kind == RunKind::Run).filter_map(ids);
    let first = sets.next()?;
    sets.any(|set| set != first).then(|| {
        format!("{}: the runs predict different clips; pairs and fusions use the clips in common", part.name())
    })
}

fn pairs_of(runs: &[ComparedRun], resampled: &[BTreeMap<Part, Resampled<'_>>], part: Part) -> Result<Vec<PairedRuns>> {
    let of_part: Vec<(&ComparedRun, &Resampled<'_>)> =
        runs.iter().zip(resampled).filter_map(|(run, parts)| Some((run, parts.get(&part)?))).collect();
    let overlapping: Vec<_> = (0..of_part.len())
        .flat_map(|i| (i + 1..of_part.len()).map(move |j| (i, j)))
        .map(|(i, j)| (of_part[i], of_part[j]))
        .filter(|((_, a), (_, b))| have_common_clip(a.predictions, b.predictions))
        .collect();
    // Each pair seeds its own resampling, so the results do not depend on the threads.
    let compared: Vec<Vec<PairedRuns>> = overlapping
        .par_iter()
        .map(|((first, a), (second, b))| {
            let compared = a.compare_paired(b).map_err(|error| {
                Error::Data(format!("{} and {}, {}: {error}", first.name, second.name, part.name()))
            })?;
            let pair = |paired| PairedRuns {
                part,
                first: first.name.clone(),
                second: second.name.clone(),
                paired,
                p_holm: 1.0,
            };
            Ok(compared.into_iter().map(pair).collect())
        })
        .collect::<Result<_>>()?;
    let mut pairs: Vec<PairedRuns> = compared.into_iter().flatten().collect();
    let measures: BTreeSet<String> = pairs.iter().map(|pair| pair.paired.measure.clone()).collect();
    for measure in measures {
        let mut family: Vec<&mut PairedRuns> = pairs.iter_mut().filter(|pair| pair.paired.measure == measure).collect();
        let corrected = holm(&family.iter().map(|pair| pair.paired.p).collect::<Vec<_>>());
        family.iter_mut().zip(corrected).for_each(|(pair, p)| pair.p_holm = p);
    }
    Ok(pairs)
}

fn have_common_clip(first: &Predictions, second: &Predictions) -> bool {
    let ids: HashSet<&str> = first.ids.iter().map(String::as_str).collect();
    second.ids.iter().any(|id| ids.contains(id.as_str()))
}
