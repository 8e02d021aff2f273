//! Metrics for one label per clip, as scikit-learn defines them (`labels` = all classes, `zero_division` = 0).

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::bootstrap::{Statistics, of_each};
use super::counts::{Confusion, PrecisionRecallF1, largest_confusions, ratio};
use super::intervals::Intervals;
use super::predictions::Predictions;
use super::reliability::calibration_error;

/// One-vs-rest metrics of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerClass {
    /// Name of the class.
    pub label: String,
    /// True positives.
    pub tp: u64,
    /// False positives: the column of the confusion matrix without the diagonal.
    pub fp: u64,
    /// False negatives: the row of the confusion matrix without the diagonal.
    #[serde(rename = "fn")]
    pub fn_: u64,
    /// True negatives.
    pub tn: u64,
    /// One-vs-rest accuracy, (TP + TN) / n, in [0, 1].
    pub accuracy: f64,
    /// TP / (TP + FP), in [0, 1]; 0 if the class is never predicted.
    pub precision: f64,
    /// TP / (TP + FN), in [0, 1]; 0 if no clip has the class.
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN), in [0, 1]; 0 if the denominator is 0.
    pub f1: f64,
    /// Number of clips of the class, TP + FN.
    pub support: u64,
}

/// The metrics of a split in metrics.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SingleLabelMetrics {
    /// Number of labeled clips. Metrics exclude unlabeled clips.
    pub n: usize,
    /// Fraction of clips with the correct predicted class, in [0, 1]. Source: `sklearn.metrics.accuracy_score`.
    pub accuracy: f64,
    /// k → top-k accuracy: fraction of clips whose true class is among the k highest scores (ties: the lower class index
    /// ranks first), in [0, 1], for k = 1, 3, 5 up to C. Only k = 1 (the accuracy) without scores.
    /// Source: `sklearn.metrics.top_k_accuracy_score`.
    pub top_k: BTreeMap<usize, f64>,
    /// Unweighted mean over all classes; absent classes count as 0.
    /// Source: `sklearn.metrics.precision_recall_fscore_support`, also for `micro` and `weighted`.
    #[serde(rename = "macro")]
    pub macro_: PrecisionRecallF1,
    /// From the summed counts; equal to the accuracy.
    pub micro: PrecisionRecallF1,
    /// Mean over the classes weighted by support.
    pub weighted: PrecisionRecallF1,
    /// Class names, C of them, in the order of `confusion`.
    pub labels: Vec<String>,
    /// Confusion matrix, C × C: rows true, columns predicted. Source: `sklearn.metrics.confusion_matrix`.
    pub confusion: Vec<Vec<u64>>,
    /// One-vs-rest metrics of every class, in the order of `labels`.
    pub per_class: Vec<PerClass>,
    /// The class with the lowest F1 among those with clips (ties: lower recall, then lower index).
    pub hardest: Option<String>,
    /// The class with the highest F1 among those with clips (ties: higher recall, then lower index).
    pub easiest: Option<String>,
    /// The largest off-diagonal cells of `confusion`, at most ten, in descending order (ties: row-major order).
    pub largest_confusions: Vec<Confusion>,
    /// [`calibration_error`] of the highest score, in [0, 1] (lower is better); `None` without scores, or if one is not in [0, 1].
    pub expected_calibration_error: Option<f64>,
    /// Bootstrap intervals, if [`super::evaluate_splits`] computed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Intervals>,
}

impl SingleLabelMetrics {
    /// Returns a description if every clip is predicted as the same class.
    pub fn collapsed(&self) -> Option<String> {
        let predicted: Vec<&PerClass> = self.per_class.iter().filter(|class| class.tp + class.fp > 0).collect();
        match predicted[..] {
            [only] if self.labels.len() > 1 => Some(format!("collapsed: every clip is predicted as {}", only.label)),
            _ => None,
        }
    }
}

/// The k of top-k accuracy.
const TOP_K: [usize; 3] = [1, 3, 5];

