//! Decode workers → batches that cross clip borders → lanes of one network → one journal, all in manifest order.
//!
//! ```text
//! clips ─ordered→ prepare (decode, transform) ─batches→ ─ordered→ lanes (network) ─assemble→ Journal
//! ```
//! Queues are bounded: what is under way does not grow with the length of a video or with their number. Every batch
//! has the same size and the clips are taken in order, so a store does not depend on timing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayView1, Axis};

use super::ordered::ordered;
use super::progress::Progress;
use crate::cli;
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest};
use crate::models::runtime::Network;
use crate::store::{ClipRows, Failure, Journal, Row, Values};

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

/// A clip of the manifest (its position) after the decode workers.
enum Outcome<T> {
    Ready { clip: usize, prepared: Prepared<T> },
    Failed(Failure),
}

/// A run of extraction: everything but what is done with a clip.
pub struct Run<'a> {
    /// The clips.
    pub manifest: &'a Manifest,
    /// Positions of those to extract.
    pub extract: &'a [usize],
    /// Where rows go.
    pub journal: &'a mut Journal,
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
        let Run { manifest, extract, journal, progress } = self;
        let mut sink = Sink { manifest, journal, progress, flushed: Instant::now() };
        std::thread::scope(|scope| {
            let ahead = 2 * workers.len();
            let outcomes = ordered(
                scope,
                until_interrupted(extract),
                workers.into_iter().map(|w| worker(manifest, w)).collect(),
                ahead,
            );
            for outcome in outcomes {
                match outcome {
                    Outcome::Ready { clip, prepared } => {
                        let (head, values) = prepared.split();
                        sink.clip(clip, head, values)?;
                    }
                    Outcome::Failed(failure) => sink.failure(failure)?,
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
        let Run { manifest, extract, journal, progress } = self;
        let mut sink = Sink { manifest, journal, progress, flushed: Instant::now() };
        let (len, dim) = (network.settings.input_len(), network.settings.dim);
        std::thread::scope(|scope| {
            let ahead = 2 * workers.len();
            let outcomes = ordered(
                scope,
                until_interrupted(extract),
                workers.into_iter().map(|w| worker(manifest, w)).collect(),
                ahead,
            );
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
                        (Entry::Clip { clip, head }, values) => sink.clip(clip, head, Values::Features(values))?,
                        (Entry::Failed(failure), _) => sink.failure(failure)?,
                    }
                }
                sink.flush_now_and_then()?;
            }
            sink.end()
        })
    }
}

/// The clips to extract, until the user interrupts.
fn until_interrupted(extract: &[usize]) -> impl Iterator<Item = usize> + Send {
    extract.iter().copied().take_while(|_| !cli::interrupted())
}

fn worker<'a, T>(
    manifest: &'a Manifest,
    mut prepare: Prepare<'a, T>,
) -> impl FnMut(usize) -> Outcome<T> + Send + use<'a, T> {
    move |position| {
        let clip = &manifest.clips[position];
        match prepare(clip) {
            Ok(prepared) => Outcome::Ready { clip: position, prepared },
            Err(error) => {
                let stage = if matches!(error, Error::Media { .. } | Error::Io { .. }) { "decode" } else { "extract" };
                Outcome::Failed(Failure { id: clip.id.clone(), stage: stage.into(), error: error.to_string() })
            }
        }
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
    /// A clip that failed.
    Failed(Failure),
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
                Some(Outcome::Failed(failure)) => {
                    batch.entries.push(Entry::Failed(failure));
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
            Entry::Failed(_) => 0,
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

/// The end of the pipeline: the journal and what the user sees.
struct Sink<'a> {
    manifest: &'a Manifest,
    journal: &'a mut Journal,
    progress: &'a mut Progress,
    flushed: Instant,
}

impl Sink<'_> {
    fn clip(&mut self, clip: usize, head: Head, values: Values) -> Result<()> {
        let Clip { id, path, .. } = &self.manifest.clips[clip];
        for warning in &head.warnings {
            self.progress.note(&format!("clip {id}: {warning}"));
        }
        self.progress.clip(head.frames);
        self.journal.push(&ClipRows {
            id: id.clone(),
            path: path.clone(),
            frame_count: head.frame_count,
            fps: head.fps,
            duration_seconds: head.duration_seconds,
            rows: head.rows,
            values,
        })
    }

    fn failure(&mut self, failure: Failure) -> Result<()> {
        self.progress.failure(&failure.id, &failure.error);
        self.journal.push_failure(failure)
    }

    fn flush_now_and_then(&mut self) -> Result<()> {
        if self.flushed.elapsed() >= FLUSH_EVERY { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let seconds = self.flushed.elapsed().as_secs_f64();
        self.flushed = Instant::now();
        self.journal.checkpoint(seconds)
    }

    fn end(&mut self) -> Result<()> {
        self.flush()?;
        if cli::interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
