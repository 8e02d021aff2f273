//! kinoprobe-train: end-to-end training, its outputs, and continuation after an interruption.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kinoprobe::manifest::Split;
use kinoprobe::store::FeatureStore;
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::support::{assert_code, printed, root, run_python, send_signal};

const RECIPE: &str = r#"
method = "tiny"

[sampling]
kind = "even"
frames = 1

[input]
size = [32, 32]
resize = { size = [32, 32] }

[network]
card = "resnet18"
weights = "none"

[training]
batch = 4
epochs = 4

[optimizer]
kind = "adamw"
learning_rate = 0.001
"#;

/// Prints all scalars of the event files of a run as `{TAG: [[step, time, value], …]}`.
const SCALARS: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
scalars = {}
for part in 'train', 'val':
    # Without hiding events that are followed by others of earlier steps.
    events = EventAccumulator(f'{sys.argv[1]}/tensorboard/{part}', purge_orphaned_data=False)
    events.Reload()
    for tag in events.Tags()['scalars']:
        scalars[f'{part}/{tag}'] = [[event.step, event.wall_time, event.value] for event in events.Scalars(tag)]
print(json.dumps(scalars))
";

/// A directory with images of two classes: vertical and horizontal stripes.
struct Workspace {
    directory: TempDir,
}

impl Workspace {
    fn new(recipe: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut manifest = "id,path,label,split\n".to_string();
        for (split, count) in [("train", 12), ("val", 4), ("test", 4), ("none", 2)] {
            for i in 0..count {
                let name = format!("image-{split}{i}");
                let class = i % 2;
                let pixel = |x: usize, y: usize| {
                    let phase = if class == 0 { x } else { y } + i;
                    [if phase % 8 < 4 { 220 } else { 30 }, (40 * i + 3 * x) as u8, (7 * y) as u8]
                };
                let pixels: Vec<u8> = (0..32 * 32).flat_map(|at| pixel(at % 32, at / 32)).collect();
                let bytes = [b"P6\n32 32\n255\n".as_slice(), &pixels].concat();
                fs::write(directory.path().join(format!("{name}.ppm")), bytes).unwrap();
                // Clips without a label are predicted.
                let (label, split) = if split == "none" { ("", "test") } else { (["columns", "rows"][class], split) };
                manifest += &format!("{name},{name}.ppm,{label},{split}\n");
            }
        }
        fs::write(directory.path().join("manifest.csv"), manifest).unwrap();
        fs::write(directory.path().join("recipe.toml"), recipe).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, out: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-train"));
        command.current_dir(self.directory.path()).args(["--recipe", "recipe.toml", "--manifest", "manifest.csv"]);
        command.arg("--models").arg(root().join("models")).args(["--out", out, "--threads", "2"]).args(flags);
        command
    }

