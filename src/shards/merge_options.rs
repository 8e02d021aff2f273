//! What merges of stores and of lists have in common.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::list;
use super::plan::ShardPlan;
use crate::error::{Error, Result};
use crate::progress::{Event, ProgressSink};

/// Settings of a merge.
#[derive(Debug)]
pub struct MergeOptions {
    /// The directory of the shards, with its shards.json; or stores, which are concatenated.
    pub shards: Vec<PathBuf>,
    /// The store, or the list of shots, to write.
    pub out: PathBuf,
    /// Merge the shards that are complete, although others are missing.
    pub partial: bool,
    /// Write a store that refers to the rows of the shards instead of copying them.
    pub virtual_rows: bool,
    /// Check only: write nothing.
    pub dry_run: bool,
}

/// Result of a merge. [`Display`](fmt::Display) formats it as one line for the terminal.
#[derive(Debug, Clone)]
pub struct MergeSummary {
    /// The store, or the list of shots.
    pub out: PathBuf,
    /// Number of shards or stores that were merged.
    pub shards: usize,
    /// Number of clips with features, or with shots.
    pub clips: usize,
    /// Number of clips that failed.
    pub failed: usize,
    /// Number of clips of shards that are not complete.
    pub missing: usize,
    pub(super) dry_run: bool,
}

impl fmt::Display for MergeSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MergeSummary { out, shards, clips, failed, missing, dry_run } = self;
        let merged = if *dry_run { "can be merged" } else { "merged" };
        let of = if *shards == 1 { "shard" } else { "shards" };
        write!(f, "{}: {clips} clips of {shards} {of} {merged}", out.display())?;
        for (count, what) in [(failed, "failed"), (missing, "missing")] {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Returns the indices and files of the complete shards. With `partial`, the others are reported as a warning.
///
/// # Errors
/// Returns an error if shards are missing, without `partial`.
pub(super) fn complete_shards(
    directory: &Path,
    plan: &ShardPlan,
    partial: bool,
    progress: &dyn ProgressSink,
) -> Result<Vec<(usize, PathBuf)>> {
    let shards = (0..plan.shards).map(|index| (index, plan.path_of(directory, index)));
    let (complete, incomplete): (Vec<_>, Vec<_>) = shards.partition(|(_, path)| path.exists());
    if incomplete.is_empty() {
        return Ok(complete);
    }
    let indices: HashSet<usize> = incomplete.iter().map(|(index, _)| *index).collect();
    let message = format!(
        "{} of {} shards are not complete ({}), with {} of {} clips",
        incomplete.len(),
        plan.shards,
        list(incomplete.iter().map(|(index, _)| index)),
        plan.clips.iter().filter(|(_, shard)| indices.contains(shard)).count(),
        plan.clips.len()
    );
    if !partial {
        let message = format!("{message}: extract them first, or merge the others with --partial");
        return Err(Error::Store { path: directory.into(), message });
    }
    progress.report(Event::Warning(&format!("{}: {message}", directory.display())));
    Ok(complete)
}

/// Returns an error if clips of `out` would be lost.
pub(super) fn check_lost(out: &Path, what: &str, lost: &[&str]) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!(
        "exists, with {what} of {} clips that the shards do not have ({}): choose another --out, or remove it first",
        lost.len(),
        list(lost.iter())
    );
    Err(Error::Store { path: out.into(), message })
}
