//! kinoprobe-predict on real clips, with models trained by kinoprobe-classify on features of the tiny network.

mod errors;
mod fusion;
mod sift;
mod thresholds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{assert_code, fixture, printed, send_signal};

/// A directory with clips, parts of fixtures, and a store with their features.
struct Workspace {
    directory: TempDir,
}

/// The files of which the clips are parts, with the number of parts and their length in seconds.
const FILES: [(&str, usize, f64); 3] = [("plain.mp4", 20, 0.1), ("vp9.webm", 8, 0.1), ("turned_90.mp4", 8, 0.04)];

impl Workspace {
    /// Creates the clips with the labels `labels(i)`, and the store `tiny.h5`.
    fn new(labels: impl Fn(usize) -> &'static str) -> Self {
        let workspace = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(workspace.path("clips")).unwrap();
        let mut manifest = String::from("id,path,labels,split,start,end\n");
        let mut number = 0;
        for (file, parts, seconds) in FILES {
            fs::copy(fixture("media").join(file), workspace.path("clips").join(file)).unwrap();
            for part in 0..parts {
                let split = ["train", "val", "test", "train"][number % 4];
                let (start, end) = (part as f64 * seconds, (part + 3) as f64 * seconds);
                manifest += &format!("clip{number:02},clips/{file},{},{split},{start:.2},{end:.2}\n", labels(number));
                number += 1;
            }
        }
        fs::write(workspace.path("manifest.csv"), manifest).unwrap();
        fs::copy(fixture("pipelines/tiny.toml"), workspace.path("tiny.toml")).unwrap();
        workspace.extract("tiny", &[]);
        workspace
    }

    /// A workspace with clips of two classes.
    fn single_label() -> Self {
        Self::new(|i| ["down", "up"][i / 3 % 2])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("HDF5_USE_FILE_LOCKING", "FALSE").args(arguments);
        command
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        assert_code(&output, 0);
        printed(&output)
    }

    /// Extracts the features of the recipe METHOD.toml.
    #[track_caller]
    fn extract(&self, method: &str, flags: &[&str]) {
        let (recipe, out, cards) = (format!("{method}.toml"), format!("{method}.h5"), cards());
        let arguments =
            ["--method", method, "--recipe", &recipe, "--out", &out, "--manifest", "manifest.csv", "--models", &cards];
        self.run(env!("CARGO_BIN_EXE_kinoprobe-extract"), &[&arguments[..], &["--quiet"], flags].concat());
    }

    #[track_caller]
    fn classify(&self, store: &str, out: &str, flags: &[&str]) {
        let arguments = ["--features", store, "--manifest", "manifest.csv", "--out", out, "--quiet"];
        self.run(env!("CARGO_BIN_EXE_kinoprobe-classify"), &[&arguments[..], flags].concat());
    }

    fn predict_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_kinoprobe-predict"), arguments);
        command.args(["--cards", &cards()]);
        command
    }

    fn predict(&self, arguments: &[&str]) -> Output {
        self.predict_command(arguments).output().unwrap()
    }

    #[track_caller]
    fn assert_predicts(&self, arguments: &[&str]) -> String {
        let output = self.predict(arguments);
        assert_code(&output, 0);
        printed(&output)
    }

    #[track_caller]
    fn assert_error(&self, arguments: &[&str], expected: &str) {
        let output = self.predict(arguments);
        assert_code(&output, 1);
        assert!(printed(&output).contains(expected), "{expected:?} is not in {}", printed(&output));
    }

    /// Asserts that predictions have the scores of a run's predictions.csv, to the last digit.
    #[track_caller]
    fn assert_equal(&self, predicted: &str, run: &str) {
        let (expected, found) = (self.table(&format!("{run}/predictions.csv")), self.table(predicted));
        assert!(expected.len() > 10, "{run} has {} predictions", expected.len());
        for (id, row) in expected {
            let columns = row.keys().filter(|column| column.starts_with("score:"));
            for column in columns {
                assert_eq!(found[&id][column], row[column], "{run}, {id}, {column}");
            }
        }
    }

    /// Reads a CSV file: the cells of each column, by id.
    fn table(&self, name: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut reader = csv::Reader::from_path(self.path(name)).unwrap();
        let rows = reader.deserialize::<BTreeMap<String, String>>().map(Result::unwrap);
        rows.map(|row| (row["id"].clone(), row)).collect()
    }
}

/// The directory of the tiny network's card.
fn cards() -> String {
    fixture("models").display().to_string()
}

/// Flags for a short training.
const QUICK: [&str; 6] = ["--hidden", "8", "--epochs", "3", "--batch", "4"];

