//! Spatial windows of descriptors, and the normalization of descriptors.

use super::orientation::{BLOCK, ORIENTATIONS, OrientationMaps};
use crate::extract::settings::DESCRIPTOR_LEN;

/// Number of bins along each axis of a descriptor.
pub(super) const BINS: usize = 4;
/// Number of values of a pixel after the sum over rows: eight orientations for each of four bins.
const PIXEL: usize = BINS * ORIENTATIONS;

/// The weights of pixels along one axis: for each bin, a triangle that covers two bin widths, times a Gaussian around the center
/// of the descriptor with a standard deviation of two bin widths.
#[derive(Debug)]
pub(super) struct Window {
    /// Position of the first pixel of each bin, relative to the center of the descriptor.
    first: [isize; BINS],
    weights: [Vec<f32>; BINS],
}

impl Window {
    /// Creates the window for a bin width in pixels.
    pub fn new(bin_width: usize) -> Self {
        let width = bin_width as f64;
        // The center of bin b is at (b − 1.5) bin widths.
        let center = |bin: usize| (bin as f64 - 1.5) * width;
        let first = std::array::from_fn(|bin| (center(bin) - width).floor() as isize + 1);
        let weights = std::array::from_fn(|bin| {
            let last = (center(bin) + width).ceil() as isize - 1;
            let weight = |position: isize| {
                let triangle = 1.0 - (position as f64 - center(bin)).abs() / width;
                (triangle * (-(position as f64 / width).powi(2) / 8.0).exp()) as f32
            };
            (first[bin]..=last).map(weight).collect()
        });
        Self { first, weights }
    }

    /// Returns the first pixel and the weights of a bin, without the pixels outside of 0 to `length`, for a descriptor with this
    /// center.
    #[inline(always)]
    fn bin(&self, bin: usize, center: usize, length: usize) -> (usize, &[f32]) {
        let (start, weights) = (center as isize + self.first[bin], &self.weights[bin]);
        let skipped = ((-start).max(0) as usize).min(weights.len());
        let kept = (length as isize - start).clamp(skipped as isize, weights.len() as isize) as usize;
        ((start.max(0) as usize).min(length), &weights[skipped..kept])
    }

    /// Sums the rows of `maps` around row `center` into `out`, (stride, 4, 8): for each column and bin, eight orientations.
    #[inline(always)]
    pub fn sum_rows(&self, maps: &OrientationMaps, center: usize, out: &mut Vec<f32>) {
        out.resize(maps.row(0).len() * BLOCK * PIXEL, 0.0);
        let pixels = out.as_chunks_mut::<PIXEL>().0;
        for bin in 0..BINS {
            let (first, weights) = self.bin(bin, center, maps.height);
            for (block, pixels) in pixels.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                let mut sums = [0f32; BLOCK * ORIENTATIONS];
                for (weight, y) in weights.iter().zip(first..) {
                    for (sum, value) in sums.iter_mut().zip(&maps.row(y)[block]) {
                        *sum += weight * value;
                    }
                }
                for (pixel, sums) in pixels.iter_mut().zip(sums.as_chunks::<ORIENTATIONS>().0) {
                    pixel[bin * ORIENTATIONS..][..ORIENTATIONS].copy_from_slice(sums);
                }
            }
        }
    }

    /// Sums the columns of `rows`, the result of [`Window::sum_rows`] for an image of this width, around column `center`. The
    /// order of the values is (4 rows, 4 columns, 8 orientations).
    #[inline(always)]
    pub fn sum_columns(&self, rows: &[f32], center: usize, width: usize) -> [f32; DESCRIPTOR_LEN] {
        let pixels = rows.as_chunks::<PIXEL>().0;
        let mut descriptor = [0f32; DESCRIPTOR_LEN];
        for bin in 0..BINS {
            let (first, weights) = self.bin(bin, center, width);
            let mut sums = [0f32; PIXEL];
            for (weight, pixel) in weights.iter().zip(&pixels[first..]) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * value;
                }
            }
            for (row, sums) in sums.as_chunks::<ORIENTATIONS>().0.iter().enumerate() {
                descriptor[(row * BINS + bin) * ORIENTATIONS..][..ORIENTATIONS].copy_from_slice(sums);
            }
        }
        descriptor
    }
}

