//! Late, early and learned fusion by kinoprobe-compare.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{classify, compare, evaluate, json, stores};
use crate::support::{assert_code, fixture, printed, run_python};

/// Rows of a predictions.csv by the id, with the cells by column.
fn table(path: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(|row| row.unwrap()).map(|row: BTreeMap<String, String>| (row["id"].clone(), row)).collect()
}

fn scores(row: &BTreeMap<String, String>) -> Vec<f64> {
    ["score:a", "score:b", "score:c"].iter().map(|column| row[*column].parse().unwrap()).collect()
}

/// Writes the predictions of the runs of fixtures/fusion.json, evaluates them, and compares them.
fn compare_golden(at: &Path, key: &str, of_label: fn(&Value) -> String) -> Value {
    let golden = json(&fixture("fusion.json"));
    let val = golden["val"].as_u64().unwrap() as usize;
    let labels = golden[key]["labels"].as_array().unwrap();
    let mut arguments = vec!["--out".to_string(), "comparison".into()];
    for (r, run) in golden[key]["scores"].as_array().unwrap().iter().enumerate() {
        let column = if key == "multi" { "labels" } else { "label" };
        let mut text = format!("id,split,{column},score:a,score:b,score:c\n");
        for (i, (row, label)) in run.as_array().unwrap().iter().zip(labels).enumerate() {
            let cells: Vec<String> = row.as_array().unwrap().iter().map(Value::to_string).collect();
            text += &format!("{i},{},{},{}\n", if i < val { "val" } else { "test" }, of_label(label), cells.join(","));
        }
        let (csv, out) = (format!("{r}.csv"), format!("run-{r}"));
        fs::write(at.join(&csv), text).unwrap();
        assert_code(&evaluate(at, &["--predictions", &csv, "--out", &out]), 0);
        arguments.push(out);
    }
    let output = compare(at, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_code(&output, 0);
    assert!(printed(&output).contains("learned fusion: all 3 runs"), "{}", printed(&output));
    golden[key].clone()
}

/// Asserts that the test scores of the learned fusion are those of scikit-learn.
fn assert_golden(at: &Path, golden: &Value) {
    let fused = table(&at.join("comparison/learned-fusion/predictions.csv"));
    assert_eq!(fused.len(), 80);
    for (i, expected) in golden["probabilities"].as_array().unwrap().iter().enumerate() {
        let row = &fused[&(60 + i).to_string()];
        assert_eq!(row["split"], "test");
        for (got, expected) in scores(row).iter().zip(expected.as_array().unwrap()) {
            assert!((got - expected.as_f64().unwrap()).abs() < 1e-4, "{i}: {got} {expected}");
        }
    }
}

#[test]
fn learned_fusion_matches_scikit_learn() {
    for (key, of_label) in [
        ("single", (|label| ["a", "b", "c"][label.as_u64().unwrap() as usize].into()) as fn(&Value) -> String),
        ("multi", |labels| {
            let has = |(name, label): (&&str, &Value)| (*label == 1).then(|| name.to_string());
            ["a", "b", "c"].iter().zip(labels.as_array().unwrap()).filter_map(has).collect::<Vec<_>>().join("|")
        }),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let golden = compare_golden(at, key, of_label);
        assert_golden(at, &golden);
        // The directories of fusions are read like those of runs.
        assert_code(
            &compare(at, &["comparison/learned-fusion", "comparison/late-fusion", "run-0", "--out", "again"]),
            0,
        );
        let [first, again] = ["comparison", "again"].map(|name| json(&at.join(name).join("compare.json")));
        let rows = first["rows"].as_array().unwrap();
        for (kind, row) in [("learned-fusion", 0), ("late-fusion", 1)] {
            let fusion = rows.iter().find(|row| row["kind"] == kind).unwrap();
            assert_eq!(fusion["parts"], again["rows"][row]["parts"], "{key}, {kind}");
        }
    }
}

/// Writes, evaluates and names `count` runs with random scores of the classes `classes` for 24 validation and 12 test clips of a and b.
fn random_runs(at: &Path, count: usize, classes: &[&str]) -> Vec<String> {
    let mut state = 3u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let header: Vec<String> = classes.iter().map(|class| format!("score:{class}")).collect();
    (0..count)
        .map(|run| {
            let mut text = format!("id,split,label,{}\n", header.join(","));
            for i in 0..36 {
                let scores: Vec<String> =
                    classes.iter().map(|_| format!("{:.5}", 0.001 + noise().powi(4) / 2.0)).collect();
                let split = if i < 24 { "val" } else { "test" };
                text += &format!("{i},{split},{},{}\n", ["a", "b"][i % 2], scores.join(","));
            }
            let (csv, out) = (format!("{run}.csv"), format!("run-{run}"));
            fs::write(at.join(&csv), text).unwrap();
            assert_code(&evaluate(at, &["--predictions", &csv, "--out", &out]), 0);
            out
        })
        .collect()
}

#[test]
fn validation_results_of_learned_fusion_are_not_in_sample() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    // 20 random features separate 24 clips, but do not predict the clips that are held out.
    let runs = random_runs(at, 10, &["a", "b"]);
    let arguments: Vec<&str> = runs.iter().map(String::as_str).chain(["--out", "comparison"]).collect();
    assert_code(&compare(at, &arguments), 0);
    let metrics = json(&at.join("comparison/learned-fusion/metrics.json"));
    assert!(metrics["val"]["accuracy"].as_f64().unwrap() < 0.75, "{}", metrics["val"]["accuracy"]);
    assert_eq!((&metrics["val"]["n"], &metrics["test"]["n"]), (&24.into(), &12.into()));
}

