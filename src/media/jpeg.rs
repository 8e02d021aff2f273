//! JPEG, by libjpeg-turbo: its decoder is what OpenCV and Pillow use, to the bit, and no decoder in Rust rounds as it does.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uchar, c_ulong, c_void};
use std::ptr;

use ::image::metadata::Orientation;

use super::BgrImage;

// The functions of turbojpeg.h that are used here; they are the same in versions 2 and 3.
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

/// A decoder or an encoder.
struct Handle(*mut c_void);

impl Handle {
    /// Whether a call succeeded, or ended with a warning only: stray bytes between markers, say.
    fn went_well(&self, code: c_int) -> bool {
        // SAFETY: the handle lives.
        code == 0 || unsafe { tjGetErrorCode(self.0) } == TJERR_WARNING
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle was made by the library and is not used again; a null one it ignores.
        unsafe { tjDestroy(self.0) };
    }
}

/// Height, width and the pixels as blue, green, red: gray is spread, CMYK converted as OpenCV does it. None where it
/// cannot be decoded, or has more than `most` pixels.
pub(super) fn decode(jpeg: &[u8], most: u64) -> Option<(usize, usize, Vec<u8>)> {
    // SAFETY: it takes nothing.
    let handle = Handle(unsafe { tjInitDecompress() });
    let (mut width, mut height, mut subsampling, mut colors) = (0, 0, -1, -1);
    let (start, length) = (jpeg.as_ptr(), jpeg.len() as c_ulong);
    // An unusual subsampling is an error of this function and not of decoding: the size and colors are told all the same.
    // SAFETY: the handle is checked, `jpeg` is a slice, and the others are numbers of this function.
    let known = !handle.0.is_null()
        && unsafe {
            tjDecompressHeader3(handle.0, start, length, &mut width, &mut height, &mut subsampling, &mut colors);
            width > 0 && height > 0 && colors >= 0
        };
    let (height, width) = (usize::try_from(height).ok()?, usize::try_from(width).ok()?);
    if !known || height as u64 * width as u64 > most {
        return None;
    }
    let four = matches!(colors, TJCS_CMYK | TJCS_YCCK);
    let (format, channels) = if four { (TJPF_CMYK, 4) } else { (TJPF_BGR, 3) };
    let mut pixels = vec![0; height * width * channels];
    // SAFETY: as above, and `pixels` has room for rows of `width` pixels of this format without a gap, which is what the
    // zeros for size and pitch ask for. Both calls read the same header, so that the size is the same.
    let code = unsafe { tjDecompress2(handle.0, start, length, pixels.as_mut_ptr(), 0, 0, 0, format, 0) };
    if !handle.went_well(code) {
        return None;
    }
    if four {
        super::image::to_three(&mut pixels, |[cyan, magenta, yellow, black]: [u8; 4]| {
            // Adobe stores them inverted.
            let ink = |value: u8| black - (((255 - u32::from(value)) * u32::from(black)) >> 8) as u8;
            [ink(yellow), ink(magenta), ink(cyan)]
        });
    }
    Some((height, width, pixels))
}

/// A JPEG file of a picture: chroma halved in both directions, quality in 1..=100; none where the library refuses. The picture
/// has rows without a gap.
pub(crate) fn encode(picture: BgrImage<'_>, quality: i32) -> Option<Vec<u8>> {
    let (width, height) = (c_int::try_from(picture.width).ok()?, c_int::try_from(picture.height).ok()?);
    let pitch = c_int::try_from(picture.stride).ok()?;
    assert!(picture.data.len() >= picture.stride * picture.height, "the last row is whole");
    let (mut jpeg, mut size): (*mut c_uchar, c_ulong) = (ptr::null_mut(), 0);
    // SAFETY: it takes nothing.
    let handle = Handle(unsafe { tjInitCompress() });
    if handle.0.is_null() {
        return None;
    }
    // SAFETY: the handle is checked, the pixels are as many as size and pitch say, and the library allocates the file,
    // which is copied and given back to it.
    unsafe {
        let pixels = picture.data.as_ptr();
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

/// The marker and content of each segment up to the end marker; the iteration ends early where the file does. A scan's
/// data is passed over.
fn segments(jpeg: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut at = Some(2);
    std::iter::from_fn(move || {
        let mut start = at?;
        // Between segments only fill bytes may stand; after a scan, its data up to the next marker.
        while *jpeg.get(start)? != 0xff || matches!(*jpeg.get(start + 1)?, 0x00 | 0xff | 0xd0..=0xd7) {
            start += 1;
        }
        let marker = jpeg[start + 1];
        let length = match marker {
            0xd9 | 0x01 | 0xd8 => 0,
            _ => usize::from(u16::from_be_bytes([*jpeg.get(start + 2)?, *jpeg.get(start + 3)?])),
        };
        at = (marker != 0xd9).then_some(start + 2 + length);
        Some((marker, jpeg.get(start + 4..start + 2 + length).unwrap_or_default()))
    })
}

/// Whether a JPEG ends before its end marker: libjpeg would fill the rest with gray.
pub(super) fn is_cut_off(jpeg: &[u8]) -> bool {
    !segments(jpeg).any(|(marker, _)| marker == 0xd9)
}

/// The orientation that the EXIF of a JPEG tells.
pub(super) fn orientation(jpeg: &[u8]) -> Orientation {
    let exif = segments(jpeg).find_map(|(marker, content)| match marker {
        0xe1 => content.strip_prefix(b"Exif\0\0"),
        _ => None,
    });
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_is_cut_off_where_its_end_marker_is_missing() {
        let table = b"\xff\xd8\xff\xe1\0\x06\xff\xd9\0\0".to_vec(); // an end marker within EXIF is none
        let scan = [&table[..], b"\xff\xda\0\x02\x12\xff\0\x34\xff\xd0\x56"].concat();
        assert!(is_cut_off(&table) && is_cut_off(&scan));
        assert!(!is_cut_off(&[&scan[..], b"\xff\xd9trailing"].concat()));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let pixels: Vec<u8> = (0..32 * 48).flat_map(|i| [(i % 48) as u8 * 5, (i / 48) as u8 * 7, 90]).collect();
        let file = encode(BgrImage::new(32, 48, &pixels), 95).unwrap();
        assert!(!is_cut_off(&file));
        let (height, width, decoded) = decode(&file, 1 << 20).unwrap();
        assert_eq!((height, width), (32, 48));
        let worst = decoded.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst < Some(24), "{worst:?}");
        assert!(decode(&file, 32 * 48 - 1).is_none(), "too many pixels");
        assert!(decode(b"\xff\xd8\xff\xd9", 1 << 20).is_none());
    }
}
