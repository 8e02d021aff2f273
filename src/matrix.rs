//! Matrix products: the one safe door to the `gemm` crate.

use gemm::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2, NdFloat};

/// The floating-point types `gemm` multiplies here: f32 for work, f64 to check gradients.
pub trait Float: NdFloat + Default {
    /// The nearest value.
    fn of(value: f64) -> Self;
    /// The same value in double precision.
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

/// Whether a product overwrites its destination or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// `out = a·b`.
    Overwrite,
    /// `out += a·b`.
    Add,
}

/// `out = a·b` or `out += a·b`; `a` is (m, k), `b` is (k, n), `out` is (m, n), of any strides (so a transposed view
/// costs nothing). Uses up to `threads` threads of rayon's pool; the result does not depend on how many, bit for bit.
///
/// # Panics
/// The shapes do not fit each other.
pub fn multiply<T: Float>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    mut out: ArrayViewMut2<'_, T>,
    into: Into,
    threads: usize,
) {
    let (m, k) = a.dim();
    let n = b.ncols();
    assert_eq!(b.nrows(), k, "inner dimensions of a product differ");
    assert_eq!(out.dim(), (m, n), "the destination of a product has another shape");
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
            into == Into::Add,
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

/// (row stride, column stride).
fn strides(of: &[isize]) -> (isize, isize) {
    (of[0], of[1])
}

/// Threads worth giving to a product when nobody said: the pool's, but no more than eight, beyond which the matrices of
/// this crate are too small to share out.
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
    fn agrees_with_ndarray_and_does_not_depend_on_the_number_of_threads() {
        for (m, k, n) in [(256, 1024, 512), (512, 256, 1024), (64, 37, 15), (1, 300, 7), (300, 5, 1), (257, 1031, 511)]
        {
            let (a, b) = (filled(m, k, 1), filled(k, n, 2));
            let mut one = Array2::zeros((m, n));
            multiply(a.view(), b.view(), one.view_mut(), Into::Overwrite, 1);
            let expected = a.dot(&b);
            assert!(one.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-3), "{m}×{k}×{n}");
            for threads in [2, 3, 8] {
                let mut several = Array2::zeros((m, n));
                multiply(a.view(), b.view(), several.view_mut(), Into::Overwrite, threads);
                assert!(one.iter().zip(&several).all(|(x, y)| x.to_bits() == y.to_bits()), "{m}×{k}×{n}, {threads}");
            }
            // Transposed views, as the backward pass has them.
            let (at, bt) = (a.t().as_standard_layout().to_owned(), b.t().as_standard_layout().to_owned());
            let mut transposed = Array2::zeros((m, n));
            multiply(at.t(), bt.t(), transposed.view_mut(), Into::Overwrite, 1);
            assert!(transposed.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-3));
        }
    }

    #[test]
    fn adds_to_what_is_there_and_clears_without_inner_dimension() {
        let (a, b) = (filled(3, 4, 5), filled(4, 2, 6));
        let mut out = Array2::from_elem((3, 2), 1f32);
        multiply(a.view(), b.view(), out.view_mut(), Into::Add, 1);
        assert!(out.iter().zip(&(a.dot(&b) + 1.0)).all(|(x, y)| (x - y).abs() < 1e-6));
        let (a, b) = (Array2::<f32>::zeros((3, 0)), Array2::zeros((0, 2)));
        multiply(a.view(), b.view(), out.view_mut(), Into::Overwrite, 1);
        assert!(out.iter().all(|x| *x == 0.0));
    }
}
