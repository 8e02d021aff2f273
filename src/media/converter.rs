//! Conversion of decoded frames to blue, green, red by swscale, with the matrix and range that a frame is tagged with.
//!
//! Untagged frames are converted with swscale's defaults: BT.601, and the limited range unless the pixel format implies the
//! full range (`yuvj420p`, gray). This is the conversion of `ffmpeg`, of torchcodec and of OpenCV 4.13; earlier versions of
//! OpenCV ignore the tags.
//!
//! Tagged frames with more than 8 bits are converted to red, green, blue and then reordered, since swscale's x86 code for blue, green,
//! red rounds differently from that of `ffmpeg` and torchcodec. Untagged frames keep the conversion of OpenCV.

use ffmpeg_next as ffmpeg;

use ffmpeg::format::Pixel;
use ffmpeg::frame;
use ffmpeg::software::scaling::{self, context::Definition};

/// Color description of a frame, as code points of ITU-T H.273.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColorTags {
    /// Matrix coefficients (`AVColorSpace`).
    matrix: i32,
    /// 1 is limited, 2 is full (`AVColorRange`).
    range: i32,
    /// Transfer characteristics (`AVColorTransferCharacteristic`).
    transfer: i32,
}

impl ColorTags {
    /// Reads the tags of a frame.
    pub(super) fn of(frame: &frame::Video) -> Self {
        ffi_wrappers::color_tags(frame)
    }

    /// Returns a message for the user if the colors of the converted frame are not those of a display.
    pub(super) fn warning(self) -> Option<String> {
        let transfer = hdr_name(self.transfer);
        let matrix = match self.matrix {
            8 => Some("YCgCo"),
            10 => Some("BT.2020 with constant luminance"),
            11 => Some("SMPTE 2085"),
            12 | 13 => Some("derived from the primaries"),
            14 => Some("ICtCp"),
            15.. => Some("unknown"),
            _ => None,
        };
        match (transfer, matrix) {
            (_, Some(matrix)) => Some(format!("the color matrix ({matrix}) is not supported: colors are approximate")),
            (Some(transfer), None) => Some(format!("HDR ({transfer}) is converted without tone mapping")),
            (None, None) => None,
        }
    }

    /// Returns the index of swscale's table of coefficients, or `None` for its default.
    fn coefficients(self) -> Option<i32> {
        // 2 is unspecified, 3 is reserved.
        matches!(self.matrix, 1 | 4..=7 | 9 | 10).then_some(self.matrix)
    }

    /// Returns `true` for the full range and `false` for the limited range, or `None` if the pixel format decides.
    fn full_range(self) -> Option<bool> {
        match self.range {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        }
    }
}

/// Returns the name of transfer characteristics with high dynamic range; `None` for others.
pub(super) fn hdr_name(transfer: i32) -> Option<&'static str> {
    match transfer {
        16 => Some("PQ"),
        18 => Some("HLG"),
        _ => None,
    }
}

/// Converts frames to blue, green, red. The converter of the last format, size and color description is cached.
pub(super) struct Converter {
    context: Option<(Definition, ColorTags, scaling::Context)>,
    image: frame::Video,
}

impl Converter {
    pub(super) fn new() -> Self {
        Self { context: None, image: frame::Video::empty() }
    }

    /// Converts a frame. Returns the image with padded rows, or `None` if swscale does not support the format.
    pub(super) fn run(&mut self, frame: &frame::Video) -> Option<&mut frame::Video> {
        let source = Definition { format: frame.format(), width: frame.width(), height: frame.height() };
        let tags = ColorTags::of(frame);
        if self.context.as_ref().is_none_or(|(definition, last, _)| (*definition, *last) != (source, tags)) {
            self.context = Some((source, tags, create_context(source, tags)?));
            self.image = frame::Video::new(target(source.format, tags), source.width, source.height);
        }
        let (_, _, context) = self.context.as_mut()?;
        context.run(frame, &mut self.image).ok()?;
        if self.image.format() == Pixel::RGB24 {
            let (stride, width) = (self.image.stride(0), 3 * source.width as usize);
            for row in self.image.data_mut(0).chunks_mut(stride) {
                let len = width.min(row.len());
                row[..len].chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
            }
        }
        Some(&mut self.image)
    }
}

