//! Decode workers → batches that cross clip borders → lanes of one network → one writer, all in manifest order.
//!
//! ```text
//! steps ─ordered→ prepare (decode, transform) ─batches→ ─ordered→ lanes (network) ─assemble→ StoreWriter
//! ```
//! Queues are bounded: what is under way does not grow with the length of a video or with their number. Every batch
//! has the same size and the clips are taken in order, so a store does not depend on timing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayView1, Axis};

use super::ordered::ordered;
use super::plan::{Plan, Step};
use super::progress::Progress;
use crate::cli;
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest};
use crate::models::runtime::Network;
use crate::store::{ClipRows, Failure, Row, StoreWriter, Values};

/// A clip after decoding.
#[derive(Debug)]
pub struct Prepared<T> {
    /// Frames that really decode.
    pub frame_count: u64,
    /// Frames a second; 0 for images.
    pub fps: f64,
    /// Length of the clip.
    pub duration_seconds: f64,
    /// Where each row comes from.
    pub rows: Vec<Row>,
    /// Frames that were looked at.
    pub frames: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What rows are made of: network input, or descriptors.
    pub content: T,
}

/// Decodes one clip and prepares its rows; one per worker thread, so it may keep buffers.
pub type Prepare<'a, T> = Box<dyn FnMut(&Clip) -> Result<Prepared<T>> + Send + 'a>;

/// One step of the plan after the decode workers.
enum Outcome<T> {
    Kept { source: usize, clip: usize },
    Failed { failure: Failure, again: bool },
    Ready { clip: usize, prepared: Prepared<T> },
}

/// A run of extraction: everything but what is done with a clip.
pub struct Run<'a> {
    /// The clips.
    pub manifest: &'a Manifest,
    /// What is left to do.
    pub plan: &'a Plan,
    /// Where rows go.
    pub writer: &'a mut StoreWriter,
    /// What the user sees.
    pub progress: &'a mut Progress,
}

/// How often, at the most, what is pending is written.
const FLUSH_EVERY: Duration = Duration::from_millis(250);

impl Run<'_> {
    /// Extracts descriptors: the workers do all of it.
    ///
    /// # Errors
    /// The store cannot be written, or the user interrupts; clips that fail are recorded and are no error.
    pub fn descriptors(self, workers: Vec<Prepare<'_, Values>>) -> Result<()> {
        let Run { manifest, plan, writer, progress } = self;
        let mut sink = Sink { manifest, plan, writer, progress, flushed: Instant::now() };
        std::thread::scope(|scope| {
            let ahead = 2 * workers.len();
            let outcomes =
                ordered(scope, steps(plan), workers.into_iter().map(|w| worker(manifest, w)).collect(), ahead);
            for outcome in outcomes {
                match outcome {
                    Outcome::Ready { clip, prepared } => {
                        let (head, values) = prepared.split();
                        sink.clip(clip, head, values);
                    }
                    other => sink.other(other)?,
                }
                sink.flush_now_and_then()?;
            }
            sink.end()
        })
    }

    /// Extracts embeddings: `workers` make the network's input, its lanes run side by side.
    ///
    /// # Errors
    /// As [`Run::descriptors`]; or the network fails.
    pub fn embeddings(self, workers: Vec<Prepare<'_, Vec<f32>>>, network: Network) -> Result<()> {
        let Run { manifest, plan, writer, progress } = self;
        let mut sink = Sink { manifest, plan, writer, progress, flushed: Instant::now() };
        let (len, dim) = (network.settings.input_len(), network.settings.dim);
        std::thread::scope(|scope| {
            let ahead = 2 * workers.len();
            let outcomes =
                ordered(scope, steps(plan), workers.into_iter().map(|w| worker(manifest, w)).collect(), ahead);
            let batches = Batches { outcomes, len, batch: network.settings.batch, pending: None, done: false };
            let ahead = 2 * network.lanes.len();
            let lanes = network.lanes.into_iter().map(|mut lane| {
                move |batch: Batch| {
                    let rows = if batch.used == 0 { Ok(Array2::zeros((0, dim))) } else { lane.run(&batch.values) };
                    (batch.entries, batch.used, rows)
                }
            });
            let mut assembly = Assembly { waiting: VecDeque::new(), rows: VecDeque::new() };
            for (entries, used, rows) in ordered(scope, batches, lanes.collect(), ahead) {
                let rows = rows?;
                assembly.waiting.extend(entries);
                assembly.rows.extend(rows.axis_iter(Axis(0)).take(used).map(|row| row.to_owned()));
                while let Some(complete) = assembly.next_complete(dim) {
                    match complete {
                        (Entry::Clip { clip, head }, values) => sink.clip(clip, head, Values::Features(values)),
                        (Entry::Other(outcome), _) => sink.other(outcome)?,
                    }
                }
                sink.flush_now_and_then()?;
            }
            sink.end()
        })
    }
}

/// The steps of the plan, until the user interrupts.
fn steps(plan: &Plan) -> impl Iterator<Item = &Step> + Send {
    plan.steps.iter().take_while(|_| !cli::interrupted())
}

