use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::models::graph::Role;
use crate::models::parameters::ParameterSource;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints").join(name)
}

/// The tensors of the fixtures as saved by torch: name → shape and values as f32.
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
fn reads_all_formats() {
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
fn reads_state_dicts_with_metadata() {
    for name in ["module-zip.pth", "module-legacy.pth"] {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        assert_eq!(checkpoint.tensors.len(), 7, "{name}");
        assert_eq!(checkpoint.tensors["0.weight"].shape(), [3, 2, 1, 1], "{name}");
        assert_eq!(checkpoint.tensors["1.running_var"].read().unwrap(), [1.0; 3], "{name}");
    }
}

#[test]
fn rejects_code_by_name() {
    for name in ["hostile-zip.pth", "hostile-legacy.pth"] {
        let error = Checkpoint::open(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains("posix.system") && error.contains(name), "{error}");
    }
}

#[test]
fn rejects_other_files_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.pth");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("a/b.txt", zip::write::SimpleFileOptions::default()).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    // A pickle with a string of 4 GiB, and safetensors with a header of 2^63 bytes and with a shape beyond 64 bits.
    let long = [&b"\x80\x02X"[..], &u32::MAX.to_le_bytes(), b"abc"].concat();
    let header = [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat();
    let huge = br#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    let huge = [&(huge.len() as u64).to_le_bytes()[..], huge].concat();
    let cases: [(&[u8], &str); 8] = [
        (b"", "neither"),
        (b"hello, I am a text file", "neither"),
        (&zip, "data.pkl"),
        (b"PK\x03\x04 and no more", "zip"),
        (&long, "PyTorch"),
        (&header, "header"),
        (&huge, "shape"),
        (b"\x80\x02}q\x00.", "not a PyTorch checkpoint"),
    ];
    for (bytes, word) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("file.pth"), "{word}: {error}");
    }
    assert!(Checkpoint::open(directory.path()).is_err(), "a directory");
    assert!(Checkpoint::open(&directory.path().join("absent.pth")).is_err());
}

/// Reads all tensors and returns the number of elements.
fn read_all(bytes: &[u8]) -> Result<usize> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let checkpoint = Checkpoint::open(file.path())?;
    checkpoint.tensors.values().map(|tensor| Ok(tensor.read()?.len())).sum()
}

#[test]
fn rejects_truncated_files() {
    for name in ["plain-zip.pth", "plain-legacy.pth", "plain.safetensors"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        assert!(read_all(&bytes).is_ok(), "{name}");
        for length in (0..bytes.len()).step_by(7) {
            assert!(read_all(&bytes[..length]).is_err(), "{name} truncated to {length} of {}", bytes.len());
        }
    }
}

#[test]
fn empty_tensors_of_any_shape_are_read() {
    let header = br#"{"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    assert_eq!(read_all(&bytes).unwrap(), 0);
}

#[test]
fn pickles_cannot_multiply_memory() {
    // A list of a thousand pairs, memo 0, which is converted to an OrderedDict a hundred thousand times.
    let mut pickle = b"](".to_vec();
    pickle.extend(b"NN\x86".repeat(1000));
    pickle.extend(b"eq\x00");
    pickle.extend(b"ccollections\nOrderedDict\nh\x00\x85R0".repeat(100_000));
    pickle.extend(b".");
    let error = pickle::Machine::default().load(&mut pickle.as_slice()).unwrap_err();
    assert!(error.contains("too long"), "{error}");
}

/// Replaces, removes and inserts bytes.
fn mutate(bytes: &mut Vec<u8>, edits: &[(prop::sample::Index, u8, u8)]) {
    for (position, byte, kind) in edits {
        let position = position.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match kind % 4 {
            _ if bytes.is_empty() => bytes.push(*byte),
            0 => bytes.insert(position, *byte),
            1 => drop(bytes.remove(position)),
            _ => bytes[position] = *byte,
        }
    }
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    // Bytes of extreme integers are more likely to violate a bound.
    let byte = prop_oneof![any::<u8>(), Just(0), Just(0x7f), Just(0xff)];
    prop::collection::vec((any::<prop::sample::Index>(), byte, any::<u8>()), 1..6)
}

