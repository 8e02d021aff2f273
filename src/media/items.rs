//! Frames into the items of a network's input tensor.

use super::sampler::Window;
use super::{Frame, FrameSink, Transform};
use crate::error::{Error, Result};
use crate::models::card::{Input, Layout};

/// Transforms each distinct frame once and places it in every item that shows it.
///
/// An item is `(3, H, W)` for layout `frames` (a window is one frame) and `(3, T, H, W)` for layout `clip`.
#[derive(Debug)]
pub struct ItemSink {
    transform: Transform,
    /// Frames in an item.
    frames: usize,
    /// Floats in an item.
    item_len: usize,
    values: Vec<f32>,
    /// Per wanted frame, the places (item, frame of the item) where it stands.
    places: Vec<Vec<(usize, usize)>>,
}

impl ItemSink {
    /// A sink for a card's input. One per worker thread.
    pub fn new(input: &Input) -> Self {
        let frames = match input.layout {
            Layout::Frames => 1,
            Layout::Clip => input.frames.unwrap_or(1),
        };
        let transform = Transform::new(input);
        Self { transform, frames, item_len: input.item_len(), values: Vec::new(), places: Vec::new() }
    }

    /// The items of the clip just decoded, one after the other, in the order of its windows.
    pub fn take(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.values)
    }
}

impl FrameSink for ItemSink {
    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()> {
        self.values.clear();
        self.values.resize(windows.len() * self.item_len, 0.0);
        self.places.clear();
        self.places.resize(wanted.len(), Vec::new());
        for (item, window) in windows.iter().enumerate() {
            if window.indices.len() != self.frames {
                let (got, want) = (window.indices.len(), self.frames);
                return Err(Error::Data(format!(
                    "the recipe samples windows of {got} frames, the network takes {want}: make sampling.length {want}"
                )));
            }
            for (slot, index) in window.indices.iter().enumerate() {
                let position = wanted.binary_search(index).expect("every frame of a window is wanted");
                self.places[position].push((item, slot));
            }
        }
        Ok(())
    }

    fn frame(&mut self, position: usize, frame: &Frame<'_>) -> Result<()> {
        let [height, width] = self.transform.size();
        let plane = height * width;
        let stride = self.frames * plane;
        let start = |&(item, slot): &(usize, usize)| item * self.item_len + slot * plane;
        let Some((first, others)) = self.places[position].split_first() else { return Ok(()) };
        let first = start(first);
        self.transform.write(frame.image(), &mut self.values[first..], stride);
        for other in others.iter().map(start) {
            for channel in 0..3 {
                let from = first + channel * stride;
                self.values.copy_within(from..from + plane, other + channel * stride);
            }
        }
        Ok(())
    }
}
