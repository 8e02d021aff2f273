//! Collects the problems of a manifest, so that one error reports several of them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Maximum number of problems in an error message; the others are counted.
const MAX_SHOWN: usize = 10;

/// The problems of one manifest.
pub(super) struct Problems {
    path: PathBuf,
    shown: Vec<(Option<u64>, String)>,
    omitted: usize,
}

impl Problems {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), shown: Vec::new(), omitted: 0 }
    }

    /// Adds a problem; `line` is 1-based.
    pub(super) fn add(&mut self, line: Option<u64>, message: impl Into<String>) {
        if self.shown.len() < MAX_SHOWN {
            self.shown.push((line, message.into()));
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// Converts the problems into one error.
    ///
    /// # Errors
    /// Returns an error if there is a problem.
    pub(super) fn finish(mut self) -> Result<()> {
        match self.shown.len() {
            0 => Ok(()),
            1 => {
                let (line, message) = self.shown.remove(0);
                Err(Error::Manifest { path: self.path, line, message })
            }
            count => {
                let mut message = format!("{} problems", count + self.omitted);
                for (line, text) in &self.shown {
                    let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
                    message.push_str(&format!("\n  {line}{text}"));
                }
                if self.omitted > 0 {
                    message.push_str(&format!("\n  and {} more", self.omitted));
                }
                Err(Error::Manifest { path: self.path, line: None, message })
            }
        }
    }
}

/// Formats a count with its noun: `1 clip`, `2 clips`.
pub(super) fn count_of(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
