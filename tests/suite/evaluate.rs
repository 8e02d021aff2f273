//! Evaluation, comparison and inspection, through the real binaries.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{assert_code, printed, run_python};

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
fn stores(directory: &Path) {
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

#[test]
fn predictions_without_scores_are_evaluated() {
    let directory = tempfile::tempdir().unwrap();
    let rows = "id,label,predicted\n1,cat,cat\n2,cat,dog\n3,dog,dog\n4,dog,dog\n5,owl,dog\n";
    fs::write(directory.path().join("p.csv"), rows).unwrap();
    let output = evaluate(directory.path(), &["--predictions", "p.csv", "--out", "out"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("accuracy 60.0 % ["), "{}", printed(&output));
    let metrics = json(&directory.path().join("out/metrics.json"));
    let all = &metrics["all"];
    assert_eq!(all["confusion"], serde_json::json!([[1, 1, 0], [0, 2, 0], [0, 1, 0]]));
    assert_eq!(all["labels"], serde_json::json!(["cat", "dog", "owl"]));
    assert_eq!(all["per_class"][1]["fp"], 2);
    assert_eq!(all["hardest"], "owl");
    assert_eq!(all["top_k"], serde_json::json!({"1": 0.6}));
    assert!(metrics.get("val").is_none());
    assert_figure(&directory.path().join("out/confusion_all.svg"));
    let report = fs::read_to_string(directory.path().join("out/REPORT.md")).unwrap();
    assert!(report.contains("| cat | 1 | 0 | 1 | 3 |"), "{report}");
}

#[test]
fn splits_of_scores_are_evaluated_separately() {
    let directory = tempfile::tempdir().unwrap();
    let rows = "id,split,label,cat,dog\n1,val,cat,0.9,0.1\n2,val,dog,0.5,0.5\n3,test,dog,0.2,0.8\n4,test,dog,0.3,0.7\n";
    fs::write(directory.path().join("p.csv"), rows).unwrap();
    assert_code(&evaluate(directory.path(), &["--predictions", "p.csv", "--out", "out"]), 0);
    let metrics = json(&directory.path().join("out/metrics.json"));
    assert_eq!(metrics["val"]["accuracy"], 0.5);
    assert_eq!(metrics["test"]["accuracy"], 1.0);
    assert_eq!(metrics["all"]["n"], 4);
    assert!(metrics["all"]["expected_calibration_error"].is_number());
    // Evaluating the written predictions again yields the same metrics.
    assert_code(&evaluate(directory.path(), &["--predictions", "out/predictions.csv", "--out", "again"]), 0);
    assert_eq!(json(&directory.path().join("again/metrics.json"))["all"], metrics["all"]);
}

#[test]
fn invalid_predictions_are_rejected_and_no_files_are_written() {
    let directory = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("id,label\n1,cat\n", "p.csv:1: missing column `predicted`"),
        ("id,label,predicted,score:cat\n1,cat,dog,1\n", "p.csv:2: no score column for the prediction `dog`"),
        ("", "p.csv:1: missing column `id`"),
        ("id,label,predicted\n", "p.csv: no predictions"),
        ("id,label,score:cat\n1,cat,very\n", "p.csv:2: invalid score `very` of `cat`"),
    ] {
        fs::write(directory.path().join("p.csv"), text).unwrap();
        let output = evaluate(directory.path(), &["--predictions", "p.csv", "--out", "out"]);
        assert_code(&output, 1);
        assert!(printed(&output).contains(expected), "{text:?}: {}", printed(&output));
        assert!(!directory.path().join("out").exists());
    }
    let output = evaluate(directory.path(), &["--predictions", "none.csv", "--out", "out"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("evaluate: none.csv: "), "{}", printed(&output));
    assert_code(&evaluate(directory.path(), &["--out", "out"]), 2);
}

/// Changes the type of the ids in a copy of the store `weak`, and writes a manifest with ids of that length.
const RETYPE: &str = r#"
import sys, pathlib, shutil, h5py, numpy as np
directory = pathlib.Path(sys.argv[1])
types = {"utf8-12": h5py.string_dtype("utf-8", 12), "ascii": h5py.string_dtype("ascii"), "ascii-9": "S9",
         "utf8-70": h5py.string_dtype("utf-8", 70), "long": "S310", "longer": h5py.string_dtype("utf-8", 5000),
         "space": "space"}
for name, kind in types.items():
    shutil.copy(directory / "weak.h5", directory / f"{name}.h5")
    with h5py.File(directory / f"{name}.h5", "a") as store:
        ids = [id.decode() for id in store["clips/id"][:]]
        filler = {"utf8-70": "é" * 30, "long": "p" * 300, "longer": "ö" * 2400}.get(name, "")
        ids = [filler + id for id in ids]
        del store["clips/id"]
        if name == "space":
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(12)
            kind.set_strpad(h5py.h5t.STR_SPACEPAD)
            space = h5py.h5s.create_simple((len(ids),))
            dataset = h5py.h5d.create(store["clips"].id, b"id", kind, space)
            padded = np.array([id.ljust(12).encode() for id in ids], "S12")
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, padded, kind)
        else:
            store.create_dataset("clips/id", data=[id.encode() for id in ids], dtype=kind)
        store.attrs["model"] = np.bytes_(b"n" * 5000)
    lines = (directory / "clips.csv").read_text().splitlines()
    (directory / f"{name}.csv").write_text("\n".join([lines[0]] + [filler + line for line in lines[1:]]), encoding="utf-8")
print(*types)
"#;

#[test]
fn strings_of_any_type_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    for name in run_python(RETYPE, &[at]).split_whitespace() {
        let (store, manifest) = (format!("{name}.h5"), format!("{name}.csv"));
        let output = inspect(at, &[&store, "--manifest", &manifest]);
        assert_code(&output, 0);
        assert!(printed(&output).contains(&"n".repeat(5000)), "{name}: {}", printed(&output));
        let output = kinoprobe(
            env!("CARGO_BIN_EXE_kinoprobe-classify"),
            at,
            &["--features", &store, "--manifest", &manifest, "--out", "run", "--classifier", "knn", "--dry-run"],
        );
        assert_code(&output, 0);
        assert!(printed(&output).contains("60 train, 30 val, 45 test"), "{name}: {}", printed(&output));
    }
}

