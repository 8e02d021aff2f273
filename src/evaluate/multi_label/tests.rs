use ndarray::{Array2, array};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::dataset::Task;
use crate::evaluate::counts::assert_close;
use crate::evaluate::{SplitMetrics, evaluate_splits, significance};

#[derive(Deserialize)]
struct Golden {
    name: String,
    classes: Vec<String>,
    truth: Vec<Vec<usize>>,
    predicted: Vec<Vec<usize>>,
    scores: Option<Vec<Vec<f32>>>,
    expected: Value,
    thresholds: Option<Value>,
    draw: Option<Resample>,
    report: Option<String>,
}

#[derive(Deserialize)]
struct Resample {
    rows: Vec<usize>,
    map: f64,
    micro_f1: f64,
}

fn goldens() -> Vec<(Golden, Predictions)> {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../../../fixtures/multi_label.json")).unwrap();
    assert!(goldens.len() >= 7);
    let with_predictions = |golden: Golden| {
        let classes = golden.classes.len();
        let scores = golden
            .scores
            .as_ref()
            .map(|rows| Array2::from_shape_fn((rows.len(), classes), |(i, class)| rows[i][class]));
        let mut predictions = sets(classes, &golden.truth, &golden.predicted);
        if let Some(scores) = scores {
            predictions = from_scores(&golden.truth, scores);
            assert_eq!(predictions.predicted, golden.predicted, "{}", golden.name);
        }
        predictions.classes = golden.classes.clone();
        (golden, predictions)
    };
    goldens.into_iter().map(with_predictions).collect()
}

fn sets(classes: usize, truth: &[Vec<usize>], predicted: &[Vec<usize>]) -> Predictions {
    Predictions {
        task: Task::MultiLabel,
        ids: (0..truth.len()).map(|i| i.to_string()).collect(),
        groups: vec![None; truth.len()],
        truth: truth.to_vec(),
        predicted: predicted.to_vec(),
        scores: None,
        classes: (0..classes).map(|class| format!("label {class}")).collect(),
    }
}

fn from_scores(truth: &[Vec<usize>], scores: Array2<f32>) -> Predictions {
    let empty = sets(scores.ncols(), truth, truth);
    Predictions::from_scores(Task::MultiLabel, empty.ids, empty.groups, empty.truth, scores, empty.classes)
}

#[test]
fn metrics_equal_scikit_learn() {
    for (golden, predictions) in goldens() {
        assert_close(&golden.name, &serde_json::to_value(compute_metrics(&predictions)).unwrap(), &golden.expected);
    }
}

#[test]
fn thresholds_maximize_f1() {
    for (golden, predictions) in goldens() {
        let tuned = Thresholds::tune(&predictions);
        assert_eq!(tuned.is_some(), golden.thresholds.is_some(), "{}", golden.name);
        if let (Some(tuned), Some(expected)) = (tuned, golden.thresholds) {
            assert_close(&golden.name, &serde_json::to_value(&tuned).unwrap(), &expected);
            assert_eq!(tuned.apply(&predictions), Some(tuned), "same metrics on the clips they were tuned on");
        }
    }
}

#[test]
fn statistics_of_a_resample_equal_its_metrics() {
    for (golden, predictions) in goldens() {
        let statistics = statistics(&predictions);
        let Some(resample) = golden.draw else {
            assert_eq!(statistics.keys, ["micro_f1"], "no mAP without scores");
            continue;
        };
        assert_eq!(statistics.keys, ["map", "micro_f1"]);
        let counts = |rows: &[usize]| {
            let mut counts = vec![[0; LANES]; statistics.kinds];
            rows.iter().for_each(|&row| counts[statistics.kind_of_row[row] as usize][1] += 1);
            counts
        };
        let value_of = |rows: &[usize]| -> Vec<f64> {
            (statistics.compute)(&counts(rows)).iter().map(|values| values[1]).collect()
        };
        let values = value_of(&resample.rows);
        assert!(
            (values[0] - resample.map).abs() < 1e-12 && (values[1] - resample.micro_f1).abs() < 1e-12,
            "{}",
            golden.name
        );
        // Counts that are not bytes: 300 times as many of each clip.
        let repeated = value_of(&resample.rows.repeat(300));
        assert!(values.iter().zip(&repeated).all(|(a, b)| (a - b).abs() < 1e-12), "{}", golden.name);
        let metrics = compute_metrics(&predictions);
        let all = value_of(&predictions.labeled_rows());
        assert!((all[0] - metrics.map.macro_.unwrap()).abs() < 1e-12);
        assert!((all[1] - metrics.averages.micro.f1).abs() < 1e-12);
    }
}

