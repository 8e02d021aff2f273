//! Clips and their rows, as stores and journals hold them.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// The source frames of one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RowSource {
    /// Index in the clip's file of the first frame of the window.
    pub start_frame: u64,
    /// Time of the first frame in seconds.
    pub start_seconds: f64,
    /// Time at which the last frame ends, in seconds.
    pub end_seconds: f64,
    /// `true` if the clip is shorter than the window, so that its last frame is repeated.
    pub padded: bool,
}

/// The features or descriptors of one clip.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// One feature vector per row, (rows, D).
    Features(Array2<f32>),
    /// Any number of descriptors per row.
    Descriptors {
        /// Number of descriptors of each row.
        counts: Vec<u32>,
        /// The descriptors of all rows, (Σ counts, D).
        values: Array2<u8>,
    },
}

/// A clip with its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipRows {
    /// The clip's id in the manifest.
    pub id: String,
    /// The clip's path in the manifest.
    pub path: String,
    /// Number of frames that can be decoded.
    pub frame_count: u64,
    /// Frames per second (the mean if the rate is variable; 0 for images).
    pub fps: f64,
    /// Duration of the clip in seconds.
    pub duration_seconds: f64,
    /// The source frames of each row; at least one row.
    pub rows: Vec<RowSource>,
    /// The features or descriptors of the rows.
    pub values: Values,
}

/// A clip of a store, without its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredClip {
    /// The clip's id in the manifest.
    pub id: String,
    /// The clip's path in the manifest.
    pub path: String,
    /// Index of the clip's first row in the store.
    pub offset: usize,
    /// Number of rows; at least one.
    pub length: usize,
    /// Number of frames that can be decoded.
    pub frame_count: u64,
    /// Frames per second (the mean if the rate is variable; 0 for images).
    pub fps: f64,
    /// Duration of the clip in seconds.
    pub duration_seconds: f64,
}

/// A clip that failed, which has no rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The clip's id in the manifest.
    pub id: String,
    /// The stage that failed: `decode` or `extract`.
    pub stage: String,
    /// The error message.
    pub error: String,
}
