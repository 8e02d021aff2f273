//! Batches of the network: consecutive items of clips, in the order of the manifest.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView1, Axis};

use super::decoded::{ClipHeader, DecodeResult};
use crate::store::Failure;

/// Number of failures after which a batch without items is emitted, so that they are recorded.
const MAX_FAILURES_PER_BATCH: usize = 64;

/// A clip that waits for its rows. Clips stay in the order of the manifest.
pub(super) enum PendingClip {
    /// A decoded clip. Its rows are the next `header.rows.len()` outputs of the network.
    Decoded { clip: usize, header: ClipHeader },
    /// A clip that failed, which has no rows.
    Failed(Failure),
}

/// Consecutive items of a clip.
struct Part {
    /// All items of the clip.
    items: Arc<Vec<u8>>,
    /// Position of these items in bytes.
    range: Range<usize>,
}

/// Items of one or more clips. The network copies them from where the decode workers wrote them.
#[derive(Default)]
pub(super) struct Batch {
    parts: Vec<Part>,
    /// The clips whose first item is in this batch, and the failures between them.
    pub clips: Vec<PendingClip>,
}

impl Batch {
    /// Returns the items in order; none if the batch consists of failures.
    pub fn parts(&self) -> Vec<&[u8]> {
        self.parts.iter().map(|part| &part.items[part.range.clone()]).collect()
    }
}

/// Splits the items of consecutive clips into batches.
pub(super) struct Batches<I> {
    results: I,
    /// Bytes in a full batch.
    batch_len: usize,
    /// The items of the current clip that are not in a batch yet.
    remainder: Option<Part>,
    exhausted: bool,
}

impl<I> Batches<I> {
    /// Creates batches of `batch_size` items with `item_len` bytes.
    pub fn new(results: I, item_len: usize, batch_size: usize) -> Self {
        Self { results, batch_len: item_len * batch_size, remainder: None, exhausted: false }
    }
}

impl<I: Iterator<Item = DecodeResult<Vec<u8>>>> Iterator for Batches<I> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let (mut batch, mut len) = (Batch::default(), 0);
        loop {
            if let Some(Part { items, range }) = self.remainder.take() {
                let end = range.end.min(range.start + self.batch_len - len);
                if end < range.end {
                    self.remainder = Some(Part { items: items.clone(), range: end..range.end });
                }
                len += end - range.start;
                batch.parts.push(Part { items, range: range.start..end });
            }
            if len == self.batch_len {
                return Some(batch);
            }
            match if self.exhausted { None } else { self.results.next() } {
                Some(DecodeResult::Decoded { clip, decoded }) => {
                    let (header, items) = decoded.split();
                    batch.clips.push(PendingClip::Decoded { clip, header });
                    let range = 0..items.len();
                    self.remainder = Some(Part { items: Arc::new(items), range }).filter(|part| !part.range.is_empty());
                }
                Some(DecodeResult::Failed(failure)) => {
                    batch.clips.push(PendingClip::Failed(failure));
                    if len == 0 && batch.clips.len() >= MAX_FAILURES_PER_BATCH {
                        return Some(batch);
                    }
                }
                // The run ends with an error after the clips before the cancelled one.
                Some(DecodeResult::Cancelled) | None => {
                    self.exhausted = true;
                    return Some(batch).filter(|batch| !batch.parts.is_empty() || !batch.clips.is_empty());
                }
            }
        }
    }
}

/// Assigns the network's output rows to their clips.
#[derive(Default)]
pub(super) struct RowAssembler {
    clips: VecDeque<PendingClip>,
    rows: VecDeque<Array1<f32>>,
}

impl RowAssembler {
    /// Adds the clips of a batch and the rows of its items.
    pub fn push(&mut self, clips: Vec<PendingClip>, rows: &Array2<f32>) {
        self.clips.extend(clips);
        self.rows.extend(rows.axis_iter(Axis(0)).map(|row| row.to_owned()));
    }

    /// Returns the next clip and its rows, (rows, dim), or `None` if rows are missing.
    pub fn next_complete(&mut self, dim: usize) -> Option<(PendingClip, Array2<f32>)> {
        let needed = match self.clips.front()? {
            PendingClip::Decoded { header, .. } => header.rows.len(),
            PendingClip::Failed(_) => 0,
        };
        if self.rows.len() < needed {
            return None;
        }
        let mut values = Array2::zeros((0, dim));
        for row in self.rows.drain(..needed) {
            values.push_row(ArrayView1::from(&row)).expect("every row has dim values");
        }
        self.clips.pop_front().map(|clip| (clip, values))
    }
}
