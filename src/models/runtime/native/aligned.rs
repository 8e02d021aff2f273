//! Buffers aligned to cache lines: loading a vector or a tile row that straddles two lines takes twice as long.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// Size of a cache line in bytes.
const LINE_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u8; LINE_BYTES]);

/// A growable buffer that starts at a cache line; its length is rounded up to whole cache lines.
#[derive(Debug)]
pub(super) struct AlignedBuffer<T = f32> {
    lines: Vec<CacheLine>,
    element: PhantomData<T>,
}

impl<T> Default for AlignedBuffer<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), element: PhantomData }
    }
}

impl<T: Pod> AlignedBuffer<T> {
    /// Creates a buffer of at least `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.grow_to(len);
        buffer
    }

    /// Grows to at least `len` elements; new elements are zero. Never shrinks.
    pub fn grow_to(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(LINE_BYTES);
        if self.lines.len() < lines {
            self.lines.resize(lines, CacheLine([0; LINE_BYTES]));
        }
    }
}

impl<T: Pod> Deref for AlignedBuffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.lines)
    }
}

impl<T: Pod> DerefMut for AlignedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}
