//! The kinds of files that a clip can be read from.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::frames;
use crate::error::{Error, Result};
use crate::manifest::{Clip, is_image};

/// The files of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file with a video stream.
    Video(PathBuf),
    /// One image.
    Image(PathBuf),
    /// The images of a directory, in natural order.
    Frames(Vec<PathBuf>),
}

impl Source {
    /// Determines the source of a clip: a directory contains frames, a file with the extension of an image format is an
    /// image, and any other file is a video.
    ///
    /// # Errors
    /// Returns an error if the path is not UTF-8, does not exist, is an empty file, a special file or a directory without images; or if the
    /// clip has a start or an end but is not a video, or its start is not before its end.
    pub fn of(clip: &Clip) -> Result<Self> {
        let path = &clip.file;
        let invalid = |message: &str| Err(Error::Media { path: path.clone(), message: message.into() });
        // Manifests and stores could not record it.
        if path.to_str().is_none() {
            return invalid("the path is not UTF-8: rename the file");
        }
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
                return invalid("a link to a file that does not exist");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return invalid("no such file or directory"),
            Err(error) => return Err(Error::io(path)(error)),
        };
        let (start, end) = (clip.start.unwrap_or(0.0), clip.end.unwrap_or(f64::INFINITY));
        if start.is_nan() || end.is_nan() || start < 0.0 || start >= end {
            return invalid(&format!("start {start} s is not before end {end} s"));
        }
        let source = if metadata.is_dir() {
            Source::Frames(frames::list(path)?)
        } else if !metadata.is_file() {
            return invalid("neither a file nor a directory");
        } else if metadata.len() == 0 {
            return invalid("the file is empty");
        } else if is_image(path) {
            Source::Image(path.clone())
        } else {
            Source::Video(path.clone())
        };
        if !matches!(source, Source::Video(_)) && (clip.start.is_some() || clip.end.is_some()) {
            return invalid("start and end apply to videos only: images have no timestamps");
        }
        Ok(source)
    }
}
