//! Gaussian error linear unit.

use crate::classify::numeric::Real;

/// `y = x·Φ(x)`, where Φ is the standard normal distribution function (computed with erf), as in `torch.nn.GELU()`
/// (Hendrycks & Gimpel 2016).
#[derive(Debug, Clone, Copy)]
pub struct Gelu;

impl Gelu {
    /// Replaces x by y.
    pub fn forward<T: Real>(self, values: &mut [T]) {
        let (half, inverse_sqrt_2) = (T::of(0.5), T::of(std::f64::consts::FRAC_1_SQRT_2));
        for x in values {
            *x = half * *x * (T::one() + (*x * inverse_sqrt_2).erf());
        }
    }

    /// Replaces x by y and stores dy/dx = Φ(x) + x·φ(x) for the backward pass in `derivative`.
    pub fn forward_training<T: Real>(self, values: &mut [T], derivative: &mut [T]) {
        let (half, inverse_sqrt_2) = (T::of(0.5), T::of(std::f64::consts::FRAC_1_SQRT_2));
        let density = T::of(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2); // 1/√(2π)
        for (x, derivative) in values.iter_mut().zip(derivative) {
            let cdf = half * (T::one() + (*x * inverse_sqrt_2).erf());
            *derivative = cdf + *x * density * (-half * *x * *x).exp_nonpositive();
            *x *= cdf;
        }
    }
}