/// Checks that a mutated fixture is read or rejected, and that its size bounds the number of elements.
fn check_mutated(name: &str, edits: &[(prop::sample::Index, u8, u8)]) -> Result<(), TestCaseError> {
    let mut bytes = std::fs::read(fixture(name)).unwrap();
    mutate(&mut bytes, edits);
    if let Ok(count) = read_all(&bytes) {
        prop_assert!(count <= bytes.len() * 32);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_zip_checkpoints_never_panic(
        name in prop::sample::select(vec!["plain-zip.pth", "wrapped-zip.pth", "module-zip.pth"]), edits in edits(),
    ) {
        check_mutated(name, &edits)?;
    }

    #[test]
    fn mutated_legacy_checkpoints_never_panic(
        name in prop::sample::select(vec!["plain-legacy.pth", "wrapped-legacy.pth", "module-legacy.pth"]),
        edits in edits(),
    ) {
        check_mutated(name, &edits)?;
    }

    #[test]
    fn mutated_safetensors_never_panic(edits in edits()) {
        check_mutated("plain.safetensors", &edits)?;
    }

    #[test]
    fn arbitrary_pickles_never_panic(opcodes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = pickle::Machine::default().load(&mut opcodes.as_slice());
    }
}

/// A value in a pickle.
enum Node {
    Dict(Vec<(&'static str, Node)>),
    /// A vector of ones of this length.
    Ones(u8),
    /// A tensor whose storage is missing.
    Lost,
    Number,
}

impl Node {
    fn write(&self, pickle: &mut Vec<u8>) {
        let text = |text: &str| [&[b'X'][..], &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        match self {
            Node::Number => pickle.extend(b"K\x07"),
            Node::Dict(entries) => {
                pickle.extend(b"}(");
                for (key, value) in entries {
                    pickle.extend(text(key));
                    value.write(pickle);
                }
                pickle.push(b'u');
            }
            Node::Ones(_) | Node::Lost => {
                let (length, storage) = if let Node::Ones(length) = self { (*length, "ones") } else { (1, "lost") };
                pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
                pickle.extend(text("storage"));
                pickle.extend(b"ctorch\nFloatStorage\n");
                pickle.extend([text(storage), text("cpu")].concat());
                pickle.extend([b'K', 8, b't', b'Q', b'K', 0, b'(', b'K', length, b't', b'(', b'K', 1, b't']);
                pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
            }
        }
    }

    /// Writes a `.pth` file.
    fn save(&self) -> tempfile::NamedTempFile {
        let mut pickle = b"\x80\x02".to_vec();
        self.write(&mut pickle);
        pickle.push(b'.');
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, bytes) in [("archive/data.pkl", pickle), ("archive/data/ones", 1f32.to_le_bytes().repeat(8))] {
            zip.start_file(name, stored).unwrap();
            std::io::Write::write_all(&mut zip, &bytes).unwrap();
        }
        zip.finish().unwrap();
        file
    }
}

fn parameter(name: &str, length: usize) -> Parameter {
    Parameter { name: name.into(), shape: vec![length], role: Role::LayerScale }
}

#[test]
fn selects_the_state_dict_and_the_prefix_of_a_network() {
    use Node::{Dict, Lost, Number, Ones};
    let network = |prefix: [&'static str; 2]| vec![(prefix[0], Ones(2)), (prefix[1], Ones(3))];
    let plain = || network(["a.weight", "b.bias"]);
    let average = || vec![("a.weight", Ones(5)), ("b.bias", Ones(5))];
    let cases = [
        ("plain", Dict(plain())),
        ("checkpoint.state_dict", Dict(vec![("checkpoint", Dict(vec![("state_dict", Dict(plain()))]))])),
        ("params", Dict(vec![("params", Dict(plain()))])),
        ("only an average", Dict(vec![("epoch", Number), ("model_ema", Dict(plain()))])),
        ("an average first", Dict(vec![("model_ema", Dict(average())), ("generator", Dict(plain()))])),
        (
            "an average of the same name",
            Dict(vec![("ema", Dict(vec![("model", Dict(average()))])), ("model", Dict(plain()))]),
        ),
        (
            "module",
            Dict(
                [vec![("n_averaged", Ones(1))], network(["module.a.weight", "module.b.bias"])]
                    .into_iter()
                    .flatten()
                    .collect(),
            ),
        ),
        ("compiled", Dict(network(["_orig_mod.module.a.weight", "_orig_mod.module.b.bias"]))),
        (
            "backbone and head",
            Dict(
                [network(["backbone.a.weight", "backbone.b.bias"]), vec![("head.weight", Ones(4))]]
                    .into_iter()
                    .flatten()
                    .collect(),
            ),
        ),
        ("any prefix", Dict(network(["student.encoder.a.weight", "student.encoder.b.bias"]))),
        (
            "the dict of another network first",
            Dict(vec![("model", Dict(vec![("c.weight", Ones(1))])), ("teacher", Dict(plain()))]),
        ),
        (
            "an optimizer and a damaged dict",
            Dict(vec![
                ("optimizer", Dict(vec![("a.weight", Ones(5))])),
                ("cache", Dict(vec![("x", Lost)])),
                ("state_dict", Dict(plain())),
            ]),
        ),
    ];
    let parameters = [parameter("a.weight", 2), parameter("b.bias", 3)];
    for (name, node) in cases {
        let file = node.save();
        let checkpoint = Checkpoint::open_for(file.path(), &parameters).unwrap();
        let shapes: Vec<_> = checkpoint.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect();
        assert_eq!(shapes, [("a.weight", &[2][..]), ("b.bias", &[3][..])], "{name}");
        assert_eq!(checkpoint.tensors["b.bias"].read().unwrap(), [1.0; 3], "{name}");
    }
}

#[test]
fn errors_name_the_keys_that_were_found() {
    use Node::{Dict, Number, Ones};
    let parameters = [parameter("a.weight", 2)];
    let open = |node: Node| Checkpoint::open_for(node.save().path(), &parameters);
    let error = open(Dict(vec![("epoch", Number), ("state_dict", Dict(vec![("a.weight", Number)]))])).unwrap_err();
    assert!(error.to_string().contains("no tensors in the checkpoint; its keys are epoch, state_dict"), "{error}");
    let other = open(Dict(vec![("epoch", Number), ("model", Dict(vec![("c.weight", Ones(1))]))])).unwrap();
    let error = ParameterSource::check(&other, "tiny", &parameters, &|_| false).unwrap_err();
    let expected = "does not match tiny; missing: a.weight; unexpected: c.weight; keys of the file: epoch, model";
    assert!(error.to_string().ends_with(expected), "{error}");
}
