//! Image files: JPEG is decoded by libjpeg-turbo, other formats by the `image` crate.

use std::io::Cursor;
use std::path::Path;

use ::image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::jpeg;
use super::orientation::Orientation;
use super::pixels::{BgrImage, convert_to_three_channels};
use crate::error::{Error, Result};

/// Maximum number of pixels of an image (400 MB of color).
const MAX_PIXELS: u64 = 1 << 27;

/// Maximum number of bytes per decoded pixel: four channels of 16 bits.
const MAX_PIXEL_BYTES: u64 = 8;

/// Maximum number of bytes of an image file: more than the largest image takes without compression.
pub(super) const MAX_FILE_BYTES: u64 = 2 * MAX_PIXELS * MAX_PIXEL_BYTES;

/// Error message for HEIC images.
pub(super) const HEIC: &str =
    "HEIC images are not supported: convert to JPEG, such as `heif-convert IMAGE.heic IMAGE.jpg`";

const UNDECODABLE: &str = "not an image that can be decoded: damaged or of an unknown format";

/// A decoded image: blue, green and red bytes, rows without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DecodedImage {
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

impl DecodedImage {
    /// Borrows the image.
    pub(super) fn view(&self) -> BgrImage<'_> {
        BgrImage::new(self.height, self.width, &self.bytes)
    }

    fn oriented(self, orientation: Orientation) -> Self {
        if orientation.is_identity() {
            return self;
        }
        let mut bytes = Vec::new();
        orientation.apply(self.height, self.width, &self.bytes, &mut bytes);
        let [height, width] = orientation.output_size(self.height, self.width);
        Self { height, width, bytes }
    }
}

/// Decodes an image file; see [`decode`]. Before, `reserve` is called with height, width and the memory that decoding
/// takes in bytes, if the header contains the size.
///
/// # Errors
/// Returns an error if the file cannot be decoded.
pub(super) fn decode_reserving(
    path: &Path,
    bytes: &[u8],
    reserve: impl FnOnce(usize, usize, u64),
) -> Result<DecodedImage> {
    if let Some((width, height)) = size_from_header(bytes).filter(|&(width, height)| check_size(width, height).is_ok())
    {
        reserve(height as usize, width as usize, width * height * MAX_PIXEL_BYTES);
    }
    decode(path, bytes)
}

/// Decodes an image to eight-bit color: gray is replicated to three channels, alpha is composited over white, 16-bit values
/// are truncated to 8 bits, the EXIF orientation is applied. Returns the first frame of an animation. `path` is named in
/// errors.
///
/// # Errors
/// Returns an error if the bytes are not an image, or the image is damaged, truncated or too large.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<DecodedImage> {
    let failed = |message: String| Error::Media { path: path.to_path_buf(), message };
    if is_heic(bytes) {
        return Err(failed(HEIC.into()));
    }
    if let Some((width, height)) = size_from_header(bytes) {
        check_size(width, height).map_err(failed)?;
    }
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return decode_other(bytes).map_err(failed);
    }
    if jpeg::is_truncated(bytes) {
        return Err(failed("the image is truncated".into()));
    }
    let (height, width, pixels) = jpeg::decode(bytes, MAX_PIXELS).ok_or_else(|| failed(UNDECODABLE.into()))?;
    let orientation = jpeg::exif(bytes).map(Orientation::from_exif_chunk).unwrap_or_default();
    Ok(DecodedImage { height, width, bytes: pixels }.oriented(orientation))
}

/// Returns `true` if a file starts with the header of a HEIC image: a file type box (ISO/IEC 14496-12) with a brand for HEVC
/// images.
pub(super) fn is_heic(bytes: &[u8]) -> bool {
    let Some((length, b"ftyp")) = bytes.first_chunk::<4>().zip(bytes.get(4..8)) else { return false };
    let length = bytes.len().min(u32::from_be_bytes(*length) as usize);
    let (brands, _) = bytes.get(8..length).unwrap_or_default().as_chunks::<4>();
    let has = |names: &[&[u8; 4]]| brands.iter().any(|brand| names.contains(&brand));
    has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"]) && !has(&[b"avif", b"avis"])
}

/// Returns width and height from the header of an image.
pub(super) fn size_from_header(bytes: &[u8]) -> Option<(u64, u64)> {
    imagesize::blob_size(bytes).ok().map(|size| (size.width as u64, size.height as u64))
}

fn check_size(width: u64, height: u64) -> Result<(), String> {
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(format!("{width}x{height} pixels are too many: the limit is {MAX_PIXELS}"));
    }
    Ok(())
}

