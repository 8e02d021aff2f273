//! Platt scaling.

/// Maximum number of Newton steps; the method converges in about ten.
const MAX_STEPS: usize = 100;
/// Gradient at which the search ends.
const TOLERANCE: f64 = 1e-9;
/// Added to the diagonal of the Hessian, which is singular if all z are equal.
const RIDGE: f64 = 1e-12;

/// Returns a and b that minimize the cross-entropy between σ(a·z + b) and Platt's targets: (N₊ + 1)/(N₊ + 2) for the N₊ positives and
/// 1/(N₋ + 2) for the N₋ negatives. They prevent infinite parameters if z separates the two.
///
/// Source: Newton's method with backtracking, Lin, Lin, Weng, "A Note on Platt's Probabilistic Outputs for Support Vector Machines"
/// (2007), algorithm 1.
pub(super) fn fit(z: &[f64], truth: &[bool]) -> (f64, f64) {
    let positives = truth.iter().filter(|&&has| has).count() as f64;
    let negatives = truth.len() as f64 - positives;
    let (high, low) = ((positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0));
    let points: Vec<(f64, f64)> = z.iter().zip(truth).map(|(&z, &has)| (z, if has { high } else { low })).collect();
    // −t·ln σ(u) − (1 − t)·ln(1 − σ(u)) = ln(1 + eᵘ) − t·u, without overflow.
    let loss = |a: f64, b: f64| -> f64 {
        let of = |&(z, target): &(f64, f64)| {
            let u = a * z + b;
            u.max(0.0) + (-u.abs()).exp().ln_1p() - target * u
        };
        points.iter().map(of).sum()
    };
    let (mut a, mut b) = (0.0, ((positives + 1.0) / (negatives + 1.0)).ln());
    let mut value = loss(a, b);
    for _ in 0..MAX_STEPS {
        let (mut gradient, mut hessian) = ([0.0; 2], [RIDGE, 0.0, RIDGE]);
        for &(z, target) in &points {
            let p = 1.0 / (1.0 + (-(a * z + b)).exp());
            let (error, curvature) = (p - target, p * (1.0 - p));
            gradient[0] += error * z;
            gradient[1] += error;
            hessian[0] += curvature * z * z;
            hessian[1] += curvature * z;
            hessian[2] += curvature;
        }
        if gradient.iter().all(|component| component.abs() < TOLERANCE) {
            break;
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        let step_a = -(hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant;
        let step_b = -(hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant;
        let slope = gradient[0] * step_a + gradient[1] * step_b;
        let mut factor = 1.0;
        loop {
            let next = loss(a + factor * step_a, b + factor * step_b);
            if next < value + 1e-4 * factor * slope {
                (a, b, value) = (a + factor * step_a, b + factor * step_b, next);
                break;
            }
            factor *= 0.5;
            if factor < 1e-10 {
                // The loss does not change any more in double precision.
                return (a, b);
            }
        }
    }
    (a, b)
}
