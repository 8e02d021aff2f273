//! Clips as a reader parsed them, before validation.

use super::clip::Clip;

/// A clip and the 1-based line that lists it; `None` for directories.
pub(super) struct ParsedClip {
    pub(super) clip: Clip,
    pub(super) line: Option<u64>,
}

/// The result of the reader of one format; [`super::validate`] checks it.
#[derive(Default)]
pub(super) struct ParsedManifest {
    pub(super) clips: Vec<ParsedClip>,
    pub(super) warnings: Vec<String>,
}
