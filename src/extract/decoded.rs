//! Clips after decoding.

use crate::error::Result;
use crate::manifest::Clip;
use crate::store::{Failure, RowSource};

/// A clip after decoding.
#[derive(Debug)]
pub struct DecodedClip<T> {
    /// Number of frames that can be decoded.
    pub frame_count: u64,
    /// Frames per second; 0 for images.
    pub fps: f64,
    /// Duration of the clip in seconds.
    pub duration_seconds: f64,
    /// Why the whole video was decoded, and not only the necessary sections.
    pub full: Option<&'static str>,
    /// What identifies the version of a remote file; empty for local files.
    pub version: String,
    /// Source frames of each row.
    pub rows: Vec<RowSource>,
    /// Number of frames that were used.
    pub frames: usize,
    /// Messages for the user.
    pub warnings: Vec<String>,
    /// The pixels of the network's input, or descriptors.
    pub content: T,
}

/// Decodes one clip. Each worker thread has its own function, which may keep buffers.
pub type DecodeFn<'a, T> = Box<dyn FnMut(&Clip) -> Result<DecodedClip<T>> + Send + 'a>;

/// Result of a decode worker for one clip.
pub enum DecodeResult<T> {
    /// The clip was decoded.
    Decoded {
        /// Position of the clip in the manifest.
        clip: usize,
        /// Its content.
        decoded: DecodedClip<T>,
    },
    /// The clip failed.
    Failed(Failure),
    /// The run was cancelled while the clip was read.
    Cancelled,
}

/// A decoded clip without its content.
pub type ClipHeader = DecodedClip<()>;

impl<T> DecodedClip<T> {
    /// Separates the content from the rest.
    pub fn split(self) -> (ClipHeader, T) {
        let Self { frame_count, fps, duration_seconds, full, version, rows, frames, warnings, content } = self;
        (ClipHeader { frame_count, fps, duration_seconds, full, version, rows, frames, warnings, content: () }, content)
    }
}
