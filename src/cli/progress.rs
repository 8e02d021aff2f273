//! Progress on the terminal: a bar, or JSON lines.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::print_message;
use crate::progress::{Event, ProgressSink, Unit};

/// Minimum time between two `progress` events in JSON mode.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// How progress is shown on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressMode {
    /// Messages and a progress bar; the bar is hidden if standard error is not a terminal.
    Bar,
    /// Warnings and failures only.
    Quiet,
    /// One JSON object per line: all messages and failures, progress at most once per second, and a summary.
    Json,
}

impl ProgressMode {
    /// Returns `Quiet` if `quiet` is set and `Bar` otherwise.
    pub fn from_quiet(quiet: bool) -> Self {
        if quiet { ProgressMode::Quiet } else { ProgressMode::Bar }
    }
}

/// Flags that select the [`ProgressMode`] of a program with [`TerminalProgress`].
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ProgressFlags {
    /// Print only warnings, failures and results
    #[arg(long, conflicts_with = "log_json")]
    quiet: bool,
    /// Print progress and failures on standard error as JSON, one object per line
    #[arg(long)]
    log_json: bool,
}

impl ProgressFlags {
    /// Returns the selected mode.
    pub fn mode(self) -> ProgressMode {
        if self.log_json { ProgressMode::Json } else { ProgressMode::from_quiet(self.quiet) }
    }
}

/// Shows the events of one program on standard error.
#[derive(Debug)]
pub struct TerminalProgress {
    program: &'static str,
    mode: ProgressMode,
    task: Mutex<Option<Task>>,
}

/// The current task.
#[derive(Debug)]
struct Task {
    unit: Unit,
    total: Option<u64>,
    bar: ProgressBar,
    started: Instant,
    last_json: Instant,
    clips: usize,
    frames: usize,
    failed: usize,
}

impl TerminalProgress {
    /// Creates a sink whose messages start with `program: `.
    pub fn new(program: &'static str, mode: ProgressMode) -> Self {
        Self { program, mode, task: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a message above the bar.
    fn print_message(&self, message: &str) {
        if self.mode == ProgressMode::Json {
            print_message(json!({"event": "note", "message": message}));
            return;
        }
        let print = || print_message(format_args!("{}: {message}", self.program));
        match self.lock().as_ref() {
            Some(task) => task.bar.suspend(print),
            None => print(),
        }
    }

    /// Updates the current task, if any, and shows its state.
    fn update(&self, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.lock().as_mut() {
            change(task);
            if task.unit == Unit::Clips {
                task.update_message();
                if self.mode == ProgressMode::Json && task.last_json.elapsed() >= JSON_INTERVAL {
                    task.last_json = Instant::now();
                    task.print_json("progress");
                }
            }
        }
    }
}

impl ProgressSink for TerminalProgress {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Info(_) if self.mode == ProgressMode::Quiet => {}
            Event::Info(message) | Event::Warning(message) => self.print_message(message),
            Event::Started { task, unit, total, done } => {
                *self.lock() = Some(Task::new(self.mode, task, unit, total, done));
            }
            Event::Position(position) => self.update(|task| task.bar.set_position(position)),
            Event::Advanced(units) => self.update(|task| task.bar.inc(units)),
            Event::ClipDone { frames, .. } => self.update(|task| {
                task.clips += 1;
                task.frames += frames;
                task.bar.inc(1);
            }),
            Event::ClipFailed { id, error } => {
                if self.mode == ProgressMode::Json {
                    print_message(json!({"event": "failure", "id": id, "error": error}));
                } else {
                    self.print_message(&format!("clip {id} failed: {error}"));
                }
                self.update(|task| {
                    task.failed += 1;
                    task.bar.inc(1);
                });
            }
            Event::Finished => {
                if let Some(task) = self.lock().take() {
                    task.bar.finish_and_clear();
                    if task.unit == Unit::Clips && self.mode == ProgressMode::Json {
                        task.print_json("finished");
                    }
                }
            }
        }
    }
}

impl Task {
    fn new(mode: ProgressMode, name: &str, unit: Unit, total: Option<u64>, done: u64) -> Self {
        let target = match (mode, unit) {
            (ProgressMode::Quiet | ProgressMode::Json, _) => ProgressDrawTarget::hidden(),
            (ProgressMode::Bar, Unit::Clips) => ProgressDrawTarget::stderr_with_hz(5),
            (ProgressMode::Bar, Unit::Files | Unit::Bytes) => ProgressDrawTarget::stderr(),
        };
        let template = match unit {
            Unit::Clips => "{prefix} [{bar:30}] {pos}/{len} clips, {msg}, {eta} left",
            Unit::Files => "{prefix} [{bar:30}] {pos}/{len}, {eta} left",
            Unit::Bytes => "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        };
        let mut style = ProgressStyle::with_template(template).expect("the template is valid");
        if unit != Unit::Bytes {
            style = style.progress_chars("=> ");
        }
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(name.to_string());
        bar.set_style(style);
        bar.set_position(done);
        bar.reset_eta();
        let now = Instant::now();
        Self { unit, total, bar, started: now, last_json: now, clips: 0, frames: 0, failed: 0 }
    }

    /// Clips and frames per second.
    fn rates(&self) -> (f64, f64) {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        (self.clips as f64 / seconds, self.frames as f64 / seconds)
    }

    fn update_message(&self) {
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let (clips, frames) = self.rates();
        self.bar.set_message(format!("{clips:.1} clips/s, {frames:.0} frames/s{failed}"));
    }

    fn print_json(&self, event: &str) {
        let (clips_per_second, frames_per_second) = self.rates();
        let line = json!({
            "event": event, "done": self.bar.position(), "total": self.total, "clips": self.clips,
            "frames": self.frames, "failed": self.failed, "seconds": self.started.elapsed().as_secs_f64(),
            "clips_per_second": clips_per_second, "frames_per_second": frames_per_second,
            "seconds_left": self.bar.eta().as_secs_f64(),
        });
        print_message(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_clips_of_the_current_task() {
        let progress = TerminalProgress::new("extract", ProgressMode::Quiet);
        // Without a task there is nothing to count.
        progress.report(Event::ClipDone { id: "a", frames: 3 });
        progress.report(Event::Started { task: "sift", unit: Unit::Clips, total: Some(5), done: 1 });
        progress.report(Event::ClipDone { id: "b", frames: 4 });
        progress.report(Event::ClipFailed { id: "c", error: "no video" });
        {
            let task = progress.lock();
            let task = task.as_ref().unwrap();
            assert_eq!((task.clips, task.frames, task.failed, task.bar.position()), (1, 4, 1, 3));
        }
        progress.report(Event::Finished);
        assert!(progress.lock().is_none());
    }

    #[test]
    fn follows_the_position_of_a_download() {
        let progress = TerminalProgress::new("models", ProgressMode::Quiet);
        progress.report(Event::Started { task: "weights.pth", unit: Unit::Bytes, total: None, done: 100 });
        progress.report(Event::Position(350));
        progress.report(Event::Advanced(50));
        assert_eq!(progress.lock().as_ref().unwrap().bar.position(), 400);
    }
}