/// Returns the format that swscale converts to: blue, green, red, or red, green, blue.
fn target(source: Pixel, tags: ColorTags) -> Pixel {
    let is_tagged = tags.coefficients().is_some() || tags.full_range().is_some();
    if is_tagged && ffi_wrappers::depth(source) > 8 { Pixel::RGB24 } else { Pixel::BGR24 }
}

/// Creates a converter without resizing.
fn create_context(source: Definition, tags: ColorTags) -> Option<scaling::Context> {
    let Definition { format, width, height } = source;
    let flags = scaling::Flags::BICUBIC;
    let mut context = scaling::Context::get(format, width, height, target(format, tags), width, height, flags).ok()?;
    if !ffi_wrappers::is_rgb(format) {
        ffi_wrappers::set_source_color(&mut context, tags.coefficients(), tags.full_range());
    }
    Some(context)
}

/// Functions and fields of libav that ffmpeg-next does not wrap.
#[allow(unsafe_code)]
mod ffi_wrappers {
    use std::ptr;

    use ffmpeg::ffi;
    use ffmpeg::format::Pixel;
    use ffmpeg::frame;
    use ffmpeg::software::scaling;
    use ffmpeg_next as ffmpeg;

    use super::ColorTags;

    /// Reads the tags of a frame as integers: decoders also pass on values that the enumerations of libav lack.
    pub(super) fn color_tags(frame: &frame::Video) -> ColorTags {
        // SAFETY: the frame is valid, and libav's enumerations have the size of an int.
        unsafe {
            let raw = frame.as_ptr();
            ColorTags {
                matrix: (&raw const (*raw).colorspace).cast::<i32>().read(),
                range: (&raw const (*raw).color_range).cast::<i32>().read(),
                transfer: (&raw const (*raw).color_trc).cast::<i32>().read(),
            }
        }
    }

    /// Returns `true` if a format stores red, green and blue, directly or as a palette.
    pub(super) fn is_rgb(format: Pixel) -> bool {
        // SAFETY: the function returns null or a description that is never freed.
        let flags = unsafe { ffi::av_pix_fmt_desc_get(format.into()).as_ref() }.map_or(0, |format| format.flags);
        flags & (ffi::AV_PIX_FMT_FLAG_RGB | ffi::AV_PIX_FMT_FLAG_PAL) as u64 != 0
    }

    /// Returns the number of bits of a format's first component; 0 if unknown.
    pub(super) fn depth(format: Pixel) -> i32 {
        // SAFETY: the function returns null or a description that is never freed.
        unsafe { ffi::av_pix_fmt_desc_get(format.into()).as_ref() }.map_or(0, |format| format.comp[0].depth)
    }