#[test]
fn classification_report_equals_scikit_learn() {
    let mut compared = 0;
    for (golden, predictions) in goldens() {
        if let Some(expected) = golden.report {
            let actual = crate::report::classification_report::text(&crate::evaluate::compute_metrics(&predictions));
            let lines = |text: &str| text.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>();
            assert_eq!(lines(&actual), lines(&expected), "{}", golden.name);
            compared += 1;
        }
    }
    assert!(compared >= 3);
}

#[test]
fn unlabeled_clips_are_ignored() {
    let scores = array![[0.9, 0.1], [0.2, 0.8], [0.9, 0.9]];
    let one_unlabeled = from_scores(&[vec![0], vec![1], vec![]], scores.clone());
    let metrics = compute_metrics(&one_unlabeled);
    assert_eq!((metrics.n, metrics.exact_match, metrics.map.macro_), (2, 1.0, Some(1.0)));
    let empty = compute_metrics(&from_scores(&[vec![], vec![], vec![]], scores));
    assert_eq!((empty.n, empty.exact_match, empty.map.macro_, empty.ranking_loss), (0, 0.0, None, None));
    assert_eq!(empty.hardest, None);
}

#[test]
fn collapse_is_described() {
    let truth = [vec![0], vec![0, 1], vec![1]];
    let same = compute_metrics(&sets(3, &truth, &[vec![0, 2], vec![0, 2], vec![0, 2]]));
    assert_eq!(same.collapsed.as_deref(), Some("collapsed: every clip is predicted as label 0|label 2"));
    let silent = compute_metrics(&from_scores(&truth, array![[0.1, 0.2], [0.3, 0.1], [0.2, 0.4]]));
    assert_eq!(silent.collapsed.as_deref(), Some("collapsed: every clip is predicted as no label"));
    // Near the threshold, label sets differ although the scores are nearly equal.
    let flat = compute_metrics(&from_scores(&truth, array![[0.50001, 0.2], [0.49999, 0.2], [0.5, 0.2]]));
    assert!(flat.collapsed.unwrap().contains("the same scores"));
    let alive = compute_metrics(&from_scores(&truth, array![[0.6, 0.2], [0.3, 0.1], [0.2, 0.4]]));
    assert_eq!(alive.collapsed, None);
}

#[test]
fn confusions_pair_missed_with_wrong_labels() {
    let metrics = compute_metrics(&sets(3, &[vec![0], vec![0, 1], vec![0, 1]], &[vec![2], vec![1, 2], vec![0, 1]]));
    let cells: Vec<_> =
        metrics.largest_confusions.iter().map(|c| (&*c.label, &*c.predicted, c.count, c.share)).collect();
    assert_eq!(cells, [("label 0", "label 2", 2, 2.0 / 3.0)]);
}

#[test]
fn thresholds_are_tuned_on_the_validation_split() {
    // The threshold 0.3 separates the validation clips, but not the test clips. Too few validation clips have label 1.
    let val_truth: Vec<Vec<usize>> = (0..9).map(|i| vec![usize::from(i >= 5)]).collect();
    let val = Array2::from_shape_fn((9, 2), |(i, label)| {
        [[0.4, 0.1], [0.3, 0.2], [0.1, 0.9]][[0, 1, 1, 1, 1, 2, 2, 2, 2][i]][label]
    });
    let val = from_scores(&val_truth, val);
    let test = from_scores(&[vec![0], vec![1], vec![1]], array![[0.2, 0.1], [0.4, 0.95], [0.1, 0.9]]);
    let splits = evaluate_splits(&BTreeMap::from([("test", test), ("val", val)]), "val");
    let thresholds = |split: &str| match &splits[split] {
        SplitMetrics::MultiLabel(metrics) => metrics.thresholds.clone(),
        SplitMetrics::SingleLabel(_) => unreachable!("the task is multi-label"),
    };
    assert_eq!(thresholds("val"), None);
    let tuned = thresholds("test").unwrap();
    assert_eq!(tuned.per_label.iter().map(|label| label.threshold).collect::<Vec<_>>(), [0.3, 0.5]);
    assert_eq!(tuned.not_tuned(), ["label 1"]);
    assert_eq!((tuned.averages.micro.precision, tuned.averages.micro.recall), (2.0 / 3.0, 2.0 / 3.0));
}