/// Computes the metrics of predictions. Without labeled clips, every metric is 0.
pub fn compute_metrics(predictions: &Predictions) -> SingleLabelMetrics {
    let labels = &predictions.classes;
    let confusion = confusion_matrix(predictions);
    let support: Vec<u64> = confusion.iter().map(|row| row.iter().sum()).collect();
    let n: u64 = support.iter().sum();
    let per_class: Vec<PerClass> = (0..labels.len()).map(|class| one_vs_rest(labels, &confusion, class, n)).collect();
    let correct: u64 = per_class.iter().map(|class| class.tp).sum();
    let accuracy = ratio(correct, n);
    let average = |weight: &dyn Fn(&PerClass) -> f64| {
        let total: f64 = per_class.iter().map(weight).sum();
        let mean = |value: &dyn Fn(&PerClass) -> f64| {
            if total == 0.0 { 0.0 } else { per_class.iter().map(|c| weight(c) * value(c)).sum::<f64>() / total }
        };
        PrecisionRecallF1 { precision: mean(&|c| c.precision), recall: mean(&|c| c.recall), f1: mean(&|c| c.f1) }
    };
    // The sort is stable: equal classes stay in the order of their indices.
    let first_by_f1 = |sign: f64| {
        let mut present: Vec<&PerClass> = per_class.iter().filter(|class| class.support > 0).collect();
        present.sort_by(|a, b| {
            (sign * a.f1).total_cmp(&(sign * b.f1)).then((sign * a.recall).total_cmp(&(sign * b.recall)))
        });
        present.first().map(|class| class.label.clone())
    };
    SingleLabelMetrics {
        n: n as usize,
        accuracy,
        top_k: top_k_accuracy(predictions).unwrap_or_else(|| BTreeMap::from([(1, accuracy)])),
        macro_: average(&|_| 1.0),
        // Every false positive of a class is a false negative of another.
        micro: PrecisionRecallF1 { precision: accuracy, recall: accuracy, f1: accuracy },
        weighted: average(&|class| class.support as f64),
        labels: labels.clone(),
        hardest: first_by_f1(1.0),
        easiest: first_by_f1(-1.0),
        largest_confusions: largest_confusions(labels, &confusion, &support),
        expected_calibration_error: calibration_error(predictions),
        confusion,
        per_class,
        interval: None,
    }
}

/// Computes the confusion matrix of the labeled clips, C × C: rows true, columns predicted.
pub fn confusion_matrix(predictions: &Predictions) -> Vec<Vec<u64>> {
    let classes = predictions.classes.len();
    let mut counts = vec![vec![0; classes]; classes];
    for (_, truth, predicted) in labeled_pairs(predictions) {
        counts[truth][predicted] += 1;
    }
    counts
}

/// Iterates over the labeled clips as (row, true class, predicted class).
fn labeled_pairs(predictions: &Predictions) -> impl Iterator<Item = (usize, usize, usize)> {
    let first = |sets: &[Vec<usize>], row: usize| sets[row].first().copied();
    (0..predictions.len())
        .filter_map(move |row| Some((row, first(&predictions.truth, row)?, first(&predictions.predicted, row)?)))
}

