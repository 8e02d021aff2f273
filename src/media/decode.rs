//! Decoding of clips from any source.

use std::path::Path;
use std::sync::Arc;

use super::input::Input;
use super::location::Location;
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
        Source::Video(location) => {
            let range = clip.start.unwrap_or(0.0)..clip.end.unwrap_or(f64::INFINITY);
            let input = location.open()?;
            let decoded = video::decode(&input, range, wanted, sink)?;
            Ok(Decoded { version: input.version().into(), ..decoded })
        }
        Source::Image(location) => {
            let input = location.open()?;
            let decoded = decode_images(&[Arc::clone(&input)], wanted, sink)?;
            Ok(Decoded { version: input.version().into(), ..decoded })
        }
        Source::Frames(paths) => {
            let inputs: Vec<_> = paths.iter().map(|path| Input::at(path)).collect();
            decode_images(&inputs, wanted, sink)
        }
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
pub fn container_info(location: &Location) -> Result<video::ContainerInfo> {
    video::container_info(&location.open()?)
}

fn decode_images<S: FrameSink>(inputs: &[Arc<Input>], wanted: Wanted<'_>, sink: &mut S) -> Result<Decoded> {
    let timeline = Timeline { frame_count: inputs.len(), ..Timeline::default() };
    let windows = sampler::plan(wanted, &timeline);
    if windows.is_empty() {
        return Err(Error::Media { path: inputs[0].name().to_path_buf(), message: NO_SHOT.into() });
    }
    let indices = sampler::distinct(&windows);
    sink.begin(&windows, &indices)?;
    for (position, &index) in indices.iter().enumerate() {
        let input = &inputs[index];
        let image = {
            let bytes = input.read_all(image::MAX_FILE_BYTES)?;
            let reserve = |height, width, bytes| sink.reserve(height, width, bytes);
            image::decode_reserving(input.name(), &bytes, reserve)?
        };
        sink.frame(position, &Frame::new(index, image.view()))?;
    }
    Ok(Decoded { timeline, windows, warnings: Vec::new(), full: None, version: String::new() })
}