    /// Sets the matrix and the range of a source that is not RGB, if they differ from those of the context.
    pub(super) fn set_source_color(context: &mut scaling::Context, matrix: Option<i32>, full_range: Option<bool>) {
        let (mut current, mut table) = (ptr::null_mut(), ptr::null_mut());
        let (mut full, mut target_full, mut brightness, mut contrast, mut saturation) = (0, 0, 0, 0, 0);
        // SAFETY: the context is valid. The outputs are local variables, and both tables have four integers that live as long
        // as the context; the tables of `sws_getCoefficients` are never freed.
        unsafe {
            let code = ffi::sws_getColorspaceDetails(
                context.as_mut_ptr(),
                &mut current,
                &mut full,
                &mut table,
                &mut target_full,
                &mut brightness,
                &mut contrast,
                &mut saturation,
            );
            if code < 0 {
                return;
            }
            let read = |table: *const i32| -> [i32; 4] { table.cast::<[i32; 4]>().read() };
            let coefficients = matrix.map_or(read(current), |matrix| read(ffi::sws_getCoefficients(matrix)));
            let target = read(table);
            let wanted_full = full_range.map_or(full, i32::from);
            if (coefficients, wanted_full) != (read(current), full) {
                let (source, target) = (coefficients.as_ptr(), target.as_ptr());
                let context = context.as_mut_ptr();
                ffi::sws_setColorspaceDetails(
                    context,
                    source,
                    wanted_full,
                    target,
                    target_full,
                    brightness,
                    contrast,
                    saturation,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use ffmpeg::color::{Range, Space};

    /// Weights of red and blue in luma: ITU-R BT.601, BT.709, BT.2020, SMPTE 240M and FCC (ITU-T H.273, table 4).
    fn luma_weights(matrix: Space) -> [f64; 2] {
        match matrix {
            Space::BT709 => [0.2126, 0.0722],
            Space::BT2020NCL => [0.2627, 0.0593],
            Space::SMPTE240M => [0.212, 0.087],
            Space::FCC => [0.30, 0.11],
            _ => [0.299, 0.114],
        }
    }

    /// Returns blue, green, red for Y′CbCr integers of `bits` bits by the equations of H.273.
    fn expected([y, cb, cr]: [u16; 3], matrix: Space, full: bool, bits: u32) -> [f64; 3] {
        let scale = f64::from(1u32 << (bits - 8));
        let (peak, offset) = (f64::from((1u32 << bits) - 1), 128.0 * scale);
        let (y, cb, cr) = (f64::from(y), f64::from(cb) - offset, f64::from(cr) - offset);
        let (y, cb, cr) = if full {
            (y / peak, cb / peak, cr / peak)
        } else {
            ((y - 16.0 * scale) / (219.0 * scale), cb / (224.0 * scale), cr / (224.0 * scale))
        };
        let [red_weight, blue_weight] = luma_weights(matrix);
        let red = y + 2.0 * (1.0 - red_weight) * cr;
        let blue = y + 2.0 * (1.0 - blue_weight) * cb;
        let green = (y - red_weight * red - blue_weight * blue) / (1.0 - red_weight - blue_weight);
        [blue, green, red].map(|value| (255.0 * value).clamp(0.0, 255.0))
    }

    /// Converts a frame of one color and returns its center pixel.
    fn convert(format: Pixel, size: (u32, u32), color: [u16; 3], matrix: Space, range: Range, bits: u32) -> [u8; 3] {
        let mut frame = frame::Video::new(format, size.0, size.1);
        for (plane, value) in color.into_iter().enumerate().take(frame.planes()) {
            let data = frame.data_mut(plane);
            match bits {
                8 => data.fill(value as u8),
                _ => data.chunks_exact_mut(2).for_each(|sample| sample.copy_from_slice(&value.to_le_bytes())),
            }
        }
        frame.set_color_space(matrix);
        frame.set_color_range(range);
        let mut converter = Converter::new();
        let image = converter.run(&frame).unwrap();
        let at = size.1 as usize / 2 * image.stride(0) + 3 * (size.0 as usize / 2);
        *image.data(0)[at..].first_chunk().unwrap()
    }

    /// The tolerance is that of swscale's fixed-point arithmetic. Another matrix or range would differ by more than 5.
    fn assert_close(actual: [u8; 3], expected: [f64; 3], context: &str) {
        for (actual, expected) in actual.into_iter().zip(expected) {
            assert!((f64::from(actual) - expected).abs() <= 3.0, "{context}: {actual}, {expected}");
        }
    }

    /// Colors in eight bits, within both ranges.
    const COLORS: [[u16; 3]; 5] = [[60, 110, 190], [180, 90, 100], [120, 160, 128], [235, 128, 128], [16, 128, 128]];

    #[test]
    fn every_matrix_and_range_follows_its_equations() {
        let matrices = [
            Space::BT470BG,
            Space::SMPTE170M,
            Space::BT709,
            Space::BT2020NCL,
            Space::SMPTE240M,
            Space::FCC,
            Space::Unspecified,
        ];
        let formats = [
            (Pixel::YUV420P, 8),
            (Pixel::YUV422P, 8),
            (Pixel::YUV444P, 8),
            (Pixel::YUV420P10LE, 10),
            (Pixel::YUV422P10LE, 10),
            (Pixel::YUV444P10LE, 10),
            (Pixel::YUV420P12LE, 12),
            (Pixel::YUV422P12LE, 12),
            (Pixel::YUV444P12LE, 12),
        ];
        for (format, bits) in formats {
            for matrix in matrices {
                for range in [Range::MPEG, Range::JPEG, Range::Unspecified] {
                    // Sizes for which swscale has special code, and odd sizes.
                    for size in [(32, 16), (33, 17)] {
                        for color in COLORS {
                            let color = color.map(|value| value << (bits - 8));
                            let actual = convert(format, size, color, matrix, range, bits);
                            let expected = expected(color, matrix, range == Range::JPEG, bits);
                            assert_close(
                                actual,
                                expected,
                                &format!("{format:?} {matrix:?} {range:?} {size:?} {color:?}"),
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn tagged_frames_with_more_than_8_bits_are_converted_to_rgb() {
        let mut frame = frame::Video::new(Pixel::YUV420P10LE, 34, 18);
        for plane in 0..3 {
            let samples = frame.data_mut(plane).chunks_exact_mut(2).enumerate();
            samples.for_each(|(i, sample)| {
                sample.copy_from_slice(&(64 + (i * (37 + 12 * plane) % 850) as u16).to_le_bytes())
            });
        }
        // Limited-range BT.601 is also the default of swscale.
        frame.set_color_space(Space::SMPTE170M);
        frame.set_color_range(Range::MPEG);
        let flags = scaling::Flags::BICUBIC;
        let mut context = scaling::Context::get(Pixel::YUV420P10LE, 34, 18, Pixel::RGB24, 34, 18, flags).unwrap();
        let mut expected = frame::Video::empty();
        context.run(&frame, &mut expected).unwrap();
        let mut converter = Converter::new();
        let image = converter.run(&frame).unwrap();
        for y in 0..18 {
            let row = |image: &frame::Video| image.data(0)[y * image.stride(0)..][..3 * 34].to_vec();
            let swapped: Vec<u8> =
                row(&expected).chunks_exact(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
            assert_eq!(row(image), swapped, "row {y}");
        }
    }

    #[test]
    fn jpeg_formats_have_the_full_range() {
        for format in [Pixel::YUVJ420P, Pixel::YUVJ422P, Pixel::YUVJ444P] {
            for range in [Range::JPEG, Range::Unspecified] {
                for matrix in [Space::BT709, Space::Unspecified] {
                    let actual = convert(format, (32, 16), COLORS[0], matrix, range, 8);
                    assert_close(actual, expected(COLORS[0], matrix, true, 8), &format!("{format:?} {matrix:?}"));
                }
            }
        }
    }

    /// swscale copies gray, as `ffmpeg` does.
    #[test]
    fn gray_is_copied() {
        for range in [Range::Unspecified, Range::JPEG] {
            assert_eq!(convert(Pixel::GRAY8, (32, 16), [60, 0, 0], Space::Unspecified, range, 8), [60; 3]);
        }
    }

    #[test]
    fn rgb_formats_have_no_matrix() {
        for matrix in [Space::RGB, Space::BT709, Space::Unspecified] {
            for range in [Range::MPEG, Range::JPEG] {
                // The planes are green, blue, red.
                let actual = convert(Pixel::GBRP, (32, 16), [10, 20, 30], matrix, range, 8);
                assert_eq!(actual, [20, 10, 30], "{matrix:?} {range:?}");
            }
        }
    }

    #[test]
    fn untagged_frames_are_converted_with_the_defaults_of_swscale() {
        let mut frame = frame::Video::new(Pixel::YUV420P, 32, 16);
        for plane in 0..3 {
            let bytes = frame.data_mut(plane);
            (0..bytes.len()).for_each(|i| bytes[i] = (i * (37 + 12 * plane) % 251) as u8);
        }
        let flags = scaling::Flags::BICUBIC;
        let mut context = scaling::Context::get(Pixel::YUV420P, 32, 16, Pixel::BGR24, 32, 16, flags).unwrap();
        let mut image = frame::Video::empty();
        context.run(&frame, &mut image).unwrap();
        let mut converter = Converter::new();
        assert!(converter.run(&frame).unwrap().data(0) == image.data(0));
        // BT.601 and the limited range are the defaults.
        frame.set_color_space(Space::SMPTE170M);
        frame.set_color_range(Range::MPEG);
        assert!(converter.run(&frame).unwrap().data(0) == image.data(0));
        // The cache depends on the tags.
        frame.set_color_space(Space::BT709);
        assert!(converter.run(&frame).unwrap().data(0) != image.data(0));
        frame.set_color_space(Space::Unspecified);
        frame.set_color_range(Range::Unspecified);
        assert!(converter.run(&frame).unwrap().data(0) == image.data(0));
    }
}
