//! Spatial pyramids of histograms of visual words or of Fisher vectors, and their feature maps.
//!
//! (Lazebnik, Schmid and Ponce, "Beyond bags of features: spatial pyramid matching for recognizing natural scene categories", 2006;
//! Vedaldi and Zisserman, "Efficient additive kernels via explicit feature maps", 2012.)

use std::f64::consts::PI;

use ndarray::ArrayView2;

use super::settings::Normalize;

/// Number of values that [`Normalize::Chi2`] makes of each value of a histogram.
const CHI2_VALUES: usize = 3;
/// Sampling period of the spectrum of the χ² kernel, the one of scikit-learn's `AdditiveChi2Sampler(sample_steps=2)`.
const CHI2_PERIOD: f64 = 0.5;

/// Computes values for each cell of a spatial pyramid: a histogram of words or a Fisher vector.
#[derive(Debug, Clone)]
pub struct Pyramid<'a> {
    /// Number of cells along each axis, for each level of the pyramid. Levels with one cell need no positions.
    pub levels: &'a [usize],
    /// Number of values of a cell, before the feature map.
    pub cell_len: usize,
    /// Normalization of the values of all cells together.
    pub normalize: Normalize,
}

impl Pyramid<'_> {
    /// Returns the length of [`Pyramid::finish`].
    pub fn dim(&self) -> usize {
        self.sums_len() * if self.normalize == Normalize::Chi2 { CHI2_VALUES } else { 1 }
    }

    fn sums_len(&self) -> usize {
        self.levels.iter().map(|cells| cells * cells).sum::<usize>() * self.cell_len
    }

    /// Returns the sums of a frame without descriptors: those of the cells of the first level, row by row, then those of the next.
    pub fn start(&self) -> Vec<f32> {
        vec![0.0; self.sums_len()]
    }

    /// Calls `add` with each of `count` descriptors and the sums of each cell that it lies in. The columns of `positions` are row and
    /// column in 256ths of the frame.
    ///
    /// # Panics
    /// Panics if there are fewer positions than descriptors and a level has more than one cell.
    pub fn add(
        &self,
        sums: &mut [f32],
        count: usize,
        positions: ArrayView2<'_, u8>,
        mut add: impl FnMut(usize, &mut [f32]),
    ) {
        let mut rest = sums;
        for &cells in self.levels {
            let level;
            (level, rest) = rest.split_at_mut(cells * cells * self.cell_len);
            for descriptor in 0..count {
                let cell = if cells == 1 {
                    0
                } else {
                    let [y, x] = [0, 1].map(|axis| usize::from(positions[[descriptor, axis]]) * cells / 256);
                    y * cells + x
                };
                add(descriptor, &mut level[cell * self.cell_len..][..self.cell_len]);
            }
        }
    }

    /// Normalizes the sums of all cells, and applies the feature map.
    pub fn finish(&self, mut sums: Vec<f32>) -> Vec<f32> {
        normalize_sums(&mut sums, self.normalize);
        sums
    }
}

/// Normalizes the values of all cells, and applies the feature map.
fn normalize_sums(histogram: &mut Vec<f32>, normalize: Normalize) {
    if normalize == Normalize::Power {
        histogram.iter_mut().for_each(|value| *value = value.abs().sqrt().copysign(*value));
    }
    let norm = match normalize {
        Normalize::None => return,
        Normalize::L1 | Normalize::Chi2 => histogram.iter().sum::<f32>(),
        Normalize::L2 | Normalize::Power => histogram.iter().map(|count| count * count).sum::<f32>().sqrt(),
    };
    if norm > 0.0 {
        histogram.iter_mut().for_each(|count| *count /= norm);
    }
    if normalize == Normalize::Chi2 {
        *histogram = histogram.iter().flat_map(|&value| chi2_map(value)).collect();
    }
}

