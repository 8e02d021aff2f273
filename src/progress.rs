//! Progress events of long operations. The library reports events; the programs display them.

/// Unit of a task's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Clips of a manifest.
    Clips,
    /// Files that are written.
    Files,
    /// Bytes of a download.
    Bytes,
}

/// One event of a long operation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An informational message, hidden in quiet mode.
    Info(&'a str),
    /// A warning. The operation continues.
    Warning(&'a str),
    /// A task starts. Tasks of one sink do not overlap.
    Started {
        /// Name of the task, such as the method or the file name.
        task: &'a str,
        /// Unit of `total` and `done`.
        unit: Unit,
        /// Number of units, if known.
        total: Option<u64>,
        /// Number of units that an earlier run completed.
        done: u64,
    },
    /// The number of complete units of the current task, including those of earlier runs.
    Position(u64),
    /// The current task advances by this many units.
    Advanced(u64),
    /// A clip is complete. The current task, if any, advances by one.
    ClipDone {
        /// The clip's id.
        id: &'a str,
        /// Number of frames that were decoded and used.
        frames: usize,
    },
    /// A clip failed and is recorded. The current task, if any, advances by one.
    ClipFailed {
        /// The clip's id.
        id: &'a str,
        /// The error message.
        error: &'a str,
    },
    /// The current task ended.
    Finished,
}

/// Receives the events of long operations, from any thread.
pub trait ProgressSink: Send + Sync {
    /// Handles one event.
    fn report(&self, event: Event<'_>);
}

/// A sink that ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl ProgressSink for NoProgress {
    fn report(&self, _: Event<'_>) {}
}
