//! Products of a large matrix with one of a few columns or rows, as in linear classifiers. These kernels read the large matrix in place;
//! `gemm` first copies it into packed blocks.

use ndarray::{ArrayView2, ArrayViewMut2};
use pulp::{Simd, WithSimd};

/// Features in a block.
const FEATURES: usize = 1024;
/// Numbers of rows of X and of W whose dot products [`logits`] computes together.
const TILE: (usize, usize) = (3, 4);
/// Number of rows of X that [`weighted_sums`] adds together; even.
const ROWS: usize = 8;

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
        let (classes, count) = (self.weight.len(), self.x.len());
        let dim = self.x.first().map_or(0, |row| row.len());
        for start in (0..dim).step_by(FEATURES) {
            let end = (start + FEATURES).min(dim);
            for row in (0..count).step_by(TILE.0) {
                // The last tile repeats its last row and class.
                let mut x = [&[] as &[f32]; TILE.0];
                for (i, x) in x.iter_mut().enumerate() {
                    *x = &self.x[(row + i).min(count - 1)][start..end];
                }
                for class in (0..classes).step_by(TILE.1) {
                    let mut w = [&[] as &[f32]; TILE.1];
                    for (c, w) in w.iter_mut().enumerate() {
                        *w = &self.weight[(class + c).min(classes - 1)][start..end];
                    }
                    let sums = dot_products(simd, x, w);
                    for (i, sums) in sums.iter().enumerate().take(count - row) {
                        for (c, sum) in sums.iter().enumerate().take(classes - class) {
                            self.out[class + c][row + i] += sum;
                        }
                    }
                }
            }
        }
    }
}

/// Computes the dot products of every row of `x` with every row of `w`, which have the same length.
#[inline(always)]
fn dot_products<S: Simd>(simd: S, x: [&[f32]; TILE.0], w: [&[f32]; TILE.1]) -> [[f32; TILE.1]; TILE.0] {
    let lanes = S::as_simd_f32s(x[0]).0.len();
    let mut vectors = [&[] as &[S::f32s]; TILE.0 + TILE.1];
    let mut tails = [&[] as &[f32]; TILE.0 + TILE.1];
    for (i, row) in x.into_iter().chain(w).enumerate() {
        let (head, tail) = S::as_simd_f32s(row);
        (vectors[i], tails[i]) = (&head[..lanes], tail);
    }
    let mut sums = [[simd.splat_f32s(0.0); TILE.1]; TILE.0];
    #[allow(clippy::needless_range_loop)] // an index of all slices in `vectors`
    for j in 0..lanes {
        let mut factors = [simd.splat_f32s(0.0); TILE.1];
        for c in 0..TILE.1 {
            factors[c] = vectors[TILE.0 + c][j];
        }
        for i in 0..TILE.0 {
            let x = vectors[i][j];
            for c in 0..TILE.1 {
                sums[i][c] = simd.mul_add_f32s(x, factors[c], sums[i][c]);
            }
        }
    }
    let mut products = [[0.0; TILE.1]; TILE.0];
    for i in 0..TILE.0 {
        for c in 0..TILE.1 {
            products[i][c] = simd.reduce_sum_f32s(sums[i][c]);
            for (x, w) in tails[i].iter().zip(tails[TILE.0 + c]) {
                products[i][c] += x * w;
            }
        }
    }
    products
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
            for row in (0..count).step_by(ROWS) {
                // The last tile repeats its last row with the factor 0.
                let mut x = [&[] as &[f32]; ROWS];
                for (i, x) in x.iter_mut().enumerate() {
                    *x = &self.x[(row + i).min(count - 1)][start..end];
                }
                for (all, out) in self.factors.iter().zip(&mut self.out) {
                    let mut factors = [0.0; ROWS];
                    for (factor, value) in factors.iter_mut().zip(&all[row..]) {
                        *factor = *value;
                    }
                    add_combination(simd, factors, x, &mut out[start..end]);
                }
            }
        }
    }
}

/// Adds the linear combination of the rows of `x` to `out`, which has their length.
#[inline(always)]
fn add_combination<S: Simd>(simd: S, factors: [f32; ROWS], x: [&[f32]; ROWS], out: &mut [f32]) {
    let (sums, last) = S::as_mut_simd_f32s(out);
    let mut splat = [simd.splat_f32s(0.0); ROWS];
    let mut vectors = [&[] as &[S::f32s]; ROWS];
    let mut tails = [&[] as &[f32]; ROWS];
    for i in 0..ROWS {
        splat[i] = simd.splat_f32s(factors[i]);
        let (head, tail) = S::as_simd_f32s(x[i]);
        (vectors[i], tails[i]) = (&head[..sums.len()], tail);
    }
    for (j, sum) in sums.iter_mut().enumerate() {
        // Two chains, since each multiplication waits for the one before it in its chain.
        let (mut even, mut odd) = (*sum, simd.splat_f32s(0.0));
        for i in (0..ROWS).step_by(2) {
            even = simd.mul_add_f32s(splat[i], vectors[i][j], even);
            odd = simd.mul_add_f32s(splat[i + 1], vectors[i + 1][j], odd);
        }
        *sum = simd.add_f32s(even, odd);
    }
    for (j, sum) in last.iter_mut().enumerate() {
        for (factor, tail) in factors.iter().zip(&tails) {
            *sum += factor * tail[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn products_of_all_shapes_match_ndarray() {
        for (count, dim, classes) in [(1, 1, 1), (3, 8, 4), (64, 1024, 15), (65, 1031, 15), (7, 259, 2), (10, 513, 33)]
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