/// Decodes an image of a format other than JPEG.
///
/// # Errors
/// Returns the reason if the image cannot be decoded.
fn decode_other(bytes: &[u8]) -> Result<DecodedImage, String> {
    let undecodable = |error: ImageError| format!("not an image that can be decoded: {error}");
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| UNDECODABLE)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_PIXELS * MAX_PIXEL_BYTES);
    reader.limits(limits);
    let format = reader.format().ok_or(UNDECODABLE)?;
    if format == ImageFormat::Avif {
        return Err("an AVIF image: rename the file to .avif".into());
    }
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let orientation = match (format, decoder.exif_metadata()) {
        (ImageFormat::Tiff, _) => decoder.orientation().map(Orientation::from_exif).unwrap_or_default(),
        (_, Ok(Some(exif))) => Orientation::from_exif_chunk(&exif),
        _ => Orientation::default(),
    };
    let color = decoder.color_type();
    let mut bytes = vec![0; usize::try_from(decoder.total_bytes()).map_err(|_| UNDECODABLE)?];
    decoder.read_image(&mut bytes).map_err(undecodable)?;
    // The fourth byte of a BMP pixel is undefined in practice.
    let blend = if format == ImageFormat::Bmp { |value, _| value } else { over_white };
    let high = |pair: [u8; 2]| (u16::from_ne_bytes(pair) >> 8) as u8;
    match color {
        ColorType::L8 => convert_to_three_channels(&mut bytes, |[gray]| [gray; 3]),
        ColorType::La8 => convert_to_three_channels(&mut bytes, |[gray, alpha]| [blend(gray, alpha); 3]),
        ColorType::Rgb8 => convert_to_three_channels(&mut bytes, |[red, green, blue]| [blue, green, red]),
        ColorType::Rgba8 => convert_to_three_channels(&mut bytes, |[red, green, blue, alpha]| {
            [blue, green, red].map(|v| blend(v, alpha))
        }),
        ColorType::L16 => convert_to_three_channels(&mut bytes, |gray| [high(gray); 3]),
        ColorType::La16 => convert_to_three_channels(&mut bytes, |[a, b, c, d]| [blend(high([a, b]), high([c, d])); 3]),
        ColorType::Rgb16 => {
            convert_to_three_channels(&mut bytes, |[a, b, c, d, e, f]| [[e, f], [c, d], [a, b]].map(high))
        }
        ColorType::Rgba16 => convert_to_three_channels(&mut bytes, |[a, b, c, d, e, f, g, h]| {
            [[e, f], [c, d], [a, b]].map(|pair| blend(high(pair), high([g, h])))
        }),
        _ => return Err("not an image of 8 or 16 bits per channel".into()),
    }
    Ok(DecodedImage { height: height as usize, width: width as usize, bytes }.oriented(orientation))
}

/// Composites a value over white, rounded.
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
    fn reads_sizes_from_headers() {
        assert_eq!(size_from_header(&png_header(65536, 7)), Some((65536, 7)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04\0\0\xff\xc0\0\x11\x08\0\x09\x01\x02\x03\x01\x11\0\x02\x11\0\x03\x11\0";
        assert_eq!(size_from_header(jpeg), Some((258, 9)));
        assert_eq!(size_from_header(b"GIF89a"), None);
    }

    #[test]
    fn rejects_a_huge_image_before_decoding() {
        let error = decode_reserving(Path::new("huge.png"), &png_header(65536, 65536), |_, _, _| panic!("too large"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("huge.png: 65536x65536 pixels are too many"), "{error}");
    }

    #[test]
    fn heic_images_are_rejected_with_a_remedy() {
        let heic = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic\0\0\0\x08free";
        let error = decode(Path::new("a.jpg"), heic).unwrap_err().to_string();
        assert!(error.contains("a.jpg: HEIC") && error.contains("heif-convert"), "{error}");
        assert!(!is_heic(b"\0\0\0\x1cftypavif\0\0\0\0mif1avif\0\0\0\0"));
        assert!(!is_heic(b"\0\0\0\x10ftypisom\0\0\0\0heic"), "outside of the box");
        assert!(!is_heic(b"\0\0\0\x18ft") && !is_heic(b"\0\0\0\x02ftypheic"));
    }

    #[test]
    fn avif_images_with_another_extension_are_rejected_with_a_remedy() {
        let avif = b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf\0\0\0\0";
        let error = decode(Path::new("a.jpg"), avif).unwrap_err().to_string();
        assert_eq!(error, "a.jpg: an AVIF image: rename the file to .avif");
    }

    #[test]
    fn composites_alpha_over_white() {
        assert_eq!(
            [over_white(10, 255), over_white(10, 0), over_white(0, 128), over_white(255, 128)],
            [10, 255, 127, 255]
        );
    }

    #[test]
    fn decodes_the_first_frame_of_an_animation() {
        use ::image::{Delay, Frame, Rgba, RgbaImage, codecs::gif::GifEncoder};
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new(&mut bytes);
        for color in [[200, 0, 0, 255], [0, 0, 200, 255]] {
            let image = RgbaImage::from_pixel(4, 3, Rgba(color));
            encoder.encode_frame(Frame::from_parts(image, 0, 0, Delay::from_numer_denom_ms(100, 1))).unwrap();
        }
        drop(encoder);
        let image = decode(Path::new("a.gif"), &bytes).unwrap();
        assert_eq!((image.height, image.width), (3, 4));
        let (blue, red) = (image.bytes[0], image.bytes[2]);
        assert!(red > 180 && blue < 20, "{red} {blue}");
    }
}
