//! The extraction pipeline: decode workers, batches, lanes of a network, the journal.
//!
//! ```text
//! clips ─ordered→ decode workers ─batches→ ─ordered→ lanes of the network ─rows→ journal
//! ```
//! Queues are bounded, so memory depends neither on the length of a clip nor on the number of clips. Batches have a
//! fixed size, cross clip boundaries and follow the order of the manifest, so the store does not depend on timing.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, ArrayView1, Axis};

use super::timings::Clocks;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest};
use crate::models::runtime::Session;
use crate::ordered::ordered;
use crate::progress::{Event, ProgressSink};
use crate::store::{ClipRows, Failure, Journal, RowSource, Values};

/// Minimum time between two writes of the journal to disk.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// Number of failures after which a batch without items is emitted, so that they are recorded.
const MAX_FAILURES_PER_BATCH: usize = 64;

/// A clip after decoding.
#[derive(Debug)]
pub struct DecodedClip<T> {
    /// Number of frames that can be decoded.
    pub frame_count: u64,
    /// Frames per second; 0 for images.
    pub fps: f64,
    /// Duration of the clip in seconds.
    pub duration_seconds: f64,
    /// Why the whole video was decoded, and not only the necessary sections.
    pub full: Option<&'static str>,
    /// What identifies the version of a remote file; empty for local files.
    pub version: String,
    /// Source frames of each row.
    pub rows: Vec<RowSource>,
    /// Number of frames that were used.
    pub frames: usize,
    /// Messages for the user.
    pub warnings: Vec<String>,
    /// The network's input, or descriptors.
    pub content: T,
}

/// Decodes one clip. Each worker thread has its own function, which may keep buffers.
pub type DecodeFn<'a, T> = Box<dyn FnMut(&Clip) -> Result<DecodedClip<T>> + Send + 'a>;

/// Result of a decode worker for one clip.
enum DecodeResult<T> {
    /// `clip` is the clip's position in the manifest.
    Decoded {
        clip: usize,
        decoded: DecodedClip<T>,
    },
    Failed(Failure),
    /// The run was cancelled while the clip was read.
    Cancelled,
}

/// Numbers of clips and frames that one run processed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Clips that were extracted.
    pub clips: usize,
    /// Frames of those clips that were used.
    pub frames: usize,
    /// Clips that failed.
    pub failed: usize,
}

/// The inputs and outputs that descriptor and embedding extraction have in common.
pub struct Pipeline<'a> {
    /// The clips.
    pub manifest: &'a Manifest,
    /// Positions in the manifest of the clips to extract.
    pub pending: &'a [usize],
    /// Receives rows and failures.
    pub journal: &'a mut Journal,
    /// Receives progress events.
    pub progress: &'a dyn ProgressSink,
    /// Stops the run.
    pub cancel: &'a CancellationToken,
    /// Measure the stages.
    pub clocks: &'a Clocks,
}

impl<'a> Pipeline<'a> {
    /// Extracts descriptors, which the workers compute.
    ///
    /// # Errors
    /// Returns an error if the journal cannot be written or the run is cancelled. Clips that fail are recorded.
    pub fn extract_descriptors(self, workers: Vec<DecodeFn<'_, Values>>) -> Result<Counts> {
        let Self { manifest, pending, cancel, clocks, .. } = self;
        let mut writer = JournalWriter::new(self);
        std::thread::scope(|scope| {
            let ahead = 2 * workers.len();
            let workers = workers.into_iter().map(|decode| worker(manifest, clocks, decode)).collect();
            for result in ordered(scope, until_cancelled(pending, cancel), workers, ahead) {
                match result {
                    DecodeResult::Decoded { clip, decoded } => {
                        let (header, values) = decoded.split();
                        writer.push_clip(clip, header, values)?;
                    }
                    DecodeResult::Failed(failure) => writer.push_failure(failure)?,
                    DecodeResult::Cancelled => break,
                }
                writer.checkpoint_if_due()?;
            }
            writer.finish()
        })
    }

