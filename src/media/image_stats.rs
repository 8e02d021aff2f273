//! Statistics of the pixels of an image.

use std::path::Path;

use super::image;
use crate::error::{Error, Result};

/// The size of an image and the variation of its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageStats {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Standard deviation of the eight-bit values over all pixels, averaged over the three channels: 0 for a single color,
    /// about 40 to 90 for posters.
    pub deviation: f64,
}

impl ImageStats {
    /// Computes the statistics of an image file, with its EXIF orientation applied.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or decoded.
    pub fn read(path: &Path) -> Result<Self> {
        let image = image::decode(path, &std::fs::read(path).map_err(Error::io(path))?)?;
        let image = image.view();
        let (mut sums, mut squares) = ([0u64; 3], [0u64; 3]);
        for pixel in image.data.as_chunks::<3>().0 {
            for (channel, &value) in pixel.iter().enumerate() {
                sums[channel] += u64::from(value);
                squares[channel] += u64::from(value) * u64::from(value);
            }
        }
        let pixels = (image.height * image.width) as f64;
        let deviation = |channel: usize| {
            let mean = sums[channel] as f64 / pixels;
            (squares[channel] as f64 / pixels - mean * mean).max(0.0).sqrt()
        };
        let deviation = (0..3).map(deviation).sum::<f64>() / 3.0;
        Ok(Self { width: image.width, height: image.height, deviation })
    }

    /// Returns the ratio of width to height.
    pub fn aspect(&self) -> f64 {
        self.width as f64 / self.height as f64
    }
}
