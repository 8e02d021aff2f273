//! Principal component analysis in two dimensions.

use ndarray::{Array1, Array2, Axis};

/// A projection of N points onto their first two principal components.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// Coordinates of the N points.
    pub points: Vec<(f64, f64)>,
    /// Explained variance ratio of each component, in [0, 1].
    pub explained: [f64; 2],
}

/// Maximum number of subspace iterations, sufficient for a plot.
const MAX_ITERATIONS: usize = 200;
/// Dimension of the subspace: more than two, so that a similar third singular value does not slow convergence.
const SUBSPACE: usize = 6;

/// Projects features, shape (N, D), onto their first two principal components; non-finite values count as 0.
///
/// Subspace iteration on the centered features, X ← Aᵀ(AX), with Gram–Schmidt after each step (Golub, Van Loan, "Matrix
/// Computations", 8.2.4), from a fixed start. The sign of each component is such that its largest weight is positive, so
/// plots are reproducible.
pub fn project(features: &Array2<f32>) -> Projection {
    let (n, d) = features.dim();
    let mut centered = features.mapv(|value| if value.is_finite() { f64::from(value) } else { 0.0 });
    if let Some(mean) = centered.mean_axis(Axis(0)) {
        centered -= &mean;
    }
    let total: f64 = centered.iter().map(|value| value * value).sum();
    let width = SUBSPACE.min(d).min(n.max(1));
    // A fixed start without symmetry: fractional parts of multiples of the golden ratio.
    let mut basis =
        Array2::from_shape_fn((d, width), |(i, j)| ((i * width + j + 1) as f64 * 0.618_033_988_749_895).fract() - 0.5);
    orthonormalize(&mut basis);
    // With more points than dimensions, the D × D scatter matrix is cheaper.
    let scatter = (n > d).then(|| centered.t().dot(&centered));
    let mut previous = f64::NEG_INFINITY;
    for _ in 0..MAX_ITERATIONS {
        let product = match &scatter {
            Some(scatter) => scatter.dot(&basis),
            None => centered.t().dot(&centered.dot(&basis)),
        };
        let captured: f64 = (0..width.min(2)).map(|k| basis.column(k).dot(&product.column(k))).sum();
        basis = product;
        orthonormalize(&mut basis);
        if (captured - previous).abs() <= 1e-12 * total {
            break;
        }
        previous = captured;
    }
    for mut column in basis.columns_mut() {
        let largest = column.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        if largest < 0.0 {
            column.mapv_inplace(|value| -value);
        }
    }
    let scores = centered.dot(&basis);
    let component = |k: usize| if k < width { scores.column(k).to_owned() } else { Array1::zeros(n) };
    let (first, second) = (component(0), component(1));
    let ratio = |values: &Array1<f64>| if total > 0.0 { values.dot(values) / total } else { 0.0 };
    Projection {
        explained: [ratio(&first), ratio(&second)],
        points: first.iter().copied().zip(second.iter().copied()).collect(),
    }
}

/// Orthonormalizes the columns by modified Gram–Schmidt; linearly dependent columns become zero.
fn orthonormalize(basis: &mut Array2<f64>) {
    for j in 0..basis.ncols() {
        let original = basis.column(j).dot(&basis.column(j)).sqrt();
        for i in 0..j {
            let other = basis.column(i).to_owned();
            let projection = other.dot(&basis.column(j));
            basis.column_mut(j).scaled_add(-projection, &other);
        }
        let length = basis.column(j).dot(&basis.column(j)).sqrt();
        let kept = length > 1e-10 * original;
        basis.column_mut(j).mapv_inplace(|value| if kept { value / length } else { 0.0 });
    }
}