    /// Extracts embeddings: the workers make the network's input, and the lanes of the network run in parallel.
    ///
    /// # Errors
    /// Returns an error if the network fails, the journal cannot be written or the run is cancelled. Clips that fail
    /// are recorded.
    pub fn extract_embeddings(self, workers: Vec<DecodeFn<'_, Vec<f32>>>, network: Session) -> Result<Counts> {
        let Self { manifest, pending, cancel, clocks, .. } = self;
        let mut writer = JournalWriter::new(self);
        let (input_len, dim) = (network.options.input_len(), network.options.dim);
        std::thread::scope(|scope| {
            let ahead = 2 * workers.len();
            let workers = workers.into_iter().map(|decode| worker(manifest, clocks, decode)).collect();
            let results = ordered(scope, until_cancelled(pending, cancel), workers, ahead);
            let batch_size = network.options.batch;
            let batches = Batches { results, input_len, batch_size, remainder: None, exhausted: false, clocks };
            let ahead = 2 * network.lanes.len();
            let lanes = network.lanes.into_iter().map(|mut lane| {
                move |batch: Batch| {
                    let rows = match batch.used {
                        0 => Ok(Array2::zeros((0, dim))),
                        _ => clocks.network.time(|| lane.run(&batch.values)),
                    };
                    (batch.clips, batch.used, rows)
                }
            });
            let mut assembler = RowAssembler { clips: VecDeque::new(), rows: VecDeque::new() };
            for (clips, used, rows) in ordered(scope, batches, lanes.collect(), ahead) {
                let rows = rows?;
                assembler.clips.extend(clips);
                assembler.rows.extend(rows.axis_iter(Axis(0)).take(used).map(|row| row.to_owned()));
                while let Some(complete) = assembler.next_complete(dim) {
                    match complete {
                        (PendingClip::Decoded { clip, header }, values) => {
                            writer.push_clip(clip, header, Values::Features(values))?;
                        }
                        (PendingClip::Failed(failure), _) => writer.push_failure(failure)?,
                    }
                }
                writer.checkpoint_if_due()?;
            }
            writer.finish()
        })
    }
}

fn until_cancelled<'a>(
    pending: &'a [usize],
    cancel: &'a CancellationToken,
) -> impl Iterator<Item = usize> + Send + use<'a> {
    pending.iter().copied().take_while(|_| !cancel.is_cancelled())
}

fn worker<'a, T>(
    manifest: &'a Manifest,
    clocks: &'a Clocks,
    mut decode: DecodeFn<'a, T>,
) -> impl FnMut(usize) -> DecodeResult<T> + Send + use<'a, T> {
    move |position| {
        let clip = &manifest.clips[position];
        match clocks.workers.time(|| decode(clip)) {
            Ok(decoded) => DecodeResult::Decoded { clip: position, decoded },
            Err(Error::Interrupted) => DecodeResult::Cancelled,
            Err(error) => {
                let stage = if matches!(error, Error::Media { .. } | Error::Io { .. }) { "decode" } else { "extract" };
                let Clip { id, path, start, end, .. } = clip.clone();
                DecodeResult::Failed(Failure { id, path, start, end, stage: stage.into(), error: error.to_string() })
            }
        }
    }
}

/// A decoded clip without its content.
type ClipHeader = DecodedClip<()>;

impl<T> DecodedClip<T> {
    fn split(self) -> (ClipHeader, T) {
        let Self { frame_count, fps, duration_seconds, full, version, rows, frames, warnings, content } = self;
        (ClipHeader { frame_count, fps, duration_seconds, full, version, rows, frames, warnings, content: () }, content)
    }
}

/// A clip that waits for its rows. Clips stay in the order of the manifest.
enum PendingClip {
    /// A decoded clip. Its rows are the next `header.rows.len()` outputs of the network.
    Decoded { clip: usize, header: ClipHeader },
    /// A clip that failed, which has no rows.
    Failed(Failure),
}

/// Input items of one or more clips.
struct Batch {
    /// The items, padded with zeros to the batch size; empty if there are none.
    values: Vec<f32>,
    /// Number of items, excluding padding.
    used: usize,
    /// The clips whose first item is in this batch, and the failures between them.
    clips: Vec<PendingClip>,
}

/// Splits the items of consecutive clips into batches.
struct Batches<'a, I> {
    results: I,
    /// Floats in a full batch.
    input_len: usize,
    /// Items in a full batch.
    batch_size: usize,
    /// Items of the current clip, and the number of floats that are in earlier batches.
    remainder: Option<(Vec<f32>, usize)>,
    exhausted: bool,
    clocks: &'a Clocks,
}

impl<I: Iterator<Item = DecodeResult<Vec<f32>>>> Iterator for Batches<'_, I> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch { values: Vec::with_capacity(self.input_len), used: 0, clips: Vec::new() };
        loop {
            if let Some((items, taken)) = self.remainder.take() {
                // A clip whose items fill the batch exactly is passed on without a copy.
                if taken == 0 && batch.values.is_empty() && items.len() == self.input_len {
                    batch.values = items;
                } else {
                    let fits = (self.input_len - batch.values.len()).min(items.len() - taken);
                    self.clocks.batches.time(|| batch.values.extend_from_slice(&items[taken..taken + fits]));
                    if taken + fits < items.len() {
                        self.remainder = Some((items, taken + fits));
                    }
                }
            }
            if batch.values.len() == self.input_len {
                batch.used = self.batch_size;
                return Some(batch);
            }
            match if self.exhausted { None } else { self.results.next() } {
                Some(DecodeResult::Decoded { clip, decoded }) => {
                    let (header, items) = decoded.split();
                    batch.clips.push(PendingClip::Decoded { clip, header });
                    self.remainder = Some((items, 0));
                }
                Some(DecodeResult::Failed(failure)) => {
                    batch.clips.push(PendingClip::Failed(failure));
                    if batch.values.is_empty() && batch.clips.len() >= MAX_FAILURES_PER_BATCH {
                        return Some(batch);
                    }
                }
                // The run ends with an error after the clips before the cancelled one.
                Some(DecodeResult::Cancelled) | None => {
                    self.exhausted = true;
                    if batch.values.is_empty() && batch.clips.is_empty() {
                        return None;
                    }
                    // The network's batch size is fixed, so the last batch is padded.
                    batch.used = batch.values.len() * self.batch_size / self.input_len;
                    if batch.used > 0 {
                        batch.values.resize(self.input_len, 0.0);
                    }
                    return Some(batch);
                }
            }
        }
    }
}