#[test]
fn learned_fusion_needs_validation_clips_of_each_class() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let runs = random_runs(at, 2, &["a", "b", "c"]);
    let output = compare(at, &[&runs[0], &runs[1], "--out", "comparison"]);
    assert_code(&output, 0);
    let text = printed(&output);
    assert!(text.contains("no learned fusion: class c has 0 validation clips in common"), "{text}");
    assert!(!at.join("comparison/learned-fusion").exists() && at.join("comparison/late-fusion/metrics.json").is_file());
}

#[test]
fn fusions_predict_clips_without_a_label() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    // The last clips have no label.
    let manifest = fs::read_to_string(at.join("clips.csv")).unwrap();
    let mut lines: Vec<String> = manifest.lines().map(String::from).collect();
    for line in lines.iter_mut().rev().take(5) {
        let mut cells: Vec<&str> = line.split(',').collect();
        (cells[2], cells[3]) = ("", "test");
        *line = cells.join(",");
    }
    fs::write(at.join("clips.csv"), lines.join("\n") + "\n").unwrap();
    classify(at, "strong", "logistic");
    classify(at, "weak", "mlp");
    let output = compare(at, &["runs/strong-logistic", "runs/weak-mlp", "--out", "comparison"]);
    assert_code(&output, 0);
    assert!(!printed(&output).contains("do not predict"), "{}", printed(&output));
    let read = |path: &str| fs::read_to_string(at.join(path)).unwrap();
    let ids = |text: &str| text.lines().map(|line| line.split(',').next().unwrap().to_string()).collect::<Vec<_>>();
    let expected = ids(&read("runs/strong-logistic/submission.csv"));
    assert_eq!(expected.len(), 1 + 5);
    for fusion in ["late", "learned", "early"] {
        let fused = format!("comparison/{fusion}-fusion");
        assert_eq!(ids(&read(&format!("{fused}/submission.csv"))), expected, "{fusion}");
        let metrics = json(&at.join(&fused).join("metrics.json"));
        assert_eq!((&metrics["test"]["n"], &metrics["unlabeled"]), (&40.into(), &5.into()), "{fusion}");
    }
    // Without the runs' models, the fusions predict the labeled clips only, and the files of the former call are removed.
    fs::remove_file(at.join("runs/weak-mlp/model.safetensors")).unwrap();
    let output = compare(at, &["runs/strong-logistic", "runs/weak-mlp", "--out", "comparison", "--no-early-fusion"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("the fusions do not predict clips without a label"), "{}", printed(&output));
    assert!(!at.join("comparison/learned-fusion/submission.csv").exists());
}

