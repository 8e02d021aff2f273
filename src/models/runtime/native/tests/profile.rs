//! Profiles: the steps of a plan, their multiply-accumulates, and the measurement.

use std::io::Write;
use std::path::Path;

use prost::Message;

use super::super::isa::Isa;
use super::super::load_plan;
use super::super::plan::Plan;
use super::super::profile::measure;
use super::models::{SIZE, convolutional, transformer};
use crate::cancel::CancellationToken;
use crate::models::nets::Architecture;
use crate::models::onnx::proto::ModelProto;
use crate::models::parameters::MemoryTensors;
use crate::models::runtime::SessionOptions;
use crate::models::{Card, onnx};

/// Returns the plan of an ONNX file.
fn plan(onnx: &[u8], item: Vec<usize>, dim: usize) -> Plan {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(onnx).unwrap();
    let options = SessionOptions::for_floats(item, dim, 1);
    load_plan(file.path(), &options, Isa::available().last().unwrap(), "").unwrap()
}

fn plan_of(model: ModelProto) -> Plan {
    plan(&model.encode_to_vec(), vec![3, SIZE, SIZE], 16)
}

/// Returns kernel, name and multiply-accumulates of each step.
fn steps(plan: &Plan) -> Vec<(String, &str, u64)> {
    plan.steps().iter().map(|step| (step.describe(), step.name.as_str(), step.multiply_accumulates())).collect()
}

fn expect(plan: &Plan, expected: &[(&str, &str, u64)]) {
    let expected: Vec<_> = expected.iter().map(|&(kernel, name, work)| (kernel.to_string(), name, work)).collect();
    assert_eq!(steps(plan), expected);
}

#[test]
fn steps_name_their_kernels_nodes_and_multiply_accumulates() {
    // Images of 8 × 8 positions with 3, then 16 channels.
    let bottleneck = 64 * (16 * 16 + 16 * 9 + 16 * 16);
    expect(
        &plan_of(convolutional()),
        &[
            ("im2col 3x3", "stem", 64 * 16 * 3 * 9),
            ("scale and offset, relu", "bn", 0),
            ("pointwise + depthwise 3x3 + pointwise, residual", "expand + filter + project", bottleneck),
            ("layer norm", "norm", 0),
            ("pointwise, gelu", "linear", 64 * 16 * 16),
            ("scale and offset", "scale", 0),
            ("global average pool", "mean", 0),
        ],
    );
    // Patches of 2 × 2 pixels; 4 · 4 tokens and the class token.
    expect(
        &plan_of(transformer()),
        &[
            ("im2col 2x2 stride 2", "patch", 16 * 16 * 3 * 4),
            ("max pool 3x3", "pool", 0),
            ("token embedding", "embedded", 0),
            ("layer norm", "norm", 0),
            ("pointwise", "q.add", 17 * 16 * 16),
            ("pointwise", "k.add", 17 * 16 * 16),
            ("pointwise", "v.add", 17 * 16 * 16),
            ("attention, 2 heads", "attention", 2 * 17 * 17 * 16),
            ("pointwise", "out.add", 17 * 16 * 16),
            ("add", "residual", 0),
            ("pointwise, quick gelu", "fc.add", 17 * 16 * 16),
            ("first token", "first", 0),
            ("pointwise", "embedding", 16 * 16),
        ],
    );
}

/// Returns the plan of a shipped network with parameters that are 0.
fn shipped(architecture: Architecture) -> Plan {
    let card = Card::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models"), architecture.name()).unwrap();
    let mut zeros = MemoryTensors::default();
    for parameter in architecture.parameters(&card.input) {
        zeros.insert(&parameter.name, &parameter.shape, vec![0.0; parameter.shape.iter().product()]).unwrap();
    }
    let onnx = onnx::write(&card, architecture, &zeros).unwrap();
    plan(&onnx, card.input.shape(1)[1..].to_vec(), card.output.dim)
}

#[test]
fn multiply_accumulates_equal_published_numbers() {
    // Published numbers include a classifier, which our networks lack: its weights, one multiply-accumulate each, are added. Those of
    // torchvision are `_ops` of the weights; vit_b_32, for 224 × 224 pixels, is the image encoder of CLIP with 1000 classes instead of
    // the projection to 512 channels. That of EfficientNet-Lite2 (860 million) is from TensorFlow's repository.
    for (architecture, classifier, projection, published) in [
        (Architecture::ConvNextBase, 1024 * 1000, 0, "15.355"),
        (Architecture::R2Plus1D18, 512 * 400, 0, "40.519"),
        (Architecture::ResNet18, 512 * 1000, 0, "1.814"),
        (Architecture::ResNet50, 2048 * 1000, 0, "4.089"),
        (Architecture::ClipVitB32, 768 * 1000, 768 * 512, "4.409"),
        (Architecture::EfficientNetLite2, 1280 * 1000, 0, "0.860"),
    ] {
        let plan = shipped(architecture);
        let own: u64 = steps(&plan).iter().map(|(_, _, work)| work).sum();
        let found = format!("{:.3}", 1e-9 * (own + classifier - projection) as f64);
        assert_eq!(found, published, "{}: {own}", architecture.name());
    }
}

#[test]
fn factorized_convolutions_count_the_channels_between_them() {
    let plan = shipped(Architecture::R2Plus1DTiny);
    let steps = steps(&plan);
    let fused = &steps[2];
    assert!(fused.0.starts_with("winograd 3x3 F(") && fused.0.contains(" + 3x1x1 F("), "{}", fused.0);
    // 8 frames of 24 × 24 positions, 16 channels; 16 · 16 · 27 / (16 · 9 + 16 · 3) = 36 between the two convolutions.
    assert_eq!(fused.2, 8 * 24 * 24 * (16 * 36 * 9 + 36 * 16 * 3));
}

#[test]
fn profiles_have_the_times_of_the_conversion_and_each_step() {
    let plan = plan_of(transformer());
    let isa = Isa::available().last().unwrap();
    let profile = measure(&plan, isa, 2, 3, &CancellationToken::default()).unwrap();
    assert_eq!(profile.provider, format!("native-{}", isa.name()));
    assert_eq!((profile.layers[0].kernel.as_str(), profile.layers.len()), ("to channels last", plan.steps().len() + 1));
    assert!(profile.layers.iter().all(|layer| layer.seconds >= 0.0) && profile.seconds() > 0.0 && profile.peak > 0.0);
    let outputs: Vec<&[usize]> = profile.layers.iter().map(|layer| &layer.output[..]).collect();
    assert_eq!(outputs[..4], [&[8, 8, 3][..], &[4, 4, 16], &[4, 4, 16], &[17, 16]]);
    assert_eq!(outputs.last(), Some(&&[16][..]));

    let cancelled = CancellationToken::default();
    cancelled.cancel();
    assert!(measure(&plan, isa, 1, 1, &cancelled).is_err());
}
