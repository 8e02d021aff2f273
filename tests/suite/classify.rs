//! Classification with the real binaries, on stores written by kinoprobe and by h5py.

mod calibration;
mod errors;
mod folds;
mod memory;
mod search;
mod stores;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use kinoprobe::store::{ClipRows, Failure, Payload, Provenance, RowSource, StoreWriter, Values};
use ndarray::Array2;
use tempfile::TempDir;

use crate::support::{assert_code, printed};

/// A synthetic clip.
#[derive(Clone)]
struct Made {
    id: String,
    label: &'static str,
    split: &'static str,
    features: Vec<f32>,
}

/// Creates clips of well-separated classes in `dim` dimensions: `counts` clips per class for train, val and test.
fn separable(classes: &[&'static str], counts: [usize; 3], dim: usize) -> Vec<Made> {
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    };
    let mut clips = Vec::new();
    for (split, count) in ["train", "val", "test"].into_iter().zip(counts) {
        for i in 0..count {
            for (c, label) in classes.iter().enumerate() {
                let features = (0..dim).map(|d| noise() + if d % classes.len() == c { 6.0 } else { 0.0 }).collect();
                clips.push(Made { id: format!("{split}-{label}-{i}"), label, split, features });
            }
        }
    }
    clips
}

/// A directory with a store, a manifest of the same clips, and their (empty) files.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new(clips: &[Made]) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        bench.store(clips, "registry", &[]);
        bench.manifest(clips);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn store(&self, clips: &[Made], weights: &str, failures: &[Failure]) {
        let one_row = |clip: &Made| Array2::from_shape_vec((1, clip.features.len()), clip.features.clone()).unwrap();
        self.store_of(clips, weights, failures, &one_row);
    }

    /// Writes a store with the rows of each clip.
    fn store_of(&self, clips: &[Made], weights: &str, failures: &[Failure], rows: &dyn Fn(&Made) -> Array2<f32>) {
        let provenance = Provenance {
            method: "made".into(),
            model: "numbers".into(),
            weights: weights.into(),
            model_sha256: "abc".into(),
            recipe:
                r#"{"sampling":{"kind":"even","frames":3},"extractor":{"kind":"network","card":"numbers","batch":1}}"#
                    .into(),
            ..Provenance::default()
        };
        let dim = clips.first().map_or(1, |clip| clip.features.len());
        let mut writer = StoreWriter::create(&self.path("made.h5"), Payload::Features { dim }, &provenance).unwrap();
        for clip in clips {
            let features = rows(clip);
            let row =
                |i| RowSource { start_frame: i, start_seconds: 0.0, end_seconds: 0.04, padded: false, scale: 1.0 };
            writer
                .push(ClipRows {
                    id: clip.id.clone(),
                    path: format!("{}.mp4", clip.id),
                    start: None,
                    end: None,
                    frame_count: 1,
                    fps: 25.0,
                    duration_seconds: 0.04,
                    fully_decoded: false,
                    version: String::new(),
                    rows: (0..).take(features.nrows()).map(row).collect(),
                    values: Values::Features(features),
                })
                .unwrap();
        }
        for failure in failures {
            writer.push_failure(failure.clone());
        }
        writer.finish().unwrap();
    }

    fn manifest(&self, clips: &[Made]) {
        let mut text = String::from("id,path,label,split\n");
        for clip in clips {
            fs::write(self.path(&format!("{}.mp4", clip.id)), "").unwrap();
            text += &format!("{0},{0}.mp4,{1},{2}\n", clip.id, clip.label, clip.split);
        }
        fs::write(self.path("manifest.csv"), text).unwrap();
    }

    /// Runs kinoprobe-classify in the directory, which has no pipelines/.
    fn classify(&self, out: &str, flags: &[&str]) -> Output {
        let store = ["--features", "made.h5", "--manifest", "manifest.csv", "--out", out];
        self.run(env!("CARGO_BIN_EXE_kinoprobe-classify"), &[&store[..], flags].concat())
    }

    /// Evaluates the model in the directory `model` on the store and the manifest.
    fn evaluate(&self, model: &str) -> Output {
        let store = ["--features", "made.h5", "--manifest", "manifest.csv", "--out", "evaluated"];
        self.run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &[&store[..], &["--model", model]].concat())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        // This process writes stores. A child that another test starts meanwhile inherits the open file, and with it
        // HDF5's lock, until it exits.
        Command::new(program)
            .args(arguments)
            .env("HDF5_USE_FILE_LOCKING", "FALSE")
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn metrics(&self, out: &str) -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(self.path(out).join("metrics.json")).unwrap()).unwrap()
    }

    #[track_caller]
    fn assert_error(&self, flags: &[&str], expected: &[&str]) {
        let output = self.classify("failed", flags);
        assert_code(&output, 1);
        for part in expected {
            assert!(printed(&output).contains(part), "{part:?} is not in {}", printed(&output));
        }
        assert!(!self.path("failed/metrics.json").exists());
    }
}

