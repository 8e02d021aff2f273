//! Activation functions and the element-wise tail of layers, generic over the instruction set.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::numeric::{ERF_P, ERF_Q, ERF_RANGE, EXP_MIN, LN2_HIGH, LN2_LOW, ROUND_SHIFT};

/// Activation function fused into the layer before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// Identity.
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x·Φ(x), the exact form with erf.
    Gelu,
    /// x·σ(1.702·x), the sigmoid approximation of GELU.
    QuickGelu,
}

impl Activation {
    /// Returns the name; `None` for the identity.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Activation::None => None,
            Activation::Relu => Some("relu"),
            Activation::Relu6 => Some("relu6"),
            Activation::Gelu => Some("gelu"),
            Activation::QuickGelu => Some("quick gelu"),
        }
    }

    /// Returns `true` if the activation only clamps its input to [`Self::bounds`].
    pub fn is_clamp(self) -> bool {
        matches!(self, Activation::None | Activation::Relu | Activation::Relu6)
    }

    /// Returns the smallest and the largest value that an activation which only clamps leaves as it is; infinities for others.
    pub fn bounds(self) -> (f32, f32) {
        match self {
            Activation::None | Activation::Gelu | Activation::QuickGelu => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Relu6 => (0.0, 6.0),
        }
    }
}

/// Factor of [`Activation::QuickGelu`].
pub(super) const QUICK_GELU_FACTOR: f32 = 1.702;

/// Computes eˣ for x ≤ 0 with the algorithm of [`Real::exp_nonpositive`](crate::numeric::Real::exp_nonpositive). NaN
/// propagates.
#[inline(always)]
pub(super) fn exp_nonpositive<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const COEFFICIENTS: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = max_or_nan(simd, simd.splat_f32s(EXP_MIN), x);
    let shift = simd.splat_f32s(ROUND_SHIFT);
    let shifted = simd.mul_add_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), shift);
    let n = simd.sub_f32s(shifted, shift);
    let r = simd.mul_add_f32s(n, simd.splat_f32s(-LN2_HIGH), x);
    let r = simd.mul_add_f32s(n, simd.splat_f32s(-LN2_LOW), r);
    let mut series = simd.splat_f32s(1.0 / 5040.0);
    for coefficient in COEFFICIENTS {
        series = simd.mul_add_f32s(series, r, simd.splat_f32s(coefficient));
    }
    // The low mantissa bits of `shifted` hold n; shifted into the exponent they form 2ⁿ.
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.transmute_f32s_u32s(simd.add_u32s(exponent, simd.splat_u32s(0x3f80_0000)));
    simd.mul_f32s(series, power)
}

/// Computes x·σ(1.702·x).
#[inline(always)]
fn quick_gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    let scaled = simd.mul_f32s(x, simd.splat_f32s(QUICK_GELU_FACTOR));
    let exponential = exp_nonpositive(simd, simd.neg_f32s(simd.abs_f32s(scaled)));
    let numerator = simd.select_f32s(simd.less_than_f32s(scaled, zero), exponential, one);
    simd.mul_f32s(x, simd.div_f32s(numerator, simd.add_f32s(one, exponential)))
}

/// Computes x/2 · (1 + erf(x/√2)) with the rational approximation of erf in [`crate::numeric`].
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let range = simd.splat_f32s(ERF_RANGE);
    let scaled = simd.mul_f32s(x, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.min_f32s(simd.max_f32s(scaled, simd.neg_f32s(range)), range);
    let square = simd.mul_f32s(t, t);
    let (mut numerator, mut denominator) = (simd.splat_f32s(ERF_P[5]), simd.splat_f32s(ERF_Q[5]));
    for k in (0..5).rev() {
        numerator = simd.mul_add_f32s(numerator, square, simd.splat_f32s(ERF_P[k]));
        denominator = simd.mul_add_f32s(denominator, square, simd.splat_f32s(ERF_Q[k]));
    }
    let erf = simd.div_f32s(simd.mul_f32s(t, numerator), denominator);
    // NaN propagates through `half`; the clamped `t` may have lost it.
    let half = simd.mul_f32s(x, simd.splat_f32s(0.5));
    simd.mul_add_f32s(half, erf, half)
}

