//! Depthwise convolutions fused with the pointwise ones around them: the inverted bottleneck of MobileNetV2 (Sandler et
//! al., CVPR 2018) and EfficientNet.
//!
//! The expanded activation has about six times as many channels as the input and output. Layers are computed together,
//! some rows at a time, so that it stays in the cache.

use super::activation::{Activation, AddActivate};
use super::depthwise::DepthwiseConv;
use super::isa::Isa;
use super::kernel::{Epilogue, ScratchBuffers};
use super::packed::PackedWeights;
use super::thread_pool::Workers;

/// Floats of expanded rows per block, to stay in the L2 cache.
const L2_FLOATS: usize = 1 << 17;

/// The pointwise convolution before a depthwise one.
#[derive(Debug)]
pub(super) struct Expansion {
    /// (input channels, output channels).
    pub weights: PackedWeights,
    /// (channel stride).
    pub bias: Vec<f32>,
    /// Applied last.
    pub activation: Activation,
}

/// The pointwise convolution after a depthwise one.
#[derive(Debug)]
struct Projection {
    /// Bias of the depthwise convolution, (channel stride).
    depthwise_bias: Vec<f32>,
    /// Activation of the depthwise convolution.
    depthwise_activation: Activation,
    /// (input channels, output channels).
    weights: PackedWeights,
}

/// A depthwise convolution, optionally fused with an expansion before and a projection after it.
#[derive(Debug)]
pub(super) struct InvertedBottleneck {
    expansion: Option<Expansion>,
    depthwise: DepthwiseConv,
    projection: Option<Projection>,
    isa: Isa,
}

impl InvertedBottleneck {
    /// Creates a block that consists of the depthwise convolution alone.
    pub fn new(depthwise: DepthwiseConv, isa: Isa) -> Self {
        Self { expansion: None, depthwise, projection: None, isa }
    }

    /// Adds an expansion before the depthwise convolution.
    pub fn with_expansion(self, expansion: Expansion) -> Self {
        Self { expansion: Some(expansion), ..self }
    }

    /// Adds a projection after the depthwise convolution, whose own bias and activation become inner ones.
    pub fn with_projection(
        self,
        depthwise_bias: Vec<f32>,
        depthwise_activation: Activation,
        weights: PackedWeights,
    ) -> Self {
        Self { projection: Some(Projection { depthwise_bias, depthwise_activation, weights }), ..self }
    }

    /// Returns `true` if the block ends with a projection.
    pub fn has_projection(&self) -> bool {
        self.projection.is_some()
    }

    /// Returns the floats per input row.
    fn input_row_len(&self) -> usize {
        let shape = self.depthwise.input;
        shape.width * self.expansion.as_ref().map_or(shape.channel_stride, |expansion| expansion.weights.dim().0)
    }

    /// Returns the floats per output row.
    fn output_row_len(&self) -> usize {
        let shape = self.depthwise.output;
        shape.width * self.projection.as_ref().map_or(shape.channel_stride, |projection| projection.weights.dim().1)
    }

    /// Computes `output` from `input`; rows of each frame are divided among the workers. `epilogue` belongs to the last
    /// convolution.
    pub fn run(&self, input: &[f32], output: &mut [f32], epilogue: Epilogue<'_>, workers: &mut Workers<'_>) {
        let (input_height, output_height) = (self.depthwise.input.height, self.depthwise.output.height);
        let (input_row, output_row) = (self.input_row_len(), self.output_row_len());
        let job_rows = output_height.div_ceil(workers.count());
        let frames =
            input.chunks_exact(input_height * input_row).zip(output.chunks_exact_mut(output_height * output_row));
        for (frame, output) in frames {
            workers.for_each(output.chunks_mut(job_rows * output_row), |i, output, scratch| {
                self.run_rows(frame, i * job_rows, output, epilogue, scratch);
            });
        }
    }

    /// Computes the rows of one frame's output from `first` on, as many as `output` holds.
    fn run_rows(
        &self,
        frame: &[f32],
        first: usize,
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        let (input_row, output_row) = (self.input_row_len(), self.output_row_len());
        let DepthwiseConv { input: from, output: to, geometry, .. } = &self.depthwise;
        let (expanded_row, filtered_row) = (from.width * from.channel_stride, to.width * to.channel_stride);
        let (stride, kernel) = (geometry.stride[1], geometry.kernel[1]);
        let block_rows = (L2_FLOATS / expanded_row.max(filtered_row) / stride).clamp(1, to.height);
        let ScratchBuffers { input: expanded, output: filtered, rows: projected, quantized, .. } = scratch;
        expanded.grow_to(if self.expansion.is_some() { (stride * block_rows + kernel) * expanded_row } else { 0 });
        filtered.grow_to(if self.projection.is_some() { block_rows * filtered_row } else { 0 });
        // Input rows whose expansion is in `expanded`.
        let mut available = 0..0;
        for (block, output) in output.chunks_mut(block_rows * output_row).enumerate() {
            let start = first + block * block_rows;
            let output_rows = start..start + output.len() / output_row;
            let needed = geometry.input_rows(&output_rows, from.height);
            let (rows, first_input_row) = match &self.expansion {
                None => (frame, 0),
                Some(expansion) => {
                    // Rows shared with the previous block are kept.
                    let kept = if needed.start < available.end {
                        needed.start..available.end
                    } else {
                        needed.start..needed.start
                    };
                    let moved = (available.len() - kept.len()) * expanded_row..available.len() * expanded_row;
                    expanded.copy_within(moved, 0);
                    let (new, last) = (kept.end, needed.end.max(kept.end));
                    let new_rows = &mut expanded[kept.len() * expanded_row..][..(last - new) * expanded_row];
                    expansion.weights.matmul(
                        &frame[new * input_row..last * input_row],
                        new_rows,
                        &expansion.bias,
                        expansion.activation,
                        quantized,
                    );
                    available = kept.start..last;
                    (&expanded[..available.len() * expanded_row], available.start)
                }
            };
            let Epilogue { bias, accumulate, activation } = epilogue;
            match &self.projection {
                Some(Projection { depthwise_bias, depthwise_activation, weights }) => {
                    let filtered = &mut filtered[..output_rows.len() * filtered_row];
                    self.depthwise.run_rows(
                        rows,
                        first_input_row,
                        output_rows.start,
                        filtered,
                        depthwise_bias,
                        *depthwise_activation,
                    );
                    if accumulate {
                        projected.grow_to(output.len());
                        let projected = &mut projected[..output.len()];
                        weights.matmul(filtered, projected, bias, Activation::None, quantized);
                        self.isa.dispatch(AddActivate { sum: output, other: projected, activation });
                    } else {
                        weights.matmul(filtered, output, bias, activation, quantized);
                    }
                }
                None => {
                    self.depthwise.run_rows(rows, first_input_row, output_rows.start, output, bias, activation);
                }
            }
        }
    }
}
