//! Numbers → JSON, CSV, Markdown, HTML and plots.
//!
//! - [`write_run`]: the folder of one classifier trained on one store
//! - [`write_evaluation`]: the folder of predictions measured by themselves
//! - [`compare`]: several folders side by side
//! - [`posters`]: the models of posters by year
//! - [`inspect`]: what a store or a manifest holds

pub mod classification_report;
pub mod compare;
mod html;
pub mod inspect;
pub mod label_plots;
pub mod markdown;
pub mod metrics;
mod multi_label;
pub mod plots;
pub mod posters;
mod single_label;
pub mod svg;
pub mod table;
mod tensorboard;
mod year_plots;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use metrics::Metrics;

use crate::error::{Error, Result};
use crate::evaluate::predictions::table::csv_error;
use crate::evaluate::predictions::{PredictionTable, write_csv};
use crate::evaluate::{Epoch, Predictions, SeedResult, SplitMetrics, evaluate_splits};
use crate::manifest::Split;
use crate::recipe::Recipe;
use crate::store::Provenance;

/// One classifier trained on one store: everything that its folder under runs/ tells.
#[derive(Debug, Clone)]
pub struct Run {
    /// The method whose features were read.
    pub method: String,
    /// The classifier's name, as `--classifier` takes it.
    pub classifier: String,
    /// The recipe used, flags included.
    pub recipe: Recipe,
    /// How the features were made.
    pub provenance: Provenance,
    /// Whether the features come from seeded (untrained) weights.
    pub untrained: bool,
    /// Predictions for each split that is measured (val, test).
    pub splits: BTreeMap<Split, Predictions>,
    /// Predictions for the clips without a label.
    pub unlabeled: Option<Predictions>,
    /// What the constant predictor gets on each of the splits.
    pub constant: BTreeMap<Split, SplitMetrics>,
    /// Learning curves of the first seed; empty for classifiers without epochs.
    pub curves: Vec<Epoch>,
    /// What the scores of the curves are: `accuracy` or `mAP`.
    pub measure: &'static str,
    /// The epoch (counted from 1) that was kept, where there are epochs.
    pub kept_epoch: Option<usize>,
    /// What each seed gave.
    pub seeds: Vec<SeedResult>,
    /// Seconds of training, of the first seed.
    pub train_seconds: f64,
    /// The store, as it was given.
    pub features: PathBuf,
    /// The manifest, as it was given.
    pub manifest: PathBuf,
    /// The folder below which the manifest's paths lie, where one was given.
    pub root: Option<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Predictions measured by themselves, without training.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// What was measured: the file of predictions, or the model's folder.
    pub source: PathBuf,
    /// What is known of how they were made; its splits are filled in.
    pub metrics: Metrics,
    /// The predictions.
    pub table: PredictionTable,
}

/// One measured part of a report.
struct Section<'a> {
    /// `train`, `val`, `test` or `all`: part of file names.
    name: String,
    predictions: &'a Predictions,
    metrics: &'a SplitMetrics,
    constant: Option<&'a SplitMetrics>,
}

/// What a report shows of a section beyond its row in the table of results; each task makes its own.
struct Shown {
    /// What stands out, as plain text.
    sentences: Vec<String>,
    /// Tables and pictures, in order.
    blocks: Vec<Block>,
    /// Further CSV files: their names and records.
    files: Vec<(String, Vec<Vec<String>>)>,
    /// The section's records of per_class.csv, the header first.
    classes: Vec<Vec<String>>,
}

/// A piece of a section.
enum Block {
    /// A table, with what stands above it.
    Table(String, table::Table),
    /// A picture.
    Picture(Picture),
}

/// A picture in a file of its own.
struct Picture {
    /// The file's name.
    file: String,
    /// What it shows.
    caption: String,
    /// The drawing.
    svg: String,
}

fn show(title: &str, section: &Section<'_>) -> Shown {
    match section.metrics {
        SplitMetrics::SingleLabel(metrics) => single_label::show(title, section, metrics),
        SplitMetrics::MultiLabel(metrics) => multi_label::show(title, section, metrics),
    }
}

