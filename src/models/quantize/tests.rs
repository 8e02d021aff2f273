use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::models::Precision;
use crate::models::onnx::builder::GraphBuilder;
use crate::models::onnx::proto::{Attribute, TensorProto, ValueInfo};
use crate::models::runtime::{self, Device, Session};
use crate::models::seeded;
use crate::progress::NoProgress;

/// The second convolution has as many tiles as Winograd's algorithm needs.
const SIZE: usize = 32;
const DIM: usize = 24;

/// Returns `count` pseudo-random values with a mean of `mean`.
fn values(name: &str, count: usize, mean: f32) -> Vec<f32> {
    seeded::integers(name, 0, count).into_iter().map(|u| u as f32 / 16384.0 + mean).collect()
}

/// Writes a network with an inverted bottleneck, linear layers and a layer of Winograd's algorithm.
fn write_network(path: &Path) {
    let mut graph = GraphBuilder::default();
    let tensor = |graph: &mut GraphBuilder, name: &str, shape: &[usize], scale: f32| {
        let values: Vec<f32> = values(name, shape.iter().product(), 0.0).iter().map(|value| value * scale).collect();
        graph.initializer(TensorProto::floats(name, shape, &values))
    };
    for (name, shape, scale) in [
        ("stem.weight", &[16, 3, 3, 3][..], 0.2),
        ("stem.bias", &[16], 0.5),
        ("winograd.weight", &[16, 16, 3, 3], 0.1),
        ("down.weight", &[16, 16, 3, 3], 0.2),
        ("down.bias", &[16], 0.5),
        ("expand.weight", &[32, 16, 1, 1], 0.3),
        ("expand.bias", &[32], 0.5),
        ("filter.weight", &[32, 1, 3, 3], 0.3),
        ("project.weight", &[20, 32, 1, 1], 0.2),
        ("linear.weight", &[20, 40], 0.3),
        ("linear.bias", &[40], 0.5),
        ("head.weight", &[40, DIM], 0.3),
    ] {
        tensor(&mut graph, name, shape, scale);
    }
    graph.initializer(TensorProto::floats("zero", &[], &[0.0]));
    graph.initializer(TensorProto::floats("six", &[], &[6.0]));
    let pads = || Attribute::ints("pads", &[1; 4]);
    graph.node("Conv", &["x", "stem.weight", "stem.bias"], "stem", vec![pads(), Attribute::ints("strides", &[2, 2])]);
    graph.node("Conv", &["stem", "winograd.weight"], "winograd", vec![pads()]);
    graph.node("Relu", &["winograd"], "relu", vec![]);
    graph.node(
        "Conv",
        &["relu", "down.weight", "down.bias"],
        "down",
        vec![pads(), Attribute::ints("strides", &[2, 2])],
    );
    graph.node("Conv", &["down", "expand.weight", "expand.bias"], "expand", vec![]);
    graph.node("Clip", &["expand", "zero", "six"], "expanded", vec![]);
    graph.node("Conv", &["expanded", "filter.weight"], "filter", vec![pads(), Attribute::int("group", 32)]);
    graph.node("Clip", &["filter", "zero", "six"], "filtered", vec![]);
    graph.node("Conv", &["filtered", "project.weight"], "project", vec![]);
    graph.node("GlobalAveragePool", &["project"], "mean", vec![]);
    graph.node("Flatten", &["mean"], "flat", vec![Attribute::int("axis", 1)]);
    graph.node("MatMul", &["flat", "linear.weight"], "linear", vec![]);
    graph.node("Add", &["linear", "linear.bias"], "biased", vec![]);
    graph.node("Relu", &["biased"], "hidden", vec![]);
    graph.node("MatMul", &["hidden", "head.weight"], "embedding", vec![]);
    let (size, dim) = (SIZE as i64, DIM as i64);
    let bytes = graph.finish("net", ValueInfo::batched("x", &[3, size, size]), ValueInfo::batched("embedding", &[dim]));
    std::fs::write(path, bytes).unwrap();
}

fn session(precision: Precision) -> SessionOptions {
    SessionOptions { threads: 2, precision, ..SessionOptions::for_floats(vec![3, SIZE, SIZE], DIM, 1) }
}

