//! What a picture is by its pixels, without a network.

use std::path::Path;

use super::image;
use crate::error::Result;

/// A picture's size and how much its pixels differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Still {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Standard deviation of the eight-bit values over all pixels, the mean over the three channels; 0 for one color, about 40
    /// to 90 for posters.
    pub deviation: f64,
}

impl Still {
    /// Reads and measures a picture, its EXIF orientation applied.
    ///
    /// # Errors
    /// The file is missing, no picture, damaged or too large.
    pub fn read(path: &Path) -> Result<Self> {
        let picture = image::read(path)?;
        let picture = picture.image();
        let (mut sums, mut squares) = ([0u64; 3], [0u64; 3]);
        for pixel in picture.data.as_chunks::<3>().0 {
            for (channel, &value) in pixel.iter().enumerate() {
                sums[channel] += u64::from(value);
                squares[channel] += u64::from(value) * u64::from(value);
            }
        }
        let pixels = (picture.height * picture.width) as f64;
        let deviation = |channel: usize| {
            let mean = sums[channel] as f64 / pixels;
            (squares[channel] as f64 / pixels - mean * mean).max(0.0).sqrt()
        };
        let deviation = (0..3).map(deviation).sum::<f64>() / 3.0;
        Ok(Self { width: picture.width, height: picture.height, deviation })
    }

    /// Width over height.
    pub fn aspect(&self) -> f64 {
        self.width as f64 / self.height as f64
    }
}