/// Writes a run's folder: predictions.csv, submission.csv (where clips have no label), curves.csv, curves.svg and
/// tensorboard/ (where there were epochs), per_class.csv, classification_report.txt, recipe.toml, REPORT.md with its pictures (confusion_SPLIT
/// with one label a clip, precision_recall_SPLIT and average_precision_SPLIT with several) and, last, metrics.json.
///
/// Files of an earlier run are replaced; others in the folder (the model) are left alone. A folder without metrics.json
/// is not complete.
///
/// # Errors
/// The folder cannot be made, or a file cannot be written.
pub fn write_run(dir: &Path, run: &Run) -> Result<()> {
    begin(dir)?;
    let provenance = &run.provenance;
    let task = run.splits.values().chain(&run.unlabeled).next().map(|part| part.task).unwrap_or_default();
    let mut metrics = Metrics {
        task,
        method: run.method.clone(),
        classifier: run.classifier.clone(),
        untrained: run.untrained,
        weights: provenance.weights.clone(),
        model: provenance.model.clone(),
        model_sha256: provenance.model_sha256.clone(),
        provider: provenance.provider.clone(),
        features: run.features.clone(),
        manifest: run.manifest.clone(),
        root: run.root.clone(),
        training_seconds: Some(run.train_seconds),
        extract_seconds: (provenance.extract_seconds > 0.0).then_some(provenance.extract_seconds),
        best_epoch: run.kept_epoch,
        seeds: metrics::Seeds::of(&run.seeds),
        constant: run.constant.clone(),
        warnings: run.warnings.clone(),
        ..Metrics::new()
    };
    let measured = evaluate_splits(&run.splits, Split::Val);
    let sections: Vec<Section<'_>> = measured
        .iter()
        .map(|(split, metrics)| Section {
            name: split.name().into(),
            predictions: &run.splits[split],
            metrics,
            constant: run.constant.get(split),
        })
        .collect();
    metrics.warnings.extend(absent(&sections));
    let mut files = vec!["predictions.csv", "recipe.toml"];
    let parts: Vec<_> = run.splits.iter().map(|(&split, predictions)| (Some(split), predictions)).collect();
    write_csv(&dir.join("predictions.csv"), &parts)?;
    if let Some(unlabeled) = run.unlabeled.as_ref().filter(|unlabeled| !unlabeled.is_empty()) {
        write_submission(&dir.join("submission.csv"), unlabeled)?;
        files.push("submission.csv");
    }
    if !run.curves.is_empty() {
        write_curves(&dir.join("curves.csv"), run.measure, &run.curves)?;
        write(&dir.join("curves.svg"), &plots::curves(run.measure, &run.curves, run.kept_epoch))?;
        files.extend(["curves.csv", "curves.svg"]);
        tensorboard::write(dir, run)?;
    }
    let recipe = toml::to_string_pretty(&run.recipe)
        .map_err(|error| Error::Config { path: dir.join("recipe.toml"), message: error.to_string() })?;
    write(&dir.join("recipe.toml"), &recipe)?;
    let title = format!("{} · {}", run.method, run.classifier);
    write_sections(dir, &title, &metrics, &sections, &files)?;
    for (split, measured) in measured {
        *metrics.split_mut(split) = Some(measured);
    }
    metrics.write(&dir.join("metrics.json"))
}

