//! Models as ONNX: `features` (N, D), or (N, time, D) for sequences, → `probabilities` (N, C).

use prost::Message;

use super::{Model, Tensor};
use crate::dataset::Task;
use crate::models::onnx::proto::{Attribute, GraphProto, ModelProto, NodeProto, OperatorSet, TensorProto, ValueInfo};

/// The first operator set in which every operator used here has its present form.
const OPERATOR_SET: i64 = 18;
const IR_VERSION: i64 = 8;

const INT64: i32 = 7;
const DOUBLE: i64 = 11;
const FLOAT: i64 = 1;

/// Collects the nodes of a model. Values are handed about by name.
#[derive(Debug, Default)]
pub struct Exporter {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Exporter {
    /// `model`, which reads `dim` features and knows `classes` classes, as the bytes of an ONNX file.
    pub fn export(model: &dyn Model, dim: usize, classes: usize) -> Vec<u8> {
        let mut graph = Self::default();
        let output = model.export(&mut graph, "features");
        let input = match model.reads_sequences() {
            true => ValueInfo::sequences("features", dim as i64),
            false => ValueInfo::batched("features", &[dim as i64]),
        };
        graph.nodes.push(NodeProto {
            name: "probabilities".into(),
            op_type: "Identity".into(),
            input: vec![output],
            output: vec!["probabilities".into()],
            attribute: vec![],
        });
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "kinoprobe".into(),
            graph: Some(GraphProto {
                node: graph.nodes,
                name: "classifier".into(),
                initializer: graph.constants,
                input: vec![input],
                output: vec![ValueInfo::batched("probabilities", &[classes as i64])],
            }),
            opset_import: vec![OperatorSet { domain: String::new(), version: OPERATOR_SET }],
        }
        .encode_to_vec()
    }

    /// A constant, under its tensor's name.
    pub fn constant(&mut self, tensor: Tensor) -> String {
        self.constants.push(TensorProto::floats(&tensor.name, &tensor.shape, &tensor.values));
        tensor.name
    }

    /// A scalar constant.
    pub fn scalar(&mut self, value: f32) -> String {
        let name = format!("scalar.{}", self.constants.len());
        self.constants.push(TensorProto::floats(&name, &[], &[value]));
        name
    }

    /// A vector in double precision.
    pub fn constant_f64(&mut self, name: &str, values: &[f64]) -> String {
        self.constants.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: DOUBLE as i32,
            name: name.into(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
        name.into()
    }

    /// A vector of integers.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let name = format!("integers.{}", self.constants.len());
        self.constants.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: INT64,
            name: name.clone(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
        name
    }

    /// A node of one output without attributes.
    pub fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.node_with(operator, inputs, vec![])
    }

    /// `x·Wᵀ + b`.
    pub fn linear(&mut self, x: &str, weight: &str, bias: &str) -> String {
        self.node_with("Gemm", &[x, weight, bias], vec![Attribute::int("transB", 1)])
    }

    /// `factor·x·Wᵀ + b`.
    pub fn scaled_linear(&mut self, x: &str, weight: &str, bias: &str, factor: f32) -> String {
        self.node_with("Gemm", &[x, weight, bias], vec![Attribute::int("transB", 1), Attribute::float("alpha", factor)])
    }

    /// Reduces the axis `axis` of `x` away, by `ReduceSum`, `ReduceMean` or `ReduceMax`.
    pub fn reduce(&mut self, operator: &str, x: &str, axis: i64) -> String {
        let axes = self.integers(&[axis]);
        self.node_with(operator, &[x, &axes], vec![Attribute::int("keepdims", 0)])
    }

    /// Columns of a matrix.
    pub fn columns(&mut self, x: &str, columns: std::ops::Range<usize>) -> String {
        let columns: Vec<i64> = columns.map(|column| column as i64).collect();
        let columns = self.integers(&columns);
        self.node_with("Gather", &[x, &columns], vec![Attribute::int("axis", 1)])
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, x: &str) -> String {
        self.node_with("Softmax", &[x], vec![Attribute::int("axis", 1)])
    }

