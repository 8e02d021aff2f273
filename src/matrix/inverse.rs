//! Inverses of symmetric positive definite matrices.

use ndarray::{Array2, ArrayView2, s};

use super::{Accumulate, multiply};

/// Size below which a matrix is factored without matrix products.
const BASE: usize = 32;

/// Computes the inverse of a symmetric positive definite matrix. Returns `None` if the matrix is not positive definite.
///
/// # Panics
/// Panics if the matrix is not square.
pub fn invert_positive(a: ArrayView2<'_, f64>, threads: usize) -> Option<Array2<f64>> {
    assert_eq!(a.nrows(), a.ncols(), "the matrix is square");
    let factor = inverse_factor(a, threads)?;
    Some(product(factor.t(), factor.view(), threads))
}

/// Computes the lower triangular L⁻¹ with A = L·Lᵀ (Cholesky) for a symmetric A, by recursion, so that the work is in matrix products.
/// Returns `None` if A is not positive definite.
///
/// ```text
/// A = [[P, Qᵀ], [Q, R]]    L = [[M, 0], [N, O]]    N = Q·M⁻ᵀ    O·Oᵀ = R − N·Nᵀ    L⁻¹ = [[M⁻¹, 0], [−O⁻¹·N·M⁻¹, O⁻¹]]
/// ```
pub fn inverse_factor(a: ArrayView2<'_, f64>, threads: usize) -> Option<Array2<f64>> {
    let size = a.nrows();
    if size <= BASE {
        return small_inverse_factor(a);
    }
    let half = size / 2;
    let upper = inverse_factor(a.slice(s![..half, ..half]), threads)?;
    let n = product(a.slice(s![half.., ..half]), upper.t(), threads);
    let complement = &a.slice(s![half.., half..]) - &product(n.view(), n.t(), threads);
    let lower = inverse_factor(complement.view(), threads)?;
    let mut factor = Array2::zeros((size, size));
    let corner = product(lower.view(), product(n.view(), upper.view(), threads).view(), threads);
    factor.slice_mut(s![half.., ..half]).assign(&-corner);
    factor.slice_mut(s![..half, ..half]).assign(&upper);
    factor.slice_mut(s![half.., half..]).assign(&lower);
    Some(factor)
}

fn product(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>, threads: usize) -> Array2<f64> {
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    multiply(a, b, out.view_mut(), Accumulate::No, threads);
    out
}

/// Computes L row by row, and L⁻¹ by forward substitution.
fn small_inverse_factor(a: ArrayView2<'_, f64>) -> Option<Array2<f64>> {
    let size = a.nrows();
    let (mut l, mut inverse) = (Array2::<f64>::zeros((size, size)), Array2::<f64>::zeros((size, size)));
    for i in 0..size {
        for j in 0..=i {
            let rest = a[(i, j)] - l.slice(s![i, ..j]).dot(&l.slice(s![j, ..j]));
            if i != j {
                l[(i, j)] = rest / l[(j, j)];
            } else if rest > 0.0 && rest.is_finite() {
                l[(i, i)] = rest.sqrt();
            } else {
                return None;
            }
        }
        for j in 0..=i {
            let known = l.slice(s![i, j..i]).dot(&inverse.slice(s![j..i, j]));
            inverse[(i, j)] = (f64::from(i == j) - known) / l[(i, i)];
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_of_all_sizes() {
        for size in [1, 2, 31, 32, 33, 65, 130] {
            // XᵀX + I of deterministic numbers.
            let x = Array2::from_shape_fn((size + 3, size), |(i, j)| ((i * 37 + j * 101) % 19) as f64 / 9.0 - 1.0);
            let a = x.t().dot(&x) + Array2::<f64>::eye(size);
            let inverse = invert_positive(a.view(), 1).unwrap();
            let error = (a.dot(&inverse) - Array2::<f64>::eye(size)).iter().fold(0f64, |most, e| most.max(e.abs()));
            assert!(error < 1e-8, "{size}: {error}");
            assert!(invert_positive((-a).view(), 1).is_none());
        }
        let singular = Array2::from_elem((3, 3), 1.0);
        assert!(invert_positive(singular.view(), 1).is_none());
    }
}
