//! Local files of the networks: the table of `kinoprobe-models list` and the checks of `kinoprobe-models verify`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::card::{Card, Origin};
use super::checkpoint::Checkpoint;
use super::parameters::ParameterSource;
use super::precision::Precision;
use super::prepare::{cache_path, check_file, origin_path};
use super::seeded::SeededParameters;
use super::{fetch, onnx};
use crate::error::{Error, Result};

const COLUMNS: [&str; 6] = ["NAME", "ARCHITECTURE", "DIM", "LICENSE", "ORIGINS", "LOCAL"];

/// Returns a table of the cards in a directory, one line per card: name, architecture, embedding length, license,
/// origins, and the origins whose weights or ONNX files exist locally.
///
/// # Errors
/// Returns an error if the directory or a card cannot be read.
pub fn table(directory: &Path) -> Result<String> {
    let mut rows = vec![COLUMNS.map(String::from)];
    for name in Card::names(directory)? {
        let card = Card::load(directory, &name)?;
        let origins: Vec<&str> = card.origins.iter().map(Origin::weights).collect();
        let local = local_origins(&card);
        rows.push([
            card.name,
            card.architecture.map_or("(ONNX file)", |a| a.name()).into(),
            card.output.dim.to_string(),
            card.license,
            origins.join(", "),
            if local.is_empty() { "-".into() } else { local.join(", ") },
        ]);
    }
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; COLUMNS.len()]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    Ok(rows.iter().map(line).collect())
}

/// Returns the origins whose files exist locally, marked with `(ONNX)` if they are converted.
fn local_origins(card: &Card) -> Vec<String> {
    let exists = |path: Option<PathBuf>| path.is_some_and(|path| path.is_file());
    let describe = |origin: &Origin| {
        if exists(cache_path(card, origin, Precision::Auto)) {
            Some(format!("{} (ONNX)", origin.weights()))
        } else {
            exists(origin_path(card, origin)).then(|| origin.weights().to_owned())
        }
    };
    card.origins.iter().filter_map(describe).collect()
}

/// Result of checking one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The file.
    pub path: PathBuf,
    /// The property that was checked.
    pub subject: &'static str,
    /// Description of the failure, if the check failed.
    pub failure: Option<String>,
}

impl Check {
    fn new(path: PathBuf, subject: &'static str, result: Result<()>) -> Self {
        Self { path, subject, failure: result.err().map(|e| e.to_string()) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.failure {
            None => write!(f, "ok      {} ({})", self.path.display(), self.subject),
            Some(failure) => write!(f, "FAILED  {} ({}): {failure}", self.path.display(), self.subject),
        }
    }
}

/// Checks the local files of a card: downloads against their hashes, and converted files by converting again, which gives
/// the same bytes.
///
/// # Errors
/// Returns an error if no file of the card exists. Failed checks are part of the result.
pub fn verify(card: &Card) -> Result<Vec<Check>> {
    const ONNX: &str = "ONNX against its weights";
    let mut checks = Vec::new();
    for origin in &card.origins {
        let file = origin_path(card, origin).filter(|path| path.is_file());
        if let Some(file) = &file {
            checks.push(Check::new(file.clone(), "weights against their hash", check_file(origin, file)));
        }
        let Some(architecture) = card.architecture else { continue };
        for precision in [Precision::Auto, Precision::Fp16] {
            let Some(path) = cache_path(card, origin, precision).filter(|path| path.is_file()) else { continue };
            let write = |source: &dyn ParameterSource| onnx::write_in(precision, card, architecture, source);
            let bytes = match (origin, &file) {
                (Origin::Seeded { seed }, _) => write(&SeededParameters { architecture, seed: *seed }),
                (_, Some(file)) => Checkpoint::open_for(file, &architecture.parameters(&card.input))
                    .and_then(|checkpoint| write(&checkpoint)),
                (_, None) => {
                    let failure = Some("its weights are missing, so it cannot be compared".into());
                    checks.push(Check { path, subject: ONNX, failure });
                    continue;
                }
            };
            let result = bytes.and_then(|bytes| fetch::check_sha256(&path, &fetch::sha256(&bytes)));
            checks.push(Check::new(path, ONNX, result));
        }
    }
    if checks.is_empty() {
        let message = format!("no files of {name}; get them with kinoprobe-models fetch {name}", name = card.name);
        return Err(Error::Weights { path: card.directory.clone(), message });
    }
    Ok(checks)
}
