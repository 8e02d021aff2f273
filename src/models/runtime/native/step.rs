//! Types of the execution plan that the builder and the executor share.

use super::activation::Activation;
use super::attention::Attention;
use super::convolution::Convolution;
use super::normalization::{ChannelAffine, LayerNorm};
use super::pooling::MaxPool;
use super::shape::TensorShape;
use super::tokens::TokenEmbedding;
use crate::error::Error;

/// Reason why the native backend cannot run a network.
#[derive(Debug)]
pub(super) enum PlanError {
    /// An operator, or a use of one, that is not implemented.
    Unsupported(String),
    /// The network is malformed, or lacks the input or output that its card declares.
    Mismatch(String),
    /// The file cannot be read.
    Read(Error),
}

pub(super) type PlanResult<T> = Result<T, PlanError>;

/// Returns the error for an operator that is not implemented.
pub(super) fn unsupported<T>(reason: impl Into<String>) -> PlanResult<T> {
    Err(PlanError::Unsupported(reason.into()))
}

/// Order of an activation's axes in the ONNX graph. In memory, channels are always last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AxisOrder {
    /// (batch, channels, positions).
    ChannelsFirst,
    /// (batch, positions, channels).
    ChannelsLast,
    /// (batch, channels, positions), with all positions on one axis.
    Flattened,
    /// (batch, tokens, channels).
    Tokens,
    /// (batch, channels).
    Vector,
}

impl AxisOrder {
    /// Returns `true` if the channels are the last axis in the graph.
    pub fn is_channels_last(self) -> bool {
        matches!(self, AxisOrder::ChannelsLast | AxisOrder::Tokens | AxisOrder::Vector)
    }
}

/// An activation tensor of the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct ActivationTensor {
    /// Identifies the data; the aliases of a tensor share it.
    pub id: usize,
    pub shape: TensorShape,
    pub order: AxisOrder,
}

/// Computation of a step.
#[derive(Debug)]
pub(super) enum Operation {
    Convolution(Convolution),
    LayerNorm(LayerNorm),
    Affine(ChannelAffine, Activation),
    /// Sum of two inputs, followed by an activation.
    Add(Activation),
    Activation(Activation),
    GlobalAveragePool,
    MaxPool(MaxPool),
    /// Inputs: query, key and value.
    Attention(Attention),
    TokenEmbedding(TokenEmbedding),
    FirstToken,
}

impl Operation {
    /// Returns the index of the input that the operation overwrites with its output, if any.
    pub fn in_place_input(&self) -> Option<usize> {
        match self {
            Operation::Convolution(layer) => layer.accumulate.then_some(1),
            Operation::LayerNorm(_) | Operation::Affine(..) | Operation::Add(_) | Operation::Activation(_) => Some(0),
            Operation::GlobalAveragePool
            | Operation::MaxPool(_)
            | Operation::Attention(_)
            | Operation::TokenEmbedding(_)
            | Operation::FirstToken => None,
        }
    }

    /// Returns the kernel, such as `pointwise, gelu`.
    fn describe(&self) -> String {
        let with = |name: &str, activation: Activation| match activation.name() {
            Some(activation) => format!("{name}, {activation}"),
            None => name.into(),
        };
        match self {
            Operation::Convolution(layer) => layer.describe(),
            Operation::LayerNorm(_) => "layer norm".into(),
            Operation::Affine(_, activation) => with("scale and offset", *activation),
            Operation::Add(activation) => with("add", *activation),
            Operation::Activation(activation) => activation.name().unwrap_or("copy").into(),
            Operation::GlobalAveragePool => "global average pool".into(),
            Operation::MaxPool(layer) => format!("max pool {}", layer.geometry.describe()),
            Operation::Attention(layer) => format!("attention, {} heads", layer.heads()),
            Operation::TokenEmbedding(_) => "token embedding".into(),
            Operation::FirstToken => "first token".into(),
        }
    }
}

/// One operation of the plan.
#[derive(Debug)]
pub(super) struct Step {
    /// Names of the ONNX nodes whose outputs it computes; several if convolutions are fused.
    pub name: String,
    pub operation: Operation,
    /// Ids of the input tensors; indices of their buffers once these are assigned. An accumulating convolution has the
    /// residual as its second input.
    pub inputs: Vec<usize>,
    /// Id of the output tensor, or index of its buffer, as for `inputs`.
    pub output: usize,
    /// Shape of the first input.
    pub input_shape: TensorShape,
    /// Shape of the output.
    pub output_shape: TensorShape,
}

impl Step {
    /// Returns the kernel, such as `winograd 3x3 F(4), relu`.
    pub fn describe(&self) -> String {
        self.operation.describe()
    }

    /// Returns `true` if Winograd's algorithm computes the step.
    pub fn uses_winograd(&self) -> bool {
        matches!(&self.operation, Operation::Convolution(layer) if layer.uses_winograd())
    }

    /// Returns the multiply-accumulates per item of the direct algorithm, including those with padding of positions: of
    /// convolutions, linear layers and the two products of an attention. Other steps have none.
    pub fn multiply_accumulates(&self) -> u64 {
        match &self.operation {
            Operation::Convolution(layer) => layer.multiply_accumulates,
            Operation::Attention(_) => {
                let TensorShape { width: tokens, channels, .. } = self.input_shape;
                2 * (tokens * tokens * channels) as u64
            }
            _ => 0,
        }
    }
}
