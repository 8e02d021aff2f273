//! Small networks that together use every operator of the plan builder.

use super::noise;
use crate::models::onnx::proto::{Attribute, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfo};

/// Height and width of the input.
pub(super) const SIZE: usize = 8;

fn node(op_type: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> NodeProto {
    let input = inputs.iter().map(|name| name.to_string()).collect();
    let (output, op_type) = (output.to_string(), op_type.into());
    NodeProto { input, output: vec![output.clone()], name: output, op_type, attribute, ..NodeProto::default() }
}

/// Returns a convolutional network.
pub(super) fn convolutional() -> ModelProto {
    let ints = |name: &str, values: &[usize]| Attribute::ints(name, values);
    let node_list = vec![
        node("Conv", &["x", "stem.weight", "stem.bias"], "stem", vec![ints("pads", &[1; 4]), ints("strides", &[1, 1])]),
        node("BatchNormalization", &["stem", "c", "c", "c", "ones"], "bn", vec![Attribute::float("epsilon", 1e-5)]),
        node("Relu", &["bn"], "relu", vec![]),
        node("Conv", &["relu", "point.weight"], "expand", vec![]),
        node("Clip", &["expand", "zero", "six"], "clip", vec![]),
        node("Conv", &["clip", "depthwise.weight"], "filter", vec![Attribute::int("group", 16), ints("pads", &[1; 4])]),
        node("Conv", &["filter", "point.weight"], "project", vec![]),
        node("Add", &["project", "relu"], "residual", vec![]),
        node("Transpose", &["residual"], "last", vec![ints("perm", &[0, 2, 3, 1])]),
        node("LayerNormalization", &["last", "c", "c"], "norm", vec![Attribute::int("axis", -1)]),
        node("MatMul", &["norm", "matrix"], "product", vec![]),
        node("Add", &["product", "c"], "linear", vec![]),
        node("Div", &["linear", "sqrt2"], "gelu.div", vec![]),
        node("Erf", &["gelu.div"], "gelu.erf", vec![]),
        node("Add", &["gelu.erf", "one"], "gelu.add", vec![]),
        node("Mul", &["linear", "gelu.add"], "gelu.mul", vec![]),
        node("Mul", &["gelu.mul", "half"], "gelu", vec![]),
        node("Mul", &["gelu", "c"], "scale", vec![]),
        node("Transpose", &["scale"], "first", vec![ints("perm", &[0, 3, 1, 2])]),
        node("GlobalAveragePool", &["first"], "mean", vec![]),
        node("Flatten", &["mean"], "embedding", vec![Attribute::int("axis", 1)]),
    ];
    let initializer = vec![
        tensor("stem.weight", &[16, 3, 3, 3]),
        tensor("stem.bias", &[16]),
        tensor("c", &[16]),
        TensorProto::floats("ones", &[16], &[1.0; 16]),
        tensor("point.weight", &[16, 16, 1, 1]),
        tensor("depthwise.weight", &[16, 1, 3, 3]),
        tensor("matrix", &[16, 16]),
        scalar("zero", 0.0),
        scalar("six", 6.0),
        scalar("one", 1.0),
        scalar("half", 0.5),
        scalar("sqrt2", std::f32::consts::SQRT_2),
    ];
    model(node_list, initializer)
}

/// Returns a vision transformer with one layer of two heads, and max pooling of the patches.
pub(super) fn transformer() -> ModelProto {
    let ints = |name: &str, values: &[usize]| Attribute::ints(name, values);
    let split = |name: &str, perm: [usize; 4]| {
        let heads = format!("{name}.heads");
        [
            node("Reshape", &[&format!("{name}.add"), "split"], &heads, vec![]),
            node("Transpose", &[&heads], &format!("{name}.t"), vec![ints("perm", &perm)]),
        ]
    };
    let linear = |name: &str, x: &str| {
        let product = format!("{name}.matmul");
        [
            node("MatMul", &[x, "matrix"], &product, vec![]),
            node("Add", &[&product, "c"], &format!("{name}.add"), vec![]),
        ]
    };
    let axis = |axis: i64| vec![Attribute::int("axis", axis)];
    let pool = vec![ints("kernel_shape", &[3, 3]), ints("strides", &[1, 1]), ints("pads", &[1; 4])];
    let node_list = [
        vec![
            node("Conv", &["x", "patch.weight"], "patch", vec![ints("strides", &[2, 2])]),
            node("MaxPool", &["patch"], "pool", pool),
            node("Reshape", &["pool", "flat"], "flattened", vec![]),
            node("Transpose", &["flattened"], "tokens", vec![ints("perm", &[0, 2, 1])]),
            node("Pad", &["tokens", "pads"], "padded", vec![]),
            node("Add", &["padded", "table"], "embedded", vec![]),
            node("LayerNormalization", &["embedded", "c", "c"], "norm", axis(-1)),
        ],
        ["q", "k", "v"].into_iter().flat_map(|name| linear(name, "norm")).collect(),
        [split("q", [0, 2, 1, 3]), split("k", [0, 2, 3, 1]), split("v", [0, 2, 1, 3])].concat(),
        vec![
            node("Mul", &["q.t", "factor"], "q.scaled", vec![]),
            node("MatMul", &["q.scaled", "k.t"], "scores", vec![]),
            node("Softmax", &["scores"], "weights", axis(-1)),
            node("MatMul", &["weights", "v.t"], "mixed", vec![]),
            node("Transpose", &["mixed"], "mixed.t", vec![ints("perm", &[0, 2, 1, 3])]),
            node("Reshape", &["mixed.t", "merge"], "attention", vec![]),
        ],
        linear("out", "attention").to_vec(),
        vec![node("Add", &["out.add", "norm"], "residual", vec![])],
        linear("fc", "residual").to_vec(),
        vec![
            node("Mul", &["fc.add", "quick_gelu"], "gelu.mul", vec![]),
            node("Sigmoid", &["gelu.mul"], "gelu.gate", vec![]),
            node("Mul", &["fc.add", "gelu.gate"], "gelu", vec![]),
            node("Gather", &["gelu", "index"], "first", axis(1)),
            node("MatMul", &["first", "matrix"], "embedding", vec![]),
        ],
    ];
    let positions = SIZE * SIZE / 4;
    let initializer = vec![
        tensor("patch.weight", &[16, 3, 2, 2]),
        tensor("c", &[16]),
        tensor("table", &[positions + 1, 16]),
        tensor("matrix", &[16, 16]),
        scalar("factor", 8f32.sqrt().recip()),
        scalar("quick_gelu", 1.702),
        TensorProto::integers("flat", &[0, 0, -1]),
        TensorProto::integers("pads", &[0, 1, 0, 0, 0, 0]),
        TensorProto::integers("split", &[0, 0, 2, 8]),
        TensorProto::integers("merge", &[0, 0, 16]),
        TensorProto::integer("index", 0),
    ];
    model(node_list.concat(), initializer)
}

fn tensor(name: &str, shape: &[usize]) -> TensorProto {
    TensorProto::floats(name, shape, &noise(shape.iter().product(), 1))
}

fn scalar(name: &str, value: f32) -> TensorProto {
    TensorProto::floats(name, &[], &[value])
}

/// Returns a model of the graph from `x` to `embedding`.
fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        node,
        name: "test".into(),
        initializer,
        input: vec![ValueInfo::batched("x", &[3, SIZE as i64, SIZE as i64])],
        output: vec![ValueInfo::batched("embedding", &[16])],
    };
    ModelProto { graph: Some(graph), ..ModelProto::default() }
}