/// Writes and evaluates random scores of `classes` for clips with the labels `labels(i)`.
fn run_of(at: &Path, name: &str, classes: &[&str], labels: [&str; 2]) {
    let header: Vec<String> = classes.iter().map(|class| format!("score:{class}")).collect();
    let mut text = format!("id,split,label,{}\n", header.join(","));
    for i in 0..24 {
        let scores: Vec<String> = (0..classes.len()).map(|k| format!("0.{}", 1 + (i * 7 + k * 3) % 8)).collect();
        let split = if i < 16 { "val" } else { "test" };
        text += &format!("{i},{split},{},{}\n", labels[i % 2], scores.join(","));
    }
    let csv = format!("{name}.csv");
    fs::write(at.join(&csv), text).unwrap();
    assert_code(&evaluate(at, &["--predictions", &csv, "--out", name]), 0);
}

#[test]
fn runs_that_cannot_be_fused_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    run_of(at, "first", &["a", "b"], ["a", "b"]);
    run_of(at, "same", &["a", "b"], ["a", "b"]);
    run_of(at, "more", &["a", "b", "c"], ["a", "b"]);
    run_of(at, "other", &["a", "b"], ["b", "a"]);
    let fails = |arguments: &[&str], expected: &str| {
        let output = compare(at, arguments);
        assert_code(&output, 1);
        assert!(printed(&output).contains(expected), "{expected:?} is not in {}", printed(&output));
    };
    fails(
        &["first", "other", "--out", "comparison"],
        "other: other labels than first, such as those of clip `0`: run both with the same manifest",
    );
    let output = compare(at, &["first", "more", "--out", "comparison"]);
    assert_code(&output, 0);
    let text = printed(&output);
    assert!(text.contains("warning: first: lacks the class c: its score is 0 in the fusion"), "{text}");

    assert_code(&compare(at, &["first", "same", "--out", "comparison"]), 0);
    let before = fs::read(at.join("comparison/late-fusion/predictions.csv")).unwrap();
    fails(
        &["comparison/late-fusion", "first", "--out", "comparison"],
        "comparison/late-fusion: an input, which a fusion of this comparison would replace: choose another --out",
    );
    assert_eq!(fs::read(at.join("comparison/late-fusion/predictions.csv")).unwrap(), before);
    // The methods of these predictions are unknown, so that the fusion has the name of its directory.
    let output = compare(at, &["comparison/late-fusion", "first", "--out", "again"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("late fusion: late-fusion + first"), "{}", printed(&output));

    fs::remove_file(at.join("same/predictions.csv")).unwrap();
    fails(&["first", "same", "--out", "comparison"], "same: contains metrics.json, but no predictions.csv");
}

#[test]
fn early_fusion_refuses_stores_that_were_extracted_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    classify(at, "strong", "logistic");
    classify(at, "weak", "logistic");
    let change = "import sys, h5py\nwith h5py.File(sys.argv[1], 'r+') as store: store.attrs['model_sha256'] = '11'";
    run_python(change, &[&at.join("weak.h5")]);
    let output = compare(at, &["runs/strong-logistic", "runs/weak-logistic", "--out", "comparison"]);
    assert_code(&output, 0);
    let text = printed(&output);
    let expected = ["no early fusion: ", "weak.h5: computed by another network", "train the run again on this store"];
    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    assert!(!at.join("comparison/early-fusion").exists());
}
