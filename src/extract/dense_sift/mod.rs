//! SIFT descriptors of a dense grid (Lowe 2004; Bosch, Zisserman and Muñoz, "Image classification using random forests and ferns",
//! 2007; RootSIFT: Arandjelović and Zisserman, "Three things everyone should know to improve object retrieval", 2012).
//!
//! A descriptor is that of OpenCV's `SIFT::compute` for a keypoint with angle 0, octave 0 and 2/3 of the bin width as size. With a
//! fixed angle, a descriptor is a weighted sum of the pixels of eight orientation maps, and its weights are the product of a
//! function of the row and one of the column. So the descriptors of one row of the grid share the sums over rows, and all
//! descriptors share the maps:
//!
//! ```text
//! frame → gray → scaled, smoothed → orientation maps → sums over rows → sums over columns → normalized bytes
//! ```
//!
//! Sums have the same order on every instruction set, without fused operations, so results are bit-identical.

mod orientation;
mod plane;
mod window;

use pulp::{Arch, NullaryFnOnce};

use super::descriptors::Describer;
use super::settings::{DESCRIPTOR_LEN, DenseSiftSettings, POSITION_LEN};
use crate::error::Result;
use crate::media::BgrImage;
use orientation::OrientationMaps;
use plane::{Plane, gaussian};
use window::{Window, write_normalized};

/// Standard deviation of the blur that images have already, as Lowe and OpenCV assume, in pixels.
const CAMERA_BLUR: f64 = 0.5;

/// Bytes per pixel of a scaled frame: three gray images, eight orientation maps and one row of sums.
const BYTES_PER_PIXEL: u64 = 3 * 4 + 8 * 4 + 4;

/// Computes descriptors on a grid. A descriptor has [`DESCRIPTOR_LEN`] bytes, (4 rows, 4 columns, 8 orientations), and two more:
/// the row and the column of its center in 256ths of the frame.
#[derive(Debug)]
pub struct DenseSift {
    settings: DenseSiftSettings,
    arch: Arch,
    smoothing: Vec<f32>,
    windows: Vec<Window>,
    gray: Plane,
    scaled: Plane,
    smoothed: Plane,
    maps: OrientationMaps,
    /// Sums over rows, for one row of the grid.
    rows: Vec<f32>,
}

impl DenseSift {
    /// Creates the descriptor for valid settings.
    pub fn new(settings: DenseSiftSettings) -> Self {
        // OpenCV's minimum.
        let variance = (settings.sigma * settings.sigma - CAMERA_BLUR * CAMERA_BLUR).max(0.01);
        Self {
            arch: Arch::new(),
            smoothing: gaussian(variance.sqrt()),
            windows: settings.bin_widths.iter().map(|&bin_width| Window::new(bin_width)).collect(),
            gray: Plane::default(),
            scaled: Plane::default(),
            smoothed: Plane::default(),
            maps: OrientationMaps::default(),
            rows: Vec::new(),
            settings,
        }
    }
}

/// Returns the coordinates of the grid points along an axis of `length` ≥ 1 pixels: ⌊length / step⌋ points, but at least one, with
/// equal margins (the first one is smaller if they differ by a pixel).
pub fn grid(length: usize, step: usize) -> impl ExactSizeIterator<Item = usize> + Clone {
    let count = (length / step).max(1);
    let first = (length - 1 - (count - 1) * step) / 2;
    (0..count).map(move |i| first + i * step)
}

impl Describer for DenseSift {
    fn dim(&self) -> usize {
        DESCRIPTOR_LEN + POSITION_LEN
    }

    fn max_side(&self) -> usize {
        self.settings.max_side
    }

    fn memory(&self, height: usize, width: usize) -> u64 {
        let [scaled_height, scaled_width] = self.scaled_size(height, width);
        let points = grid(scaled_height, self.settings.step).len() * grid(scaled_width, self.settings.step).len();
        let descriptors = (points * self.settings.bin_widths.len() * self.dim()) as u64;
        4 * (height * width) as u64 + BYTES_PER_PIXEL * (scaled_height * scaled_width) as u64 + descriptors
    }

    /// Appends the descriptors of a frame to `out`, in the order of bin width, y, x.
    fn describe(&mut self, frame: BgrImage<'_>, out: &mut Vec<u8>) -> Result<usize> {
        let size = self.scaled_size(frame.height, frame.width);
        let before = out.len();
        self.arch.dispatch(DescribePass { frame, size, describer: self, out });
        Ok((out.len() - before) / self.dim())
    }
}

/// The computation for one frame, compiled for each instruction set.
struct DescribePass<'a> {
    frame: BgrImage<'a>,
    size: [usize; 2],
    describer: &'a mut DenseSift,
    out: &'a mut Vec<u8>,
}

impl NullaryFnOnce for DescribePass<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { frame, size: [height, width], out, .. } = self;
        let DenseSift { settings, smoothing, windows, gray, scaled, smoothed, maps, rows, .. } = self.describer;
        gray.set_gray(frame);
        if [gray.height, gray.width] != [height, width] {
            scaled.set_scaled(gray, [height, width]);
            std::mem::swap(gray, scaled);
        }
        smoothed.set_smoothed(gray, smoothing, scaled);
        maps.set(smoothed);
        for window in windows.iter() {
            for y in grid(height, settings.step) {
                window.sum_rows(maps, y, rows);
                for x in grid(width, settings.step) {
                    write_normalized(window.sum_columns(rows, x, width), settings.root_sift, out);
                    out.extend([y * 256 / height, x * 256 / width].map(|position| position as u8));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_centered_and_has_at_least_one_point() {
        let points = |length, step| grid(length, step).collect::<Vec<_>>();
        assert_eq!(points(1, 8), [0]);
        assert_eq!(points(15, 8), [7]);
        assert_eq!(points(16, 8), [3, 11]);
        assert_eq!(points(17, 8), [4, 12]);
        assert_eq!(points(3, 1), [0, 1, 2]);
    }
}
