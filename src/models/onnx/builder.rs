//! Writer of ONNX graphs, shared by networks and classifiers: collects nodes and initializers, and serializes the model.
//!
//! Format: <https://onnx.ai/onnx/repo-docs/IR.html>.

use std::collections::HashSet;
use std::io::{self, Write};

use half::f16;
use ndarray::ArcArray1;
use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::proto::{Attribute, FLOAT, FLOAT16, GraphProto, ModelProto, NodeProto, OperatorSet, TensorProto, ValueInfo};

/// Operator set of all files. LayerNormalization requires 17 or later.
const OPSET: i64 = 18;
/// Operator set of the operators of classical machine learning; TreeEnsembleRegressor-3.
const ML_OPSET: i64 = 3;
const ML_DOMAIN: &str = "ai.onnx.ml";
/// IR version that corresponds to the operator set.
const IR_VERSION: i64 = 8;
/// Field numbers of [`ModelProto::graph`], [`GraphProto::initializer`] and [`TensorProto::raw_data`].
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// Nodes and initializers of a graph. Values are referred to by name.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<NodeProto>,
    initializers: Vec<Initializer>,
    /// Names of the initializers that were added by [`Self::shared_initializer`].
    shared: HashSet<String>,
}

/// A constant tensor.
#[derive(Debug)]
struct Initializer {
    /// The tensor without its values.
    description: TensorProto,
    /// Its values, [`TensorProto::raw_data`].
    values: Bytes,
}

impl Initializer {
    /// Returns the bytes before the values.
    fn start(&self) -> Vec<u8> {
        let mut start = self.description.encode_to_vec();
        if !self.values.is_empty() {
            encode_key(RAW_DATA, WireType::LengthDelimited, &mut start);
            encode_varint(self.values.len() as u64, &mut start);
        }
        start
    }
}

/// The values of a tensor that the model shares.
struct SharedValues(ArcArray1<f32>);

impl AsRef<[u8]> for SharedValues {
    fn as_ref(&self) -> &[u8] {
        const { assert!(cfg!(target_endian = "little"), "ONNX files are little-endian, as all supported processors") };
        bytemuck::cast_slice(self.0.as_slice().expect("the values are contiguous"))
    }
}

