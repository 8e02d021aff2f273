//! Buffers whose every 64 bytes lie in one line of the cache: a vector or a row of a tile that lies in two takes twice the
//! time to read.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// Bytes of a line.
pub(super) const LINE: usize = 64;

/// A line of the cache.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Numbers from the beginning of a line on, filled up to whole lines.
#[derive(Debug)]
pub(super) struct Aligned<T = f32> {
    lines: Vec<Line>,
    of: std::marker::PhantomData<T>,
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), of: std::marker::PhantomData }
    }
}

impl<T: Pod> Aligned<T> {
    /// Zeros.
    pub fn zeros(length: usize) -> Self {
        let mut values = Self::default();
        values.at_least(length);
        values
    }

    /// Grows to hold as many, with zeros.
    pub fn at_least(&mut self, length: usize) {
        let lines = (length * size_of::<T>()).div_ceil(LINE);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; LINE]));
        }
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.lines)
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}
