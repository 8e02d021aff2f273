//! Types shared by the convolution kernels.

#[cfg(target_arch = "x86_64")]
use std::ops::Range;

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

/// Quantized or rounded rows of activations, in the form that a matrix product needs.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    /// f32 values as slices.
    pub amx: amx::QuantizedRows,
    /// 8-bit values.
    pub int8: AlignedBuffer<u8>,
    /// Pairs of bfloat16 values.
    pub bf16: AlignedBuffer<u32>,
    /// f32 values rounded to bfloat16.
    pub rounded: AlignedBuffer,
}

/// Outputs per panel of weights in int8 and bf16.
pub(super) const PANEL: usize = 16;

/// Bytes of weights per block of columns. The rows of the output are so long that their starts compete for a few sets of the cache;
/// several panels of a row are therefore computed together, with their weights in the L2 cache.
#[cfg(target_arch = "x86_64")]
const WEIGHT_BYTES: usize = 1 << 17;

/// Divides the columns of a product into blocks of whole panels, each of `panel_bytes`.
#[cfg(target_arch = "x86_64")]
pub(super) fn column_blocks(outputs: usize, panel_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let columns = (WEIGHT_BYTES / panel_bytes).max(1) * PANEL;
    (0..outputs).step_by(columns).map(move |first| first..outputs.min(first + columns))
}

/// Part of a product that is computed at once, with its sums in registers.
#[cfg(target_arch = "x86_64")]
pub(super) struct Tile {
    /// The first row.
    pub row: usize,
    /// Number of rows.
    pub height: usize,
    /// The first column.
    pub first: usize,
    /// Number of panels.
    pub panels: usize,
}

/// Divides a product of `rows` rows with the columns of `blocks` into tiles of one of `heights`, which end with 1, the greatest first,
/// and of up to `max_panels` panels. Tiles of the same rows follow each other.
#[cfg(target_arch = "x86_64")]
pub(super) fn for_each_tile(
    rows: usize,
    blocks: impl Iterator<Item = Range<usize>>,
    heights: &[usize],
    max_panels: usize,
    mut compute: impl FnMut(Tile),
) {
    for columns in blocks {
        let mut row = 0;
        while row < rows {
            let height = *heights.iter().find(|height| row + **height <= rows).expect("the last height is 1");
            for first in columns.clone().step_by(max_panels * PANEL) {
                let panels = max_panels.min((columns.end - first) / PANEL);
                compute(Tile { row, height, first, panels });
            }
            row += height;
        }
    }
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
    /// Quantized input of a convolution.
    pub quantized_input: AlignedBuffer<u8>,
    /// Quantized result of the first of two convolutions.
    pub quantized_intermediate: AlignedBuffer<u8>,
}
