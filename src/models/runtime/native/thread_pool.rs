//! Parallelism within a layer: one lane shares the rows of its layers with idle threads of a pool.
//!
//! Layers take some hundred microseconds, so results are awaited by spinning for a few microseconds and then by
//! blocking. Idle pool threads yield, then park (rayon's own policy).

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::ThreadPool;

use super::kernel::ScratchBuffers;

/// Iterations of the spin loop before the lane blocks: a few microseconds.
const SPINS: usize = 100;

/// The threads that compute one item, each with its own scratch buffers.
pub(super) struct Workers<'a> {
    /// Buffers per thread; the number of threads is their number.
    scratch: &'a mut [ScratchBuffers],
    /// Threads besides the calling one.
    pool: Option<&'a ThreadPool>,
}

impl<'a> Workers<'a> {
    /// Creates as many workers as there are scratch buffers: the calling thread and threads of `pool`. Without a pool the
    /// calling thread does the work of all of them.
    pub fn new(pool: Option<&'a ThreadPool>, scratch: &'a mut [ScratchBuffers]) -> Self {
        let pool = pool.filter(|_| scratch.len() > 1);
        Self { scratch, pool }
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
            for _ in 0..SPINS {
                if pending.load(Ordering::Acquire) == 0 {
                    break;
                }
                std::hint::spin_loop();
            }
        });
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
            let mut workers = Workers::new(pool, &mut scratch);
            for count in [0, 1, 2, 3].repeat(200) {
                let mut values = vec![0; count];
                workers.for_each(values.iter_mut(), |i, value, _| *value += i + 1);
                assert_eq!(values, (1..=count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn panic_in_a_pool_thread_propagates_to_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let work = || {
            let mut scratch = [ScratchBuffers::default(), ScratchBuffers::default()];
            Workers::new(Some(&pool), &mut scratch).for_each(0..2, |i, _, _| assert_eq!(i, 0));
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    }
}
