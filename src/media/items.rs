//! Assembly of a network's input from frames.

use super::sampler::Window;
use super::sink::{Frame, FrameSink};
use super::transform::Transform;
use crate::error::{Error, Result};
use crate::models::input::{InputLayout, InputSpec};

/// A sink that transforms each distinct frame once and copies it to every item that contains it.
///
/// An item has shape (3, H, W) for layout `frames`, whose windows have one frame, and (3, T, H, W) for layout `clip`.
#[derive(Debug)]
pub struct ItemSink {
    transform: Transform,
    /// Frames per item.
    frames: usize,
    /// Floats per item.
    item_len: usize,
    values: Vec<f32>,
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
    pub fn take(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.values)
    }
}

impl FrameSink for ItemSink {
    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()> {
        self.values.clear();
        self.values.resize(windows.len() * self.item_len, 0.0);
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
        let first = start(first);
        self.transform.write(frame.image(), &mut self.values[first..], channel_len);
        for other in others.iter().map(start) {
            for channel in 0..3 {
                let source = first + channel * channel_len;
                self.values.copy_within(source..source + plane_len, other + channel * channel_len);
            }
        }
        Ok(())
    }
}
