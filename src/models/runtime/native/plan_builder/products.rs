//! Convolutions and linear layers, in f32 or quantized.

use ndarray::ArrayView3;

use super::super::activation::Activation;
use super::super::convolution::{ConvAlgorithm, Convolution};
use super::super::depthwise::DepthwiseConv;
use super::super::inverted_bottleneck::InvertedBottleneck;
use super::super::packed::PackedWeights;
use super::super::shape::{ConvGeometry, TensorShape};
use super::super::step::{ActivationTensor, AxisOrder, Operation, PlanError, PlanResult, Step, unsupported};
use super::node::{attribute, input, optional_input, output, window_geometry};
use super::quantized::{LayerOperands, LayerWeight};
use super::{INPUT_ID, PlanBuilder};
use crate::models::onnx::proto::NodeProto;

impl PlanBuilder<'_> {
    pub(super) fn add_convolution(&mut self, node: &NodeProto) -> PlanResult<()> {
        let operands = self.operands(node)?;
        let (shape, only_reader) = (operands.shape, operands.only_reader);
        let x = self.tensor(&operands.activation, Some(AxisOrder::ChannelsFirst))?;
        let geometry = window_geometry(node, shape.get(2..).unwrap_or_default())?;
        let Some(to) = geometry.output_shape(x.shape, shape[0]) else {
            return Err(PlanError::Mismatch("its input is smaller than a kernel".into()));
        };
        let algorithm = self.select_algorithm(node, &operands, geometry, x, to)?;
        self.push_convolution(node, algorithm, x, to, (shape.iter().product(), only_reader))
    }

    /// Returns the algorithm of a convolution of `x`, with its weights packed.
    fn select_algorithm(
        &mut self,
        node: &NodeProto,
        operands: &LayerOperands<'_>,
        geometry: ConvGeometry,
        x: ActivationTensor,
        to: TensorShape,
    ) -> PlanResult<ConvAlgorithm> {
        let (outputs, group_inputs, channels) = (operands.shape[0], operands.shape[1], x.shape.channels);
        let groups = attribute(node, "group").and_then(|attribute| attribute.i).unwrap_or(1);
        let is_dense = groups == 1 && group_inputs == channels;
        let is_depthwise = usize::try_from(groups) == Ok(channels)
            && group_inputs == 1
            && outputs == channels
            && geometry.kernel[0] == 1
            && geometry.stride[0] == 1
            && x.shape.channel_stride == to.channel_stride;
        match &operands.weight {
            LayerWeight::F32(weight) if is_dense => {
                let select = if self.without_winograd { ConvAlgorithm::direct } else { ConvAlgorithm::dense };
                // The first layer computes little, and its error reaches every other layer.
                let is_first = x.id == INPUT_ID && !self.has_one_layer;
                let target = if is_first { self.target.isa.into() } else { self.target };
                let algorithm = select(geometry, &self.read(weight)?, x.shape, to, target);
                Ok(match algorithm {
                    ConvAlgorithm::Pointwise(packed) => ConvAlgorithm::Pointwise(self.probe(output(node)?, packed)),
                    ConvAlgorithm::Im2col(geometry, packed) => {
                        ConvAlgorithm::Im2col(geometry, self.probe(output(node)?, packed))
                    }
                    other => other,
                })
            }
            LayerWeight::F32(weight) if is_depthwise => {
                let depthwise = DepthwiseConv::new(geometry, &self.read(weight)?, x.shape, to, self.target.isa);
                Ok(ConvAlgorithm::Depthwise(Box::new(InvertedBottleneck::new(depthwise, self.target.isa))))
            }
            LayerWeight::F32(_) => {
                unsupported(format!("operator Conv with {groups} groups and {channels} input channels"))
            }
            LayerWeight::Int8(weight, input) if is_dense => {
                let padded = (x.shape.channel_stride, to.channel_stride);
                let packed = self.pack_quantized(weight, *input, 0, padded, |values| {
                    let view = ArrayView3::from_shape((outputs, group_inputs, geometry.taps()), values);
                    view.expect("the tensor has this shape").permuted_axes([2, 1, 0])
                })?;
                Ok(ConvAlgorithm::matmul(geometry, packed))
            }
            LayerWeight::Int8(..) => unsupported("a quantized operator Conv with several groups"),
        }
    }

    /// Adds a convolution of `x` with `weight_len` weights, fused with the previous one if possible. `only_reader` says whether nothing
    /// else reads `x`.
    fn push_convolution(
        &mut self,
        node: &NodeProto,
        algorithm: ConvAlgorithm,
        x: ActivationTensor,
        to: TensorShape,
        (weight_len, only_reader): (usize, bool),
    ) -> PlanResult<()> {
        let outputs = to.channels;
        let bias = match optional_input(node, 2) {
            Some(name) => self.channel_vector(name, outputs)?,
            None => vec![0.0; to.channel_stride],
        };
        let multiply_accumulates = products(to, weight_len);
        let layer =
            Convolution { algorithm, bias, accumulate: false, activation: Activation::None, multiply_accumulates };
        let previous = self.steps.pop_if(|previous| {
            let Operation::Convolution(first) = &previous.operation else { return false };
            only_reader && previous.output == x.id && first.can_fuse(&layer)
        });
        match previous {
            Some(Step { name, operation: Operation::Convolution(first), inputs, input_shape, .. }) => {
                let fused = first.fuse(layer).expect("`can_fuse` has been checked");
                self.push_step(node, Operation::Convolution(fused), inputs, input_shape, to, x.order)?;
                let step = self.steps.last_mut().expect("a step has been added");
                step.name = format!("{name} + {}", step.name);
                Ok(())
            }
            _ => self.push(node, Operation::Convolution(layer), &[x], to, x.order),
        }
    }

    /// Adds a product with a constant matrix (input channels, output channels), fused with the bias if an Add follows.
    /// Returns the number of converted nodes.
    pub(super) fn add_matmul(&mut self, node: &NodeProto, next: Option<&NodeProto>) -> PlanResult<usize> {
        if self.tensors.contains_key(input(node, 1)?) {
            return unsupported("operator MatMul of two activations that is not part of an attention");
        }
        let operands = self.operands(node)?;
        let x = self.tensor(&operands.activation, None)?;
        let (&[inputs, outputs], true) = (operands.shape, x.order.is_channels_last()) else {
            return unsupported("operator MatMul over an axis other than the channels");
        };
        if inputs != x.shape.channels {
            return unsupported(format!("operator MatMul of {} channels with {inputs} rows", x.shape.channels));
        }
        let to = x.shape.with_channels(outputs);
        let product = output(node)?;
        let bias = next
            .filter(|next| next.op_type == "Add" && self.readers.get(product) == Some(&1))
            .filter(|next| optional_input(next, 0) == Some(product))
            .and_then(|next| self.channel_vector(optional_input(next, 1)?, outputs).ok().map(|bias| (next, bias)));
        let padded = (x.shape.channel_stride, to.channel_stride);
        let packed = match &operands.weight {
            LayerWeight::F32(weight) => {
                let values = self.read(weight)?;
                let matrix = ArrayView3::from_shape((1, inputs, outputs), &values).expect("the tensor has this shape");
                let packed = PackedWeights::concatenate(matrix, padded, self.target);
                self.probe(product, packed)
            }
            LayerWeight::Int8(weight, input) => self.pack_quantized(weight, *input, 1, padded, |values| {
                ArrayView3::from_shape((1, inputs, outputs), values).expect("the tensor has this shape")
            })?,
        };
        let (node, bias, converted) = match bias {
            Some((next, bias)) => (next, bias, 2),
            None => (node, vec![0.0; to.channel_stride], 1),
        };
        let algorithm = ConvAlgorithm::Pointwise(packed);
        let multiply_accumulates = products(to, inputs * outputs);
        let layer =
            Convolution { algorithm, bias, accumulate: false, activation: Activation::None, multiply_accumulates };
        self.push(node, Operation::Convolution(layer), &[x], to, x.order)?;
        Ok(converted)
    }
}

/// Returns the multiply-accumulates of a convolution or a linear layer with `weight_len` weights: each position of the output reads every
/// weight once.
fn products(output: TensorShape, weight_len: usize) -> u64 {
    (output.positions() as u64 / output.batch as u64).saturating_mul(weight_len as u64)
}