#[test]
fn unlabeled_clips_are_predicted_and_not_scored() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    classify(at, "strong", "knn");
    let new: String = (0..12).map(|i| format!("test{i:02},clips/test{i:02}.mp4\n")).collect();
    fs::write(at.join("new.csv"), format!("id,path\n{new}")).unwrap();
    let predict = |manifest: &str| {
        let model = ["--model", "runs/strong-knn", "--features", "strong.h5", "--out", "new"];
        let output = evaluate(at, &[&model[..], &["--manifest", manifest]].concat());
        assert_code(&output, 0);
        printed(&output)
    };
    // An earlier evaluation of labeled clips; its files are removed.
    predict("clips.csv");
    assert!(at.join("new/confusion_test.svg").is_file() && !at.join("new/submission.csv").exists());
    let text = predict("new.csv");
    assert!(text.contains("12 predicted, none labeled") && !text.contains('%'), "{text}");
    let submission = fs::read_to_string(at.join("new/submission.csv")).unwrap();
    assert!(submission.starts_with("Id,Category\ntest00,") && submission.lines().count() == 13, "{submission}");
    assert_eq!(fs::read_to_string(at.join("new/predictions.csv")).unwrap().lines().count(), 13);
    let metrics = json(&at.join("new/metrics.json"));
    assert!(metrics.get("all").is_none() && metrics["unlabeled"] == 12, "{metrics}");
    let report = fs::read_to_string(at.join("new/REPORT.md")).unwrap();
    assert!(report.contains("12 predicted, none labeled") && !report.contains("## Results"), "{report}");
    for stale in ["confusion_test.svg", "confusion_all.csv", "per_class.csv", "classification_report.txt"] {
        assert!(!at.join("new").join(stale).exists(), "{stale}");
    }
    // Labeled and unlabeled clips.
    let labeled = fs::read_to_string(at.join("clips.csv")).unwrap();
    fs::write(at.join("both.csv"), labeled.replace("test03.mp4,cat,", "test03.mp4,,")).unwrap();
    let text = predict("both.csv");
    assert!(text.contains("test  44 clips") && text.contains("1 without a label predicted"), "{text}");
}

