//! Problems of a manifest, gathered so that one run names several.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How many are told; the rest is counted.
const SHOWN: usize = 10;

/// What is wrong with a manifest.
pub(super) struct Problems {
    path: PathBuf,
    shown: Vec<(Option<u64>, String)>,
    more: usize,
}

impl Problems {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), shown: Vec::new(), more: 0 }
    }

    /// Adds a problem; `line` is 1-based.
    pub(super) fn add(&mut self, line: Option<u64>, message: impl Into<String>) {
        if self.shown.len() < SHOWN {
            self.shown.push((line, message.into()));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// Fails with all of them where there is one.
    pub(super) fn finish(mut self) -> Result<()> {
        match self.shown.len() {
            0 => Ok(()),
            1 => {
                let (line, message) = self.shown.remove(0);
                Err(Error::Manifest { path: self.path, line, message })
            }
            count => {
                let mut message = format!("{} problems", count + self.more);
                for (line, text) in &self.shown {
                    let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
                    message.push_str(&format!("\n  {line}{text}"));
                }
                if self.more > 0 {
                    message.push_str(&format!("\n  and {} more", self.more));
                }
                Err(Error::Manifest { path: self.path, line: None, message })
            }
        }
    }
}

/// `1 clip`, `2 clips`.
pub(super) fn several(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
