//! Search over settings of a classifier.

use std::collections::BTreeMap;
use std::fs;

use ndarray::Array2;

use super::folds::{overlap, overlapping, rows};
use super::{Bench, Made, QUICK, separable};
use crate::support::{assert_code, printed};

/// Reads search.csv: the columns of each trial by their names.
fn trials(bench: &Bench, run: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(bench.path(run).join("search.csv")).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

fn number(trial: &BTreeMap<String, String>, column: &str) -> f64 {
    trial[column].parse().unwrap()
}

/// Returns the value of the trial that search.csv marks as selected.
fn selected(trials: &[BTreeMap<String, String>], name: &str) -> String {
    let selected: Vec<_> = trials.iter().filter(|trial| trial["selected"] == "true").collect();
    assert_eq!(selected.len(), 1);
    selected[0][name].clone()
}

#[test]
fn trials_are_scored_on_val_as_single_runs_are() {
    // More features than training clips, so that the penalty matters.
    let bench = Bench::new(&overlap(separable(&["a", "b", "c"], [9, 20, 3], 40)));
    let logistic = ["--classifier", "logistic"];
    let output = bench.classify("run", &[&logistic[..], &["--search", "alpha=log:0.01..10000"]].concat());
    assert_code(&output, 0);
    let found = trials(&bench, "run");
    assert_eq!(found.len(), 7);
    let mut best: Option<(f64, f64)> = None;
    for trial in &found {
        let alpha = &trial["alpha"];
        assert_code(&bench.classify(&format!("alpha-{alpha}"), &[&logistic[..], &["--alpha", alpha]].concat()), 0);
        let accuracy = bench.metrics(&format!("alpha-{alpha}"))["val"]["accuracy"].as_f64().unwrap();
        assert!((accuracy - number(trial, "accuracy")).abs() < 1e-9, "{alpha}: {accuracy} {trial:?}");
        // Ties: the higher penalty.
        if best.is_none_or(|(highest, _)| accuracy >= highest) {
            best = Some((accuracy, alpha.parse().unwrap()));
        }
    }
    assert!(found.iter().any(|trial| number(trial, "accuracy") < best.unwrap().0), "the penalty has an effect");
    let alpha = selected(&found, "alpha");
    assert_eq!(alpha.parse::<f64>().unwrap(), best.unwrap().1);

    // The run is that of the selected value, and both recipes repeat it.
    let predictions = rows(&bench, "run/predictions.csv");
    assert_eq!(predictions, rows(&bench, &format!("alpha-{alpha}/predictions.csv")));
    for recipe in ["recipe.toml", "best.toml"] {
        let recipe = bench.path("run").join(recipe);
        assert_code(&bench.classify("again", &["--recipe", recipe.to_str().unwrap()]), 0);
        assert_eq!(predictions, rows(&bench, "again/predictions.csv"));
    }
    let summary = &bench.metrics("run")["search"];
    assert_eq!((summary["trials"].as_u64(), summary["values"]["alpha"].as_str()), (Some(7), Some(alpha.as_str())));
    assert!(fs::read_to_string(bench.path("run/REPORT.md")).unwrap().contains("![scores of the trials](search.svg)"));
    assert!(!bench.path("again/search.csv").exists(), "a run without a search removes the files of the former one");
}

#[test]
fn the_test_split_has_no_part_in_a_search() {
    let clips = overlapping();
    let bench = Bench::new(&clips);
    let flags = ["--classifier", "svm", "--search", "alpha=log:0.1..1000", "class-weight=none,balanced"];
    assert_code(&bench.classify("run", &flags), 0);
    let other = |clip: &Made| Made {
        features: clip.features.iter().map(|value| if clip.split == "test" { 9.0 - value } else { *value }).collect(),
        ..clip.clone()
    };
    bench.store(&clips.iter().map(other).collect::<Vec<_>>(), "registry", &[]);
    assert_code(&bench.classify("changed", &flags), 0);
    let without_time = |mut trial: BTreeMap<String, String>| {
        trial.remove("seconds");
        trial
    };
    let [before, after] =
        ["run", "changed"].map(|run| trials(&bench, run).into_iter().map(without_time).collect::<Vec<_>>());
    assert_eq!(before.len(), 10);
    assert_eq!(before, after);
    assert_ne!(bench.metrics("run")["test"], bench.metrics("changed")["test"]);
}

#[test]
fn trials_are_scored_by_cross_validation() {
    let bench = Bench::new(&overlapping());
    let logistic = ["--classifier", "logistic"];
    let flags = ["--search", "alpha=0.01,1,100", "--search-folds", "4", "--split-seed", "3"];
    assert_code(&bench.classify("run", &[&logistic[..], &flags].concat()), 0);
    let found = trials(&bench, "run");
    for trial in &found {
        let flags = ["--alpha", &trial["alpha"], "--folds", "4", "--split-seed", "3"];
        assert_code(&bench.classify("folds", &[&logistic[..], &flags].concat()), 0);
        let (predictions, folds) = (rows(&bench, "folds/predictions.csv"), rows(&bench, "folds/folds.csv"));
        for fold in 0..4 {
            let of_fold: Vec<_> =
                folds.iter().filter(|(_, row)| row[1].parse() == Ok(fold)).map(|(id, _)| &predictions[id]).collect();
            // Columns: id, split, truth, predicted.
            let correct = of_fold.iter().filter(|row| row[2] == row[3]).count() as f64 / of_fold.len() as f64;
            let scored = number(trial, &format!("fold_{fold}"));
            assert!((scored - correct).abs() < 1e-9, "{}, fold {fold}: {scored} {correct}", trial["alpha"]);
        }
        if trial["selected"] == "true" {
            assert_eq!(rows(&bench, "run/predictions.csv"), predictions);
        }
    }
}

#[test]
fn nested_searches_do_not_read_the_predicted_fold() {
    let clips = overlapping();
    let bench = Bench::new(&clips);
    let flags = ["--classifier", "logistic", "--folds", "4", "--search", "alpha=log:0.001..1000"];
    assert_code(&bench.classify("run", &flags), 0);
    assert!(fs::read_to_string(bench.path("run/REPORT.md")).unwrap().contains("Selected without a fold: alpha "));
    let (predictions, folds) = (rows(&bench, "run/predictions.csv"), rows(&bench, "run/folds.csv"));
    let mut changed = clips.clone();
    changed[0].features.iter_mut().for_each(|value| *value = 5.0 - *value);
    bench.store(&changed, "registry", &[]);
    assert_code(&bench.classify("changed", &flags), 0);
    let after = rows(&bench, "changed/predictions.csv");
    let fold_of = |clip: &Made| &folds[&clip.id][1];
    for clip in clips[1..].iter().filter(|clip| clip.split != "test") {
        let same = predictions[&clip.id] == after[&clip.id];
        assert_eq!(same, fold_of(clip) == fold_of(&clips[0]), "{}", clip.id);
    }
}

#[test]
fn nested_searches_select_the_pooling_of_each_fold() {
    let clips = overlapping();
    let bench = Bench::new(&clips);
    let store = |clips: &[Made]| {
        let rows = |clip: &Made| {
            let value = |(row, d): (usize, usize)| {
                let value = clip.features[d];
                if row == 0 { value } else { (value * (100.0 + d as f32)).sin() }
            };
            Array2::from_shape_fn((2, clip.features.len()), value)
        };
        bench.store_of(clips, "registry", &[], &rows);
    };
    store(&clips);
    let flags = ["--classifier", "logistic", "--folds", "4"];
    assert_code(&bench.classify("run", &[&flags[..], &["--search", "pooling=mean,max"]].concat()), 0);
    for pooling in ["mean", "max"] {
        assert_code(&bench.classify(pooling, &[&flags[..], &["--pooling", pooling]].concat()), 0);
    }
    let (predictions, folds) = (rows(&bench, "run/predictions.csv"), rows(&bench, "run/folds.csv"));
    let of_pooling = ["mean", "max"].map(|run| rows(&bench, &format!("{run}/predictions.csv")));
    let fold_of = |id: &str| folds[id][1].parse::<usize>().unwrap();
    let selected = |fold: usize| {
        let of_fold: Vec<&String> = folds.keys().filter(|id| fold_of(id) == fold).collect();
        let is_pooling = |all: &BTreeMap<String, _>| of_fold.iter().all(|id| all[*id] == predictions[*id]);
        of_pooling.iter().position(is_pooling).unwrap_or_else(|| panic!("fold {fold} has neither pooling"))
    };
    let selected: Vec<usize> = (0..4).map(selected).collect();
    assert!(selected.contains(&0) && selected.contains(&1), "{selected:?}");
    // The clips of a fold have no part in the selection of its pooling.
    let mut changed = clips.clone();
    changed[0].features.iter_mut().for_each(|value| *value = 5.0 - *value);
    store(&changed);
    assert_code(&bench.classify("changed", &[&flags[..], &["--search", "pooling=mean,max"]].concat()), 0);
    let after = rows(&bench, "changed/predictions.csv");
    for clip in clips[1..].iter().filter(|clip| clip.split != "test") {
        let same = predictions[&clip.id] == after[&clip.id];
        assert_eq!(same, fold_of(&clip.id) == fold_of(&clips[0].id), "{}", clip.id);
    }
}

#[test]
fn refit_models_are_trained_on_train_and_val() {
    let clips = overlapping();
    let bench = Bench::new(&clips);
    let logistic = ["--classifier", "logistic"];
    assert_code(&bench.classify("plain", &logistic), 0);
    assert_code(&bench.classify("refit", &[&logistic[..], &["--refit"]].concat()), 0);
    let all: Vec<Made> = clips
        .iter()
        .map(|clip| Made { split: if clip.split == "val" { "train" } else { clip.split }, ..clip.clone() })
        .collect();
    let [plain, refit] = ["plain", "refit"].map(|run| rows(&bench, &format!("{run}/predictions.csv")));
    // As an extra validation clip is necessary to keep the splits, the model of all clips is that of a manifest in which val is train.
    let extra = Made { id: "extra".into(), split: "val", ..clips[0].clone() };
    let with_extra = [&all[..], &[extra]].concat();
    bench.store(&with_extra, "registry", &[]);
    bench.manifest(&with_extra);
    assert_code(&bench.classify("all", &logistic), 0);
    let all = rows(&bench, "all/predictions.csv");
    for clip in &clips {
        match clip.split {
            "val" => assert_eq!(refit[&clip.id], plain[&clip.id]),
            "test" => assert_eq!(refit[&clip.id], all[&clip.id]),
            _ => {}
        }
    }
    assert!(clips.iter().any(|clip| clip.split == "test" && refit[&clip.id] != plain[&clip.id]));
}

#[test]
fn networks_are_searched_at_random_and_refitted_for_the_kept_epochs() {
    let bench = Bench::new(&overlapping());
    let flags =
        [&QUICK[..], &["--search", "learning-rate=log:1e-4..1e-1", "dropout=0..0.6", "pooling=mean,max"]].concat();
    let flags = [&flags[..], &["--trials", "5", "--search-seed", "7", "--refit"]].concat();
    assert_code(&bench.classify("run", &flags), 0);
    let found = trials(&bench, "run");
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|trial| (1e-4..=1e-1).contains(&number(trial, "learning-rate"))));
    assert!(bench.metrics("run")["best_epoch"].as_u64().is_some());
    let threads = [&flags[..], &["--threads", "1"]].concat();
    assert_code(&bench.classify("one", &threads), 0);
    assert_eq!(rows(&bench, "run/predictions.csv"), rows(&bench, "one/predictions.csv"));
}

