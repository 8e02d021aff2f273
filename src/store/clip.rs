//! Clips and their rows, as stores and journals hold them.

use std::fmt;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::manifest::Clip;

/// Identifies a clip across manifests: its id and the part of a file that it shows. [`Display`](fmt::Display) formats that part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClipKey {
    /// The clip's id.
    pub id: String,
    /// The clip's path.
    pub path: String,
    /// Bits of start and end in seconds; 0 and infinity if the manifest has none.
    period: [u64; 2],
}

impl ClipKey {
    pub(super) fn new(id: &str, path: &str, start: Option<f64>, end: Option<f64>) -> Self {
        // The sum turns -0 into 0.
        let period = [start.unwrap_or(0.0) + 0.0, end.unwrap_or(f64::INFINITY)];
        Self { id: id.into(), path: path.into(), period: period.map(f64::to_bits) }
    }

    /// Returns start and end in seconds; 0 and infinity if the manifest has none.
    pub fn period(&self) -> [f64; 2] {
        self.period.map(f64::from_bits)
    }
}

impl From<&Clip> for ClipKey {
    fn from(clip: &Clip) -> Self {
        Self::new(&clip.id, &clip.path, clip.start, clip.end)
    }
}

impl fmt::Display for ClipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [start, end] = self.period();
        f.write_str(&self.path)?;
        if start > 0.0 {
            write!(f, " from {start} s")?;
        }
        if end.is_finite() {
            write!(f, " to {end} s")?;
        }
        Ok(())
    }
}

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
    /// Factor by which a large frame was scaled down before SIFT, in (0, 1]; 1 if it was not, and for networks.
    #[serde(default = "one")]
    pub scale: f64,
}

fn one() -> f64 {
    1.0
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
    /// The clip's start in seconds, if the manifest has one.
    pub start: Option<f64>,
    /// The clip's end in seconds, if the manifest has one.
    pub end: Option<f64>,
    /// Number of frames that can be decoded.
    pub frame_count: u64,
    /// Frames per second (the mean if the rate is variable; 0 for images).
    pub fps: f64,
    /// Duration of the clip in seconds.
    pub duration_seconds: f64,
    /// `true` if the whole video was decoded, because it was unknown which sections contain the frames.
    pub fully_decoded: bool,
    /// What identifies the version of a remote file: its ETag, `sha256:` and a hash, or `modified:` and seconds since 1970. Empty for
    /// local files.
    pub version: String,
    /// The source frames of each row; at least one row.
    pub rows: Vec<RowSource>,
    /// The features or descriptors of the rows.
    pub values: Values,
}

impl ClipRows {
    pub(super) fn key(&self) -> ClipKey {
        ClipKey::new(&self.id, &self.path, self.start, self.end)
    }

    /// Returns the clip without its rows, the first of which has the index `offset` in the store.
    pub(super) fn at(&self, offset: usize) -> StoredClip {
        StoredClip {
            id: self.id.clone(),
            path: self.path.clone(),
            start: self.start,
            end: self.end,
            offset,
            length: self.rows.len(),
            frame_count: self.frame_count,
            fps: self.fps,
            duration_seconds: self.duration_seconds,
            fully_decoded: self.fully_decoded,
            version: self.version.clone(),
        }
    }
}

/// A clip of a store, without its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredClip {
    /// The clip's id in the manifest.
    pub id: String,
    /// The clip's path in the manifest.
    pub path: String,
    /// The clip's start in seconds, if the manifest has one.
    pub start: Option<f64>,
    /// The clip's end in seconds, if the manifest has one.
    pub end: Option<f64>,
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
    /// `true` if the whole video was decoded, because it was unknown which sections contain the frames.
    pub fully_decoded: bool,
    /// What identifies the version of a remote file; see [`ClipRows::version`].
    pub version: String,
}

impl StoredClip {
    /// Returns the clip with its rows.
    pub fn with_rows(&self, rows: Vec<RowSource>, values: Values) -> ClipRows {
        ClipRows {
            id: self.id.clone(),
            path: self.path.clone(),
            start: self.start,
            end: self.end,
            frame_count: self.frame_count,
            fps: self.fps,
            duration_seconds: self.duration_seconds,
            fully_decoded: self.fully_decoded,
            version: self.version.clone(),
            rows,
            values,
        }
    }

    /// Returns the key of the clip.
    pub fn key(&self) -> ClipKey {
        ClipKey::new(&self.id, &self.path, self.start, self.end)
    }
}

/// A clip that failed, which has no rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The clip's id in the manifest.
    pub id: String,
    /// The clip's path in the manifest; empty if it is not recorded.
    #[serde(default)]
    pub path: String,
    /// The clip's start in seconds, if the manifest has one.
    #[serde(default)]
    pub start: Option<f64>,
    /// The clip's end in seconds, if the manifest has one.
    #[serde(default)]
    pub end: Option<f64>,
    /// The stage that failed: `decode` or `extract`.
    pub stage: String,
    /// The error message.
    pub error: String,
}

impl Failure {
    /// Returns `true` if this clip failed, and has the same path, start and end as then.
    pub fn is_of(&self, clip: &Clip) -> bool {
        let recorded = ClipKey::new(&self.id, &self.path, self.start, self.end);
        recorded == ClipKey::from(clip) || (self.path.is_empty() && self.id == clip.id)
    }
}
