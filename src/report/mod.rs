//! Reports: JSON, CSV, Markdown, HTML and SVG files written from results. This module does not train, and decodes thumbnails only.
//!
//! - [`write_run`] writes the directory of one classifier trained on one store.
//! - [`write_page`] adds its self-contained HTML page, with the clips behind the results.
//! - [`write_evaluation`] writes the directory of predictions that are evaluated without training.
//! - [`compare`] writes the comparison of several runs.
//! - [`posters`] writes the report of poster models by year.
//! - [`inspect`] describes a store or a manifest.

pub mod classification_report;
pub mod clips;
pub mod compare;
#[cfg(feature = "media")]
pub mod demo;
mod escape;
mod html;
pub mod inspect;
pub mod label_plots;
pub mod markdown;
pub mod metrics;
mod multi_label;
mod page;
pub mod plots;
pub mod posters;
mod reliability;
pub mod search;
mod single_label;
mod stale;
pub mod svg;
pub mod table;
mod tensorboard;
pub mod timeline;
mod year_plots;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use clips::ClipSources;
pub use metrics::{Metrics, complete};
pub use page::write_page;
pub use stale::{begin, remove_drawn_manifest, remove_run};
pub use tensorboard::write_epochs;

use crate::classify::{RunCalibration, RunIdentity, RunInputs};
use crate::error::{Error, Result};
use crate::evaluate::predictions::table::csv_error;
use crate::evaluate::predictions::{PredictionTable, write_csv};
use crate::evaluate::{Epoch, Predictions, SeedResult, SplitMetrics, evaluate_splits};
use crate::manifest::Split;

/// Results of one classifier trained on one store. Predictions and curves are those of the first seed.
#[derive(Debug, Clone)]
pub struct TrainingRun {
    /// Classifier and features.
    pub identity: RunIdentity,
    /// Input files.
    pub inputs: RunInputs,
    /// Text of recipe.toml: the recipe including command-line overrides.
    pub recipe: String,
    /// The search that selected settings of the recipe.
    pub search: Option<search::SearchReport>,
    /// Seconds of feature extraction, as the store records them; 0 if unknown.
    pub extract_seconds: f64,
    /// Predictions for each held-out split (val, test).
    pub splits: BTreeMap<Split, Predictions>,
    /// Calibration of the scores of these predictions, if they are calibrated.
    pub calibration: Option<RunCalibration>,
    /// Predictions for the unlabeled clips.
    pub unlabeled: Option<Predictions>,
    /// Metrics of the constant baseline on each split.
    pub constant: BTreeMap<Split, SplitMetrics>,
    /// Learning curves; empty if the classifier has no epochs.
    pub curves: Vec<Epoch>,
    /// Name of the score in `curves`: `accuracy` or `mAP`.
    pub score_name: &'static str,
    /// Epoch whose parameters were kept, counted from 1; `None` if the classifier has no epochs. Number of trees per class of boosted trees.
    pub best_epoch: Option<usize>,
    /// Results of each seed.
    pub seeds: Vec<SeedResult>,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Predictions to evaluate without training.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// File of predictions, or directory of the model that made them.
    pub source: PathBuf,
    /// Classifier and features, if known.
    pub identity: RunIdentity,
    /// Input files, if known.
    pub inputs: RunInputs,
    /// Predictions.
    pub table: PredictionTable,
}

/// One evaluated part of the data: a split, or all clips.
struct EvaluatedPart<'a> {
    /// `train`, `val`, `test` or `all`; used in file names.
    name: String,
    predictions: &'a Predictions,
    /// The predictions before calibration, if they are calibrated and these are known.
    uncalibrated: Option<&'a Predictions>,
    /// Expected calibration error before calibration, if the predictions are calibrated.
    error_before: Option<f64>,
    metrics: &'a SplitMetrics,
    /// Metrics of the constant baseline.
    constant: Option<&'a SplitMetrics>,
}

