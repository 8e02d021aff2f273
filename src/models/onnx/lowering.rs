//! Lowering of layers to ONNX nodes.
//!
//! The names of intermediate values determine the bytes of a file, and so its hash. They must not change.

use super::builder::GraphBuilder;
use super::operation::Operation;
use super::proto::{self, Attribute, TensorProto};

/// Lowers layers to the nodes of a graph.
#[derive(Default)]
pub(super) struct Lowering {
    pub(super) graph: GraphBuilder,
}

impl Lowering {
    fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) {
        self.graph.node(operator, inputs, output, attributes);
    }

    fn floats(&mut self, name: String, shape: &[usize], values: &[f32]) -> String {
        self.graph.initializer(TensorProto::floats(&name, shape, values))
    }

    /// A scalar that several nodes may share.
    fn scalar(&mut self, name: &str, value: f32) -> String {
        self.graph.shared_initializer(TensorProto::floats(name, &[], &[value]))
    }

    /// A list of integers: a shape, axes or indices.
    fn integers(&mut self, values: &[i64]) -> String {
        self.graph.shared_initializer(TensorProto::integers(&format!("i{values:?}"), values))
    }

    /// A scalar index, which removes the indexed axis.
    fn index(&mut self, value: i64) -> String {
        self.graph.shared_initializer(TensorProto::integer(&format!("i{value}"), value))
    }

    /// Adds the nodes of a layer with the given input and output names.
    pub(super) fn layer(&mut self, operation: Operation, inputs: &[&str], output: &str) {
        let derived = |suffix: &str| format!("{output}.{suffix}");
        match operation {
            Operation::Input => unreachable!("the input is not a node"),
            Operation::Convolution { shape, weight, bias, stride, padding, dilation, groups } => {
                let kernel: Vec<usize> = shape[2..].to_vec();
                let weight = self.floats(derived("weight"), &shape, &weight);
                let bias = bias.map(|bias| self.floats(derived("bias"), &[bias.len()], &bias));
                let mut attributes = vec![
                    Attribute::ints("kernel_shape", &kernel),
                    Attribute::ints("strides", &stride),
                    Attribute::ints("pads", &pads(&padding)),
                    Attribute::int("group", groups as i64),
                ];
                if dilation.iter().any(|d| *d != 1) {
                    attributes.push(Attribute::ints("dilations", &dilation));
                }
                let inputs: Vec<&str> = [inputs[0], &weight].into_iter().chain(bias.as_deref()).collect();
                self.node("Conv", &inputs, output, attributes);
            }
            Operation::BatchNorm { parameters, epsilon } => {
                let names = ["scale", "shift", "mean", "variance"].map(derived);
                for (name, values) in names.iter().zip(&parameters) {
                    self.floats(name.clone(), &[values.len()], values);
                }
                let inputs: Vec<&str> = std::iter::once(inputs[0]).chain(names.iter().map(String::as_str)).collect();
                self.node("BatchNormalization", &inputs, output, vec![Attribute::float("epsilon", epsilon as f32)]);
            }
            Operation::LayerNorm { scale, shift, epsilon } => {
                let scale = self.floats(derived("scale"), &[scale.len()], &scale);
                let shift = self.floats(derived("shift"), &[shift.len()], &shift);
                let attributes = vec![Attribute::int("axis", -1), Attribute::float("epsilon", epsilon as f32)];
                self.node("LayerNormalization", &[inputs[0], &scale, &shift], output, attributes);
            }
            Operation::Linear { inputs: fan_in, weight, bias } => {
                let outputs = weight.len() / fan_in;
                let mut transposed = vec![0.0; weight.len()];
                for (row, filter) in weight.chunks(fan_in).enumerate() {
                    for (column, w) in filter.iter().enumerate() {
                        transposed[column * outputs + row] = *w;
                    }
                }
                let weight = self.floats(derived("weight"), &[fan_in, outputs], &transposed);
                let Some(bias) = bias else { return self.node("MatMul", &[inputs[0], &weight], output, vec![]) };
                let bias = self.floats(derived("bias"), &[outputs], &bias);
                let product = derived("product");
                self.node("MatMul", &[inputs[0], &weight], &product, vec![]);
                self.node("Add", &[&product, &bias], output, vec![]);
            }
            Operation::Scale(scale) => {
                let scale = self.floats(derived("scale"), &[scale.len()], &scale);
                self.node("Mul", &[inputs[0], &scale], output, vec![]);
            }
            Operation::Relu => self.node("Relu", inputs, output, vec![]),
            Operation::Relu6 => {
                let (low, high) = (self.scalar("zero", 0.0), self.scalar("six", 6.0));
                self.node("Clip", &[inputs[0], &low, &high], output, vec![]);
            }
            Operation::Gelu => {
                // ONNX Runtime and OpenVINO fuse this pattern into one kernel.
                let root = self.scalar("sqrt_2", std::f32::consts::SQRT_2);
                let (one, half) = (self.scalar("one", 1.0), self.scalar("half", 0.5));
                let [divided, erf, sum, product] = ["divided", "erf", "sum", "product"].map(derived);
                self.node("Div", &[inputs[0], &root], &divided, vec![]);
                self.node("Erf", &[&divided], &erf, vec![]);
                self.node("Add", &[&erf, &one], &sum, vec![]);
                self.node("Mul", &[inputs[0], &sum], &product, vec![]);
                self.node("Mul", &[&product, &half], output, vec![]);
            }
            Operation::Add => self.node("Add", inputs, output, vec![]),
            Operation::Permute(axes) => self.node("Transpose", inputs, output, vec![Attribute::ints("perm", &axes)]),
            Operation::GlobalAverage => {
                let pooled = derived("pooled");
                self.node("GlobalAveragePool", inputs, &pooled, vec![]);
                self.node("Flatten", &[&pooled], output, vec![Attribute::int("axis", 1)]);
            }
            Operation::QuickGelu => {
                let factor = self.scalar("quick_gelu", 1.702);
                let [scaled, gate] = ["scaled", "gate"].map(derived);
                self.node("Mul", &[inputs[0], &factor], &scaled, vec![]);
                self.node("Sigmoid", &[&scaled], &gate, vec![]);
                self.node("Mul", &[inputs[0], &gate], output, vec![]);
            }
            Operation::TokenEmbedding { table, tokens } => {
                let table = self.floats(derived("table"), &[tokens, table.len() / tokens], &table);
                let (pads, padded) = (self.integers(&[0, 1, 0, 0, 0, 0]), derived("room"));
                self.node("Pad", &[inputs[0], &pads], &padded, vec![]);
                self.node("Add", &[&padded, &table], output, vec![]);
            }
            Operation::FirstToken => {
                let first = self.index(0);
                self.node("Gather", &[inputs[0], &first], output, vec![Attribute::int("axis", 1)]);
            }
            Operation::Attention { heads, head_channels } => {
                self.attention([inputs[0], inputs[1], inputs[2]], output, heads, head_channels);
            }
            Operation::Mean(axes) => {
                let axes: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
                let axes = self.integers(&axes);
                self.node("ReduceMean", &[inputs[0], &axes], output, vec![Attribute::int("keepdims", 0)]);
            }
            Operation::AveragePool(kernel) => {
                let attributes = vec![Attribute::ints("kernel_shape", &kernel), Attribute::ints("strides", &kernel)];
                self.node("AveragePool", inputs, output, attributes);
            }
            Operation::MaxPool { kernel, stride, padding } => {
                let attributes = vec![
                    Attribute::ints("kernel_shape", &kernel),
                    Attribute::ints("strides", &stride),
                    Attribute::ints("pads", &pads(&padding)),
                ];
                self.node("MaxPool", inputs, output, attributes);
            }
            Operation::Flatten(axis) => {
                let mut shape = vec![0; axis];
                shape.push(-1);
                let shape = self.integers(&shape);
                self.node("Reshape", &[inputs[0], &shape], output, vec![]);
            }
            Operation::Concatenate(axis) => {
                self.node("Concat", inputs, output, vec![Attribute::int("axis", axis as i64)]);
            }
            Operation::NeighborSimilarity { frames, window } => {
                self.neighbor_similarity(inputs[0], output, frames as i64, window as i64);
            }
            Operation::ColorHistogram { levels } => self.color_histogram(inputs[0], output, levels),
        }
    }

    fn attention(&mut self, qkv: [&str; 3], output: &str, heads: usize, head_channels: usize) {
        let derived = |suffix: &str| format!("{output}.{suffix}");
        let split = self.integers(&[0, 0, heads as i64, head_channels as i64]);
        // (batch, head, token, channel); the key is transposed.
        let permutations = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]];
        let [query, key, value] = ["query", "key", "value"].map(derived);
        for ((x, name), permutation) in qkv.iter().zip([&query, &key, &value]).zip(permutations) {
            let heads = format!("{name}.heads");
            self.node("Reshape", &[x, &split], &heads, vec![]);
            self.node("Transpose", &[&heads], name, vec![Attribute::ints("perm", &permutation)]);
        }
        let factor = self.scalar(&format!("1/sqrt({head_channels})"), (head_channels as f32).sqrt().recip());
        let merge = self.integers(&[0, 0, (heads * head_channels) as i64]);
        let [scaled, products, weights, mixed, tokens] =
            ["scaled", "products", "shares", "mixed", "tokens"].map(derived);
        self.node("Mul", &[&query, &factor], &scaled, vec![]);
        self.node("MatMul", &[&scaled, &key], &products, vec![]);
        self.node("Softmax", &[&products], &weights, vec![Attribute::int("axis", -1)]);
        self.node("MatMul", &[&weights, &value], &mixed, vec![]);
        self.node("Transpose", &[&mixed], &tokens, vec![Attribute::ints("perm", &permutations[0])]);
        self.node("Reshape", &[&tokens, &merge], output, vec![]);
    }

    /// Extracts a diagonal band of the matrix of all cosines: element (t, t + j) of the padded matrix becomes element
    /// (t, j). The row-major data is reinterpreted with rows that are one element longer, which shifts row t by t.
    fn neighbor_similarity(&mut self, x: &str, output: &str, frames: i64, window: i64) {
        let derived = |suffix: &str| format!("{output}.{suffix}");
        let (last, half) = (self.integers(&[-1]), window / 2);
        let tiny = self.scalar("1e-12", 1e-12);
        let [norm, length, unit, transposed, cosines] = ["norm", "length", "unit", "turned", "cosines"].map(derived);
        self.node("ReduceL2", &[x, &last], &norm, vec![Attribute::int("keepdims", 1)]);
        self.node("Max", &[&norm, &tiny], &length, vec![]);
        self.node("Div", &[x, &length], &unit, vec![]);
        self.node("Transpose", &[&unit], &transposed, vec![Attribute::ints("perm", &[0, 2, 1])]);
        self.node("MatMul", &[&unit, &transposed], &cosines, vec![]);
        let [padded, row, extended, skewed] = ["padded", "row", "longer", "skewed"].map(derived);
        let sides = self.integers(&[0, 0, half, 0, 0, half]);
        let (one_row, end) = (self.integers(&[0, -1]), self.integers(&[0, 0, 0, frames]));
        let rows = self.integers(&[0, frames, frames + 2 * half + 1]);
        self.node("Pad", &[&cosines, &sides], &padded, vec![]);
        self.node("Reshape", &[&padded, &one_row], &row, vec![]);
        self.node("Pad", &[&row, &end], &extended, vec![]);
        self.node("Reshape", &[&extended, &rows], &skewed, vec![]);
        let (from, to, axis) = (self.integers(&[0]), self.integers(&[window]), self.integers(&[2]));
        self.node("Slice", &[&skewed, &from, &to, &axis], output, vec![]);
    }

    fn color_histogram(&mut self, x: &str, output: &str, levels: usize) {
        let derived = |suffix: &str| format!("{output}.{suffix}");
        let bins = levels as f32;
        // An integer v in 0..=255 is given as v / 255. Half a value is added so that rounding cannot reach the bin below.
        let (factor, half) = (self.scalar("levels", bins * 255.0 / 256.0), self.scalar("half_value", bins / 512.0));
        let (zero, one, top) = (self.scalar("zero", 0.0), self.scalar("one", 1.0), self.scalar("top", bins - 1.0));
        let weights = self.floats(derived("weights"), &[3, 1, 1, 1], &[bins * bins, bins, 1.0]);
        let [scaled, shifted, floor, steps, weighted] =
            ["scaled", "shifted", "floor", "steps", "weighted"].map(derived);
        self.node("Mul", &[x, &factor], &scaled, vec![]);
        self.node("Add", &[&scaled, &half], &shifted, vec![]);
        self.node("Floor", &[&shifted], &floor, vec![]);
        self.node("Clip", &[&floor, &zero, &top], &steps, vec![]);
        self.node("Mul", &[&steps, &weights], &weighted, vec![]);
        let [colors, flat, indices] = ["colours", "flat", "indices"].map(derived);
        let (channel, per_frame) = (self.integers(&[1]), self.integers(&[0, 0, -1]));
        self.node("ReduceSum", &[&weighted, &channel], &colors, vec![Attribute::int("keepdims", 0)]);
        self.node("Reshape", &[&colors, &per_frame], &flat, vec![]);
        self.node("Cast", &[&flat], &indices, vec![Attribute::int("to", i64::from(proto::INT64))]);
        let [shape, frames, size, ones, empty] = ["shape", "frames", "bins", "ones", "empty"].map(derived);
        let count = self.integers(&[(levels * levels * levels) as i64]);
        self.node("Shape", &[&indices], &shape, vec![]);
        self.node("Shape", &[&indices], &frames, vec![Attribute::int("end", 2)]);
        self.node("Concat", &[&frames, &count], &size, vec![Attribute::int("axis", 0)]);
        self.node("Expand", &[&one, &shape], &ones, vec![]);
        self.node("Expand", &[&zero, &size], &empty, vec![]);
        let attributes = vec![Attribute::int("axis", 2), Attribute::string("reduction", "add")];
        self.node("ScatterElements", &[&empty, &indices, &ones], output, attributes);
    }
}

/// Converts padding per axis to the layout of ONNX: all starts, then all ends.
fn pads(padding: &[(usize, usize)]) -> Vec<usize> {
    padding.iter().map(|p| p.0).chain(padding.iter().map(|p| p.1)).collect()
}
