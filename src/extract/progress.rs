//! What the user sees while clips are extracted: a bar, or one JSON object a line.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// A bar on the terminal; nothing but failures where there is no terminal.
    Bar,
    /// Failures only.
    Quiet,
    /// One JSON object a line on standard error: progress each second, every failure, the summary.
    Json,
}

/// Counts clips, frames and failures, and shows them.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    bar: ProgressBar,
    begun: Instant,
    told: Instant,
    total: usize,
    clips: usize,
    frames: usize,
    failed: usize,
}

impl Progress {
    /// Begins a job of `total` clips, `done` of which are there already.
    pub fn new(show: Show, method: &str, total: usize, done: usize) -> Self {
        let target = match show {
            Show::Bar => ProgressDrawTarget::stderr_with_hz(5),
            Show::Quiet | Show::Json => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target).with_prefix(method.to_string());
        let style = "{prefix} [{bar:30}] {pos}/{len} clips, {msg}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("a valid template").progress_chars("=> "));
        bar.set_position(done as u64);
        bar.reset_eta();
        let now = Instant::now();
        Self { show, bar, begun: now, told: now, total, clips: 0, frames: 0, failed: 0 }
    }

    /// A clip is extracted; `frames` of its frames were looked at.
    pub fn clip(&mut self, frames: usize) {
        self.clips += 1;
        self.frames += frames;
        self.tick();
    }

    /// A clip failed.
    pub fn failure(&mut self, id: &str, error: &str) {
        self.failed += 1;
        match self.show {
            Show::Json => eprintln!("{}", serde_json::json!({"event": "failure", "id": id, "error": error})),
            Show::Bar | Show::Quiet => self.note(&format!("clip {id} failed: {error}")),
        }
        self.tick();
    }

    /// Prints a line above the bar.
    pub fn note(&self, line: &str) {
        if self.show == Show::Json {
            eprintln!("{}", serde_json::json!({"event": "note", "message": line}));
        } else {
            self.bar.suspend(|| eprintln!("extract: {line}"));
        }
    }

    /// Clips that failed in this run.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Seconds since the job began.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Ends the bar and prints the summary.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
        if self.show == Show::Json {
            self.tell("finished");
        }
    }

    /// Clips and frames a second, for the last line on the terminal.
    pub fn summary(&self) -> String {
        let rate = |count: usize| count as f64 / self.seconds().max(1e-9);
        format!(
            "{} clips, {} frames in {:.1} s ({:.2} clips/s, {:.1} frames/s)",
            self.clips,
            self.frames,
            self.seconds(),
            rate(self.clips),
            rate(self.frames)
        )
    }

    fn tick(&mut self) {
        let seconds = self.seconds().max(1e-9);
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let (clips, frames) = (self.clips as f64 / seconds, self.frames as f64 / seconds);
        self.bar.set_message(format!("{clips:.1} clips/s, {frames:.0} frames/s{failed}"));
        self.bar.inc(1);
        if self.show == Show::Json && self.told.elapsed() >= Duration::from_secs(1) {
            self.told = Instant::now();
            self.tell("progress");
        }
    }

    fn tell(&self, event: &str) {
        let seconds = self.seconds();
        eprintln!(
            "{}",
            serde_json::json!({
                "event": event, "done": self.bar.position(), "total": self.total, "clips": self.clips,
                "frames": self.frames, "failed": self.failed, "seconds": seconds,
                "clips_per_second": self.clips as f64 / seconds.max(1e-9),
                "frames_per_second": self.frames as f64 / seconds.max(1e-9),
                "seconds_left": self.bar.eta().as_secs_f64(),
            })
        );
    }
}
