//! kinoprobe-extract with ONNX models whose weights are in other files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{assert_code, fixture, printed, root, run_python};

/// The fields of a protobuf message: number, wire type, and the content or the encoded number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let varint = |bytes: &mut &[u8]| {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (digits, rest) = bytes.split_at(length);
        *bytes = rest;
        digits.iter().rev().fold(0u64, |value, byte| value << 7 | u64::from(byte & 0x7f))
    };
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let content = match key & 7 {
            0 => encode_varint(varint(&mut bytes)),
            wire_type => {
                let length = match wire_type {
                    2 => varint(&mut bytes) as usize,
                    1 => 8,
                    5 => 4,
                    _ => panic!("wire type {wire_type}"),
                };
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                content.to_vec()
            }
        };
        fields.push((key >> 3, key & 7, content));
    }
    fields
}

fn encode_varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        bytes.push((value & 0x7f) as u8 | if value > 0x7f { 0x80 } else { 0 });
        value >>= 7;
        if value == 0 {
            return bytes;
        }
    }
}

fn encode(fields: &[(u64, u64, Vec<u8>)]) -> Vec<u8> {
    let field = |(number, wire_type, content): &(u64, u64, Vec<u8>)| {
        let length = if *wire_type == 2 { encode_varint(content.len() as u64) } else { Vec::new() };
        [encode_varint(number << 3 | wire_type), length, content.clone()].concat()
    };
    fields.iter().flat_map(field).collect()
}

/// Moves the weights of a model into the file `location`: returns the model and that file's content.
fn externalize(model: &[u8], location: &str) -> (Vec<u8>, Vec<u8>) {
    let mut data = Vec::new();
    let mut model = fields(model);
    let graph = model.iter_mut().find(|(number, ..)| *number == 7).unwrap();
    let mut graph_fields = fields(&graph.2);
    for (_, _, tensor) in graph_fields.iter_mut().filter(|(number, ..)| *number == 5) {
        let mut tensor_fields = fields(tensor);
        let Some(raw) = tensor_fields.iter().position(|(number, ..)| *number == 9) else { continue };
        let (_, _, values) = tensor_fields.remove(raw);
        let (offset, length) = (data.len().to_string(), values.len().to_string());
        for (key, value) in [("location", location), ("offset", offset.as_str()), ("length", length.as_str())] {
            let entry = [(1, 2, key.as_bytes().to_vec()), (2, 2, value.as_bytes().to_vec())];
            tensor_fields.push((13, 2, encode(&entry)));
        }
        tensor_fields.push((14, 0, vec![1]));
        data.extend(values);
        *tensor = encode(&tensor_fields);
    }
    graph.2 = encode(&graph_fields);
    (encode(&model), data)
}

#[test]
fn external_weights_are_part_of_the_model_hash() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::copy(fixture("models/tiny.toml"), at.join("tiny.toml")).unwrap();
    let original = fs::read(fixture("models/tiny.onnx")).unwrap();
    let (model, data) = externalize(&original, "tiny.onnx.data");
    assert!(model.len() < original.len() && data.len() > 100);
    fs::write(at.join("tiny.onnx"), &model).unwrap();
    fs::write(at.join("clips.csv"), format!("id,path,label\na,{},x\n", fixture("media/plain.mp4").display())).unwrap();

    let output = extract(at, "missing.h5");
    assert_code(&output, 1);
    let text = printed(&output);
    assert!(text.contains("external data is missing: put tiny.onnx.data into the same directory"), "{text}");
    fs::write(at.join("tiny.onnx.data"), &data).unwrap();
    assert_code(&extract(at, "one.h5"), 0);
    assert!(printed(&extract(at, "one.h5")).contains("up to date"));

    // The features of the model with internal weights, up to the rounding of another backend.
    fs::write(at.join("tiny.onnx"), &original).unwrap();
    assert_code(&extract(at, "internal.h5"), 0);
    let compared = "
import h5py, numpy, sys, hashlib
a, b = h5py.File(sys.argv[1]), h5py.File(sys.argv[2])
assert numpy.allclose(a['features'][:], b['features'][:], rtol=1e-3, atol=1e-4)
assert a.attrs['model_sha256'] != b.attrs['model_sha256']
print(b.attrs['model_sha256'] == hashlib.sha256(open(sys.argv[3], 'rb').read()).hexdigest())
";
    let same = run_python(compared, &[&at.join("one.h5"), &at.join("internal.h5"), &at.join("tiny.onnx")]);
    assert_eq!(same.trim(), "True");

    // Other weights are another model.
    fs::write(at.join("tiny.onnx"), &model).unwrap();
    let halves = data.chunks_exact(4).flat_map(|b| (f32::from_le_bytes(b.try_into().unwrap()) * 0.5).to_le_bytes());
    fs::write(at.join("tiny.onnx.data"), halves.collect::<Vec<u8>>()).unwrap();
    let output = extract(at, "one.h5");
    assert_code(&output, 1);
    assert!(printed(&output).contains("model_sha256: stored"), "{}", printed(&output));

    let (model, _) = externalize(&original, "../tiny.onnx.data");
    fs::write(at.join("tiny.onnx"), &model).unwrap();
    let output = extract(at, "outside.h5");
    assert_code(&output, 1);
    assert!(printed(&output).contains("outside of the directory of the model"), "{}", printed(&output));
}

/// Extracts with the card in `directory`.
fn extract(directory: &Path, out: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    command.current_dir(root()).args(["--method", "tiny", "--recipe"]).arg(fixture("pipelines/tiny.toml"));
    command.arg("--models").arg(directory).arg("--manifest").arg(directory.join("clips.csv"));
    command.arg("--out").arg(directory.join(out)).output().unwrap()
}