/// Returns accuracy and macro F1. A kind is a pair of a true and a predicted class that occurs.
///
/// Macro F1 excludes classes that occur in the split but not in the resample. Classes that do not occur in the split count as 0,
/// as in [`SingleLabelMetrics::macro_`].
pub(super) fn statistics(predictions: &Predictions) -> Statistics {
    let classes = predictions.classes.len();
    let mut kind_of_row = vec![0; predictions.len()];
    let (mut pairs, mut kind_of_pair) = (Vec::new(), HashMap::new());
    let mut occurs = vec![false; classes];
    for (row, truth, predicted) in labeled_pairs(predictions) {
        kind_of_row[row] = *kind_of_pair.entry((truth, predicted)).or_insert_with(|| {
            pairs.push((truth, predicted));
            pairs.len() as u32 - 1
        });
        (occurs[truth], occurs[predicted]) = (true, true);
    }
    let absent = occurs.iter().filter(|&&occurs| !occurs).count();
    let kinds = pairs.len();
    let compute = move |rows: &[u32]| {
        // Per class: true positives, and 2 TP + FP + FN.
        let mut counts = vec![(0u32, 0u32); classes];
        let (mut correct, mut n) = (0u32, 0u32);
        for (&(truth, predicted), &rows) in pairs.iter().zip(rows) {
            counts[truth].1 += rows;
            counts[predicted].1 += rows;
            n += rows;
            if truth == predicted {
                counts[truth].0 += rows;
                correct += rows;
            }
        }
        let present = counts.iter().filter(|(_, sum)| *sum > 0);
        let (f1, occur) =
            present.fold((0.0, 0), |(f1, n), &(tp, sum)| (f1 + 2.0 * f64::from(tp) / f64::from(sum), n + 1));
        vec![f64::from(correct) / f64::from(n), f1 / (occur + absent) as f64]
    };
    Statistics { keys: vec!["accuracy", "macro_f1"], kind_of_row, kinds, compute: Box::new(of_each(compute)) }
}

fn one_vs_rest(labels: &[String], confusion: &[Vec<u64>], class: usize, n: u64) -> PerClass {
    let tp = confusion[class][class];
    let support: u64 = confusion[class].iter().sum();
    let predicted: u64 = confusion.iter().map(|row| row[class]).sum();
    let (fp, fn_) = (predicted - tp, support - tp);
    let tn = n - tp - fp - fn_;
    PerClass {
        label: labels[class].clone(),
        tp,
        fp,
        fn_,
        tn,
        accuracy: ratio(tp + tn, n),
        precision: ratio(tp, predicted),
        recall: ratio(tp, support),
        f1: ratio(2 * tp, predicted + support),
        support,
    }
}

