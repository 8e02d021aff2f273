//! Reading of all clips of a store in their order.

use std::collections::VecDeque;

use super::clip::ClipRows;
use super::reader::Store;
use crate::error::Result;

/// An iterator over the clips of a store, which are read in blocks of about the same size in bytes.
#[derive(Debug)]
pub struct ClipCursor<'a> {
    store: &'a Store,
    /// Number of rows after which a block ends.
    block_rows: usize,
    /// Index of the next clip to read.
    next: usize,
    /// Index of its first descriptor.
    next_descriptor: usize,
    block: VecDeque<ClipRows>,
}

impl<'a> ClipCursor<'a> {
    /// Starts at the first clip. Blocks have up to `block_bytes` bytes on average, but at least one clip.
    ///
    /// # Errors
    /// Returns an error if the number of descriptors cannot be read.
    pub fn new(store: &'a Store, block_bytes: usize) -> Result<Self> {
        let block_rows = block_bytes / store.mean_row_bytes()?.max(1);
        Ok(Self { store, block_rows, next: 0, next_descriptor: 0, block: VecDeque::new() })
    }
}

impl Iterator for ClipCursor<'_> {
    type Item = Result<ClipRows>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.block.is_empty() {
            let mut rows = 0;
            let clips = self.store.clips()[self.next..].iter().take_while(|clip| {
                rows += clip.length;
                rows <= self.block_rows
            });
            let count = clips.count().max(1).min(self.store.clips().len() - self.next);
            let range = self.next..self.next + count;
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