#[test]
fn unusable_searches_are_errors_with_a_reason() {
    let bench = Bench::new(&overlapping());
    for (flags, expected) in [
        (&["--classifier", "logistic", "--search", "hidden=1,2"][..], "--hidden does not apply to classifier logistic"),
        (&["--classifier", "logistic", "--alpha", "1", "--search", "alpha=1,2"], "--alpha is searched"),
        (&["--classifier", "constant", "--search"], "classifier constant has no setting to search"),
        (&["--search", "hidden"], "use NAME=VALUES"),
        (&["--search", "dropout=0.5..0.1"], "the range `0.5..0.1` is empty"),
        (&["--trials", "3"], "--trials applies to --search only"),
        (&["--search", "--by", "year"], "classify.search does not apply to classify.by"),
        (&["--search", "--folds", "3"], "a search within classify.folds needs at least 4 folds"),
        (
            &["--search", "--folds", "4", "--search-folds", "3"],
            "classify.search.folds does not apply to classify.folds",
        ),
        (&["--refit", "--folds", "4"], "classify.refit does not apply to classify.folds"),
    ] {
        let output = bench.classify("failed", flags);
        assert_ne!(output.status.code(), Some(0), "{flags:?}");
        assert!(printed(&output).contains(expected), "{expected:?} is not in {}", printed(&output));
        assert!(!bench.path("failed/metrics.json").exists());
    }
}

