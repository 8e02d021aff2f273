//! Products of a large matrix with one of a few columns or rows, as in linear classifiers. These kernels read the large matrix in place;
//! `gemm` first copies it into packed blocks.

use ndarray::{ArrayView2, ArrayViewMut2};
use pulp::{Simd, WithSimd};

/// Features in a block. The blocks that a kernel reads repeatedly fit into the level 1 cache.
const FEATURES: usize = 256;
/// Products that are added to one sum, to bound its rounding error; then the sums are added.
const CHAIN: usize = 64;
/// Rows of X whose products [`logits`] computes together, with one and with two vectors of classes: 12 sums in registers.
const ROWS: (usize, usize) = (12, 6);
/// Number of rows of X that [`weighted_sums`] adds together, with the factors of two classes in registers.
const SUMMED: usize = 6;

/// Adds X·Wᵀ, transposed, to `out`: `x` is (N, D), `weight` (C, D) and `out` (C, N), all with contiguous rows.
///
/// # Panics
/// Panics if the shapes do not match or the rows are not contiguous.
pub fn logits(x: ArrayView2<'_, f32>, weight: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
    assert_eq!(x.ncols(), weight.ncols(), "the numbers of features match");
    assert_eq!(out.dim(), (weight.nrows(), x.nrows()), "the destination has the shape of the product");
    pulp::Arch::new().dispatch(Logits { x: rows(&x), weight: rows(&weight), out: rows_mut(&mut out) });
}

/// Adds R·X to `out`: `factors` R is (C, N), `x` (N, D) and `out` (C, D), all with contiguous rows.
///
/// # Panics
/// Panics if the shapes do not match or the rows are not contiguous.
pub fn weighted_sums(factors: ArrayView2<'_, f32>, x: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
    assert_eq!(factors.ncols(), x.nrows(), "the numbers of rows match");
    assert_eq!(out.dim(), (factors.nrows(), x.ncols()), "the destination has the shape of the product");
    pulp::Arch::new().dispatch(WeightedSums { factors: rows(&factors), x: rows(&x), out: rows_mut(&mut out) });
}

/// Returns the rows of a matrix.
fn rows<'a>(matrix: &'a ArrayView2<'_, f32>) -> Vec<&'a [f32]> {
    matrix.outer_iter().map(|row| row.to_slice().expect("the rows are contiguous")).collect()
}

fn rows_mut<'a>(matrix: &'a mut ArrayViewMut2<'_, f32>) -> Vec<&'a mut [f32]> {
    matrix.outer_iter_mut().map(|row| row.into_slice().expect("the rows are contiguous")).collect()
}

struct Logits<'a> {
    x: Vec<&'a [f32]>,
    weight: Vec<&'a [f32]>,
    out: Vec<&'a mut [f32]>,
}

impl WithSimd for Logits<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let classes = self.weight.len();
        let mut class = 0;
        while class < classes {
            if classes - class > lanes {
                self.add::<S, { ROWS.1 }, 2>(simd, class);
                class += 2 * lanes;
            } else {
                self.add::<S, { ROWS.0 }, 1>(simd, class);
                class += lanes;
            }
        }
    }
}

impl Logits<'_> {
    /// Adds the products of V vectors of classes, R rows at a time.
    #[inline(always)]
    fn add<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, class: usize) {
        let width = V * size_of::<S::f32s>() / size_of::<f32>();
        let classes = width.min(self.weight.len() - class);
        let count = self.x.len();
        let dim = self.x.first().map_or(0, |row| row.len());
        // Wᵀ, with zeros for missing classes.
        let mut packed = [[simd.splat_f32s(0.0); V]; FEATURES];
        for start in (0..dim).step_by(FEATURES) {
            let end = (start + FEATURES).min(dim);
            let weights: &mut [f32] = bytemuck::cast_slice_mut(packed.as_flattened_mut());
            for (c, row) in self.weight[class..class + classes].iter().enumerate() {
                for (j, w) in row[start..end].iter().enumerate() {
                    weights[j * width + c] = *w;
                }
            }
            for row in (0..count).step_by(R) {
                // The last tile repeats its last row.
                let mut x = [&[] as &[f32]; R];
                for (i, x) in x.iter_mut().enumerate() {
                    *x = &self.x[(row + i).min(count - 1)][start..end];
                }
                let sums = products(simd, x, &packed[..end - start]);
                for (i, sums) in sums.iter().enumerate().take(count - row) {
                    let sums: &[f32] = bytemuck::cast_slice(sums);
                    for (out, sum) in self.out[class..class + classes].iter_mut().zip(sums) {
                        out[row + i] += sum;
                    }
                }
            }
        }
    }
}

