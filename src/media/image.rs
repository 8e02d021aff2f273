//! One picture.

use std::io::Cursor;
use std::path::Path;

use ::image::codecs::{gif::GifDecoder, webp::WebPDecoder};
use ::image::{AnimationDecoder as _, RgbaImage};
use opencv::core::{Mat, MatTraitConst as _, MatTraitConstManual as _, Vec3b, Vec4w};
use opencv::imgcodecs;

use crate::error::{Error, Result};

/// Endings that mean a picture, lowercase.
pub(super) const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm", "pgm"];

/// Pixels of the largest picture that is decoded (400 MB of colour).
const MOST_PIXELS: u64 = 1 << 27;

pub(super) fn is_named_like_one(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// Reads the picture of a file; see [`decode`].
///
/// # Errors
/// The file is missing, no picture, damaged or too large.
pub(super) fn read(path: &Path) -> Result<Mat> {
    decode(path, &std::fs::read(path).map_err(Error::io(path))?)
}

/// Decodes a picture to eight-bit colour: grey is spread, alpha laid over white, 16 bits cut to 8, the EXIF orientation
/// of a JPEG applied; of an animation the first frame. `path` is for the error.
///
/// # Errors
/// No picture, damaged, cut off or too large.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Mat> {
    let wrong = |message: String| Error::Media { path: path.to_path_buf(), message };
    if let Some((width, height)) = claimed_size(bytes)
        && width.saturating_mul(height) > MOST_PIXELS
    {
        return Err(wrong(format!("{width}x{height} pixels are too many: at most {MOST_PIXELS} are decoded")));
    }
    let picture = match Kind::of(bytes) {
        Kind::Jpeg if is_cut_off(bytes) => return Err(wrong("the picture is cut off: its file ends too early".into())),
        Kind::Animation => first_frame(bytes).and_then(|frame| over_white(&frame)),
        Kind::MayHaveAlpha => {
            let picture = imdecode(bytes, imgcodecs::IMREAD_UNCHANGED);
            match picture {
                Ok(picture) if picture.channels() == 4 => flatten(&picture),
                _ => imdecode(bytes, imgcodecs::IMREAD_COLOR),
            }
        }
        Kind::Jpeg | Kind::Other => imdecode(bytes, imgcodecs::IMREAD_COLOR),
    };
    let picture = picture.map_err(wrong)?;
    if picture.empty() {
        return Err(wrong("not a picture that can be decoded: damaged or of another format".into()));
    }
    Ok(picture)
}

/// Width and height that a picture's header claims, so that nothing is decoded that does not fit.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<(u64, u64)> {
    imagesize::blob_size(bytes).ok().map(|size| (size.width as u64, size.height as u64))
}

/// What a picture needs beside OpenCV's plain decoding.
enum Kind {
    Jpeg,
    /// PNG, still WebP or TIFF.
    MayHaveAlpha,
    /// GIF or animated WebP, which OpenCV does not read.
    Animation,
    Other,
}

impl Kind {
    fn of(bytes: &[u8]) -> Self {
        let webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
        // The extended header's second flag bit says animation.
        let animated = bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|flags| flags & 2 != 0);
        match bytes {
            [0xff, 0xd8, ..] => Kind::Jpeg,
            [b'G', b'I', b'F', b'8', ..] => Kind::Animation,
            _ if webp && animated => Kind::Animation,
            [0x89, b'P', b'N', b'G', ..] | [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Kind::MayHaveAlpha,
            _ if webp => Kind::MayHaveAlpha,
            _ => Kind::Other,
        }
    }
}

/// An empty picture where it cannot be decoded.
fn imdecode(bytes: &[u8], flags: i32) -> Result<Mat, String> {
    if bytes.is_empty() {
        return Ok(Mat::default());
    }
    let bytes = Mat::from_slice(bytes).map_err(|e| e.message)?;
    imgcodecs::imdecode(&bytes, flags).map_err(|e| e.message)
}

/// Whether a JPEG ends before its end marker: libjpeg would fill the rest with grey.
fn is_cut_off(bytes: &[u8]) -> bool {
    fn end(bytes: &[u8]) -> Option<()> {
        let mut at = 2;
        loop {
            // Between segments only fill bytes may stand; after a scan, its data up to the next marker.
            while *bytes.get(at)? != 0xff || matches!(*bytes.get(at + 1)?, 0x00 | 0xff | 0xd0..=0xd7) {
                at += 1;
            }
            match bytes[at + 1] {
                0xd9 => return Some(()),
                0x01 | 0xd8 => at += 2,
                _ => at += 2 + usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?])),
            }
        }
    }
    end(bytes).is_none()
}