#[test]
fn failed_trials_are_reported_and_the_others_compete() {
    let bench = Bench::new(&overlapping());
    let output = bench.classify("run", &["--search", "learning-rate=0.01,1e30", "--epochs", "3"]);
    assert_code(&output, 0);
    let found = trials(&bench, "run");
    assert_eq!(selected(&found, "learning-rate"), "0.01");
    assert!(found[1]["error"].contains("training diverged"), "{found:?}");
    assert_eq!(found[1]["accuracy"], "");
    let text = fs::read_to_string(bench.path("run/REPORT.md")).unwrap();
    assert!(text.contains("1 trials failed; search.csv has the reasons"), "{text}");
}

#[test]
fn recipes_can_contain_a_search() {
    let bench = Bench::new(&overlapping());
    let recipe = bench.path("recipe.toml");
    let text = r#"
method = "made"
sampling = { kind = "even", frames = 3 }
extractor = { kind = "network", card = "numbers", batch = 1 }

[classify]
classifier = "knn"

[classify.search]
trials = 3
folds = 3

[classify.search.values]
neighbors = [1, 3, 5]
metric = ["cosine", "euclidean"]
"#;
    fs::write(&recipe, text).unwrap();
    let flags = ["--recipe", recipe.to_str().unwrap()];
    assert_code(&bench.classify("run", &flags), 0);
    assert_eq!(trials(&bench, "run").len(), 3);
}
