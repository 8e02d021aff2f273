//! Export of classifiers to ONNX: `features` (N, D), or (N, time, D) for sequences, → `probabilities` (N, C).

use std::io::{self, Write};

use ndarray::{ArrayView1, ArrayView2};

use super::{Model, Tensor};
use crate::dataset::Task;
use crate::models::onnx::builder::GraphBuilder;
use crate::models::onnx::proto::{Attribute, DOUBLE, FLOAT, TensorProto, ValueInfo};

/// Adds the operations of a classifier to an ONNX graph. Values are referred to by name.
#[derive(Debug, Default)]
pub struct Exporter {
    graph: GraphBuilder,
}

impl Exporter {
    /// Writes an ONNX file with `model`, which reads `dim` features and has `classes` classes.
    ///
    /// # Errors
    /// Returns the error of `out`.
    pub fn export(model: &dyn Model, dim: usize, classes: usize, out: &mut impl Write) -> io::Result<()> {
        let mut exporter = Self::default();
        let scores = model.export(&mut exporter, "features");
        let input = match model.reads_sequences() {
            true => ValueInfo::sequences("features", dim as i64),
            false => ValueInfo::batched("features", &[dim as i64]),
        };
        exporter.graph.node("Identity", &[&scores], "probabilities", vec![]);
        exporter.graph.write("classifier", input, ValueInfo::batched("probabilities", &[classes as i64]), out)
    }

    /// Adds a constant with the name of its tensor.
    pub fn constant(&mut self, tensor: Tensor) -> String {
        self.graph.floats(&tensor.name, &tensor.shape, tensor.values)
    }

    /// Adds a scalar constant.
    pub fn scalar(&mut self, value: f32) -> String {
        let name = format!("scalar.{}", self.graph.initializer_count());
        self.graph.initializer(TensorProto::floats(&name, &[], &[value]))
    }

    /// Adds a constant vector of f64.
    pub fn constant_f64(&mut self, name: &str, values: &[f64]) -> String {
        self.graph.initializer(TensorProto::doubles(name, values))
    }