/// Computes [`SingleLabelMetrics::top_k`]; `None` without scores.
fn top_k_accuracy(predictions: &Predictions) -> Option<BTreeMap<usize, f64>> {
    let scores = predictions.scores.as_ref()?;
    let ranks: Vec<usize> = labeled_pairs(predictions)
        .map(|(row, truth, _)| {
            let (row, true_score) = (scores.row(row), scores[(row, truth)]);
            let ranks_before =
                |&(class, &score): &(usize, &f32)| score > true_score || (score == true_score && class < truth);
            row.iter().enumerate().filter(ranks_before).count()
        })
        .collect();
    let accuracy = |k: usize| ratio(ranks.iter().filter(|&&rank| rank < k).count() as u64, ranks.len() as u64);
    Some(TOP_K.into_iter().filter(|&k| k <= predictions.classes.len()).map(|k| (k, accuracy(k))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Task;
    use crate::evaluate::counts::assert_close;
    use ndarray::Array2;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Golden {
        name: String,
        classes: Vec<String>,
        truth: Vec<usize>,
        predicted: Vec<usize>,
        scores: Option<Vec<Vec<f32>>>,
        expected: serde_json::Value,
    }

    fn predictions(classes: usize, truth: &[usize], predicted: &[usize]) -> Predictions {
        Predictions {
            task: Task::SingleLabel,
            ids: (0..truth.len()).map(|i| i.to_string()).collect(),
            groups: vec![None; truth.len()],
            truth: truth.iter().map(|&class| vec![class]).collect(),
            predicted: predicted.iter().map(|&class| vec![class]).collect(),
            scores: None,
            classes: (0..classes).map(|class| format!("class {class}")).collect(),
        }
    }

    #[test]
    fn metrics_equal_scikit_learn() {
        let goldens: Vec<Golden> = serde_json::from_str(include_str!("../../fixtures/metrics.json")).unwrap();
        assert!(goldens.len() >= 6);
        for golden in goldens {
            let scores = golden
                .scores
                .map(|rows| Array2::from_shape_fn((rows.len(), golden.classes.len()), |(i, class)| rows[i][class]));
            let mut predictions = predictions(golden.classes.len(), &golden.truth, &golden.predicted);
            predictions.classes = golden.classes;
            predictions.scores = scores;
            assert_close(&golden.name, &serde_json::to_value(compute_metrics(&predictions)).unwrap(), &golden.expected);
        }
    }

    /// Counts of class 0 in the table for SIFT of the reproduced report: 18 true positives of 108 clips, 71 false positives.
    #[test]
    fn true_negatives_are_not_false_negatives() {
        let mut truth = vec![0; 108];
        truth.extend(vec![1; 1392]);
        let predicted: Vec<usize> = (0..1500).map(|i| usize::from(!(i < 18 || (108..179).contains(&i)))).collect();
        let class = &compute_metrics(&predictions(2, &truth, &predicted)).per_class[0];
        assert_eq!((class.tp, class.fp, class.fn_, class.tn, class.support), (18, 71, 90, 1321, 108));
        assert_eq!(format!("{:.4} {:.4}", class.recall, class.precision), "0.1667 0.2022");
    }

    #[test]
    fn ties_rank_the_lower_class_first() {
        let mut clips = predictions(4, &[1, 3], &[0, 0]);
        clips.scores = Some(Array2::from_elem((2, 4), 0.25));
        let metrics = compute_metrics(&clips);
        assert_eq!(metrics.top_k, BTreeMap::from([(1, 0.0), (3, 0.5)]));
        assert_eq!(metrics.expected_calibration_error, Some(0.25));
    }

    #[test]
    fn unlabeled_clips_are_ignored() {
        let mut clips = predictions(2, &[0, 1, 1], &[0, 1, 0]);
        clips.truth[2].clear();
        let metrics = compute_metrics(&clips);
        assert_eq!((metrics.n, metrics.accuracy), (2, 1.0));
        clips.truth = vec![vec![]; 3];
        let empty = compute_metrics(&clips);
        assert_eq!((empty.n, empty.accuracy, empty.hardest), (0, 0.0, None));
    }

    #[test]
    fn confusions_are_in_descending_order() {
        let metrics = compute_metrics(&predictions(3, &[0, 0, 0, 1, 1, 2], &[0, 1, 1, 1, 2, 2]));
        let cells: Vec<_> = metrics.largest_confusions.iter().map(|c| (&*c.label, &*c.predicted, c.count)).collect();
        assert_eq!(cells, [("class 0", "class 1", 2), ("class 1", "class 2", 1)]);
        assert_eq!(metrics.hardest.as_deref(), Some("class 1"));
        assert_eq!(metrics.easiest.as_deref(), Some("class 2"));
    }

    proptest! {
        #[test]
        fn counts_and_averages_are_consistent(pairs in prop::collection::vec((0usize..6, 0usize..6), 1..80)) {
            let (truth, predicted): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let metrics = compute_metrics(&predictions(6, &truth, &predicted));
            prop_assert_eq!(metrics.confusion.iter().flatten().sum::<u64>() as usize, pairs.len());
            prop_assert!((metrics.micro.f1 - metrics.accuracy).abs() < 1e-12);
            prop_assert!((metrics.weighted.recall - metrics.accuracy).abs() < 1e-12);
            for class in &metrics.per_class {
                prop_assert_eq!(class.tp + class.fp + class.fn_ + class.tn, metrics.n as u64);
                for value in [class.accuracy, class.precision, class.recall, class.f1] {
                    prop_assert!((0.0..=1.0).contains(&value));
                }
            }
            let reversed: Vec<_> = pairs.iter().rev().copied().collect();
            let (truth, predicted): (Vec<_>, Vec<_>) = reversed.into_iter().unzip();
            prop_assert_eq!(compute_metrics(&predictions(6, &truth, &predicted)), metrics);
        }
    }
}
