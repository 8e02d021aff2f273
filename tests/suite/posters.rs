//! Poster models by year, with the real binaries, on a few generated posters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{assert_code, fixture, printed, root};

const GENRES: usize = 8;

/// Posters of three years, 20 per year, with features of a tiny network.
struct Posters {
    directory: TempDir,
}

impl Posters {
    /// Generates the posters once for all tests. Each test writes to its own directories.
    fn get() -> &'static Posters {
        static POSTERS: OnceLock<Posters> = OnceLock::new();
        POSTERS.get_or_init(|| {
            let workspace = Posters { directory: tempfile::tempdir().unwrap() };
            let out = workspace.path("drawn");
            let arguments = ["--posters", "--years", "3", "--per-year", "20", "--quiet", "--out"];
            let demo = Command::new(env!("CARGO_BIN_EXE_kinoprobe-demo")).args(arguments).arg(out).output().unwrap();
            assert_code(&demo, 0);
            assert!(printed(&demo).contains("60 posters created, 0 kept"), "{}", printed(&demo));
            let extract = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"))
                .current_dir(root())
                .args(["--method", "tiny", "--quiet", "--recipe"])
                .arg(fixture("pipelines/tiny.toml"))
                .arg("--models")
                .arg(fixture("models"))
                .arg("--manifest")
                .arg(workspace.path("drawn/manifest.csv"))
                .arg("--out")
                .arg(workspace.path("tiny.h5"))
                .output()
                .unwrap();
            assert_code(&extract, 0);
            workspace
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    /// Writes a recipe with short training and the given minimum number of clips per year.
    fn recipe(&self, name: &str, min_clips: &str) {
        let tiny = fs::read_to_string(fixture("pipelines/tiny.toml")).unwrap();
        let text = format!(
            "{tiny}\n[classify]\nby = \"year\"\ntask = \"multi-label\"\n[classify.min_clips]\n{min_clips}\n[classify.mlp]\nhidden = 16\n\
             [classify.resample]\nkind = \"compose\"\nlow = 0.01\nhigh = 0.08\n\
             [classify.training]\nepochs = 6\nwatch = \"loss\"\nkeep = \"score\"\n"
        );
        fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, binary: &str, arguments: &[&str]) -> Output {
        // Several tests read the store at the same time.
        Command::new(binary)
            .current_dir(self.directory.path())
            .env("HDF5_USE_FILE_LOCKING", "FALSE")
            .args(arguments)
            .output()
            .unwrap()
    }

    fn classify(&self, manifest: &str, recipe: &str, out: &str, more: &[&str]) -> Output {
        let arguments = ["--features", "tiny.h5", "--manifest", manifest, "--recipe", recipe, "--out", out];
        self.run(env!("CARGO_BIN_EXE_kinoprobe-classify"), &[&arguments[..], more].concat())
    }
}

fn assert_model(directory: &Path) {
    for file in ["model.onnx", "model.safetensors", "metrics.json", "predictions.csv", "REPORT.md", "recipe.toml"] {
        assert!(directory.join(file).is_file(), "{}", directory.join(file).display());
    }
}

#[test]
fn every_year_gets_a_model_that_posters_json_lists() {
    let workspace = Posters::get();
    workspace.recipe("by-year.toml", "train = 10\nval = 2\ntest = 2");
    let output = workspace.classify("drawn/manifest.csv", "by-year.toml", "years", &[]);
    assert_code(&output, 0);
    let posters = workspace.json("years/posters.json");
    assert_eq!((&posters["format"], &posters["format_version"]), (&Value::from("kinoprobe-posters"), &Value::from(1)));
    assert_eq!((&posters["method"], &posters["card"]), (&Value::from("tiny"), &Value::from("tiny")));
    assert_eq!(posters["precision"], "f32");
    assert_eq!((&posters["weights"], &posters["untrained"]), (&Value::from("file"), &Value::from(false)));
    assert_eq!((&posters["demo"], &posters["by"], &posters["window"]), (&true.into(), &"year".into(), &Value::Null));
    assert_eq!(posters["labels"].as_array().unwrap().len(), GENRES);
    assert_eq!(posters["model_sha256"].as_str().unwrap().len(), 64);
    let years = posters["years"].as_array().unwrap();
    assert_eq!(years.iter().map(|year| year["year"].as_i64().unwrap()).collect::<Vec<_>>(), [2000, 2001, 2002]);
    for year in years {
        assert_eq!(year["clips"], serde_json::json!({"train": 14, "val": 3, "test": 3}));
        let thresholds = year["thresholds"].as_array().unwrap();
        assert_eq!(thresholds.len(), GENRES);
        assert!(thresholds.iter().all(|threshold| (0.0..=1.0).contains(&threshold.as_f64().unwrap())));
        let directory = workspace.path("years").join(year["directory"].as_str().unwrap());
        assert_model(&directory);
        // The metrics in posters.json are those of the year's run.
        let metrics: Value =
            serde_json::from_str(&fs::read_to_string(directory.join("metrics.json")).unwrap()).unwrap();
        assert_eq!(year["metrics"]["map"], metrics["test"]["map"]["macro"]);
        for key in ["binary_accuracy", "r_precision"] {
            assert_eq!(year["metrics"][key], metrics["test"][key], "{key}");
        }
        for k in ["1", "3", "5"] {
            assert_eq!(year["metrics"][&format!("top_{k}")], metrics["test"]["top_k"][k]);
        }
        assert_eq!(metrics["test"]["labels"], posters["labels"], "all years have the same labels");
    }
    assert_eq!(posters["overall"]["directory"], "all");
    assert_model(&workspace.path("years/all"));

    let report = workspace.text("years/REPORT.md");
    for part in [
        "**⚠ DEMO",
        "models of the years",
        "model of all years",
        "## Resampling",
        "years.svg",
        "poster.svg",
        "[2001](2001/",
    ] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
    assert!(workspace.text("years/report.html").contains("<svg") && workspace.path("years/poster.svg").is_file());
    let csv = workspace.text("years/years.csv");
    assert!(csv.starts_with("model,train,val,test,map,constant:map,all:map,"), "{csv}");
    assert_eq!(csv.lines().count(), 1 + 3 + 2);
}

#[test]
fn years_with_too_few_clips_are_skipped_and_reported() {
    let workspace = Posters::get();
    // Remove most posters of 2001.
    let all = workspace.text("drawn/manifest.csv");
    let kept = |line: &&str| !line.starts_with("2001-0") || line.starts_with("2001-000") || line.starts_with("2001-00");
    let mut lines: Vec<&str> = all.lines().filter(kept).collect();
    lines.retain(|line| !line.starts_with("2001-00") || line.ends_with(",val"));
    fs::write(workspace.path("drawn/few.csv"), lines.join("\n") + "\n").unwrap();
    workspace.recipe("few.toml", "train = 10\nval = 2\ntest = 2");
    let output = workspace.classify("drawn/few.csv", "few.toml", "few", &["--quiet"]);
    assert_code(&output, 0);
    let text = printed(&output);
    assert!(!text.contains("skipping 2000") && !workspace.path("few/2001").exists(), "{text}");
    assert!(workspace.text("few/REPORT.md").contains("skipping 2001: 0 training clips, the minimum is 10"));
    let posters = workspace.json("few/posters.json");
    assert_eq!(posters["years"].as_array().unwrap().len(), 2);
    // A window adds training clips of neighboring years, but no test clips.
    let output = workspace.classify("drawn/few.csv", "few.toml", "few-window", &["--window", "10"]);
    assert_code(&output, 0);
    let text = printed(&output);
    assert!(text.contains("skipping 2001: ") && !text.contains("training clips, the minimum"), "{text}");
    let posters = workspace.json("few-window/posters.json");
    assert_eq!((&posters["window"], &posters["years"][0]["clips"]["train"]), (&10.into(), &28.into()));

    workspace.recipe("none.toml", "train = 1000");
    let output = workspace.classify("drawn/manifest.csv", "none.toml", "nothing", &[]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("no year has enough clips (skipping 2000: 14 training"), "{}", printed(&output));
    let output = workspace.classify("drawn/manifest.csv", "none.toml", "only-all", &["--by", "none"]);
    assert_code(&output, 0);
    let posters = workspace.json("only-all/posters.json");
    assert_eq!((&posters["by"], posters["years"].as_array().unwrap().len()), (&"none".into(), 0));
    assert_model(&workspace.path("only-all/all"));
}

#[test]
fn years_of_an_earlier_run_are_removed() {
    let workspace = Posters::get();
    workspace.recipe("shrinking.toml", "train = 10\nval = 2\ntest = 2");
    assert_code(&workspace.classify("drawn/manifest.csv", "shrinking.toml", "shrinking", &["--quiet"]), 0);
    for year in ["2000", "2001", "2002"] {
        assert_model(&workspace.path("shrinking").join(year));
    }
    fs::write(workspace.path("shrinking/2001/notes.txt"), "kept").unwrap();
    fs::create_dir(workspace.path("shrinking/1999")).unwrap();
    fs::write(workspace.path("shrinking/1999/metrics.json"), "kept").unwrap();
    let all = workspace.text("drawn/manifest.csv");
    let lines: Vec<&str> =
        all.lines().filter(|line| !line.starts_with("2001-") && !line.starts_with("2002-")).collect();
    fs::write(workspace.path("drawn/shrunk.csv"), lines.join("\n") + "\n").unwrap();
    assert_code(&workspace.classify("drawn/shrunk.csv", "shrinking.toml", "shrinking", &["--quiet"]), 0);
    assert_model(&workspace.path("shrinking/2000"));
    assert!(!workspace.path("shrinking/2002").exists());
    let left: Vec<_> =
        fs::read_dir(workspace.path("shrinking/2001")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
    assert!(workspace.path("shrinking/1999/metrics.json").is_file());

    // Another kind of run would leave the models by year beside its own.
    let single = fixture("pipelines/tiny.toml");
    let output = workspace.classify("drawn/manifest.csv", single.to_str().unwrap(), "shrinking", &[]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("poster models (written with --by)"), "{}", printed(&output));
    let output = workspace.classify("drawn/manifest.csv", "shrinking.toml", "shrinking/2000", &[]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("the directory of a single run"), "{}", printed(&output));
}

#[test]
fn unlabeled_posters_are_predicted_without_a_report() {
    let workspace = Posters::get();
    workspace.recipe("predicting.toml", "train = 10\nval = 2\ntest = 2");
    assert_code(&workspace.classify("drawn/manifest.csv", "predicting.toml", "predicting", &["--quiet"]), 0);
    let all = workspace.text("drawn/manifest.csv");
    let labeled = |line: &str| line.split(',').map(String::from).collect::<Vec<_>>();
    let lines = all.lines().map(labeled).map(|cells| format!("{},{},{}\n", cells[0], cells[1], cells[3]));
    fs::write(workspace.path("drawn/unlabeled.csv"), lines.collect::<String>()).unwrap();
    let evaluate = |manifest: &str, out: &str| {
        let arguments = ["--model", "predicting", "--features", "tiny.h5", "--manifest", manifest, "--out", out];
        workspace.run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &arguments)
    };
    assert_code(&evaluate("drawn/manifest.csv", "predicted"), 0);
    assert!(workspace.path("predicted/REPORT.md").is_file());
    let output = evaluate("drawn/unlabeled.csv", "predicted");
    assert_code(&output, 0);
    let text = printed(&output);
    assert!(text.contains("no clip is labeled") && text.ends_with("evaluate: wrote predicted\n"), "{text}");
    for stale in ["REPORT.md", "report.html", "years.csv", "years.svg"] {
        assert!(!workspace.path("predicted").join(stale).exists(), "{stale}");
    }
    assert!(workspace.path("predicted/2000/submission.csv").is_file());
    let output = evaluate("drawn/manifest.csv", "predicting");
    assert_code(&output, 1);
    assert!(printed(&output).contains("the directory of trained models"), "{}", printed(&output));
}

#[test]
fn evaluating_saved_models_reproduces_their_metrics() {
    let workspace = Posters::get();
    workspace.recipe("again.toml", "train = 10\nval = 2\ntest = 2");
    assert_code(&workspace.classify("drawn/manifest.csv", "again.toml", "again", &["--quiet"]), 0);
    let evaluate = |model: &str, out: &str| {
        let arguments = ["--model", model, "--features", "tiny.h5", "--manifest", "drawn/manifest.csv", "--out", out];
        let output = workspace.run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &arguments);
        assert_code(&output, 0);
        printed(&output)
    };
    let text = evaluate("again", "measured");
    assert!(text.contains("DEMO") && text.contains("2002") && text.contains("model of all years"), "{text}");
    for year in ["2000", "2001", "2002", "all"] {
        let (trained, evaluated) = (
            workspace.json(&format!("again/{year}/metrics.json")),
            workspace.json(&format!("measured/{year}/metrics.json")),
        );
        assert_eq!(trained["test"]["map"], evaluated["test"]["map"], "{year}");
        assert_eq!(trained["test"]["n"], evaluated["test"]["n"]);
    }
    evaluate("again/2001", "measured-2001");
    // A single model is evaluated on all clips of the manifest.
    assert_eq!(workspace.json("measured-2001/metrics.json")["test"]["n"], 9);
}

#[test]
fn generated_posters_are_kept_and_pass_inspection() {
    let workspace = Posters::get();
    let manifest = workspace.text("drawn/manifest.csv");
    assert!(manifest.starts_with("id,path,labels,year,split\n2000-000,posters/2000-000.jpg,"), "{manifest}");
    for line in manifest.lines().skip(1) {
        let labels = line.split(',').nth(2).unwrap().split('|').count();
        assert!((1..=3).contains(&labels), "{line}");
    }
    let arguments = ["--posters", "--years", "1", "--per-year", "7", "--quiet", "--out", "again-drawn"];
    let demo = env!("CARGO_BIN_EXE_kinoprobe-demo");
    assert_code(&workspace.run(demo, &arguments), 0);
    assert!(printed(&workspace.run(demo, &arguments)).contains("0 posters created, 7 kept"));
    let output = workspace.run(env!("CARGO_BIN_EXE_kinoprobe-inspect"), &["drawn/manifest.csv"]);
    assert_code(&output, 0);
    let text = printed(&output);
    assert!(text.contains("images: 60, of which 0 are probably not posters"), "{text}");
}

#[test]
fn a_table_of_posters_with_years_is_imported_and_trained_by_year() {
    let workspace = Posters::get();
    // The layout of published poster data sets: a table with Id, Genre and year, and a directory of images.
    let mut table = String::from("Id,Genre,year,split\n");
    for line in workspace.text("drawn/manifest.csv").lines().skip(1) {
        let [id, _, labels, year, split]: [&str; 5] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let list: Vec<String> = labels.split('|').map(|label| format!("'{label}'")).collect();
        table += &format!("{id},\"[{}]\",{year},{split}\n", list.join(", "));
    }
    fs::write(workspace.path("table.csv"), table).unwrap();
    let import = env!("CARGO_BIN_EXE_kinoprobe-import");
    let arguments = ["posters", "table.csv", "--clips", "drawn/posters", "--all-labels", "--out", "imported.csv"];
    assert_code(&workspace.run(import, &arguments), 0);
    assert!(workspace.text("imported.csv").lines().next().unwrap().contains("year"));
    workspace.recipe("imported.toml", "train = 10\nval = 2\ntest = 2");
    let output = workspace.classify("imported.csv", "imported.toml", "imported", &["--quiet"]);
    assert_code(&output, 0);
    let posters = workspace.json("imported/posters.json");
    assert_eq!((posters["years"].as_array().unwrap().len(), &posters["demo"]), (3, &false.into()));
}