#[test]
fn predictions_equal_those_of_the_training() {
    let workspace = Workspace::single_label();
    for kind in ["mlp", "logistic", "knn", "bayes", "svm", "gbdt", "bilstm", "attentive", "transformer"] {
        let flags = match kind {
            "mlp" | "bilstm" | "transformer" => &QUICK[..],
            "attentive" => &QUICK[2..],
            _ => &[],
        };
        workspace.classify("tiny.h5", kind, &[&["--classifier", kind], flags].concat());
        let out = format!("{kind}.csv");
        workspace.assert_predicts(&["--model", kind, "manifest.csv", "--out", &out, "--features", "new.h5"]);
        workspace.assert_equal(&out, kind);
        // The scores of a clip do not depend on the others.
        fs::write(workspace.path("single.csv"), "id,path,start,end\nclip01,clips/plain.mp4,0.10,0.40\n").unwrap();
        workspace.assert_predicts(&["--model", kind, "single.csv", "--out", "single-predicted.csv"]);
        let (all, single) = (workspace.table(&out), workspace.table("single-predicted.csv"));
        assert_eq!(single["clip01"], all["clip01"], "{kind}");
    }
}

#[test]
fn all_formats_contain_the_same_predictions() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    let predict = |out: &str, more: &[&str]| {
        let arguments = ["--model", "run", "manifest.csv", "--features", "new.h5", "--out", out];
        workspace.assert_predicts(&[&arguments[..], more].concat())
    };
    let text = predict("predictions.csv", &["--top", "2"]);
    assert!(text.contains("top 2") && text.contains("… and 16 more clips"), "{text}");
    assert!(text.contains("wrote predictions.csv (36 clips)"), "{text}");
    predict("predictions.jsonl", &[]);
    predict("submission.csv", &["--format", "category"]);

    let text = workspace.read("predictions.csv");
    assert_eq!(text.lines().next(), Some("id,path,predicted,error,score:down,score:up"));
    let table = workspace.table("predictions.csv");
    let lines: Vec<serde_json::Value> =
        workspace.read("predictions.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let submission = workspace.read("submission.csv");
    let mut categories = submission.lines();
    assert_eq!(categories.next(), Some("Id,Category"));
    assert_eq!((table.len(), lines.len()), (36, 36));
    for line in lines {
        let row = &table[line["id"].as_str().unwrap()];
        assert_eq!(
            (line["path"].as_str(), line["predicted"].as_str()),
            (Some(&*row["path"]), Some(&*row["predicted"]))
        );
        for class in ["down", "up"] {
            let score: f32 = row[&format!("score:{class}")].parse().unwrap();
            assert_eq!(line["scores"][class].as_f64().unwrap() as f32, score);
        }
        assert_eq!(categories.next(), Some(&*format!("{},{}", row["id"], row["predicted"])));
        assert!(row["error"].is_empty());
    }
}

#[test]
fn directories_and_files_are_predicted_without_a_manifest() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    fs::create_dir(workspace.path("clips/more")).unwrap();
    fs::copy(fixture("media/gray.png"), workspace.path("clips/more/gray.png")).unwrap();
    fs::copy(fixture("media/ten.mp4"), workspace.path("ten.mp4")).unwrap();
    let text = workspace.assert_predicts(&["--model", "run", "clips", "ten.mp4", "--top", "1"]);
    for id in ["plain", "vp9", "turned_90", "more/gray", "ten"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(&format!("{id} "))), "{id}: {text}");
    }
    workspace.assert_predicts(&["--model", "run", "clips", "ten.mp4", "--out", "out/predictions.csv"]);
    let table = workspace.table("out/predictions.csv");
    assert_eq!(table["more/gray"]["path"], "clips/more/gray.png");
    assert_eq!(table["ten"]["path"], "ten.mp4");
}

