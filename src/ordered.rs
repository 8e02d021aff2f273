//! A parallel map that preserves order. All concurrency of decoding and extraction is built from it.

use std::thread::Scope;

use crossbeam_channel::{Receiver, bounded};

/// Maps `inputs` with one thread per worker. Results have the order of the inputs.
///
/// At most `ahead` inputs are taken before the oldest result is consumed, regardless of the order in which the workers finish, so memory is
/// bounded by `ahead` inputs and results. The threads end after the last input, or when the returned [`Ordered`] is dropped.
///
/// # Panics
/// The iterator panics if a worker panicked.
pub fn ordered<'scope, I, O, F>(
    scope: &'scope Scope<'scope, '_>,
    inputs: impl Iterator<Item = I> + Send + 'scope,
    workers: Vec<F>,
    ahead: usize,
) -> Ordered<O>
where
    I: Send + 'scope,
    O: Send + 'scope,
    F: FnMut(I) -> O + Send + 'scope,
{
    let (order, ordered) = bounded::<Receiver<O>>(ahead.max(1) - 1);
    let (work, jobs) = bounded(0);
    for mut worker in workers {
        let jobs: Receiver<(I, crossbeam_channel::Sender<O>)> = jobs.clone();
        scope.spawn(move || {
            for (input, result) in jobs {
                // Sending fails if the iterator was dropped.
                let _ = result.send(worker(input));
            }
        });
    }
    drop(jobs);
    scope.spawn(move || {
        for input in inputs {
            let (result, pending) = bounded(1);
            if order.send(pending).is_err() || work.send((input, result)).is_err() {
                break;
            }
        }
    });
    Ordered(ordered)
}

/// Iterator over the results of [`ordered`].
pub struct Ordered<O>(Receiver<Receiver<O>>);

impl<O> Iterator for Ordered<O> {
    type Item = O;

    fn next(&mut self) -> Option<O> {
        let pending = self.0.recv().ok()?;
        Some(pending.recv().expect("a worker thread panicked"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn preserves_order_and_bounds_the_lead(n in 0usize..60, workers in 1usize..5, ahead in 1usize..6) {
            let started = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let started = &started;
                let inputs = (0..n).inspect(move |_| { started.fetch_add(1, Ordering::SeqCst); });
                let workers = (0..workers).map(|_| |i: usize| {
                    // Different amounts of work, so that later inputs finish first.
                    (0..(i % 7) * 1000).map(std::hint::black_box).sum::<usize>();
                    i * 2
                }).collect();
                for (consumed, value) in ordered(scope, inputs, workers, ahead).enumerate() {
                    assert_eq!(value, consumed * 2);
                    // The feeding thread holds one more input while the queue is full.
                    assert!(started.load(Ordering::SeqCst) <= consumed + ahead + 2);
                }
                assert_eq!(started.load(Ordering::SeqCst), n);
            });
        }
    }

    #[test]
    fn dropping_the_iterator_ends_the_threads() {
        std::thread::scope(|scope| {
            let mut results = ordered(scope, 0.., vec![|i: i32| i + 1], 2);
            assert_eq!(results.next(), Some(1));
        });
    }
}