    /// Adds a constant vector of integers.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let name = format!("integers.{}", self.graph.initializer_count());
        self.graph.initializer(TensorProto::integers(&name, values))
    }

    /// Adds a node with one output and without attributes.
    pub fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.node_with(operator, inputs, vec![])
    }

    /// Adds `x·Wᵀ + b`.
    pub fn linear(&mut self, x: &str, weight: &str, bias: &str) -> String {
        self.node_with("Gemm", &[x, weight, bias], vec![Attribute::int("transB", 1)])
    }

    /// Adds `factor·x·Wᵀ + b`.
    pub fn scaled_linear(&mut self, x: &str, weight: &str, bias: &str, factor: f32) -> String {
        self.node_with("Gemm", &[x, weight, bias], vec![Attribute::int("transB", 1), Attribute::float("alpha", factor)])
    }

    /// Adds a reduction of `x` over `axis`, which is removed: `ReduceSum`, `ReduceMean` or `ReduceMax`.
    pub fn reduce(&mut self, operator: &str, x: &str, axis: i64) -> String {
        let axes = self.integers(&[axis]);
        self.node_with(operator, &[x, &axes], vec![Attribute::int("keepdims", 0)])
    }

    /// Selects columns of a matrix.
    pub fn columns(&mut self, x: &str, columns: std::ops::Range<usize>) -> String {
        let columns: Vec<i64> = columns.map(|column| column as i64).collect();
        let columns = self.integers(&columns);
        self.node_with("Gather", &[x, &columns], vec![Attribute::int("axis", 1)])
    }

    /// Adds the softmax over axis 1, the classes.
    pub fn softmax(&mut self, x: &str) -> String {
        self.softmax_over(x, 1)
    }

    /// Adds the softmax over `axis`.
    pub fn softmax_over(&mut self, x: &str, axis: i64) -> String {
        self.node_with("Softmax", &[x], vec![Attribute::int("axis", axis)])
    }

    /// Adds `x·Wᵀ + b` for `x` (N, time, inputs).
    pub fn linear_steps(
        &mut self,
        x: &str,
        name: &str,
        weight: ArrayView2<'_, f32>,
        bias: ArrayView1<'_, f32>,
    ) -> String {
        let weight = self.constant(Tensor::matrix(&format!("{name}.weight"), weight.t()));
        let bias = self.constant(Tensor::vector(&format!("{name}.bias"), bias));
        let product = self.node("MatMul", &[x, &weight]);
        self.node("Add", &[&product, &bias])
    }

    /// Adds the length of `axis` of `x`, as a vector with one value.
    pub fn length(&mut self, x: &str, axis: i64) -> String {
        let shape = self.node("Shape", &[x]);
        let axis = self.integers(&[axis]);
        self.node("Gather", &[&shape, &axis])
    }

    /// Selects the first of the steps of `x`, (N, time, D).
    pub fn first_step(&mut self, x: &str) -> String {
        let (zero, axis) = (self.integers(&[0]), self.integers(&[1]));
        let step = self.node_with("Gather", &[x, &zero], vec![Attribute::int("axis", 1)]);
        self.node("Squeeze", &[&step, &axis])
    }

    /// Adds the concatenation of `values` over `axis`.
    pub fn concatenate(&mut self, values: &[&str], axis: i64) -> String {
        self.node_with("Concat", values, vec![Attribute::int("axis", axis)])
    }

    /// Adds the scores of logits: softmax for single-label tasks, sigmoid for multi-label tasks.
    pub fn scores(&mut self, logits: &str, task: Task) -> String {
        match task {
            Task::SingleLabel => self.softmax(logits),
            Task::MultiLabel => self.node("Sigmoid", &[logits]),
        }
    }

    /// Adds a TreeEnsembleRegressor of the domain ai.onnx.ml for `x` (N, D).
    pub fn tree_ensemble(&mut self, x: &str, attributes: Vec<Attribute>) -> String {
        let name = format!("trees.{}", self.graph.node_count());
        self.graph.ml_node("TreeEnsembleRegressor", &[x], &name, attributes);
        name
    }

    /// Adds batch normalization by running statistics. `parameters` are weight, bias, mean and variance.
    pub fn batch_norm(&mut self, x: &str, parameters: [&str; 4], epsilon: f64) -> String {
        let [weight, bias, mean, variance] = parameters;
        let epsilon = Attribute::float("epsilon", epsilon as f32);
        self.node_with("BatchNormalization", &[x, weight, bias, mean, variance], vec![epsilon])
    }

    /// Adds the Gaussian error linear unit, x/2 · (1 + erf(x/√2)).
    pub fn gelu(&mut self, x: &str) -> String {
        let sqrt_2 = self.scalar(std::f32::consts::SQRT_2);
        let one = self.scalar(1.0);
        let half = self.scalar(0.5);
        let scaled = self.node("Div", &[x, &sqrt_2]);
        let erf = self.node("Erf", &[&scaled]);
        let sum = self.node("Add", &[&erf, &one]);
        let product = self.node("Mul", &[x, &sum]);
        self.node("Mul", &[&product, &half])
    }

    /// Permutes the axes of `x`: axis i of the result is axis `axes[i]` of `x`.
    pub fn transpose(&mut self, x: &str, axes: &[usize]) -> String {
        self.node_with("Transpose", &[x], vec![Attribute::ints("perm", axes)])
    }

    /// Reshapes `x`. A length of 0 copies the length of the same axis of `x`.
    pub fn reshape(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.integers(shape);
        self.node("Reshape", &[x, &shape])
    }

    /// Adds layer normalization over the last axis.
    pub fn layer_norm(&mut self, x: &str, weight: &str, bias: &str, epsilon: f64) -> String {
        let attributes = vec![Attribute::int("axis", -1), Attribute::float("epsilon", epsilon as f32)];
        self.node_with("LayerNormalization", &[x, weight, bias], attributes)
    }

    /// Adds a bidirectional LSTM over `x` (time, N, D) with the weights W, R and B, and returns its hidden states
    /// (time, 2, N, hidden).
    pub fn bidirectional_lstm(&mut self, x: &str, [w, r, b]: [&str; 3], hidden: usize) -> String {
        let attributes =
            vec![Attribute::string("direction", "bidirectional"), Attribute::int("hidden_size", hidden as i64)];
        self.node_with("LSTM", &[x, w, r, b], attributes)
    }

    /// Pads `x` (N, time, D) with zeros at the start, to `length` steps.
    pub fn pad_steps_in_front(&mut self, x: &str, length: usize) -> String {
        let time = self.length(x, 1);
        let length = self.integers(&[length as i64]);
        let missing = self.node("Sub", &[&length, &time]);
        let (zero, zeros) = (self.integers(&[0]), self.integers(&[0, 0, 0, 0]));
        let pads = self.concatenate(&[&zero, &missing, &zeros], 0);
        self.node("Pad", &[x, &pads])
    }

    /// Casts `x` to f64.
    pub fn double(&mut self, x: &str) -> String {
        self.node_with("Cast", &[x], vec![Attribute::int("to", DOUBLE.into())])
    }

    /// Casts `x` to f32.
    pub fn single(&mut self, x: &str) -> String {
        self.node_with("Cast", &[x], vec![Attribute::int("to", FLOAT.into())])
    }

    /// Adds the indices of the `count` lowest values of each row of `x`, in ascending order of value. Ties: lower index
    /// first.
    pub fn lowest(&mut self, x: &str, count: usize) -> String {
        let count = self.integers(&[count as i64]);
        let name = format!("topk.{}", self.graph.node_count());
        let (values, indices) = (format!("{name}.values"), format!("{name}.indices"));
        let attributes = vec![Attribute::int("largest", 0), Attribute::int("sorted", 1), Attribute::int("axis", 1)];
        self.graph.node_with_outputs(&name, "TopK", &[x, &count], &[&values, &indices], attributes);
        indices
    }

    fn node_with(&mut self, operator: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let name = format!("{}.{}", operator.to_lowercase(), self.graph.node_count());
        self.graph.node(operator, inputs, &name, attributes);
        name
    }
}