/// Assigns the network's output rows to their clips.
struct RowAssembler {
    clips: VecDeque<PendingClip>,
    rows: VecDeque<Array1<f32>>,
}

impl RowAssembler {
    /// Returns the next clip and its rows, (rows, dim), or `None` if rows are missing.
    fn next_complete(&mut self, dim: usize) -> Option<(PendingClip, Array2<f32>)> {
        let needed = match self.clips.front()? {
            PendingClip::Decoded { header, .. } => header.rows.len(),
            PendingClip::Failed(_) => 0,
        };
        if self.rows.len() < needed {
            return None;
        }
        let mut values = Array2::zeros((0, dim));
        for row in self.rows.drain(..needed) {
            values.push_row(ArrayView1::from(&row)).expect("every row has dim values");
        }
        self.clips.pop_front().map(|clip| (clip, values))
    }
}

/// The last stage: writes the journal, counts and reports progress.
struct JournalWriter<'a> {
    manifest: &'a Manifest,
    journal: &'a mut Journal,
    progress: &'a dyn ProgressSink,
    cancel: &'a CancellationToken,
    clocks: &'a Clocks,
    counts: Counts,
    /// Number of videos that were decoded completely, by reason.
    fully_decoded: BTreeMap<&'static str, usize>,
    last_checkpoint: Instant,
}

impl<'a> JournalWriter<'a> {
    fn new(Pipeline { manifest, journal, progress, cancel, clocks, .. }: Pipeline<'a>) -> Self {
        Self {
            manifest,
            journal,
            progress,
            cancel,
            clocks,
            counts: Counts::default(),
            fully_decoded: BTreeMap::new(),
            last_checkpoint: Instant::now(),
        }
    }

    fn push_clip(&mut self, clip: usize, header: ClipHeader, values: Values) -> Result<()> {
        let Clip { id, path, start, end, .. } = &self.manifest.clips[clip];
        for warning in &header.warnings {
            self.progress.report(Event::Warning(&format!("clip {id}: {warning}")));
        }
        self.counts.clips += 1;
        self.counts.frames += header.frames;
        if let Some(reason) = header.full {
            *self.fully_decoded.entry(reason).or_default() += 1;
        }
        self.progress.report(Event::ClipDone { id, frames: header.frames });
        let rows = ClipRows {
            id: id.clone(),
            path: path.clone(),
            start: *start,
            end: *end,
            frame_count: header.frame_count,
            fps: header.fps,
            duration_seconds: header.duration_seconds,
            fully_decoded: header.full.is_some(),
            version: header.version,
            rows: header.rows,
            values,
        };
        self.clocks.journal.time(|| self.journal.push(&rows))
    }

    fn push_failure(&mut self, failure: Failure) -> Result<()> {
        self.counts.failed += 1;
        self.progress.report(Event::ClipFailed { id: &failure.id, error: &failure.error });
        self.journal.push_failure(failure)
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.last_checkpoint.elapsed() >= FLUSH_INTERVAL { self.checkpoint() } else { Ok(()) }
    }

    fn checkpoint(&mut self) -> Result<()> {
        let seconds = self.last_checkpoint.elapsed().as_secs_f64();
        self.last_checkpoint = Instant::now();
        self.clocks.journal.time(|| self.journal.checkpoint(seconds))
    }