#[test]
fn features_are_kept_and_interrupted_runs_continue() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    let arguments = |out: &'static str, features: &'static str| {
        ["--model", "run", "manifest.csv", "--out", out, "--features", features]
    };
    workspace.assert_predicts(&arguments("complete.csv", "complete.h5"));
    // The features are those of the original store.
    let store = |name: &str| kinoprobe::store::FeatureStore::open(&workspace.path(name)).unwrap();
    let (original, new) = (store("tiny.h5"), store("complete.h5"));
    assert_eq!(original.provenance().recipe, new.provenance().recipe);
    let rows = 0..original.row_count();
    assert!(original.features(rows.clone()).unwrap() == new.features(rows).unwrap());
    drop((original, new));

    let mut command = workspace.predict_command(&arguments("interrupted.csv", "interrupted.h5"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let journal = workspace.path("interrupted.h5.partial");
    while !fs::metadata(&journal).is_ok_and(|journal| journal.len() > 2_000) {
        std::thread::yield_now();
    }
    send_signal(&child, "-INT");
    assert_code(&child.wait_with_output().unwrap(), 130);
    assert!(!workspace.path("interrupted.csv").exists());
    let text = workspace.assert_predicts(&arguments("interrupted.csv", "interrupted.h5"));
    assert!(text.contains("already extracted"), "{text}");
    assert_eq!(workspace.read("interrupted.csv"), workspace.read("complete.csv"));
    let text = workspace.assert_predicts(&arguments("interrupted.csv", "interrupted.h5"));
    assert!(text.contains("interrupted.h5: up to date (36 clips)"), "{text}");

    let text = workspace.assert_predicts(&[&arguments("dry.csv", "dry.h5")[..], &["--dry-run"]].concat());
    assert!(text.contains("dry.h5: 36 of 36 clips to extract"), "{text}");
    assert!(!workspace.path("dry.csv").exists() && !workspace.path("dry.h5").exists());
}

#[test]
fn failed_clips_are_recorded_and_the_others_predicted() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    fs::write(workspace.path("clips/text.mp4"), "no video").unwrap();
    let arguments = ["--model", "run", "clips", "--features", "new.h5"];
    for (out, more) in
        [("predictions.csv", &[][..]), ("predictions.jsonl", &[]), ("submission.csv", &["--format", "category"])]
    {
        let output = workspace.predict(&[&arguments[..], &["--out", out], more].concat());
        assert_code(&output, 3);
        assert!(printed(&output).contains("1 failed and is recorded"), "{}", printed(&output));
    }
    let table = workspace.table("predictions.csv");
    let failed = &table["text"];
    assert!(failed["error"].contains("text.mp4: no video stream"), "{failed:?}");
    assert_eq!((&*failed["predicted"], &*failed["score:up"]), ("", ""));
    assert!(["plain", "vp9", "turned_90"].iter().all(|id| !table[*id]["score:up"].is_empty()));
    let lines = workspace.read("predictions.jsonl");
    let line: serde_json::Value =
        serde_json::from_str(lines.lines().find(|line| line.contains("\"text\"")).unwrap()).unwrap();
    assert!(line["error"].as_str().unwrap().contains("no video stream") && line.get("scores").is_none(), "{line}");
    assert!(workspace.read("submission.csv").lines().any(|line| line == "text,"));
    // A corrected clip is extracted without a flag only if its path differs; the flag retries it.
    fs::copy(fixture("media/ten.mp4"), workspace.path("clips/text.mp4")).unwrap();
    assert_code(&workspace.predict(&[&arguments[..], &["--out", "predictions.csv"]].concat()), 3);
    workspace.assert_predicts(&[&arguments[..], &["--out", "predictions.csv", "--retry-failed"]].concat());
    assert!(!workspace.table("predictions.csv")["text"]["score:up"].is_empty());
}

#[test]
fn scores_over_time_have_one_row_per_frame() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    fs::copy(fixture("media/gray.png"), workspace.path("clips/gray.png")).unwrap();
    workspace.assert_predicts(&["--model", "run", "clips", "--out", "predictions.csv", "--timeline", "timeline.csv"]);
    let text = workspace.read("timeline.csv");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("id,row,start_seconds,end_seconds,score:down,score:up"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let of_clip = |id: &str| rows.iter().filter(|row| row[0] == id).collect::<Vec<_>>();
    let plain = of_clip("plain");
    assert_eq!(plain.iter().map(|row| row[1]).collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5"]);
    let times: Vec<[f64; 2]> = plain.iter().map(|row| [row[2], row[3]].map(|cell| cell.parse().unwrap())).collect();
    assert!(times.iter().all(|[start, end]| start < end) && times.windows(2).all(|pair| pair[0][0] < pair[1][0]));
    // The scores of the only row of an image are those of the image.
    let (row, clip) = (of_clip("gray")[0].clone(), workspace.table("predictions.csv")["gray"].clone());
    assert_eq!([row[4], row[5]], [&*clip["score:down"], &*clip["score:up"]]);
    let svg = workspace.read("timeline.svg");
    assert!(svg.starts_with("<svg") && svg.contains("plain") && svg.contains("up, "), "{svg}");

    workspace.classify("tiny.h5", "sequence", &[&["--classifier", "bilstm"], &QUICK[..]].concat());
    workspace.assert_error(
        &["--model", "sequence", "clips", "--timeline", "timeline.csv"],
        "reads all rows of a clip as a sequence",
    );
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
