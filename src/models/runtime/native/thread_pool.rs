//! Parallelism within a layer: one lane shares the rows of its layers with idle threads of a pool.
//!
//! Layers take some hundred microseconds, and waking a parked thread takes about as long. Pool threads are therefore woken once per
//! item. While it is computed, threads without work spin for a few microseconds, then yield the processor to other threads, and park
//! after [`PARK_AFTER`] without work. Between items they are parked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, Yield};

use super::kernel::ScratchBuffers;

/// Iterations of the spin loop before a thread yields: a few microseconds.
const SPINS: usize = 100;
/// Time without work after which a thread parks, although the item is not finished.
const PARK_AFTER: Duration = Duration::from_millis(1);

/// The threads that compute one item, each with its own scratch buffers.
pub(super) struct Workers<'a> {
    /// Buffers per thread; the number of threads is their number.
    scratch: &'a mut [ScratchBuffers],
    /// Threads besides the calling one.
    pool: Option<&'a ThreadPool>,
}

impl<'a> Workers<'a> {
    /// Creates as many workers as there are scratch buffers, all of whose work the calling thread does.
    pub fn single_threaded(scratch: &'a mut [ScratchBuffers]) -> Self {
        Self { scratch, pool: None }
    }

    /// Calls `compute` with as many workers as there are scratch buffers: the calling thread and threads of `pool`, which are kept
    /// awake until `compute` returns. Without a pool, the calling thread does all work.
    pub fn scope(pool: Option<&ThreadPool>, scratch: &mut [ScratchBuffers], compute: impl FnOnce(&mut Workers<'_>)) {
        let Some(pool) = pool.filter(|_| scratch.len() > 1) else {
            return compute(&mut Workers::single_threaded(scratch));
        };
        let finished = AtomicBool::new(false);
        pool.in_place_scope(|scope| {
            for _ in 1..scratch.len() {
                scope.spawn(|_| keep_awake(&finished));
            }
            let _guard = SetOnDrop(&finished);
            compute(&mut Workers { scratch, pool: Some(pool) });
        });
    }

    /// Returns the number of threads.
    pub fn count(&self) -> usize {
        self.scratch.len()
    }

    /// Returns the scratch buffers of the calling thread.
    pub fn own_scratch(&mut self) -> &mut ScratchBuffers {
        &mut self.scratch[0]
    }

    /// Runs `work(index, job, scratch)` for each job, the first one on the calling thread. There must not be more jobs
    /// than workers.
    ///
    /// # Panics
    /// Panics if a job panics.
    pub fn for_each<T: Send>(
        &mut self,
        jobs: impl Iterator<Item = T>,
        work: impl Fn(usize, T, &mut ScratchBuffers) + Sync,
    ) {
        let mut jobs = jobs.zip(&mut *self.scratch).enumerate();
        let Some(pool) = self.pool else {
            return jobs.for_each(|(i, (job, scratch))| work(i, job, scratch));
        };
        let (pending, first) = (AtomicUsize::new(0), jobs.next());
        pool.in_place_scope(|scope| {
            let (work, pending) = (&work, &pending);
            for (i, (job, scratch)) in jobs {
                pending.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move |_| {
                    let _guard = DecrementOnDrop(pending);
                    work(i, job, scratch);
                });
            }
            if let Some((i, (job, scratch))) = first {
                work(i, job, scratch);
            }
            // Jobs usually end together: waking up after the scope has blocked would take longer.
            let mut backoff = Backoff::default();
            while pending.load(Ordering::Acquire) > 0 && backoff.wait() {}
        });
    }
}

/// Executes the jobs of the current pool until `finished` is set or none has arrived for [`PARK_AFTER`].
fn keep_awake(finished: &AtomicBool) {
    let mut backoff = Backoff::default();
    while !finished.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(Yield::Executed) {
            backoff = Backoff::default();
        } else if !backoff.wait() {
            break;
        }
    }
}

/// Waiting in a loop: spins first, then yields.
#[derive(Default)]
struct Backoff {
    rounds: usize,
    yielding_since: Option<Instant>,
}

impl Backoff {
    /// Waits for a moment. Returns `false` if the thread has waited for [`PARK_AFTER`] and should park.
    fn wait(&mut self) -> bool {
        if self.rounds < SPINS {
            self.rounds += 1;
            std::hint::spin_loop();
            return true;
        }
        std::thread::yield_now();
        self.yielding_since.get_or_insert_with(Instant::now).elapsed() < PARK_AFTER
    }
}

/// Sets a flag when it is dropped, including during a panic.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Decrements a counter when it is dropped, including during a panic.
struct DecrementOnDrop<'a>(&'a AtomicUsize);

impl Drop for DecrementOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_runs_once_with_and_without_a_pool() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for pool in [None, Some(&pool)] {
            let mut scratch: Vec<ScratchBuffers> = (0..3).map(|_| ScratchBuffers::default()).collect();
            Workers::scope(pool, &mut scratch, |workers| {
                for count in [0, 1, 2, 3].repeat(200) {
                    let mut values = vec![0; count];
                    workers.for_each(values.iter_mut(), |i, value, _| *value += i + 1);
                    assert_eq!(values, (1..=count).collect::<Vec<_>>());
                }
            });
        }
    }

    #[test]
    fn waiting_ends_if_no_work_arrives() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| keep_awake(&AtomicBool::new(false)));
    }

    #[test]
    fn panic_in_a_pool_thread_propagates_to_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let work = || {
            let mut scratch = [ScratchBuffers::default(), ScratchBuffers::default()];
            Workers::scope(Some(&pool), &mut scratch, |workers| workers.for_each(0..2, |i, _, _| assert_eq!(i, 0)));
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    }
}
