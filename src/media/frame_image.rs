//! Images of decoded frames: conversion to color, and the display matrix.

use ffmpeg_next::frame;

use super::converter::{ColorTags, Converter};
use super::orientation::Orientation;
use super::pixels::BgrImage;

/// A decoded frame in the format of the codec.
pub(super) struct RawFrame {
    pub(super) frame: frame::Video,
    /// Width and height of the coded frame, whose upper left part is displayed.
    coded_size: (u32, u32),
}

impl RawFrame {
    /// Creates a frame whose buffers have `coded_size`, which is at least its displayed size.
    pub(super) fn new(frame: frame::Video, coded_size: (u32, u32)) -> Self {
        Self { frame, coded_size }
    }

    /// Creates a frame that is displayed completely.
    pub(super) fn uncropped(frame: frame::Video) -> Self {
        let coded_size = (frame.width(), frame.height());
        Self { frame, coded_size }
    }
}

/// Converts the frames of a video to images.
pub(super) struct FrameImages {
    orientation: Orientation,
    converter: Converter,
    color_tags: Option<ColorTags>,
    oriented: Vec<u8>,
}

impl FrameImages {
    /// Creates a converter that applies this orientation.
    pub(super) fn new(orientation: Orientation) -> Self {
        Self { orientation, converter: Converter::new(), color_tags: None, oriented: Vec::new() }
    }

    /// Returns the color description of the last frame that was converted.
    pub(super) fn color_tags(&self) -> Option<ColorTags> {
        self.color_tags
    }

    /// Converts a frame to color and applies the orientation. Returns `None` if swscale does not support its format.
    pub(super) fn convert(&mut self, RawFrame { frame, coded_size }: &mut RawFrame) -> Option<BgrImage<'_>> {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        self.color_tags = Some(ColorTags::of(frame));
        // As in OpenCV, the coded frame is converted and then cropped, which yields different colors for odd sizes.
        frame.set_width(coded_size.0);
        frame.set_height(coded_size.1);
        let converted = self.converter.run(frame);
        frame.set_width(width as u32);
        frame.set_height(height as u32);
        let converted = converted?;
        let stride = converted.stride(0);
        let bytes = converted.data_mut(0);
        // Remove the padding of rows.
        for y in 1..height {
            bytes.copy_within(y * stride..y * stride + 3 * width, y * 3 * width);
        }
        let bytes = &bytes[..height * width * 3];
        if self.orientation.is_identity() {
            return Some(BgrImage::new(height, width, bytes));
        }
        self.orientation.apply(height, width, bytes, &mut self.oriented);
        let [height, width] = self.orientation.output_size(height, width);
        Some(BgrImage::new(height, width, &self.oriented))
    }
}