/// Flags for short training, sufficient for separable data.
const QUICK: [&str; 8] = ["--hidden", "16", "--epochs", "20", "--batch", "16", "--patience", "20"];

#[test]
fn every_classifier_learns_separable_classes() {
    let mut clips = separable(&["blue", "green", "red"], [20, 5, 5], 12);
    clips.push(Made { id: "nameless".into(), label: "", split: "test", features: clips[1].features.clone() });
    let bench = Bench::new(&clips);
    for kind in ["mlp", "logistic", "bayes", "knn"] {
        let flags = if kind == "mlp" { &QUICK[..] } else { &[] };
        let output = bench.classify(kind, &[flags, &["--classifier", kind]].concat());
        assert_code(&output, 0);
        let metrics = bench.metrics(kind);
        assert_eq!(metrics["test"]["accuracy"], 1.0, "{kind}: {}", printed(&output));
        assert_eq!(metrics["val"]["accuracy"], 1.0);
        assert!(metrics["constant"]["test"]["accuracy"].as_f64().unwrap() < 0.34, "{}", metrics["constant"]);
        assert!(printed(&output).contains("constant 33.3"), "{}", printed(&output));
        assert_eq!(
            fs::read_to_string(bench.path(kind).join("submission.csv")).unwrap(),
            "Id,Category\nnameless,green\n"
        );
        for file in ["model.safetensors", "model.onnx", "predictions.csv", "recipe.toml", "REPORT.md", "per_class.csv"]
        {
            assert!(bench.path(kind).join(file).is_file(), "{kind} lacks {file}");
        }
        // --recipe reads the written recipe, which includes the extraction settings of the store.
        let recipe = fs::read_to_string(bench.path(kind).join("recipe.toml")).unwrap();
        assert!(recipe.contains("frames = 3") && (kind != "mlp" || recipe.contains("hidden = 16")), "{recipe}");
        let again = format!("{kind}-again");
        assert_code(&bench.classify(&again, &["--recipe", &format!("{kind}/recipe.toml")]), 0);
        let predictions = |run: &str| fs::read(bench.path(run).join("predictions.csv")).unwrap();
        assert!(predictions(kind) == predictions(&again), "{kind}");
    }
    assert!(bench.path("mlp/curves.csv").is_file() && !bench.path("knn/curves.csv").exists());

    // kinoprobe-evaluate reproduces the predictions without training.
    let evaluated = bench.evaluate("mlp");
    assert_code(&evaluated, 0);
    assert_eq!(bench.metrics("evaluated")["test"]["confusion"], bench.metrics("mlp")["test"]["confusion"]);
}

#[test]
fn runs_are_bit_identical_for_every_number_of_threads() {
    let mut clips = separable(&["a", "b"], [40, 10, 10], 30);
    clips.iter_mut().flat_map(|clip| &mut clip.features).for_each(|value| *value *= 0.2); // overlapping classes
    let bench = Bench::new(&clips);
    let files = |out: &str, threads: &str| {
        assert_code(&bench.classify(out, &[&QUICK[..], &["--threads", threads]].concat()), 0);
        ["predictions.csv", "curves.csv", "model.safetensors", "model.onnx"]
            .map(|file| fs::read(bench.path(out).join(file)).unwrap())
    };
    let first = files("one", "1");
    assert!(first == files("two", "1") && first == files("three", "3"));
}

