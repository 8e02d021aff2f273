//! Decoding of clips from any source.

use std::path::{Path, PathBuf};

use super::sampler::{self, Timeline, Wanted, Window};
use super::sink::{Decoded, Frame, FrameSink, NO_SHOT};
use super::source::Source;
use super::{image, video};
use crate::error::{Error, Result};
use crate::manifest::Clip;

/// Decodes a clip and passes the sampled frames to the sink.
///
/// # Errors
/// Returns [`Error::Media`] or [`Error::Io`], naming the file, if it is missing, empty, too large or cannot be decoded, if the
/// clip starts after its end, or if none of its shots is within it. Returns the errors of the sink.
pub fn decode<'a, S: FrameSink>(clip: &Clip, wanted: impl Into<Wanted<'a>>, sink: &mut S) -> Result<Decoded> {
    let wanted = wanted.into();
    match Source::of(clip)? {
        Source::Video(path) => {
            let range = clip.start.unwrap_or(0.0)..clip.end.unwrap_or(f64::INFINITY);
            video::decode(&path, range, wanted, sink)
        }
        Source::Image(path) => decode_images(&[path], wanted, sink),
        Source::Frames(paths) => decode_images(&paths, wanted, sink),
    }
}

/// Decodes an image in memory, as [`decode`] does with a file. `name` is the path in error messages.
///
/// # Errors
/// Returns [`Error::Media`] if the bytes are not an image, or the image is damaged, truncated or too large. Returns the errors
/// of the sink.
pub fn decode_image<S: FrameSink>(name: &Path, bytes: &[u8], sink: &mut S) -> Result<()> {
    let image = image::decode(name, bytes)?;
    sink.begin(&[Window { indices: vec![0], padded: false }], &[0])?;
    sink.frame(0, &Frame::new(0, image.view()))
}

/// Returns width and height from the header of an image, or `None` if the format is unknown.
pub fn image_size(bytes: &[u8]) -> Option<(u64, u64)> {
    image::size_from_header(bytes)
}

/// Reads the metadata of a video container, which may be wrong, without decoding.
///
/// # Errors
/// Returns [`Error::Media`] if the file has no video stream that can be decoded.
pub fn container_info(path: &Path) -> Result<video::ContainerInfo> {
    video::container_info(path)
}

fn decode_images<S: FrameSink>(paths: &[PathBuf], wanted: Wanted<'_>, sink: &mut S) -> Result<Decoded> {
    let timeline = Timeline { frame_count: paths.len(), ..Timeline::default() };
    let windows = sampler::plan(wanted, &timeline);
    if windows.is_empty() {
        return Err(Error::Media { path: paths[0].clone(), message: NO_SHOT.into() });
    }
    let indices = sampler::distinct(&windows);
    sink.begin(&windows, &indices)?;
    for (position, &index) in indices.iter().enumerate() {
        let image = image::read(&paths[index], |height, width, bytes| sink.reserve(height, width, bytes))?;
        sink.frame(position, &Frame::new(index, image.view()))?;
    }
    Ok(Decoded { timeline, windows, warnings: Vec::new(), full: None })
}
