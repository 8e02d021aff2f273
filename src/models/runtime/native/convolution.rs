//! Convolutions: choice of the algorithm, and fusion of consecutive layers.

use ndarray::ArrayView3;

use super::activation::Activation;
use super::amx;
use super::im2col::{Im2col, QuantizedPair};
use super::inverted_bottleneck::{Expansion, InvertedBottleneck};
use super::kernel::Epilogue;
use super::packed::{PackedWeights, Target};
use super::shape::{ConvGeometry, TensorShape, padded_channels};
use super::thread_pool::Workers;
use super::winograd::{FactorizedWinograd, SpatialWinograd, TemporalWinograd};

/// Minimum number of 4 × 4 tiles per item for which the Winograd algorithm is used in two dimensions. For fewer, the
/// transformed weights cost more to read than the multiplications they save.
const MIN_WINOGRAD_TILES: usize = 16;

/// Algorithm of a convolution, with its weights prepared.
#[derive(Debug)]
pub(super) enum ConvAlgorithm {
    /// 1 × 1 × 1 kernel: a matrix product over channels.
    Pointwise(PackedWeights),
    /// Winograd over height and width.
    Spatial(SpatialWinograd),
    /// Winograd over depth.
    Temporal(TemporalWinograd),
    /// Winograd over height and width, then over depth.
    Factorized(Box<FactorizedWinograd>),
    /// Inputs of each position gathered into a row, times (taps · input channels, output channels).
    Im2col(ConvGeometry, PackedWeights),
    /// Two quantized convolutions in a row.
    QuantizedPair(Box<QuantizedPair>),
    /// Depthwise, with the pointwise convolutions fused into it.
    Depthwise(Box<InvertedBottleneck>),
}

/// A convolution with bias, residual connection and activation.
#[derive(Debug)]
pub(super) struct Convolution {
    pub algorithm: ConvAlgorithm,
    /// Bias per output channel, (channel stride).
    pub bias: Vec<f32>,
    /// If `true`, the result is added to the previous content of the output before the activation. Requires
    /// [`Convolution::can_accumulate`].
    pub accumulate: bool,
    /// Applied last.
    pub activation: Activation,
    /// Multiply-accumulates per item of the direct algorithm, of all fused convolutions.
    pub multiply_accumulates: u64,
}

impl ConvAlgorithm {
    /// Returns the kernels that compute the convolution, such as `winograd 3x3 F(4)`.
    fn describe(&self) -> String {
        match self {
            ConvAlgorithm::Pointwise(_) => "pointwise".into(),
            ConvAlgorithm::Spatial(layer) => format!("winograd {}", layer.describe()),
            ConvAlgorithm::Temporal(layer) => format!("winograd {}", layer.describe()),
            ConvAlgorithm::Factorized(layers) => {
                format!("winograd {} + {}", layers.spatial.describe(), layers.temporal.describe())
            }
            ConvAlgorithm::Im2col(geometry, _) => format!("im2col {}", geometry.describe()),
            ConvAlgorithm::QuantizedPair(pair) => {
                format!("im2col {} + {}", pair.first.0.describe(), pair.second.0.describe())
            }
            ConvAlgorithm::Depthwise(block) => block.describe(),
        }
    }

    /// Selects the algorithm for a dense convolution with `weight` (output channels, input channels, taps).
    pub fn dense(
        geometry: ConvGeometry,
        weight: &[f32],
        input: TensorShape,
        output: TensorShape,
        target: Target,
    ) -> Self {
        let view = taps_first(geometry, weight, input, output);
        let padded = (input.channel_stride, output.channel_stride);
        let is_padded = input.channel_stride == padded_channels(input.channels);
        let tiles = input.frames() * input.height.div_ceil(4) * input.width.div_ceil(4);
        if geometry.matches([1, 3, 3], 1, [0, 1, 1]) && is_padded && tiles >= MIN_WINOGRAD_TILES {
            ConvAlgorithm::Spatial(SpatialWinograd::new(view, padded, tiles, target))
        } else if geometry.matches([3, 1, 1], 1, [1, 0, 0]) && is_padded && input.depth > 1 {
            ConvAlgorithm::Temporal(TemporalWinograd::new(view, padded, input.depth, target))
        } else {
            Self::direct(geometry, weight, input, output, target)
        }
    }

    /// Returns the matrix product that computes a dense convolution, as [`ConvAlgorithm::dense`] without Winograd's algorithm.
    pub fn direct(
        geometry: ConvGeometry,
        weight: &[f32],
        input: TensorShape,
        output: TensorShape,
        target: Target,
    ) -> Self {
        let view = taps_first(geometry, weight, input, output);
        let padded = (input.channel_stride, output.channel_stride);
        Self::matmul(geometry, PackedWeights::concatenate(view, padded, target))
    }

    /// Returns the matrix product that computes a dense convolution with packed weights (taps · input channels, output channels).
    pub fn matmul(geometry: ConvGeometry, weights: PackedWeights) -> Self {
        if geometry.matches([1, 1, 1], 1, [0; 3]) {
            ConvAlgorithm::Pointwise(weights)
        } else {
            ConvAlgorithm::Im2col(geometry, weights)
        }
    }
}

