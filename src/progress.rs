//! What a long operation reports while it runs. The library reports; the programs decide what to show.

/// What the units of a task are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Clips of a manifest.
    Clips,
    /// Bytes of a download.
    Bytes,
}

/// One report of a long operation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something the user may want to know.
    Info(&'a str),
    /// Something the user should check. The operation continues.
    Warning(&'a str),
    /// A task starts. Tasks of one sink do not overlap.
    Started {
        /// What the task is called, such as the method or the file name.
        task: &'a str,
        /// What `total` and `done` count.
        unit: Unit,
        /// Units in all, where known.
        total: Option<u64>,
        /// Units that an earlier run completed.
        done: u64,
    },
    /// This many units of the current task are complete, including those of earlier runs.
    Position(u64),
    /// A clip is complete: the current task advances by one.
    ClipDone {
        /// The clip.
        id: &'a str,
        /// Frames that were decoded and used.
        frames: usize,
    },
    /// A clip failed and is recorded: the current task advances by one.
    ClipFailed {
        /// The clip.
        id: &'a str,
        /// Why.
        error: &'a str,
    },
    /// The current task ended.
    Finished,
}

/// Receives the events of long operations, from any thread.
pub trait ProgressSink: Send + Sync {
    /// Takes one event.
    fn report(&self, event: Event<'_>);
}

/// The sink that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl ProgressSink for NoProgress {
    fn report(&self, _: Event<'_>) {}
}
