//! Gray images: conversion, scaling and smoothing.

use crate::media::BgrImage;

/// A gray image of floats.
#[derive(Debug, Clone, Default)]
pub(super) struct Plane {
    pub height: usize,
    pub width: usize,
    /// The pixels, row-major.
    pub values: Vec<f32>,
}

impl Plane {
    /// Returns row `y`.
    #[inline(always)]
    pub fn row(&self, y: usize) -> &[f32] {
        &self.values[y * self.width..][..self.width]
    }

    fn resize(&mut self, height: usize, width: usize) {
        (self.height, self.width) = (height, width);
        self.values.resize(height * width, 0.0);
    }

    /// Converts an image to gray levels from 0 to 255, rounded to integers as OpenCV's `COLOR_BGR2GRAY` does.
    #[inline(always)]
    pub fn set_gray(&mut self, image: BgrImage<'_>) {
        self.resize(image.height, image.width);
        for (y, row) in self.values.chunks_exact_mut(image.width).enumerate() {
            for (value, pixel) in row.iter_mut().zip(image.row(y).as_chunks::<3>().0) {
                let [blue, green, red] = pixel.map(u32::from);
                *value = ((3735 * blue + 19235 * green + 9798 * red + (1 << 14)) >> 15) as f32;
            }
        }
    }

    /// Scales `source` down to this size: each pixel is the mean of the area that it covers, rounded to an integer, so that a
    /// constant image stays constant.
    #[inline(always)]
    pub fn set_scaled(&mut self, source: &Plane, [height, width]: [usize; 2]) {
        self.resize(height, width);
        let (rows, columns) = (areas(source.height, height), areas(source.width, width));
        let mut line = vec![0.0; source.width];
        for ((first, weights), out) in rows.iter().zip(self.values.chunks_exact_mut(width)) {
            weighted_sum(&mut line, weights, |tap| source.row(first + tap));
            for ((first, weights), out) in columns.iter().zip(out) {
                let mean: f32 = line[*first..].iter().zip(weights).map(|(value, weight)| value * weight).sum();
                *out = mean.round_ties_even();
            }
        }
    }

    /// Convolves `source` with a symmetric kernel of odd length along both axes. The image is mirrored at its edges, without
    /// repetition of the edge pixels.
    #[inline(always)]
    pub fn set_smoothed(&mut self, source: &Plane, kernel: &[f32], buffer: &mut Plane) {
        let (height, width, radius) = (source.height, source.width, kernel.len() / 2);
        self.resize(height, width);
        buffer.resize(height, width);
        for (y, out) in buffer.values.chunks_exact_mut(width).enumerate() {
            weighted_sum(out, kernel, |tap| source.row(mirrored(y + tap, radius, height)));
        }
        let mut padded = vec![0.0; width + 2 * radius];
        for (y, out) in self.values.chunks_exact_mut(width).enumerate() {
            let row = buffer.row(y);
            padded[radius..][..width].copy_from_slice(row);
            for x in (0..radius).chain(radius + width..width + 2 * radius) {
                padded[x] = row[mirrored(x, radius, width)];
            }
            weighted_sum(out, kernel, |tap| &padded[tap..][..width]);
        }
    }
}

/// Returns the index of pixel `position - offset` of a row of `length` pixels that is mirrored at its edges.
#[inline(always)]
fn mirrored(position: usize, offset: usize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1) as isize;
    let index = (position as isize - offset as isize).rem_euclid(period) as usize;
    index.min(period as usize - index)
}

/// Returns the Gaussian kernel that OpenCV applies to an image of floats: a radius of about four standard deviations, and
/// weights with the sum 1.
pub(super) fn gaussian(deviation: f64) -> Vec<f32> {
    let length = (8.0 * deviation + 1.0).round_ties_even() as usize | 1;
    let radius = (length / 2) as f64;
    let weight = |tap: usize| (-0.5 * ((tap as f64 - radius) / deviation).powi(2)).exp();
    let sum: f64 = (0..length).map(weight).sum();
    (0..length).map(|tap| (weight(tap) / sum) as f32).collect()
}