/// Content of the report on an [`EvaluatedPart`], without its row in the table of results. It depends on the task.
struct PartContent {
    /// Plain-text findings.
    findings: Vec<String>,
    /// Tables and figures, in order.
    blocks: Vec<Block>,
    /// Names and records of additional CSV files.
    csv_files: Vec<(String, Vec<Vec<String>>)>,
    /// Records of per_class.csv, header first.
    class_records: Vec<Vec<String>>,
}

/// An element of a report.
enum Block {
    /// A table with its caption.
    Table(String, table::Table),
    /// A figure.
    Figure(Figure),
}

/// A plot in its own SVG file.
struct Figure {
    /// File name.
    file: String,
    /// Caption, also the text alternative.
    caption: String,
    /// SVG document.
    svg: String,
}

fn part_content(title: &str, part: &EvaluatedPart<'_>) -> PartContent {
    let mut content = match part.metrics {
        SplitMetrics::SingleLabel(metrics) => single_label::content(title, part, metrics),
        SplitMetrics::MultiLabel(metrics) => multi_label::content(title, part, metrics),
    };
    reliability::add(title, part, &mut content);
    content
}

/// Adds the likely label errors as a table and a CSV file; [`write_page`] shows the clips instead.
fn with_label_errors(mut content: PartContent, part: &EvaluatedPart<'_>) -> PartContent {
    if let Some(label_errors) = clips::label_errors(&part.name, part.predictions) {
        content.blocks.push(Block::Table(label_errors.caption, label_errors.first));
        content.csv_files.push((label_errors.file, label_errors.all.records().collect()));
    }
    content
}

/// Writes the directory of a run: predictions.csv, submission.csv (if there are unlabeled clips), curves.csv, curves.svg and
/// tensorboard/ (if there are epochs), search.csv, search.svg and best.toml (if settings were searched), per_class.csv,
/// classification_report.txt, recipe.toml, REPORT.md with its figures (confusion_SPLIT for single-label runs; precision_recall_SPLIT and
/// average_precision_SPLIT for multi-label runs; reliability_SPLIT), label_errors_SPLIT.csv (if there are likely label errors) and, last,
/// metrics.json.partial, which [`complete`] renames to metrics.json.
///
/// Removes the files of an earlier run and keeps all others (the model). A directory without metrics.json is incomplete: [`begin`] removes it
/// before the model is written.
///
/// # Errors
/// Returns an error if the directory cannot be created or a file cannot be written.
pub fn write_run(dir: &Path, run: &TrainingRun) -> Result<()> {
    begin(dir)?;
    stale::remove_training_files(dir)?;
    let mut metrics = Metrics {
        identity: run.identity.clone(),
        inputs: run.inputs.clone(),
        training_seconds: Some(run.train_seconds),
        extract_seconds: (run.extract_seconds > 0.0).then_some(run.extract_seconds),
        best_epoch: run.best_epoch,
        calibration: run.calibration.as_ref().map(metrics::CalibrationRecord::new),
        seeds: metrics::Seeds::of(&run.seeds),
        constant: run.constant.clone(),
        warnings: run.warnings.clone(),
        ..Metrics::new()
    };
    let measured = evaluate_splits(&run.splits, Split::Val);
    let calibration = metrics.calibration.clone();
    let parts: Vec<EvaluatedPart<'_>> = measured
        .iter()
        .map(|(split, metrics)| EvaluatedPart {
            name: split.name().into(),
            predictions: &run.splits[split],
            uncalibrated: run.calibration.as_ref().and_then(|run| run.uncalibrated.get(split)),
            error_before: calibration.as_ref().and_then(|record| record.error_before(*split)),
            metrics,
            constant: run.constant.get(split),
        })
        .collect();
    metrics.warnings.extend(absent_classes(&parts));
    let mut files = vec!["predictions.csv", "recipe.toml"];
    let labeled: Vec<_> = run.splits.iter().map(|(&split, predictions)| (Some(split), predictions)).collect();
    write_csv(&dir.join("predictions.csv"), &labeled)?;
    if let Some(unlabeled) = run.unlabeled.as_ref().filter(|unlabeled| !unlabeled.is_empty()) {
        write_submission(&dir.join("submission.csv"), unlabeled)?;
        metrics.unlabeled = Some(unlabeled.len());
        files.push("submission.csv");
    }
    if !run.curves.is_empty() {
        write_curves(&dir.join("curves.csv"), run.score_name, &run.curves)?;
        write(&dir.join("curves.svg"), &plots::curves(run.score_name, &run.curves, run.best_epoch))?;
        files.extend(["curves.csv", "curves.svg"]);
        tensorboard::write(dir, run)?;
    }
    write(&dir.join("recipe.toml"), &run.recipe)?;
    if let Some(search) = &run.search {
        search.write(dir)?;
        metrics.search = Some(search.summary());
        files.extend(search::FILES);
    }
    let search = run.search.as_ref().map(search::SearchReport::markdown);
    let title = format!("{} · {}", run.identity.method, run.identity.classifier);
    write_parts(dir, &title, &metrics, search.as_deref(), &parts, &files)?;
    for (split, measured) in measured {
        *metrics.split_mut(split) = Some(measured);
    }
    metrics.write(dir)
}

