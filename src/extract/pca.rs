//! Principal components of descriptors.

use linfa_linalg::eigh::{EigSort, EighInto};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use crate::matrix::{self, Accumulate};

/// A projection onto principal components.
#[derive(Debug, Clone, PartialEq)]
pub struct PrincipalComponents {
    /// The mean of the descriptors, then the orthonormal components in descending order of variance: (1 + C, D).
    rows: Array2<f32>,
}

impl PrincipalComponents {
    /// Computes the first `count` principal components of the rows of `data`, (N, D) with N ≥ 1. The largest value of each is positive.
    ///
    /// # Panics
    /// Panics if there are more components than columns.
    pub fn fit(data: ArrayView2<'_, u8>, count: usize) -> Self {
        let dim = data.ncols();
        assert!(count <= dim, "there are at most as many components as columns");
        let sums = data.rows().into_iter().fold(Array1::<f64>::zeros(dim), |mut sums, row| {
            sums.zip_mut_with(&row, |sum, &value| *sum += f64::from(value));
            sums
        });
        let mean = sums / data.nrows() as f64;
        let mut covariance = Array2::<f64>::zeros((dim, dim));
        for block in data.axis_chunks_iter(Axis(0), 4096) {
            let centered = block.mapv(f64::from) - &mean;
            matrix::multiply(centered.t(), centered.view(), covariance.view_mut(), Accumulate::Yes, 1);
        }
        let (_, vectors) = covariance.eigh_into().expect("a covariance matrix is square").sort_eig_desc();
        let mut rows = Array2::zeros((1 + count, dim));
        rows.row_mut(0).assign(&mean.mapv(|value| value as f32));
        for (mut row, column) in rows.slice_mut(s![1.., ..]).rows_mut().into_iter().zip(vectors.columns()) {
            let largest = column.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            row.assign(&column.mapv(|value| (value * largest.signum()) as f32));
        }
        Self { rows }
    }

    /// Returns the projection with these rows; see [`PrincipalComponents::rows`].
    pub fn new(rows: Array2<f32>) -> Self {
        Self { rows }
    }

    /// Returns the mean, then the components: (1 + C, D).
    pub fn rows(&self) -> ArrayView2<'_, f32> {
        self.rows.view()
    }

    /// Projects the rows of `data`, (N, D): (N, C).
    ///
    /// # Panics
    /// Panics if the numbers of columns differ.
    pub fn project(&self, data: ArrayView2<'_, u8>) -> Array2<f32> {
        let centered = data.mapv(f32::from) - self.rows.row(0);
        let components = self.rows.slice(s![1.., ..]);
        let mut projected = Array2::zeros((data.nrows(), components.nrows()));
        matrix::multiply(centered.view(), components.t(), projected.view_mut(), Accumulate::No, 1);
        projected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random bytes whose columns are correlated.
    fn data() -> Array2<u8> {
        let noise = |i: usize| ((i * 2_654_435_761) >> 7) % 64;
        Array2::from_shape_fn((300, 6), |(i, j)| (noise(7 * i + j) / (1 + j) + noise(11 * i) * (j % 3)) as u8)
    }

    #[test]
    fn projections_are_uncorrelated_in_descending_order_of_variance() {
        let data = data();
        let components = PrincipalComponents::fit(data.view(), 6);
        let projected = components.project(data.view());
        let covariance = projected.t().dot(&projected);
        for i in 0..6 {
            for j in 0..i {
                assert!(covariance[[i, j]].abs() < 1e-4 * covariance[[0, 0]], "{covariance}");
            }
            assert!(i == 0 || covariance[[i, i]] <= covariance[[i - 1, i - 1]], "{covariance}");
        }
        // A rotation keeps distances.
        let distance = |a: ArrayView2<'_, f32>| (&a.row(0) - &a.row(1)).mapv(|value| value * value).sum();
        let (before, after) = (distance(data.mapv(f32::from).view()), distance(projected.view()));
        assert!((before - after).abs() < 1e-4 * before, "{before}, {after}");
        let first = PrincipalComponents::fit(data.view(), 2);
        assert_eq!(first.rows(), components.rows().slice(s![..3, ..]));
        assert!(
            components.rows().slice(s![1.., ..]).rows().into_iter().all(|row| row.iter().any(|&value| value > 0.0))
        );
    }
}
