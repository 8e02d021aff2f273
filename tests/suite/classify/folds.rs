//! Cross-validation.

use std::collections::{BTreeMap, HashMap};

use super::{Bench, Made, QUICK, separable};
use crate::support::{assert_code, printed};

/// Clips of classes that overlap.
pub(super) fn overlapping() -> Vec<Made> {
    overlap(separable(&["a", "b", "c"], [9, 4, 3], 12))
}

/// Moves the classes of [`separable`] clips together.
pub(super) fn overlap(mut clips: Vec<Made>) -> Vec<Made> {
    let features = clips.iter_mut().flat_map(|clip| &mut clip.features);
    features.filter(|value| **value > 3.0).for_each(|value| *value -= 5.7);
    clips
}

/// Reads the rows of a CSV file by the id in their first column.
pub(super) fn rows(bench: &Bench, path: &str) -> BTreeMap<String, csv::StringRecord> {
    let mut reader = csv::Reader::from_path(bench.path(path)).unwrap();
    reader.records().map(|row| row.unwrap()).map(|row| (row[0].to_string(), row)).collect()
}

#[test]
fn each_clip_is_predicted_by_a_model_of_the_other_folds() {
    let clips = overlapping();
    let bench = Bench::new(&clips);
    let output = bench.classify("run", &["--classifier", "logistic", "--folds", "4", "--repeat", "2"]);
    assert_code(&output, 0);
    let predictions = rows(&bench, "run/predictions.csv");
    assert_eq!(predictions.len(), clips.len());
    let folds = rows(&bench, "run/folds.csv");
    let fold_of = |clip: &Made, repetition: usize| folds[&clip.id][1 + repetition].parse::<usize>().unwrap();
    let pool: Vec<&Made> = clips.iter().filter(|clip| clip.split != "test").collect();
    assert_eq!(folds.len(), pool.len());
    assert!(pool.iter().any(|clip| fold_of(clip, 0) != fold_of(clip, 1)));
    let mut counts: HashMap<(usize, &str), usize> = HashMap::new();
    pool.iter().for_each(|clip| *counts.entry((fold_of(clip, 0), clip.label)).or_default() += 1);
    // 13 clips of each class in 4 folds.
    assert!(counts.len() == 12 && counts.values().all(|count| [3, 4].contains(count)), "{counts:?}");

    for fold in 0..4 {
        let split = |clip: &Made| match clip.split {
            "test" => "test",
            _ if fold_of(clip, 0) == fold => "val",
            _ => "train",
        };
        let split: Vec<Made> = clips.iter().map(|clip| Made { split: split(clip), ..clip.clone() }).collect();
        bench.manifest(&split);
        let out = format!("fold-{fold}");
        assert_code(&bench.classify(&out, &["--classifier", "logistic"]), 0);
        let of_fold = rows(&bench, &format!("{out}/predictions.csv"));
        for clip in split.iter().filter(|clip| clip.split == "val") {
            assert_eq!(predictions[&clip.id], of_fold[&clip.id], "{}", clip.id);
        }
    }
    let metrics = bench.metrics("run");
    assert_eq!(metrics["val"]["n"], 39);
    assert!(metrics["val"]["accuracy"].as_f64().unwrap() < 1.0);
}

#[test]
fn early_stopping_does_not_read_the_predicted_fold() {
    let clips = overlapping();
    let bench = Bench::new(&clips);
    let flags = [&QUICK[..], &["--folds", "3"]].concat();
    assert_code(&bench.classify("run", &flags), 0);
    let (predictions, folds) = (rows(&bench, "run/predictions.csv"), rows(&bench, "run/folds.csv"));
    // Other features of one clip change the model that is trained on its fold, but not the one that predicts its fold.
    let mut changed = clips.clone();
    changed[0].features.iter_mut().for_each(|value| *value += 3.0);
    bench.store(&changed, "registry", &[]);
    assert_code(&bench.classify("changed", &flags), 0);
    let after = rows(&bench, "changed/predictions.csv");
    let fold_of = |clip: &Made| folds[&clip.id][1].parse::<usize>().unwrap();
    let own = fold_of(&clips[0]);
    for clip in clips[1..].iter().filter(|clip| clip.split != "test") {
        let same = predictions[&clip.id] == after[&clip.id];
        // The third model uses the fold for early stopping.
        if fold_of(clip) != (own + 2) % 3 {
            assert_eq!(same, fold_of(clip) == own, "{}", clip.id);
        }
    }
}

#[test]
fn unusable_folds_are_errors_with_a_reason() {
    let bench = Bench::new(&overlapping());
    for (flags, expected) in [
        (&["--folds", "2"][..], "classify.folds must be at least 3 for mlp"),
        (&["--repeat", "2"], "classify.repeat applies to classify.folds only"),
        (&["--folds", "3", "--by", "year"], "classify.by does not apply to classify.folds"),
        (&["--folds", "3", "--seeds", "2"], "classify.seeds does not apply to classify.folds"),
        (&["--folds", "40", "--classifier", "bayes"], "cannot draw 40 folds from 39 labeled clips in 39 groups"),
    ] {
        let output = bench.classify("failed", flags);
        assert_ne!(output.status.code(), Some(0));
        assert!(printed(&output).contains(expected), "{expected:?} is not in {}", printed(&output));
        assert!(!bench.path("failed/metrics.json").exists());
    }
}