/// Writes the directory of an evaluation: the files of [`write_run`] except those of training. [`complete`] completes it. The metrics
/// contain `all` and each split that the predictions name. Clips without a label are listed in submission.csv; if no clip has a label,
/// there are no metrics. Returns the metrics.
///
/// # Errors
/// Returns an error if the directory cannot be created or a file cannot be written.
pub fn write_evaluation(dir: &Path, evaluation: &Evaluation) -> Result<Metrics> {
    begin(dir)?;
    let Evaluation { source, table, .. } = evaluation;
    let mut metrics = Metrics {
        identity: RunIdentity { task: table.predictions.task, ..evaluation.identity.clone() },
        inputs: evaluation.inputs.clone(),
        warnings: table.warnings.clone(),
        ..Metrics::new()
    };
    let unlabeled: Vec<usize> =
        (0..table.predictions.len()).filter(|&i| table.predictions.truth[i].is_empty()).collect();
    // Tuned thresholds are not applied to `all`, since it contains the clips they were tuned on.
    let all = evaluate_splits(&BTreeMap::from([((), table.predictions.clone())]), ()).remove(&()).expect("one part");
    let all = (unlabeled.len() < table.predictions.len()).then_some(all);
    let splits: BTreeMap<Split, Predictions> =
        table.splits_present().into_iter().map(|split| (split, table.select_split(split))).collect();
    let labeled = splits.iter().filter(|(_, part)| part.truth.iter().any(|labels| !labels.is_empty()));
    let measured = evaluate_splits(&labeled.map(|(&split, part)| (split, part.clone())).collect(), Split::Val);
    let all_part = |metrics| EvaluatedPart {
        name: "all".into(),
        predictions: &table.predictions,
        uncalibrated: None,
        error_before: None,
        metrics,
        constant: None,
    };
    let mut parts: Vec<EvaluatedPart<'_>> = all.iter().map(all_part).collect();
    parts.extend(measured.iter().map(|(split, measured)| EvaluatedPart {
        name: split.name().into(),
        predictions: &splits[split],
        uncalibrated: None,
        error_before: None,
        metrics: measured,
        constant: None,
    }));
    metrics.warnings.extend(absent_classes(&parts));
    let without_split: Vec<usize> = (0..table.splits.len()).filter(|&i| table.splits[i].is_none()).collect();
    let without_split = table.predictions.select(&without_split);
    let mut written: Vec<_> = splits.iter().map(|(split, part)| (Some(*split), part)).collect();
    if !without_split.is_empty() {
        written.push((None, &without_split));
    }
    write_csv(&dir.join("predictions.csv"), &written)?;
    let mut files = vec!["predictions.csv"];
    if !unlabeled.is_empty() {
        write_submission(&dir.join("submission.csv"), &table.predictions.select(&unlabeled))?;
        metrics.unlabeled = Some(unlabeled.len());
        files.push("submission.csv");
    }
    let title = format!("Predictions of {}", source.display());
    write_parts(dir, &title, &metrics, None, &parts, &files)?;
    for (split, measured) in measured {
        *metrics.split_mut(split) = Some(measured);
    }
    metrics.all = all;
    metrics.write(dir)?;
    Ok(metrics)
}

