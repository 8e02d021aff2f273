//! Assembly of a network's input from frames.

use super::sampler::Window;
use super::sink::{Frame, FrameSink};
use super::transform::Transform;
use crate::error::{Error, Result};
use crate::models::input::{InputLayout, InputSpec};

/// A sink that transforms each distinct frame once and copies it to every item that contains it. Items are not normalized.
///
/// An item has shape (3, H, W) for layout `frames`, whose windows have one frame, and (3, T, H, W) for layout `clip`.
#[derive(Debug)]
pub struct ItemSink {
    transform: Transform,
    /// Frames per item.
    frames: usize,
    /// Bytes per item.
    item_len: usize,
    values: Vec<u8>,
    /// For each sampled frame, its positions in the items: (item, index in the item).
    positions: Vec<Vec<(usize, usize)>>,
}

impl ItemSink {
    /// Creates a sink for the input of a card. Each worker thread has its own.
    pub fn new(input: &InputSpec) -> Self {
        let frames = match input.layout {
            InputLayout::Frames => 1,
            InputLayout::Clip => input.frames.unwrap_or(1),
        };
        let transform = Transform::new(input);
        Self { transform, frames, item_len: input.item_len(), values: Vec::new(), positions: Vec::new() }
    }

    /// Returns the items of the decoded clip, concatenated in the order of its windows.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.values)
    }
}

impl FrameSink for ItemSink {
    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()> {
        // Grows with the frames that are decoded: a container may claim any number.
        self.values.clear();
        self.positions.clear();
        self.positions.resize(wanted.len(), Vec::new());
        for (item, window) in windows.iter().enumerate() {
            if window.indices.len() != self.frames {
                let (actual, expected) = (window.indices.len(), self.frames);
                return Err(Error::Data(format!(
                    "the recipe samples windows of {actual} frames, but the network expects {expected}: set sampling.length to {expected}"
                )));
            }
            for (slot, index) in window.indices.iter().enumerate() {
                let position = wanted.binary_search(index).expect("wanted contains every frame of every window");
                self.positions[position].push((item, slot));
            }
        }
        Ok(())
    }

    fn frame(&mut self, position: usize, frame: &Frame<'_>) -> Result<()> {
        let [height, width] = self.transform.size();
        let plane_len = height * width;
        let channel_len = self.frames * plane_len;
        let start = |&(item, slot): &(usize, usize)| item * self.item_len + slot * plane_len;
        let Some((first, others)) = self.positions[position].split_first() else { return Ok(()) };
        let items = self.positions[position].iter().map(|&(item, _)| item + 1).max().unwrap_or(0);
        if self.values.len() < items * self.item_len {
            self.values.resize(items * self.item_len, 0);
        }
        let first = start(first);
        self.transform.write_planes(frame.image(), &mut self.values[first..], channel_len);
        for other in others.iter().map(start) {
            for channel in 0..3 {
                let source = first + channel * channel_len;
                self.values.copy_within(source..source + plane_len, other + channel * channel_len);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pixels::BgrImage;
    use super::*;
    use crate::models::Card;

    #[test]
    fn memory_grows_with_the_decoded_frames() {
        let card = Card::load(std::path::Path::new("fixtures/models"), "tiny").unwrap();
        let mut sink = ItemSink::new(&card.input);
        // Enough items for 100 TB.
        sink.item_len = 25_000_000;
        let windows: Vec<Window> = (0..1_000_000).map(|i| Window { indices: vec![i], padded: false }).collect();
        let wanted: Vec<usize> = (0..windows.len()).collect();
        sink.begin(&windows, &wanted).unwrap();
        assert_eq!(sink.values.len(), 0);
        let pixels = [0; 3];
        sink.frame(0, &Frame::new(0, BgrImage::new(1, 1, &pixels))).unwrap();
        assert_eq!(sink.take().len(), 25_000_000);
    }

    #[test]
    fn overlapping_windows_share_frames() {
        let card = Card::load(std::path::Path::new("fixtures/models"), "tiny").unwrap();
        let mut sink = ItemSink::new(&card.input);
        sink.frames = 2;
        sink.item_len *= 2;
        let window = |indices: [usize; 2]| Window { indices: indices.into(), padded: false };
        sink.begin(&[window([0, 3]), window([3, 4]), window([4, 4])], &[0, 3, 4]).unwrap();
        for (position, value) in [10, 20, 30].into_iter().enumerate() {
            sink.frame(position, &Frame::new(position, BgrImage::new(1, 1, &[value; 3]))).unwrap();
        }
        let [height, width] = sink.transform.size();
        let values = sink.take();
        let first = |item: usize, slot: usize| values[(item * 6 + slot) * height * width];
        let (a, b, c) = (first(0, 0), first(0, 1), first(1, 1));
        assert!(a < b && b < c, "{a} {b} {c}");
        assert_eq!([first(1, 0), first(2, 0), first(2, 1)], [b, c, c]);
        assert_eq!(values.len(), 3 * 6 * height * width);
    }
}
