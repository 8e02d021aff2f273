//! Temperature scaling.

use ndarray::ArrayView2;

/// Bound of |ln T|, as in scikit-learn.
const MAX_LOG: f64 = 10.0;

/// Returns the temperature T that minimizes the mean negative log likelihood of softmax(z / T) for logits z (N ≥ 1, C) and the true
/// classes (N). `None` if T has no minimum in [e⁻¹⁰, e¹⁰]: if every clip is predicted correctly, the likelihood increases up to T = 0,
/// and if the predictions are worse than chance, up to T = ∞.
///
/// The negative log likelihood is convex in β = 1/T; the zero of its derivative, the mean of Σ p·z − z_true, is found by bisection.
pub(super) fn fit(logits: ArrayView2<'_, f64>, truth: &[usize]) -> Option<f64> {
    let derivative = |beta: f64| -> f64 {
        let of_clip = |(row, &class): (ndarray::ArrayView1<'_, f64>, &usize)| {
            let top = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let (mut sum, mut weighted) = (0.0, 0.0);
            for z in row {
                let weight = (beta * (z - top)).exp();
                sum += weight;
                weighted += weight * (z - row[class]);
            }
            weighted / sum
        };
        logits.rows().into_iter().zip(truth).map(of_clip).sum()
    };
    let (mut low, mut high) = (-MAX_LOG, MAX_LOG);
    if derivative(low.exp()) >= 0.0 || derivative(high.exp()) <= 0.0 {
        return None;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if derivative(middle.exp()) < 0.0 { low = middle } else { high = middle }
    }
    Some((-0.5 * (low + high)).exp())
}
