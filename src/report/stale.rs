//! Removal of the files of an earlier run from its directory.

use std::io::ErrorKind;
use std::path::Path;

use super::{Metrics, metrics, page, tensorboard};
use crate::classify::SavedModel;
use crate::error::{Error, Result};
use crate::extract::codebook;
use crate::files;

/// Files of every run or evaluation, except metrics.json.
const FILES: [&str; 3] = ["predictions.csv", "REPORT.md", "recipe.toml"];
/// Files of an evaluation that not every evaluation writes.
const EVALUATION_FILES: [&str; 4] = ["submission.csv", "per_class.csv", "classification_report.txt", page::FILE];
/// Files of training that not every run writes.
const TRAINING_FILES: [&str; 5] = ["curves.csv", "curves.svg", "search.csv", "search.svg", "best.toml"];
/// The names of figures and their tables start with one of these and the name of a part.
const FIGURE_PREFIXES: [&str; 5] =
    ["confusion_", "precision_recall_", "average_precision_", "reliability_", "label_errors_"];

/// Creates the directory of a run or an evaluation, or marks it as incomplete, before any of its files is written: metrics.json becomes
/// metrics.json.partial. Removes the files of an earlier run or evaluation that this one may not replace, also those of one that was
/// interrupted. [`complete`](super::complete) reverts the mark.
///
/// # Errors
/// Returns an error if the directory or a file cannot be created or removed.
pub fn begin(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let partial = dir.join(metrics::PARTIAL_FILE);
    match files::rename(&dir.join("metrics.json"), &partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(dir.join("metrics.json"))(error)),
        Err(_) if !partial.exists() => return std::fs::write(&partial, "").map_err(Error::io(&partial)),
        _ => {}
    }
    for name in EVALUATION_FILES {
        remove_file(&dir.join(name))?;
    }
    for part in ["train", "val", "test", "all"] {
        for (prefix, extension) in FIGURE_PREFIXES.iter().flat_map(|prefix| [(prefix, "svg"), (prefix, "csv")]) {
            remove_file(&dir.join(format!("{prefix}{part}.{extension}")))?;
        }
    }
    Ok(())
}

/// Removes the learning curves and the event files of an earlier run.
pub(super) fn remove_training_files(dir: &Path) -> Result<()> {
    for name in TRAINING_FILES {
        remove_file(&dir.join(name))?;
    }
    let event_files = dir.join("tensorboard");
    for split in ["train", "val", "test"].map(|split| event_files.join(split)) {
        remove_file(&split.join(tensorboard::FILE))?;
        remove_empty_directory(&split)?;
    }
    remove_empty_directory(&event_files)
}

/// Removes the files of a run or an evaluation, and then the directory if it is empty. A directory without a metrics.json of
/// kinoprobe is not changed.
///
/// # Errors
/// Returns an error if a file cannot be removed.
pub fn remove_run(dir: &Path) -> Result<()> {
    let Ok(metrics) = Metrics::read(&dir.join("metrics.json")) else { return Ok(()) };
    remove_file(&dir.join(codebook::file_name(&metrics.identity.method)))?;
    begin(dir)?;
    remove_training_files(dir)?;
    for name in FILES.iter().chain(&SavedModel::FILES).chain([&metrics::PARTIAL_FILE]) {
        remove_file(&dir.join(name))?;
    }
    remove_empty_directory(dir)
}

/// Removes a file; returns `false` if there is none.
pub(super) fn remove_file(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// Removes a directory unless it contains something or does not exist.
fn remove_empty_directory(dir: &Path) -> Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    match std::fs::remove_dir(dir) {
        Err(error) if !matches!(error.kind(), NotFound | DirectoryNotEmpty) => Err(Error::io(dir)(error)),
        _ => Ok(()),
    }
}

/// Removes the manifest.csv that an earlier run wrote to its directory, unless it is the manifest of this run. A directory
/// without a run is not changed.
///
/// # Errors
/// Returns an error if the file cannot be removed.
pub fn remove_drawn_manifest(dir: &Path, manifest: &Path) -> Result<()> {
    let path = dir.join("manifest.csv");
    let is_run = ["recipe.toml", "predictions.csv"].iter().all(|name| dir.join(name).is_file());
    let is_input = matches!((path.canonicalize(), manifest.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if is_run && !is_input { remove_file(&path).map(|_| ()) } else { Ok(()) }
}