/// Returns a view (taps, input channels, output channels) of a weight (output channels, input channels, taps).
fn taps_first(geometry: ConvGeometry, weight: &[f32], input: TensorShape, output: TensorShape) -> ArrayView3<'_, f32> {
    ArrayView3::from_shape((output.channels, input.channels, geometry.taps()), weight)
        .expect("the weight has the shape (output channels, input channels, taps)")
        .permuted_axes([2, 1, 0])
}

impl Convolution {
    /// Returns the kernels, the residual connection and the activation.
    pub fn describe(&self) -> String {
        let residual = if self.accumulate { ", residual" } else { "" };
        let activation = self.activation.name().map_or(String::new(), |name| format!(", {name}"));
        format!("{}{residual}{activation}", self.algorithm.describe())
    }

    /// Returns `true` if Winograd's algorithm computes the layer.
    pub fn uses_winograd(&self) -> bool {
        use ConvAlgorithm::{Factorized, Spatial, Temporal};
        matches!(self.algorithm, Spatial(_) | Temporal(_) | Factorized(_))
    }

    /// Returns `true` if `next`, the only reader of this layer's output, can be fused with this layer.
    pub fn can_fuse(&self, next: &Convolution) -> bool {
        use ConvAlgorithm::{Depthwise, Im2col, Pointwise, Spatial, Temporal};
        match (&self.algorithm, &next.algorithm) {
            (Spatial(_), Temporal(_)) | (Pointwise(_), Depthwise(_)) => true,
            (Im2col(_, first), Im2col(_, second)) => first.int8().is_some() && second.int8().is_some(),
            (Depthwise(block), Pointwise(_)) => !block.has_projection(),
            _ => false,
        }
    }

    /// Returns `true` if the layer supports [`Convolution::accumulate`].
    pub fn can_accumulate(&self) -> bool {
        self.activation == Activation::None
            && match &self.algorithm {
                ConvAlgorithm::Temporal(_) | ConvAlgorithm::Factorized(_) => true,
                ConvAlgorithm::Depthwise(block) => block.has_projection(),
                _ => false,
            }
    }

    /// Fuses this layer with `next`; returns `None` unless they [can be fused](Convolution::can_fuse).
    pub fn fuse(self, next: Convolution) -> Option<Convolution> {
        use ConvAlgorithm::{Depthwise, Factorized, Im2col, Pointwise, Spatial, Temporal};
        let Convolution { bias, activation, multiply_accumulates, .. } = self;
        let algorithm = match (self.algorithm, next.algorithm) {
            (Spatial(spatial), Temporal(temporal)) => {
                Factorized(Box::new(FactorizedWinograd { spatial, bias, activation, temporal }))
            }
            (Im2col(geometry, weights), Im2col(second_geometry, second_weights)) => {
                ConvAlgorithm::QuantizedPair(Box::new(QuantizedPair {
                    first: (geometry, weights),
                    epilogue: (bias, activation),
                    second: (second_geometry, second_weights),
                }))
            }
            (Pointwise(weights), Depthwise(block)) => {
                Depthwise(Box::new(block.with_expansion(Expansion { weights, bias, activation })))
            }
            (Depthwise(block), Pointwise(weights)) => {
                Depthwise(Box::new(block.with_projection(bias, activation, weights)))
            }
            _ => return None,
        };
        let multiply_accumulates = multiply_accumulates.saturating_add(next.multiply_accumulates);
        Some(Convolution { algorithm, multiply_accumulates, ..next })
    }

    /// Computes `output` of shape `to` from `input` of shape `from`. The result does not depend on the number of workers.
    pub fn run(
        &self,
        from: TensorShape,
        input: &[f32],
        to: TensorShape,
        output: &mut [f32],
        workers: &mut Workers<'_>,
    ) {
        let (bias, activation) = (&self.bias[..], self.activation);
        let epilogue = Epilogue { bias, accumulate: self.accumulate, activation };
        let output_positions = output.len() / to.channel_stride;
        match &self.algorithm {
            ConvAlgorithm::Spatial(layer) => layer.run(from, input, output, epilogue, workers.own_scratch()),
            ConvAlgorithm::Temporal(layer) => layer.run(from, input, output, epilogue, workers.own_scratch()),
            ConvAlgorithm::Factorized(layers) => layers.run(from, input, output, epilogue, workers.own_scratch()),
            ConvAlgorithm::Pointwise(weights) => {
                let (inputs, _) = weights.dim();
                // A multiple of the AMX tile height.
                let rows = output_positions.div_ceil(workers.count()).next_multiple_of(amx::TILE_ROWS);
                let jobs = input.chunks(rows * inputs).zip(output.chunks_mut(rows * to.channel_stride));
                workers.for_each(jobs, |_, (input, output), scratch| {
                    weights.matmul(input, output, bias, activation, &mut scratch.quantized);
                });
            }
            ConvAlgorithm::Im2col(geometry, weights) => {
                Im2col { geometry, from, to, bias, activation }.run(input, weights, output, workers);
            }
            ConvAlgorithm::QuantizedPair(pair) => pair.run((from, to), input, output, (bias, activation), workers),
            ConvAlgorithm::Depthwise(block) => block.run(input, output, epilogue, workers),
        }
    }
}
