//! Eight-bit color images in OpenCV's layout.

/// A borrowed eight-bit image with three interleaved channels: blue, green, red.
#[derive(Debug, Clone, Copy)]
pub struct BgrImage<'a> {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Bytes from one row to the next, at least `3 * width`.
    pub stride: usize,
    /// The rows. The padding of the last row may be missing.
    pub data: &'a [u8],
}

impl<'a> BgrImage<'a> {
    /// Creates an image whose rows have no padding.
    ///
    /// # Panics
    /// Panics unless `data` has `3 * height * width` bytes.
    pub fn new(height: usize, width: usize, data: &'a [u8]) -> Self {
        assert_eq!(data.len(), 3 * height * width, "an image of {height}x{width} has 3 bytes per pixel");
        Self { height, width, stride: 3 * width, data }
    }

    /// Returns the pixels of row `y`.
    pub fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..][..3 * self.width]
    }
}

/// Converts pixels of `N` bytes to three bytes each, in place if `N` is at least 3, and releases the memory of the others.
#[cfg(feature = "media")]
pub(super) fn convert_to_three_channels<const N: usize>(bytes: &mut Vec<u8>, convert: impl Fn([u8; N]) -> [u8; 3]) {
    if N < 3 {
        let (pixels, _) = bytes.as_chunks::<N>();
        *bytes = pixels.iter().flat_map(|&pixel| convert(pixel)).collect();
        return;
    }
    let count = bytes.len() / N;
    for i in 0..count {
        let pixel = *bytes[i * N..].first_chunk::<N>().expect("i is less than the number of pixels");
        bytes[3 * i..3 * i + 3].copy_from_slice(&convert(pixel));
    }
    bytes.truncate(3 * count);
    bytes.shrink_to_fit();
}
