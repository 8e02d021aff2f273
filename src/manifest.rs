//! Which clips: ids, paths, labels, groups and splits.
pub mod split;

use std::path::PathBuf;

/// Which part of the data a clip belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Fits the classifier (and the codebook, and the standardisation).
    Train,
    /// Decides early stopping and thresholds.
    Val,
    /// Is only ever looked at.
    Test,
}

/// One clip of the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Unique within the manifest.
    pub id: String,
    /// The path as the manifest gives it.
    pub path: String,
    /// The file (or folder of frames) itself: `path` below the root.
    pub file: PathBuf,
    /// The labels; empty where the clip is unlabelled, one for single-label data.
    pub labels: Vec<String>,
    /// Clips of one group (a film, a source video) never stand in two splits.
    pub group: Option<String>,
    /// The split, where the manifest gives one.
    pub split: Option<Split>,
    /// First second to use.
    pub start: Option<f64>,
    /// Second to stop before.
    pub end: Option<f64>,
}

/// The clips of a data set, in the order of the file.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file or folder it was read from.
    pub source: PathBuf,
    /// The clips.
    pub clips: Vec<Clip>,
    /// What the user should know: unknown columns, unlabelled clips left out.
    pub warnings: Vec<String>,
    /// SHA-256 of the clips' ids, paths, starts and ends, in hexadecimal.
    pub sha256: String,
}