/// Computes Σⱼ x[i][j]·w[j] for every row i and V vectors of classes.
#[inline(always)]
fn products<S: Simd, const R: usize, const V: usize>(
    simd: S,
    x: [&[f32]; R],
    weights: &[[S::f32s; V]],
) -> [[S::f32s; V]; R] {
    let mut totals = [[simd.splat_f32s(0.0); V]; R];
    for (number, weights) in weights.chunks(CHAIN).enumerate() {
        let mut chain = x;
        for row in &mut chain {
            *row = &row[number * CHAIN..][..weights.len()];
        }
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for (j, weights) in weights.iter().enumerate() {
            for i in 0..R {
                let x = simd.splat_f32s(chain[i][j]);
                for v in 0..V {
                    sums[i][v] = simd.mul_add_f32s(x, weights[v], sums[i][v]);
                }
            }
        }
        for i in 0..R {
            for v in 0..V {
                totals[i][v] = simd.add_f32s(totals[i][v], sums[i][v]);
            }
        }
    }
    totals
}

struct WeightedSums<'a> {
    factors: Vec<&'a [f32]>,
    x: Vec<&'a [f32]>,
    out: Vec<&'a mut [f32]>,
}

impl WithSimd for WeightedSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let count = self.x.len();
        let dim = self.out.first().map_or(0, |row| row.len());
        for start in (0..dim).step_by(FEATURES) {
            let end = (start + FEATURES).min(dim);
            for row in (0..count).step_by(SUMMED) {
                // The last tile repeats its last row with the factor 0.
                let mut x = [&[] as &[f32]; SUMMED];
                for (i, x) in x.iter_mut().enumerate() {
                    *x = &self.x[(row + i).min(count - 1)][start..end];
                }
                for (all, out) in self.factors.chunks(2).zip(self.out.chunks_mut(2)) {
                    let mut factors = [[0.0; SUMMED]; 2];
                    for (factors, all) in factors.iter_mut().zip(all) {
                        for (factor, value) in factors.iter_mut().zip(&all[row..]) {
                            *factor = *value;
                        }
                    }
                    match out {
                        [a, b] => add_combinations(simd, factors, x, [&mut a[start..end], &mut b[start..end]]),
                        [a] => add_combinations(simd, [factors[0]], x, [&mut a[start..end]]),
                        _ => unreachable!("chunks have one or two rows"),
                    }
                }
            }
        }
    }
}

/// Adds linear combinations of the rows of `x` to the rows of `out`, which have their length.
#[inline(always)]
fn add_combinations<S: Simd, const C: usize>(
    simd: S,
    factors: [[f32; SUMMED]; C],
    x: [&[f32]; SUMMED],
    out: [&mut [f32]; C],
) {
    let length = S::as_simd_f32s(x[0]).0.len();
    let mut splat = [[simd.splat_f32s(0.0); SUMMED]; C];
    let mut sums: [&mut [S::f32s]; C] = std::array::from_fn(|_| Default::default());
    for (c, out) in out.into_iter().enumerate() {
        let (head, tail) = S::as_mut_simd_f32s(out);
        sums[c] = &mut head[..length];
        for i in 0..SUMMED {
            splat[c][i] = simd.splat_f32s(factors[c][i]);
            for (sum, x) in tail.iter_mut().zip(S::as_simd_f32s(x[i]).1) {
                *sum += factors[c][i] * x;
            }
        }
    }
    let mut vectors = [&[] as &[S::f32s]; SUMMED];
    for i in 0..SUMMED {
        vectors[i] = &S::as_simd_f32s(x[i]).0[..length];
    }
    for j in 0..length {
        // The products are added before they are added to the sums, to bound the rounding error.
        let mut added = [simd.splat_f32s(0.0); C];
        for i in 0..SUMMED {
            let x = vectors[i][j];
            for c in 0..C {
                added[c] = simd.mul_add_f32s(splat[c][i], x, added[c]);
            }
        }
        for c in 0..C {
            sums[c][j] = simd.add_f32s(sums[c][j], added[c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn products_of_all_shapes_match_ndarray() {
        for (count, dim, classes) in
            [(1, 1, 1), (3, 8, 4), (64, 1024, 15), (65, 1031, 15), (7, 259, 2), (10, 513, 33), (13, 300, 8)]
        {
            let x = Array2::from_shape_fn((count, dim), |(i, j)| ((i * 7 + j * 13) % 101) as f32 / 50.0 - 1.0);
            let weight = Array2::from_shape_fn((classes, dim), |(i, j)| ((i * 11 + j * 5) % 97) as f32 / 48.0 - 1.0);
            let mut z = Array2::ones((classes, count));
            logits(x.view(), weight.view(), z.view_mut());
            assert!(z.iter().zip(&(weight.dot(&x.t()) + 1.0)).all(|(a, b)| (a - b).abs() < 1e-3), "{count} {dim}");
            let mut sums = Array2::ones((classes, dim));
            weighted_sums(z.view(), x.view(), sums.view_mut());
            assert!(sums.iter().zip(&(z.dot(&x) + 1.0)).all(|(a, b)| (a - b).abs() < 1e-2), "{count} {dim}");
        }
    }
}
