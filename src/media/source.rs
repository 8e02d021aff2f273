//! The kinds of files that a clip can be read from.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::frames;
use super::location::Location;
use crate::error::{Error, Result};
use crate::manifest::Clip;

/// The files of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file with a video stream.
    Video(Location),
    /// One image.
    Image(Location),
    /// The images of a directory, in natural order.
    Frames(Vec<PathBuf>),
}

impl Source {
    /// Determines the source of a clip: a directory contains frames, a file with the extension of an image format is an
    /// image, and any other file is a video. Remote files and files in archives are not opened.
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
        let (start, end) = (clip.start.unwrap_or(0.0), clip.end.unwrap_or(f64::INFINITY));
        if start.is_nan() || end.is_nan() || start < 0.0 || start >= end {
            return invalid(&format!("start {start} s is not before end {end} s"));
        }
        let location = Location::of(clip);
        let source = match &location {
            Location::Path(path) if path.is_dir() => Source::Frames(frames::list(path)?),
            Location::Path(path) => {
                check_file(path)?;
                Source::of_file(clip, location)
            }
            Location::Member { archive, .. } => {
                if let Location::Path(archive) = &**archive {
                    check_file(archive)?;
                }
                Source::of_file(clip, location)
            }
            Location::Url(_) => Source::of_file(clip, location),
        };
        if !matches!(source, Source::Video(_)) && (clip.start.is_some() || clip.end.is_some()) {
            return invalid("start and end apply to videos only: images have no timestamps");
        }
        Ok(source)
    }
    fn of_file(clip: &Clip, location: Location) -> Self {
        if clip.is_image() { Source::Image(location) } else { Source::Video(location) }
    }
}

/// Checks that a file exists and is not empty.
fn check_file(path: &Path) -> Result<()> {
    let invalid = |message: &str| Err(Error::Media { path: path.to_path_buf(), message: message.into() });
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => invalid("neither a file nor a directory"),
        Ok(metadata) if metadata.len() == 0 => invalid("the file is empty"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
            invalid("a link to a file that does not exist")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => invalid("no such file or directory"),
        Err(error) => Err(Error::io(path)(error)),
    }
}
