//! Converts the nodes of an ONNX graph into steps. Fuses activations, residual additions and consecutive convolutions.
//!
//! The graph is untrusted: attributes, shapes and names are checked before they are used, and anything unexpected is an
//! error. To support another operator, add an arm to [`PlanBuilder::add_node`].

mod node;
mod products;
mod quantized;
mod transformer;

use std::collections::HashMap;
use std::sync::Arc;

use super::activation::Activation;
use super::normalization::{ChannelAffine, LayerNorm};
use super::onnx_reader::{Initializer, OnnxGraph};
use super::packed::Target;
use super::pooling::MaxPool;
use super::probe::Probe;
use super::shape::{CHANNEL_ALIGNMENT, TensorShape, padded_channels};
use super::step::{ActivationTensor, AxisOrder, Operation, PlanError, PlanResult, Step, unsupported};
use crate::models::onnx::proto::NodeProto;
use node::{epsilon, input, ints, optional_input, output, window_geometry};
use quantized::{QuantizedActivation, QuantizedWeight};

/// Maximum number of floats of an activation (4 GiB).
const MAX_ACTIVATION_LEN: usize = 1 << 30;

/// Maximum length of an integer vector, such as a shape or a list of axes.
const MAX_INTEGERS: usize = 8;

/// Id of the network's input.
const INPUT_ID: usize = 0;

/// A matrix product that can be quantized.
#[derive(Debug)]
pub(super) struct LayerProbe {
    /// Name of the output of its node.
    pub layer: String,
    /// Number of outputs, with padding.
    pub padded_outputs: usize,
    pub probe: Arc<Probe>,
}

/// The plan under construction.
pub(super) struct PlanBuilder<'a> {
    graph: &'a OnnxGraph,
    target: Target,
    /// Activation tensors by name.
    tensors: HashMap<String, ActivationTensor>,
    /// Number of times each tensor is read, by name.
    readers: HashMap<String, usize>,
    /// Index of the step that computes each activation tensor, by id.
    producers: HashMap<usize, usize>,
    steps: Vec<Step>,
    next_id: usize,
    /// Activations between QuantizeLinear, DequantizeLinear and the layer that reads them, by name.
    quantized: HashMap<String, QuantizedActivation>,
    /// Constants that DequantizeLinear reads, by the name of its output.
    quantized_weights: HashMap<String, QuantizedWeight<'a>>,
    /// Probes of the layers so far; `None` unless the plan is for a calibration.
    probes: Option<Vec<LayerProbe>>,
    /// Computes all dense convolutions as matrix products.
    without_winograd: bool,
    /// Only one node is a convolution or a linear layer.
    has_one_layer: bool,
}

/// A converted graph.
pub(super) struct BuiltPlan {
    pub steps: Vec<Step>,
    /// Activation tensors by name.
    pub tensors: HashMap<String, ActivationTensor>,
    /// Probes of the layers that can be quantized; empty unless the plan is for a calibration.
    pub probes: Vec<LayerProbe>,
}

impl<'a> PlanBuilder<'a> {
    /// Creates a builder for a graph with the given input, its shape, and the given output, which counts as a read.
    pub fn new(graph: &'a OnnxGraph, input: &str, shape: TensorShape, output: &str, target: Target) -> Self {
        let mut readers: HashMap<String, usize> = HashMap::from([(output.into(), 1)]);
        for name in graph.nodes.iter().flat_map(|node| &node.input) {
            *readers.entry(name.clone()).or_default() += 1;
        }
        let input_tensor = ActivationTensor { id: INPUT_ID, shape, order: AxisOrder::ChannelsFirst };
        let tensors = HashMap::from([(input.into(), input_tensor)]);
        Self {
            graph,
            target,
            tensors,
            readers,
            producers: HashMap::new(),
            steps: Vec::new(),
            next_id: INPUT_ID + 1,
            quantized: HashMap::new(),
            quantized_weights: HashMap::new(),
            probes: None,
            without_winograd: false,
            has_one_layer: graph.nodes.iter().filter(|node| matches!(&*node.op_type, "Conv" | "MatMul")).count() == 1,
        }
    }

