//! One picture.

use std::io::Read as _;
use std::path::Path;

use opencv::core::{Mat, MatTraitConst as _};
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

/// Reads a picture as eight-bit colour: grey is spread, alpha dropped, 16 bits cut to 8, EXIF orientation applied.
///
/// # Errors
/// The file is missing, no picture, damaged or too large.
pub(super) fn read(path: &Path) -> Result<Mat> {
    let wrong = |message: String| Error::Media { path: path.to_path_buf(), message };
    if let Some((width, height)) = claimed_size(path).map_err(Error::io(path))?
        && u64::from(width) * u64::from(height) > MOST_PIXELS
    {
        return Err(wrong(format!("{width}x{height} pixels are too many: at most {MOST_PIXELS} are decoded")));
    }
    let picture = imgcodecs::imread(path, imgcodecs::IMREAD_COLOR).map_err(|e| wrong(e.message))?;
    if picture.empty() {
        return Err(wrong("not a picture that can be decoded: damaged or of another format".into()));
    }
    Ok(picture)
}

/// Width and height that the header of a PNG, BMP or JPEG claims, so that nothing is decoded that does not fit.
fn claimed_size(path: &Path) -> std::io::Result<Option<(u32, u32)>> {
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(1 << 16).read_to_end(&mut head)?;
    Ok(header_size(&head))
}

fn header_size(head: &[u8]) -> Option<(u32, u32)> {
    let big = |at: usize| head.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().expect("four bytes")));
    let little = |at: usize| head.get(at..at + 4).map(|b| i32::from_le_bytes(b.try_into().expect("four bytes")));
    let short = |at: usize| head.get(at..at + 2).map(|b| u32::from(b[0]) << 8 | u32::from(b[1]));
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return big(16).zip(big(20));
    }
    if head.starts_with(b"BM") {
        return little(18).zip(little(22)).map(|(w, h)| (w.unsigned_abs(), h.unsigned_abs()));
    }
    if !head.starts_with(b"\xff\xd8") {
        return None;
    }
    let mut at = 2;
    loop {
        // Start of frame: C0 to CF without the tables C4, C8 and CC.
        match (head.get(at)?, *head.get(at + 1)?) {
            (0xff, 0xc4 | 0xc8 | 0xcc) => at += 2 + short(at + 2)? as usize,
            (0xff, 0xc0..=0xcf) => return short(at + 7).zip(short(at + 5)),
            (0xff, 0xff) => at += 1,
            (0xff, _) => at += 2 + short(at + 2)? as usize,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_headers() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 1, 0, 0, 0, 0, 0, 7]);
        assert_eq!(header_size(&png), Some((65536, 7)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04\0\0\xff\xc0\0\x11\x08\0\x09\x01\x02\x03";
        assert_eq!(header_size(jpeg), Some((258, 9)));
        assert_eq!(header_size(&jpeg[..12]), None);
        assert_eq!(header_size(b"GIF89a"), None);
    }

    #[test]
    fn an_enormous_picture_is_refused_before_it_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge.png");
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 1, 0, 0, 0, 1, 0, 0]);
        std::fs::write(&path, png).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("huge.png: 65536x65536 pixels are too many"), "{error}");
    }
}
