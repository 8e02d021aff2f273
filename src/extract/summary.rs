//! The result of an extraction run.

use std::fmt;
use std::path::PathBuf;

use super::pipeline::Counts;
use super::timings::Timings;

/// Result of an extraction run. [`Display`](fmt::Display) formats it as one line for the terminal.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The store.
    pub store: PathBuf,
    /// Number of clips in the manifest.
    pub clips: usize,
    /// Number of those clips that an earlier run extracted.
    pub extracted_before: usize,
    /// Number of those clips that failed in an earlier run and were not retried.
    pub failed_before: usize,
    /// Outcome of this run.
    pub action: Action,
}

/// Outcome of an extraction run.
#[derive(Debug, Clone)]
pub enum Action {
    /// A dry run: this number of clips would be extracted.
    Planned(usize),
    /// Nothing: the store is up to date.
    UpToDate,
    /// No clip was pending; the store was written in the order of the manifest.
    Rewritten,
    /// Clips were extracted and the store was written.
    Extracted {
        /// Clips and frames of this run.
        counts: Counts,
        /// How long the run and its stages took.
        timings: Timings,
        /// The execution provider that ran the network.
        provider: String,
    },
}

impl Summary {
    /// Returns the number of clips that failed, in this run or in an earlier one; 0 for a dry run.
    pub fn failed(&self) -> usize {
        match &self.action {
            Action::Planned(_) => 0,
            Action::UpToDate | Action::Rewritten => self.failed_before,
            Action::Extracted { counts, .. } => self.failed_before + counts.failed,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { store, clips, extracted_before, failed_before, action } = self;
        write!(f, "{}: ", store.display())?;
        match action {
            Action::Planned(pending) => write!(
                f,
                "{pending} of {clips} clips to extract, {extracted_before} already extracted, {failed_before} failed \
                 earlier"
            ),
            Action::UpToDate => write!(f, "up to date ({extracted_before} clips)"),
            Action::Rewritten => write!(f, "rewritten; all {extracted_before} clips were already extracted"),
            Action::Extracted { counts: Counts { clips, frames, .. }, timings: Timings { seconds, .. }, provider } => {
                let rate = |count: usize| count as f64 / seconds.max(1e-9);
                let (clip_rate, frame_rate) = (rate(*clips), rate(*frames));
                write!(
                    f,
                    "{clips} clips, {frames} frames in {seconds:.1} s ({clip_rate:.2} clips/s, {frame_rate:.1} \
                     frames/s) on {provider}"
                )
            }
        }
    }
}
