//! Distances of blocks of rows to all centers.

use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use pulp::Arch;

use super::distance::{Number, squared_distance};
use super::rows::BLOCK_ROWS;
use crate::matrix::{Accumulate, multiply};

/// Buffers of one thread.
pub(super) struct Scratch {
    columns: usize,
    /// A block of rows, ([`BLOCK_ROWS`], D).
    rows: Vec<f32>,
    /// The scores, (k, [`BLOCK_ROWS`]), in this order so that the search for the minimum vectorizes over rows.
    scores: Vec<f32>,
    /// The nearest center of each row.
    pub nearest: Vec<u32>,
    /// The score of the nearest center.
    pub min: Vec<f32>,
    /// The score of the second nearest center.
    pub second: Vec<f32>,
}

impl Scratch {
    /// Allocates buffers for centers of shape (k, D).
    pub fn new((clusters, columns): (usize, usize)) -> Self {
        Self {
            columns,
            rows: vec![0.0; BLOCK_ROWS * columns],
            scores: vec![0.0; clusters * BLOCK_ROWS],
            nearest: vec![0; BLOCK_ROWS],
            min: vec![0.0; BLOCK_ROWS],
            second: vec![0.0; BLOCK_ROWS],
        }
    }

    /// Converts a row to f32 and stores it in the block.
    pub fn put<T: Number>(&mut self, slot: usize, row: &[T]) {
        let out = &mut self.rows[slot * self.columns..(slot + 1) * self.columns];
        out.iter_mut().zip(row).for_each(|(out, &value)| *out = value.into());
    }

    /// Returns a row of the block.
    pub fn row(&self, slot: usize) -> &[f32] {
        &self.rows[slot * self.columns..(slot + 1) * self.columns]
    }
}

/// Computes scores of rows and centers: ‖x − c‖² − ‖x − m‖² for the mean m of the data, as
/// ‖c − m‖² + 2·m·(c − m) − 2·x·(c − m), which has a smaller rounding error than ‖c‖² − 2·x·c.
pub(super) struct Scorer {
    arch: Arch,
    mean: Vec<f32>,
    /// −2·(c − m), (k, D).
    doubled: Array2<f32>,
    /// ‖c − m‖² + 2·m·(c − m), k of them.
    constants: Vec<f32>,
    /// ‖m‖² plus the largest ‖c − m‖², the scale of the rounding error.
    scale: f32,
}

impl Scorer {
    pub fn new(centroids: &Array2<f32>, mean: &[f64]) -> Self {
        // The constants are computed from the rounded values that the product uses.
        let mean: Vec<f32> = mean.iter().map(|&value| value as f32).collect();
        let mut doubled = Array2::zeros(centroids.dim());
        let mut constants = Vec::with_capacity(centroids.nrows());
        let mut largest = 0f64;
        for (center, mut out) in centroids.rows().into_iter().zip(doubled.rows_mut()) {
            let (mut norm, mut inner) = (0.0, 0.0);
            for ((&value, &mean), out) in center.iter().zip(&mean).zip(&mut out) {
                let offset = value - mean;
                *out = -2.0 * offset;
                norm += f64::from(offset) * f64::from(offset);
                inner += f64::from(mean) * f64::from(offset);
            }
            constants.push((norm + 2.0 * inner) as f32);
            largest = largest.max(norm);
        }
        let scale = mean.iter().map(|value| value * value).sum::<f32>() + largest as f32;
        Self { arch: Arch::new(), mean, doubled, constants, scale }
    }

    /// Finds the nearest center and the two smallest scores of each of the first `count` rows of the scratch.
    pub fn nearest(&self, scratch: &mut Scratch, count: usize) {
        let (clusters, columns) = self.doubled.dim();
        let rows = ArrayView2::from_shape((count, columns), &scratch.rows[..count * columns])
            .expect("the slice has this many values");
        let scores = &mut scratch.scores[..clusters * count];
        let out = ArrayViewMut2::from_shape((clusters, count), scores).expect("the slice has this many values");
        multiply(self.doubled.view(), rows.t(), out, Accumulate::No, 1);
        let Scratch { scores, nearest, min, second, .. } = scratch;
        let (nearest, min, second) = (&mut nearest[..count], &mut min[..count], &mut second[..count]);
        nearest.fill(0);
        min.fill(f32::INFINITY);
        second.fill(f32::INFINITY);
        self.arch.dispatch(
            #[inline(always)]
            || {
                for ((scores, &constant), index) in scores.chunks_exact(count).zip(&self.constants).zip(0u32..) {
                    let minima = nearest.iter_mut().zip(min.iter_mut()).zip(second.iter_mut());
                    for (score, ((nearest, min), second)) in scores.iter().zip(minima) {
                        // Unconditional writes, so that the loop vectorizes.
                        let score = score + constant;
                        let nearer = score < *min;
                        *second = if nearer {
                            *min
                        } else if score < *second {
                            score
                        } else {
                            *second
                        };
                        *min = if nearer { score } else { *min };
                        *nearest = if nearer { index } else { *nearest };
                    }
                }
            },
        );
    }

    /// Returns an upper bound for the distance of a scored row to its nearest center, and a lower bound for the distance to its
    /// second nearest center, including rounding errors.
    pub fn bounds(&self, scratch: &Scratch, slot: usize) -> (f32, f32) {
        let norm = self.arch.dispatch(
            #[inline(always)]
            || squared_distance(scratch.row(slot), &self.mean),
        );
        let error = ROUNDING_ERROR * (norm + self.scale);
        let upper = (norm + scratch.min[slot]).max(0.0) + error;
        let lower = norm + scratch.second[slot] - error;
        (upper.sqrt(), lower.max(0.0).sqrt())
    }
}

/// Bound for the rounding error of a dot product of some hundred terms, relative to the squared norms.
const ROUNDING_ERROR: f32 = 2e-6;
