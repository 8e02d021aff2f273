//! Malformed ONNX files are errors, never panics or huge allocations.

use std::io::Write;

use proptest::prelude::*;
use prost::Message;

use super::super::isa::Isa;
use super::super::onnx_reader::OnnxGraph;
use super::super::plan::{Plan, Workspace};
use super::noise;
use crate::models::Precision;
use crate::models::onnx::proto::{Attribute, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfo};
use crate::models::runtime::lane::SessionOptions;

const SIZE: usize = 8;

fn node(op_type: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> NodeProto {
    let input = inputs.iter().map(|name| name.to_string()).collect();
    NodeProto { input, output: vec![output.into()], name: output.into(), op_type: op_type.into(), attribute }
}

/// A network that uses every operator.
fn model() -> ModelProto {
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
    let tensor = |name: &str, shape: &[usize]| TensorProto::floats(name, shape, &noise(shape.iter().product(), 1));
    let scalar = |name: &str, value: f32| TensorProto::floats(name, &[], &[value]);
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
    let graph = GraphProto {
        node: node_list,
        name: "test".into(),
        initializer,
        input: vec![ValueInfo::batched("x", &[3, SIZE as i64, SIZE as i64])],
        output: vec![ValueInfo::batched("embedding", &[16])],
    };
    ModelProto { graph: Some(graph), ..ModelProto::default() }
}

/// Plans and runs a file; returns the error, if any.
fn load_and_run(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let precision = Precision::F32;
    let options = SessionOptions { item: vec![3, SIZE, SIZE], dim: 16, batch: 1, threads: 1, output: None, precision };
    let graph = OnnxGraph::open(file.path()).map_err(|error| error.to_string())?;
    let isa = Isa::available().last().unwrap();
    let plan = Plan::new(&graph, &options, isa).map_err(|error| format!("{error:?}"))?;
    Ok(plan.run(&noise(options.input_len(), 2), 1, None, &mut Workspace::default()).to_vec())
}

/// Asserts that a modified model is rejected.
fn assert_rejected(what: &str, modify: impl FnOnce(&mut GraphProto)) {
    let mut model = model();
    modify(model.graph.as_mut().unwrap());
    assert!(load_and_run(&model.encode_to_vec()).is_err(), "{what} is accepted");
}

fn initializer<'a>(graph: &'a mut GraphProto, name: &str) -> &'a mut TensorProto {
    graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap()
}

fn set_ints(node: &mut NodeProto, name: &str, values: &[i64]) {
    node.attribute.retain(|attribute| attribute.name != name);
    node.attribute.push(Attribute { ints: values.to_vec(), ..Attribute::ints(name, &[]) });
}

#[test]
fn valid_model_is_accepted() {
    let embedding = load_and_run(&model().encode_to_vec()).unwrap();
    assert!(embedding.len() == 16 && embedding.iter().all(|x| x.is_finite()));
}

#[test]
fn nodes_without_inputs_outputs_or_known_operator_are_rejected() {
    for i in 0..model().graph.unwrap().node.len() {
        assert_rejected(&format!("node {i} without inputs"), |graph| graph.node[i].input.clear());
        assert_rejected(&format!("node {i} with empty names"), |graph| graph.node[i].input.fill(String::new()));
        assert_rejected(&format!("node {i} without outputs"), |graph| graph.node[i].output.clear());
        assert_rejected(&format!("node {i} with unknown input"), |graph| graph.node[i].input[0] = "?".into());
        assert_rejected(&format!("node {i} with unknown operator"), |graph| graph.node[i].op_type = "?".into());
        assert_rejected(&format!("missing node {i}"), |graph| drop(graph.node.remove(i)));
    }
    assert_rejected("a graph without nodes", |graph| graph.node.clear());
    assert_rejected("a graph without inputs", |graph| graph.input.clear());
    assert_rejected("a graph without outputs", |graph| graph.output.clear());
    assert_rejected("reversed nodes", |graph| graph.node.reverse());
}

#[test]
fn invalid_convolution_attributes_are_rejected() {
    let invalid = [0, -1, i64::MIN, i64::MAX, 1 << 32];
    for value in invalid {
        assert_rejected("stride", |graph| set_ints(&mut graph.node[0], "strides", &[1, value]));
        assert_rejected("group", |graph| graph.node[5].attribute[0].i = Some(value));
    }
    for value in &invalid[1..] {
        assert_rejected("padding", |graph| set_ints(&mut graph.node[0], "pads", &[1, *value, 1, 1]));
        assert_rejected("padding", |graph| set_ints(&mut graph.node[0], "pads", &[1, 1, 1, *value]));
    }
    for count in [1, 3, 5, 7] {
        assert_rejected("pads count", |graph| set_ints(&mut graph.node[0], "pads", &vec![1; count]));
        assert_rejected("strides count", |graph| set_ints(&mut graph.node[0], "strides", &vec![1; count]));
    }
    assert_rejected("dilation", |graph| set_ints(&mut graph.node[0], "dilations", &[2, 2]));
    assert_rejected("permutation", |graph| set_ints(&mut graph.node[8], "perm", &[0, 1]));
    assert_rejected("axis", |graph| set_ints(&mut graph.node[9], "axis", &[7]));
}

