//! Error function, exponential, logistic function and hyperbolic tangent in fast, branch-free forms.

use crate::matrix;

/// A floating-point type with the transcendental functions of networks. The f32 versions are branch-free, so that the
/// compiler vectorizes them; the f64 versions are exact, for gradient checks.
///
/// `tanh` is also a method of [`ndarray::NdFloat`]: generic code calls `Real::tanh(x)`.
pub trait Real: matrix::Float {
    /// Computes the error function, 2/√π ∫₀ˣ exp(−t²) dt. f32: relative error below 5e-7.
    fn erf(self) -> Self;
    /// Computes eˣ for x ≤ 0. f32: relative error below 3e-7 for x ≥ −87; clamped to e⁻⁸⁷ below.
    fn exp_nonpositive(self) -> Self;

    /// Computes the logistic function, 1/(1 + e⁻ˣ). f32: relative error below 4e-7 for x ≥ −87.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let exponential = (-self.abs()).exp_nonpositive();
        let positive = Self::one() / (Self::one() + exponential);
        if self < Self::zero() { exponential * positive } else { positive }
    }

    /// Computes the hyperbolic tangent. f32: absolute error below 3e-7.
    #[inline(always)]
    fn tanh(self) -> Self {
        let exponential = (-(self.abs() + self.abs())).exp_nonpositive();
        ((Self::one() - exponential) / (Self::one() + exponential)).copysign(self)
    }
}

// erf(x)/x as a ratio of polynomials in x² on [0, 3.92], minimax in relative error (Lawson's iteration). Beyond this range
// erf rounds to 1 in f32.
pub(crate) const ERF_RANGE: f32 = 3.92;
#[allow(clippy::approx_constant)] // the first coefficient is near 2/√π, but fitted with the others
pub(crate) const ERF_P: [f32; 6] =
    [1.128_379_1, 1.904_080_3e-1, 5.274_893_3e-2, 3.765_684_5e-3, 2.848_843_3e-4, 2.050_076_5e-6];
pub(crate) const ERF_Q: [f32; 6] = [1.0, 5.020_774_6e-1, 1.141_097_6e-1, 1.496_935_2e-2, 1.162_552e-3, 3.809_168_8e-5];

// eˣ = 2ⁿ·eʳ with n = round(x / ln 2).
/// Lower bound of the argument: its exponential is still a normal number.
pub(crate) const EXP_MIN: f32 = -87.0;
/// High part of ln 2, with a short mantissa, so that n · `LN2_HIGH` is exact.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
/// ln 2 − `LN2_HIGH`.
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 · 2²³: adding it rounds to the nearest integer.
pub(crate) const ROUND_SHIFT: f32 = 12_582_912.0;

impl Real for f32 {
    #[inline(always)]
    fn erf(self) -> Self {
        let x = self.clamp(-ERF_RANGE, ERF_RANGE);
        let s = x * x;
        let [p0, p1, p2, p3, p4, p5] = ERF_P;
        let [q0, q1, q2, q3, q4, q5] = ERF_Q;
        let p = ((((p5 * s + p4) * s + p3) * s + p2) * s + p1) * s + p0;
        let q = ((((q5 * s + q4) * s + q3) * s + q2) * s + q1) * s + q0;
        x * p / q
    }

    #[inline(always)]
    fn exp_nonpositive(self) -> Self {
        let x = self.max(EXP_MIN);
        let shifted = x * std::f32::consts::LOG2_E + ROUND_SHIFT;
        let n = shifted - ROUND_SHIFT;
        let r = x - n * LN2_HIGH - n * LN2_LOW;
        let series =
            ((((((r / 5040.0 + 1.0 / 720.0) * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5) * r + 1.0)
                * r
                + 1.0;
        // The low mantissa bits of `shifted` hold n; shifted into the exponent they form 2ⁿ.
        let power = f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(0x3f80_0000));
        series * power
    }
}

impl Real for f64 {
    fn erf(self) -> Self {
        let x = self.abs();
        let value = if x < 3.0 {
            // Series with positive terms: 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!
            let (mut term, mut sum, mut n) = (x, x, 1.0);
            while term > sum * 1e-17 {
                term *= 2.0 * x * x / (2.0 * n + 1.0);
                sum += term;
                n += 1.0;
            }
            std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
        } else if x < 6.0 {
            // Continued fraction of erfc (Abramowitz & Stegun 7.1.14), evaluated backward.
            let tail = (1..=80).rev().fold(x, |inner, k| x + 0.5 * k as f64 / inner);
            1.0 - (-x * x).exp() / (std::f64::consts::PI.sqrt() * tail)
        } else {
            1.0
        };
        value.copysign(self)
    }

    fn exp_nonpositive(self) -> Self {
        self.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_in_double_precision_matches_tabulated_values() {
        // Values of erf to 16 digits (DLMF 7.23, computed by mpmath).
        for (x, expected) in [
            (1e-9f64, 1.1283791670955127e-9),
            (0.1, 0.1124629160182849),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.0, 0.9953222650189527),
            (2.9999, 0.9999778955735178),
            (3.5, 0.999999256901628),
            (5.0, 0.9999999999984626),
            (7.0, 1.0),
        ] {
            assert!((Real::erf(x) - expected).abs() <= 4e-15 * expected, "erf({x}) = {}", Real::erf(x));
            assert_eq!(Real::erf(-x), -Real::erf(x));
        }
    }

    #[test]
    fn single_precision_functions_stay_within_their_error_bounds() {
        let mut worst = (0f64, 0f64);
        for i in 1..2_000_000 {
            let x = i as f32 * 3e-6;
            let exact = Real::erf(f64::from(x));
            worst.0 = worst.0.max((f64::from(Real::erf(x)) / exact - 1.0).abs());
            assert_eq!(Real::erf(-x), -Real::erf(x));
            let y = -x * 14.4;
            let exact = f64::from(y).exp();
            worst.1 = worst.1.max((f64::from(y.exp_nonpositive()) / exact - 1.0).abs());
        }
        assert!(worst.0 < 5e-7 && worst.1 < 3e-7, "{worst:?}");
        for i in -400_000..400_000 {
            let x = i as f32 * 1e-4;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(x.sigmoid()) / exact - 1.0).abs() < 4e-7, "σ({x})");
            assert!((f64::from(Real::tanh(x)) - f64::tanh(f64::from(x))).abs() < 3e-7, "tanh({x})");
        }
        assert_eq!((0f32.sigmoid(), Real::tanh(0f32), Real::tanh(-200f32)), (0.5, 0.0, -1.0));
        assert_eq!(Real::erf(0f32), 0.0);
        assert_eq!(0f32.exp_nonpositive(), 1.0);
        assert!((-1e9f32).exp_nonpositive() < 2e-38);
    }
}
