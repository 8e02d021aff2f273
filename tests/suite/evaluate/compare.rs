//! kinoprobe-compare.

use std::fs;

use serde_json::Value;

use super::{assert_figure, classify, compare, evaluate, json, multi_label_predictions, stores};
use crate::support::{assert_code, printed};

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
    // The predictions name no splits, so nothing can be selected on validation clips.
    assert!(comparison["best"].is_null() && printed(&output).contains("no run is marked as the best"));

    // A directory of runs stands for the runs in it.
    assert_code(&compare(at, &[".", "--out", "all"]), 0);
    let all = json(&at.join("all/compare.json"));
    for row in 0..2 {
        assert_eq!(all["rows"][row]["parts"], comparison["rows"][row]["parts"]);
    }
    let into_run = compare(at, &["ours", "theirs", "--out", "ours"]);
    assert_code(&into_run, 1);
    assert!(
        printed(&into_run).contains("ours: the directory of a run: choose another --out"),
        "{}",
        printed(&into_run)
    );
    fs::create_dir(at.join("empty")).unwrap();
    let empty = compare(at, &["empty", "--out", "none"]);
    assert_code(&empty, 1);
    assert!(printed(&empty).contains("empty: contains no metrics.json and no run"), "{}", printed(&empty));
    let missing = compare(at, &["ours", "nowhere", "--out", "compare"]);
    assert_code(&missing, 1);
    assert!(printed(&missing).contains("compare: nowhere: contains no metrics.json"), "{}", printed(&missing));
    assert_code(&compare(at, &["--out", "compare"]), 2);
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
    for part in [
        "Metrics of each class, test",
        "AP: strong",
        "AP: weak",
        "paired bootstrap",
        "n/a",
        "95 % BCa bootstrap intervals",
    ] {
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
