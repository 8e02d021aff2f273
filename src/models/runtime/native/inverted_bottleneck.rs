//! Depthwise convolutions fused with the pointwise ones around them: the inverted bottleneck of MobileNetV2 (Sandler et
//! al., CVPR 2018) and EfficientNet.
//!
//! The expanded activation has about six times as many channels as the input and output. The layers are computed
//! together, a few rows at a time, so that the expanded rows stay in the cache.

use super::activation::{Activation, AddActivate};
use super::depthwise::DepthwiseConv;
use super::isa::Isa;
use super::kernel::{Epilogue, ScratchBuffers};
use super::packed::PackedWeights;
use super::thread_pool::Workers;

/// Maximum number of expanded floats per block of rows, chosen so that a block stays in the L2 cache.
const L2_FLOATS: usize = 1 << 17;

/// The pointwise convolution before a depthwise one.
#[derive(Debug)]
pub(super) struct Expansion {
    /// Weights, (input channels, output channels).
    pub weights: PackedWeights,
    /// Bias per output channel, (channel stride).
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
    /// Weights, (input channels, output channels). Bias and activation are those of the [`Epilogue`].
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

    /// Adds a projection after the depthwise convolution. `depthwise_bias` and `depthwise_activation` are applied
    /// between the two; bias and activation of the projection are those of the [`Epilogue`].
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

    /// Returns the convolutions of the block, such as `pointwise + depthwise 3x3 + pointwise`.
    pub fn describe(&self) -> String {
        let around = |fused: bool| fused.then(|| "pointwise".to_string());
        let depthwise = format!("depthwise {}", self.depthwise.geometry.describe());
        let parts = [around(self.expansion.is_some()), Some(depthwise), around(self.projection.is_some())];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" + ")
    }

    /// Returns the number of floats per input row.
    fn input_row_len(&self) -> usize {
        let shape = self.depthwise.input_shape;
        shape.width * self.expansion.as_ref().map_or(shape.channel_stride, |expansion| expansion.weights.dim().0)
    }

    /// Returns the number of floats per output row.
    fn output_row_len(&self) -> usize {
        let shape = self.depthwise.output_shape;
        shape.width * self.projection.as_ref().map_or(shape.channel_stride, |projection| projection.weights.dim().1)
    }

    /// Computes `output` from `input`. The output rows of each frame are divided among the workers. `epilogue` is
    /// applied to the last convolution.
    pub fn run(&self, input: &[f32], output: &mut [f32], epilogue: Epilogue<'_>, workers: &mut Workers<'_>) {
        let (input_height, output_height) = (self.depthwise.input_shape.height, self.depthwise.output_shape.height);
        let (input_row_len, output_row_len) = (self.input_row_len(), self.output_row_len());
        let job_rows = output_height.div_ceil(workers.count());
        let frames = input
            .chunks_exact(input_height * input_row_len)
            .zip(output.chunks_exact_mut(output_height * output_row_len));
        for (frame, output) in frames {
            workers.for_each(output.chunks_mut(job_rows * output_row_len), |i, output, scratch| {
                self.run_rows(frame, i * job_rows, output, epilogue, scratch);
            });
        }
    }

    /// Computes consecutive output rows of one frame, from `first_row` until `output` is full.
    fn run_rows(
        &self,
        frame: &[f32],
        first_row: usize,
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        let (input_row_len, output_row_len) = (self.input_row_len(), self.output_row_len());
        let DepthwiseConv { input_shape, output_shape, geometry, .. } = &self.depthwise;
        let expanded_row_len = input_shape.width * input_shape.channel_stride;
        let filtered_row_len = output_shape.width * output_shape.channel_stride;
        let (stride, kernel) = (geometry.stride[1], geometry.kernel[1]);
        let block_rows = (L2_FLOATS / expanded_row_len.max(filtered_row_len) / stride).clamp(1, output_shape.height);
        let ScratchBuffers { input: expanded, output: filtered, rows: projected, quantized, .. } = scratch;
        expanded.grow_to(if self.expansion.is_some() { (stride * block_rows + kernel) * expanded_row_len } else { 0 });
        filtered.grow_to(if self.projection.is_some() { block_rows * filtered_row_len } else { 0 });
        // Range of input rows whose expansion is in `expanded`.
        let mut available = 0..0;
        for (block, output) in output.chunks_mut(block_rows * output_row_len).enumerate() {
            let start = first_row + block * block_rows;
            let output_rows = start..start + output.len() / output_row_len;
            let needed = geometry.input_rows(&output_rows, input_shape.height);
            let (rows, first_input_row) = match &self.expansion {
                None => (frame, 0),
                Some(expansion) => {
                    // Rows shared with the previous block are moved to the front instead of computed again.
                    let kept = if needed.start < available.end {
                        needed.start..available.end
                    } else {
                        needed.start..needed.start
                    };
                    let source = (available.len() - kept.len()) * expanded_row_len..available.len() * expanded_row_len;
                    expanded.copy_within(source, 0);
                    let (new_start, new_end) = (kept.end, needed.end.max(kept.end));
                    let new_rows =
                        &mut expanded[kept.len() * expanded_row_len..][..(new_end - new_start) * expanded_row_len];
                    expansion.weights.matmul(
                        &frame[new_start * input_row_len..new_end * input_row_len],
                        new_rows,
                        &expansion.bias,
                        expansion.activation,
                        quantized,
                    );
                    available = kept.start..new_end;
                    (&expanded[..available.len() * expanded_row_len], available.start)
                }
            };
            let Epilogue { bias, accumulate, activation } = epilogue;
            match &self.projection {
                Some(Projection { depthwise_bias, depthwise_activation, weights }) => {
                    let filtered = &mut filtered[..output_rows.len() * filtered_row_len];
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