fn worker<'a, T>(
    manifest: &'a Manifest,
    mut prepare: Prepare<'a, T>,
) -> impl FnMut(&'a Step) -> Outcome<T> + Send + use<'a, T> {
    move |step| match step {
        Step::Keep { source, clip } => Outcome::Kept { source: *source, clip: *clip },
        Step::KeepFailure(failure) => Outcome::Failed { failure: failure.clone(), again: true },
        Step::Extract(clip) => match prepare(&manifest.clips[*clip]) {
            Ok(prepared) => Outcome::Ready { clip: *clip, prepared },
            Err(error) => {
                let stage = if matches!(error, Error::Media { .. } | Error::Io { .. }) { "decode" } else { "extract" };
                let id = manifest.clips[*clip].id.clone();
                let failure = Failure { id, stage: stage.into(), error: error.to_string() };
                Outcome::Failed { failure, again: false }
            }
        },
    }
}

/// A prepared clip without its content.
type Head = Prepared<()>;

impl<T> Prepared<T> {
    fn split(self) -> (Head, T) {
        let Prepared { frame_count, fps, duration_seconds, rows, frames, warnings, content } = self;
        (Prepared { frame_count, fps, duration_seconds, rows, frames, warnings, content: () }, content)
    }
}

/// What stands between batches, in order.
enum Entry {
    /// A clip whose rows are the next items, as many as its head says.
    Clip { clip: usize, head: Head },
    /// A step without items.
    Other(Outcome<()>),
}

/// Items of one or more clips, filled up to the network's batch.
struct Batch {
    values: Vec<f32>,
    used: usize,
    entries: Vec<Entry>,
}

/// Cuts the clips' items into batches.
struct Batches<I> {
    outcomes: I,
    /// Floats of a whole batch.
    len: usize,
    batch: usize,
    /// The rest of a clip that did not fit.
    pending: Option<(Vec<f32>, usize)>,
    done: bool,
}

impl<I: Iterator<Item = Outcome<Vec<f32>>>> Iterator for Batches<I> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch { values: Vec::with_capacity(self.len), used: 0, entries: Vec::new() };
        loop {
            if let Some((items, taken)) = self.pending.take() {
                // A clip whose items fill the batch exactly is handed on without a copy.
                if taken == 0 && batch.values.is_empty() && items.len() == self.len {
                    batch.values = items;
                } else {
                    let fits = (self.len - batch.values.len()).min(items.len() - taken);
                    batch.values.extend_from_slice(&items[taken..taken + fits]);
                    if taken + fits < items.len() {
                        self.pending = Some((items, taken + fits));
                    }
                }
            }
            if batch.values.len() == self.len {
                batch.used = self.batch;
                return Some(batch);
            }
            match if self.done { None } else { self.outcomes.next() } {
                Some(Outcome::Ready { clip, prepared }) => {
                    let (head, items) = prepared.split();
                    batch.entries.push(Entry::Clip { clip, head });
                    self.pending = Some((items, 0));
                }
                Some(Outcome::Kept { source, clip }) => {
                    batch.entries.push(Entry::Other(Outcome::Kept { source, clip }))
                }
                Some(Outcome::Failed { failure, again }) => {
                    batch.entries.push(Entry::Other(Outcome::Failed { failure, again }));
                    if batch.values.is_empty() && batch.entries.len() >= 64 {
                        // Nothing to run, but something to record.
                        return Some(batch);
                    }
                }
                None => {
                    self.done = true;
                    if batch.values.is_empty() && batch.entries.is_empty() {
                        return None;
                    }
                    // The last batch is filled up, since every run has the same shape.
                    batch.used = batch.values.len() * self.batch / self.len;
                    if batch.used > 0 {
                        batch.values.resize(self.len, 0.0);
                    }
                    return Some(batch);
                }
            }
        }
    }
}

/// Gives rows back to their clips.
struct Assembly {
    waiting: VecDeque<Entry>,
    rows: VecDeque<ndarray::Array1<f32>>,
}

impl Assembly {
    /// The next entry, with its rows (rows, dim), once all of them are there.
    fn next_complete(&mut self, dim: usize) -> Option<(Entry, Array2<f32>)> {
        let needed = match self.waiting.front()? {
            Entry::Clip { head, .. } => head.rows.len(),
            Entry::Other(_) => 0,
        };
        if self.rows.len() < needed {
            return None;
        }
        let mut values = Array2::zeros((0, dim));
        for row in self.rows.drain(..needed) {
            values.push_row(ArrayView1::from(&row)).expect("rows of dim numbers");
        }
        Some((self.waiting.pop_front().expect("it was at the front"), values))
    }
}

/// The end of the pipeline: the writer and what the user sees.
struct Sink<'a> {
    manifest: &'a Manifest,
    plan: &'a Plan,
    writer: &'a mut StoreWriter,
    progress: &'a mut Progress,
    flushed: Instant,
}

impl Sink<'_> {
    fn clip(&mut self, clip: usize, head: Head, values: Values) {
        let Clip { id, path, .. } = &self.manifest.clips[clip];
        for warning in &head.warnings {
            self.progress.note(&format!("clip {id}: {warning}"));
        }
        self.writer.push(ClipRows {
            id: id.clone(),
            path: path.clone(),
            frame_count: head.frame_count,
            fps: head.fps,
            duration_seconds: head.duration_seconds,
            rows: head.rows,
            values,
        });
        self.progress.clip(head.frames);
    }

    fn other<T>(&mut self, outcome: Outcome<T>) -> Result<()> {
        match outcome {
            Outcome::Kept { source, clip } => {
                self.writer.push(self.plan.sources[source].read_clip(clip)?);
                self.progress.kept();
            }
            Outcome::Failed { failure, again } => {
                if again {
                    self.progress.kept();
                } else {
                    self.progress.failure(&failure.id, &failure.error);
                }
                self.writer.push_failure(failure);
            }
            Outcome::Ready { .. } => unreachable!("a ready clip has content"),
        }
        Ok(())
    }

    fn flush_now_and_then(&mut self) -> Result<()> {
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.writer.add_seconds(self.flushed.elapsed().as_secs_f64());
            self.writer.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.writer.add_seconds(self.flushed.elapsed().as_secs_f64());
        self.writer.flush()?;
        if cli::interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
