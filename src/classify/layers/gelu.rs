//! The Gaussian error linear unit.

use crate::classify::numeric::Real;

/// `y = x·Φ(x)` with Φ the normal distribution function by erf, as `torch.nn.GELU()` (Hendrycks & Gimpel 2016).
#[derive(Debug, Clone, Copy)]
pub struct Gelu;

impl Gelu {
    /// Replaces every x by y.
    pub fn forward<T: Real>(self, values: &mut [T]) {
        let (half, root) = (T::of(0.5), T::of(std::f64::consts::FRAC_1_SQRT_2));
        for x in values {
            *x = half * *x * (T::one() + (*x * root).error_function());
        }
    }

    /// Replaces every x by y and keeps dy/dx = Φ(x) + x·φ(x) for the backward pass.
    pub fn forward_training<T: Real>(self, values: &mut [T], derivative: &mut [T]) {
        let (half, root) = (T::of(0.5), T::of(std::f64::consts::FRAC_1_SQRT_2));
        let density = T::of(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2); // 1/√(2π)
        for (x, derivative) in values.iter_mut().zip(derivative) {
            let below = half * (T::one() + (*x * root).error_function());
            *derivative = below + *x * density * (-half * *x * *x).exp_negative();
            *x *= below;
        }
    }
}
