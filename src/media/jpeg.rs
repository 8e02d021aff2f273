//! JPEG decoding and encoding by libjpeg-turbo, which OpenCV and Pillow use too. No Rust decoder produces identical pixels.
//! (The crate `turbojpeg` requires version 3 of the library; Debian 12 and 13 have version 2.)
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uchar, c_ulong, c_void};
use std::ptr;

use super::pixels::{BgrImage, convert_to_three_channels};

// Functions of turbojpeg.h that versions 2 and 3 have in common.
#[link(name = "turbojpeg")]
unsafe extern "C" {
    fn tjInitDecompress() -> *mut c_void;
    fn tjInitCompress() -> *mut c_void;
    fn tjDestroy(handle: *mut c_void) -> c_int;
    fn tjGetErrorCode(handle: *mut c_void) -> c_int;
    fn tjDecompressHeader3(
        handle: *mut c_void,
        jpeg: *const c_uchar,
        size: c_ulong,
        width: *mut c_int,
        height: *mut c_int,
        subsampling: *mut c_int,
        colors: *mut c_int,
    ) -> c_int;
    fn tjDecompress2(
        handle: *mut c_void,
        jpeg: *const c_uchar,
        size: c_ulong,
        pixels: *mut c_uchar,
        width: c_int,
        pitch: c_int,
        height: c_int,
        format: c_int,
        flags: c_int,
    ) -> c_int;
    fn tjCompress2(
        handle: *mut c_void,
        pixels: *const c_uchar,
        width: c_int,
        pitch: c_int,
        height: c_int,
        format: c_int,
        jpeg: *mut *mut c_uchar,
        size: *mut c_ulong,
        subsampling: c_int,
        quality: c_int,
        flags: c_int,
    ) -> c_int;
    fn tjFree(jpeg: *mut c_uchar);
}

const TJPF_BGR: c_int = 1;
const TJPF_CMYK: c_int = 11;
const TJCS_CMYK: c_int = 3;
const TJCS_YCCK: c_int = 4;
const TJSAMP_420: c_int = 2;
const TJFLAG_ACCURATEDCT: c_int = 4096;
const TJERR_WARNING: c_int = 0;

/// A decompressor or compressor.
struct Handle(*mut c_void);

impl Handle {
    /// Returns `true` if a call succeeded, possibly with a warning (such as extraneous bytes between markers).
    fn succeeded(&self, code: c_int) -> bool {
        // SAFETY: the handle is valid until it is dropped.
        code == 0 || unsafe { tjGetErrorCode(self.0) } == TJERR_WARNING
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle comes from the library and is not used again. The library ignores null.
        unsafe { tjDestroy(self.0) };
    }
}

/// Decodes an image. Returns height, width, and the pixels as blue, green, red; gray is replicated, and CMYK is converted as
/// in OpenCV. Returns `None` if the image cannot be decoded or has more than `max_pixels` pixels.
pub(super) fn decode(jpeg: &[u8], max_pixels: u64) -> Option<(usize, usize, Vec<u8>)> {
    // SAFETY: the function has no preconditions.
    let handle = Handle(unsafe { tjInitDecompress() });
    let (mut width, mut height, mut subsampling, mut colors) = (0, 0, -1, -1);
    let (start, length) = (jpeg.as_ptr(), jpeg.len() as c_ulong);
    // For an unknown chroma subsampling, this function returns an error but sets size and color space; decoding succeeds.
    // SAFETY: the handle is not null, `jpeg` is a valid slice, and the outputs are local variables.
    let valid_header = !handle.0.is_null()
        && unsafe {
            tjDecompressHeader3(handle.0, start, length, &mut width, &mut height, &mut subsampling, &mut colors);
            width > 0 && height > 0 && colors >= 0
        };
    let (height, width) = (usize::try_from(height).ok()?, usize::try_from(width).ok()?);
    if !valid_header || height as u64 * width as u64 > max_pixels {
        return None;
    }
    let is_cmyk = matches!(colors, TJCS_CMYK | TJCS_YCCK);
    let (format, channels) = if is_cmyk { (TJPF_CMYK, 4) } else { (TJPF_BGR, 3) };
    let mut pixels = vec![0; height * width * channels];
    // SAFETY: as above. `pixels` has space for the rows without padding, which zeros for width, pitch and height request.
    // Both calls read the same header, so the size is the same.
    let code = unsafe { tjDecompress2(handle.0, start, length, pixels.as_mut_ptr(), 0, 0, 0, format, 0) };
    if !handle.succeeded(code) {
        return None;
    }
    if is_cmyk {
        convert_to_three_channels(&mut pixels, |[cyan, magenta, yellow, black]: [u8; 4]| {
            // Adobe stores inverted values.
            let ink = |value: u8| black - (((255 - u32::from(value)) * u32::from(black)) >> 8) as u8;
            [ink(yellow), ink(magenta), ink(cyan)]
        });
    }
    Some((height, width, pixels))
}