    /// Adds probes to the layers that can be quantized: the matrix products, and if `include_winograd` is set, those that Winograd's
    /// algorithm computes otherwise.
    pub fn with_probes(self, include_winograd: bool) -> Self {
        Self { probes: Some(Vec::new()), without_winograd: include_winograd, ..self }
    }

    /// Converts all nodes.
    ///
    /// # Errors
    /// Returns an error if a node is unsupported or malformed.
    pub fn build(mut self) -> PlanResult<BuiltPlan> {
        let nodes = &self.graph.nodes;
        let mut index = 0;
        while index < nodes.len() {
            index += self.add_node(&nodes[index..])?;
        }
        Ok(BuiltPlan { steps: self.steps, tensors: self.tensors, probes: self.probes.unwrap_or_default() })
    }

    /// Converts the first of `nodes`, together with following ones that are fused into it. Returns the number of
    /// converted nodes.
    fn add_node(&mut self, nodes: &[NodeProto]) -> PlanResult<usize> {
        let node = &nodes[0];
        match node.op_type.as_str() {
            "Conv" => self.add_convolution(node).map(|()| 1),
            "MatMul" => self.add_matmul(node, nodes.get(1)),
            "QuantizeLinear" => self.add_quantize(node).map(|()| 1),
            "DequantizeLinear" => self.add_dequantize(node).map(|()| 1),
            "Relu" => self.add_activation(node, Activation::Relu).map(|()| 1),
            "Clip" => {
                let bound = |i: usize, value: f32| node.input.get(i).is_some_and(|name| self.is_scalar(name, value));
                match bound(1, 0.0) && bound(2, 6.0) {
                    true => self.add_activation(node, Activation::Relu6).map(|()| 1),
                    false => unsupported("operator Clip with bounds other than 0 and 6"),
                }
            }
            "Div" => self.add_gelu(nodes),
            "Add" => self.add_addition(node).map(|()| 1),
            "Mul" if nodes.get(1).is_some_and(|next| next.op_type == "Sigmoid") => self.add_quick_gelu(nodes),
            "Mul" => self.add_channel_scale(node).map(|()| 1),
            "Reshape" => self.add_reshape(nodes),
            "Pad" => self.add_token_embedding(nodes),
            "Gather" => self.add_first_token(node).map(|()| 1),
            "Softmax" => unsupported("operator Softmax that is not part of an attention"),
            "Sigmoid" => unsupported("operator Sigmoid that is not part of a QuickGELU"),
            "MaxPool" => self.add_max_pool(node).map(|()| 1),
            "Transpose" => self.add_transpose(node).map(|()| 1),
            "LayerNormalization" => self.add_layer_norm(node).map(|()| 1),
            "BatchNormalization" => self.add_batch_norm(node).map(|()| 1),
            "GlobalAveragePool" => {
                let x = self.padded_tensor(input(node, 0)?, Some(AxisOrder::ChannelsFirst))?;
                let to = TensorShape { depth: 1, height: 1, width: 1, ..x.shape };
                self.push(node, Operation::GlobalAveragePool, &[x], to, x.order)?;
                Ok(1)
            }
            "Flatten" => {
                let x = self.tensor(input(node, 0)?, None)?;
                let axis = ints(node, "axis").first().copied().unwrap_or(1);
                if x.shape.positions() != x.shape.batch || axis != 1 {
                    return unsupported("operator Flatten of more than one position");
                }
                self.add_alias(input(node, 0)?, output(node)?, ActivationTensor { order: AxisOrder::Vector, ..x });
                Ok(1)
            }
            other => unsupported(format!("operator {other} is not implemented")),
        }
    }

    /// Returns the activation tensor `name`; an error if it does not have the given axis order.
    fn tensor(&self, name: &str, order: Option<AxisOrder>) -> PlanResult<ActivationTensor> {
        let Some(&tensor) = self.tensors.get(name) else {
            return unsupported(format!("`{name}` is not an activation"));
        };
        match order {
            Some(order) if order != tensor.order => unsupported(format!("unexpected axis order of `{name}`")),
            _ => Ok(tensor),
        }
    }

