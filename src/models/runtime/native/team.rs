//! Threads that help a lane with one picture, layer by layer.
//!
//! A layer takes some hundred microseconds, and a thread that sleeps takes as long to wake: helpers are woken once a
//! picture, and look for work without a pause until it is done.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::{ThreadPool, Yield};

use super::winograd::Scratch;

/// Buffers, one a thread, and the threads beside this one.
pub(super) struct Team<'a> {
    /// One for each thread that takes part.
    pub scratches: &'a mut [Scratch],
    helpers: Option<&'a ThreadPool>,
}

impl<'a> Team<'a> {
    /// This thread alone, though it may have several scratches.
    pub fn alone(scratches: &'a mut [Scratch]) -> Self {
        Self { scratches, helpers: None }
    }

    /// Does `work` with a team of as many as there are scratches; `helpers` are those beside this thread.
    pub fn with(helpers: Option<&ThreadPool>, scratches: &mut [Scratch], work: impl FnOnce(Team<'_>)) {
        let Some(helpers) = helpers.filter(|_| scratches.len() > 1) else { return work(Team::alone(scratches)) };
        let over = AtomicBool::new(false);
        helpers.in_place_scope(|scope| {
            for _ in 1..scratches.len() {
                scope.spawn(|_| {
                    while !over.load(Ordering::Acquire) {
                        if rayon::yield_now() != Some(Yield::Executed) {
                            std::hint::spin_loop();
                        }
                    }
                });
            }
            let _over = Raised(&over);
            work(Team { scratches, helpers: Some(helpers) });
        });
    }

    /// The scratch of this thread.
    pub fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratches[0]
    }

    /// Does each of the jobs, which go with one scratch each, on a thread of its own, the first on this one.
    pub fn share<T: Send>(&mut self, jobs: impl Iterator<Item = T>, work: impl Fn(usize, T, &mut Scratch) + Sync) {
        let mut jobs = jobs.zip(&mut *self.scratches).enumerate();
        let Some(helpers) = self.helpers else {
            return jobs.for_each(|(i, (job, scratch))| work(i, job, scratch));
        };
        let (left, first) = (AtomicUsize::new(0), jobs.next());
        helpers.in_place_scope(|scope| {
            let (work, left) = (&work, &left);
            for (i, (job, scratch)) in jobs {
                left.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move |_| {
                    let _done = Fewer(left);
                    work(i, job, scratch);
                });
            }
            if let Some((i, (job, scratch))) = first {
                work(i, job, scratch);
            }
            // Not by the scope's end, where this thread would fall asleep.
            while left.load(Ordering::Acquire) > 0 {
                std::hint::spin_loop();
            }
        });
    }
}

/// Sets it at its end, also where that comes by a panic.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Counts down at its end.
struct Fewer<'a>(&'a AtomicUsize);

impl Drop for Fewer<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_whoever_helps() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for helpers in [None, Some(&pool)] {
            let mut scratches: Vec<Scratch> = (0..3).map(|_| Scratch::default()).collect();
            Team::with(helpers, &mut scratches, |mut team| {
                for count in [0, 1, 2, 3].repeat(200) {
                    let mut values = vec![0; count];
                    team.share(values.iter_mut(), |i, value, _| *value += i + 1);
                    assert_eq!(values, (1..=count).collect::<Vec<_>>());
                }
            });
        }
    }

    #[test]
    fn a_panic_of_a_helper_reaches_the_lane() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let work = || {
            let mut scratches = [Scratch::default(), Scratch::default()];
            Team::with(Some(&pool), &mut scratches, |mut team| team.share(0..2, |i, _, _| assert_eq!(i, 0)));
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    }
}
