//! Layers that are no convolution, and what every layer shares.

use pulp::{Arch, Simd, WithSimd};

use crate::numeric::{ERF_P, ERF_Q, ERF_RANGE};

/// Channels of an activation are a multiple of this, the rest zeros: whole vectors on every processor.
pub(super) const GRAIN: usize = 16;

/// `channels`, filled up.
pub(super) fn filled(channels: usize) -> usize {
    channels.next_multiple_of(GRAIN)
}

/// Shape of an activation, (batch, depth, height, width, channels) in memory; pictures have depth 1, vectors one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Items.
    pub batch: usize,
    /// Frames of an item.
    pub depth: usize,
    /// Rows of a frame.
    pub height: usize,
    /// Columns of a frame.
    pub width: usize,
    /// Channels of a position that mean something.
    pub channels: usize,
    /// Channels of a position in memory.
    pub stored: usize,
}

impl Shape {
    /// Frames of all items.
    pub fn frames(self) -> usize {
        self.batch * self.depth
    }

    /// Positions of all items.
    pub fn positions(self) -> usize {
        self.frames() * self.height * self.width
    }

    /// Numbers in memory.
    pub fn len(self) -> usize {
        self.positions() * self.stored
    }

    /// The same positions with other channels.
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, stored: filled(channels), ..self }
    }
}

/// What follows a layer at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x·Φ(x).
    Gelu,
}

/// x/2 · (1 + erf(x/√2)), with the rational form of erf in [`crate::numeric`].
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let range = simd.splat_f32s(ERF_RANGE);
    let scaled = simd.mul_f32s(x, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.min_f32s(simd.max_f32s(scaled, simd.neg_f32s(range)), range);
    let square = simd.mul_f32s(t, t);
    let (mut above, mut below) = (simd.splat_f32s(ERF_P[5]), simd.splat_f32s(ERF_Q[5]));
    for k in (0..5).rev() {
        above = simd.mul_add_f32s(above, square, simd.splat_f32s(ERF_P[k]));
        below = simd.mul_add_f32s(below, square, simd.splat_f32s(ERF_Q[k]));
    }
    let erf = simd.div_f32s(simd.mul_f32s(t, above), below);
    let half = simd.mul_f32s(x, simd.splat_f32s(0.5));
    simd.mul_add_f32s(half, erf, half)
}

/// One value through an activation.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, x: S::f32s, activation: Activation) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    match activation {
        Activation::None => x,
        // Of two that cannot be compared x86 takes the second: what is no number stays.
        Activation::Relu => simd.max_f32s(zero, x),
        Activation::Relu6 => simd.min_f32s(simd.splat_f32s(6.0), simd.max_f32s(zero, x)),
        Activation::Gelu => gelu(simd, x),
    }
}

/// Adds the bias to every position of `values` and applies the activation.
#[inline(always)]
pub(super) fn finish<S: Simd>(simd: S, values: &mut [f32], bias: &[f32], activation: Activation) {
    let bias = S::as_simd_f32s(bias).0;
    let values = S::as_mut_simd_f32s(values).0;
    for position in values.chunks_exact_mut(bias.len()) {
        for (value, &bias) in position.iter_mut().zip(bias) {
            *value = activate(simd, simd.add_f32s(*value, bias), activation);
        }
    }
}

/// As [`finish`], of the sum of `made` and `values`.
#[inline(always)]
pub(super) fn finish_sum<S: Simd>(simd: S, made: &[f32], values: &mut [f32], bias: &[f32], activation: Activation) {
    let (bias, made) = (S::as_simd_f32s(bias).0, S::as_simd_f32s(made).0);
    let values = S::as_mut_simd_f32s(values).0;
    for (position, made) in values.chunks_exact_mut(bias.len()).zip(made.chunks_exact(bias.len())) {
        for ((value, &made), &bias) in position.iter_mut().zip(made).zip(bias) {
            *value = activate(simd, simd.add_f32s(simd.add_f32s(made, bias), *value), activation);
        }
    }
}

/// `values` through an activation.
pub(super) fn apply(values: &mut [f32], activation: Activation) {
    struct Apply<'a>(&'a mut [f32], Activation);
    impl WithSimd for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for value in S::as_mut_simd_f32s(self.0).0 {
                *value = activate(simd, *value, self.1);
            }
        }
    }
    Arch::new().dispatch(Apply(values, activation));
}