fn items(count: usize) -> Vec<Vec<f32>> {
    (0..count).map(|i| values(&format!("item{i}"), 3 * SIZE * SIZE, (i % 5) as f32 / 5.0)).collect()
}

struct Fixture {
    _directory: tempfile::TempDir,
    onnx: PathBuf,
    int8: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (onnx, int8) = (directory.path().join("net.onnx"), directory.path().join("int8.onnx"));
        write_network(&onnx);
        Self { _directory: directory, onnx, int8 }
    }

    fn quantize(&self, options: &Options, count: usize) -> Result<QuantizedNetwork> {
        self.quantize_with(options, count, &NoProgress)
    }

    fn quantize_with(&self, options: &Options, count: usize, progress: &dyn ProgressSink) -> Result<QuantizedNetwork> {
        let items = items(count);
        let items: Vec<&[f32]> = items.iter().map(Vec::as_slice).collect();
        let cancel = CancellationToken::default();
        let network = quantize(&self.onnx, &session(Precision::F32), &items, options, progress, &cancel)?;
        std::fs::write(&self.int8, &network.bytes).unwrap();
        Ok(network)
    }

    fn embeddings(&self, file: &Path, device: Device, precision: Precision) -> Vec<Vec<f32>> {
        let mut session = Session::load(file, device, session(precision)).unwrap();
        items(12).iter().map(|item| session.run(item).unwrap().into_raw_vec_and_offset().0).collect()
    }
}

fn options() -> Options {
    Options {
        calibration: Some(Calibration::Mse),
        keep: Vec::new(),
        include_winograd: false,
        min_cosine: 0.9,
        clips: 3,
    }
}

/// The layers of matrix products after the first one.
const LAYERS: [&str; 5] = ["down", "expand", "project", "linear", "embedding"];

#[test]
fn layers_of_matrix_products_are_quantized_reproducibly() {
    for calibration in [Calibration::MinMax, Calibration::Percentile, Calibration::Mse] {
        let fixture = Fixture::new();
        let options = Options { calibration: Some(calibration), ..options() };
        let network = fixture.quantize(&options, 12).unwrap();
        let names: Vec<&str> = network.quantized.iter().map(|layer| layer.0.as_str()).collect();
        assert_eq!(names, LAYERS, "{calibration}");
        assert_eq!(network.quantized[0].1, "Conv 3×3, 16 → 16 channels");
        assert_eq!((network.kept.len(), network.items), (1, (9, 3)));
        assert!(network.kept[0].0 == "stem" && network.kept[0].1.starts_with("the first layer"), "{network}");
        assert!(network.cosine.0 > 0.99, "{calibration}: {network}");
        assert!(fixture.quantize(&options, 12).unwrap().bytes == network.bytes, "{calibration}");
    }
}

#[test]
fn other_runtimes_agree_with_the_native_kernels() {
    let fixture = Fixture::new();
    let network = fixture.quantize(&options(), 12).unwrap();
    let f32 = fixture.embeddings(&fixture.onnx, Device::Native, Precision::F32);
    let native = fixture.embeddings(&fixture.int8, Device::Native, Precision::Int8);
    let held_out: Vec<f64> = [3, 7, 11].map(|i| cosine(&native[i], &f32[i])).into();
    let mean = held_out.iter().sum::<f64>() / 3.0;
    assert!((mean - network.cosine.1).abs() < 1e-9, "the file computes what was measured: {mean} {network}");
    let f32_on_ort = fixture.embeddings(&fixture.onnx, Device::Cpu, Precision::F32);
    for device in [Device::Cpu, Device::OpenVino] {
        for (i, other) in fixture.embeddings(&fixture.int8, device, Precision::Int8).iter().enumerate() {
            assert!(cosine(other, &native[i]) > 0.9999, "{device}: {} {i}", cosine(other, &native[i]));
            assert!(cosine(&f32_on_ort[i], &f32[i]) > 0.999_999);
        }
    }
}

