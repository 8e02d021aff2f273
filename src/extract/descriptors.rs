//! Local descriptors of the sampled frames of a clip.

use ndarray::Array2;

use crate::error::{Error, Result};
use crate::media::{BgrImage, Frame, FrameSink, Window};
use crate::store::Values;

/// Computes local descriptors of frames. Each worker thread has its own, since it keeps buffers.
pub trait Describer: Send {
    /// Returns the length of a descriptor in bytes.
    fn dim(&self) -> usize;

    /// Returns the length in pixels of the longer side that larger frames are scaled down to.
    fn max_side(&self) -> usize;

    /// Estimates the memory in bytes that a frame of this height and width needs.
    fn memory(&self, height: usize, width: usize) -> u64;

    /// Appends the descriptors of a frame to `out` and returns their number.
    ///
    /// # Errors
    /// Returns an error if the frame cannot be described.
    fn describe(&mut self, frame: BgrImage<'_>, out: &mut Vec<u8>) -> Result<usize>;

    /// Returns the factor by which a frame is scaled down, in (0, 1].
    fn scale(&self, height: usize, width: usize) -> f64 {
        (self.max_side() as f64 / height.max(width) as f64).min(1.0)
    }

    /// Returns the size of a frame after scaling: height and width.
    fn scaled_size(&self, height: usize, width: usize) -> [usize; 2] {
        let scale = self.scale(height, width);
        [height, width].map(|length| ((length as f64 * scale).round() as usize).max(1))
    }
}

/// A sink that computes the descriptors of each sampled frame. A row is a frame, so windows must have one frame.
pub struct DescriptorSink {
    describer: Box<dyn Describer>,
    counts: Vec<u32>,
    values: Vec<u8>,
    scales: Vec<f64>,
}

impl DescriptorSink {
    /// Creates a sink. Each worker thread has its own.
    pub fn new(describer: Box<dyn Describer>) -> Self {
        Self { describer, counts: Vec::new(), values: Vec::new(), scales: Vec::new() }
    }

    /// See [`Describer::memory`].
    pub fn memory(&self, height: usize, width: usize) -> u64 {
        self.describer.memory(height, width)
    }

    /// Returns the factors by which the frames of the decoded clip were scaled down.
    pub fn scales(&self) -> &[f64] {
        &self.scales
    }

    /// Returns the descriptors of the decoded clip.
    pub fn take(&mut self) -> Values {
        let counts = std::mem::take(&mut self.counts);
        let values = std::mem::take(&mut self.values);
        let dim = self.describer.dim();
        let values = Array2::from_shape_vec((values.len() / dim, dim), values).expect("descriptors have dim values");
        Values::Descriptors { counts, values }
    }
}

impl FrameSink for DescriptorSink {
    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()> {
        if windows.len() != wanted.len() {
            return Err(Error::Data("SIFT uses single frames: set sampling.kind to \"even\"".into()));
        }
        self.counts.clear();
        self.values.clear();
        self.scales.clear();
        Ok(())
    }

    fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
        let image = frame.image();
        let count = self.describer.describe(image, &mut self.values)?;
        self.counts.push(count as u32);
        self.scales.push(self.describer.scale(image.height, image.width));
        Ok(())
    }
}
