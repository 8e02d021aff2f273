//! The interface between decoders and the consumers of frames.

use super::pixels::BgrImage;
use super::sampler::{Timeline, Window};
use crate::error::Result;

/// One decoded frame, borrowed from the decoder.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Index of the frame in the clip.
    pub index: usize,
    image: BgrImage<'a>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(index: usize, image: BgrImage<'a>) -> Self {
        Self { index, image }
    }

    /// Returns the pixels of the frame. Rows have no padding.
    pub fn image(&self) -> BgrImage<'a> {
        self.image
    }
}

/// Receives the sampled frames of a clip while it is decoded.
pub trait FrameSink {
    /// Called before frames of this height and width are decoded, which takes about `decoder_bytes` of memory. The sink may
    /// wait until there is memory for them and for its own work.
    fn reserve(&mut self, _height: usize, _width: usize, _decoder_bytes: u64) {}

    /// Starts a pass over the frames `wanted`: the distinct frames of `windows`, in ascending order. A second call
    /// discards the frames of the first pass.
    ///
    /// # Errors
    /// Returns an error if the sink does not support such windows.
    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()>;

    /// Receives frame `wanted[position]`. Positions are consecutive.
    ///
    /// # Errors
    /// Returns an error if the frame cannot be used; this ends the decoding of the clip.
    fn frame(&mut self, position: usize, frame: &Frame<'_>) -> Result<()>;
}

/// Result of decoding a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The actual frame count and timestamps.
    pub timeline: Timeline,
    /// The sampled windows, in order; never empty.
    pub windows: Vec<Window>,
    /// Messages for the user, such as the number of packets that cannot be decoded.
    pub warnings: Vec<String>,
    /// Why a video was decoded completely; `None` if only the necessary sections were, and for images.
    pub full: Option<&'static str>,
    /// What identifies the version of a remote file; empty for local files.
    pub version: String,
}

/// Error message if all shots of a clip are outside of it.
pub(super) const NO_SHOT: &str = "none of its shots is within the clip";