impl GraphBuilder {
    /// Adds a node with one output. The node and its output are both named `output`.
    pub fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) {
        self.node_with_outputs(output, operator, inputs, &[output], attributes);
    }

    /// Adds a node with any number of outputs.
    pub fn node_with_outputs(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Attribute>,
    ) {
        let output = outputs.iter().map(|name| name.to_string()).collect();
        self.nodes.push(NodeProto { output, ..NodeProto::new(operator, inputs, name, attributes) });
    }

    /// Adds a node with one output of an operator of the domain `ai.onnx.ml`.
    pub fn ml_node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) {
        self.node(operator, inputs, output, attributes);
        self.nodes.last_mut().expect("a node was added").domain = ML_DOMAIN.into();
    }

    /// Adds a constant tensor and returns its name.
    pub fn initializer(&mut self, mut tensor: TensorProto) -> String {
        let values = std::mem::take(&mut tensor.raw_data).into();
        self.push(tensor, values)
    }

    /// Adds a constant f32 tensor without a copy of its values, which are in row-major order, and returns its name.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: ArcArray1<f32>) -> String {
        let dims = shape.iter().map(|d| *d as i64).collect();
        let tensor = TensorProto { dims, data_type: FLOAT, name: name.into(), raw_data: Vec::new() };
        self.push(tensor, Bytes::from_owner(SharedValues(values)))
    }

    fn push(&mut self, description: TensorProto, values: Bytes) -> String {
        let name = description.name.clone();
        self.initializers.push(Initializer { description, values });
        name
    }

    /// Adds a constant tensor unless one of the same name was added before, and returns its name.
    pub fn shared_initializer(&mut self, tensor: TensorProto) -> String {
        if self.shared.insert(tensor.name.clone()) { self.initializer(tensor) } else { tensor.name }
    }

    /// Converts the graph to half precision: all f32 constants, the value `input` once it has been read, and all values that depend on them.
    /// `output` is f32 again. ONNX Runtime's kernels for GPUs sum in single precision, also in normalizations and softmax.
    ///
    /// # Errors
    /// Returns the name of a constant with a value beyond the range of half precision.
    pub fn into_half_precision(mut self, input: &str, output: &str) -> Result<Self, String> {
        for Initializer { description, values } in &mut self.initializers {
            if description.data_type != FLOAT {
                continue;
            }
            let (floats, []) = values.as_chunks::<4>() else { unreachable!("f32 values have four bytes each") };
            let halves: Vec<f16> = floats.iter().map(|bytes| f16::from_f32(f32::from_le_bytes(*bytes))).collect();
            if halves.iter().any(|half| !half.is_finite()) {
                return Err(description.name.clone());
            }
            description.data_type = FLOAT16;
            *values = halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>().into();
        }
        let (half_input, half_output) = (format!("{input}.half"), format!("{output}.half"));
        for node in &mut self.nodes {
            let renamed = |name: &mut String| {
                let replacements = [(input, &half_input), (output, &half_output)];
                if let Some((_, half)) = replacements.into_iter().find(|(original, _)| name == original) {
                    name.clone_from(half);
                }
            };
            node.input.iter_mut().chain(&mut node.output).for_each(renamed);
        }
        let cast = |from: &str, to: &str, element: i32| NodeProto {
            // A node of the network is named as its output.
            name: format!("{to}.cast"),
            ..NodeProto::new("Cast", &[from], to, vec![Attribute::int("to", i64::from(element))])
        };
        self.nodes.insert(0, cast(input, &half_input, FLOAT16));
        self.nodes.push(cast(&half_output, output, FLOAT));
        Ok(self)
    }

    /// Returns the number of nodes so far.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the number of initializers so far.
    pub fn initializer_count(&self) -> usize {
        self.initializers.len()
    }

    /// Returns the bytes of an ONNX file with this graph.
    pub fn finish(self, name: &str, input: ValueInfo, output: ValueInfo) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(name, input, output, &mut bytes).expect("writing to memory succeeds");
        bytes
    }

    /// Writes an ONNX file with this graph, in the order of prost, but one tensor after the other: a serialized copy of all would need as
    /// much memory again.
    ///
    /// # Errors
    /// Returns the error of `out`.
    pub fn write(self, name: &str, input: ValueInfo, output: ValueInfo, out: &mut impl Write) -> io::Result<()> {
        let mut opset_import = vec![OperatorSet { domain: String::new(), version: OPSET }];
        if self.nodes.iter().any(|node| node.domain == ML_DOMAIN) {
            opset_import.push(OperatorSet { domain: ML_DOMAIN.into(), version: ML_OPSET });
        }
        let nodes = GraphProto { node: self.nodes, name: name.into(), ..GraphProto::default() }.encode_to_vec();
        let ends = GraphProto { input: vec![input], output: vec![output], ..GraphProto::default() }.encode_to_vec();
        let tensors: Vec<(Vec<u8>, Bytes)> =
            self.initializers.into_iter().map(|tensor| (tensor.start(), tensor.values)).collect();
        let tensor_len = |(start, values): &(Vec<u8>, Bytes)| start.len() + values.len();
        let field_len = |len: usize| key_len(INITIALIZER) + encoded_len_varint(len as u64) + len;
        let graph =
            nodes.len() + tensors.iter().map(|tensor| field_len(tensor_len(tensor))).sum::<usize>() + ends.len();

        let model = ModelProto { ir_version: IR_VERSION, producer_name: "kinoprobe".into(), ..ModelProto::default() };
        out.write_all(&model.encode_to_vec())?;
        write_field_start(GRAPH, graph, out)?;
        out.write_all(&nodes)?;
        for tensor in &tensors {
            write_field_start(INITIALIZER, tensor_len(tensor), out)?;
            out.write_all(&tensor.0)?;
            out.write_all(&tensor.1)?;
        }
        out.write_all(&ends)?;
        out.write_all(&ModelProto { opset_import, ..ModelProto::default() }.encode_to_vec())
    }
}

/// Writes the key and the length of a field of `len` bytes.
fn write_field_start(number: u32, len: usize, out: &mut impl Write) -> io::Result<()> {
    let mut start = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut start);
    encode_varint(len as u64, &mut start);
    out.write_all(&start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_those_of_prost() {
        let mut graph = GraphBuilder::default();
        graph.floats("a", &[2, 100], (0..200).map(|i| i as f32).collect());
        graph.floats("empty", &[0], ArcArray1::from(vec![]));
        graph.initializer(TensorProto::integers("b", &[1, -2]));
        graph.node("Gemm", &["x", "a"], "y", vec![Attribute::int("transB", 1)]);
        let bytes = graph.finish("graph", ValueInfo::batched("x", &[100]), ValueInfo::batched("y", &[2]));
        let model = ModelProto::decode(bytes.as_slice()).unwrap();
        let graph = model.graph.as_ref().unwrap();
        assert_eq!((graph.node.len(), graph.input.len(), graph.output.len()), (1, 1, 1));
        let values: Vec<f32> = (0..200).map(|i| i as f32).collect();
        assert_eq!(graph.initializer[0], TensorProto::floats("a", &[2, 100], &values));
        assert_eq!(graph.initializer[2], TensorProto::integers("b", &[1, -2]));
        assert_eq!(model.encode_to_vec(), bytes);
    }
}
