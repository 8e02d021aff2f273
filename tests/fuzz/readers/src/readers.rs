//! One function per reader: reads a file as far as the programs would, and ignores the result.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use kinoprobe::cancel::CancellationToken;
use kinoprobe::interchange::import::{ImportOptions, import_features};
use kinoprobe::manifest::{Clip, Manifest};
use kinoprobe::models::Card;
use kinoprobe::models::checkpoint::Checkpoint;
use kinoprobe::recipe::Recipe;
use kinoprobe::store::{ClipKey, Journal, Payload, Provenance};

use crate::file;

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

/// Imports features, once as one variable per clip and once as one matrix of three clips. The first byte is the index of the extension.
pub fn features(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let extensions = ["npy", "npz", "parquet", "csv", "mat", "pt"];
    let source = file(&format!("fuzzed.{}", extensions[usize::from(*kind) % extensions.len()]), data);
    let out = source.with_file_name("features.h5");
    let ids = file("ids.txt", b"a\nb\nc\n");
    let per_clip = ImportOptions { source: source.clone(), key: Some("{id}".into()), ..ImportOptions::default() };
    let matrix = ImportOptions { source, ids: Some(ids), ..ImportOptions::default() };
    for options in [per_clip, matrix] {
        let _ = import_features(&options, None, &out, &CancellationToken::default());
    }
}

/// Resumes a journal and reads its clip. The first byte is 0 for the bytes of a journal; for 1 (features) and 2 (descriptors),
/// records follow, which are added to a valid journal with the right checksums. A record is JSON, the byte 0xFE and the values of the
/// clip; the byte 0xFF ends it. Neither byte occurs in JSON.
pub fn journal(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let (path, payload) = match kind {
        0 => (file("fuzzed.h5.partial", data), Payload::Features { dim: 4 }),
        1 => (file("fuzzed.h5.partial", &[]), Payload::Features { dim: 4 }),
        _ => (file("fuzzed.h5.partial", &[]), Payload::Descriptors { dim: 3 }),
    };
    let open = || Journal::open(&path.with_extension(""), payload, &Provenance::default());
    if *kind > 0 {
        drop(open().expect("a new journal"));
        let mut journal = File::options().append(true).open(&path).expect("the journal");
        for record in data.split(|byte| *byte == 0xff) {
            let json = record.split(|byte| *byte == 0xfe).next().unwrap();
            let values = record.get(json.len() + 1..).unwrap_or_default();
            let body = [&(json.len() as u32).to_le_bytes(), json, values].concat();
            let length = (body.len() as u64).to_le_bytes();
            let checksum = crc32fast::hash(&body).to_le_bytes();
            journal.write_all(&[&length, body.as_slice(), &checksum].concat()).expect("the journal");
        }
    }
    if let Ok(mut journal) = open() {
        let clip = Clip { id: "a".into(), path: "a.mp4".into(), ..Clip::default() };
        let _ = journal.read(&ClipKey::from(&clip));
    }
}

/// Reads a manifest. The extension decides the format.
pub fn manifest(path: &Path) {
    let _ = Manifest::load(path, None);
}

/// Hashes an ONNX file with its external data, loads it into the native kernels and runs it once.
pub fn onnx(path: &Path) {
    use kinoprobe::models::external_data;
    use kinoprobe::models::runtime::{Device, Session, SessionOptions};

    let _ = external_data::model_sha256(path);
    let options = SessionOptions::for_floats(vec![3, 64, 64], 8, 1);
    if let Ok(mut session) = Session::load(path, Device::Native, options) {
        let _ = session.run(&[0.5; 3 * 64 * 64]);
    }
}

/// Reads a recipe.
pub fn recipe(path: &Path) {
    let _ = Recipe::load(path);
}