/// Returns max(bound, x), or NaN if `x` is NaN.
#[inline(always)]
pub(super) fn max_or_nan<S: Simd>(simd: S, bound: S::f32s, x: S::f32s) -> S::f32s {
    if S::IS_SCALAR {
        // `f32::max` ignores NaN.
        simd.select_f32s(simd.less_than_f32s(x, bound), bound, x)
    } else {
        // x86 returns the second operand if either is NaN; NEON returns NaN.
        simd.max_f32s(bound, x)
    }
}

/// Returns min(bound, x), or NaN if `x` is NaN.
#[inline(always)]
fn min_or_nan<S: Simd>(simd: S, bound: S::f32s, x: S::f32s) -> S::f32s {
    if S::IS_SCALAR { simd.select_f32s(simd.less_than_f32s(bound, x), bound, x) } else { simd.min_f32s(bound, x) }
}

/// Applies an activation to one vector. NaN propagates.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, x: S::f32s, activation: Activation) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    match activation {
        Activation::None => x,
        Activation::Relu => max_or_nan(simd, zero, x),
        Activation::Relu6 => min_or_nan(simd, simd.splat_f32s(6.0), max_or_nan(simd, zero, x)),
        Activation::Gelu => gelu(simd, x),
        Activation::QuickGelu => quick_gelu(simd, x),
    }
}

/// Applies an activation to some columns of `values` (rows, `row_len`). Kernels whose sums are in registers call this once they have
/// stored them: inlined in unrolled loops, activations would make up most of the code.
#[inline(always)]
pub(super) fn activate_columns<S: Simd>(
    simd: S,
    values: &mut [f32],
    row_len: usize,
    columns: Range<usize>,
    activation: Activation,
) {
    if activation != Activation::None {
        for row in values.chunks_exact_mut(row_len) {
            for value in S::as_mut_simd_f32s(&mut row[columns.clone()]).0 {
                *value = activate(simd, *value, activation);
            }
        }
    }
}

/// Computes `values = activation(values + bias)`, with `bias` per channel.
#[inline(always)]
pub(super) fn add_bias<S: Simd>(simd: S, values: &mut [f32], bias: &[f32], activation: Activation) {
    let bias = S::as_simd_f32s(bias).0;
    let values = S::as_mut_simd_f32s(values).0;
    for position in values.chunks_exact_mut(bias.len()) {
        for (value, &bias) in position.iter_mut().zip(bias) {
            *value = activate(simd, simd.add_f32s(*value, bias), activation);
        }
    }
}

/// Computes `output = activation(values + bias + output)`, with `bias` per channel.
#[inline(always)]
pub(super) fn accumulate_with_bias<S: Simd>(
    simd: S,
    values: &[f32],
    output: &mut [f32],
    bias: &[f32],
    activation: Activation,
) {
    let (bias, values) = (S::as_simd_f32s(bias).0, S::as_simd_f32s(values).0);
    let output = S::as_mut_simd_f32s(output).0;
    for (position, values) in output.chunks_exact_mut(bias.len()).zip(values.chunks_exact(bias.len())) {
        for ((output, &value), &bias) in position.iter_mut().zip(values).zip(bias) {
            *output = activate(simd, simd.add_f32s(simd.add_f32s(value, bias), *output), activation);
        }
    }
}

/// Kernel that applies an activation in place. The number of values is a multiple of
/// [`CHANNEL_ALIGNMENT`](super::shape::CHANNEL_ALIGNMENT).
pub(super) struct ApplyActivation<'a> {
    pub values: &'a mut [f32],
    pub activation: Activation,
}

impl WithSimd for ApplyActivation<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for value in S::as_mut_simd_f32s(self.values).0 {
            *value = activate(simd, *value, self.activation);
        }
    }
}

/// Kernel that computes `sum = activation(sum + other)`. The number of values is a multiple of
/// [`CHANNEL_ALIGNMENT`](super::shape::CHANNEL_ALIGNMENT).
pub(super) struct AddActivate<'a> {
    pub sum: &'a mut [f32],
    pub other: &'a [f32],
    pub activation: Activation,
}

impl WithSimd for AddActivate<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let others = S::as_simd_f32s(self.other).0;
        for (sum, other) in S::as_mut_simd_f32s(self.sum).0.iter_mut().zip(others) {
            *sum = activate(simd, simd.add_f32s(*sum, *other), self.activation);
        }
    }
}
