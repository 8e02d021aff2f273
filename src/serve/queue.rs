//! Pictures of all requests into batches for the lanes of one network.
//!
//! A request first takes a [`Place`]; there are only so many, so that memory is bounded and a server that cannot keep up
//! says so at once. Each lane has a thread: it takes a picture, waits up to a delay for more where requests are on
//! their way, leaves out those that nobody waits for any more, and runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, Result};
use crate::models::runtime::{Lane, Network};

/// What is made of the embeddings (N, D) of a batch: one value a picture.
pub type Finish<T> = dyn Fn(ArrayView2<'_, f32>) -> Result<Vec<T>> + Send + Sync;

/// What the queue counts.
pub trait Observer: Send + Sync + 'static {
    /// A batch of this many pictures was run.
    fn ran(&self, pictures: usize);
    /// A picture was left out because nobody waits for it.
    fn abandoned(&self);
}

/// The way to the network.
pub struct Queue<T> {
    jobs: Sender<Job<T>>,
    places: Arc<Semaphore>,
    coming: Arc<AtomicUsize>,
}

/// Room for one picture: held from before its upload until its scores are there.
pub struct Place {
    permit: OwnedSemaphorePermit,
    coming: Coming,
}

/// Counts a picture that is on its way to the queue.
struct Coming(Arc<AtomicUsize>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Job<T> {
    item: Vec<f32>,
    answer: oneshot::Sender<Result<T>>,
    permit: OwnedSemaphorePermit,
}

impl<T> Job<T> {
    /// Frees the place, then answers: who has the answer finds the place free.
    fn finish(self, value: Result<T>) {
        drop(self.permit);
        let _ = self.answer.send(value); // who left meanwhile gets nothing
    }
}

impl<T: Send + 'static> Queue<T> {
    /// Starts a thread a lane, which takes up to `size` pictures together. `single` runs one picture at a time; `batched` is
    /// the same network and runs `size`, where that gains time.
    pub fn start(
        single: Network,
        batched: Option<Network>,
        size: usize,
        places: usize,
        delay: Duration,
        finish: Arc<Finish<T>>,
        observer: Arc<impl Observer>,
    ) -> Self {
        let (jobs, taken) = unbounded();
        let coming = Arc::new(AtomicUsize::new(0));
        let mut several = batched.map_or_else(Vec::new, |network| network.lanes).into_iter();
        for single in single.lanes {
            let mut runner = Runner { single, several: several.next(), size };
            let taken: Receiver<Job<T>> = taken.clone();
            let (coming, finish, observer) = (coming.clone(), finish.clone(), observer.clone());
            std::thread::spawn(move || {
                while let Some(jobs) = gather(&taken, runner.size, delay, &coming) {
                    let jobs: Vec<Job<T>> = jobs.into_iter().filter(|job| is_awaited(job, observer.as_ref())).collect();
                    if jobs.is_empty() {
                        continue;
                    }
                    observer.ran(jobs.len());
                    let others = coming.load(Ordering::Relaxed) > 0 || !taken.is_empty();
                    runner.single.share(jobs.len() == 1 && !others);
                    answer(jobs, &mut runner, finish.as_ref());
                }
            });
        }
        Self { jobs, places: Arc::new(Semaphore::new(places)), coming }
    }

    /// A place, or none where all are taken.
    pub fn place(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok().map(|permit| self.taken(permit))
    }

    /// A place, as soon as one is free: for the further pictures of a request that has been let in.
    pub async fn wait_for_place(&self) -> Place {
        let permit = self.places.clone().acquire_owned().await.expect("the places are never closed");
        self.taken(permit)
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Place {
        self.coming.fetch_add(1, Ordering::Relaxed);
        Place { permit, coming: Coming(self.coming.clone()) }
    }

    /// Free places.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Sends a picture to the network. Dropping the receiver takes it out again, where it has not run.
    pub fn submit(&self, place: Place, item: Vec<f32>) -> oneshot::Receiver<Result<T>> {
        let (answer, answered) = oneshot::channel();
        // First: a lane that takes it should not wait for it.
        drop(place.coming);
        // Where every lane's thread has ended the answer is dropped, and the receiver learns it.
        let _ = self.jobs.send(Job { item, answer, permit: place.permit });
        answered
    }
}

/// The next jobs, at least one and `most` at the most; none when the queue has ended.
fn gather<T>(jobs: &Receiver<Job<T>>, most: usize, delay: Duration, coming: &AtomicUsize) -> Option<Vec<Job<T>>> {
    let mut gathered = vec![jobs.recv().ok()?];
    let deadline = Instant::now() + delay;
    while gathered.len() < most {
        let next = match coming.load(Ordering::Relaxed) {
            0 => jobs.try_recv().ok(),
            _ => jobs.recv_deadline(deadline).ok(),
        };
        match next {
            Some(job) => gathered.push(job),
            None => break,
        }
    }
    Some(gathered)
}

fn is_awaited<T>(job: &Job<T>, observer: &impl Observer) -> bool {
    let awaited = !job.answer.is_closed();
    if !awaited {
        observer.abandoned();
    }
    awaited
}

fn answer<T>(jobs: Vec<Job<T>>, runner: &mut Runner, finish: &Finish<T>) {
    let items: Vec<&[f32]> = jobs.iter().map(|job| job.item.as_slice()).collect();
    let finished = runner.run(&items).and_then(|embeddings| finish(embeddings.view()));
    match finished {
        Ok(values) => {
            for (job, value) in jobs.into_iter().zip(values) {
                job.finish(Ok(value));
            }
        }
        Err(error) => {
            let message = error.to_string();
            for job in jobs {
                job.finish(Err(Error::Runtime(message.clone())));
            }
        }
    }
}

/// One lane, for one picture and for several.
struct Runner {
    single: Box<dyn Lane>,
    several: Option<Box<dyn Lane>>,
    /// Pictures that are taken together, and that `several` runs.
    size: usize,
}

impl Runner {
    /// Embeddings (N, D) of N items.
    fn run(&mut self, items: &[&[f32]]) -> Result<Array2<f32>> {
        match &mut self.several {
            // More than half full, a padded batch is faster than one by one.
            Some(lane) if items.len() * 2 > self.size => {
                let mut batch = items.concat();
                batch.resize(items[0].len() * self.size, 0.0);
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
    use crate::models::runtime::Settings;

    /// Tells what it runs, and waits for leave.
    struct Slow {
        batch: usize,
        began: Sender<usize>,
        leave: Receiver<()>,
    }

    impl Lane for Slow {
        fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
            self.began.send(self.batch).unwrap();
            self.leave.recv().unwrap();
            Ok(Array2::from_shape_fn((self.batch, 1), |(i, _)| items[i] * 10.0))
        }
    }

    #[derive(Default)]
    struct Seen(Mutex<(Vec<usize>, usize)>);

    impl Observer for Seen {
        fn ran(&self, pictures: usize) {
            self.0.lock().unwrap().0.push(pictures);
        }

        fn abandoned(&self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    struct Bench {
        queue: Queue<f32>,
        began: Receiver<usize>,
        leave: Sender<()>,
        seen: Arc<Seen>,
    }

    fn bench(places: usize, delay: Duration) -> Bench {
        let (told, began) = unbounded();
        let (leave, given) = unbounded();
        let network = |batch| Network {
            provider: "test".into(),
            lanes: vec![Box::new(Slow { batch, began: told.clone(), leave: given.clone() })],
            settings: Settings { item: vec![1], dim: 1, batch, threads: 1, output: None },
        };
        let finish: Arc<Finish<f32>> = Arc::new(|embeddings| Ok(embeddings.iter().copied().collect()));
        let seen = Arc::new(Seen::default());
        let queue = Queue::start(network(1), Some(network(4)), 4, places, delay, finish, seen.clone());
        Bench { queue, began, leave, seen }
    }

    #[test]
    fn pictures_that_wait_become_one_batch_and_keep_their_order() {
        let Bench { queue, began, leave, seen } = bench(8, Duration::ZERO);
        let first = queue.submit(queue.place().unwrap(), vec![1.0]);
        assert_eq!(began.recv().unwrap(), 1);
        let rest: Vec<_> = (2..5).map(|i| queue.submit(queue.place().unwrap(), vec![i as f32])).collect();
        leave.send(()).unwrap();
        assert_eq!(first.blocking_recv().unwrap().unwrap(), 10.0);
        assert_eq!(began.recv().unwrap(), 4); // three in a padded batch of four
        leave.send(()).unwrap();
        let values: Vec<f32> = rest.into_iter().map(|answer| answer.blocking_recv().unwrap().unwrap()).collect();
        assert_eq!(values, [20.0, 30.0, 40.0]);
        assert_eq!(seen.0.lock().unwrap().0, [1, 3]);
    }

    #[test]
    fn a_batch_is_waited_for_only_while_a_picture_is_coming() {
        // With so long a delay the test would not end where nothing is coming.
        let Bench { queue, began, leave, .. } = bench(8, Duration::from_secs(3600));
        let answer = queue.submit(queue.place().unwrap(), vec![1.0]);
        assert_eq!(began.recv().unwrap(), 1);
        leave.send(()).unwrap();
        answer.blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn places_are_few_and_come_back() {
        let Bench { queue, began, leave, .. } = bench(2, Duration::ZERO);
        let answer = queue.submit(queue.place().unwrap(), vec![1.0]);
        let held = queue.place().unwrap();
        assert!(queue.place().is_none() && queue.free() == 0);
        drop(held);
        assert_eq!(queue.free(), 1);
        began.recv().unwrap();
        leave.send(()).unwrap();
        answer.blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn what_nobody_waits_for_does_not_run() {
        let Bench { queue, began, leave, seen } = bench(8, Duration::ZERO);
        let first = queue.submit(queue.place().unwrap(), vec![1.0]);
        began.recv().unwrap();
        drop(queue.submit(queue.place().unwrap(), vec![2.0]));
        let third = queue.submit(queue.place().unwrap(), vec![3.0]);
        leave.send(()).unwrap();
        leave.send(()).unwrap();
        first.blocking_recv().unwrap().unwrap();
        assert_eq!(third.blocking_recv().unwrap().unwrap(), 30.0);
        assert_eq!(*seen.0.lock().unwrap(), (vec![1, 1], 1));
        assert_eq!(began.try_iter().count(), 1);
    }
}
