//! A parallel map that keeps order: the one piece of concurrency that extraction is made of.

use std::thread::Scope;

use crossbeam_channel::{Receiver, bounded};

/// Maps `inputs` with one thread per worker. Results come in the order of the inputs.
///
/// At most `ahead` inputs are taken before the oldest result is consumed, whatever the order in which workers finish,
/// so memory is bounded by `ahead` inputs and results. The threads end when the inputs do, or when the returned
/// [`Ordered`] is dropped.
///
/// # Panics
/// The iterator panics where a worker did.
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
    let (work, taken) = bounded(0);
    for mut worker in workers {
        let taken: Receiver<(I, crossbeam_channel::Sender<O>)> = taken.clone();
        scope.spawn(move || {
            for (input, result) in taken {
                // Nobody waits any more once the iterator is dropped.
                let _ = result.send(worker(input));
            }
        });
    }
    drop(taken);
    scope.spawn(move || {
        for input in inputs {
            let (result, promised) = bounded(1);
            if order.send(promised).is_err() || work.send((input, result)).is_err() {
                break;
            }
        }
    });
    Ordered(ordered)
}

/// The results of [`ordered`].
pub struct Ordered<O>(Receiver<Receiver<O>>);

impl<O> Iterator for Ordered<O> {
    type Item = O;

    fn next(&mut self) -> Option<O> {
        let promised = self.0.recv().ok()?;
        Some(promised.recv().expect("a worker thread panicked"))
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
        fn order_is_kept_and_the_lead_is_bounded(n in 0usize..60, workers in 1usize..5, ahead in 1usize..6) {
            let begun = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let begun = &begun;
                let inputs = (0..n).inspect(move |_| { begun.fetch_add(1, Ordering::SeqCst); });
                let workers = (0..workers).map(|_| |i: usize| {
                    // Uneven work, so that later inputs finish first.
                    (0..(i % 7) * 1000).map(std::hint::black_box).sum::<usize>();
                    i * 2
                }).collect();
                for (consumed, value) in ordered(scope, inputs, workers, ahead).enumerate() {
                    assert_eq!(value, consumed * 2);
                    // One more is held by the feeder, which waits for room.
                    assert!(begun.load(Ordering::SeqCst) <= consumed + ahead + 2);
                }
                assert_eq!(begun.load(Ordering::SeqCst), n);
            });
        }
    }

    #[test]
    fn dropping_the_results_ends_the_threads() {
        std::thread::scope(|scope| {
            let mut results = ordered(scope, 0.., vec![|i: i32| i + 1], 2);
            assert_eq!(results.next(), Some(1));
        });
    }
}