    /// The scores of logits: softmax for one label a clip, the sigmoid for several.
    pub fn scores(&mut self, logits: &str, task: Task) -> String {
        match task {
            Task::SingleLabel => self.softmax(logits),
            Task::MultiLabel => self.node("Sigmoid", &[logits]),
        }
    }

    /// Batch normalization by running statistics; `parameters` are weight, bias, mean and variance.
    pub fn batch_norm(&mut self, x: &str, parameters: [&str; 4], epsilon: f64) -> String {
        let [weight, bias, mean, variance] = parameters;
        let epsilon = Attribute::float("epsilon", epsilon as f32);
        self.node_with("BatchNormalization", &[x, weight, bias, mean, variance], vec![epsilon])
    }

    /// `x` with its axes in another order.
    pub fn transpose(&mut self, x: &str, axes: &[usize]) -> String {
        self.node_with("Transpose", &[x], vec![Attribute::ints("perm", axes)])
    }

    /// `x` in another shape; 0 keeps an axis as it is.
    pub fn reshape(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.integers(shape);
        self.node("Reshape", &[x, &shape])
    }

    /// Layer normalization over the last axis.
    pub fn layer_norm(&mut self, x: &str, weight: &str, bias: &str, epsilon: f64) -> String {
        let attributes = vec![Attribute::int("axis", -1), Attribute::float("epsilon", epsilon as f32)];
        self.node_with("LayerNormalization", &[x, weight, bias], attributes)
    }

    /// The states (time, 2, N, hidden) of a bidirectional LSTM over `x` (time, N, D); `weights` are W, R and B.
    pub fn bidirectional_lstm(&mut self, x: &str, [w, r, b]: [&str; 3], hidden: usize) -> String {
        let attributes =
            vec![Attribute::string("direction", "bidirectional"), Attribute::int("hidden_size", hidden as i64)];
        self.node_with("LSTM", &[x, w, r, b], attributes)
    }

    /// `x` (N, time, D) with zeros in front, so that there are `length` steps.
    pub fn pad_steps_in_front(&mut self, x: &str, length: usize) -> String {
        let shape = self.node("Shape", &[x]);
        let axis = self.integers(&[1]);
        let time = self.node("Gather", &[&shape, &axis]);
        let wanted = self.integers(&[length as i64]);
        let missing = self.node("Sub", &[&wanted, &time]);
        let (none, rest) = (self.integers(&[0]), self.integers(&[0, 0, 0, 0]));
        let pads = self.node_with("Concat", &[&none, &missing, &rest], vec![Attribute::int("axis", 0)]);
        self.node("Pad", &[x, &pads])
    }

    /// `x` in double precision.
    pub fn double(&mut self, x: &str) -> String {
        self.node_with("Cast", &[x], vec![Attribute::int("to", DOUBLE)])
    }

    /// `x` in single precision.
    pub fn single(&mut self, x: &str) -> String {
        self.node_with("Cast", &[x], vec![Attribute::int("to", FLOAT)])
    }

    /// The indices of the `count` lowest values of each row of `x`, in ascending order; of equal ones the first.
    pub fn lowest(&mut self, x: &str, count: usize) -> String {
        let count = self.integers(&[count as i64]);
        let name = format!("topk.{}", self.nodes.len());
        let indices = format!("{name}.indices");
        self.nodes.push(NodeProto {
            name: name.clone(),
            op_type: "TopK".into(),
            input: vec![x.into(), count],
            output: vec![format!("{name}.values"), indices.clone()],
            attribute: vec![Attribute::int("largest", 0), Attribute::int("sorted", 1), Attribute::int("axis", 1)],
        });
        indices
    }

    fn node_with(&mut self, operator: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let name = format!("{}.{}", operator.to_lowercase(), self.nodes.len());
        self.nodes.push(NodeProto {
            name: name.clone(),
            op_type: operator.into(),
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![name.clone()],
            attribute,
        });
        name
    }
}