#[test]
fn seeds_are_summarized_and_the_first_model_is_kept() {
    let bench = Bench::new(&separable(&["a", "b"], [10, 4, 0], 4));
    assert_code(&bench.classify("one", &QUICK), 0);
    assert_code(&bench.classify("three", &[&QUICK[..], &["--seeds", "3"]].concat()), 0);
    let metrics = bench.metrics("three");
    assert_eq!(metrics["seeds"]["results"].as_array().unwrap().len(), 3, "{metrics}");
    assert!(metrics["seeds"]["summary"]["val"]["accuracy"]["mean"].as_f64().unwrap() > 0.9);
    let model = |run: &str| fs::read(bench.path(run).join("model.safetensors")).unwrap();
    assert!(model("one") == model("three"));
}

#[test]
fn drawn_splits_are_written_and_can_be_reused() {
    let mut clips = separable(&["a", "b"], [20, 0, 0], 4);
    clips.iter_mut().for_each(|clip| clip.split = "");
    let bench = Bench::new(&clips);
    assert_code(&bench.classify("drawn", &QUICK), 0);
    assert_eq!(bench.metrics("drawn")["val"]["n"], 8);
    fs::copy(bench.path("drawn/manifest.csv"), bench.path("manifest.csv")).unwrap();
    assert_code(&bench.classify("given", &QUICK), 0);
    assert!(!bench.path("given/manifest.csv").exists(), "no split was drawn");
    let predictions = |run: &str| fs::read(bench.path(run).join("predictions.csv")).unwrap();
    assert!(predictions("drawn") == predictions("given"));
    assert_code(&bench.classify("dry", &["--dry-run"]), 0);
    assert!(!bench.path("dry").exists());
}

#[test]
fn small_data_sets_are_accepted() {
    // One training clip per class, fewer than a batch.
    let bench = Bench::new(&separable(&["a", "b"], [1, 1, 1], 4));
    for kind in ["mlp", "logistic", "bayes", "knn", "constant"] {
        let epochs: &[&str] = if kind == "mlp" { &["--epochs", "3"] } else { &[] };
        let output = bench.classify(kind, &[&["--classifier", kind], epochs].concat());
        assert_code(&output, 0);
        let accuracy = bench.metrics(kind)["test"]["accuracy"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy));
    }
    // Without validation clips, val is drawn from train.
    let bench = Bench::new(&separable(&["a", "b"], [10, 0, 4], 4));
    assert_code(&bench.classify("out", &QUICK), 0);
    assert_eq!(bench.metrics("out")["val"]["n"], 4);
    assert_eq!(bench.metrics("out")["test"]["n"], 8);
}

#[test]
fn files_of_an_earlier_run_are_removed() {
    let clips = separable(&["a", "b"], [8, 4, 4], 4);
    let bench = Bench::new(&clips);
    let manifest = fs::read_to_string(bench.path("manifest.csv")).unwrap();
    let without_splits: String =
        manifest.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned() + "\n").collect();
    fs::write(bench.path("manifest.csv"), without_splits).unwrap();
    assert_code(&bench.classify("run", &["--classifier", "mlp", "--epochs", "2"]), 0);
    for name in ["manifest.csv", "curves.csv", "curves.svg"] {
        assert!(bench.path("run").join(name).is_file(), "{name}");
    }
    fs::write(bench.path("run/notes.txt"), "mine").unwrap();
    fs::write(bench.path("manifest.csv"), &manifest).unwrap();
    assert_code(&bench.classify("run", &["--classifier", "knn"]), 0);
    for name in ["manifest.csv", "curves.csv", "curves.svg"] {
        assert!(!bench.path("run").join(name).exists(), "{name}");
    }
    assert_eq!(fs::read_to_string(bench.path("run/notes.txt")).unwrap(), "mine");

    // The manifest itself may be in the output directory.
    fs::write(bench.path("run/manifest.csv"), &manifest).unwrap();
    let arguments = ["--features", "made.h5", "--manifest", "run/manifest.csv", "--out", "run", "--classifier", "knn"];
    assert_code(&bench.run(env!("CARGO_BIN_EXE_kinoprobe-classify"), &arguments), 0);
    assert_eq!(fs::read_to_string(bench.path("run/manifest.csv")).unwrap(), manifest);
}
