//! Memory that decode workers share.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::media::{Frame, FrameSink, Window};

/// A number of bytes that threads share.
pub struct Budget {
    total: u64,
    free: Mutex<u64>,
    released: Condvar,
}

impl Budget {
    /// Creates a budget of `bytes`, all of them free.
    pub fn new(bytes: u64) -> Self {
        Self { total: bytes, free: Mutex::new(bytes), released: Condvar::new() }
    }

    /// Waits until `bytes` are free and takes them. Of more than the total, all are taken, so that one thread always runs.
    ///
    /// A thread must not reserve twice, since threads could then wait for each other.
    pub fn reserve(&self, bytes: u64) -> Reservation<'_> {
        let bytes = bytes.min(self.total);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.released.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Reservation { budget: self, bytes }
    }
}

/// Bytes of a [`Budget`], which are released when it is dropped.
pub struct Reservation<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.released.notify_all();
    }
}

/// A sink that reserves memory before frames are decoded.
pub struct ReservingSink<'a, S> {
    sink: S,
    budget: &'a Budget,
    /// Returns the bytes that the sink needs for a frame of this height and width.
    memory: fn(&S, usize, usize) -> u64,
    reservation: Option<Reservation<'a>>,
}

impl<'a, S> ReservingSink<'a, S> {
    /// Wraps a sink that needs the bytes that `memory` returns for a frame of a height and a width.
    pub fn new(sink: S, budget: &'a Budget, memory: fn(&S, usize, usize) -> u64) -> Self {
        Self { sink, budget, memory, reservation: None }
    }

    /// Releases the memory after a clip.
    pub fn release(&mut self) {
        self.reservation = None;
    }

    /// Returns the wrapped sink.
    pub fn inner(&mut self) -> &mut S {
        &mut self.sink
    }
}

impl<S: FrameSink> FrameSink for ReservingSink<'_, S> {
    fn reserve(&mut self, height: usize, width: usize, decoder_bytes: u64) {
        self.release();
        let bytes = decoder_bytes.saturating_add((self.memory)(&self.sink, height, width));
        self.reservation = Some(self.budget.reserve(bytes));
    }

    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()> {
        self.sink.begin(windows, wanted)
    }

    fn frame(&mut self, position: usize, frame: &Frame<'_>) -> Result<()> {
        self.sink.frame(position, frame)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn threads_never_hold_more_than_the_total() {
        let budget = Budget::new(100);
        let (held, finished) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (budget, held, finished) = (&budget, &held, &finished);
                scope.spawn(move || {
                    for i in 0..200 {
                        let bytes = [0, 10, 40, 60, 100, 1000][(thread + i) % 6];
                        let reservation = budget.reserve(bytes);
                        let bytes = bytes.min(100);
                        assert!(held.fetch_add(bytes, Ordering::SeqCst) + bytes <= 100);
                        std::thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                        drop(reservation);
                        finished.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((finished.into_inner(), *budget.free.lock().unwrap()), (1200, 100));
    }
}