/// Writes the folder of an evaluation: as [`write_run`] does, without what comes of training; metrics.json has `all` and each split that the predictions name. Returns the metrics.
///
/// # Errors
/// The folder cannot be made, or a file cannot be written.
pub fn write_evaluation(dir: &Path, evaluation: &Evaluation) -> Result<Metrics> {
    begin(dir)?;
    let Evaluation { source, table, .. } = evaluation;
    let mut metrics = evaluation.metrics.clone();
    metrics.warnings.extend(table.warnings.iter().cloned());
    metrics.task = table.predictions.task;
    // The whole is no part that thresholds may be applied to: it holds the clips they were tuned on.
    let all = evaluate_splits(&BTreeMap::from([((), table.predictions.clone())]), ()).remove(&()).expect("one part");
    let parts: BTreeMap<Split, Predictions> =
        table.splits_present().into_iter().map(|split| (split, table.select_split(split))).collect();
    let measured = evaluate_splits(&parts, Split::Val);
    let mut sections =
        vec![Section { name: "all".into(), predictions: &table.predictions, metrics: &all, constant: None }];
    sections.extend(measured.iter().map(|(split, measured)| Section {
        name: split.name().into(),
        predictions: &parts[split],
        metrics: measured,
        constant: metrics.constant.get(split),
    }));
    metrics.warnings.extend(absent(&sections));
    let rest: Vec<usize> = (0..table.splits.len()).filter(|&i| table.splits[i].is_none()).collect();
    let rest = table.predictions.select(&rest);
    let mut written: Vec<_> = parts.iter().map(|(split, part)| (Some(*split), part)).collect();
    if !rest.is_empty() {
        written.push((None, &rest));
    }
    write_csv(&dir.join("predictions.csv"), &written)?;
    let title = format!("Predictions of {}", source.display());
    write_sections(dir, &title, &metrics, &sections, &["predictions.csv"])?;
    for (split, measured) in measured {
        *metrics.split_mut(split) = Some(measured);
    }
    metrics.all = Some(all);
    metrics.write(&dir.join("metrics.json"))?;
    Ok(metrics)
}

/// Makes the folder and takes away an old metrics.json, which says that a folder is complete.
fn begin(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = dir.join("metrics.json");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(error)),
        _ => Ok(()),
    }
}

/// What is to be said of classes that a section lacks.
fn absent(sections: &[Section<'_>]) -> Vec<String> {
    sections.iter().filter_map(|s| Some(format!("{}: {}", s.name, s.metrics.absent()?))).collect()
}

fn write_sections(dir: &Path, title: &str, metrics: &Metrics, sections: &[Section<'_>], files: &[&str]) -> Result<()> {
    let shown: Vec<Shown> = sections.iter().map(|section| show(title, section)).collect();
    for (name, records) in shown.iter().flat_map(|shown| &shown.files) {
        write_records(&dir.join(name), records.iter().cloned())?;
    }
    for block in shown.iter().flat_map(|shown| &shown.blocks) {
        if let Block::Picture(picture) = block {
            write(&dir.join(&picture.file), &picture.svg)?;
        }
    }
    let header = shown.first().map(|shown| shown.classes[..1].to_vec()).unwrap_or_default();
    let classes = shown.iter().flat_map(|shown| shown.classes[1..].iter().cloned());
    write_records(&dir.join("per_class.csv"), header.into_iter().chain(classes))?;
    let tables = sections.iter().map(|s| format!("{}\n\n{}", s.name, classification_report::text(s.metrics)));
    write(&dir.join("classification_report.txt"), &tables.collect::<Vec<_>>().join("\n"))?;
    let files = [files, &["per_class.csv", "classification_report.txt", "metrics.json"]].concat();
    write(&dir.join("REPORT.md"), &markdown::report(title, metrics, sections, &shown, &files))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io(path))
}

/// Writes records as CSV.
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

fn write_curves(path: &Path, measure: &str, epochs: &[Epoch]) -> Result<()> {
    let (train, val) = (format!("train_{measure}"), format!("val_{measure}"));
    let header = ["epoch", "train_loss", &train, "val_loss", &val, "learning_rate"];
    let rows = epochs.iter().map(|e| {
        let values = [e.train_loss, e.train_score, e.val_loss, e.val_score, e.learning_rate];
        std::iter::once(e.epoch.to_string()).chain(values.iter().map(f64::to_string)).collect()
    });
    write_records(path, [header.map(String::from).to_vec()].into_iter().chain(rows))
}

#[cfg(test)]
pub(crate) mod tests;