/// Encodes an image with 4:2:0 chroma subsampling. `quality` is in 1..=100. Returns `None` if the library fails.
///
/// # Panics
/// Panics if the last row of the image is incomplete.
pub(crate) fn encode(image: BgrImage<'_>, quality: i32) -> Option<Vec<u8>> {
    let (width, height) = (c_int::try_from(image.width).ok()?, c_int::try_from(image.height).ok()?);
    let pitch = c_int::try_from(image.stride).ok()?;
    assert!(image.data.len() >= image.stride * image.height, "the last row has all its bytes");
    let (mut jpeg, mut size): (*mut c_uchar, c_ulong) = (ptr::null_mut(), 0);
    // SAFETY: the function has no preconditions.
    let handle = Handle(unsafe { tjInitCompress() });
    if handle.0.is_null() {
        return None;
    }
    // SAFETY: the handle is not null, and the pixels are as many as size and pitch require. The library allocates the output,
    // which is copied and freed.
    unsafe {
        let pixels = image.data.as_ptr();
        let code = tjCompress2(
            handle.0,
            pixels,
            width,
            pitch,
            height,
            TJPF_BGR,
            &mut jpeg,
            &mut size,
            TJSAMP_420,
            quality,
            TJFLAG_ACCURATEDCT,
        );
        let file = (code == 0 && !jpeg.is_null()).then(|| std::slice::from_raw_parts(jpeg, size as usize).to_vec());
        tjFree(jpeg);
        file
    }
}

/// Iterates over the marker and content of each segment up to the end marker (EOI) or the end of the file. Skips the
/// entropy-coded data of scans.
fn segments(jpeg: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut next = Some(2);
    std::iter::from_fn(move || {
        let mut start = next?;
        // Segments may be preceded by fill bytes, or by the data of a scan.
        while *jpeg.get(start)? != 0xff || matches!(*jpeg.get(start + 1)?, 0x00 | 0xff | 0xd0..=0xd7) {
            start += 1;
        }
        let marker = jpeg[start + 1];
        let length = match marker {
            0xd9 | 0x01 | 0xd8 => 0,
            _ => usize::from(u16::from_be_bytes([*jpeg.get(start + 2)?, *jpeg.get(start + 3)?])),
        };
        next = (marker != 0xd9).then_some(start + 2 + length);
        Some((marker, jpeg.get(start + 4..start + 2 + length).unwrap_or_default()))
    })
}

/// Returns `true` if a JPEG has no end marker (EOI). libjpeg fills the missing part with gray.
pub(super) fn is_truncated(jpeg: &[u8]) -> bool {
    !segments(jpeg).any(|(marker, _)| marker == 0xd9)
}

/// Returns the EXIF metadata of a JPEG.
pub(super) fn exif(jpeg: &[u8]) -> Option<&[u8]> {
    segments(jpeg).find_map(|(marker, content)| match marker {
        0xe1 => content.strip_prefix(b"Exif\0\0"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_without_end_marker_is_truncated() {
        let table = b"\xff\xd8\xff\xe1\0\x06\xff\xd9\0\0".to_vec(); // the end marker in the EXIF segment does not count
        let scan = [&table[..], b"\xff\xda\0\x02\x12\xff\0\x34\xff\xd0\x56"].concat();
        assert!(is_truncated(&table) && is_truncated(&scan));
        assert!(!is_truncated(&[&scan[..], b"\xff\xd9trailing"].concat()));
    }

    #[test]
    fn decodes_what_it_encodes() {
        let pixels: Vec<u8> = (0..32 * 48).flat_map(|i| [(i % 48) as u8 * 5, (i / 48) as u8 * 7, 90]).collect();
        let file = encode(BgrImage::new(32, 48, &pixels), 95).unwrap();
        assert!(!is_truncated(&file));
        let (height, width, decoded) = decode(&file, 1 << 20).unwrap();
        assert_eq!((height, width), (32, 48));
        let worst = decoded.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst < Some(24), "{worst:?}");
        assert!(decode(&file, 32 * 48 - 1).is_none(), "more pixels than the limit");
        assert!(decode(b"\xff\xd8\xff\xd9", 1 << 20).is_none());
    }
}
