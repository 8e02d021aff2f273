//! Classification with the real binaries, on stores written by kinoprobe and by h5py.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kinoprobe::store::{ClipRows, Failure, Payload, Provenance, RowSource, StoreWriter, Values};
use ndarray::Array2;
use tempfile::TempDir;

use crate::support::{assert_code, printed, run_python};

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
            writer
                .push(ClipRows {
                    id: clip.id.clone(),
                    path: format!("{}.mp4", clip.id),
                    frame_count: 1,
                    fps: 25.0,
                    duration_seconds: 0.04,
                    rows: vec![RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 0.04, padded: false }],
                    values: Values::Features(Array2::from_shape_vec((1, dim), clip.features.clone()).unwrap()),
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
fn clips_without_features_are_reported_with_the_reason() {
    let clips = separable(&["a", "b"], [6, 2, 2], 4);
    let bench = Bench::new(&clips);
    let failure = Failure { id: clips[0].id.clone(), stage: "decode".into(), error: "no frame".into() };
    bench.store(&clips[1..], "registry", &[failure]);
    let output = bench.classify("out", &QUICK);
    assert_code(&output, 0);
    assert!(printed(&output).contains("train-a-0 (decode: no frame)"), "{}", printed(&output));
    // A store with more clips than the manifest.
    bench.store(&clips, "registry", &[]);
    bench.manifest(&clips[1..]);
    let output = bench.classify("out", &QUICK);
    assert_code(&output, 0);
    assert!(
        printed(&output).contains("excluded 1 clips of made.h5 that are not in the manifest"),
        "{}",
        printed(&output)
    );
}

#[test]
fn untrained_features_are_reported() {
    let clips = separable(&["a", "b"], [6, 2, 0], 4);
    let bench = Bench::new(&clips);
    bench.store(&clips, "seeded", &[]);
    let output = bench.classify("out", &[&QUICK[..], &["--quiet"]].concat());
    assert_code(&output, 0);
    assert!(printed(&output).to_lowercase().contains("untrained"), "{}", printed(&output));
    assert_eq!(bench.metrics("out")["untrained"], true);
}

#[test]
fn unusable_inputs_are_errors_with_a_reason() {
    let clips = separable(&["a", "b", "c"], [4, 2, 2], 4);
    let bench = Bench::new(&clips);
    let without = |gone: &dyn Fn(&Made) -> bool| clips.iter().filter(|clip| !gone(clip)).cloned().collect::<Vec<_>>();

    // A class whose training clips have no features.
    bench.store(&without(&|clip| clip.label == "b" && clip.split == "train"), "registry", &[]);
    bench.assert_error(&QUICK, &["no training clip with features for class b", "4 clips have no features"]);
    // A split whose clips have no features.
    bench.store(&without(&|clip| clip.split == "val"), "registry", &[]);
    bench.assert_error(&QUICK, &["none of the 6 clips of the split val has features"]);
    // A NaN feature.
    let mut broken = clips.clone();
    broken[3].features[2] = f32::NAN;
    bench.store(&broken, "registry", &[]);
    bench.assert_error(&QUICK, &["made.h5", "feature 2 of clip train-a-1 is NaN"]);
    // A class without training clips, and a manifest with a single class.
    bench.store(&clips, "registry", &[]);
    bench.manifest(&without(&|clip| clip.label == "c" && clip.split == "train"));
    bench.assert_error(&QUICK, &["manifest.csv", "`c` has no training clip"]);
    bench.manifest(&without(&|clip| clip.label != "a"));
    bench.assert_error(&QUICK, &["only one class, a"]);
    // Several labels per clip for a single-label task.
    bench.manifest(&clips);
    let text = fs::read_to_string(bench.path("manifest.csv")).unwrap();
    let text = text.replace("label,", "labels,").replace("train-a-0.mp4,a", "train-a-0.mp4,a|b");
    fs::write(bench.path("manifest.csv"), text).unwrap();
    bench.assert_error(&[&QUICK[..], &["--task", "single-label"]].concat(), &["clip train-a-0 has 2 labels (a, b)"]);
    // Values out of range, options of another classifier, and an invalid store.
    bench.manifest(&clips);
    let recipe = String::from_utf8(bench.classify("failed", &["--dry-run"]).stdout).unwrap();
    assert!(recipe.contains("batch = 64"), "{recipe}");
    fs::write(bench.path("recipe.toml"), recipe.replace("batch = 64", "batch = 1")).unwrap();
    bench.assert_error(&["--recipe", "recipe.toml"], &["recipe.toml", "batch must be at least 2"]);
    for (classifier, flag, value) in
        [("logistic", "--loss-weights", "balanced"), ("knn", "--hidden", "4"), ("bayes", "--seeds", "2")]
    {
        let expected =
            format!("{flag} does not apply to classifier {classifier}; classifiers with this option: mlp, bilstm");
        bench.assert_error(&["--classifier", classifier, flag, value], &[&expected]);
    }
    bench.assert_error(&["--learning-rate", "1e30", "--epochs", "9"], &["training diverged"]);
    fs::write(bench.path("made.h5"), "no store").unwrap();
    bench.assert_error(&QUICK, &["made.h5"]);
}

#[test]
fn models_reject_features_of_another_method() {
    let bench = Bench::new(&separable(&["a", "b"], [6, 2, 0], 4));
    assert_code(&bench.classify("out", &QUICK), 0);
    bench.store(&separable(&["a", "b"], [6, 2, 0], 5), "registry", &[]);
    let output = bench.evaluate("out");
    assert_code(&output, 1);
    assert!(printed(&output).contains("5 dimensions, but the model was fitted to 4"), "{}", printed(&output));
}

/// Writes a complete store with h5py, with format and version as the only provenance.
const FOREIGN_STORE: &str = "
import sys, h5py, numpy as np
directory = sys.argv[1]
random = np.random.default_rng(0)
labels = [['x', 'y'][i % 2] for i in range(40)]
features = (random.normal(size=(40, 8)) + np.array([3.0 * (l == 'y') for l in labels])[:, None]).astype('f4')
with h5py.File(directory + '/made.h5', 'w') as f:
    f.attrs.update(format='kinoprobe-features', format_version=1, dim=8)
    f.create_dataset('features', data=features, chunks=True, compression='gzip', shuffle=True)
    for name, values in dict(clip=np.arange(40, dtype='u4'), start_frame=np.zeros(40, 'u8'), start_seconds=np.zeros(40),
                             end_seconds=np.ones(40), padded=np.zeros(40, 'u1')).items():
        f['rows/' + name] = values
    f['clips/id'] = np.array([f'clip{i}' for i in range(40)], dtype=h5py.string_dtype())
    f['clips/path'] = np.array([f'clip{i}.mp4' for i in range(40)], dtype=h5py.string_dtype())
    for name, values in dict(offset=np.arange(40, dtype='u8'), length=np.ones(40, 'u4'), frame_count=np.ones(40, 'u8'),
                             fps=np.full(40, 25.0), duration_seconds=np.ones(40)).items():
        f['clips/' + name] = values
    f['pooled/mean'] = features
    f['pooled/max'] = features
    for name in 'id', 'stage', 'error':
        f.create_dataset('failures/' + name, (0,), dtype=h5py.string_dtype())
with open(directory + '/manifest.csv', 'w') as f:
    f.write('id,path,label\\n')
    for i, label in enumerate(labels):
        open(f'{directory}/clip{i}.mp4', 'w').close()
        f.write(f'clip{i},clip{i}.mp4,{label}\\n')
";

#[test]
fn stores_of_other_programs_are_accepted() {
    let bench = Bench { directory: tempfile::tempdir().unwrap() };
    run_python(FOREIGN_STORE, &[bench.directory.path()]);
    assert_code(&bench.classify("out", &QUICK), 0);
    let metrics = bench.metrics("out");
    assert_eq!(metrics["val"]["accuracy"], 1.0);
    assert_eq!(metrics["method"], "made", "the method defaults to the file name");
}

/// Writes a store with the required data sets only, with h5py: sequences of three to nine rows, one of which indicates the
/// class.
const MINIMAL_STORE: &str = "
import sys, h5py, numpy as np
directory = sys.argv[1]
random = np.random.default_rng(0)
labels = [['x', 'y'][i % 2] for i in range(60)]
lengths = random.integers(3, 10, 60)
offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
features = random.normal(size=(lengths.sum(), 8)).astype('f4')
for label, offset, length in zip(labels, offsets, lengths):
    features[offset + random.integers(length), :4] += 9.0 if label == 'x' else -9.0
with h5py.File(directory + '/made.h5', 'w') as f:
    f.attrs.update(format='kinoprobe-features', format_version=1)
    f['features'] = features
    f['rows/clip'] = np.repeat(np.arange(60), lengths)
    f['clips/id'] = [f'clip{i}' for i in range(60)]
    f['clips/offset'] = offsets
    f['clips/length'] = lengths
with open(directory + '/manifest.csv', 'w') as f:
    f.write('id,path,label\\n')
    for i, label in enumerate(labels):
        open(f'{directory}/clip{i}.mp4', 'w').close()
        f.write(f'clip{i},clip{i}.mp4,{label}\\n')
";

/// Prints what TensorBoard reads from the event files of a run.
const TENSORBOARD: &str = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
for part in 'train', 'val':
    events = EventAccumulator(f'{sys.argv[1]}/tensorboard/{part}')
    events.Reload()
    tags = events.Tags()
    print(part, sorted(tags['scalars']), sorted(tags['tensors']))
    print(len(events.Scalars('loss')), events.Scalars('loss')[-1].step)
    for tag in tags['tensors']:
        print(events.SummaryMetadata(tag).plugin_data.plugin_name, tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto).shape)
