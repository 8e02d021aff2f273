//! Titles as a published data set lists them.

use crate::manifest::clip::Split;

/// A title (film, trailer, poster) of a data set.
#[derive(Debug, Default)]
pub(super) struct Title {
    pub(super) id: String,
    /// Path of the file, if listed; otherwise the file is searched by id.
    pub(super) path: Option<String>,
    pub(super) labels: Vec<String>,
    pub(super) split: Option<Split>,
    pub(super) group: Option<String>,
    pub(super) year: Option<i32>,
    /// 1-based line of the list, if known.
    pub(super) line: Option<u64>,
}

/// The result of the reader of a format.
#[derive(Debug, Default)]
pub(super) struct TitleList {
    pub(super) titles: Vec<Title>,
    pub(super) warnings: Vec<String>,
    /// Minimum and maximum number of frames per title in the published data set, if known.
    pub(super) frame_range: Option<(usize, usize)>,
}
