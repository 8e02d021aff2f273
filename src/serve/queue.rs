//! The bounded queue that batches the images of all requests for the lanes of one network.
//!
//! A request acquires a [`Slot`] before its upload, and one for each further image. The number of slots is fixed, so that
//! memory is bounded and an overloaded server rejects requests immediately. Each lane has a thread that blocks until a
//! job arrives, waits for further jobs up to a delay while images are pending, drops the jobs of disconnected clients
//! and runs the rest.
//!
//! Batches save time on GPUs. On a CPU, the default batch size is 1: lanes run single images in parallel, and no job
//! waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, Result};
use crate::models::runtime::{Lane, Session};

/// Computes one result per image from the embeddings (N, D) of a batch.
pub type Postprocess<T> = dyn Fn(ArrayView2<'_, f32>) -> Result<Vec<T>> + Send + Sync;

/// Receives the events that [`super::metrics`] counts.
pub trait QueueObserver: Send + Sync + 'static {
    /// A batch of this many images is about to run.
    fn batch_started(&self, images: usize);
    /// An image was dropped because its client has disconnected.
    fn job_abandoned(&self);
}

/// The queue of images that wait for a network.
pub struct InferenceQueue<T> {
    jobs: Sender<Job<T>>,
    slots: Arc<Semaphore>,
    /// Number of slots whose image is not in the queue yet.
    pending: Arc<AtomicUsize>,
}

/// The right to submit one image. The capacity is occupied from before the upload until the result is available.
pub struct Slot {
    permit: OwnedSemaphorePermit,
    pending: PendingGuard,
}

/// Counts an image as pending until it is dropped.
struct PendingGuard(Arc<AtomicUsize>);

