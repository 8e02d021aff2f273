//! Matrix products: a safe wrapper around the `gemm` crate.

pub mod inverse;
pub mod thin;

use gemm::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2, NdFloat};

/// The floating-point types of matrix products: f32 for computation, f64 for gradient checks.
pub trait Float: NdFloat + Default {
    /// Converts from f64, rounding to the nearest value.
    fn of(value: f64) -> Self;
    /// Converts to f64.
    fn double(self) -> f64;
}

impl Float for f32 {
    #[inline]
    fn of(value: f64) -> Self {
        value as f32
    }
    #[inline]
    fn double(self) -> f64 {
        f64::from(self)
    }
}

impl Float for f64 {
    #[inline]
    fn of(value: f64) -> Self {
        value
    }
    #[inline]
    fn double(self) -> f64 {
        self
    }
}

/// Whether a product is added to its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// `out = a·b`.
    No,
    /// `out += a·b`.
    Yes,
}

/// Computes `out = a·b` or `out += a·b` for `a` (m, k), `b` (k, n) and `out` (m, n) with arbitrary strides, so transposed
/// views need no copy. Uses up to `threads` threads of rayon's pool; the result is bit-identical for every number of threads.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn multiply<T: Float>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    mut out: ArrayViewMut2<'_, T>,
    accumulate: Accumulate,
    threads: usize,
) {
    let (m, k) = a.dim();
    let n = b.ncols();
    assert_eq!(b.nrows(), k, "the inner dimensions of a product match");
    assert_eq!(out.dim(), (m, n), "the destination has the shape of the product");
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    let (out_strides, a_strides, b_strides) = (strides(out.strides()), strides(a.strides()), strides(b.strides()));
    // Safety: the three views hold m × n, m × k and k × n elements at their strides (checked above, guaranteed by
    // ndarray), `out` is borrowed uniquely, and `T` is f32 or f64, the only implementors of the trait.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            out_strides.1,
            out_strides.0,
            accumulate == Accumulate::Yes,
            a.as_ptr(),
            a_strides.1,
            a_strides.0,
            b.as_ptr(),
            b_strides.1,
            b_strides.0,
            T::one(),
            T::one(),
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Returns (row stride, column stride).
fn strides(strides: &[isize]) -> (isize, isize) {
    (strides[0], strides[1])
}

/// Returns the default number of threads of a product: the size of rayon's pool, at most 8. The matrices of this crate are
/// too small to benefit from more.
pub fn default_threads() -> usize {
    rayon::current_num_threads().min(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn filled(rows: usize, columns: usize, mut state: u64) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        })
    }

    #[test]
    fn matches_ndarray_for_every_number_of_threads() {
        for (m, k, n) in [(256, 1024, 512), (512, 256, 1024), (64, 37, 15), (1, 300, 7), (300, 5, 1), (257, 1031, 511)]
        {
            let (a, b) = (filled(m, k, 1), filled(k, n, 2));
            let mut one = Array2::zeros((m, n));
            multiply(a.view(), b.view(), one.view_mut(), Accumulate::No, 1);
            let expected = a.dot(&b);
            assert!(one.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-3), "{m}×{k}×{n}");
            for threads in [2, 3, 8] {
                let mut several = Array2::zeros((m, n));
                multiply(a.view(), b.view(), several.view_mut(), Accumulate::No, threads);
                assert!(one.iter().zip(&several).all(|(x, y)| x.to_bits() == y.to_bits()), "{m}×{k}×{n}, {threads}");
            }
            // Transposed views, as in the backward pass.
            let (at, bt) = (a.t().as_standard_layout().to_owned(), b.t().as_standard_layout().to_owned());
            let mut transposed = Array2::zeros((m, n));
            multiply(at.t(), bt.t(), transposed.view_mut(), Accumulate::No, 1);
            assert!(transposed.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-3));
        }
    }

    #[test]
    fn accumulates_and_overwrites_with_an_empty_inner_dimension() {
        let (a, b) = (filled(3, 4, 5), filled(4, 2, 6));
        let mut out = Array2::from_elem((3, 2), 1f32);
        multiply(a.view(), b.view(), out.view_mut(), Accumulate::Yes, 1);
        assert!(out.iter().zip(&(a.dot(&b) + 1.0)).all(|(x, y)| (x - y).abs() < 1e-6));
        let (a, b) = (Array2::<f32>::zeros((3, 0)), Array2::zeros((0, 2)));
        multiply(a.view(), b.view(), out.view_mut(), Accumulate::No, 1);
        assert!(out.iter().all(|x| *x == 0.0));
    }
}
