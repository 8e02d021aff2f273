//! Linear models of fewer clips than features.

use ndarray::{Array2, ArrayView2, Axis, s};

use crate::matrix::inverse::inverse_factor;
use crate::matrix::{Accumulate, multiply};

/// Largest number of clips, of whose squared number there are three matrices.
const MAX_CLIPS: usize = 4096;
/// Features per clip from which the reduction saves time.
const MIN_RATIO: usize = 2;
/// Passes over the features that a fit is expected to need.
const PASSES: usize = 256;
/// Part of the mean squared length of the clips that is added to the diagonal of their products, above the rounding errors of f64: clips may
/// be linearly dependent.
const JITTER: f64 = 1e-12;
/// Features that are converted to f64 at once.
const COLUMNS: usize = 1024;

/// The coordinates of N clips in an orthonormal basis Q (N, D) of the space that their features X (N, D) span.
///
/// The rows of the optimal W are in this space, since the penalty grows with ‖W‖: with W = V·Q, the logits W·x are V·(Q·x) and
/// ‖W‖ = ‖V‖, so that the problem of V is the same one with N features. With the Cholesky factorization X·Xᵀ = L·Lᵀ, Q = L⁻¹·X, and the
/// coordinates of the clips are the rows of L.
pub struct Reduced {
    /// L, (N, N).
    coordinates: Array2<f32>,
    /// L⁻¹, (N, N).
    inverse: Array2<f64>,
}

impl Reduced {
    /// Reduces the features (N ≥ 1, D) of problems with `classes` classes; `None` if this would take longer than it saves.
    pub fn new(vectors: ArrayView2<'_, f32>, classes: usize, threads: usize) -> Option<Self> {
        let (count, dim) = vectors.dim();
        if count > MAX_CLIPS || count * MIN_RATIO > dim || count > classes * PASSES {
            return None;
        }
        let mut products = Array2::<f64>::zeros((count, count));
        for columns in vectors.axis_chunks_iter(Axis(1), COLUMNS) {
            let columns = columns.mapv(f64::from);
            multiply(columns.view(), columns.t(), products.view_mut(), Accumulate::Yes, threads);
        }
        let jitter = JITTER * products.diag().sum() / count as f64;
        products.diag_mut().mapv_inplace(|square| square + jitter);
        let inverse = inverse_factor(products.view(), threads)?;
        let mut coordinates = Array2::<f64>::zeros((count, count));
        multiply(products.view(), inverse.t(), coordinates.view_mut(), Accumulate::No, threads);
        Some(Self { coordinates: coordinates.mapv(|value| value as f32), inverse })
    }

    /// Returns the coordinates of the clips, (N, N).
    pub fn coordinates(&self) -> ArrayView2<'_, f32> {
        self.coordinates.view()
    }

    /// Converts parameters for the coordinates, (C, N + 1), to those for the features X, (C, D + 1).
    pub fn expand(&self, parameters: &Array2<f64>, vectors: ArrayView2<'_, f32>, threads: usize) -> Array2<f64> {
        let (count, dim) = vectors.dim();
        let classes = parameters.nrows();
        let mut of_clips = Array2::zeros((classes, count));
        let of_coordinates = parameters.slice(s![.., ..count]);
        multiply(of_coordinates, self.inverse.view(), of_clips.view_mut(), Accumulate::No, threads);
        let mut expanded = Array2::zeros((classes, dim + 1));
        for (number, columns) in vectors.axis_chunks_iter(Axis(1), COLUMNS).enumerate() {
            let columns = columns.mapv(f64::from);
            let start = number * COLUMNS;
            let part = expanded.slice_mut(s![.., start..start + columns.ncols()]);
            multiply(of_clips.view(), columns.view(), part, Accumulate::No, threads);
        }
        expanded.column_mut(dim).assign(&parameters.column(count));
        expanded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::linear::lbfgs::Convex;
    use crate::classify::linear::{Link, Objective, Weights, minimize};
    use crate::classify::tests::noise;

    #[test]
    fn the_optimum_is_that_of_all_features() {
        let (count, dim, classes) = (60, 400, 3);
        let mut noise = noise(9);
        let mixing = Array2::from_shape_fn((20, dim), |_| noise());
        // Correlated features, one of them constant, and clips that occur twice.
        let mut vectors = Array2::from_shape_fn((count, 20), |_| noise()).dot(&mixing);
        vectors.zip_mut_with(&Array2::from_shape_fn((count, dim), |_| 0.3 * noise()), |value, noise| *value += noise);
        vectors.column_mut(7).fill(0.0);
        for clip in 0..5 {
            let copy = vectors.row(clip).to_owned();
            vectors.row_mut(count - 1 - clip).assign(&copy);
        }
        let class = |i: usize| if i < 5 { i % 2 } else { i * 5 % 7 % classes };
        let targets = Array2::from_shape_fn((count, classes), |(i, c)| f32::from(class(i) == c));
        let reduced = Reduced::new(vectors.view(), classes, 1).expect("few clips");
        let products = vectors.mapv(f64::from).dot(&vectors.t().mapv(f64::from));
        let coordinates = reduced.coordinates().mapv(f64::from);
        let error = (coordinates.dot(&coordinates.t()) - &products).iter().fold(0f64, |most, e| most.max(e.abs()));
        assert!(error < 1e-6 * products[(0, 0)], "{error}");
        for link in [Link::Softmax, Link::Sigmoid, Link::SquaredHinge] {
            for alpha in [0.1, 1.0, 100.0] {
                let weights = || Weights::ones(classes);
                let of_coordinates = Objective::new(link, reduced.coordinates(), targets.view(), weights(), alpha, 1);
                let mut of_coordinates = of_coordinates.with_preconditioner(None);
                let start = Array2::zeros((classes, count + 1));
                let minimum = minimize(&mut of_coordinates, start, 1e-14, 5000).parameters;
                // The mean loss of all features is as low, and its gradient is 0.
                let expanded = reduced.expand(&minimum, vectors.view(), 1);
                let (mut gradient, mut slopes) = (Array2::zeros(expanded.dim()), Array2::zeros(minimum.dim()));
                let mut of_features = Objective::new(link, vectors.view(), targets.view(), weights(), alpha, 1);
                let value = of_features.evaluate(&expanded, &mut gradient);
                let reached = of_coordinates.evaluate(&minimum, &mut slopes);
                assert!((value - reached).abs() < 1e-6 * reached.max(1e-3), "{link:?} {alpha}: {value} {reached}");
                let largest = gradient.iter().fold(0f64, |most, g| most.max(g.abs()));
                assert!(largest < 1e-5, "{link:?} {alpha}: {largest}");
            }
        }
        assert!(
            Reduced::new(vectors.slice(s![.., ..100]), classes, 1).is_none(),
            "more than half as many clips as features"
        );
    }
}
