use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints").join(name)
}

/// What torch said the fixture's tensors are: name → shape, values as f32.
fn expected() -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let number = |v: &serde_json::Value| v.as_str().unwrap().parse::<f64>().unwrap() as f32;
    json.into_iter()
        .map(|(name, tensor)| {
            let shape = tensor["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
            (name, (shape, tensor["values"].as_array().unwrap().iter().map(number).collect()))
        })
        .collect()
}

#[test]
fn tensors_are_as_torch_saved_them_in_every_format() {
    let expected = expected();
    for name in ["plain-zip.pth", "plain-legacy.pth", "wrapped-zip.pth", "wrapped-legacy.pth", "plain.safetensors"] {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        assert!(checkpoint.tensors.keys().eq(expected.keys()), "{name}: {:?}", checkpoint.tensors.keys());
        for (tensor_name, tensor) in &checkpoint.tensors {
            let (shape, values) = &expected[tensor_name];
            assert_eq!(tensor.shape(), shape, "{name} {tensor_name}");
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&tensor.read().unwrap()), bits(values), "{name} {tensor_name}");
        }
    }
}

#[test]
fn a_module_s_state_dict_with_its_metadata_is_read() {
    for name in ["module-zip.pth", "module-legacy.pth"] {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        assert_eq!(checkpoint.tensors.len(), 7, "{name}");
        assert_eq!(checkpoint.tensors["0.weight"].shape(), [3, 2, 1, 1], "{name}");
        assert_eq!(checkpoint.tensors["1.running_var"].read().unwrap(), [1.0; 3], "{name}");
    }
}

#[test]
fn code_in_a_checkpoint_is_named_and_not_run() {
    for name in ["hostile-zip.pth", "hostile-legacy.pth"] {
        let error = Checkpoint::open(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains("posix.system") && error.contains(name), "{error}");
    }
}

#[test]
fn what_is_no_checkpoint_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.pth");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("a/b.txt", zip::write::SimpleFileOptions::default()).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    // A pickle that claims a text of 4 GiB, and a safetensors header of 2^63 bytes.
    let greedy = [&b"\x80\x02X"[..], &u32::MAX.to_le_bytes(), b"abc"].concat();
    let header = [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat();
    let tall = br#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    let tall = [&(tall.len() as u64).to_le_bytes()[..], tall].concat();
    let cases: [(&[u8], &str); 8] = [
        (b"", "neither"),
        (b"hello, I am a text file", "neither"),
        (&zip, "data.pkl"),
        (b"PK\x03\x04 and no more", "zip"),
        (&greedy, "torch"),
        (&header, "header"),
        (&tall, "shape"),
        (b"\x80\x02}q\x00.", "not torch's"),
    ];
    for (bytes, word) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("file.pth"), "{word}: {error}");
    }
    assert!(Checkpoint::open(folder.path()).is_err(), "a folder");
    assert!(Checkpoint::open(&folder.path().join("absent.pth")).is_err());
}

/// Opens and reads everything: must end, in whatever result.
fn read_all(bytes: &[u8]) -> Result<usize> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let checkpoint = Checkpoint::open(file.path())?;
    checkpoint.tensors.values().map(|tensor| Ok(tensor.read()?.len())).sum()
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["plain-zip.pth", "plain-legacy.pth", "plain.safetensors"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        assert!(read_all(&bytes).is_ok(), "{name}");
        for length in (0..bytes.len()).step_by(7) {
            assert!(read_all(&bytes[..length]).is_err(), "{name} cut to {length} of {}", bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damage_never_panics(
        name in prop::sample::select(vec!["plain-zip.pth", "wrapped-legacy.pth", "plain-legacy.pth", "plain.safetensors"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        // Elements are bounded by the file: damaged sizes take no memory.
        if let Ok(count) = read_all(&bytes) {
            prop_assert!(count <= bytes.len() * 32);
        }
    }

    #[test]
    fn any_pickle_ends(opcodes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = pickle::Machine::default().load(&mut opcodes.as_slice());
    }
}