#[test]
fn paired_comparison_uses_map_and_micro_f1() {
    let truth: Vec<Vec<usize>> = (0..60).map(|i| vec![i % 3]).collect();
    let scores = |right: f32| {
        Array2::from_shape_fn((60, 3), |(i, c)| {
            let noise = ((i * 31 + c * 17) % 23) as f32 / 23.0;
            if i % 3 == c { right + (1.0 - right) * noise } else { noise * 0.9 }
        })
    };
    let (good, poor) = (from_scores(&truth, scores(0.9)), from_scores(&truth, scores(0.1)));
    let pairs = significance::compare_paired(&good, &poor).unwrap();
    assert_eq!(pairs.iter().map(|pair| pair.measure.as_str()).collect::<Vec<_>>(), ["map", "micro_f1"]);
    for pair in &pairs {
        assert!(pair.difference > 0.05 && pair.p < 0.01 && pair.difference_interval.unwrap()[0] > 0.0, "{pair:?}");
        assert_eq!((pair.only_first, pair.n), (None, 60));
    }
    // The same from resamples that several pairs share, and for clips in another order, without them.
    let resampled = significance::Resampled::of_all(&[&good, &poor]);
    assert_eq!(resampled[0].compare_paired(&resampled[1]).unwrap(), pairs);
    let reversed = poor.select(&(0..60).rev().collect::<Vec<_>>());
    let reversed = significance::Resampled::new(&reversed);
    assert_eq!(resampled[0].compare_paired(&reversed).unwrap(), pairs);
    let expected = compute_metrics(&good).map.macro_.unwrap() - compute_metrics(&poor).map.macro_.unwrap();
    assert!((pairs[0].difference - expected).abs() < 1e-12);
    for (same, back) in significance::compare_paired(&good, &good)
        .unwrap()
        .iter()
        .zip(significance::compare_paired(&poor, &good).unwrap())
    {
        assert_eq!((same.difference, same.p), (0.0, 1.0));
        assert!(back.difference < 0.0);
    }
    let mut single = good.clone();
    single.task = Task::SingleLabel;
    assert!(significance::compare_paired(&good, &single).is_err());
}

proptest! {
    #[test]
    fn metrics_are_in_range_and_independent_of_the_order(
        clips in prop::collection::vec((prop::collection::btree_set(0usize..5, 1..4), prop::array::uniform5(0u8..8)), 1..30),
    ) {
        let truth: Vec<Vec<usize>> = clips.iter().map(|(set, _)| set.iter().copied().collect()).collect();
        let scores = Array2::from_shape_fn((clips.len(), 5), |(i, c)| f32::from(clips[i].1[c]) / 8.0);
        let predictions = from_scores(&truth, scores);
        let metrics = crate::evaluate::compute_metrics(&predictions);
        for metric in metrics.values() {
            let value = metric.value.unwrap();
            prop_assert!(value >= 0.0 && (value <= 1.0 || metric.key == "coverage_error"), "{metric:?}");
        }
        let backwards: Vec<usize> = (0..clips.len()).rev().collect();
        let reversed = crate::evaluate::compute_metrics(&predictions.select(&backwards));
        for (a, b) in metrics.values().iter().zip(reversed.values()) {
            prop_assert!((a.value.unwrap() - b.value.unwrap()).abs() < 1e-12, "{a:?} {b:?}");
        }
    }
}
