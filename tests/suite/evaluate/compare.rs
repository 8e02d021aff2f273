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
        "learned fusion: all 3 runs (UNTRAINED)",
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
    assert_eq!(rows.len(), 7);
    let accuracy = |row: usize| rows[row]["parts"]["test"]["accuracy"].as_f64().unwrap();
    assert!(accuracy(0) > accuracy(2), "strong features are better than weak ones");
    assert!(accuracy(6) > accuracy(2), "early fusion with strong features is better than weak features alone");
    assert_eq!(rows[0]["parts"]["test"]["interval"]["unit"], "groups");
    assert_eq!(comparison["pairs"].as_array().unwrap().len(), 2 * 21);
    assert_eq!(comparison["duplicates"][0]["pairs"][0]["id"], "test07");
    for figure in ["bars_test.svg", "bars_val.svg", "confusion_01.svg", "confusion_07.svg"] {
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
    assert!(comparison["best"].is_null() && printed(&output).contains("No run is marked as the best"));

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
    assert_eq!(rows.len(), 4, "two runs, the mean of their scores, and their learned fusion");
    let map = |row: usize| rows[row]["parts"]["test"]["map"]["macro"].as_f64().unwrap();
    assert!(map(0) > map(1) && map(2) > map(1), "{} {} {}", map(0), map(1), map(2));
    let pairs = comparison["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2 * 2 * 6, "two parts, two metrics, six pairs");
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

#[test]
fn the_conclusion_is_at_the_top_of_every_output() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    for (method, classifier) in [("weak", "logistic"), ("strong", "logistic"), ("strong", "constant")] {
        classify(at, method, classifier);
    }
    let output = compare(at, &["runs", "--no-early-fusion", "--out", "runs/comparison"]);
    assert_code(&output, 0);
    let comparison = json(&at.join("runs/comparison/compare.json"));
    let conclusion = comparison["conclusion"].as_str().unwrap();
    assert!(conclusion.starts_with("strong · logistic is "), "{conclusion}");
    assert!(
        conclusion.contains("above the constant predictor") && conclusion.contains("significantly worse"),
        "{conclusion}"
    );
    assert!(conclusion.contains("weak · logistic (UNTRAINED)"), "{conclusion}");
    assert!(printed(&output).starts_with(conclusion), "{}", printed(&output));
    let read = |name: &str| fs::read_to_string(at.join("runs/comparison").join(name)).unwrap();
    let top: String = read("compare.md").lines().take(3).collect();
    let escaped = conclusion.replace('<', "&lt;");
    assert_eq!(top.replace('\\', ""), format!("# Comparison**{escaped}**"));
    assert!(read("report.html").contains(&format!("<p class=\"conclusion\">{escaped}</p>")));

    // The baseline of the conclusion is the run of the constant classifier.
    let pairs = comparison["pairs"].as_array().unwrap();
    let names = ["strong · constant", "strong · logistic"];
    let pair = pairs.iter().find(|pair| {
        pair["part"] == "test"
            && names.iter().all(|name| [&pair["first"], &pair["second"]].contains(&&Value::from(*name)))
    });
    let (pair, baseline) = (pair.unwrap(), &comparison["baseline"]);
    assert_eq!(pair["difference"].as_f64().unwrap().abs(), baseline["difference"].as_f64().unwrap());
    assert_eq!(pair["p"], baseline["p"]);
    let value = |interval: &Value, i: usize| (interval[i].as_f64().unwrap().abs() * 1e6).round();
    let swapped = usize::from(pair["first"] == names[0]);
    for i in 0..2 {
        let [paired, baseline] =
            [(pair, (i + swapped) % 2), (baseline, i)].map(|(of, i)| value(&of["difference_interval"], i));
        assert!((paired - baseline).abs() < 3e4, "the intervals differ by resampling only");
    }
}

#[test]
fn a_folder_is_compared_without_what_cannot_be_compared() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::create_dir(at.join("runs")).unwrap();
    let evaluated = |name: &str, rows: &str| {
        let csv = format!("{name}.csv");
        fs::write(at.join(&csv), format!("id,split,label,predicted\n{rows}")).unwrap();
        assert_code(&evaluate(at, &["--predictions", &csv, "--out", &format!("runs/{name}")]), 0);
    };
    let rows = |ids: std::ops::Range<usize>, label: &str| -> String {
        ids.map(|i| format!("{i},{},{label},{}\n", if i % 2 == 0 { "val" } else { "test" }, ["cat", "dog"][i / 2 % 2]))
            .collect()
    };
    evaluated("a<b>", &rows(0..20, "cat"));
    evaluated("elsewhere", &rows(100..120, "cat"));
    evaluated("failed-clip", &rows(0..19, "cat"));
    evaluated("relabeled", &rows(0..20, "dog"));
    fs::write(at.join("m.csv"), "id,labels,score:cat,score:dog\n1,cat,0.9,0.1\n3,cat|dog,0.3,0.6\n").unwrap();
    assert_code(&evaluate(at, &["--predictions", "m.csv", "--out", "runs/several"]), 0);
    for name in ["broken", "empty<i>", "interrupted", "no-predictions", "by-year", ".hidden"] {
        fs::create_dir(at.join("runs").join(name)).unwrap();
    }
    fs::write(at.join("runs/broken/metrics.json"), "{").unwrap();
    fs::write(at.join("runs/interrupted/recipe.toml"), "").unwrap();
    fs::write(at.join("runs/by-year/posters.json"), "{}").unwrap();
    fs::copy(at.join("runs/failed-clip/metrics.json"), at.join("runs/no-predictions/metrics.json")).unwrap();
    fs::write(at.join("runs/file"), "").unwrap();
    assert_code(&compare(at, &["runs/a<b>", "runs/failed-clip", "--out", "runs/old"]), 0);

    let arguments = ["runs", "--out", "runs/comparison"];
    // The second comparison finds its own directory, which it does not mention.
    compare(at, &arguments);
    let output = compare(at, &arguments);
    assert_code(&output, 0);
    let comparison = json(&at.join("runs/comparison/compare.json"));
    let names: Vec<&str> =
        comparison["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a<b>", "failed-clip"]);
    let expected = [
        ("broken", "not the metrics of a run"),
        ("by-year", "a set of models by year"),
        ("elsewhere", "another test set: 0 of its 10 test clips are among the 10 of a<b>"),
        ("empty<i>", "no metrics.json: not a run"),
        ("interrupted", "no metrics.json: the run has not been completed; train it again"),
        ("no-predictions", "predictions.csv"),
        ("old", "a comparison, not a run"),
        ("relabeled", "other labels than a<b>, such as those of clip `"),
        ("several", "multi-label, while a<b> is single-label"),
    ];
    let skipped = comparison["skipped"].as_array().unwrap();
    let mut found: Vec<(&str, &str)> =
        skipped.iter().map(|skip| (skip["directory"].as_str().unwrap(), skip["reason"].as_str().unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    let text = printed(&output);
    for ((directory, reason), (name, part)) in found.iter().zip(expected) {
        assert!(directory.ends_with(name) && reason.contains(part), "{directory}: {reason}");
        assert!(text.contains(&format!("skipped: {directory}: {reason}")), "{text}");
    }
    let page = fs::read_to_string(at.join("runs/comparison/report.html")).unwrap();
    assert!(page.contains("Skipped directories") && page.contains("runs/empty&lt;i&gt;</td>") && !page.contains("<i>"));
    let markdown = fs::read_to_string(at.join("runs/comparison/compare.md")).unwrap();
    assert!(markdown.contains("runs/empty&lt;i&gt; | no metrics.json: not a run |"), "{markdown}");

    // A run that is named is never skipped, and decides what the others are compared with.
    let named = compare(at, &["runs", "runs/elsewhere", "--out", "named"]);
    assert_code(&named, 0);
    assert_eq!(json(&at.join("named/compare.json"))["rows"].as_array().unwrap().len(), 1);
    assert_code(&compare(at, &["runs", "runs/broken", "--out", "named"]), 1);
    fs::create_dir_all(at.join("nothing/empty")).unwrap();
    let nothing = compare(at, &["nothing", "--out", "none"]);
    assert_code(&nothing, 1);
    let expected = "nothing: contains no run that can be compared:\n  nothing/empty: no metrics.json: not a run";
    assert!(printed(&nothing).contains(expected), "{}", printed(&nothing));
}
