//! Evaluation, comparison and inspection, through the real binaries.

mod compare;
mod fusion;
mod inspect;
#[cfg(feature = "media")]
mod pages;
mod predictions;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{assert_code, run_python};

fn kinoprobe(binary: &str, directory: &Path, arguments: &[&str]) -> Output {
    Command::new(binary).current_dir(directory).args(arguments).output().unwrap()
}

fn evaluate(directory: &Path, arguments: &[&str]) -> Output {
    kinoprobe(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), directory, arguments)
}

fn compare(directory: &Path, arguments: &[&str]) -> Output {
    kinoprobe(env!("CARGO_BIN_EXE_kinoprobe-compare"), directory, arguments)
}

fn inspect(directory: &Path, arguments: &[&str]) -> Output {
    kinoprobe(env!("CARGO_BIN_EXE_kinoprobe-inspect"), directory, arguments)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Asserts that the file is well-formed XML without references to external resources.
fn assert_figure(path: &Path) {
    run_python("import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])", &[path]);
    let text = fs::read_to_string(path).unwrap();
    assert!(!text.contains("href") && !text.contains("@import"), "{}", path.display());
}

/// Writes two stores of the same clips with h5py: `strong` separates the classes, `weak` hardly does.
pub fn stores(directory: &Path) {
    let script = r#"
import sys, pathlib, h5py, numpy as np
directory = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(0)
names = ["cat", "dog", "owl"]
clips = [(f"{split}{i:02}", names[i % 3], split) for split, n in [("train", 60), ("val", 30), ("test", 45)] for i in range(n)]
(directory / "clips").mkdir()
with open(directory / "clips.csv", "w") as file:
    print("id,path,label,split,group", file=file)
    for i, (id, label, split) in enumerate(clips):
        (directory / "clips" / f"{id}.mp4").touch()
        print(f"{id},clips/{id}.mp4,{label},{split},film{i // 5}", file=file)
text = h5py.string_dtype()
for method, strength, weights in [("strong", 3.0, "published"), ("weak", 0.7, "seeded")]:
    n, d = len(clips), 6
    features = rng.normal(size=(n, d)).astype("f4")
    for i, (_, label, _) in enumerate(clips):
        features[i, names.index(label)] += strength
    features[clips.index(("test07", names[7 % 3], "test"))] = features[3]
    with h5py.File(directory / f"{method}.h5", "w") as store:
        store.attrs.update(format="kinoprobe-features", format_version=1, method=method, model="numbers", weights=weights,
            model_sha256="00", recipe='{"sampling":{"kind":"even","frames":1},"extractor":{"kind":"network","card":"numbers","batch":1}}',
            manifest_sha256="", dim=d, precision="f32", provider="cpu", tool_version="0", created="2026-01-01T00:00:00Z", extract_seconds=27.0)
        store["features"] = features
        store["rows/clip"] = np.arange(n, dtype="u4")
        store["rows/start_frame"] = np.zeros(n, "u8")
        store["rows/start_seconds"] = np.zeros(n, "f8")
        store["rows/end_seconds"] = np.full(n, 2.0)
        store["rows/padded"] = np.zeros(n, "u1")
        store.create_dataset("clips/id", data=[c[0] for c in clips], dtype=text)
        store.create_dataset("clips/path", data=[f"clips/{c[0]}.mp4" for c in clips], dtype=text)
        store["clips/offset"] = np.arange(n, dtype="u8")
        store["clips/length"] = np.ones(n, "u4")
        store["clips/frame_count"] = np.full(n, 50, "u8")
        store["clips/fps"] = np.full(n, 25.0)
        store["clips/duration_seconds"] = np.full(n, 2.0)
        store["pooled/mean"] = features
        store["pooled/max"] = features
        for name in ("id", "stage", "error"):
            store.create_dataset(f"failures/{name}", shape=(0,), dtype=text)
"#;
    run_python(script, &[directory]);
    for method in ["strong", "weak"] {
        let recipe = format!(
            "method = \"{method}\"\n[sampling]\nkind = \"even\"\nframes = 1\n[extractor]\nkind = \"network\"\n\
             card = \"numbers\"\nbatch = 1\n[classify.mlp]\nhidden = 16\n[classify.training]\nepochs = 12\n"
        );
        fs::write(directory.join(format!("{method}.toml")), recipe).unwrap();
    }
}

fn classify(directory: &Path, method: &str, classifier: &str) {
    let (store, recipe, out) =
        (format!("{method}.h5"), format!("{method}.toml"), format!("runs/{method}-{classifier}"));
    let arguments = ["--features", &store, "--manifest", "clips.csv", "--recipe", &recipe, "--out", &out];
    let arguments = [&arguments[..], &["--classifier", classifier, "--quiet"]].concat();
    assert_code(&kinoprobe(env!("CARGO_BIN_EXE_kinoprobe-classify"), directory, &arguments), 0);
}

/// Writes multi-label predictions for two splits, four clips per title; a higher `sharpness` separates the scores better.
fn multi_label_predictions(path: &Path, sharpness: f64) {
    let names = ["action", "comedy", "drama", "thriller", "western"];
    let noise = |i: usize, k: usize| ((i * 7919 + k * 104_729 + i * k * 31) % 997) as f64 / 997.0;
    let mut text = String::from("id,split,group,labels");
    names.iter().for_each(|name| text.push_str(&format!(",score:{name}")));
    for i in 0..160 {
        // No clip has the label western.
        let mut truth: Vec<usize> = (0..4).filter(|&k| noise(i + 500, k + 9) < [0.5, 0.4, 0.3, 0.2][k]).collect();
        if truth.is_empty() {
            truth.push(2);
        }
        let labels: Vec<&str> = truth.iter().map(|&k| names[k]).collect();
        let split = if i < 60 { "val" } else { "test" };
        text.push_str(&format!("\nc{i},{split},title{},{}", i / 4, labels.join("|")));
        for k in 0..5 {
            let own = f64::from(u8::from(truth.contains(&k)));
            text.push_str(&format!(",{:.6}", sharpness * own + (1.0 - sharpness) * noise(i, k)));
        }
    }
    fs::write(path, text + "\n").unwrap();
}
