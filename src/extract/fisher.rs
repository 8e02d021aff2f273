//! Fisher vectors: the gradient of the log-likelihood of descriptors under a mixture of Gaussians with respect to the means and the
//! deviations (equations 17 and 18 of Sánchez, Perronnin, Mensink and Verbeek, "Image classification with the Fisher vector: theory and
//! practice", 2013).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip, s};

use crate::matrix::{self, Accumulate};
use crate::numeric::Real;

/// Smallest deviation, in units of a descriptor's bytes: less than the error of their rounding is no information.
const MIN_DEVIATION: f64 = 1.0;
/// Posterior probabilities below this are taken as 0, so that a descriptor changes the values of a few words only.
const MIN_POSTERIOR: f32 = 1e-4;
/// The same in expectation maximization, where it excludes only the probabilities that [`Real::exp_nonpositive`] clamps.
const MIN_RESPONSIBILITY: f32 = 1e-30;
/// Expectation maximization stops if the mean log-likelihood of a descriptor changes less, scikit-learn's `tol`.
const TOLERANCE: f64 = 1e-3;
/// Number of descriptors whose posteriors are computed at once.
pub const BLOCK_ROWS: usize = 4096;

/// A mixture of Gaussians with diagonal covariances, one for each word.
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussians {
    /// The words, (words, D).
    means: Array2<f32>,
    /// For each word, the standard deviations and the weight in the mixture, in (0, 1]: (words, D + 1).
    parameters: Array2<f32>,
}

/// Sums over descriptors x with posterior probabilities γ: Σ γ, Σ γ·x and Σ γ·x² for each word.
struct Moments {
    posteriors: Array1<f64>,
    values: Array2<f64>,
    squares: Array2<f64>,
}

impl Moments {
    fn zeros(words: usize, dim: usize) -> Self {
        let [values, squares] = [(); 2].map(|()| Array2::zeros((words, dim)));
        Self { posteriors: Array1::zeros(words), values, squares }
    }

    /// Adds the rows of `data`, (N, D), with `posteriors`, (N, words).
    fn add(&mut self, data: ArrayView2<'_, f32>, posteriors: &Array2<f32>) {
        let (data, posteriors) = (data.mapv(f64::from), posteriors.mapv(f64::from));
        self.posteriors += &posteriors.sum_axis(Axis(0));
        let threads = matrix::default_threads();
        for (values, sums) in [(&data, &mut self.values), (&(&data * &data), &mut self.squares)] {
            matrix::multiply(posteriors.t(), values.view(), sums.view_mut(), Accumulate::Yes, threads);
        }
    }

    /// Returns the most likely Gaussians. The mean of a word without descriptors is that of `previous`.
    fn gaussians(&self, previous: &Array2<f32>) -> Gaussians {
        let (words, dim) = self.values.dim();
        let total = self.posteriors.sum();
        let mut means = previous.clone();
        let mut parameters = Array2::zeros((words, dim + 1));
        for (word, &sum) in self.posteriors.iter().enumerate() {
            parameters[[word, dim]] = (sum.max(f64::from(MIN_POSTERIOR)) / total) as f32;
            for column in 0..dim {
                let mut variance = 0.0;
                if sum > 0.0 {
                    let mean = self.values[[word, column]] / sum;
                    means[[word, column]] = mean as f32;
                    variance = self.squares[[word, column]] / sum - mean * mean;
                }
                parameters[[word, column]] = variance.max(0.0).sqrt().max(MIN_DEVIATION) as f32;
            }
        }
        Gaussians { means, parameters }
    }
}

impl Gaussians {
    /// Fits a mixture to the rows of `data`, (N, D), by expectation maximization that starts from clusters: each row belongs to the word
    /// of its label, with N ≥ 1 labels.
    ///
    /// # Panics
    /// Panics if a label is out of range.
    pub fn fit(data: ArrayView2<'_, f32>, centroids: &Array2<f32>, labels: &[u32], max_iterations: usize) -> Self {
        let (words, dim) = centroids.dim();
        let blocks = || data.axis_chunks_iter(Axis(0), BLOCK_ROWS);
        let mut moments = Moments::zeros(words, dim);
        for (block, labels) in blocks().zip(labels.chunks(BLOCK_ROWS)) {
            let of_cluster = |(row, word): (usize, usize)| f32::from(labels[row] as usize == word);
            moments.add(block, &Array2::from_shape_fn((block.nrows(), words), of_cluster));
        }
        let mut gaussians = moments.gaussians(centroids);
        let mut previous = f64::NEG_INFINITY;
        for _ in 0..max_iterations {
            let mut moments = Moments::zeros(words, dim);
            let mut likelihood = 0.0;
            for block in blocks() {
                let (posteriors, of_block) = gaussians.expectation(block, MIN_RESPONSIBILITY);
                moments.add(block, &posteriors);
                likelihood += of_block;
            }
            gaussians = moments.gaussians(&gaussians.means);
            likelihood /= data.nrows() as f64;
            if (likelihood - previous).abs() < TOLERANCE {
                break;
            }
            previous = likelihood;
        }
        gaussians
    }

