//! Reading of all clips of a store in their order.

use std::collections::VecDeque;

use super::clip::ClipRows;
use super::reader::Store;
use crate::error::Result;

/// Minimum number of rows that are read at once, so that chunks are decompressed about once.
const BLOCK_ROWS: usize = 64;

/// An iterator over the clips of a store. The memory does not depend on the number of clips.
#[derive(Debug)]
pub struct ClipCursor<'a> {
    store: &'a Store,
    /// Index of the next clip to read.
    next: usize,
    /// Index of its first descriptor.
    next_descriptor: usize,
    block: VecDeque<ClipRows>,
}

impl<'a> ClipCursor<'a> {
    /// Starts at the first clip.
    pub fn new(store: &'a Store) -> Self {
        Self { store, next: 0, next_descriptor: 0, block: VecDeque::new() }
    }

    /// Returns the id of the next clip.
    pub fn next_id(&self) -> Option<&'a str> {
        self.store.clips().get(self.next - self.block.len()).map(|clip| clip.id.as_str())
    }
}

impl Iterator for ClipCursor<'_> {
    type Item = Result<ClipRows>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.block.is_empty() {
            let mut rows = 0;
            let clips = self.store.clips()[self.next..].iter().take_while(|clip| {
                let takes = rows < BLOCK_ROWS;
                rows += clip.length;
                takes
            });
            let range = self.next..self.next + clips.count();
            match self.store.read_block(range.clone(), self.next_descriptor) {
                Ok((clips, end)) => {
                    self.block.extend(clips);
                    (self.next, self.next_descriptor) = (range.end, end);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.block.pop_front().map(Ok)
    }
}
