//! Bounded queue that collects the images of all requests into batches and runs them on the lanes of one network.
//!
//! A request acquires a [`Slot`] before its upload, and one for each further image. The number of slots is fixed, so that
//! memory is bounded and an overloaded server rejects requests immediately. An image is pending while it has a slot but
//! has not been submitted. Each lane has a thread that blocks until a job arrives and, while images are pending, waits
//! for further jobs up to a maximum delay. It then drops the jobs of disconnected clients and runs the rest as a batch.
//!
//! Batches save time on GPUs. On a CPU, the default batch size is 1: the lanes run single images in parallel, and no
//! job waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, Result};
use crate::models::runtime::{Items, Lane, Session};

/// Computes one result per image from the embeddings (N, D) of a batch.
pub type Postprocess<T> = dyn Fn(ArrayView2<'_, f32>) -> Result<Vec<T>> + Send + Sync;

/// Receives the events that [`super::metrics`] counts.
pub trait QueueObserver: Send + Sync + 'static {
    /// Called before a batch of `images` images runs.
    fn batch_started(&self, images: usize);
    /// Called when an image is dropped because its client has disconnected.
    fn job_abandoned(&self);
}

/// Queue of preprocessed images that wait for the network. Each yields a result of type `T`.
pub struct InferenceQueue<T> {
    jobs: Sender<Job<T>>,
    slots: Arc<Semaphore>,
    /// Number of acquired slots whose image has not been submitted.
    pending: Arc<AtomicUsize>,
}

/// Permission to submit one image. Counts against the capacity of the queue until the result of the image is available,
/// or until the slot is dropped.
pub struct Slot {
    permit: OwnedSemaphorePermit,
    pending: PendingGuard,
}

/// Guard that counts an image as pending until the guard is dropped.
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

/// A submitted image.
struct Job<T> {
    /// Pixels of the network's input.
    item: Vec<u8>,
    result: oneshot::Sender<Result<T>>,
    permit: OwnedSemaphorePermit,
}

impl<T> Job<T> {
    /// Releases the slot, then sends the result. In this order, a client that has received its result finds a free
    /// slot.
    fn complete(self, result: Result<T>) {
        drop(self.permit);
        let _ = self.result.send(result); // the client may have disconnected
    }
}