#[test]
fn labels_of_predictions_are_normalized() {
    let directory = tempfile::tempdir().unwrap();
    let rows = "id,label,predicted\n1,Come\u{301}die,Com\u{e9}die\n2,x,x\n";
    fs::write(directory.path().join("p.csv"), rows).unwrap();
    let output = evaluate(directory.path(), &["--predictions", "p.csv", "--out", "out"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("accuracy 100.0 %"), "{}", printed(&output));
}

#[test]
fn runs_are_compared_and_fused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    // Only extraction needs the media files.
    fs::remove_dir_all(at.join("clips")).unwrap();
    classify(at, "strong", "mlp");
    classify(at, "strong", "logistic");
    classify(at, "weak", "mlp");
    let runs = ["runs/strong-mlp", "runs/strong-logistic", "runs/weak-mlp", "--out", "compare"];
    let output = compare(at, &runs);
    assert_code(&output, 0);
    let text = printed(&output);
    for part in [
        "strong · mlp",
        "weak · mlp (UNTRAINED)",
        "late fusion: all 3 runs (UNTRAINED)",
        "best pair on val",
        "early fusion: strong + weak",
        "Time per stage",
        "1 of 45 test clips have a near-duplicate",
        "compare: wrote compare/report.html",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("no early fusion") && !text.contains("not part of late fusion"), "{text}");

    let html = fs::read_to_string(at.join("compare/report.html")).unwrap();
    for external in ["href=", "src=", "url(", "<script", "@import"] {
        assert!(!html.contains(external), "{external}");
    }
    for part in ["<!DOCTYPE html>", "class=\"alarm\"", "UNTRAINED", "prefers-color-scheme:dark", "test07", "27.00 s"] {
        assert!(html.contains(part), "no {part}");
    }
    let comparison = json(&at.join("compare/compare.json"));
    let rows = comparison["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    let accuracy = |row: usize| rows[row]["parts"]["test"]["accuracy"].as_f64().unwrap();
    assert!(accuracy(0) > accuracy(2), "strong features are better than weak ones");
    assert!(accuracy(5) > accuracy(2), "early fusion with strong features is better than weak features alone");
    assert_eq!(rows[0]["parts"]["test"]["interval"]["unit"], "groups");
    assert_eq!(comparison["pairs"].as_array().unwrap().len(), 2 * 15);
    assert_eq!(comparison["duplicates"][0]["pairs"][0]["id"], "test07");
    for figure in ["bars_test.svg", "bars_val.svg", "confusion_01.svg", "confusion_06.svg"] {
        assert_figure(&at.join("compare").join(figure));
    }
    assert!(fs::read_to_string(at.join("compare/compare.md")).unwrap().contains("![Accuracy and macro F1, test"));

    // Without early fusion, whose training time varies, repeating the comparison yields identical bytes.
    let again = ["runs/strong-mlp", "runs/weak-mlp", "--no-early-fusion", "--out"];
    for out in ["one", "two"] {
        assert_code(&compare(at, &[&again[..], &[out]].concat()), 0);
    }
    let read = |out: &str| fs::read_to_string(at.join(out).join("compare.json")).unwrap();
    assert_eq!(read("one"), read("two"));
}

#[test]
fn external_predictions_are_compared_without_stores() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (name, second) in [("ours", "dog"), ("theirs", "cat")] {
        let rows = format!("id,label,predicted\n1,cat,cat\n2,dog,{second}\n3,dog,dog\n");
        fs::write(at.join(format!("{name}.csv")), rows).unwrap();
        let csv = format!("{name}.csv");
        assert_code(&evaluate(at, &["--predictions", &csv, "--out", name]), 0);
    }
    let output = compare(at, &["ours", "theirs", "--out", "compare"]);
    assert_code(&output, 0);
    let comparison = json(&at.join("compare/compare.json"));
    assert_eq!(comparison["rows"].as_array().unwrap().len(), 2, "predictions without scores are not fused");
    assert_eq!(comparison["pairs"][0]["only_first"], 1);
    let missing = compare(at, &["ours", "nowhere", "--out", "compare"]);
    assert_code(&missing, 1);
    assert!(printed(&missing).contains("compare: nowhere: contains no metrics.json"), "{}", printed(&missing));
    assert_code(&compare(at, &["--out", "compare"]), 2);
}

