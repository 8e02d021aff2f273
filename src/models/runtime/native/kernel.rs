//! Types shared by the convolution kernels.

use super::activation::Activation;
use super::aligned::AlignedBuffer;
use super::amx;

/// Operations applied to the result of a convolution before it is stored.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a> {
    /// Bias per output channel, (channel stride).
    pub bias: &'a [f32],
    /// If `true`, the previous content of the output is added before the activation (residual connection). Only layers
    /// that [support it](super::convolution::Convolution::can_accumulate) read this.
    pub accumulate: bool,
    /// Applied last.
    pub activation: Activation,
}

/// Quantized rows of activations, in the form that a matrix product needs.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    /// f32 values as slices.
    pub amx: amx::QuantizedRows,
    /// 8-bit values.
    pub int8: AlignedBuffer<u8>,
}

/// Intermediate buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct ScratchBuffers {
    /// Transformed, gathered or expanded input.
    pub input: AlignedBuffer,
    /// Result before the output transform or the projection.
    pub output: AlignedBuffer,
    /// Rows of pixels during transforms; the result of a projection before it is accumulated.
    pub rows: AlignedBuffer,
    /// Zeros in place of rows and frames outside the input, and of the bias. Never written.
    pub zeros: AlignedBuffer,
    /// Result of the first of two fused convolutions.
    pub intermediate: AlignedBuffer,
    /// Quantized input of matrix products.
    pub quantized: QuantizedRows,
}
