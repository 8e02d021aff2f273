//! Malformed ONNX files are errors, never panics or huge allocations.

use std::io::Write;

use proptest::prelude::*;
use prost::Message;

use super::super::isa::Isa;
use super::super::onnx_reader::OnnxGraph;
use super::super::plan::{Item, Plan, Workspace};
use super::models::{SIZE, convolutional, transformer};
use super::noise;
use crate::models::onnx::proto::{Attribute, FLOAT, GraphProto, INT64, ModelProto, NodeProto, TensorProto};
use crate::models::runtime::lane::SessionOptions;

/// Creates a valid model.
type Model = fn() -> ModelProto;

const MODELS: [Model; 2] = [convolutional, transformer];

/// Plans and runs a file; returns the error, if any.
fn load_and_run(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let options = SessionOptions::for_floats(vec![3, SIZE, SIZE], 16, 1);
    let graph = OnnxGraph::open(file.path()).map_err(|error| error.to_string())?;
    let isa = Isa::available().last().unwrap();
    let plan = Plan::new(&graph, &options, isa).map_err(|error| format!("{error:?}"))?;
    Ok(plan.run(Item::Floats(&noise(options.item_len(), 2)), 1, None, &mut Workspace::default()).to_vec())
}

/// Asserts that a modified model is rejected; returns the message.
fn assert_rejected(model: Model, what: &str, modify: impl FnOnce(&mut GraphProto)) -> String {
    let mut model = model();
    modify(model.graph.as_mut().unwrap());
    let Err(message) = load_and_run(&model.encode_to_vec()) else { panic!("{what} is accepted") };
    message
}

/// Returns the only node with this output.
fn node<'a>(graph: &'a mut GraphProto, output: &str) -> &'a mut NodeProto {
    graph.node.iter_mut().find(|node| node.output == [output]).unwrap()
}

fn initializer<'a>(graph: &'a mut GraphProto, name: &str) -> &'a mut TensorProto {
    graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap()
}

fn set_ints(node: &mut NodeProto, name: &str, values: &[i64]) {
    node.attribute.retain(|attribute| attribute.name != name);
    node.attribute.push(Attribute { ints: values.to_vec(), ..Attribute::ints(name, &[]) });
}

