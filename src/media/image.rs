//! One picture: JPEG by libjpeg-turbo, all others in Rust.

use std::io::Cursor;
use std::path::Path;

use ::image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::orientation::Turn;
use super::{BgrImage, jpeg};
use crate::error::{Error, Result};

/// Endings that mean a picture, lowercase.
pub(super) const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm", "pgm"];

/// Pixels of the largest picture that is decoded (400 MB of color).
const MOST_PIXELS: u64 = 1 << 27;

/// Bytes of a pixel in the file, at most: four channels of 16 bits.
const PIXEL_BYTES: u64 = 8;

const UNDECODABLE: &str = "not a picture that can be decoded: damaged or of another format";

/// A decoded picture: eight bits, blue, green, red, rows without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

impl Picture {
    pub(super) fn image(&self) -> BgrImage<'_> {
        BgrImage::new(self.height, self.width, &self.bytes)
    }

    fn upright(self, turn: Turn) -> Self {
        if turn.is_none() {
            return self;
        }
        let mut bytes = Vec::new();
        turn.apply(self.height, self.width, &self.bytes, &mut bytes);
        let [height, width] = turn.size(self.height, self.width);
        Self { height, width, bytes }
    }
}

pub(super) fn is_named_like_one(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// Reads the picture of a file; see [`decode`].
///
/// # Errors
/// The file is missing, no picture, damaged or too large.
pub(super) fn read(path: &Path) -> Result<Picture> {
    decode(path, &std::fs::read(path).map_err(Error::io(path))?)
}

/// Decodes a picture to eight-bit color: gray is spread, alpha laid over white, 16 bits cut to 8, the orientation that its
/// EXIF tells applied; of an animation the first frame. `path` is for the error.
///
/// # Errors
/// No picture, damaged, cut off or too large.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Picture> {
    let wrong = |message: String| Error::Media { path: path.to_path_buf(), message };
    if let Some((width, height)) = claimed_size(bytes) {
        check_size(width, height).map_err(wrong)?;
    }
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return decode_other(bytes).map_err(wrong);
    }
    if jpeg::is_cut_off(bytes) {
        return Err(wrong("the picture is cut off: its file ends too early".into()));
    }
    let (height, width, pixels) = jpeg::decode(bytes, MOST_PIXELS).ok_or_else(|| wrong(UNDECODABLE.into()))?;
    Ok(Picture { height, width, bytes: pixels }.upright(Turn::upright(jpeg::orientation(bytes))))
}

/// Width and height that a picture's header claims, so that nothing is decoded that does not fit.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<(u64, u64)> {
    imagesize::blob_size(bytes).ok().map(|size| (size.width as u64, size.height as u64))
}

fn check_size(width: u64, height: u64) -> Result<(), String> {
    if width.saturating_mul(height) > MOST_PIXELS {
        return Err(format!("{width}x{height} pixels are too many: at most {MOST_PIXELS} are decoded"));
    }
    Ok(())
}

/// A picture that is no JPEG.
///
/// # Errors
/// Why it cannot be decoded.
fn decode_other(bytes: &[u8]) -> Result<Picture, String> {
    let undecodable = |error: ImageError| format!("not a picture that can be decoded: {error}");
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| UNDECODABLE)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_PIXELS * PIXEL_BYTES);
    reader.limits(limits);
    let format = reader.format().ok_or(UNDECODABLE)?;
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let turn = decoder.orientation().map(Turn::upright).unwrap_or_default();
    let color = decoder.color_type();
    let mut bytes = vec![0; usize::try_from(decoder.total_bytes()).map_err(|_| UNDECODABLE)?];
    decoder.read_image(&mut bytes).map_err(undecodable)?;
    // What a bitmap's fourth byte means, its writers do not agree upon.
    let over = if format == ImageFormat::Bmp { |value, _| value } else { over_white };
    let high = |pair: [u8; 2]| (u16::from_ne_bytes(pair) >> 8) as u8;
    match color {
        ColorType::L8 => to_three(&mut bytes, |[gray]| [gray; 3]),
        ColorType::La8 => to_three(&mut bytes, |[gray, alpha]| [over(gray, alpha); 3]),
        ColorType::Rgb8 => to_three(&mut bytes, |[red, green, blue]| [blue, green, red]),
        ColorType::Rgba8 => {
            to_three(&mut bytes, |[red, green, blue, alpha]| [blue, green, red].map(|v| over(v, alpha)))
        }
        ColorType::L16 => to_three(&mut bytes, |gray| [high(gray); 3]),
        ColorType::La16 => to_three(&mut bytes, |[a, b, c, d]| [over(high([a, b]), high([c, d])); 3]),
        ColorType::Rgb16 => to_three(&mut bytes, |[a, b, c, d, e, f]| [[e, f], [c, d], [a, b]].map(high)),
        ColorType::Rgba16 => to_three(&mut bytes, |[a, b, c, d, e, f, g, h]| {
            [[e, f], [c, d], [a, b]].map(|pair| over(high(pair), high([g, h])))
        }),
        _ => return Err("not a picture of 8 or 16 bits a channel".into()),
    }
    Ok(Picture { height: height as usize, width: width as usize, bytes }.upright(turn))
}

/// Makes three bytes of every `N`, in place where they fit.
pub(super) fn to_three<const N: usize>(bytes: &mut Vec<u8>, pixel: impl Fn([u8; N]) -> [u8; 3]) {
    if N < 3 {
        let (pixels, _) = bytes.as_chunks::<N>();
        *bytes = pixels.iter().flat_map(|&value| pixel(value)).collect();
        return;
    }
    let count = bytes.len() / N;
    for i in 0..count {
        let value = *bytes[i * N..].first_chunk::<N>().expect("as many as counted");
        bytes[3 * i..3 * i + 3].copy_from_slice(&pixel(value));
    }
    bytes.truncate(3 * count);
}

/// `value` where alpha is 255, white where it is 0; rounded.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
        png
    }

    #[test]
    fn sizes_are_read_from_headers() {
        assert_eq!(claimed_size(&png_header(65536, 7)), Some((65536, 7)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04\0\0\xff\xc0\0\x11\x08\0\x09\x01\x02\x03\x01\x11\0\x02\x11\0\x03\x11\0";
        assert_eq!(claimed_size(jpeg), Some((258, 9)));
        assert_eq!(claimed_size(b"GIF89a"), None);
    }

    #[test]
    fn an_enormous_picture_is_refused_before_it_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge.png");
        std::fs::write(&path, png_header(65536, 65536)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("huge.png: 65536x65536 pixels are too many"), "{error}");
    }

    #[test]
    fn alpha_is_laid_over_white() {
        assert_eq!(
            [over_white(10, 255), over_white(10, 0), over_white(0, 128), over_white(255, 128)],
            [10, 255, 127, 255]
        );
    }

    #[test]
    fn an_animation_gives_its_first_frame() {
        use ::image::{Delay, Frame, Rgba, RgbaImage, codecs::gif::GifEncoder};
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new(&mut bytes);
        for color in [[200, 0, 0, 255], [0, 0, 200, 255]] {
            let picture = RgbaImage::from_pixel(4, 3, Rgba(color));
            encoder.encode_frame(Frame::from_parts(picture, 0, 0, Delay::from_numer_denom_ms(100, 1))).unwrap();
        }
        drop(encoder);
        let picture = decode(Path::new("a.gif"), &bytes).unwrap();
        assert_eq!((picture.height, picture.width), (3, 4));
        let (blue, red) = (picture.bytes[0], picture.bytes[2]);
        assert!(red > 180 && blue < 20, "{red} {blue}");
    }
}
