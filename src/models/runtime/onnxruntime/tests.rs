use std::collections::BTreeMap;

use super::*;
use crate::models::onnx;
use crate::models::seeded::{self, SeededParameters};

#[test]
fn all_lanes_have_the_same_provider() {
    assert_eq!(same_provider([(1, "cuda+cpu"), (1, "cuda+cpu"), (3, "cuda+cpu")]).unwrap(), "cuda+cpu");
    let error = same_provider([(0, "cuda"), (0, "cuda"), (1, "cuda+cpu")]).unwrap_err().to_string();
    assert!(error.contains("would run on cuda on GPU 0, but on cuda+cpu on GPU 1"), "{error}");
}

#[test]
fn batches_are_split_if_memory_is_exhausted() {
    let parts: [&[u8]; 3] = [&[1, 2, 3, 4], &[5, 6], &[7, 8, 9, 10]];
    let mut sizes = Vec::new();
    let mut run = |batch| {
        in_batches(&parts, 2, batch, |parts| {
            let values = parts.concat();
            sizes.push(values.len() / 2);
            Ok(Array2::from_shape_fn((values.len() / 2, 1), |(i, _)| f32::from(values[2 * i])))
        })
    };
    let rows = run(5).unwrap();
    assert_eq!(rows, ndarray::array![[1.0], [3.0], [5.0], [7.0], [9.0]]);
    assert_eq!(run(2).unwrap(), rows);
    assert_eq!(sizes, [5, 2, 2, 1]);
    let error = |message: &str| Error::Runtime(message.into());
    assert!(is_out_of_memory(&error("BFCArena: Failed to allocate memory for requested buffer of size 8")));
    assert!(is_out_of_memory(&error("CUDA failure 2: out of memory")));
    assert!(!is_out_of_memory(&error("CUDNN_STATUS_NOT_SUPPORTED")));
}

#[test]
fn a_lane_goes_on_with_half_of_the_batch() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models");
    let card = crate::models::Card::load(&fixture, "tiny").unwrap();
    let options = SessionOptions::for_card(&card, 4, Precision::F32);
    let mut lane = SessionLane::load(&fixture.join("tiny.onnx"), Device::Cpu, 0, &options).unwrap();
    let pixels: Vec<u8> = (0..4 * options.item_len()).map(|i| (i % 251) as u8).collect();
    let whole = lane.run(Items::Pixels(&[&pixels])).unwrap();
    // Memory is exhausted with four items.
    let mut batches = Vec::new();
    lane.with_enough_memory(|network, _| {
        batches.push(network.options.batch);
        if network.options.batch > 2 { Err(Error::Runtime("CUDA failure 2: out of memory".into())) } else { Ok(()) }
    })
    .unwrap();
    assert_eq!(batches, [4, 2]);
    assert!(lane.take_warning().unwrap().contains("exhausted with 4 items per batch: going on with 2 (--batch 2)"));
    let halves = lane.run(Items::Pixels(&[&pixels])).unwrap();
    assert_eq!((whole.dim(), lane.take_warning()), ((4, card.output.dim), None));
    assert!((&whole - &halves).iter().all(|difference| difference.abs() < 1e-6));
    let first = lane.run(Items::Pixels(&[&pixels[..options.item_len()]])).unwrap();
    assert!(first.row(0).iter().zip(whole.row(0)).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn batch_sizes_are_measured_as_asked() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models");
    let card = crate::models::Card::load(&fixture, "tiny").unwrap();
    let options = SessionOptions::for_card(&card, 1, Precision::F32);
    let next = |runs: &[(usize, f64)]| [1, 4].get(runs.len()).copied();
    let (load, runs) = measure(&fixture.join("tiny.onnx"), Device::Cpu, 0, &options, next).unwrap();
    assert_eq!(runs.iter().map(|run| run.0).collect::<Vec<_>>(), [1, 4]);
    assert!(load > 0.0 && runs.iter().all(|run| run.1 > 0.0));
}

/// On the CPU, which computes in f32 but rounds the values between the layers.
#[test]
fn half_precision_changes_little() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let directory = tempfile::tempdir().unwrap();
    for name in ["resnet18", "r2plus1d_tiny", "efficientnet_lite2"] {
        let card = crate::models::Card::load(&models, name).unwrap();
        let architecture = card.architecture.unwrap();
        let source = SeededParameters { architecture, seed: 0 };
        let options = SessionOptions::for_card(&card, 2, Precision::F32);
        let items: Vec<u8> =
            seeded::integers("pixels", 0, 2 * options.item_len()).into_iter().map(|i| (i % 251) as u8).collect();
        let [exact, half] = [Precision::F32, Precision::Fp16].map(|precision| {
            let path = directory.path().join(format!("{name}-{precision}.onnx"));
            std::fs::write(&path, onnx::write_in(precision, &card, architecture, &source).unwrap()).unwrap();
            let mut lane = SessionLane::load(&path, Device::Cpu, 0, &options).unwrap();
            (lane.run(Items::Pixels(&[&items])).unwrap(), std::fs::metadata(&path).unwrap().len())
        });
        assert!(half.1 < exact.1 * 51 / 100, "{name}: {} and {} bytes", half.1, exact.1);
        assert_ne!(half.0, exact.0, "{name}");
        for (half, exact) in half.0.rows().into_iter().zip(exact.0.rows()) {
            let cosine = half.dot(&exact) / (half.dot(&half) * exact.dot(&exact)).sqrt();
            assert!(cosine > 0.9995, "{name}: cosine {cosine}");
        }
    }
    let card = crate::models::Card::load(&models, "transnet_v2").unwrap();
    let source = SeededParameters { architecture: card.architecture.unwrap(), seed: 0 };
    let error = onnx::write_in(Precision::Fp16, &card, card.architecture.unwrap(), &source).unwrap_err().to_string();
    assert!(error.contains("its color histograms need f32"), "{error}");
}

#[test]
fn onnx_runtime_reads_appended_properties() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/tiny.onnx");
    let mut bytes = std::fs::read(&fixture).unwrap();
    let properties = [("classes", r#"["café","b"]"#), ("task", "single-label"), ("empty", "")];
    let properties: BTreeMap<String, String> =
        properties.map(|(key, value)| (key.to_string(), value.to_string())).into();
    onnx::append_properties(&mut bytes, &properties);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.onnx");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(onnx::read_properties(&path).unwrap(), properties);
    assert_eq!(onnx::read_properties(&fixture).unwrap(), BTreeMap::new());
    let session = Session::builder(environment(Device::Cpu).unwrap()).unwrap().commit_from_file(&path).unwrap();
    let metadata = session.metadata().unwrap();
    for (key, value) in &properties {
        assert_eq!(metadata.custom(key).as_ref(), Some(value));
    }
}
