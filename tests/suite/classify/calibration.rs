//! Calibrated scores.

use std::collections::BTreeMap;
use std::fs;

use super::{Bench, Made, separable};
use crate::support::assert_code;

/// Clips of classes that overlap: 12 training, 8 validation and 6 test clips per class.
fn overlapping() -> Vec<Made> {
    let mut clips = separable(&["a", "b", "c"], [12, 8, 6], 12);
    let features = clips.iter_mut().flat_map(|clip| &mut clip.features);
    features.filter(|value| **value > 3.0).for_each(|value| *value -= 5.7);
    clips
}

/// Reads the scores of the clips of a split from a predictions.csv.
fn scores(bench: &Bench, run: &str, split: &str) -> BTreeMap<String, Vec<f64>> {
    let mut reader = csv::Reader::from_path(bench.path(run).join("predictions.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let columns: Vec<usize> = (0..header.len()).filter(|&column| header[column].starts_with("score:")).collect();
    let at = header.iter().position(|name| name == "split").unwrap();
    let rows = reader.records().map(|row| row.unwrap()).filter(|row| &row[at] == split);
    let of_row = |row: &csv::StringRecord| columns.iter().map(|&column| row[column].parse().unwrap()).collect();
    rows.map(|row| (row[0].to_string(), of_row(&row))).collect()
}

#[test]
fn temperature_divides_the_logits() {
    let bench = Bench::new(&overlapping());
    let flags = ["--classifier", "bayes"];
    assert_code(&bench.classify("plain", &flags), 0);
    assert_code(&bench.classify("run", &[&flags[..], &["--calibrate", "temperature"]].concat()), 0);
    let (plain, metrics) = (bench.metrics("plain"), bench.metrics("run"));
    assert!(plain.get("calibration").is_none());
    let method = metrics["calibration"]["method"].as_str().unwrap();
    let temperature: f64 = method.strip_prefix("temperature scaling, T = ").unwrap().parse().unwrap();
    assert!(temperature > 1.5, "naive Bayes is overconfident: {temperature}");
    for split in ["val", "test"] {
        assert_eq!(metrics[split]["accuracy"], plain[split]["accuracy"]);
        let error = |metrics: &serde_json::Value| metrics[split]["expected_calibration_error"].as_f64().unwrap();
        assert_eq!(metrics["calibration"]["expected_calibration_error_before"][split], error(&plain));
        assert_ne!(error(&metrics), error(&plain));
        let before = scores(&bench, "plain", split);
        let calibrated = scores(&bench, "run", split);
        assert!(before.len() == calibrated.len() && !before.is_empty());
        for (id, before) in before {
            let powers: Vec<f64> = before.iter().map(|p| (p + 1e-12).powf(1.0 / temperature)).collect();
            let sum: f64 = powers.iter().sum();
            for (power, score) in powers.iter().zip(&calibrated[&id]) {
                // The temperature of the report has four decimals.
                assert!((power / sum - score).abs() < 1e-4, "{id}");
            }
        }
    }
    // The calibration is a part of the model, and of the recipe.
    assert_code(&bench.evaluate("run"), 0);
    for split in ["val", "test"] {
        assert_eq!(scores(&bench, "evaluated", split), scores(&bench, "run", split));
        assert_eq!(bench.metrics("evaluated")[split], metrics[split]);
    }
    assert_code(&bench.classify("again", &["--recipe", "run/recipe.toml"]), 0);
    assert_eq!(bench.metrics("again")["calibration"], metrics["calibration"]);
    let report = fs::read_to_string(bench.path("run/REPORT.md")).unwrap();
    for part in [method, "(reliability_test.svg)", "before calibration", "the calibration was fitted to these clips"] {
        assert!(report.contains(part), "{part:?} is not in {report}");
    }
    let page = fs::read_to_string(bench.path("run/report.html")).unwrap();
    assert!(page.contains(method) && page.contains("the calibration was fitted to these clips"), "{page}");
    let of_test = report.split("## Test").nth(1).unwrap();
    assert!(!of_test.contains("fitted to these clips"), "{of_test}");
    let figure = fs::read_to_string(bench.path("run/reliability_test.svg")).unwrap();
    assert!(figure.contains("calibrated: calibration error") && figure.contains("before: calibration error"));
    let report = fs::read_to_string(bench.path("plain/REPORT.md")).unwrap();
    assert!(report.contains("(reliability_test.svg)") && !report.contains("before calibration"));
}

#[test]
fn labels_are_calibrated_on_the_predictions_of_val_or_of_the_folds() {
    let bench = Bench::new(&overlapping());
    let data = ["--classifier", "bayes", "--task", "multi-label"];
    for (run, flags) in [
        ("platt", &["--calibrate", "platt"][..]),
        ("isotonic", &["--calibrate", "isotonic"]),
        ("platt-refit", &["--calibrate", "platt", "--refit"]),
        ("platt-folds", &["--calibrate", "platt", "--folds", "3", "--repeat", "2"]),
    ] {
        assert_code(&bench.classify(run, &[&data[..], flags].concat()), 0);
        let metrics = bench.metrics(run);
        let error = |value: &serde_json::Value| value.as_f64().unwrap();
        let before = error(&metrics["calibration"]["expected_calibration_error_before"]["val"]);
        assert!(error(&metrics["val"]["expected_calibration_error"]) < before, "{run}: {metrics}");
        // The thresholds are those of calibrated scores, and the calibrated model yields the same test scores.
        assert_code(&bench.evaluate(run), 0);
        assert_eq!(scores(&bench, "evaluated", "test"), scores(&bench, run, "test"), "{run}");
        let val = scores(&bench, run, "val");
        for (class, label) in metrics["test"]["thresholds"]["per_label"].as_array().unwrap().iter().enumerate() {
            let threshold = label["threshold"].as_f64().unwrap();
            assert!(val.values().any(|scores| (scores[class] - threshold).abs() < 1e-6), "{run}: {label}");
        }
        fs::remove_dir_all(bench.path("evaluated")).unwrap();
    }
}

#[test]
fn unusable_calibrations_are_errors_with_a_reason() {
    let bench = Bench::new(&overlapping());
    bench.assert_error(
        &["--calibrate", "platt"],
        &["classify.calibrate: platt and isotonic apply to multi-label tasks; choose temperature"],
    );
    let flags = ["--task", "multi-label", "--classifier", "bayes", "--folds", "3", "--calibrate", "temperature"];
    bench.assert_error(
        &flags,
        &["classify.calibrate: temperature applies to single-label tasks; choose platt or isotonic"],
    );
}
