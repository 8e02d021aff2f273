//! What a picture is by its pixels, without a network.

use std::path::Path;

use opencv::core::{self, MatTraitConst as _, Scalar};

use super::{image, quiet};
use crate::error::{Error, Result};

/// A picture's size and how much its pixels differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Still {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Standard deviation of the eight-bit values over all pixels, the mean over the three channels; 0 for one colour, about 40
    /// to 90 for posters.
    pub deviation: f64,
}

impl Still {
    /// Reads and measures a picture, its EXIF orientation applied.
    ///
    /// # Errors
    /// The file is missing, no picture, damaged or too large.
    pub fn read(path: &Path) -> Result<Self> {
        quiet::prepare_opencv();
        let picture = image::read(path)?;
        let (mut mean, mut deviation) = (Scalar::default(), Scalar::default());
        core::mean_std_dev(&picture, &mut mean, &mut deviation, &core::no_array())
            .map_err(|error| Error::Media { path: path.to_path_buf(), message: error.to_string() })?;
        Ok(Self {
            width: picture.cols() as usize,
            height: picture.rows() as usize,
            deviation: deviation[..3].iter().sum::<f64>() / 3.0,
        })
    }

    /// Width over height.
    pub fn aspect(&self) -> f64 {
        self.width as f64 / self.height as f64
    }
}