    fn train(&self, out: &str, flags: &[&str]) -> Output {
        self.command(out, flags).output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Reads the tensors of a file as bytes.
    fn tensors(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let bytes = fs::read(self.path(name)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
    }

    /// Reads the event files of a run: step, time and value by tag.
    fn scalars(&self, run: &str) -> BTreeMap<String, Vec<(usize, f64, f64)>> {
        serde_json::from_str(&run_python(SCALARS, &[&self.path(run)])).unwrap()
    }

    /// Reads a tensor of f32 values.
    fn values(&self, file: &str, tensor: &str) -> Vec<f32> {
        let bytes = self.tensors(file).remove(tensor).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_trained_network_is_evaluated_and_extracts_features() {
    let workspace = Workspace::new(RECIPE);
    let output = workspace.train("runs/trained", &[]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("epoch 4/4"), "{}", printed(&output));
    let metrics: serde_json::Value = serde_json::from_str(&workspace.read("runs/trained/metrics.json")).unwrap();
    assert_eq!((&metrics["method"], &metrics["classifier"]), (&"trained".into(), &"end-to-end".into()));
    assert_eq!((&metrics["test"]["n"], &metrics["unlabeled"]), (&4.into(), &2.into()));
    for name in ["REPORT.md", "curves.svg", "classification_report.txt", "confusion_test.svg", "submission.csv"] {
        assert!(workspace.path(&format!("runs/trained/{name}")).is_file(), "{name}");
    }
    assert_eq!(workspace.read("runs/trained/training.csv").lines().count(), 5);

    // The names are those of torchvision: 20 convolutions, 20 batch norms with four tensors each, and the classifier.
    let names: Vec<String> = workspace.tensors("runs/trained/network.safetensors").into_keys().collect();
    assert_eq!(names.len(), 20 + 4 * 20 + 2);
    assert!(names.contains(&"layer4.1.bn2.running_var".to_string()) && names.contains(&"fc.bias".to_string()));

    // Extraction with native kernels yields the embeddings from which the classifier computes the scores.
    let run = workspace.path("runs/trained");
    let mut extract = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    extract.current_dir(workspace.directory.path()).args(["--method", "trained", "--device", "native", "--quiet"]);
    extract.args(["--recipe", "runs/trained/extraction.toml", "--models", text(&run), "--manifest", "manifest.csv"]);
    assert_code(&extract.args(["--out", "trained.h5"]).output().unwrap(), 0);
    let store = FeatureStore::open(&workspace.path("trained.h5")).unwrap();
    assert_eq!((store.provenance().method.as_str(), store.provenance().weights.as_str()), ("trained", "file"));
    let features = store.features(0..22).unwrap();
    let (weight, bias) = (
        workspace.values("runs/trained/network.safetensors", "fc.weight"),
        workspace.values("runs/trained/network.safetensors", "fc.bias"),
    );
    let predictions = workspace.read("runs/trained/predictions.csv");
    let mut compared = 0;
    for (clip, row) in store.clips().iter().zip(features.rows()) {
        let Some(line) = predictions.lines().find(|line| line.split(',').any(|field| field == clip.id)) else {
            assert!(!clip.id.starts_with(&format!("image-{}", Split::Test)), "{predictions}");
            continue;
        };
        let logits: Vec<f32> = (0..2)
            .map(|class| row.iter().zip(&weight[512 * class..]).map(|(x, w)| x * w).sum::<f32>() + bias[class])
            .collect();
        let expected = 1.0 / (1.0 + (logits[1] - logits[0]).exp());
        let scores: Vec<f32> = line.rsplit(',').take(2).map(|field| field.parse().unwrap()).collect();
        assert!((scores[1] - expected).abs() < 1e-4, "{}: {line}, expected {expected}", clip.id);
        compared += 1;
    }
    assert_eq!(compared, 8);

    // The network predicts new clips with its classifier.
    let mut predict = Command::new(env!("CARGO_BIN_EXE_kinoprobe-predict"));
    predict.current_dir(workspace.directory.path()).args(["--model", "runs/trained", "--device", "native"]);
    predict.args(["manifest.csv", "--out", "predicted.csv", "--features", "logits.h5", "--timeline", "timeline.csv"]);
    assert_code(&predict.output().unwrap(), 0);
    let predicted = workspace.read("predicted.csv");
    assert_eq!(predicted.lines().next(), Some("id,path,predicted,error,score:columns,score:rows"));
    for line in predictions.lines().skip(1) {
        let id = line.split(',').next().unwrap();
        let found = predicted.lines().find(|found| found.split(',').next() == Some(id)).unwrap();
        let scores = |line: &str| line.rsplit(',').take(2).map(|cell| cell.parse::<f32>().unwrap()).collect::<Vec<_>>();
        let pairs = scores(found).into_iter().zip(scores(line));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4), "{found}, expected {line}");
    }
    assert_eq!(workspace.read("timeline.csv").lines().count(), 1 + 22);

    // A run is neither replaced nor mixed with another one.
    let output = workspace.train("runs/trained", &[]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("--resume continues"), "{}", printed(&output));
    let output = workspace.train("runs/trained", &["--resume", "--learning-rate", "0.1"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("learning_rate = 0.1"), "{}", printed(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn other_programs_do_not_load_libtorch() {
    let loads_libtorch = |program: &str| {
        let output = Command::new("ldd").arg(program).output().unwrap();
        assert_code(&output, 0);
        String::from_utf8(output.stdout).unwrap().contains("libtorch_cpu")
    };
    assert!(loads_libtorch(env!("CARGO_BIN_EXE_kinoprobe-train")));
    for program in [
        env!("CARGO_BIN_EXE_kinoprobe-extract"),
        env!("CARGO_BIN_EXE_kinoprobe-classify"),
        env!("CARGO_BIN_EXE_kinoprobe-serve"),
    ] {
        assert!(!loads_libtorch(program), "{program}");
    }
}

#[test]
fn training_continues_exactly_after_it_was_killed() {
    let recipe = RECIPE
        .replace("[training]", "[network.head]\nhidden = 16\ndropout = 0.5\n\n[augment]\nflip = 0.5\n\n[training]");
    let workspace = Workspace::new(&recipe);
    assert_code(&workspace.train("whole", &[]), 0);
    let mut child = workspace.command("killed", &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("epoch 2/4"));
    send_signal(&child, "-KILL");
    child.wait().unwrap();
    assert!(line.is_some());
    assert!(!workspace.path("killed/metrics.json").exists());
    let before = workspace.scalars("killed");
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        ["train/accuracy", "train/learning_rate", "train/loss", "val/accuracy", "val/loss"]
    );
    assert_code(&workspace.train("killed", &["--resume"]), 0);
    let (after, uninterrupted) = (workspace.scalars("killed"), workspace.scalars("whole"));
    let values =
        |points: &[(usize, f64, f64)]| points.iter().map(|&(step, _, value)| (step, value)).collect::<Vec<_>>();
    for (tag, points) in &before {
        // What was written before remains, and every epoch occurs once.
        assert!(points.len() >= 2 && after[tag].starts_with(points), "{tag}: {points:?}, then {:?}", after[tag]);
        assert_eq!(after[tag].iter().map(|point| point.0).collect::<Vec<_>>(), [1, 2, 3, 4], "{tag}");
        assert_eq!(values(&after[tag]), values(&uninterrupted[tag]), "{tag}");
    }
    let curves = workspace.read("killed/curves.csv");
    let losses = curves.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse::<f32>().unwrap().into());
    assert_eq!(losses.collect::<Vec<f64>>(), after["train/loss"].iter().map(|point| point.2).collect::<Vec<_>>());
    for file in ["network.safetensors", "checkpoint.safetensors"] {
        let [whole, killed] = ["whole", "killed"].map(|run| workspace.tensors(&format!("{run}/{file}")));
        assert_eq!(whole.keys().collect::<Vec<_>>(), killed.keys().collect::<Vec<_>>());
        let differing: Vec<_> = whole.iter().filter(|(name, bytes)| killed[*name] != **bytes).collect();
        assert!(differing.is_empty(), "{file}: {:?}", differing.iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
    for file in ["predictions.csv", "curves.csv"] {
        assert_eq!(workspace.read(&format!("whole/{file}")), workspace.read(&format!("killed/{file}")), "{file}");
    }
    // More epochs of the same training, and the same number at once.
    assert_code(&workspace.train("killed", &["--resume", "--epochs", "6"]), 0);
    assert_code(&workspace.train("six", &["--epochs", "6", "--workers", "3"]), 0);
    assert!(workspace.tensors("killed/checkpoint.safetensors") == workspace.tensors("six/checkpoint.safetensors"));
}

#[test]
fn self_supervised_recipes_use_unlabeled_clips() {
    let rotations = "[rotations]\nframes = 2\n\n[rotations.head]\nhidden = 8\n\n[training]";
    let workspace = Workspace::new(&RECIPE.replace("[training]", rotations));
    let directory = workspace.directory.path();
    fs::create_dir(workspace.path("lists")).unwrap();
    fs::copy(workspace.path("manifest.csv"), workspace.path("lists/more.csv")).unwrap();
    let output =
        workspace.train("sesemi", &["--unlabeled", "lists/more.csv", "--root", text(directory), "--epochs", "2"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("rotations "), "{}", printed(&output));
    let names: Vec<String> = workspace.tensors("sesemi/network.safetensors").into_keys().collect();
    assert!(!names.iter().any(|name| name.starts_with("rotations")), "{names:?}");
    let state: Vec<String> = workspace.tensors("sesemi/checkpoint.safetensors").into_keys().collect();
    for name in
        ["optimizer1.rotations.3.weight.exp_avg", "optimizer0.fc.weight.exp_avg", "optimizer1.conv1.weight.exp_avg"]
    {
        assert!(state.iter().any(|found| found == name), "{name}");
    }
    assert!(!state.iter().any(|name| name.starts_with("optimizer0.rotations") || name.starts_with("optimizer1.fc")));

    // Pre-training, and training from its checkpoint.
    let contrastive = "[contrastive]\ntemperature = 0.5\ndim = 16\nhidden = 32\n\n[augment]\nflip = 0.5\n\n[training]";
    fs::write(workspace.path("recipe.toml"), RECIPE.replace("[training]", contrastive)).unwrap();
    let output = workspace.train("simclr", &["--unlabeled", "manifest.csv"]);
    assert_code(&output, 0);
    assert!(!workspace.path("simclr/metrics.json").exists());
    assert!(workspace.path("simclr/tensorboard/train/events.out.tfevents.0.kinoprobe").is_file());
    let pretrained = workspace.tensors("simclr/network.safetensors");
    assert_eq!(pretrained.len(), 100);
    let frozen =
        RECIPE.replace("weights = \"none\"", "weights = \"simclr/network.safetensors\"\ntrainable = [\"layer4\"]");
    fs::write(workspace.path("recipe.toml"), frozen).unwrap();
    assert_code(&workspace.train("tuned", &[]), 0);
    let tuned = workspace.tensors("tuned/network.safetensors");
    let changed: Vec<&String> = pretrained.keys().filter(|name| tuned[*name] != pretrained[*name]).collect();
    assert!(!changed.is_empty() && changed.iter().all(|name| name.starts_with("layer4.")), "{changed:?}");

    fs::write(workspace.path("recipe.toml"), RECIPE).unwrap();
    let output = workspace.train("plain", &["--unlabeled", "manifest.csv"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("--unlabeled does not apply"), "{}", printed(&output));
}

#[test]
fn failures_have_a_remedy() {
    let workspace = Workspace::new(RECIPE);
    fs::write(workspace.path("recipe.toml"), RECIPE.replace("0.001", "1e30").replace("adamw", "sgd")).unwrap();
    let output = workspace.train("diverged", &[]);
    assert_code(&output, 1);
    let message = printed(&output);
    assert!(message.contains("the loss is") && message.contains("lower the learning rate"), "{message}");
    assert!(!workspace.path("diverged/network.safetensors").exists());
    // The keys of the message are those of the recipe.
    let output = workspace.train("loss", &["--loss", "bce"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("train: loss.kind: single-label tasks"), "{}", printed(&output));

    // A clip that cannot be decoded is excluded.
    fs::write(workspace.path("recipe.toml"), RECIPE).unwrap();
    fs::write(workspace.path("image-train3.ppm"), "P6\n32 32\n255\n").unwrap();
    let output = workspace.train("damaged", &["--epochs", "1"]);
    assert_code(&output, 3);
    assert!(workspace.read("damaged/REPORT.md").contains("excluded 1 of 22 clips"), "{}", printed(&output));
    let output = workspace.train("small", &["--cache", "small-cache", "--cache-size", "20K"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("--cache-size"), "{}", printed(&output));
}

#[test]
fn a_full_disk_loses_no_complete_epoch() {
    let workspace = Workspace::new(RECIPE);
    // Writing to this device fails as on a full disk. Both files are written under a temporary name.
    let fill = |file: &str| std::os::unix::fs::symlink("/dev/full", workspace.path(file)).unwrap();
    let fails = |file: &str, epochs: &str| {
        let output = workspace.train("run", &["--resume", "--epochs", epochs]);
        assert_code(&output, 1);
        let message = printed(&output);
        let expected = format!("{file}: the disk is full: free some space, and continue with --resume");
        assert!(message.lines().last().is_some_and(|line| line.contains(&expected)), "{message}");
        assert!(!workspace.path(&format!("{file}.new")).exists(), "the incomplete file is removed");
    };
    fs::create_dir(workspace.path("run")).unwrap();
    fill("run/network.safetensors.new");
    fails("run/network.safetensors", "2");
    assert!(!workspace.path("run/checkpoint.safetensors").exists());
    assert_code(&workspace.train("run", &["--resume", "--epochs", "2"]), 0);

    let before = fs::read(workspace.path("run/checkpoint.safetensors")).unwrap();
    fill("run/checkpoint.safetensors.new");
    fails("run/checkpoint.safetensors", "4");
    assert!(fs::read(workspace.path("run/checkpoint.safetensors")).unwrap() == before);
    assert_code(&workspace.train("run", &["--resume", "--epochs", "4"]), 0);
    assert_code(&workspace.train("whole", &["--epochs", "4"]), 0);
    for file in ["network.safetensors", "checkpoint.safetensors"] {
        let [run, whole] = ["run", "whole"].map(|run| workspace.tensors(&format!("{run}/{file}")));
        assert!(run == whole, "{file}");
    }
}

#[test]
fn comparisons_include_trained_networks() {
    let workspace = Workspace::new(RECIPE);
    assert_code(&workspace.train("runs/trained", &["--epochs", "2"]), 0);
    let mut extract = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    extract.current_dir(workspace.directory.path()).args(["--method", "trained", "--quiet", "--out", "trained.h5"]);
    extract.args([
        "--recipe",
        "runs/trained/extraction.toml",
        "--models",
        "runs/trained",
        "--manifest",
        "manifest.csv",
    ]);
    assert_code(&extract.output().unwrap(), 0);
    let mut classify = Command::new(env!("CARGO_BIN_EXE_kinoprobe-classify"));
    classify.current_dir(workspace.directory.path()).args(["--features", "trained.h5", "--manifest", "manifest.csv"]);
    assert_code(&classify.args(["--classifier", "logistic", "--out", "runs/probe", "--quiet"]).output().unwrap(), 0);
    let mut compare = Command::new(env!("CARGO_BIN_EXE_kinoprobe-compare"));
    let output =
        compare.current_dir(workspace.directory.path()).args(["runs", "--out", "runs/comparison"]).output().unwrap();
    assert_code(&output, 0);
    let report = workspace.read("runs/comparison/compare.md");
    assert!(report.contains("end-to-end") && report.contains("logistic") && report.contains("McNemar"), "{report}");
}
