//! `kinoprobe-models quantize` and `kinoprobe-extract --precision int8`, and `--precision bf16`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::Workspace;
use crate::support::{assert_code, fixture, printed, run_python};

/// Prints precision and provider of a store, and the smallest cosine between its rows and those of another one.
const COMPARE: &str = "
import h5py, numpy, sys
(a, attributes), (b, _) = [(s['features'][:].astype('f8'), dict(s.attrs)) for s in map(h5py.File, sys.argv[1:])]
cosine = (a * b).sum(1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)
print(attributes['precision'], attributes['provider'], cosine.min(), int((a != b).any()))
";

fn quantize(workspace: &Workspace, models: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-models"));
    command.args(["quantize", "tiny", "--quiet", "--items", "12", "--models"]).arg(models);
    command.args(arguments).arg("--clips").arg(workspace.path("manifest.csv")).output().unwrap()
}

#[test]
fn networks_are_quantized_on_clips_and_extracted_in_int8() {
    let workspace = Workspace::new(4);
    let models = workspace.path("models");
    fs::create_dir(&models).unwrap();
    for name in ["tiny.onnx", "tiny.toml"] {
        fs::copy(fixture("models").join(name), models.join(name)).unwrap();
    }
    let extract =
        |out: &str, arguments: &[&str]| workspace.command_with_models(out, &models).args(arguments).output().unwrap();
    let output = extract("int8.h5", &["--precision", "int8"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("kinoprobe-models quantize tiny --clips CLIPS"), "{}", printed(&output));

    let output = quantize(&workspace, &models, &[]);
    assert_code(&output, 0);
    let text = printed(&output);
    assert!(text.contains("1 layer in int8, 0 kept in f32"), "{text}");
    assert!(
        text.contains("calibrated on 9 items (") && text.contains("cosine with f32 on 3 others: mean 0.99"),
        "{text}"
    );
    let file = text.lines().last().unwrap();
    assert!(file.ends_with("-int8-v2.onnx") && Path::new(file).is_file(), "{text}");
    let output = quantize(&workspace, &models, &[]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("exists already"), "{}", printed(&output));
    let copy = workspace.path("copy.onnx");
    assert_code(&quantize(&workspace, &models, &["--out", copy.to_str().unwrap()]), 0);
    assert!(fs::read(file).unwrap() == fs::read(&copy).unwrap(), "the same clips give the same file");

    assert_code(&extract("f32.h5", &[]), 0);
    assert_code(&extract("int8.h5", &["--precision", "int8"]), 0);
    let compared = run_python(COMPARE, &[&workspace.path("int8.h5"), &workspace.path("f32.h5")]);
    let fields: Vec<&str> = compared.split_whitespace().collect();
    assert!(fields[0] == "int8" && fields[1].starts_with("native-"), "{compared}");
    assert!(fields[2].parse::<f64>().unwrap() > 0.99 && fields[3] == "1", "{compared}");
    for device in ["cpu", "openvino"] {
        let name = format!("{device}.h5");
        assert_code(&extract(&name, &["--precision", "int8", "--device", device]), 0);
        let compared = run_python(COMPARE, &[&workspace.path(&name), &workspace.path("int8.h5")]);
        let fields: Vec<&str> = compared.split_whitespace().collect();
        assert!(fields[..2] == ["int8", device] && fields[2].parse::<f64>().unwrap() > 0.999, "{compared}");
    }

    // A store never mixes precisions, and the precision of a file is that of the flag.
    for (out, arguments) in [("int8.h5", &[][..]), ("f32.h5", &["--precision", "int8"])] {
        let output = extract(out, arguments);
        assert_code(&output, 1);
        assert!(printed(&output).contains("precision"), "{}", printed(&output));
    }
    let weights = copy.to_str().unwrap();
    let output = extract("copy.h5", &["--weights", weights]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("a network in int8, but the precision is auto"), "{}", printed(&output));
    assert_code(&extract("copy.h5", &["--weights", weights, "--precision", "int8"]), 0);
    let compared = run_python(COMPARE, &[&workspace.path("copy.h5"), &workspace.path("int8.h5")]);
    assert!(compared.trim().ends_with(" 0"), "{compared}");
}

#[test]
fn features_in_bf16_have_a_store_of_their_own() {
    let workspace = Workspace::new(4);
    let extract = |out: &str, arguments: &[&str]| workspace.command(out).args(arguments).output().unwrap();
    assert_code(&extract("f32.h5", &[]), 0);
    let output = extract("bf16.h5", &["--precision", "bf16"]);
    assert_code(&output, 0);
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |word: &str| processor.contains(word);
    let is_faster = has("amx_bf16") || (has("avx512_bf16") && !has("GenuineIntel"));
    let warned = printed(&output).contains("precision bf16 is not faster than f32");
    assert!(is_faster || warned, "{}", printed(&output));
    let compared = run_python(COMPARE, &[&workspace.path("bf16.h5"), &workspace.path("f32.h5")]);
    let fields: Vec<&str> = compared.split_whitespace().collect();
    assert!(fields[0] == "bf16" && fields[1].starts_with("native-"), "{compared}");
    assert!(fields[2].parse::<f64>().unwrap() > 0.9995 && fields[3] == "1", "{compared}");
    for (out, arguments) in [("bf16.h5", &[][..]), ("f32.h5", &["--precision", "bf16"])] {
        let output = extract(out, arguments);
        assert_code(&output, 1);
        assert!(printed(&output).contains("precision"), "{}", printed(&output));
    }
    for device in ["cpu", "openvino"] {
        let output = extract("other.h5", &["--precision", "bf16", "--device", device]);
        assert_code(&output, 1);
        let message = format!(
            "device {device} does not support precision bf16; only the native kernels compute in it: use --device native"
        );
        assert!(printed(&output).contains(&message), "{}", printed(&output));
    }
}