fn first_frame(bytes: &[u8]) -> Result<RgbaImage, String> {
    let undecodable = |error: ::image::ImageError| format!("not a picture that can be decoded: {error}");
    let frame = if bytes.starts_with(b"GIF8") {
        GifDecoder::new(Cursor::new(bytes)).map_err(undecodable)?.into_frames().next()
    } else {
        WebPDecoder::new(Cursor::new(bytes)).map_err(undecodable)?.into_frames().next()
    };
    let frame = frame.ok_or("the animation has no frame")?.map_err(undecodable)?;
    Ok(frame.into_buffer())
}

/// Red, green, blue and alpha over white.
fn over_white(picture: &RgbaImage) -> Result<Mat, String> {
    let pixels = picture.pixels().map(|pixel| {
        let [red, green, blue, alpha] = pixel.0;
        [blend(blue, alpha), blend(green, alpha), blend(red, alpha)]
    });
    colour(picture.height(), picture.width(), pixels)
}

/// OpenCV's blue, green, red and alpha, of 8 or 16 bits, over white.
fn flatten(picture: &Mat) -> Result<Mat, String> {
    let (height, width) = (picture.rows() as u32, picture.cols() as u32);
    match picture.depth() {
        opencv::core::CV_8U => {
            let bytes = picture.data_bytes().map_err(|e| e.message)?;
            let pixels = bytes.chunks_exact(4).map(|p| [blend(p[0], p[3]), blend(p[1], p[3]), blend(p[2], p[3])]);
            colour(height, width, pixels)
        }
        opencv::core::CV_16U => {
            let values = picture.data_typed::<Vec4w>().map_err(|e| e.message)?;
            let pixels = values.iter().map(|pixel| {
                let [blue, green, red, alpha] = pixel.0.map(|value| (value >> 8) as u8);
                [blend(blue, alpha), blend(green, alpha), blend(red, alpha)]
            });
            colour(height, width, pixels)
        }
        _ => Err("not a picture of 8 or 16 bits a channel".into()),
    }
}

/// `value` where alpha is 255, white where it is 0; rounded.
fn blend(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn colour(height: u32, width: u32, pixels: impl Iterator<Item = [u8; 3]>) -> Result<Mat, String> {
    let bytes: Vec<u8> = pixels.flatten().collect();
    let picture = Mat::new_rows_cols_with_bytes::<Vec3b>(height as i32, width as i32, &bytes);
    picture.map(|picture| picture.clone_pointee()).map_err(|e| e.message)
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
    fn a_jpeg_is_cut_off_where_its_end_marker_is_missing() {
        let table = b"\xff\xd8\xff\xe1\0\x06\xff\xd9\0\0".to_vec(); // an end marker within EXIF is none
        let scan = [&table[..], b"\xff\xda\0\x02\x12\xff\0\x34\xff\xd0\x56"].concat();
        assert!(is_cut_off(&table) && is_cut_off(&scan));
        assert!(!is_cut_off(&[&scan[..], b"\xff\xd9trailing"].concat()));
    }

    #[test]
    fn alpha_is_laid_over_white() {
        assert_eq!([blend(10, 255), blend(10, 0), blend(0, 128), blend(255, 128)], [10, 255, 127, 255]);
    }

    #[test]
    fn an_animation_gives_its_first_frame() {
        use ::image::{Delay, Frame, Rgba, codecs::gif::GifEncoder};
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new(&mut bytes);
        for colour in [[200, 0, 0, 255], [0, 0, 200, 255]] {
            let picture = RgbaImage::from_pixel(4, 3, Rgba(colour));
            encoder.encode_frame(Frame::from_parts(picture, 0, 0, Delay::from_numer_denom_ms(100, 1))).unwrap();
        }
        drop(encoder);
        let picture = decode(Path::new("a.gif"), &bytes).unwrap();
        assert_eq!((picture.rows(), picture.cols()), (3, 4));
        let [blue, _, red] = picture.data_typed::<Vec3b>().unwrap()[0].0;
        assert!(red > 180 && blue < 20, "{red} {blue}");
    }
}
