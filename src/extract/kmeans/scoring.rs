//! Blocks of rows against all centers.

use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use pulp::Arch;

use super::Number;
use crate::matrix::{Into as Product, multiply};

/// Rows scored at once: with 128 columns and centers, a block and its scores are 256 KiB, in the second-level cache.
pub(super) const BLOCK_ROWS: usize = 256;

/// The buffers of one thread.
pub(super) struct Scratch {
    columns: usize,
    /// A block of rows as f32, (BLOCK_ROWS, D).
    rows: Vec<f32>,
    /// Its scores, (k, BLOCK_ROWS): center by center, so that finding the least is vector arithmetic over rows.
    scores: Vec<f32>,
    /// The nearest center of each row.
    pub nearest: Vec<u32>,
    /// Its score.
    pub least: Vec<f32>,
    /// The score of the second nearest.
    pub second: Vec<f32>,
}

impl Scratch {
    /// For centers of the shape (k, D).
    pub fn new((clusters, columns): (usize, usize)) -> Self {
        Self {
            columns,
            rows: vec![0.0; BLOCK_ROWS * columns],
            scores: vec![0.0; clusters * BLOCK_ROWS],
            nearest: vec![0; BLOCK_ROWS],
            least: vec![0.0; BLOCK_ROWS],
            second: vec![0.0; BLOCK_ROWS],
        }
    }

    /// Puts a row into its place in the block.
    pub fn put<T: Number>(&mut self, place: usize, row: &[T]) {
        let wide = &mut self.rows[place * self.columns..(place + 1) * self.columns];
        wide.iter_mut().zip(row).for_each(|(wide, &value)| *wide = value.into());
    }

    /// The row in a place of the block.
    pub fn row(&self, place: usize) -> &[f32] {
        &self.rows[place * self.columns..(place + 1) * self.columns]
    }
}

/// Scores of rows against centers: ‖x − c‖² − ‖x − m‖² for a point m amid the data, which is taken out of the centers
/// so that less is lost to rounding: ‖c − m‖² + 2·m·(c − m) − 2·x·(c − m).
pub(super) struct Scorer {
    arch: Arch,
    mean: Vec<f32>,
    /// −2·(c − m), (k, D).
    doubled: Array2<f32>,
    /// ‖c − m‖² + 2·m·(c − m), k of them.
    constants: Vec<f32>,
    /// ‖m‖² and the largest ‖c − m‖²: what rounding is measured by.
    scale: f32,
}

impl Scorer {
    pub fn new(centroids: &Array2<f32>, mean: &[f64]) -> Self {
        // As rounded, so that what is precomputed belongs to what the product sees.
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

    /// Finds the nearest center and the two least scores of the first `count` rows of the scratch.
    pub fn nearest(&self, scratch: &mut Scratch, count: usize) {
        let (clusters, columns) = self.doubled.dim();
        let rows =
            ArrayView2::from_shape((count, columns), &scratch.rows[..count * columns]).expect("that many values");
        let scores = &mut scratch.scores[..clusters * count];
        let out = ArrayViewMut2::from_shape((clusters, count), scores).expect("that many values");
        multiply(self.doubled.view(), rows.t(), out, Product::Overwrite, 1);
        let Scratch { scores, nearest, least, second, .. } = scratch;
        let (nearest, least, second) = (&mut nearest[..count], &mut least[..count], &mut second[..count]);
        nearest.fill(0);
        least.fill(f32::INFINITY);
        second.fill(f32::INFINITY);
        self.arch.dispatch(
            #[inline(always)]
            || {
                for ((scores, &constant), index) in scores.chunks_exact(count).zip(&self.constants).zip(0u32..) {
                    let best = nearest.iter_mut().zip(least.iter_mut()).zip(second.iter_mut());
                    for (score, ((nearest, least), second)) in scores.iter().zip(best) {
                        // All written whatever comes out: a choice of values is vector arithmetic, a branch is not.
                        let score = score + constant;
                        let nearer = score < *least;
                        *second = if nearer {
                            *least
                        } else if score < *second {
                            score
                        } else {
                            *second
                        };
                        *least = if nearer { score } else { *least };
                        *nearest = if nearer { index } else { *nearest };
                    }
                }
            },
        );
    }

    /// The distance of a scored row to its nearest center at the most, and to its second nearest at the least, rounding
    /// included.
    pub fn bounds(&self, scratch: &Scratch, place: usize) -> (f32, f32) {
        let norm = self.arch.dispatch(
            #[inline(always)]
            || squared_distance(scratch.row(place), &self.mean),
        );
        let slack = ROUNDING * (norm + self.scale);
        let upper = (norm + scratch.least[place]).max(0.0) + slack;
        let lower = norm + scratch.second[place] - slack;
        (upper.sqrt(), lower.max(0.0).sqrt())
    }
}

/// What a product of a hundred or so terms is off by, relative to the squared norms of its factors.
const ROUNDING: f32 = 2e-6;

/// ‖a − b‖².
#[inline(always)]
pub(super) fn squared_distance<T: Number>(a: &[T], b: &[f32]) -> f32 {
    lanes(a.iter().map(|&a| a.into()), b, |a, b| (a - b) * (a - b))
}

/// a·b.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes(a.iter().copied(), b, |a, b| a * b)
}

/// The sum of `of` over pairs, in sixteen sums side by side, as vector arithmetic has them, in an order that does not
/// depend on the machine.
#[inline(always)]
fn lanes(a: impl ExactSizeIterator<Item = f32>, b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let mut a = a;
    for chunk in b.chunks(LANES) {
        for ((sum, b), a) in sums.iter_mut().zip(chunk).zip(&mut a) {
            *sum += of(a, *b);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
