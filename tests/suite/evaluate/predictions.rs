//! kinoprobe-evaluate.

use std::fs;

use serde_json::Value;

use super::{assert_figure, classify, evaluate, json, multi_label_predictions, stores};
use crate::support::{assert_code, printed};

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
    assert_eq!((&test["interval"]["unit"], &metrics["interval_method"]), (&"groups".into(), &"BCa bootstrap".into()));
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
