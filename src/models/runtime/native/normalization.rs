//! Normalization layers.

use pulp::{Simd, WithSimd};

use super::activation::{Activation, activate};
use super::isa::Isa;
use super::shape::CHANNEL_ALIGNMENT;

/// y = scale·x + offset per channel: batch normalization with running statistics, or layer scale.
#[derive(Debug)]
pub(super) struct ChannelAffine {
    /// Scale per channel, (channel stride); 0 for padding channels.
    pub scale: Vec<f32>,
    /// Offset per channel, (channel stride); 0 for padding channels.
    pub offset: Vec<f32>,
}

impl ChannelAffine {
    /// Transforms `values` (positions, channel stride) in place and applies the activation.
    pub fn run(&self, isa: Isa, values: &mut [f32], activation: Activation) {
        struct Kernel<'a>(&'a ChannelAffine, &'a mut [f32], Activation);
        impl WithSimd for Kernel<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let Kernel(layer, values, activation) = self;
                let (scale, offset) = (S::as_simd_f32s(&layer.scale).0, S::as_simd_f32s(&layer.offset).0);
                for position in S::as_mut_simd_f32s(values).0.chunks_exact_mut(scale.len()) {
                    for ((value, scale), offset) in position.iter_mut().zip(scale).zip(offset) {
                        *value = activate(simd, simd.mul_add_f32s(*value, *scale, *offset), activation);
                    }
                }
            }
        }
        isa.dispatch(Kernel(self, values, activation));
    }
}

/// Layer normalization over the channels of each position (Ba et al. 2016).
#[derive(Debug)]
pub(super) struct LayerNorm {
    /// Weight per channel, (channel stride); 0 for padding channels.
    pub weight: Vec<f32>,
    /// Bias per channel, (channel stride); 0 for padding channels.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl LayerNorm {
    /// Normalizes `values` (positions, channel stride) in place; `channels` excludes padding.
    pub fn run(&self, isa: Isa, values: &mut [f32], channels: usize) {
        struct Kernel<'a>(&'a LayerNorm, &'a mut [f32], usize);
        impl WithSimd for Kernel<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let Kernel(layer, values, channels) = self;
                let (weight, bias) = (S::as_simd_f32s(&layer.weight).0, S::as_simd_f32s(&layer.bias).0);
                let reciprocal = 1.0 / channels as f32;
                for position in values.chunks_exact_mut(layer.weight.len()) {
                    // Sums exclude the padding: subtracting its share of the squares would cancel.
                    let (whole, partial) = S::as_simd_f32s(&position[..channels]);
                    let last = simd.partial_load_f32s(partial);
                    let sum = whole.iter().fold(last, |sum, x| simd.add_f32s(sum, *x));
                    let mean = simd.reduce_sum_f32s(sum) * reciprocal;
                    let center = simd.splat_f32s(mean);
                    let last = simd.sub_f32s(last, simd.partial_load_f32s(&[mean; CHANNEL_ALIGNMENT][..partial.len()]));
                    let squares = whole.iter().fold(simd.mul_f32s(last, last), |squares, x| {
                        let x = simd.sub_f32s(*x, center);
                        simd.mul_add_f32s(x, x, squares)
                    });
                    let variance = simd.reduce_sum_f32s(squares) * reciprocal;
                    let factor = simd.splat_f32s(1.0 / (variance + layer.epsilon).sqrt());
                    let position = S::as_mut_simd_f32s(position).0;
                    for ((x, weight), bias) in position.iter_mut().zip(weight).zip(bias) {
                        let normalized = simd.mul_f32s(simd.sub_f32s(*x, center), factor);
                        *x = simd.mul_add_f32s(normalized, *weight, *bias);
                    }
                }
            }
        }
        isa.dispatch(Kernel(self, values, channels));
    }
}