#[test]
fn stores_and_manifests_are_described() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    let output = inspect(at, &["weak.h5", "--manifest", "clips.csv", "--out", "out", "--export", "npy"]);
    assert_code(&output, 0);
    let text = printed(&output);
    for part in ["UNTRAINED", "135 rows × 6, 135 clips", "non-finite values: 0 of 810", "constant features: 0 of 6"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_figure(&at.join("out/projection.svg"));
    let script = "import sys, h5py, numpy as np; d = sys.argv[1]; store = h5py.File(d + '/weak.h5');\n\
        assert (np.load(d + '/out/features.npy') == store['features'][:]).all()\n\
        assert np.load(d + '/out/pooled_max.npy').shape == (135, 6)";
    run_python(script, &[at]);
    assert_code(&inspect(at, &["weak.h5", "--export", "csv", "--out", "csv"]), 0);
    assert_eq!(fs::read_to_string(at.join("csv/pooled.csv")).unwrap().lines().count(), 136);

    let output = inspect(at, &["clips.csv", "--out", "manifest"]);
    assert_code(&output, 0);
    let text = printed(&output);
    for part in ["135 clips", "groups: 27", "labels per clip: 1 (135 clips)"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_figure(&at.join("manifest/classes.svg"));

    for (arguments, code, expected) in [
        (&["none.h5"][..], 1, "inspect: none.h5"),
        (&["none.csv"], 1, "inspect: none.csv"),
        (&["clips.csv", "--out", "x", "--export", "npy"], 1, "--export requires a feature store"),
        (&["weak.h5", "--export", "npy"], 2, "--out"),
    ] {
        let output = inspect(at, arguments);
        assert_code(&output, code);
        assert!(printed(&output).contains(expected), "{arguments:?}: {}", printed(&output));
    }
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

#[test]
fn multi_label_predictions_are_evaluated_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    multi_label_predictions(&at.join("p.csv"), 0.4);
    let output = evaluate(at, &["--predictions", "p.csv", "--out", "out"]);
    assert_code(&output, 0);
    let text = printed(&output);
    for part in ["test  100 clips  mAP ", "micro F1 ", "warning: test: 1 of 5 labels have no clips in this split"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let metrics = json(&at.join("out/metrics.json"));
    assert_eq!((&metrics["task"], &metrics["all"]["n"]), (&Value::from("multi-label"), &Value::from(160)));
    let test = &metrics["test"];
    for key in ["micro", "macro", "weighted", "samples"] {
        assert!(test["map"][key].is_number() && test[key]["f1"].is_number(), "{key}");
    }
    for key in [
        "hamming_loss",
        "exact_match",
        "ranking_loss",
        "coverage_error",
        "label_ranking_average_precision",
        "r_precision",
        "binary_accuracy",
    ] {
        assert!(test[key].is_number(), "{key}");
    }
    let western = &test["per_label"][4];
    assert_eq!((&western["label"], &western["support"]), (&Value::from("western"), &Value::from(0)));
    for key in ["precision", "recall", "f1", "average_precision", "pr_auc_trapezoid", "roc_auc"] {
        assert!(western[key].is_null(), "{key}");
        assert!(test["per_label"][0][key].is_number(), "{key}");
    }
    assert_eq!(test["top_k_sweep"].as_array().unwrap().len(), 5);
    assert_eq!(test["interval"]["unit"], "groups");
    assert_eq!(test["thresholds"]["per_label"].as_array().unwrap().len(), 5);
    assert!(metrics["val"]["thresholds"].is_null(), "the thresholds are tuned on val");

    for figure in ["precision_recall_test.svg", "average_precision_test.svg"] {
        assert_figure(&at.join("out").join(figure));
    }
    let report = fs::read_to_string(at.join("out/REPORT.md")).unwrap();
    for part in ["| western | n/a | n/a | n/a | 0 |", "tuned on val", "| top 5 |"] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
    let text = fs::read_to_string(at.join("out/classification_report.txt")).unwrap();
    assert!(text.contains("samples avg") && text.contains("precision    recall  f1-score   support"), "{text}");
    // Evaluating the written predictions again yields the same metrics.
    assert_code(&evaluate(at, &["--predictions", "out/predictions.csv", "--out", "again"]), 0);
    assert_eq!(json(&at.join("again/metrics.json"))["test"], metrics["test"]);
    let forced = evaluate(at, &["--predictions", "p.csv", "--task", "single-label", "--out", "forced"]);
    assert_code(&forced, 1);
    assert!(printed(&forced).contains("in a single-label task"), "{}", printed(&forced));
}

#[test]
fn multi_label_runs_are_compared_and_tasks_do_not_mix() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (name, sharpness) in [("strong", 0.4), ("weak", 0.1)] {
        let csv = format!("{name}.csv");
        multi_label_predictions(&at.join(&csv), sharpness);
        assert_code(&evaluate(at, &["--predictions", &csv, "--out", name]), 0);
    }
    let output = compare(at, &["strong", "weak", "--out", "compare"]);
    assert_code(&output, 0);
    let comparison = json(&at.join("compare/compare.json"));
    assert_eq!(comparison["task"], "multi-label");
    let rows = comparison["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "two runs and their fusion");
    let map = |row: usize| rows[row]["parts"]["test"]["map"]["macro"].as_f64().unwrap();
    assert!(map(0) > map(1) && map(2) > map(1), "{} {} {}", map(0), map(1), map(2));
    let pairs = comparison["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2 * 2 * 3, "two parts, two metrics, three pairs");
    assert_eq!((&pairs[0]["measure"], &pairs[1]["measure"]), (&Value::from("map"), &Value::from("micro_f1")));
    assert!(pairs[0]["p"].as_f64().unwrap() < 0.05 && pairs[0]["difference"].as_f64().unwrap() > 0.0);
    for figure in ["bars_test.svg", "average_precision_test.svg"] {
        assert_figure(&at.join("compare").join(figure));
    }
    let page = fs::read_to_string(at.join("compare/report.html")).unwrap();
    for part in ["Metrics of each class, test", "AP: strong", "AP: weak", "paired bootstrap", "n/a"] {
        assert!(page.contains(part), "no {part}");
    }
    let header = fs::read_to_string(at.join("compare/compare.csv")).unwrap();
    assert!(header.starts_with("name,kind,method,classifier,untrained,split,clips,map,map_low,map_high,micro_f1,"));

    fs::write(at.join("single.csv"), "id,label,predicted\nc70,drama,drama\nc71,action,drama\n").unwrap();
    assert_code(&evaluate(at, &["--predictions", "single.csv", "--out", "single"]), 0);
    let mixed = compare(at, &["strong", "single", "--out", "mixed"]);
    assert_code(&mixed, 1);
    let expected = "strong is multi-label and single is single-label";
    assert!(printed(&mixed).contains(expected), "{}", printed(&mixed));
    assert!(!at.join("mixed").exists());
}

#[test]
fn output_that_cannot_be_written_is_one_message() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let rows: String = (0..3000).map(|i| format!("{i},{i}.mp4,label {i}\n")).collect();
    fs::write(at.join("clips.csv"), format!("id,path,label\n{rows}")).unwrap();
    let inspect = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-inspect"));
        command.current_dir(at).args(["clips.csv", "--out", "out"]).stderr(Stdio::piped());
        command
    };
    // A closed pipe, as of `head -1`: the files are written.
    let mut child = inspect().stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert_eq!(printed(&output), "");
    assert!(at.join("out/classes.csv").is_file());

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = inspect().stdout(full).output().unwrap();
    assert_code(&output, 1);
    let expected = "inspect: cannot write to standard output: No space left on device (os error 28)\n";
    assert_eq!(printed(&output), expected);

    let output = evaluate(at, &["--predictions", "none.csv", "--out", "out"]);
    assert_code(&output, 1);
    assert_eq!(printed(&output), "evaluate: none.csv: No such file or directory (os error 2)\n");
    fs::create_dir(at.join("store.h5")).unwrap();
    let output = kinoprobe(env!("CARGO_BIN_EXE_kinoprobe-inspect"), at, &["store.h5"]);
    assert_code(&output, 1);
    assert_eq!(printed(&output), "inspect: store.h5: a directory, not a store\n");
}
