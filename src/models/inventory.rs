//! What is here of each network: the table of `kinoprobe-models list`, the checks of `kinoprobe-models verify`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::card::{Card, Origin};
use super::checkpoint::Checkpoint;
use super::{fetch, onnx, weights};
use crate::error::{Error, Result};

/// A table of a folder's cards, one line each: name, architecture, dim, license, origins, what is here.
///
/// # Errors
/// The folder or a card cannot be read.
pub fn table(folder: &Path) -> Result<String> {
    let mut rows = vec![["NAME", "ARCHITECTURE", "DIM", "LICENSE", "ORIGINS", "HERE"].map(String::from)];
    for name in Card::names(folder)? {
        let card = Card::load(folder, &name)?;
        let origins: Vec<&str> = card.origins.iter().map(Origin::weights).collect();
        let mut here = Vec::new();
        for origin in &card.origins {
            let fetched = weights::place(&card, origin).is_some_and(|path| path.is_file());
            let converted = weights::cache_path(&card, origin).is_some_and(|path| path.is_file());
            match (fetched, converted) {
                (_, true) => here.push(format!("{} (ONNX)", origin.weights())),
                (true, false) => here.push(origin.weights().to_owned()),
                (false, false) => {}
            }
        }
        let architecture = card.architecture.map_or("(ONNX file)", |a| a.name());
        let here = if here.is_empty() { "-".into() } else { here.join(", ") };
        rows.push([
            card.name,
            architecture.into(),
            card.output.dim.to_string(),
            card.license,
            origins.join(", "),
            here,
        ]);
    }
    let widths: Vec<usize> =
        (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    Ok(rows.iter().map(line).collect())
}

/// What became of checking one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The file.
    pub path: PathBuf,
    /// What was checked.
    pub what: &'static str,
    /// What is wrong, if anything is.
    pub fault: Option<String>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.fault {
            None => write!(f, "ok      {} ({})", self.path.display(), self.what),
            Some(fault) => write!(f, "FAILED  {} ({}): {fault}", self.path.display(), self.what),
        }
    }
}

/// Checks what is here of a card: downloads against their hashes, and converted files by converting anew, which
/// gives the same bytes.
///
/// # Errors
/// Nothing of the card is here. What fails a check is in the list, not an error.
pub fn verify(card: &Card) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for origin in &card.origins {
        let file = weights::place(card, origin).filter(|path| path.is_file());
        if let Some(file) = &file {
            let fault = weights::check(origin, file).err().map(|e| e.to_string());
            checks.push(Check { path: file.clone(), what: "weights against their hash", fault });
        }
        let (Some(architecture), Some(path)) = (card.architecture, weights::cache_path(card, origin)) else { continue };
        if !path.is_file() {
            continue;
        }
        let again = match (origin, &file) {
            (Origin::Seeded { seed }, _) => onnx::write(card, architecture, onnx::Weights::Seeded(*seed)),
            (_, Some(file)) => Checkpoint::open(file)
                .and_then(|checkpoint| onnx::write(card, architecture, onnx::Weights::Checkpoint(&checkpoint))),
            (_, None) => {
                let fault = Some("its weights are not here to compare with".into());
                checks.push(Check { path, what: "ONNX against its weights", fault });
                continue;
            }
        };
        let fault = match again {
            Ok(bytes) => fetch::check_sha256(&path, &fetch::sha256(&bytes)).err().map(|e| e.to_string()),
            Err(error) => Some(error.to_string()),
        };
        checks.push(Check { path, what: "ONNX against its weights", fault });
    }
    if checks.is_empty() {
        let message = format!("nothing of {} is here; get it with kinoprobe-models fetch {}", card.name, card.name);
        return Err(Error::Weights { path: card.folder.clone(), message });
    }
    Ok(checks)
}