/// Returns the feature map of a value x ≥ 0 for the kernel 2·x·y / (x + y): √(x·L·κ(0)) and √(2·x·L·κ(L))·(cos(L·ln x), sin(L·ln x))
/// with the period L and the spectrum κ(λ) = 1 / cosh(π·λ) (equations 18 and 35 of Vedaldi and Zisserman).
fn chi2_map(value: f32) -> [f32; CHI2_VALUES] {
    if value <= 0.0 {
        return [0.0; CHI2_VALUES];
    }
    let value = f64::from(value);
    let constant = (value * CHI2_PERIOD).sqrt();
    let amplitude = (2.0 * value * CHI2_PERIOD / (PI * CHI2_PERIOD).cosh()).sqrt();
    let (sin, cos) = (CHI2_PERIOD * value.ln()).sin_cos();
    [constant, amplitude * cos, amplitude * sin].map(|value| value as f32)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn of(pyramid: &Pyramid<'_>, words: &[Option<usize>], positions: ArrayView2<'_, u8>) -> Vec<f32> {
        let mut sums = pyramid.start();
        pyramid.add(&mut sums, words.len(), positions, |descriptor, cell| {
            words[descriptor].into_iter().for_each(|word| cell[word] += 1.0);
        });
        pyramid.finish(sums)
    }

    fn histogram(normalize: Normalize, words: &[Option<usize>]) -> Vec<f32> {
        let pyramid = Pyramid { levels: &[1], cell_len: 3, normalize };
        of(&pyramid, words, Array2::zeros((0, 0)).view())
    }

    #[test]
    fn descriptors_without_a_word_are_not_counted() {
        assert_eq!(histogram(Normalize::None, &[Some(0), None, Some(1), Some(1)]), [1.0, 2.0, 0.0]);
    }

    #[test]
    fn normalizes_histograms_and_keeps_empty_ones_zero() {
        let words = [0, 1, 1, 1, 1].map(Some);
        assert_eq!(histogram(Normalize::L1, &words), [0.2, 0.8, 0.0]);
        let l2 = 17f32.sqrt();
        assert_eq!(histogram(Normalize::L2, &words), [1.0 / l2, 4.0 / l2, 0.0]);
        let root = 5f32.sqrt();
        assert_eq!(histogram(Normalize::Power, &words), [1.0 / root, 2.0 / root, 0.0]);
        for normalize in [Normalize::None, Normalize::L1, Normalize::L2, Normalize::Power] {
            assert_eq!(histogram(normalize, &[None]), [0.0; 3]);
        }
        assert_eq!(histogram(Normalize::Chi2, &[None]), [0.0; 9]);
    }

    #[test]
    fn a_pyramid_counts_the_words_of_each_cell() {
        let words = [0, 1, 1].map(Some);
        let positions = array![[0u8, 127], [127, 128], [255, 255]];
        let pyramid = Pyramid { levels: &[1, 2, 3], cell_len: 2, normalize: Normalize::None };
        assert_eq!(pyramid.dim(), 2 * (1 + 4 + 9));
        let values = of(&pyramid, &words, positions.view());
        assert_eq!(values[..2], [1.0, 2.0]);
        assert_eq!(values[2..10], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        // Thirds end at 85⅓ and 170⅔.
        let nonzero: Vec<(usize, f32)> = values[10..].iter().copied().enumerate().filter(|(_, v)| *v > 0.0).collect();
        assert_eq!(nonzero, [(2, 1.0), (9, 1.0), (17, 1.0)]);
    }

    #[test]
    fn the_chi2_map_equals_that_of_scikit_learn() {
        // AdditiveChi2Sampler(sample_steps=2).fit_transform([[0.2, 0.8, 0]]): the constants of all values, then the cosines, then
        // the sines.
        let expected =
            [0.316_227_77, 0.632_455_5, 0.0, 0.195_739_76, 0.561_139_04, 0.0, -0.203_453_45, -0.062_868_36, 0.0f32];
        let mapped = histogram(Normalize::Chi2, &[0, 1, 1, 1, 1].map(Some));
        for (value, row) in mapped.chunks_exact(3).enumerate() {
            for (component, &found) in row.iter().enumerate() {
                assert!((found - expected[component * 3 + value]).abs() < 1e-6, "{mapped:?}");
            }
        }
    }

    #[test]
    fn dot_products_of_the_chi2_map_approximate_the_kernel() {
        for (x, y) in [(0.3f32, 0.3f32), (0.01, 0.02), (0.5, 0.05), (0.7, 0.0)] {
            let kernel = if x + y > 0.0 { 2.0 * x * y / (x + y) } else { 0.0 };
            let product: f32 = chi2_map(x).iter().zip(chi2_map(y)).map(|(a, b)| a * b).sum();
            assert!((product - kernel).abs() <= 0.12 * (x * y).sqrt(), "{x}, {y}: {product}, {kernel}");
        }
    }
}