    fn finish(&mut self) -> Result<Counts> {
        self.checkpoint()?;
        for (reason, clips) in &self.fully_decoded {
            self.progress.report(Event::Info(&format!("{clips} videos were decoded completely: {reason}")));
        }
        self.cancel.check()?;
        Ok(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, Mutex};

    use super::*;
    use crate::models::Precision;
    use crate::models::runtime::{Lane, SessionOptions};
    use crate::store::{ClipKey, Payload, Provenance};

    const BATCH: usize = 3;

    /// A lane of a GPU that does not exist: the embedding of an item is its sum and its product.
    struct SimulatedGpu {
        /// The first batch of each GPU waits for those of the others: all of them run at the same time.
        together: Arc<Barrier>,
        batches: Arc<AtomicUsize>,
        ran: bool,
    }

    impl Lane for SimulatedGpu {
        fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
            if !std::mem::replace(&mut self.ran, true) {
                self.together.wait();
            }
            self.batches.fetch_add(1, Ordering::SeqCst);
            let embeddings = items.chunks(2).flat_map(|item| [item[0] + item[1], item[0] * item[1]]).collect();
            Ok(Array2::from_shape_vec((BATCH, 2), embeddings).unwrap())
        }
    }

    fn network(gpus: usize) -> (Session, Vec<Arc<AtomicUsize>>) {
        let together = Arc::new(Barrier::new(gpus));
        let counts: Vec<Arc<AtomicUsize>> = (0..gpus).map(|_| Arc::default()).collect();
        let lane = |batches: &Arc<AtomicUsize>| -> Box<dyn Lane> {
            Box::new(SimulatedGpu { together: together.clone(), batches: batches.clone(), ran: false })
        };
        let options =
            SessionOptions { item: vec![2], dim: 2, batch: BATCH, threads: 1, output: None, precision: Precision::F32 };
        (Session { provider: "cuda".into(), lanes: counts.iter().map(lane).collect(), options }, counts)
    }

    fn clip(i: usize) -> Clip {
        let id = format!("clip{i}");
        Clip { path: id.clone(), file: PathBuf::from(&id), id, ..Clip::default() }
    }

    /// Decodes clips with 1 to 5 rows; each seventh fails.
    fn decode(clip: &Clip) -> Result<DecodedClip<Vec<f32>>> {
        let i: usize = clip.id.trim_start_matches("clip").parse().unwrap();
        if i % 7 == 3 {
            return Err(Error::Media { path: clip.file.clone(), message: "no video".into() });
        }
        let rows = 1 + i % 5;
        let row = RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 0.0, padded: false, scale: 1.0 };
        Ok(DecodedClip {
            frame_count: rows as u64,
            fps: 25.0,
            duration_seconds: 1.0,
            full: None,
            version: String::new(),
            rows: vec![row; rows],
            frames: rows,
            warnings: Vec::new(),
            content: (0..2 * rows).map(|value| (100 * i + value) as f32).collect(),
        })
    }

    struct Order(Mutex<Vec<String>>);

    impl ProgressSink for Order {
        fn report(&self, event: Event<'_>) {
            if let Event::ClipDone { id, .. } | Event::ClipFailed { id, .. } = event {
                self.0.lock().unwrap().push(id.to_string());
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_the_number_of_gpus() {
        let clips: Vec<Clip> = (0..60).map(clip).collect();
        let manifest = Manifest { source: PathBuf::new(), clips, warnings: Vec::new(), sha256: String::new() };
        let pending: Vec<usize> = (0..manifest.clips.len()).collect();
        let extract = |gpus: usize| {
            let directory = tempfile::tempdir().unwrap();
            let (payload, store) = (Payload::Features { dim: 2 }, directory.path().join("x.h5"));
            let mut journal = Journal::open(&store, payload, &Provenance::default()).unwrap();
            let order = Order(Mutex::default());
            let cancel = CancellationToken::default();
            let (network, batches) = network(gpus);
            let workers = (0..3).map(|_| Box::new(decode) as DecodeFn<'_, Vec<f32>>).collect();
            let pipeline = Pipeline {
                manifest: &manifest,
                pending: &pending,
                journal: &mut journal,
                progress: &order,
                cancel: &cancel,
                clocks: &Clocks::default(),
            };
            let counts = pipeline.extract_embeddings(workers, network).unwrap();
            let batches: Vec<usize> = batches.iter().map(|batches| batches.load(Ordering::SeqCst)).collect();
            assert!(batches.iter().all(|&batches| batches > 0), "each GPU runs batches: {batches:?}");
            let mut keys: Vec<ClipKey> = manifest.clips.iter().map(ClipKey::from).collect();
            keys.retain(|key| journal.contains(key));
            let rows: Vec<ClipRows> = keys.iter().map(|key| journal.read(key).unwrap()).collect();
            (counts, order.0.into_inner().unwrap(), batches.iter().sum::<usize>(), rows)
        };
        let one = extract(1);
        let ids: Vec<String> = manifest.clips.iter().map(|clip| clip.id.clone()).collect();
        assert_eq!((one.0.failed, &one.1), (9, &ids));
        let Values::Features(values) = &one.3[1].values else { panic!("features") };
        assert_eq!(values, ndarray::array![[201.0, 10100.0], [205.0, 10506.0]]);
        for gpus in 2..=4 {
            assert_eq!(extract(gpus), one, "{gpus} GPUs");
        }
    }
}