impl<T: Send + 'static> InferenceQueue<T> {
    /// Starts one thread per lane of `single`, the network with batch size 1. `batched` is the same network with batch
    /// size `batch_size`, if batches are faster on its device. `slots` is the maximum number of images in flight, from
    /// upload to result; `max_delay` is the maximum time an image waits for its batch to fill up.
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
        let mut batched_lanes = batched.map_or_else(Vec::new, |session| session.lanes).into_iter();
        for single_lane in single.lanes {
            let mut runner = LaneRunner { single: single_lane, batched: batched_lanes.next(), batch_size };
            let receiver: Receiver<Job<T>> = receiver.clone();
            let (pending, postprocess, observer) = (pending.clone(), postprocess.clone(), observer.clone());
            std::thread::spawn(move || {
                while let Some(mut batch) = next_batch(&receiver, batch_size, max_delay, &pending) {
                    drop_abandoned(&mut batch, observer.as_ref());
                    if batch.is_empty() {
                        continue;
                    }
                    observer.batch_started(batch.len());
                    // A lane may borrow the threads of idle lanes only if no image will need them soon.
                    let no_image_waits = pending.load(Ordering::Relaxed) == 0 && receiver.is_empty();
                    runner.single.borrow_idle_threads(batch.len() == 1 && no_image_waits);
                    run_batch(batch, &mut runner, postprocess.as_ref());
                }
            });
        }
        Self { jobs: sender, slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))), pending }
    }

    /// Acquires a slot. Returns `None` if all are in use.
    pub fn try_acquire_slot(&self) -> Option<Slot> {
        self.slots.clone().try_acquire_owned().ok().map(|permit| self.new_slot(permit))
    }

    /// Waits for a slot. Used for the second and later images of a request, which has been accepted already.
    pub async fn acquire_slot(&self) -> Slot {
        let permit = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        self.new_slot(permit)
    }

    fn new_slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        Slot { permit, pending: PendingGuard::new(&self.pending) }
    }

    /// Returns the number of free slots.
    pub fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    /// Queues a preprocessed image and returns the receiver of its result. Dropping the receiver cancels the job unless
    /// it has started.
    pub fn submit(&self, slot: Slot, item: Vec<u8>) -> oneshot::Receiver<Result<T>> {
        let (sender, receiver) = oneshot::channel();
        // Before the send: the lane that receives the job must not count its image as pending and wait for it.
        drop(slot.pending);
        // If all lane threads have ended, the job is dropped and the receiver returns an error.
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

/// Removes the jobs whose clients have disconnected.
fn drop_abandoned<T>(batch: &mut Vec<Job<T>>, observer: &impl QueueObserver) {
    batch.retain(|job| {
        let is_abandoned = job.result.is_closed();
        if is_abandoned {
            observer.job_abandoned();
        }
        !is_abandoned
    });
}

/// Runs the network and sends every job its result, or all of them the same error.
fn run_batch<T>(batch: Vec<Job<T>>, runner: &mut LaneRunner, postprocess: &Postprocess<T>) {
    let items: Vec<&[u8]> = batch.iter().map(|job| job.item.as_slice()).collect();
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

/// A lane of the network with batch size 1 and, if batches are faster, one with the full batch size.
struct LaneRunner {
    single: Box<dyn Lane>,
    batched: Option<Box<dyn Lane>>,
    /// Batch size of `batched`.
    batch_size: usize,
}

impl LaneRunner {
    /// Computes the embeddings (N, D) of N items, at most the batch size.
    fn run(&mut self, items: &[&[u8]]) -> Result<Array2<f32>> {
        match &mut self.batched {
            // A batch completed with zeros is faster than single runs if it is more than half full.
            Some(lane) if items.len() * 2 > self.batch_size => lane.run(Items::Pixels(items)),
            _ => {
                let single = |item: &&[u8]| self.single.run(Items::Pixels(&[item]));
                let rows = items.iter().map(single).collect::<Result<Vec<_>>>()?;
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
        fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
            let Items::Pixels(items) = items else { panic!("the queue holds pixels") };
            self.started.send(self.batch).unwrap();
            self.release.recv().unwrap();
            Ok(Array2::from_shape_fn((items.len(), 1), |(i, _)| f32::from(items[i][0]) * 10.0))
        }
    }

    /// Records the size of each batch and counts abandoned jobs.
    #[derive(Default)]
    struct RecordingObserver {
        batches: Mutex<Vec<usize>>,
        abandoned: AtomicUsize,
    }

    impl QueueObserver for RecordingObserver {
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
        observer: Arc<RecordingObserver>,
    }

    fn fixture(slots: usize, max_delay: Duration) -> Fixture {
        let (started_sender, started) = unbounded();
        let (release, release_receiver) = unbounded();
        let session = |batch| Session {
            provider: "test".into(),
            lanes: vec![Box::new(BlockingLane {
                batch,
                started: started_sender.clone(),
                release: release_receiver.clone(),
            })],
            options: SessionOptions::for_floats(vec![1], 1, batch),
        };
        let postprocess: Arc<Postprocess<f32>> = Arc::new(|embeddings| Ok(embeddings.iter().copied().collect()));
        let observer = Arc::new(RecordingObserver::default());
        let queue =
            InferenceQueue::start(session(1), Some(session(4)), 4, slots, max_delay, postprocess, observer.clone());
        Fixture { queue, started, release, observer }
    }

    #[test]
    fn queued_images_form_one_batch_and_keep_their_order() {
        let Fixture { queue, started, release, observer } = fixture(8, Duration::ZERO);
        let first = queue.submit(queue.try_acquire_slot().unwrap(), vec![1]);
        assert_eq!(started.recv().unwrap(), 1);
        let rest: Vec<_> = (2..5).map(|i| queue.submit(queue.try_acquire_slot().unwrap(), vec![i])).collect();
        release.send(()).unwrap();
        assert_eq!(first.blocking_recv().unwrap().unwrap(), 10.0);
        assert_eq!(started.recv().unwrap(), 4); // three in a padded batch of four
        release.send(()).unwrap();
        let results: Vec<f32> = rest.into_iter().map(|result| result.blocking_recv().unwrap().unwrap()).collect();
        assert_eq!(results, [20.0, 30.0, 40.0]);
        assert_eq!(*observer.batches.lock().unwrap(), [1, 3]);
    }

    #[test]
    fn a_batch_is_delayed_only_while_images_are_pending() {
        // If the queue waited without pending images, the test would take an hour.
        let Fixture { queue, started, release, .. } = fixture(8, Duration::from_secs(3600));
        let result = queue.submit(queue.try_acquire_slot().unwrap(), vec![1]);
        assert_eq!(started.recv().unwrap(), 1);
        release.send(()).unwrap();
        result.blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn slots_are_limited_and_released() {
        let Fixture { queue, started, release, .. } = fixture(2, Duration::ZERO);
        let result = queue.submit(queue.try_acquire_slot().unwrap(), vec![1]);
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
        let Fixture { queue, started, release, observer } = fixture(8, Duration::ZERO);
        let first = queue.submit(queue.try_acquire_slot().unwrap(), vec![1]);
        started.recv().unwrap();
        drop(queue.submit(queue.try_acquire_slot().unwrap(), vec![2]));
        let third = queue.submit(queue.try_acquire_slot().unwrap(), vec![3]);
        release.send(()).unwrap();
        release.send(()).unwrap();
        first.blocking_recv().unwrap().unwrap();
        assert_eq!(third.blocking_recv().unwrap().unwrap(), 30.0);
        assert_eq!(*observer.batches.lock().unwrap(), [1, 1]);
        assert_eq!(observer.abandoned.load(Ordering::Relaxed), 1);
        assert_eq!(started.try_iter().count(), 1);
    }
}