    /// Returns the Gaussians with these words, (words, D), and parameters, (words, D + 1): see [`Gaussians::parameters`]. `None` if the
    /// shapes do not match or a parameter is not positive.
    pub fn new(means: &Array2<f32>, parameters: Array2<f32>) -> Option<Self> {
        let valid = parameters.dim() == (means.nrows(), means.ncols() + 1)
            && parameters.iter().all(|&value| value.is_finite() && value > 0.0);
        valid.then(|| Self { means: means.clone(), parameters })
    }

    /// Returns the means: the words, (words, D).
    pub fn means(&self) -> &Array2<f32> {
        &self.means
    }

    /// Returns the standard deviations of each word, and its weight in the mixture: (words, D + 1).
    pub fn parameters(&self) -> ArrayView2<'_, f32> {
        self.parameters.view()
    }

    /// Returns the number of values of a Fisher vector.
    pub fn dim(&self) -> usize {
        2 * self.means.len()
    }

    /// Returns the probability of each word given the rows of `data`, (N, D): (N, words). Probabilities below 1e-4 are 0.
    ///
    /// # Panics
    /// Panics if the numbers of columns differ.
    pub fn posteriors(&self, data: ArrayView2<'_, f32>) -> Array2<f32> {
        self.expectation(data, MIN_POSTERIOR).0
    }

    /// Returns the posteriors, 0 instead of values below `min`, and the sum of the log-likelihoods of the rows without the constant
    /// −½·D·ln 2π.
    fn expectation(&self, data: ArrayView2<'_, f32>, min: f32) -> (Array2<f32>, f64) {
        let dim = self.means.ncols();
        let deviations = self.parameters.slice(s![.., ..dim]);
        // −½·Σ (x − μ)²/σ² = Σ x·μ/σ² − ½·Σ x²/σ² − ½·Σ μ²/σ²
        let linear = &self.means / &(&deviations * &deviations);
        let quadratic = deviations.mapv(|deviation| -0.5 / (deviation * deviation));
        let mut constants = self.parameters.column(dim).mapv(f32::ln);
        Zip::from(&mut constants).and(self.means.rows()).and(linear.rows()).and(deviations.rows()).for_each(
            |constant, means, linear, deviations| {
                *constant -= means.dot(&linear) / 2.0 + deviations.mapv(f32::ln).sum();
            },
        );
        let mut scores = Array2::<f32>::zeros((data.nrows(), self.means.nrows()));
        scores += &constants;
        matrix::multiply(data, linear.t(), scores.view_mut(), Accumulate::Yes, 1);
        matrix::multiply((&data * &data).view(), quadratic.t(), scores.view_mut(), Accumulate::Yes, 1);
        let mut likelihood = 0.0;
        for mut row in scores.rows_mut() {
            let largest = row.fold(f32::NEG_INFINITY, |largest, &score| largest.max(score));
            row.mapv_inplace(|score| (score - largest).exp_nonpositive());
            let sum = row.sum();
            row.mapv_inplace(|value| if value < min * sum { 0.0 } else { value / sum });
            likelihood += f64::from(largest) + f64::from(sum).ln();
        }
        (scores, likelihood)
    }

    /// Adds the gradients of a descriptor's log-likelihood to the Fisher vector `sums`. Each word with the posterior γ has D values of the
    /// mean, γ·z/√w with z = (x − μ)/σ, and D values of the deviations, γ·(z² − 1)/√(2w).
    pub fn add(&self, descriptor: ArrayView1<'_, f32>, posteriors: ArrayView1<'_, f32>, sums: &mut [f32]) {
        let dim = self.means.ncols();
        for (word, (&posterior, sums)) in posteriors.iter().zip(sums.chunks_exact_mut(2 * dim)).enumerate() {
            if posterior == 0.0 {
                continue;
            }
            let (means, parameters) = (self.means.row(word), self.parameters.row(word));
            let first = posterior / parameters[dim].sqrt();
            let second = first * std::f32::consts::FRAC_1_SQRT_2;
            let (of_mean, of_deviation) = sums.split_at_mut(dim);
            let values = descriptor.iter().zip(&means).zip(&parameters);
            for ((mean_sum, deviation_sum), ((&value, mean), deviation)) in
                of_mean.iter_mut().zip(of_deviation).zip(values)
            {
                let z = (value - mean) / deviation;
                *mean_sum += first * z;
                *deviation_sum += second * (z * z - 1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::extract::pca::PrincipalComponents;

    const WORDS: usize = 3;

    fn golden(key: &str) -> Array2<f32> {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../fixtures/fisher.json")).unwrap();
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden[key].clone())
            .unwrap_or_else(|_| vec![serde_json::from_value(golden[key].clone()).unwrap()]);
        Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).unwrap()
    }

    fn assert_close(found: ArrayView2<'_, f32>, expected: ArrayView2<'_, f32>) {
        assert_eq!(found.dim(), expected.dim());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{found}, {expected}");
        }
    }

    /// The descriptors and clusters of `tests/goldens/fisher.py`.
    fn data() -> (Array2<u8>, Vec<u32>) {
        let noise = |row: usize, column: usize| (row * 7919 + column * 104_729 + row * row * (column + 3)) % 97;
        let data = Array2::from_shape_fn((600, 8), |(row, column)| {
            let value = 20 * (row % WORDS) * (column % 3 + 1) + noise(row, column) + noise(row, 0) / (column + 1);
            (value % 256) as u8
        });
        (data, (0..600).map(|row| if row % 10 == 0 { 0 } else { row % 3 }).collect())
    }

    #[test]
    fn agrees_with_scikit_learn_and_numpy() {
        let (data, labels) = data();
        let components = PrincipalComponents::fit(data.view(), 5);
        assert_close(components.rows().slice(s![..1, ..]), golden("mean").view());
        assert_close(components.rows().slice(s![1.., ..]), golden("components").view());
        let projected = components.project(data.view());
        let gaussians = Gaussians::fit(projected.view(), &Array2::zeros((WORDS, 5)), &labels, 100);
        assert_close(gaussians.means().view(), golden("means").view());
        assert_close(gaussians.parameters().slice(s![.., ..5]), golden("deviations").view());
        assert_close(gaussians.parameters().slice(s![.., 5..]).t(), golden("weights").view());
        let posteriors = gaussians.posteriors(projected.view());
        let mut sums = Array2::<f32>::zeros((2, gaussians.dim()));
        for (row, (descriptor, posteriors)) in projected.rows().into_iter().zip(posteriors.rows()).enumerate() {
            let mut frame = sums.row_mut(usize::from(row >= 50));
            gaussians.add(descriptor, posteriors, frame.as_slice_mut().unwrap());
        }
        assert_close(sums.view(), golden("fisher").view());
    }

    #[test]
    fn a_fisher_vector_is_the_normalized_gradient_of_the_log_likelihood() {
        let means = array![[2f32, 20.0], [9.0, 14.0]];
        let gaussians = Gaussians::new(&means, array![[3.0, 8.0, 0.6], [2.0, 5.0, 0.4]]).unwrap();
        let descriptor = array![[7f32, 12.0]];
        let posteriors = gaussians.posteriors(descriptor.view());
        assert!((posteriors.sum() - 1.0).abs() < 1e-6 && posteriors.iter().all(|&value| value > 0.1), "{posteriors}");
        let mut sums = vec![0f32; gaussians.dim()];
        gaussians.add(descriptor.row(0), posteriors.row(0), &mut sums);
        // The log-likelihood with one mean (row, column) or deviation changed by `step`.
        let log_likelihood = |row: usize, column: usize, of_mean: bool, step: f64| -> f64 {
            let of_word = |word: usize| -> f64 {
                let mut likelihood = f64::from(gaussians.parameters()[[word, 2]]);
                for axis in 0..2 {
                    let step = if (word, axis) == (row, column) { step } else { 0.0 };
                    let mean = f64::from(means[[word, axis]]) + if of_mean { step } else { 0.0 };
                    let deviation = f64::from(gaussians.parameters()[[word, axis]]) + if of_mean { 0.0 } else { step };
                    let z = (f64::from(descriptor[[0, axis]]) - mean) / deviation;
                    likelihood *= (-z * z / 2.0).exp() / deviation;
                }
                likelihood
            };
            (0..2).map(of_word).sum::<f64>().ln()
        };
        for ((row, column), &deviation) in gaussians.parameters().slice(s![.., ..2]).indexed_iter() {
            let weight = f64::from(gaussians.parameters()[[row, 2]]);
            // The Fisher information of a mean is about w/σ², that of a deviation 2·w/σ².
            for (part, information) in [weight, 2.0 * weight].into_iter().enumerate() {
                let [above, below] = [1e-5, -1e-5].map(|step| log_likelihood(row, column, part == 0, step));
                let expected = (above - below) / 2e-5 * f64::from(deviation) / information.sqrt();
                let found = f64::from(sums[row * 4 + part * 2 + column]);
                assert!((found - expected).abs() < 1e-4, "{found}, {expected}");
            }
        }
    }

    #[test]
    fn words_without_descriptors_and_constant_values_have_finite_parameters() {
        let data = array![[5f32, 1.0], [5.0, 3.0], [5.0, 8.0]];
        let centroids = array![[5f32, 4.0], [90.0, 90.0]];
        let gaussians = Gaussians::fit(data.view(), &centroids, &[0, 0, 0], 10);
        assert_eq!(gaussians.parameters()[[0, 0]], 1.0);
        assert_eq!(gaussians.means().row(1), centroids.row(1));
        assert!(Gaussians::new(gaussians.means(), gaussians.parameters().to_owned()).is_some(), "{gaussians:?}");
        assert_eq!(gaussians.posteriors(data.view()), array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]);
    }

    #[test]
    fn rejects_parameters_of_another_shape_or_sign() {
        let means = array![[1f32, 2.0]];
        assert!(Gaussians::new(&means, array![[1.0, 1.0, 1.0]]).is_some());
        for parameters in [array![[1.0, 1.0]], array![[1.0, 0.0, 1.0]], array![[1.0, f32::NAN, 1.0]]] {
            assert!(Gaussians::new(&means, parameters).is_none());
        }
    }
}
