//! An approximation of the inverse Hessian of linear models.

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::matrix::inverse::invert_positive;
use crate::matrix::{Accumulate, multiply, thin};

/// Largest number of features with a preconditioner, which is a matrix of their squared number.
const MAX_DIM: usize = 4096;
/// Clips per feature that suffice to estimate the second moments of the features.
const MOMENT_CLIPS: usize = 4;
/// Passes over the features that a preconditioner is expected to save.
const SAVED_PASSES: usize = 256;
/// Rows of the inverse that a thread multiplies at once.
const ROWS: usize = 128;
/// Lowest ridge relative to the curvature, above the rounding errors of the second moments.
const MIN_RIDGE: f64 = 1e-6;

/// (h·M + λ·I)⁻¹ with the second moments M of the features, the mean curvature h of the loss, and the ridge λ: the inverse Hessian of
/// each class if the curvature were the same for all clips and classes.
pub struct Preconditioner {
    /// Mean of (x, 1)·(x, 1)ᵀ, (D + 1, D + 1).
    moments: Array2<f64>,
    /// Number of leading parameters with the ridge.
    penalized: usize,
    inverse: Option<Inverse>,
}

/// The inverse for a curvature.
struct Inverse {
    curvature: f64,
    /// The larger one of the curvature and the ridge.
    scale: f64,
    /// The inverse times `scale`, within the range of f32.
    matrix: Array2<f32>,
}

impl Preconditioner {
    /// Creates the preconditioner of `classes` problems over the same features (N ≥ 1, D); `None` if it would take longer than the passes over
    /// the features that it saves.
    pub fn new(vectors: ArrayView2<'_, f32>, classes: usize, penalized: usize, threads: usize) -> Option<Self> {
        let (count, dim) = vectors.dim();
        if dim > MAX_DIM || dim * dim >= count * classes * SAVED_PASSES {
            return None;
        }
        // Every k-th clip is enough of a sample.
        let vectors = vectors.slice(s![..;count.div_ceil((MOMENT_CLIPS * dim).max(1)).max(1), ..]);
        let mut moments = Array2::zeros((dim + 1, dim + 1));
        for block in vectors.axis_chunks_iter(Axis(0), 1024) {
            let mut product = Array2::<f32>::zeros((dim, dim));
            multiply(block.t(), block, product.view_mut(), Accumulate::No, threads);
            moments.slice_mut(s![..dim, ..dim]).zip_mut_with(&product, |sum, p| *sum += f64::from(*p));
            for (j, column) in block.columns().into_iter().enumerate() {
                moments[(dim, j)] += column.iter().map(|&x| f64::from(x)).sum::<f64>();
            }
        }
        moments /= vectors.nrows() as f64;
        for j in 0..dim {
            moments[(j, dim)] = moments[(dim, j)];
        }
        moments[(dim, dim)] = 1.0;
        Some(Self { moments, penalized, inverse: None })
    }

    /// Returns the preconditioner for another ridge; `None` if it is for another number of parameters with the ridge.
    pub fn reused(self, penalized: usize) -> Option<Self> {
        (self.penalized == penalized).then_some(Self { inverse: None, ..self })
    }

    /// Multiplies the rows of `gradient`, (C, D + 1), by the inverse, in f32: it is an approximation anyway.
    pub fn apply(&mut self, gradient: &Array2<f64>, curvature: f64, ridge: f64, threads: usize) -> Array2<f64> {
        let single = gradient.mapv(|value| value as f32);
        let Inverse { scale, matrix, .. } = self.inverse(curvature, ridge, threads);
        let product = |rows: ArrayView2<'_, f32>| {
            let mut product = Array2::zeros((single.nrows(), rows.nrows()));
            thin::logits(rows, single.view(), product.view_mut());
            product
        };
        let parts: Vec<_> = matrix.axis_chunks_iter(Axis(0), ROWS).collect();
        let parts: Vec<Array2<f32>> = if threads > 1 {
            parts.into_par_iter().map(product).collect()
        } else {
            parts.into_iter().map(product).collect()
        };
        let mut all = Array2::zeros(gradient.dim());
        for (mut columns, part) in all.axis_chunks_iter_mut(Axis(1), ROWS).zip(parts) {
            columns.zip_mut_with(&part, |value, product| *value = f64::from(*product) / scale);
        }
        all
    }

    /// Returns the inverse for a curvature, or one of at most five times or a fifth of it.
    fn inverse(&mut self, curvature: f64, ridge: f64, threads: usize) -> &Inverse {
        let known = self.inverse.take().filter(|known| (0.2..=5.0).contains(&(curvature / known.curvature)));
        let compute = || {
            let curvature = curvature.max(f64::MIN_POSITIVE.sqrt());
            let scale = curvature.max(ridge);
            let mut hessian = &self.moments * (curvature / scale);
            let ridge = ridge.max(MIN_RIDGE * curvature) / scale;
            hessian.diag_mut().slice_mut(s![..self.penalized]).mapv_inplace(|value| value + ridge);
            let inverse = invert_positive(hessian.view(), threads)
                .unwrap_or_else(|| Array2::from_diag(&hessian.diag().mapv(|value| 1.0 / value.max(ridge))));
            Inverse { curvature, scale, matrix: inverse.mapv(|value| value as f32) }
        };
        self.inverse.insert(known.unwrap_or_else(compute))
    }
}