/// Returns a warning for each part that lacks clips of some classes.
fn absent_classes(parts: &[EvaluatedPart<'_>]) -> Vec<String> {
    parts.iter().filter_map(|part| Some(format!("{}: {}", part.name, part.metrics.absent()?))).collect()
}

fn write_parts(
    dir: &Path,
    title: &str,
    metrics: &Metrics,
    search: Option<&str>,
    parts: &[EvaluatedPart<'_>],
    files: &[&str],
) -> Result<()> {
    let contents: Vec<PartContent> =
        parts.iter().map(|part| with_label_errors(part_content(title, part), part)).collect();
    for (name, records) in contents.iter().flat_map(|content| &content.csv_files) {
        write_records(&dir.join(name), records.iter().cloned())?;
    }
    for block in contents.iter().flat_map(|content| &content.blocks) {
        if let Block::Figure(figure) = block {
            write(&dir.join(&figure.file), &figure.svg)?;
        }
    }
    let mut files = files.to_vec();
    if let Some(first) = contents.first() {
        let header = first.class_records[..1].to_vec();
        let classes = contents.iter().flat_map(|content| content.class_records[1..].iter().cloned());
        write_records(&dir.join("per_class.csv"), header.into_iter().chain(classes))?;
        let reports =
            parts.iter().map(|part| format!("{}\n\n{}", part.name, classification_report::text(part.metrics)));
        write(&dir.join("classification_report.txt"), &reports.collect::<Vec<_>>().join("\n"))?;
        files.extend(["per_class.csv", "classification_report.txt"]);
    }
    files.push("metrics.json");
    write(&dir.join("REPORT.md"), &markdown::report(title, metrics, search, parts, &contents, &files))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io(path))
}

/// Writes a CSV file.
fn write_records(path: &Path, records: impl IntoIterator<Item = Vec<String>>) -> Result<()> {
    let mut writer = csv::Writer::from_path(path).map_err(csv_error(path))?;
    for record in records {
        writer.write_record(&record).map_err(csv_error(path))?;
    }
    writer.flush().map_err(Error::io(path))
}

fn write_submission(path: &Path, predictions: &Predictions) -> Result<()> {
    let rows = predictions.ids.iter().zip(&predictions.predicted);
    let rows = rows.map(|(id, set)| vec![id.clone(), predictions.label_names(set)]);
    write_records(path, [vec!["Id".into(), "Category".into()]].into_iter().chain(rows))
}

fn write_curves(path: &Path, score_name: &str, epochs: &[Epoch]) -> Result<()> {
    let (train, val) = (format!("train_{score_name}"), format!("val_{score_name}"));
    let header = ["epoch", "train_loss", &train, "val_loss", &val, "learning_rate"];
    let rows = epochs.iter().map(|e| {
        let values = [e.train_loss, e.train_score, e.val_loss, e.val_score, e.learning_rate];
        std::iter::once(e.epoch.to_string()).chain(values.iter().map(f64::to_string)).collect()
    });
    write_records(path, [header.map(String::from).to_vec()].into_iter().chain(rows))
}

#[cfg(test)]
pub(crate) mod tests;
