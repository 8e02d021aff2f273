//! How long the stages of an extraction worked, and which of them limited it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::media::{Frame, FrameSink, Window};

/// The time that threads spent in a stage, in all.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// Adds the duration of `work`.
    pub(super) fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(start.elapsed());
        result
    }

    fn add(&self, duration: Duration) {
        self.0.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }

    fn seconds(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 * 1e-9
    }
}

/// The clocks of a run.
#[derive(Debug, Default)]
pub struct Clocks {
    /// Loading the network.
    pub(super) load: Clock,
    /// Everything that decode workers do: reading, decoding, transforming, waiting for memory.
    pub(super) workers: Clock,
    /// The part of `workers` in which frames become the input of the network, or descriptors.
    pub(super) transform: Clock,
    /// The part of `workers` that waits until other workers release memory.
    pub(super) memory: Clock,
    /// Copying items into the input of the network.
    pub(super) copy: Clock,
    /// Runs of the network, with the transfers to and from its device.
    pub(super) network: Clock,
    /// Writing the journal.
    pub(super) journal: Clock,
    /// Writing the store.
    pub(super) store: Clock,
}

/// A sink that measures another one.
pub(super) struct TimedSink<'a, S> {
    pub(super) sink: &'a mut S,
    pub(super) clocks: &'a Clocks,
}

impl<S: FrameSink> FrameSink for TimedSink<'_, S> {
    fn reserve(&mut self, height: usize, width: usize, decoder_bytes: u64) {
        self.clocks.memory.time(|| self.sink.reserve(height, width, decoder_bytes));
    }

    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()> {
        self.sink.begin(windows, wanted)
    }

    fn frame(&mut self, position: usize, frame: &Frame<'_>) -> Result<()> {
        self.clocks.transform.time(|| self.sink.frame(position, frame))
    }
}

/// How long the stages of an extraction worked. [`Display`](fmt::Display) formats a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// Wall time of the run in seconds.
    pub seconds: f64,
    /// Seconds in which the network was loaded, while the first clips were decoded.
    pub load: f64,
    /// Seconds in which the store was written from the journal.
    pub store: f64,
    /// The stages that worked at the same time.
    pub stages: Vec<Stage>,
}

/// A stage of the pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Seconds of work of all its threads.
    pub seconds: f64,
    /// Number of threads. Decoding and transforming share theirs, copying and the network too.
    pub threads: usize,
}

impl Clocks {
    /// Adds a run of the network of a duration, in a part of which items were copied.
    pub(super) fn run(&self, duration: Duration, copy: Duration) {
        self.copy.add(copy);
        self.network.add(duration.saturating_sub(copy));
    }

    /// Returns the timings of a run of `seconds` with these numbers of workers and lanes; without lanes, workers compute descriptors.
    pub fn timings(&self, seconds: f64, workers: usize, lanes: usize) -> Timings {
        let (transform, memory) = (self.transform.seconds(), self.memory.seconds());
        let stage = |name, seconds, threads| Stage { name, seconds, threads };
        let mut stages = vec![
            stage("decode", (self.workers.seconds() - transform - memory).max(0.0), workers),
            stage(if lanes > 0 { "transform" } else { "describe" }, transform, workers),
        ];
        if lanes > 0 {
            stages.extend([stage("copy", self.copy.seconds(), lanes), stage("network", self.network.seconds(), lanes)]);
        }
        stages.push(stage("write", self.journal.seconds(), 1));
        if memory > 0.01 * seconds {
            stages.insert(2, stage("wait for memory", memory, workers));
        }
        Timings { seconds, load: self.load.seconds(), store: self.store.seconds(), stages }
    }
}

/// Groups of stages that share threads, with their remedies.
const GROUPS: [(&str, &[&str], &str); 3] = [
    (
        "the decode workers",
        &["decode", "transform", "describe", "wait for memory"],
        "more --workers, if cores are free",
    ),
    ("the network", &["copy", "network"], "a faster --device"),
    ("writing the journal", &["write"], "a faster disk for --out"),
];

impl Timings {
    /// Returns the seconds in which the stages worked at the same time.
    fn pipeline(&self) -> f64 {
        (self.seconds - self.store).max(1e-9)
    }

    /// Returns the share of the time in which the threads of a stage worked.
    fn busy(&self, stage: &Stage) -> f64 {
        stage.seconds / (stage.threads.max(1) as f64 * self.pipeline())
    }

    /// Returns what limited the run: the threads that were busy for the largest share of the time, this share, and a remedy.
    pub fn limit(&self) -> (&'static str, f64, &'static str) {
        let share = |names: &[&str]| -> f64 {
            self.stages.iter().filter(|stage| names.contains(&stage.name)).map(|stage| self.busy(stage)).sum()
        };
        let shares = GROUPS.map(|(group, names, remedy)| (group, share(names), remedy));
        shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are groups")
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timings { seconds, load, store, stages } = self;
        writeln!(
            f,
            "timings: {seconds:.1} s, of which {store:.1} s to write the store; loading the network took {load:.1} s, during which clips \
             were decoded"
        )?;
        for stage in stages {
            let Stage { name, seconds, threads } = stage;
            let (busy, plural) = (100.0 * self.busy(stage), if *threads == 1 { " " } else { "s" });
            writeln!(f, "  {name:15} {seconds:9.1} s in {threads:2} thread{plural}, busy {busy:3.0} % of the time")?;
        }
        let (limit, share, remedy) = self.limit();
        write!(f, "  limited by {limit}, busy {:.0} % of the time; may help: {remedy}", 100.0 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(workers: u64, transform: u64, network: u64, journal: u64) -> Clocks {
        let clocks = Clocks::default();
        for (clock, seconds) in [
            (&clocks.workers, workers),
            (&clocks.transform, transform),
            (&clocks.network, network),
            (&clocks.journal, journal),
            (&clocks.load, 2),
        ] {
            clock.add(Duration::from_secs(seconds));
        }
        clocks
    }

    #[test]
    fn the_busiest_threads_limit_the_run() {
        // Two workers are busy for 9 s each, the network for 5 s.
        let timings = clocks(18, 4, 5, 1).timings(10.0, 2, 1);
        let shares: Vec<(&str, f64)> = timings.stages.iter().map(|stage| (stage.name, timings.busy(stage))).collect();
        assert_eq!(shares, [("decode", 0.7), ("transform", 0.2), ("copy", 0.0), ("network", 0.5), ("write", 0.1)]);
        let (limit, share, _) = timings.limit();
        assert_eq!(limit, "the decode workers");
        assert!((share - 0.9).abs() < 1e-12);
        assert_eq!(clocks(18, 4, 19, 1).timings(10.0, 2, 2).limit().0, "the network");
        assert_eq!(clocks(1, 0, 2, 9).timings(10.0, 1, 1).limit().0, "writing the journal");
        let text = clocks(18, 4, 5, 1).timings(10.0, 2, 1).to_string();
        assert!(text.contains("limited by the decode workers, busy 90 % of the time"), "{text}");
    }

    #[test]
    fn descriptors_have_no_network() {
        let timings = clocks(18, 12, 0, 0).timings(10.0, 2, 0);
        let names: Vec<&str> = timings.stages.iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["decode", "describe", "write"]);
    }
}