#[test]
fn layers_stay_in_f32_if_requested_or_sensitive() {
    let fixture = Fixture::new();
    let keep = vec!["linear".into(), "down".into()];
    let network = fixture.quantize(&Options { keep, ..options() }, 12).unwrap();
    assert_eq!(network.kept.iter().map(|kept| kept.0.as_str()).collect::<Vec<_>>(), ["stem", "down", "linear"]);
    let properties = onnx::read_properties(&fixture.int8).unwrap();
    let property = |name: &str| properties[&format!("kinoprobe.{name}")].as_str();
    assert_eq!(
        [property("precision"), property("f32_layers"), property("int8_layers")],
        ["int8", "stem,down,linear", "3"]
    );
    assert_eq!([property("calibration"), property("calibration_items")], ["mse", "12"]);
    let at_most = fixture.quantize(&options(), 12).unwrap().cosine.0;
    let network = fixture.quantize(&Options { min_cosine: at_most + (1.0 - at_most) / 4.0, ..options() }, 12).unwrap();
    assert!(network.cosine.0 > at_most && !network.kept.is_empty() && !network.quantized.is_empty(), "{network}");
    assert!(network.kept[1].1.starts_with("cosine 0.9"), "{network}");
}

#[test]
fn the_best_ranges_are_used_unless_they_are_requested() {
    let fixture = Fixture::new();
    let mean = |calibration: Calibration| {
        fixture.quantize(&Options { calibration: Some(calibration), ..options() }, 12).unwrap().cosine.1
    };
    let best = fixture.quantize(&Options { calibration: None, ..options() }, 12).unwrap();
    assert!(Calibration::value_variants().iter().all(|calibration| mean(*calibration) <= best.cosine.1), "{best}");
    assert_eq!(mean(best.calibration), best.cosine.1);
    assert!(best.to_string().contains(&format!("items ({})", best.calibration)), "{best}");
}

#[test]
fn layers_of_winograd_are_quantized_on_request() {
    let fixture = Fixture::new();
    let network = fixture.quantize(&Options { include_winograd: true, ..options() }, 12).unwrap();
    assert!(network.quantized.iter().any(|layer| layer.0 == "winograd") && network.cosine.0 > 0.99, "{network}");
    let f32 = fixture.embeddings(&fixture.onnx, Device::Native, Precision::F32);
    let int8 = fixture.embeddings(&fixture.int8, Device::Native, Precision::Int8);
    let held_out = [3, 7, 11].map(|i| cosine(&int8[i], &f32[i])).into_iter().sum::<f64>() / 3.0;
    assert!((held_out - network.cosine.1).abs() < 1e-6, "{held_out} {network}");
    // The calibration has run the two convolutions one after the other.
    let profile = runtime::profile(&fixture.int8, &session(Precision::Int8), 1, &CancellationToken::default()).unwrap();
    let fused = profile.layers.iter().find(|layer| layer.kernel == "im2col 3x3 + 3x3 stride 2");
    assert!(fused.is_some_and(|layer| layer.name == "winograd + down"), "{profile:?}");
}

#[derive(Default)]
struct Messages(Mutex<String>);

impl ProgressSink for Messages {
    fn report(&self, event: Event<'_>) {
        if let Event::Info(message) = event {
            *self.0.lock().unwrap() += message;
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn winograd_in_f32_is_reported_where_it_is_slower() {
    let (avx_vnni, avx512_vnni) = (is_x86_feature_detected!("avxvnni"), is_x86_feature_detected!("avx512vnni"));
    let has_vnni = match std::env::var("KINOPROBE_SIMD").unwrap_or_default().as_str() {
        "scalar" => false,
        "avx2" => avx_vnni,
        _ => avx_vnni || avx512_vnni,
    };
    let fixture = Fixture::new();
    for include_winograd in [false, true] {
        let messages = Messages::default();
        fixture.quantize_with(&Options { include_winograd, ..options() }, 4, &messages).unwrap();
        let messages = messages.0.into_inner().unwrap();
        assert_eq!(messages.contains("--include-winograd"), has_vnni && !include_winograd, "{messages}");
    }
}

#[test]
fn errors_name_the_remedy() {
    let fixture = Fixture::new();
    let error = |options: &Options, items: usize| fixture.quantize(options, items).err().unwrap().to_string();
    let unknown = error(&Options { keep: vec!["winograd".into()], ..options() }, 4);
    assert!(unknown.contains("no layer `winograd`") && unknown.contains("stem, down, expand, project"), "{unknown}");
    assert!(error(&options(), 1).contains("name more clips"));
    fixture.quantize(&options(), 2).unwrap();
    std::fs::write(&fixture.onnx, "text").unwrap();
    assert!(error(&options(), 4).contains("not an ONNX model"));
}