    /// As [`Self::tensor`], for operators that process full vectors of channels.
    fn padded_tensor(&self, name: &str, order: Option<AxisOrder>) -> PlanResult<ActivationTensor> {
        let tensor = self.tensor(name, order)?;
        if !tensor.shape.channel_stride.is_multiple_of(CHANNEL_ALIGNMENT) {
            return unsupported(format!("`{name}`, the network's input, is read by an operator other than Conv"));
        }
        Ok(tensor)
    }

    /// Returns the f32 constant `name`.
    fn initializer(&self, name: &str) -> PlanResult<&'a Initializer> {
        self.graph.initializers.get(name).map_or_else(|| unsupported(format!("`{name}` is not an f32 constant")), Ok)
    }

    fn read(&self, tensor: &Initializer) -> PlanResult<Vec<f32>> {
        self.graph.read(tensor).map_err(PlanError::Read)
    }

    /// Returns the value of a constant with one element.
    fn scalar(&self, name: &str) -> Option<f32> {
        let tensor = self.graph.initializers.get(name).filter(|tensor| tensor.len() == 1)?;
        self.read(tensor).ok().map(|values| values[0])
    }

    fn is_scalar(&self, name: &str, value: f32) -> bool {
        self.scalar(name).is_some_and(|scalar| (scalar - value).abs() < 1e-6)
    }

    /// Reads an i64 constant that is a vector.
    fn integers(&self, name: &str) -> PlanResult<Vec<i64>> {
        match self.graph.integers.get(name) {
            Some(tensor) if tensor.shape.len() == 1 && tensor.len() <= MAX_INTEGERS => {
                self.graph.read_integers(tensor).map_err(PlanError::Read)
            }
            _ => unsupported(format!("`{name}` is not a constant vector of up to {MAX_INTEGERS} integers")),
        }
    }

    /// Reads a constant with one value per channel, padded with zeros.
    fn channel_vector(&self, name: &str, channels: usize) -> PlanResult<Vec<f32>> {
        let tensor = self.initializer(name)?;
        if tensor.len() != channels {
            return unsupported(format!("`{name}` has {} elements for {channels} channels", tensor.len()));
        }
        let mut values = self.read(tensor)?;
        values.resize(padded_channels(channels), 0.0);
        Ok(values)
    }

    /// Adds a step that computes the first output of `node` from `inputs`.
    fn push(
        &mut self,
        node: &NodeProto,
        operation: Operation,
        inputs: &[ActivationTensor],
        to: TensorShape,
        order: AxisOrder,
    ) -> PlanResult<()> {
        let ids = inputs.iter().map(|x| x.id).collect();
        self.push_step(node, operation, ids, inputs[0].shape, to, order)
    }

    /// As [`Self::push`], with the ids of the inputs and the shape of the first one.
    fn push_step(
        &mut self,
        node: &NodeProto,
        operation: Operation,
        inputs: Vec<usize>,
        input_shape: TensorShape,
        output_shape: TensorShape,
        order: AxisOrder,
    ) -> PlanResult<()> {
        let name = output(node)?;
        if output_shape.checked_len().is_none_or(|len| len > MAX_ACTIVATION_LEN) {
            return Err(PlanError::Mismatch(format!("the activation `{name}` is too large")));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.producers.insert(id, self.steps.len());
        let label = if node.name.is_empty() { name } else { &node.name };
        self.steps.push(Step { name: label.into(), operation, inputs, output: id, input_shape, output_shape });
        self.tensors.insert(name.into(), ActivationTensor { id, shape: output_shape, order });
        Ok(())
    }

    /// Fuses an activation function into the step that computes its input `x`, called `name`; adds a step if anything
    /// else reads `x`. `reads` is the number of times the nodes of the activation function read `x`. `node` is the last
    /// of them.
    fn fuse_activation(
        &mut self,
        name: &str,
        x: ActivationTensor,
        node: &NodeProto,
        activation: Activation,
        reads: usize,
    ) -> PlanResult<()> {
        let only_reader = self.readers.get(name) == Some(&reads);
        let producer = self.producers.get(&x.id).map(|&step| &mut self.steps[step].operation);
        let fused = match producer {
            Some(Operation::Convolution(layer)) if only_reader => Some(&mut layer.activation),
            Some(Operation::Affine(_, fused) | Operation::Add(fused)) if only_reader => Some(fused),
            _ => None,
        };
        match fused.filter(|fused| **fused == Activation::None) {
            Some(fused) => {
                *fused = activation;
                self.tensors.insert(output(node)?.into(), x);
                Ok(())
            }
            None => self.push(node, Operation::Activation(activation), &[x], x.shape, x.order),
        }
    }

    fn add_activation(&mut self, node: &NodeProto, activation: Activation) -> PlanResult<()> {
        let name = input(node, 0)?;
        let x = self.padded_tensor(name, None)?;
        self.fuse_activation(name, x, node, activation, 1)
    }

    /// Recognizes x/2 · (1 + erf(x/√2)) written as Div, Erf, Add, Mul, Mul.
    fn add_gelu(&mut self, nodes: &[NodeProto]) -> PlanResult<usize> {
        let not_gelu = || unsupported("operator Div that is not part of a GELU");
        let [div, erf, add, mul, half, ..] = nodes else { return not_gelu() };
        let types = [erf, add, mul, half].map(|node| node.op_type.as_str());
        if types != ["Erf", "Add", "Mul", "Mul"] {
            return not_gelu();
        }
        let name = input(div, 0)?;
        let matches = self.is_scalar(input(div, 1)?, std::f32::consts::SQRT_2)
            && input(erf, 0)? == output(div)?
            && (input(add, 0)? == output(erf)? && self.is_scalar(input(add, 1)?, 1.0))
            && (input(mul, 0)? == name && input(mul, 1)? == output(add)?)
            && (input(half, 0)? == output(mul)? && self.is_scalar(input(half, 1)?, 0.5));
        if !matches {
            return not_gelu();
        }
        let x = self.padded_tensor(name, None)?;
        // Div and the first Mul both read x.
        self.fuse_activation(name, x, half, Activation::Gelu, 2)?;
        Ok(5)
    }

    fn add_max_pool(&mut self, node: &NodeProto) -> PlanResult<()> {
        let x = self.padded_tensor(input(node, 0)?, Some(AxisOrder::ChannelsFirst))?;
        if node.output.len() > 1 || ints(node, "ceil_mode").iter().any(|&mode| mode != 0) {
            return unsupported("operator MaxPool with ceil_mode or indices");
        }
        let kernel: Vec<usize> =
            ints(node, "kernel_shape").iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        let geometry = window_geometry(node, &kernel)?;
        let Some(to) = geometry.output_shape(x.shape, x.shape.channels) else {
            return Err(PlanError::Mismatch("its input is smaller than a kernel".into()));
        };
        self.push(node, Operation::MaxPool(MaxPool { geometry }), &[x], to, x.order)
    }

    fn add_addition(&mut self, node: &NodeProto) -> PlanResult<()> {
        let (x, y) = (self.padded_tensor(input(node, 0)?, None)?, self.padded_tensor(input(node, 1)?, None)?);
        if x.shape != y.shape || x.order != y.order {
            return unsupported("operator Add of different shapes");
        }
        // A convolution that only this node reads accumulates into the other operand, if that has been computed before.
        for (name, (residual, branch)) in node.input.iter().take(2).rev().zip([(x, y), (y, x)]) {
            let only_reader = self.readers.get(name) == Some(&1);
            let (earlier, later) = (self.producers.get(&residual.id), self.producers.get(&branch.id));
            let Some(step) =
                later.filter(|later| only_reader && earlier < Some(later)).map(|&later| &mut self.steps[later])
            else {
                continue;
            };
            if let Operation::Convolution(layer) = &mut step.operation
                && layer.can_accumulate()
                && !layer.accumulate
            {
                layer.accumulate = true;
                step.inputs.push(residual.id);
                self.tensors.insert(output(node)?.into(), branch);
                return Ok(());
            }
        }
        self.push(node, Operation::Add(Activation::None), &[x, y], x.shape, x.order)
    }

    /// Adds a multiplication by one factor per channel.
    fn add_channel_scale(&mut self, node: &NodeProto) -> PlanResult<()> {
        let x = self.padded_tensor(input(node, 0)?, None)?;
        if !x.order.is_channels_last() {
            return unsupported("operator Mul over an axis other than the channels");
        }
        let scale = self.channel_vector(input(node, 1)?, x.shape.channels)?;
        let affine = ChannelAffine { offset: vec![0.0; scale.len()], scale };
        self.push(node, Operation::Affine(affine, Activation::None), &[x], x.shape, x.order)
    }

    /// Adds an alias with another axis order. No data moves: in memory, channels are last in both orders.
    fn add_transpose(&mut self, node: &NodeProto) -> PlanResult<()> {
        let (from, to) = (input(node, 0)?, output(node)?);
        let x = self.tensor(from, None)?;
        let order = match (ints(node, "perm"), x.order) {
            ([0, 2, 3, 1] | [0, 2, 3, 4, 1], AxisOrder::ChannelsFirst) => AxisOrder::ChannelsLast,
            ([0, 3, 1, 2] | [0, 4, 1, 2, 3], AxisOrder::ChannelsLast) => AxisOrder::ChannelsFirst,
            ([0, 2, 1], AxisOrder::Flattened) => AxisOrder::Tokens,
            ([0, 2, 1], AxisOrder::Tokens) => AxisOrder::Flattened,
            (axes, _) => return unsupported(format!("operator Transpose to {axes:?}")),
        };
        self.add_alias(from, to, ActivationTensor { order, ..x });
        Ok(())
    }

    /// Makes `to` another name of the activation `from`. Its read count includes the other reads of `from`, so that
    /// nothing is fused into a step whose result is read elsewhere.
    fn add_alias(&mut self, from: &str, to: &str, tensor: ActivationTensor) {
        let other_readers = self.readers.get(from).map_or(0, |readers| readers - 1);
        *self.readers.entry(to.into()).or_default() += other_readers;
        self.tensors.insert(to.into(), tensor);
    }

    fn add_layer_norm(&mut self, node: &NodeProto) -> PlanResult<()> {
        let x = self.padded_tensor(input(node, 0)?, None)?;
        if !x.order.is_channels_last() || ints(node, "axis").first().is_some_and(|&axis| axis != -1) {
            return unsupported("operator LayerNormalization over an axis other than the channels");
        }
        let channels = x.shape.channels;
        let bias = match optional_input(node, 2) {
            Some(name) => self.channel_vector(name, channels)?,
            None => vec![0.0; x.shape.channel_stride],
        };
        let weight = self.channel_vector(input(node, 1)?, channels)?;
        let layer = LayerNorm { weight, bias, epsilon: epsilon(node) };
        self.push(node, Operation::LayerNorm(layer), &[x], x.shape, x.order)
    }

    fn add_batch_norm(&mut self, node: &NodeProto) -> PlanResult<()> {
        let x = self.padded_tensor(input(node, 0)?, Some(AxisOrder::ChannelsFirst))?;
        let channels = x.shape.channels;
        let parameter = |i: usize| self.channel_vector(input(node, i)?, channels);
        let (weight, bias, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        let epsilon = f64::from(epsilon(node));
        let scale: Vec<f64> =
            weight.iter().zip(&variance).map(|(w, v)| f64::from(*w) / (f64::from(*v) + epsilon).sqrt()).collect();
        let offset =
            bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| (f64::from(*b) - f64::from(*m) * s) as f32).collect();
        let affine = ChannelAffine { scale: scale.into_iter().map(|s| s as f32).collect(), offset };
        self.push(node, Operation::Affine(affine, Activation::None), &[x], x.shape, x.order)
    }
}