#[test]
fn valid_models_are_accepted() {
    for model in MODELS {
        let embedding = load_and_run(&model().encode_to_vec()).unwrap();
        assert!(embedding.len() == 16 && embedding.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn nodes_without_inputs_outputs_or_known_operator_are_rejected() {
    for model in MODELS {
        for i in 0..model().graph.unwrap().node.len() {
            let reject = |what: &str, modify: &dyn Fn(&mut NodeProto)| {
                assert_rejected(model, &format!("node {i} {what}"), |graph| modify(&mut graph.node[i]));
            };
            reject("without inputs", &|node| node.input.clear());
            reject("with empty names", &|node| node.input.fill(String::new()));
            reject("without outputs", &|node| node.output.clear());
            reject("with unknown input", &|node| node.input[0] = "?".into());
            reject("with unknown operator", &|node| node.op_type = "?".into());
            assert_rejected(model, &format!("missing node {i}"), |graph| drop(graph.node.remove(i)));
            assert_rejected(model, &format!("a graph cut after node {i}"), |graph| graph.node.truncate(i));
        }
        assert_rejected(model, "a graph without inputs", |graph| graph.input.clear());
        assert_rejected(model, "a graph without outputs", |graph| graph.output.clear());
        assert_rejected(model, "reversed nodes", |graph| graph.node.reverse());
    }
}

#[test]
fn invalid_convolution_attributes_are_rejected() {
    let reject = |what: &str, modify: &dyn Fn(&mut GraphProto)| drop(assert_rejected(convolutional, what, modify));
    let invalid = [0, -1, i64::MIN, i64::MAX, 1 << 32];
    for value in invalid {
        reject("stride", &|graph| set_ints(&mut graph.node[0], "strides", &[1, value]));
        reject("group", &|graph| graph.node[5].attribute[0].i = Some(value));
    }
    for value in &invalid[1..] {
        reject("padding", &|graph| set_ints(&mut graph.node[0], "pads", &[1, *value, 1, 1]));
        reject("padding", &|graph| set_ints(&mut graph.node[0], "pads", &[1, 1, 1, *value]));
    }
    for count in [1, 3, 5, 7] {
        reject("pads count", &|graph| set_ints(&mut graph.node[0], "pads", &vec![1; count]));
        reject("strides count", &|graph| set_ints(&mut graph.node[0], "strides", &vec![1; count]));
    }
    reject("dilation", &|graph| set_ints(&mut graph.node[0], "dilations", &[2, 2]));
    reject("permutation", &|graph| set_ints(&mut graph.node[8], "perm", &[0, 1]));
    reject("axis", &|graph| set_ints(&mut graph.node[9], "axis", &[7]));
}

#[test]
fn invalid_pooling_attributes_are_rejected() {
    let reject = |what: &str, modify: &dyn Fn(&mut NodeProto)| {
        assert_rejected(transformer, what, |graph| modify(node(graph, "pool")));
    };
    for value in [0, -1, i64::MIN, i64::MAX, 1 << 32] {
        reject("kernel size", &|node| set_ints(node, "kernel_shape", &[3, value]));
        reject("stride", &|node| set_ints(node, "strides", &[value, 1]));
    }
    for value in [-1, 3, i64::MAX] {
        reject("padding", &|node| set_ints(node, "pads", &[1, 1, value, 1]));
    }
    for count in [0, 1, 4] {
        reject("kernel axes", &|node| set_ints(node, "kernel_shape", &vec![3; count]));
    }
    reject("kernel larger than the input", &|node| set_ints(node, "kernel_shape", &[7, 7]));
    reject("dilation", &|node| set_ints(node, "dilations", &[2, 2]));
    reject("ceil_mode", &|node| node.attribute.push(Attribute::int("ceil_mode", 1)));
    reject("automatic padding", &|node| node.attribute.push(Attribute::string("auto_pad", "SAME_UPPER")));
    reject("indices", &|node| node.output.push("indices".into()));
}

#[test]
fn uses_of_transformer_operators_outside_their_patterns_are_rejected() {
    let reject = |message: &str, modify: &dyn Fn(&mut GraphProto)| {
        let found = assert_rejected(transformer, message, modify);
        assert!(found.contains(message), "{found:?} instead of {message:?}");
    };
    let not_attention = "Reshape into heads that is not part of an attention";
    for name in ["q.t", "k.t", "v.t", "mixed.t"] {
        reject(not_attention, &|graph| set_ints(node(graph, name), "perm", &[0, 1, 2, 3]));
    }
    reject(not_attention, &|graph| set_ints(node(graph, "weights"), "axis", &[1]));
    reject(not_attention, &|graph| node(graph, "scores").input.swap(0, 1));
    reject(not_attention, &|graph| node(graph, "mixed").input.swap(0, 1));
    reject(not_attention, &|graph| node(graph, "q.scaled").input[1] = "c".into());
    reject("is not an activation", &|graph| node(graph, "out.add").input[0] = "weights".into());
    for (heads, channels) in [(3, 8), (0, 16), (-1, -16), (i64::MAX, 2), (4, 8)] {
        reject("attention of 16 channels in", &|graph| {
            *initializer(graph, "split") = TensorProto::integers("split", &[0, 0, heads, channels]);
        });
    }
    reject("attention with a result of shape [0, 0, 8]", &|graph| {
        *initializer(graph, "merge") = TensorProto::integers("merge", &[0, 0, 8]);
    });
    // A key of another sequence length: the tokens before the class token is prepended.
    reject("sequences of different shapes", &|graph| node(graph, "k.matmul").input[0] = "tokens".into());

    reject("MatMul of two activations that is not part of an attention", &|graph| {
        node(graph, "fc.matmul").input[1] = "norm".into();
    });
    reject("Softmax that is not part of an attention", &|graph| node(graph, "residual").op_type = "Softmax".into());
    reject("Sigmoid that is not part of a QuickGELU", &|graph| node(graph, "residual").op_type = "Sigmoid".into());
    reject("Sigmoid that is not part of a QuickGELU", &|graph| node(graph, "gelu.mul").input[1] = "factor".into());
    reject("Sigmoid that is not part of a QuickGELU", &|graph| node(graph, "gelu").input.swap(0, 1));

    let not_embedding = "Pad that is not part of a token embedding";
    reject(not_embedding, &|graph| {
        *initializer(graph, "pads") = TensorProto::integers("pads", &[0, 0, 0, 0, 1, 0]);
    });
    reject(not_embedding, &|graph| node(graph, "padded").input.push("factor".into()));
    reject(not_embedding, &|graph| node(graph, "padded").attribute.push(Attribute::string("mode", "edge")));
    reject("position embedding of shape [16, 17]", &|graph| initializer(graph, "table").dims.reverse());

    let not_first = "Gather of anything but the first token";
    reject(not_first, &|graph| *initializer(graph, "index") = TensorProto::integer("index", 1));
    reject(not_first, &|graph| *initializer(graph, "index") = TensorProto::integers("index", &[0]));
    reject(not_first, &|graph| set_ints(node(graph, "first"), "axis", &[2]));

    reject("Reshape to [0, -1]", &|graph| *initializer(graph, "flat") = TensorProto::integers("flat", &[0, -1]));
    reject("Reshape with allowzero", &|graph| node(graph, "flattened").attribute.push(Attribute::int("allowzero", 1)));
    reject("constant vector of up to 8 integers", &|graph| {
        *initializer(graph, "flat") = TensorProto::integers("flat", &[0; 9]);
    });
    reject("Transpose to [0, 2, 3, 1]", &|graph| set_ints(node(graph, "tokens"), "perm", &[0, 2, 3, 1]));
}

#[test]
fn invalid_tensors_are_rejected() {
    for model in MODELS {
        let tensors: Vec<_> = model().graph.unwrap().initializer;
        for name in tensors.iter().map(|tensor| tensor.name.as_str()) {
            let reject = |what: &str, modify: &dyn Fn(&mut TensorProto)| {
                assert_rejected(model, &format!("{name} {what}"), |graph| modify(initializer(graph, name)));
            };
            assert_rejected(model, &format!("missing {name}"), |graph| {
                graph.initializer.retain(|tensor| tensor.name != *name);
            });
            reject("of another type", &|tensor| {
                tensor.data_type = if tensor.data_type == FLOAT { INT64 } else { FLOAT };
            });
            reject("of an unknown type", &|tensor| tensor.data_type = -1);
            reject("that is too short", &|tensor| tensor.raw_data.truncate(tensor.raw_data.len() - 1));
            reject("that is too long", &|tensor| tensor.raw_data.push(0));
            reject("without data", &|tensor| tensor.raw_data.clear());
            for axis in [0, -1, i64::MIN, i64::MAX, 1 << 62] {
                reject(&format!("with axis {axis}"), &|tensor| tensor.dims.push(axis));
            }
            reject("with overflowing shape", &|tensor| tensor.dims = vec![1 << 32, 1 << 32, 4]);
            reject("without elements", &|tensor| {
                tensor.dims = vec![i64::MAX, 0];
                tensor.raw_data.clear();
            });
        }
    }
    for name in ["stem.weight", "point.weight", "depthwise.weight", "matrix"] {
        assert_rejected(convolutional, &format!("flat {name}"), |graph| {
            let tensor = initializer(graph, name);
            tensor.dims = vec![tensor.dims.iter().product()];
        });
    }
    for name in ["stem.weight", "point.weight", "depthwise.weight"] {
        assert_rejected(convolutional, &format!("reshaped {name}"), |graph| {
            initializer(graph, name).dims.rotate_left(1);
        });
    }
    assert_rejected(convolutional, "a kernel larger than the input", |graph| {
        *initializer(graph, "stem.weight") = TensorProto::floats("stem.weight", &[16, 3, 1, 11], &[0.0; 528]);
    });
}

#[test]
fn invalid_lengths_are_rejected() {
    for bytes in MODELS.map(|model| model().encode_to_vec()) {
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
}

/// A replacement of `.1` bytes at `.0` by `.2`; positions are relative to the length of the file.
fn any_edit() -> impl Strategy<Value = (f64, usize, Vec<u8>)> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    (0.0..1.0f64, 0..6usize, prop::collection::vec(byte, 0..6))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_edits_do_not_panic(
        model in prop::sample::select(&MODELS[..]),
        edits in prop::collection::vec(any_edit(), 1..4),
    ) {
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
        model in prop::sample::select(&MODELS[..]),
        index in any::<prop::sample::Index>(),
        attribute in prop::sample::select(
            &["strides", "pads", "dilations", "group", "perm", "axis", "kernel_shape", "ceil_mode"][..]
        ),
        values in prop::collection::vec(prop_oneof![-2..20i64, any::<i64>()], 0..8),
        tensor in any::<prop::sample::Index>(),
        integers in prop::collection::vec(prop_oneof![-2..20i64, any::<i64>()], 0..10),
        dims in prop::collection::vec(1..20i64, 0..6),
    ) {
        let mut model = model();
        let graph = model.graph.as_mut().unwrap();
        set_ints(index.get_mut(&mut graph.node), attribute, &values);
        let _ = load_and_run(&model.encode_to_vec());
        // A consistent tensor of a different shape.
        let tensor = tensor.get_mut(&mut model.graph.as_mut().unwrap().initializer);
        let shape: Vec<usize> = dims.iter().map(|&axis| axis as usize).collect();
        let len: usize = shape.iter().product();
        if tensor.data_type == INT64 {
            *tensor = TensorProto::integers(&tensor.name, &integers);
        } else if len <= 1 << 16 {
            *tensor = TensorProto::floats(&tensor.name, &shape, &noise(len, 1));
        }
        let _ = load_and_run(&model.encode_to_vec());
    }
}
