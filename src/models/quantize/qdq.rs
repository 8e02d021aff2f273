//! Reading and rewriting of the ONNX graph. Quantized layers read their operands through QuantizeLinear and DequantizeLinear (QDQ), so that
//! other runtimes can run the file: <https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html>.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ndarray::{Array3, ArrayView3};
use prost::Message as _;

use crate::error::{Error, Result};
use crate::models::onnx::proto::{self, Attribute, GraphProto, ModelProto, NodeProto, TensorProto};
use crate::models::runtime::calibration::InputQuantization;

/// First operator set in which DequantizeLinear has one scale per channel.
const MIN_OPSET: i64 = 13;

/// An ONNX model, with its constants by name.
pub(super) struct Model {
    proto: ModelProto,
    /// Index of each initializer that exactly one node reads, by name.
    initializers: HashMap<String, usize>,
    /// Index of each node, by the name of its first output.
    nodes: HashMap<String, usize>,
}

/// A layer that can be quantized.
pub(super) struct Layer {
    /// Index of its Conv or MatMul.
    node: usize,
    /// Index of its weight.
    weight: usize,
    /// Index of its bias; `None` if it has none.
    bias: Option<usize>,
    /// `true` if the weight is (output channels, input channels, taps…), not (input channels, output channels).
    is_convolution: bool,
    /// (taps, input channels, output channels).
    pub weights: Array3<f32>,
}

/// A quantized layer.
pub(super) struct Quantized {
    /// (taps, input channels, output channels).
    pub integers: Array3<i8>,
    /// Per output channel.
    pub scales: Vec<f32>,
    pub input: InputQuantization,
    /// Added to the bias; empty if the layer has none.
    pub bias_correction: Vec<f32>,
}

impl Layer {
    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Describes the layer: operator, kernel and channels.
    pub fn description(&self, model: &Model) -> String {
        let (_, inputs, outputs) = self.weights.dim();
        let kernel = match &model.graph().initializer[self.weight].dims[..] {
            [_, _, kernel @ ..] if self.is_convolution => {
                let sizes: Vec<String> = kernel.iter().map(i64::to_string).collect();
                format!("Conv {}", sizes.join("×"))
            }
            _ => "MatMul".into(),
        };
        format!("{kernel}, {inputs} → {outputs} channels")
    }
}

impl Model {
    /// Reads a file. Fields that [`ModelProto`] lacks are lost: the native kernels support no network that needs them.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not an ONNX model with a sufficient operator set.
    pub fn read(path: &Path) -> Result<Self> {
        let invalid = |message: String| Error::Weights { path: path.into(), message };
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let proto =
            ModelProto::decode(bytes.as_slice()).map_err(|error| invalid(format!("not an ONNX model: {error}")))?;
        let Some(graph) = &proto.graph else { return Err(invalid("not an ONNX model: it has no graph".into())) };
        let opset = proto.opset_import.iter().find(|opset| opset.domain.is_empty()).map_or(1, |opset| opset.version);
        if opset < MIN_OPSET {
            let message =
                format!("it uses operator set {opset}; int8 needs {MIN_OPSET} or later: export the network again");
            return Err(invalid(message));
        }
        let mut readers: HashMap<&str, usize> = HashMap::new();
        for name in graph.node.iter().flat_map(|node| &node.input) {
            *readers.entry(name).or_default() += 1;
        }
        let indices = graph.initializer.iter().enumerate();
        let read_once = indices.filter(|(_, tensor)| readers.get(tensor.name.as_str()) == Some(&1));
        let initializers = read_once.map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        let first_output = |(index, node): (usize, &NodeProto)| Some((node.output.first()?.clone(), index));
        let nodes = graph.node.iter().enumerate().filter_map(first_output).collect();
        Ok(Self { proto, initializers, nodes })
    }

    fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("`read` has checked the graph")
    }

    /// Returns `true` if the layer with this output reads the input of the network.
    pub fn is_first(&self, output: &str) -> bool {
        let node = self.nodes.get(output).map(|&index| &self.graph().node[index]);
        let read = node.and_then(|node| node.input.first());
        self.graph().input.iter().any(|input| Some(&input.name) == read)
    }

    /// Returns the layer with this output; `None` if its weight is not a constant of its own.
    pub fn layer(&self, output: &str) -> Option<Layer> {
        let node_index = *self.nodes.get(output)?;
        let node = &self.graph().node[node_index];
        let weight = *self.initializers.get(node.input.get(1)?)?;
        let tensor = &self.graph().initializer[weight];
        let values = floats(tensor)?;
        let shape: Vec<usize> = tensor.dims.iter().map(|&axis| axis as usize).collect();
        let is_convolution = node.op_type == "Conv";
        let (weights, bias) = match (&shape[..], is_convolution) {
            (&[outputs, inputs, ref kernel @ ..], true) => {
                let taps = kernel.iter().product();
                let view = ArrayView3::from_shape((outputs, inputs, taps), &values).ok()?;
                (view.permuted_axes([2, 1, 0]).to_owned(), node.input.get(2))
            }
            (&[inputs, outputs], false) => {
                let view = ArrayView3::from_shape((1, inputs, outputs), &values).ok()?;
                (view.to_owned(), self.bias_of_product(node_index))
            }
            _ => return None,
        };
        let outputs = weights.dim().2;
        let bias = bias.and_then(|name| self.initializers.get(name).copied());
        let bias =
            bias.filter(|&bias| floats(&self.graph().initializer[bias]).is_some_and(|bias| bias.len() == outputs));
        Some(Layer { node: node_index, weight, bias, is_convolution, weights })
    }

    /// Returns the name of the operand that the node after a MatMul adds to the product, if nothing else reads the product.
    fn bias_of_product(&self, node: usize) -> Option<&String> {
        let nodes = &self.graph().node;
        let product = nodes[node].output.first()?;
        let next = nodes.get(node + 1).filter(|next| next.op_type == "Add" && next.input.first() == Some(product))?;
        let readers = nodes.iter().flat_map(|node| &node.input).filter(|name| *name == product).count();
        (readers == 1).then_some(next.input.get(1)?)
    }

    /// Rewrites the layers and returns the bytes of the file.
    pub fn write(mut self, layers: &[(&Layer, &Quantized)]) -> Vec<u8> {
        let quantized: HashMap<usize, (&Layer, &Quantized)> =
            layers.iter().map(|&(layer, quantized)| (layer.node, (layer, quantized))).collect();
        let graph = self.proto.graph.as_mut().expect("`read` has checked the graph");
        let mut nodes = Vec::with_capacity(graph.node.len());
        let mut dequantized: BTreeMap<(String, u32, u8), String> = BTreeMap::new();
        for (index, mut node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
            let Some((layer, quantized)) = quantized.get(&index) else {
                nodes.push(node);
                continue;
            };
            // Layers that read the same activation share its quantization.
            let InputQuantization { scale, zero_point } = quantized.input;
            let input = node.input[0].clone();
            let shared = dequantized.entry((input.clone(), scale.to_bits(), zero_point)).or_insert_with(|| {
                let derived = |suffix: &str| format!("{}.input.{suffix}", node.output[0]);
                let [scale_name, zero, integers, values] = ["scale", "zero", "integers", "values"].map(derived);
                graph.initializer.push(TensorProto::floats(&scale_name, &[], &[scale]));
                graph.initializer.push(TensorProto::byte(&zero, zero_point));
                nodes.push(NodeProto::new("QuantizeLinear", &[&input, &scale_name, &zero], &integers, vec![]));
                nodes.push(NodeProto::new("DequantizeLinear", &[&integers, &scale_name, &zero], &values, vec![]));
                values
            });
            node.input[0].clone_from(shared);
            nodes.push(quantize_weight(&mut graph.initializer, layer, quantized));
            if let Some(bias) = layer.bias {
                let bias = &mut graph.initializer[bias];
                let values = floats(bias).expect("`layer` has checked the bias");
                let corrected: Vec<f32> =
                    values.iter().zip(&quantized.bias_correction).map(|(bias, correction)| bias + correction).collect();
                bias.raw_data = TensorProto::floats("", &[], &corrected).raw_data;
            }
            nodes.push(node);
        }
        graph.node = nodes;
        self.proto.encode_to_vec()
    }
}

/// Replaces the weight of a layer by integers, and returns the node that dequantizes them under the weight's name.
fn quantize_weight(initializers: &mut Vec<TensorProto>, layer: &Layer, quantized: &Quantized) -> NodeProto {
    let tensor = &mut initializers[layer.weight];
    let (name, dims) = (tensor.name.clone(), std::mem::take(&mut tensor.dims));
    let [integers, scale, zero] = ["integers", "scale", "zero"].map(|suffix| format!("{name}.{suffix}"));
    let (view, axis) = match layer.is_convolution {
        true => (quantized.integers.view().permuted_axes([2, 1, 0]), 0),
        false => (quantized.integers.view(), 1),
    };
    let raw_data = view.iter().map(|&value| value as u8).collect();
    *tensor = TensorProto { dims, data_type: proto::INT8, name: integers.clone(), raw_data };
    let outputs = quantized.scales.len();
    initializers.push(TensorProto::floats(&scale, &[outputs], &quantized.scales));
    initializers.push(TensorProto::bytes(&zero, &[outputs], &vec![0; outputs]));
    NodeProto::new("DequantizeLinear", &[&integers, &scale, &zero], &name, vec![Attribute::int("axis", axis)])
}

/// Returns the values of an f32 tensor.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let (values, rest) = tensor.raw_data.as_chunks();
    let is_complete = rest.is_empty() && values.len() as i64 == tensor.dims.iter().product::<i64>();
    (tensor.data_type == proto::FLOAT && is_complete)
        .then(|| values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