#[test]
fn invalid_tensors_are_rejected() {
    let names: Vec<_> = model().graph.unwrap().initializer.into_iter().map(|tensor| tensor.name).collect();
    for name in &names {
        assert_rejected(&format!("missing {name}"), |graph| graph.initializer.retain(|tensor| tensor.name != *name));
        assert_rejected(&format!("{name} as i64"), |graph| initializer(graph, name).data_type = 7);
        assert_rejected(&format!("short {name}"), |graph| {
            initializer(graph, name).raw_data.pop();
        });
        assert_rejected(&format!("long {name}"), |graph| initializer(graph, name).raw_data.push(0));
        assert_rejected(&format!("empty {name}"), |graph| initializer(graph, name).raw_data.clear());
        for axis in [0, -1, i64::MIN, i64::MAX, 1 << 62] {
            assert_rejected(&format!("{name} with axis {axis}"), |graph| initializer(graph, name).dims.push(axis));
        }
        assert_rejected(&format!("{name} with overflowing shape"), |graph| {
            initializer(graph, name).dims = vec![1 << 32, 1 << 32, 4];
        });
        assert_rejected(&format!("{name} without elements"), |graph| {
            let tensor = initializer(graph, name);
            tensor.dims = vec![i64::MAX, 0];
            tensor.raw_data.clear();
        });
    }
    for name in ["stem.weight", "point.weight", "depthwise.weight", "matrix"] {
        assert_rejected(&format!("flat {name}"), |graph| {
            let tensor = initializer(graph, name);
            tensor.dims = vec![tensor.dims.iter().product()];
        });
    }
    for name in ["stem.weight", "point.weight", "depthwise.weight"] {
        assert_rejected(&format!("reshaped {name}"), |graph| initializer(graph, name).dims.rotate_left(1));
    }
    assert_rejected("a kernel larger than the input", |graph| {
        *initializer(graph, "stem.weight") = TensorProto::floats("stem.weight", &[16, 3, 1, 11], &[0.0; 528]);
    });
}

#[test]
fn invalid_lengths_are_rejected() {
    let bytes = model().encode_to_vec();
    for length in (0..bytes.len()).step_by(7) {
        assert!(load_and_run(&bytes[..length]).is_err(), "a file cut at {length} is accepted");
    }
    // The graph with a length beyond the file, and with the largest possible one.
    for length in
        [&[0xff, 0xff, 0xff, 0x7f][..], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
    {
        assert!(load_and_run(&[&[0x3a], length, &bytes].concat()).is_err());
    }
}

/// A replacement of `.1` bytes at `.0` by `.2`; positions are relative to the length of the file.
fn any_edit() -> impl Strategy<Value = (f64, usize, Vec<u8>)> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    (0.0..1.0f64, 0..6usize, prop::collection::vec(byte, 0..6))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_edits_do_not_panic(edits in prop::collection::vec(any_edit(), 1..4)) {
        // Without the raw data, so that edits change the structure.
        let mut bytes = model().encode_to_vec();
        for (position, removed, inserted) in edits {
            let start = (position * bytes.len() as f64) as usize;
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, inserted);
        }
        let _ = load_and_run(&bytes);
    }

    #[test]
    fn random_attributes_and_shapes_do_not_panic(
        index in 0..21usize,
        attribute in prop::sample::select(&["strides", "pads", "dilations", "group", "perm", "axis"][..]),
        values in prop::collection::vec(prop_oneof![-2..20i64, any::<i64>()], 0..8),
        tensor in 0..12usize,
        dims in prop::collection::vec(1..20i64, 0..6),
    ) {
        let mut model = model();
        let graph = model.graph.as_mut().unwrap();
        set_ints(&mut graph.node[index], attribute, &values);
        let _ = load_and_run(&model.encode_to_vec());
        // A consistent tensor of a different shape.
        let graph = model.graph.as_mut().unwrap();
        let shape: Vec<usize> = dims.iter().map(|&axis| axis as usize).collect();
        let len: usize = shape.iter().product();
        if len <= 1 << 16 {
            let name = graph.initializer[tensor].name.clone();
            graph.initializer[tensor] = TensorProto::floats(&name, &shape, &noise(len, 1));
            let _ = load_and_run(&model.encode_to_vec());
        }
    }
}