/// Factor from a value of a descriptor with a Euclidean norm of 1 to a byte, as in OpenCV. Larger values than 255 are cut.
const BYTE_SCALE: f32 = 512.0;

/// Normalizes a descriptor and appends its bytes to `out`: values are limited to 0.2 of the Euclidean norm (Lowe 2004), then
/// divided by the new norm; `root` instead takes the square root of the values divided by their sum (RootSIFT). A descriptor
/// without gradients is zero.
#[inline(always)]
pub(super) fn write_normalized(mut values: [f32; DESCRIPTOR_LEN], root: bool, out: &mut Vec<u8>) {
    let limit = 0.2 * sum_in_lanes(&values, |value| value * value).sqrt();
    for value in &mut values {
        *value = value.min(limit);
    }
    if root {
        let sum = sum_in_lanes(&values, |value| value).max(f32::EPSILON);
        for value in &mut values {
            *value = (*value / sum).sqrt() * BYTE_SCALE;
        }
    } else {
        let scale = BYTE_SCALE / sum_in_lanes(&values, |value| value * value).sqrt().max(f32::EPSILON);
        for value in &mut values {
            *value *= scale;
        }
    }
    out.extend(values.map(|value| value.round_ties_even().min(255.0) as u8));
}

/// Sums `term` of the values in eight lanes, which vectorizes.
#[inline(always)]
fn sum_in_lanes(values: &[f32; DESCRIPTOR_LEN], term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; 8];
    for chunk in values.as_chunks::<8>().0 {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += term(*value);
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_triangles_around_the_bins() {
        for bin_width in [1, 2, 4, 5, 6, 9] {
            let (window, width) = (Window::new(bin_width), bin_width as f64);
            for position in -3 * bin_width as isize..=3 * bin_width as isize {
                for bin in 0..BINS {
                    let offset = position as f64 / width;
                    let triangle = (1.0 - (offset + 1.5 - bin as f64).abs()).max(0.0);
                    let expected = triangle * (-offset * offset / 8.0).exp();
                    let index = usize::try_from(position - window.first[bin]).ok();
                    let weight = index.and_then(|index| window.weights[bin].get(index)).copied().unwrap_or(0.0);
                    assert!((f64::from(weight) - expected).abs() < 1e-6, "{bin_width}, {position}, {bin}");
                    assert!(expected == 0.0 || weight > 0.0);
                }
            }
        }
    }

    #[test]
    fn windows_are_cropped_at_the_edges() {
        let window = Window::new(4);
        for length in [1, 3, 30] {
            for center in 0..length {
                for bin in 0..BINS {
                    let (first, weights) = window.bin(bin, center, length);
                    assert!(first + weights.len() <= length);
                    let all = window.weights[bin].iter().zip(center as isize + window.first[bin]..);
                    let inside = all.filter(|(_, position)| (0..length as isize).contains(position));
                    assert!(inside.map(|(weight, _)| weight).eq(weights), "{length}, {center}, {bin}");
                }
            }
        }
    }

    #[test]
    fn normalization_limits_values_and_keeps_zero() {
        let mut values = [0f32; DESCRIPTOR_LEN];
        for root in [false, true] {
            let mut out = Vec::new();
            write_normalized(values, root, &mut out);
            assert_eq!(out, [0; DESCRIPTOR_LEN]);
        }
        (values[0], values[1], values[2]) = (30.0, 4.0, 0.1);
        let mut out = Vec::new();
        write_normalized(values, false, &mut out);
        // Limited to 0.2·√(30² + 4² + 0.1²) = 6.053; the norm is then 7.256.
        assert_eq!(out[..4], [255, 255, 7, 0]);
        out.clear();
        write_normalized(values, true, &mut out);
        // √(0.1 / (6.053 + 4 + 0.1))·512.
        assert_eq!(out[..4], [255, 255, 51, 0]);
    }
}
