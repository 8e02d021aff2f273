use ndarray::{Array2, array};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::dataset::Task;
use crate::evaluate::{Measured, assert_close, measure_parts, significance};

#[derive(Deserialize)]
struct Golden {
    name: String,
    classes: Vec<String>,
    truth: Vec<Vec<usize>>,
    predicted: Vec<Vec<usize>>,
    scores: Option<Vec<Vec<f32>>>,
    expected: Value,
    thresholds: Option<Value>,
    draw: Option<Draw>,
    report: Option<String>,
}

#[derive(Deserialize)]
struct Draw {
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
        let mut ours = sets(classes, &golden.truth, &golden.predicted);
        ours.classes = golden.classes.clone();
        if let Some(scores) = scores {
            ours = from_scores(&golden.truth, scores);
            ours.classes = golden.classes.clone();
            assert_eq!(ours.predicted, golden.predicted, "{}", golden.name);
        }
        (golden, ours)
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
fn every_number_is_scikit_learns() {
    for (golden, ours) in goldens() {
        assert_close(&golden.name, &serde_json::to_value(measure(&ours)).unwrap(), &golden.expected);
    }
}

#[test]
fn thresholds_are_the_best_of_all_scores() {
    for (golden, ours) in goldens() {
        let tuned = Thresholds::tune(&ours);
        assert_eq!(tuned.is_some(), golden.thresholds.is_some(), "{}", golden.name);
        if let (Some(tuned), Some(expected)) = (tuned, golden.thresholds) {
            assert_close(&golden.name, &serde_json::to_value(&tuned).unwrap(), &expected);
            assert_eq!(tuned.apply(&ours), Some(tuned), "applied where they were tuned they give the same");
        }
    }
}

#[test]
fn draws_are_measured_as_if_they_were_clips() {
    for (golden, ours) in goldens() {
        let statistics = statistics(&ours);
        let Some(draw) = golden.draw else {
            assert_eq!(statistics.keys, ["micro_f1"], "without scores there is no mAP");
            continue;
        };
        assert_eq!(statistics.keys, ["map", "micro_f1"]);
        let found = (statistics.of)(&draw.rows);
        assert!((found[0] - draw.map).abs() < 1e-12 && (found[1] - draw.micro_f1).abs() < 1e-12, "{}", golden.name);
        let measured = measure(&ours);
        let whole = (statistics.of)(&ours.labeled());
        assert!((whole[0] - measured.map.macro_.unwrap()).abs() < 1e-12);
        assert!((whole[1] - measured.averages.micro.f1).abs() < 1e-12);
    }
}

#[test]
fn the_classic_report_is_scikit_learns() {
    let mut compared = 0;
    for (golden, ours) in goldens() {
        if let Some(theirs) = golden.report {
            let ours = crate::report::classification_report::text(&crate::evaluate::measure(&ours));
            let lines = |text: &str| text.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>();
            assert_eq!(lines(&ours), lines(&theirs), "{}", golden.name);
            compared += 1;
        }
    }
    assert!(compared >= 3);
}

#[test]
fn unlabeled_clips_are_left_out_and_nothing_is_no_number() {
    let scores = array![[0.9, 0.1], [0.2, 0.8], [0.9, 0.9]];
    let with = from_scores(&[vec![0], vec![1], vec![]], scores.clone());
    let metrics = measure(&with);
    assert_eq!((metrics.n, metrics.exact_match, metrics.map.macro_), (2, 1.0, Some(1.0)));
    let nothing = measure(&from_scores(&[vec![], vec![], vec![]], scores));
    assert_eq!((nothing.n, nothing.exact_match, nothing.map.macro_, nothing.ranking_loss), (0, 0.0, None, None));
    assert_eq!(nothing.hardest, None);
}

#[test]
fn collapse_is_called_so() {
    let truth = [vec![0], vec![0, 1], vec![1]];
    let same = measure(&sets(3, &truth, &[vec![0, 2], vec![0, 2], vec![0, 2]]));
    assert_eq!(same.collapsed.as_deref(), Some("collapsed: every clip is predicted as label 0|label 2"));
    let silent = measure(&from_scores(&truth, array![[0.1, 0.2], [0.3, 0.1], [0.2, 0.4]]));
    assert_eq!(silent.collapsed.as_deref(), Some("collapsed: every clip is predicted as no label"));
    // Around the threshold sets differ though the scores do not.
    let flat = measure(&from_scores(&truth, array![[0.50001, 0.2], [0.49999, 0.2], [0.5, 0.2]]));
    assert!(flat.collapsed.unwrap().contains("the same scores"));
    let alive = measure(&from_scores(&truth, array![[0.6, 0.2], [0.3, 0.1], [0.2, 0.4]]));
    assert_eq!(alive.collapsed, None);
}

#[test]
fn missed_labels_stand_beside_what_was_given_instead() {
    let metrics = measure(&sets(3, &[vec![0], vec![0, 1], vec![0, 1]], &[vec![2], vec![1, 2], vec![0, 1]]));
    let cells: Vec<_> =
        metrics.largest_confusions.iter().map(|c| (&*c.label, &*c.predicted, c.count, c.share)).collect();
    assert_eq!(cells, [("label 0", "label 2", 2, 2.0 / 3.0)]);
}

#[test]
fn thresholds_come_from_validation_only() {
    // On validation 0.3 parts the clips; on test it does not.
    let val = from_scores(&[vec![0], vec![0], vec![1]], array![[0.4, 0.1], [0.3, 0.2], [0.1, 0.9]]);
    let test = from_scores(&[vec![0], vec![1], vec![1]], array![[0.2, 0.1], [0.4, 0.95], [0.1, 0.9]]);
    let parts = measure_parts(&BTreeMap::from([("test", test), ("val", val)]), "val");
    let thresholds = |part: &str| match &parts[part] {
        Measured::Multi(metrics) => metrics.thresholds.clone(),
        Measured::Single(_) => unreachable!("several labels went in"),
    };
    assert_eq!(thresholds("val"), None);
    let tuned = thresholds("test").unwrap();
    assert_eq!(tuned.per_label.iter().map(|label| label.threshold).collect::<Vec<_>>(), [0.3, 0.9]);
    assert_eq!((tuned.averages.micro.precision, tuned.averages.micro.recall), (2.0 / 3.0, 2.0 / 3.0));
}

#[test]
fn pairs_are_compared_by_map_and_micro_f1() {
    let truth: Vec<Vec<usize>> = (0..60).map(|i| vec![i % 3]).collect();
    let scores = |right: f32| {
        Array2::from_shape_fn((60, 3), |(i, c)| {
            let noise = ((i * 31 + c * 17) % 23) as f32 / 23.0;
            if i % 3 == c { right + (1.0 - right) * noise } else { noise * 0.9 }
        })
    };
    let (good, poor) = (from_scores(&truth, scores(0.9)), from_scores(&truth, scores(0.1)));
    let pairs = significance::paired(&good, &poor).unwrap();
    assert_eq!(pairs.iter().map(|pair| pair.measure.as_str()).collect::<Vec<_>>(), ["map", "micro_f1"]);
    for pair in &pairs {
        assert!(pair.difference > 0.05 && pair.p < 0.01 && pair.difference_interval.unwrap()[0] > 0.0, "{pair:?}");
        assert_eq!((pair.only_first, pair.n), (None, 60));
    }
    let expected = measure(&good).map.macro_.unwrap() - measure(&poor).map.macro_.unwrap();
    assert!((pairs[0].difference - expected).abs() < 1e-12);
    for (same, back) in
        significance::paired(&good, &good).unwrap().iter().zip(significance::paired(&poor, &good).unwrap())
    {
        assert_eq!((same.difference, same.p), (0.0, 1.0));
        assert!(back.difference < 0.0);
    }
    let mut single = good.clone();
    single.task = Task::SingleLabel;
    assert!(significance::paired(&good, &single).is_err());
}

proptest! {
    #[test]
    fn numbers_stay_in_range_and_do_not_depend_on_the_order(
        clips in prop::collection::vec((prop::collection::btree_set(0usize..5, 1..4), prop::array::uniform5(0u8..8)), 1..30),
    ) {
        let truth: Vec<Vec<usize>> = clips.iter().map(|(set, _)| set.iter().copied().collect()).collect();
        let scores = Array2::from_shape_fn((clips.len(), 5), |(i, c)| f32::from(clips[i].1[c]) / 8.0);
        let predictions = from_scores(&truth, scores);
        let metrics = crate::evaluate::measure(&predictions);
        for number in metrics.numbers() {
            let value = number.value.unwrap();
            prop_assert!(value >= 0.0 && (value <= 1.0 || number.key == "coverage_error"), "{number:?}");
        }
        let backwards: Vec<usize> = (0..clips.len()).rev().collect();
        let turned = crate::evaluate::measure(&predictions.select(&backwards));
        for (a, b) in metrics.numbers().iter().zip(turned.numbers()) {
            prop_assert!((a.value.unwrap() - b.value.unwrap()).abs() < 1e-12, "{a:?} {b:?}");
        }
    }
}