";

#[test]
fn bilstm_learns_from_a_minimal_store_and_a_recipe_repeats_its_run() {
    let bench = Bench { directory: tempfile::tempdir().unwrap() };
    run_python(MINIMAL_STORE, &[bench.directory.path()]);
    let quick = ["--hidden", "8", "--epochs", "30", "--batch", "8", "--patience", "30", "--split-seed", "3"];
    let flags = [&quick[..], &["--classifier", "bilstm", "--sample", "random-window", "--length", "8"]].concat();
    let output = bench.classify("out", &flags);
    assert_code(&output, 0);
    let metrics = bench.metrics("out");
    assert!(metrics["val"]["accuracy"].as_f64().unwrap() > 0.9, "{metrics}");
    assert_eq!(metrics["method"], "made");

    // Pooled features are computed from the rows.
    assert_code(&bench.classify("pooled", &[&QUICK[..], &["--pooling", "max"]].concat()), 0);

    let evaluated = bench.evaluate("out");
    assert_code(&evaluated, 0);

    let read = |file: &str| fs::read(bench.path(file)).unwrap();
    let before = read("out/predictions.csv");
    let classify = env!("CARGO_BIN_EXE_kinoprobe-classify");
    assert_code(&bench.run(classify, &["--recipe", "out/recipe.toml", "--out", "again"]), 0);
    assert!(
        before == read("again/predictions.csv") && read("out/model.safetensors") == read("again/model.safetensors")
    );
    fs::remove_file(bench.path("out/predictions.csv")).unwrap();
    assert_code(&bench.run(classify, &["--recipe", "out/recipe.toml"]), 0);
    assert!(before == read("out/predictions.csv"));
    let output = bench.run(classify, &["--out", "nothing"]);
    assert_code(&output, 2);

    let text = run_python(TENSORBOARD, &[&bench.path("out")]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["train ['accuracy', 'learning_rate', 'loss'] []", "30 30"]);
    assert_eq!(lines[2..4], ["val ['accuracy', 'loss'] ['pr/x', 'pr/y']", "30 30"]);
    assert_eq!(lines[4..], ["pr_curves (6, 201)"; 2]);
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

#[test]
fn features_of_another_recipe_or_network_are_noticed() {
    let bench = Bench::new(&separable(&["a", "b"], [8, 4, 4], 4));
    assert_code(&bench.classify("run", &["--classifier", "knn"]), 0);
    let text = printed(&bench.evaluate("run"));
    assert!(!text.contains("warning"), "{text}");
    let set = |attribute: &str, from: &str, to: &str| {
        let script = "
import h5py, sys
with h5py.File(sys.argv[1], 'a') as store:
    store.attrs[sys.argv[2]] = store.attrs[sys.argv[2]].replace(sys.argv[3], sys.argv[4])
";
        run_python(script, &[&bench.path("made.h5"), Path::new(attribute), Path::new(from), Path::new(to)]);
    };
    set("recipe", "\"batch\":1", "\"batch\":8");
    assert!(!printed(&bench.evaluate("run")).contains("warning"));
    set("recipe", "\"frames\":3", "\"frames\":2");
    let output = bench.evaluate("run");
    assert_code(&output, 0);
    let expected =
        "made.h5: extracted with other settings than the model's features: sampling.frames is 2, the model's 3";
    assert_eq!(printed(&output).matches(expected).count(), 1, "{}", printed(&output));
    set("model_sha256", "abc", "def");
    let output = bench.evaluate("run");
    assert_code(&output, 1);
    let expected = "evaluate: made.h5: computed by another network, numbers (registry weights, SHA-256 def…), than the \
                    model's features, numbers (registry weights, SHA-256 abc…)";
    assert!(printed(&output).starts_with(expected) && printed(&output).contains("--force"), "{}", printed(&output));
    let arguments =
        ["--features", "made.h5", "--manifest", "manifest.csv", "--out", "forced", "--model", "run", "--force"];
    let output = bench.run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &arguments);
    assert_code(&output, 0);
    assert!(printed(&output).contains("warning: made.h5: computed by another network"), "{}", printed(&output));
}