/// Returns for each of `to` equal intervals of `from` ≥ `to` pixels the first pixel and the weights of the pixels, with the sum 1.
fn areas(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let area = |i: usize| {
        // In units of 1/to pixels, so that the bounds are integers.
        let (start, end) = (i * from, (i + 1) * from);
        let pixels = start / to..end.div_ceil(to);
        let overlap = |pixel: usize| (end.min((pixel + 1) * to) - start.max(pixel * to)) as f32 / from as f32;
        (pixels.start, pixels.map(overlap).collect())
    };
    (0..to).map(area).collect()
}

/// Computes `out[i] = Σ weights[k] · input(k)[i]`, in blocks that stay in registers. Inputs are at least as long as `out`.
#[inline(always)]
fn weighted_sum<'a>(out: &mut [f32], weights: &[f32], input: impl Fn(usize) -> &'a [f32]) {
    const BLOCK: usize = 32;
    let blocks = out.len() / BLOCK * BLOCK;
    let (full, rest) = out.split_at_mut(blocks);
    for (block, out) in full.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let mut sums = [0f32; BLOCK];
        for (tap, weight) in weights.iter().enumerate() {
            let values = &input(tap)[block * BLOCK..][..BLOCK];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += weight * value;
            }
        }
        *out = sums;
    }
    rest.fill(0.0);
    for (tap, weight) in weights.iter().enumerate() {
        for (out, value) in rest.iter_mut().zip(&input(tap)[blocks..]) {
            *out += weight * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(height: usize, width: usize, values: &[f32]) -> Plane {
        Plane { height, width, values: values.to_vec() }
    }

    #[test]
    fn scaling_averages_areas() {
        let mut scaled = Plane::default();
        scaled.set_scaled(&plane(2, 4, &[1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]), [1, 2]);
        assert_eq!(scaled.values, [6.0, 10.0]);
        // Pixels of 1.5: the middle one belongs to both halves.
        scaled.set_scaled(&plane(1, 3, &[3.0, 6.0, 31.0]), [1, 2]);
        assert_eq!(scaled.values, [4.0, 23.0]);
        for (from, to) in [(1920, 480), (1081, 480), (7, 7), (5, 1)] {
            for (first, weights) in areas(from, to) {
                assert!(first + weights.len() <= from && (weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn smoothing_mirrors_the_image_at_its_edges() {
        let kernel = [0.25, 0.5, 0.25];
        let (mut smoothed, mut buffer) = (Plane::default(), Plane::default());
        smoothed.set_smoothed(&plane(1, 4, &[0.0, 4.0, 8.0, 0.0]), &kernel, &mut buffer);
        assert_eq!(smoothed.values, [2.0, 4.0, 5.0, 4.0]);
        smoothed.set_smoothed(&plane(3, 1, &[0.0, 4.0, 8.0]), &kernel, &mut buffer);
        assert_eq!(smoothed.values, [2.0, 4.0, 6.0]);
        // Images smaller than the kernel are mirrored repeatedly.
        let indices: Vec<usize> = (0..9).map(|position| mirrored(position, 4, 2)).collect();
        assert_eq!(indices, [0, 1, 0, 1, 0, 1, 0, 1, 0]);
        let indices: Vec<usize> = (0..9).map(|position| mirrored(position, 3, 3)).collect();
        assert_eq!(indices, [1, 2, 1, 0, 1, 2, 1, 0, 1]);
    }

    #[test]
    fn long_rows_equal_short_ones() {
        let row: Vec<f32> = (0..75).map(|x| (x * x % 37) as f32).collect();
        let mut out = vec![0.0; 73];
        weighted_sum(&mut out, &[0.5, -1.0, 2.0], |tap| &row[tap..]);
        for (x, value) in out.iter().enumerate() {
            assert_eq!(*value, 0.5 * row[x] - row[x + 1] + 2.0 * row[x + 2]);
        }
    }

    #[test]
    fn gaussian_kernels_are_those_of_opencv() {
        // OpenCV-Python: cv2.getGaussianKernel(13, sqrt(1.6² − 0.5²)).
        let kernel = gaussian((1.6f64 * 1.6 - 0.25).sqrt());
        assert_eq!(kernel.len(), 13);
        assert_eq!(gaussian(0.1), [(-50f64).exp() as f32, 1.0, (-50f64).exp() as f32]);
    }
}
