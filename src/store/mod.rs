//! Feature stores: HDF5 files that others read with h5py, HDFView or h5web. The only user of HDF5.
//!
//! ```text
//! /            attrs: format="kinoprobe-features" format_version=1 method model weights model_sha256 recipe(JSON)
//!              manifest_sha256 dim precision provider tool_version created extract_seconds
//! /features    f32 [R, D], chunked, gzip + shuffle   one row per frame, window or frame histogram
//! /rows/clip u32 [R] · /rows/start_frame u64 · /rows/start_seconds f64 · /rows/end_seconds f64 · /rows/padded u8
//! /clips/id str [N] · path str · offset u64 · length u32 · frame_count u64 · fps f64 · duration_seconds f64
//! /pooled/mean f32 [N, D] · /pooled/max f32 [N, D]
//! /failures/id str [F] · stage str · error str
//! ```
//!
//! A *descriptor store* (`format="kinoprobe-descriptors"`) has `/descriptors` u8 [K, D] and `/rows/descriptors` u32 [R]
//! (how many of them each frame has) in place of `/features` and `/pooled`; everything else is the same.
//!
//! While clips are extracted they go to `NAME.h5.partial`, a [`Journal`]: append-only, checksummed records that a kill at
//! any moment cannot damage. When all are there, the store is written in one pass, in the order of the manifest, and
//! takes its name by a rename. (An HDF5 file that grows with a flush per batch does not do: its last chunks are compressed
//! and written anew in place, and of 150 kills that hit such flushes, 49 left a file that could not be gone on with.)

mod journal;
mod layout;
mod pooling;
mod reader;
mod writer;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

pub use journal::Journal;
pub use layout::{Difference, Payload, Provenance};
pub use pooling::Pooling;
pub use reader::{DescriptorStore, FeatureStore, Store};
pub use writer::StoreWriter;

/// Where one row of features comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// First frame of the frame or window, counted from 0 in the clip.
    pub start_frame: u64,
    /// Time of the first frame.
    pub start_seconds: f64,
    /// Time at which the last frame ends.
    pub end_seconds: f64,
    /// Whether the window was longer than the clip and repeats its last frame.
    pub padded: bool,
}

/// The rows of one clip.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// One feature vector a row, (rows, D).
    Features(Array2<f32>),
    /// Any number of descriptors a row.
    Descriptors {
        /// How many each row has.
        counts: Vec<u32>,
        /// All of them, row after row, (Σ counts, D).
        values: Array2<u8>,
    },
}

/// A clip with its rows, as it is written and copied.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipRows {
    /// The clip's id in the manifest.
    pub id: String,
    /// The clip's path in the manifest.
    pub path: String,
    /// Frames that really decode.
    pub frame_count: u64,
    /// Frames a second (the mean, where the rate varies; 0 for images).
    pub fps: f64,
    /// Length of the clip.
    pub duration_seconds: f64,
    /// Where each row comes from; at least one.
    pub rows: Vec<Row>,
    /// The features or descriptors of those rows.
    pub values: Values,
}

/// A clip of a store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredClip {
    /// The clip's id in the manifest.
    pub id: String,
    /// The clip's path in the manifest.
    pub path: String,
    /// Its first row.
    pub offset: usize,
    /// Its number of rows.
    pub length: usize,
    /// Frames that really decode.
    pub frame_count: u64,
    /// Frames a second (the mean, where the rate varies; 0 for images).
    pub fps: f64,
    /// Length of the clip.
    pub duration_seconds: f64,
}

/// A clip that failed: it has no rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The clip's id in the manifest.
    pub id: String,
    /// Where it failed: `decode` or `extract`.
    pub stage: String,
    /// What was wrong.
    pub error: String,
}

#[cfg(test)]
mod tests;
