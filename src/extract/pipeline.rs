//! The extraction pipeline: decode workers, batches, lanes of a network, the journal.
//!
//! ```text
//! clips ─ordered→ decode workers ─batches→ ─ordered→ lanes of the network ─rows→ journal
//! ```
//! Queues are bounded, so memory depends neither on the length of a clip nor on the number of clips. Batches have a
//! fixed size, cross clip boundaries and follow the order of the manifest, so the store does not depend on timing. The first clips are
//! decoded while the network is loaded. Pixels are not copied until a lane copies them into the input of the network.

use std::collections::BTreeMap;
use std::thread::Scope;
use std::time::{Duration, Instant};

use ndarray::Array2;

use super::batches::{Batch, Batches, PendingClip, RowAssembler};
use super::decoded::{ClipHeader, DecodeFn, DecodeResult};
use super::timings::Clocks;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest};
use crate::models::runtime::{Items, Session};
use crate::ordered::{Ordered, ordered};
use crate::progress::{Event, ProgressSink};
use crate::store::{ClipRows, Failure, Journal, Values};

/// Minimum time between two writes of the journal to disk.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

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
    pub fn extract_descriptors(self, workers: Vec<DecodeFn<'_, Values>>, journal: &mut Journal) -> Result<Counts> {
        let mut writer = JournalWriter::new(&self, journal);
        std::thread::scope(|scope| {
            for result in self.decode(scope, workers) {
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

    /// Extracts embeddings: the workers make the pixels of the network's input, and the lanes of the network run in parallel. `load` loads
    /// the network and opens the journal while the first clips are decoded.
    ///
    /// # Errors
    /// Returns an error if `load` or the network fails, the journal cannot be written or the run is cancelled. Clips that fail
    /// are recorded.
    pub fn extract_embeddings(
        self,
        workers: Vec<DecodeFn<'_, Vec<u8>>>,
        load: impl FnOnce() -> Result<(Session, Journal)>,
    ) -> Result<(Counts, Journal)> {
        std::thread::scope(|scope| {
            let results = self.decode(scope, workers);
            let (Session { lanes, options, .. }, mut journal) = load()?;
            let (clocks, dim, ahead) = (self.clocks, options.dim, 2 * lanes.len());
            let batches = Batches::new(results, options.item_len(), options.batch);
            let lanes = lanes.into_iter().map(|mut lane| {
                move |batch: Batch| {
                    let parts = batch.parts();
                    if parts.is_empty() {
                        return (batch.clips, Ok(Array2::zeros((0, dim))), None);
                    }
                    let (start, copied) = (Instant::now(), lane.copy_time());
                    let rows = lane.run(Items::Pixels(&parts));
                    clocks.run(start.elapsed(), lane.copy_time() - copied);
                    (batch.clips, rows, lane.take_warning())
                }
            });
            let mut writer = JournalWriter::new(&self, &mut journal);
            let mut assembler = RowAssembler::default();
            for (clips, rows, warning) in ordered(scope, batches, lanes.collect(), ahead) {
                warning.iter().for_each(|warning| self.progress.report(Event::Warning(warning)));
                assembler.push(clips, &rows?);
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
            let counts = writer.finish()?;
            Ok((counts, journal))
        })
    }

    /// Starts to decode the pending clips. Results have their order.
    fn decode<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        workers: Vec<DecodeFn<'scope, T>>,
    ) -> Ordered<DecodeResult<T>>
    where
        'a: 'scope,
    {
        let Self { manifest, pending, cancel, clocks, .. } = *self;
        let ahead = 2 * workers.len();
        let workers = workers.into_iter().map(|decode| worker(manifest, clocks, decode)).collect();
        ordered(scope, until_cancelled(pending, cancel), workers, ahead)
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
    fn new(pipeline: &Pipeline<'a>, journal: &'a mut Journal) -> Self {
        let Pipeline { manifest, progress, cancel, clocks, .. } = *pipeline;
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
    use std::sync::{Arc, Barrier, Condvar, Mutex};

    use super::*;
    use crate::extract::decoded::DecodedClip;
    use crate::models::runtime::{Lane, SessionOptions};
    use crate::store::{ClipKey, Payload, Provenance, RowSource};

    const BATCH: usize = 3;

    /// A lane of a GPU that does not exist: the embedding of an item is its sum and its product.
    struct SimulatedGpu {
        /// The first batch of each GPU waits for those of the others: all of them run at the same time.
        together: Arc<Barrier>,
        batches: Arc<AtomicUsize>,
        ran: bool,
    }

    impl Lane for SimulatedGpu {
        fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
            let Items::Pixels(parts) = items else { panic!("the pipeline passes pixels") };
            let pixels: Vec<f32> = parts.concat().into_iter().map(f32::from).collect();
            assert!((1..=2 * BATCH).contains(&pixels.len()));
            if !std::mem::replace(&mut self.ran, true) {
                self.together.wait();
            }
            self.batches.fetch_add(1, Ordering::SeqCst);
            let embeddings = pixels.chunks(2).flat_map(|item| [item[0] + item[1], item[0] * item[1]]).collect();
            Ok(Array2::from_shape_vec((pixels.len() / 2, 2), embeddings).unwrap())
        }
    }

    fn network(gpus: usize) -> (Session, Vec<Arc<AtomicUsize>>) {
        let together = Arc::new(Barrier::new(gpus));
        let counts: Vec<Arc<AtomicUsize>> = (0..gpus).map(|_| Arc::default()).collect();
        let lane = |batches: &Arc<AtomicUsize>| -> Box<dyn Lane> {
            Box::new(SimulatedGpu { together: together.clone(), batches: batches.clone(), ran: false })
        };
        let options = SessionOptions::for_floats(vec![2], 2, BATCH);
        (Session { provider: "cuda".into(), lanes: counts.iter().map(lane).collect(), options }, counts)
    }

    fn clip(i: usize) -> Clip {
        let id = format!("clip{i}");
        Clip { path: id.clone(), file: PathBuf::from(&id), id, ..Clip::default() }
    }

    /// Decodes clips with 1 to 5 rows; each seventh fails.
    fn decode(clip: &Clip) -> Result<DecodedClip<Vec<u8>>> {
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
            content: (0..2 * rows).map(|value| (4 * i + value) as u8).collect(),
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
            let order = Order(Mutex::default());
            let cancel = CancellationToken::default();
            let (network, batches) = network(gpus);
            let workers = (0..3).map(|_| Box::new(decode) as DecodeFn<'_, Vec<u8>>).collect();
            let pipeline = Pipeline {
                manifest: &manifest,
                pending: &pending,
                progress: &order,
                cancel: &cancel,
                clocks: &Clocks::default(),
            };
            let load = || Ok((network, Journal::open(&store, payload, &Provenance::default())?));
            let (counts, mut journal) = pipeline.extract_embeddings(workers, load).unwrap();
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
        assert_eq!(values, ndarray::array![[9.0, 20.0], [13.0, 42.0]]);
        for gpus in 2..=4 {
            assert_eq!(extract(gpus), one, "{gpus} GPUs");
        }
    }

    /// A GPU that finishes a batch only once the next one has been copied, as with lanes that overlap.
    struct OverlappingGpu {
        /// Numbers of batches that were copied and computed.
        batches: Mutex<(usize, usize)>,
        changed: Condvar,
        total: usize,
    }

    struct OverlappingLane(Arc<OverlappingGpu>);

    impl Lane for OverlappingLane {
        fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
            let Items::Pixels(parts) = items else { panic!("the pipeline passes pixels") };
            let OverlappingGpu { batches, changed, total } = &*self.0;
            let copied = parts.concat();
            let mut state = batches.lock().unwrap();
            state.0 += 1;
            changed.notify_all();
            let batch = state.0;
            // Without overlap the next batch is never copied.
            let is_blocked = |state: &mut (usize, usize)| state.0 < (batch + 1).min(*total);
            let (mut state, result) = changed.wait_timeout_while(state, Duration::from_secs(60), is_blocked).unwrap();
            assert!(!result.timed_out(), "no batch is copied while batch {batch} is computed");
            state.1 += 1;
            Ok(Array2::from_shape_fn((copied.len() / 2, 2), |(i, j)| f32::from(copied[2 * i + j])))
        }
    }

    #[test]
    fn a_batch_is_copied_while_another_is_computed() {
        let clips: Vec<Clip> = (0..60).map(clip).collect();
        let manifest = Manifest { source: PathBuf::new(), clips, warnings: Vec::new(), sha256: String::new() };
        let pending: Vec<usize> = (0..manifest.clips.len()).collect();
        let rows: usize = (0..60).filter(|i| i % 7 != 3).map(|i| 1 + i % 5).sum();
        let (batches, changed) = Default::default();
        let gpu = Arc::new(OverlappingGpu { batches, changed, total: rows.div_ceil(BATCH) });
        let lanes = (0..2).map(|_| Box::new(OverlappingLane(gpu.clone())) as Box<dyn Lane>).collect();
        let network =
            Session { provider: "cuda".into(), lanes, options: SessionOptions::for_floats(vec![2], 2, BATCH) };
        let directory = tempfile::tempdir().unwrap();
        let pipeline = Pipeline {
            manifest: &manifest,
            pending: &pending,
            progress: &Order(Mutex::default()),
            cancel: &CancellationToken::default(),
            clocks: &Clocks::default(),
        };
        let store = directory.path().join("x.h5");
        let load = || Ok((network, Journal::open(&store, Payload::Features { dim: 2 }, &Provenance::default())?));
        let (counts, _) = pipeline.extract_embeddings(vec![Box::new(decode)], load).unwrap();
        assert_eq!((counts.clips, counts.failed), (51, 9));
        assert_eq!(*gpu.batches.lock().unwrap(), (gpu.total, gpu.total));
    }
}