/// `sum += other`, then an activation.
pub(super) fn add(sum: &mut [f32], other: &[f32], activation: Activation) {
    struct Add<'a>(&'a mut [f32], &'a [f32], Activation);
    impl WithSimd for Add<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let others = S::as_simd_f32s(self.1).0;
            for (sum, other) in S::as_mut_simd_f32s(self.0).0.iter_mut().zip(others) {
                *sum = activate(simd, simd.add_f32s(*sum, *other), self.2);
            }
        }
    }
    Arch::new().dispatch(Add(sum, other, activation));
}

/// y = factor·x + offset, per channel: batch normalization by running statistics, and layer scale.
#[derive(Debug)]
pub(super) struct Affine {
    /// (stored channels), 0 beyond the channels.
    pub factor: Vec<f32>,
    /// (stored channels), 0 beyond the channels.
    pub offset: Vec<f32>,
}

impl Affine {
    /// In place.
    pub fn run(&self, values: &mut [f32], activation: Activation) {
        struct Run<'a>(&'a Affine, &'a mut [f32], Activation);
        impl WithSimd for Run<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let Run(layer, values, activation) = self;
                let (factor, offset) = (S::as_simd_f32s(&layer.factor).0, S::as_simd_f32s(&layer.offset).0);
                for position in S::as_mut_simd_f32s(values).0.chunks_exact_mut(factor.len()) {
                    for ((value, factor), offset) in position.iter_mut().zip(factor).zip(offset) {
                        *value = activate(simd, simd.mul_add_f32s(*value, *factor, *offset), activation);
                    }
                }
            }
        }
        Arch::new().dispatch(Run(self, values, activation));
    }
}

/// Layer normalization over the channels of each position (Ba et al. 2016).
#[derive(Debug)]
pub(super) struct LayerNorm {
    /// (stored channels), 0 beyond the channels.
    pub scale: Vec<f32>,
    /// (stored channels), 0 beyond the channels.
    pub shift: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl LayerNorm {
    /// In place; `channels` of each position count.
    pub fn run(&self, values: &mut [f32], channels: usize) {
        struct Run<'a>(&'a LayerNorm, &'a mut [f32], usize);
        impl WithSimd for Run<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let Run(layer, values, channels) = self;
                let (scale, shift) = (S::as_simd_f32s(&layer.scale).0, S::as_simd_f32s(&layer.shift).0);
                let (share, unused) = (1.0 / channels as f32, (layer.scale.len() - channels) as f32);
                for position in S::as_mut_simd_f32s(values).0.chunks_exact_mut(scale.len()) {
                    let zero = simd.splat_f32s(0.0);
                    let mut sum = zero;
                    for x in position.iter() {
                        sum = simd.add_f32s(sum, *x);
                    }
                    let mean = simd.reduce_sum_f32s(sum) * share;
                    let center = simd.splat_f32s(mean);
                    let mut squares = zero;
                    for x in position.iter() {
                        let x = simd.sub_f32s(*x, center);
                        squares = simd.mul_add_f32s(x, x, squares);
                    }
                    // Channels that only fill up are zeros, and each gave mean².
                    let variance = (simd.reduce_sum_f32s(squares) - unused * mean * mean) * share;
                    let factor = simd.splat_f32s(1.0 / (variance + layer.epsilon).sqrt());
                    for ((x, scale), shift) in position.iter_mut().zip(scale).zip(shift) {
                        let normed = simd.mul_f32s(simd.sub_f32s(*x, center), factor);
                        *x = simd.mul_add_f32s(normed, *scale, *shift);
                    }
                }
            }
        }
        Arch::new().dispatch(Run(self, values, channels));
    }
}

/// The mean over the positions of each item: (batch, positions, channels) → (batch, channels).
pub(super) fn global_average(shape: Shape, input: &[f32], output: &mut [f32]) {
    let positions = shape.depth * shape.height * shape.width;
    for (item, mean) in input.chunks_exact(positions * shape.stored).zip(output.chunks_exact_mut(shape.stored)) {
        mean.fill(0.0);
        for position in item.chunks_exact(shape.stored) {
            mean.iter_mut().zip(position).for_each(|(sum, x)| *sum += x);
        }
        mean.iter_mut().for_each(|sum| *sum /= positions as f32);
    }
}
