//! Late, early and learned fusion by kinoprobe-compare.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{classify, compare, evaluate, json, stores};
use crate::support::{assert_code, fixture, printed};

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