impl PendingGuard {
    fn new(pending: &Arc<AtomicUsize>) -> Self {
        pending.fetch_add(1, Ordering::Relaxed);
        Self(pending.clone())
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Job<T> {
    item: Vec<f32>,
    result: oneshot::Sender<Result<T>>,
    permit: OwnedSemaphorePermit,
}

impl<T> Job<T> {
    /// Frees the slot, then sends the result, so that a client that has its result finds a free slot.
    fn complete(self, result: Result<T>) {
        drop(self.permit);
        let _ = self.result.send(result); // the client may have disconnected
    }
}

impl<T: Send + 'static> InferenceQueue<T> {
    /// Starts one thread per lane of `single`, the network with batch size 1. `batched` is the same network with batch
    /// size `batch_size`, if batches are faster on its device. `slots` is the maximum number of images in flight;
    /// `max_delay` is how long an image waits for a batch to fill up.
    pub fn start(
        single: Session,
        batched: Option<Session>,
        batch_size: usize,
        slots: usize,
        max_delay: Duration,
        postprocess: Arc<Postprocess<T>>,
        observer: Arc<impl QueueObserver>,
    ) -> Self {
        let (sender, receiver) = unbounded();
        let pending = Arc::new(AtomicUsize::new(0));
        let mut batched = batched.map_or_else(Vec::new, |network| network.lanes).into_iter();
        for single in single.lanes {
            let mut runner = LaneRunner { single, batched: batched.next(), batch_size };
            let receiver: Receiver<Job<T>> = receiver.clone();
            let (pending, postprocess, observer) = (pending.clone(), postprocess.clone(), observer.clone());
            std::thread::spawn(move || {
                while let Some(mut batch) = next_batch(&receiver, batch_size, max_delay, &pending) {
                    drop_abandoned(&mut batch, observer.as_ref());
                    if batch.is_empty() {
                        continue;
                    }
                    observer.batch_started(batch.len());
                    // A lane may use the threads of the other lanes only if those have nothing to do.
                    let is_alone = pending.load(Ordering::Relaxed) == 0 && receiver.is_empty();
                    runner.single.borrow_idle_threads(batch.len() == 1 && is_alone);
                    run_batch(batch, &mut runner, postprocess.as_ref());
                }
            });
        }
        Self { jobs: sender, slots: Arc::new(Semaphore::new(slots)), pending }
    }

    /// Returns a slot, or `None` if all are occupied.
    pub fn try_acquire_slot(&self) -> Option<Slot> {
        self.slots.clone().try_acquire_owned().ok().map(|permit| self.slot(permit))
    }

    /// Waits for a slot: for the further images of a request that was accepted.
    pub async fn acquire_slot(&self) -> Slot {
        let permit = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        self.slot(permit)
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        Slot { permit, pending: PendingGuard::new(&self.pending) }
    }

    /// Number of free slots.
    pub fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    /// Queues an image. Dropping the receiver cancels the job unless it has started.
    pub fn submit(&self, slot: Slot, item: Vec<f32>) -> oneshot::Receiver<Result<T>> {
        let (sender, receiver) = oneshot::channel();
        // Must precede the send, so that the lane that receives the job does not wait for further images.
        drop(slot.pending);
        // If all lane threads have ended, the job is dropped and the receiver reports it.
        let _ = self.jobs.send(Job { item, result: sender, permit: slot.permit });
        receiver
    }
}

/// Waits for the next job and returns it with up to `batch_size - 1` further ones. Returns `None` if the queue was
/// dropped.
fn next_batch<T>(
    jobs: &Receiver<Job<T>>,
    batch_size: usize,
    max_delay: Duration,
    pending: &AtomicUsize,
) -> Option<Vec<Job<T>>> {
    let mut batch = vec![jobs.recv().ok()?];
    let deadline = Instant::now() + max_delay;
    while batch.len() < batch_size {
        let next = match pending.load(Ordering::Relaxed) {
            0 => jobs.try_recv().ok(),
            _ => jobs.recv_deadline(deadline).ok(),
        };
        match next {
            Some(job) => batch.push(job),
            None => break,
        }
    }
    Some(batch)
}

fn drop_abandoned<T>(batch: &mut Vec<Job<T>>, observer: &impl QueueObserver) {
    batch.retain(|job| {
        let is_abandoned = job.result.is_closed();
        if is_abandoned {
            observer.job_abandoned();
        }
        !is_abandoned
    });
}

fn run_batch<T>(batch: Vec<Job<T>>, runner: &mut LaneRunner, postprocess: &Postprocess<T>) {
    let items: Vec<&[f32]> = batch.iter().map(|job| job.item.as_slice()).collect();
    match runner.run(&items).and_then(|embeddings| postprocess(embeddings.view())) {
        Ok(results) => {
            for (job, result) in batch.into_iter().zip(results) {
                job.complete(Ok(result));
            }
        }
        Err(error) => {
            let message = error.to_string();
            for job in batch {
                job.complete(Err(Error::Runtime(message.clone())));
            }
        }
    }
}

/// One lane, with batch size 1 and, if batches are faster, with the full batch size.
struct LaneRunner {
    single: Box<dyn Lane>,
    batched: Option<Box<dyn Lane>>,
    /// Batch size of `batched`.
    batch_size: usize,
}

impl LaneRunner {
    /// Returns the embeddings (N, D) of N items; N is at most the batch size.
    fn run(&mut self, items: &[&[f32]]) -> Result<Array2<f32>> {
        match &mut self.batched {
            // A padded batch is faster than single runs if it is more than half full.
            Some(lane) if items.len() * 2 > self.batch_size => {
                let mut batch = items.concat();
                batch.resize(items[0].len() * self.batch_size, 0.0);
                let embeddings = lane.run(&batch)?;
                Ok(embeddings.slice_axis(Axis(0), (0..items.len()).into()).to_owned())
            }
            _ => {
                let rows = items.iter().map(|item| self.single.run(item)).collect::<Result<Vec<_>>>()?;
                let rows: Vec<ArrayView2<'_, f32>> = rows.iter().map(Array2::view).collect();
                concatenate(Axis(0), &rows).map_err(|e| Error::Runtime(e.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::models::runtime::SessionOptions;

    /// Reports the batch size of each run, then blocks until the test releases it.
    struct BlockingLane {
        batch: usize,
        started: Sender<usize>,
        release: Receiver<()>,
    }

    impl Lane for BlockingLane {
        fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
            self.started.send(self.batch).unwrap();
            self.release.recv().unwrap();
            Ok(Array2::from_shape_fn((self.batch, 1), |(i, _)| items[i] * 10.0))
        }
    }

    #[derive(Default)]
    struct Counts {
        batches: Mutex<Vec<usize>>,
        abandoned: AtomicUsize,
    }

    impl QueueObserver for Counts {
        fn batch_started(&self, images: usize) {
            self.batches.lock().unwrap().push(images);
        }

        fn job_abandoned(&self) {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Fixture {
        queue: InferenceQueue<f32>,
        started: Receiver<usize>,
        release: Sender<()>,
        counts: Arc<Counts>,
    }

    fn fixture(slots: usize, max_delay: Duration) -> Fixture {
        let (started_sender, started) = unbounded();
        let (release, release_receiver) = unbounded();
        let network = |batch| Session {
            provider: "test".into(),
            lanes: vec![Box::new(BlockingLane {
                batch,
                started: started_sender.clone(),
                release: release_receiver.clone(),
            })],
            options: SessionOptions {
                item: vec![1],
                dim: 1,
                batch,
                threads: 1,
                output: None,
                precision: crate::models::Precision::F32,
            },
        };
        let postprocess: Arc<Postprocess<f32>> = Arc::new(|embeddings| Ok(embeddings.iter().copied().collect()));
        let counts = Arc::new(Counts::default());
        let queue =
            InferenceQueue::start(network(1), Some(network(4)), 4, slots, max_delay, postprocess, counts.clone());
        Fixture { queue, started, release, counts }
    }

    #[test]
    fn queued_images_form_one_batch_and_keep_their_order() {
        let Fixture { queue, started, release, counts } = fixture(8, Duration::ZERO);
        let first = queue.submit(queue.try_acquire_slot().unwrap(), vec![1.0]);
        assert_eq!(started.recv().unwrap(), 1);
        let rest: Vec<_> = (2..5).map(|i| queue.submit(queue.try_acquire_slot().unwrap(), vec![i as f32])).collect();
        release.send(()).unwrap();
        assert_eq!(first.blocking_recv().unwrap().unwrap(), 10.0);
        assert_eq!(started.recv().unwrap(), 4); // three in a padded batch of four
        release.send(()).unwrap();
        let values: Vec<f32> = rest.into_iter().map(|result| result.blocking_recv().unwrap().unwrap()).collect();
        assert_eq!(values, [20.0, 30.0, 40.0]);
        assert_eq!(*counts.batches.lock().unwrap(), [1, 3]);
    }

    #[test]
    fn a_batch_is_delayed_only_while_images_are_pending() {
        // If the queue waited without pending images, the test would take an hour.
        let Fixture { queue, started, release, .. } = fixture(8, Duration::from_secs(3600));
        let result = queue.submit(queue.try_acquire_slot().unwrap(), vec![1.0]);
        assert_eq!(started.recv().unwrap(), 1);
        release.send(()).unwrap();
        result.blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn slots_are_limited_and_released() {
        let Fixture { queue, started, release, .. } = fixture(2, Duration::ZERO);
        let result = queue.submit(queue.try_acquire_slot().unwrap(), vec![1.0]);
        let unused = queue.try_acquire_slot().unwrap();
        assert!(queue.try_acquire_slot().is_none() && queue.free_slots() == 0);
        drop(unused);
        assert_eq!(queue.free_slots(), 1);
        started.recv().unwrap();
        release.send(()).unwrap();
        result.blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn abandoned_jobs_do_not_run() {
        let Fixture { queue, started, release, counts } = fixture(8, Duration::ZERO);
        let first = queue.submit(queue.try_acquire_slot().unwrap(), vec![1.0]);
        started.recv().unwrap();
        drop(queue.submit(queue.try_acquire_slot().unwrap(), vec![2.0]));
        let third = queue.submit(queue.try_acquire_slot().unwrap(), vec![3.0]);
        release.send(()).unwrap();
        release.send(()).unwrap();
        first.blocking_recv().unwrap().unwrap();
        assert_eq!(third.blocking_recv().unwrap().unwrap(), 30.0);
        assert_eq!(*counts.batches.lock().unwrap(), [1, 1]);
        assert_eq!(counts.abandoned.load(Ordering::Relaxed), 1);
        assert_eq!(started.try_iter().count(), 1);
    }
}
