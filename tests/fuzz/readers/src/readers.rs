//! One function per reader: reads a file as far as the programs would, and ignores the result.

use std::path::Path;

use kinoprobe::manifest::Manifest;
use kinoprobe::models::Card;
use kinoprobe::models::checkpoint::Checkpoint;
use kinoprobe::recipe::Recipe;
use kinoprobe::store::{Journal, Payload, Provenance};

/// Reads a model card, `NAME.toml`.
pub fn card(path: &Path) {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap();
    let _ = Card::load(path.parent().unwrap(), name);
}

/// Reads a checkpoint and all its tensors. The content decides the format, not the name.
pub fn checkpoint(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    for tensor in checkpoint.tensors.values() {
        let _ = tensor.read();
    }
}

/// Resumes the journal `NAME.h5.partial`.
pub fn journal(path: &Path) {
    let _ = Journal::open(&path.with_extension(""), Payload::Features { dim: 4 }, &Provenance::default());
}

/// Reads a manifest. The extension decides the format.
pub fn manifest(path: &Path) {
    let _ = Manifest::load(path, None);
}

/// Loads an ONNX file into the native kernels and runs it once.
pub fn onnx(path: &Path) {
    use kinoprobe::models::Precision;
    use kinoprobe::models::runtime::{Device, Session, SessionOptions};

    let options =
        SessionOptions { item: vec![3, 64, 64], dim: 8, batch: 1, threads: 1, output: None, precision: Precision::F32 };
    if let Ok(mut session) = Session::load(path, Device::Native, options) {
        let _ = session.run(&[0.5; 3 * 64 * 64]);
    }
}

/// Reads a recipe.
pub fn recipe(path: &Path) {
    let _ = Recipe::load(path);
}
