//! Metrics of one label a clip, as scikit-learn defines them (`labels` = all classes, `zero_division` = 0).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::predictions::argmax;
use super::significance::{Intervals, Statistics};
use super::{Average, Confused, Predictions, largest_confusions, ratio};

/// One class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerClass {
    /// The class.
    pub label: String,
    /// Clips of the class predicted as it.
    pub tp: u64,
    /// Clips of other classes predicted as it: the rest of its column.
    pub fp: u64,
    /// Clips of the class predicted as another: the rest of its row.
    #[serde(rename = "fn")]
    pub fn_: u64,
    /// Clips of other classes predicted as other classes.
    pub tn: u64,
    /// One-vs-rest accuracy, (TP + TN) / n.
    pub accuracy: f64,
    /// TP / (TP + FP), 0 where the class was never predicted.
    pub precision: f64,
    /// TP / (TP + FN), 0 where no clip has the class.
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN), 0 where the divisor is.
    pub f1: f64,
    /// Clips of the class, TP + FN.
    pub support: u64,
}

/// All metrics of one split: the object of metrics.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SingleLabel {
    /// Labeled clips; clips without a label are left out of everything.
    pub n: usize,
    /// Share of clips whose predicted class is the true one.
    pub accuracy: f64,
    /// k → share of clips whose true class is among the k highest scores, for k = 1, 3, 5 up to the number of classes.
    /// Equal scores rank the lower class index first. Only k = 1 (the accuracy) where there are no scores.
    pub top_k: BTreeMap<usize, f64>,
    /// Unweighted mean over all classes, absent ones (which count as 0) included.
    #[serde(rename = "macro")]
    pub macro_: Average,
    /// From the summed counts; with one label a clip each equals the accuracy.
    pub micro: Average,
    /// Mean over the classes weighted by support.
    pub weighted: Average,
    /// Class names, in the order of the rows and columns of `confusion`.
    pub labels: Vec<String>,
    /// Counts, C × C: rows true, columns predicted.
    pub confusion: Vec<Vec<u64>>,
    /// Every class against the rest, in the order of `labels`.
    pub per_class: Vec<PerClass>,
    /// The class with clips whose F1 is lowest (ties: lower recall, then lower index).
    pub hardest: Option<String>,
    /// The class with clips whose F1 is highest (ties: higher recall, then lower index).
    pub easiest: Option<String>,
    /// The largest cells off the diagonal, at most ten, largest first (ties: in reading order).
    pub largest_confusions: Vec<Confused>,
    /// Expected calibration error; absent without scores, or where a score lies outside [0, 1].
    pub expected_calibration_error: Option<f64>,
    /// Bootstrap intervals, where [`super::measure_parts`] added them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Intervals>,
}

impl SingleLabel {
    /// In words, where every clip is predicted as the same class.
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
/// Equal-width bins of the calibration error, as in Guo et al. 2017.
const CALIBRATION_BINS: usize = 15;

/// Measures predictions. Where no clip has a label every number is 0.
///
/// Definitions are scikit-learn's: `confusion_matrix`, `precision_recall_fscore_support(labels=all, zero_division=0)`.
pub fn measure(predictions: &Predictions) -> SingleLabel {
    let labels = &predictions.classes;
    let confusion = confusion(predictions);
    let n: u64 = confusion.iter().flatten().sum();
    let per_class: Vec<PerClass> = (0..labels.len()).map(|class| one_vs_rest(labels, &confusion, class, n)).collect();
    let correct: u64 = per_class.iter().map(|class| class.tp).sum();
    let accuracy = ratio(correct, n);
    let average = |weight: &dyn Fn(&PerClass) -> f64| {
        let total: f64 = per_class.iter().map(weight).sum();
        let mean = |value: &dyn Fn(&PerClass) -> f64| {
            if total == 0.0 { 0.0 } else { per_class.iter().map(|c| weight(c) * value(c)).sum::<f64>() / total }
        };
        Average { precision: mean(&|c| c.precision), recall: mean(&|c| c.recall), f1: mean(&|c| c.f1) }
    };
    // Stable sorts: of equal classes the one with the lower index comes first.
    let order = |sign: f64| {
        let mut present: Vec<&PerClass> = per_class.iter().filter(|class| class.support > 0).collect();
        present.sort_by(|a, b| {
            (sign * a.f1).total_cmp(&(sign * b.f1)).then((sign * a.recall).total_cmp(&(sign * b.recall)))
        });
        present.first().map(|class| class.label.clone())
    };
    SingleLabel {
        n: n as usize,
        accuracy,
        top_k: top_k(predictions).unwrap_or_else(|| BTreeMap::from([(1, accuracy)])),
        macro_: average(&|_| 1.0),
        // With one label a clip, every false positive is another class's false negative.
        micro: Average { precision: accuracy, recall: accuracy, f1: accuracy },
        weighted: average(&|class| class.support as f64),
        labels: labels.clone(),
        hardest: order(1.0),
        easiest: order(-1.0),
        largest_confusions: largest_confusions(
            labels,
            &confusion,
            &confusion.iter().map(|row| row.iter().sum()).collect::<Vec<_>>(),
        ),
        expected_calibration_error: calibration_error(predictions),
        confusion,
        per_class,
        interval: None,
    }
}

/// Counts of labeled clips, C × C: rows true, columns predicted.
pub fn confusion(predictions: &Predictions) -> Vec<Vec<u64>> {
    let classes = predictions.classes.len();
    let mut counts = vec![vec![0; classes]; classes];
    for (_, truth, predicted) in decided(predictions) {
        counts[truth][predicted] += 1;
    }
    counts
}

/// The labeled clips, each with its true and its predicted class.
fn decided(predictions: &Predictions) -> impl Iterator<Item = (usize, usize, usize)> {
    let first = |sets: &[Vec<usize>], row: usize| sets[row].first().copied();
    (0..predictions.len())
        .filter_map(move |row| Some((row, first(&predictions.truth, row)?, first(&predictions.predicted, row)?)))
}

/// Accuracy and macro F1 of any draw of the clips: what a bootstrap computes.
///
/// A class that the whole part lacks counts as 0 in the mean, as in the metric; one that only the draw lacks is left out.
pub(super) fn statistics(predictions: &Predictions) -> Statistics {
    let classes = predictions.classes.len();
    let mut pairs = vec![(0, 0); predictions.len()];
    let mut seen = vec![false; classes];
    for (row, truth, predicted) in decided(predictions) {
        pairs[row] = (truth, predicted);
        (seen[truth], seen[predicted]) = (true, true);
    }
    let absent = seen.iter().filter(|&&seen| !seen).count();
    let of = move |rows: &[usize]| {
        let mut counts = vec![(0u32, 0u32); classes]; // true positives; clips of the class + predictions of it
        let mut correct = 0u32;
        for &row in rows {
            let (truth, predicted) = pairs[row];
            counts[truth].1 += 1;
            counts[predicted].1 += 1;
            if truth == predicted {
                counts[truth].0 += 1;
                correct += 1;
            }
        }
        let present = counts.iter().filter(|(_, sum)| *sum > 0);
        let (f1, n) = present.fold((0.0, 0), |(f1, n), &(tp, sum)| (f1 + 2.0 * f64::from(tp) / f64::from(sum), n + 1));
        vec![f64::from(correct) / rows.len() as f64, f1 / (n + absent) as f64]
    };
    Statistics { keys: vec!["accuracy", "macro_f1"], of: Box::new(of) }
}

fn one_vs_rest(labels: &[String], confusion: &[Vec<u64>], class: usize, n: u64) -> PerClass {
    let tp = confusion[class][class];
    let support: u64 = confusion[class].iter().sum();
    let column: u64 = confusion.iter().map(|row| row[class]).sum();
    let (fp, fn_) = (column - tp, support - tp);
    let tn = n - tp - fp - fn_;
    PerClass {
        label: labels[class].clone(),
        tp,
        fp,
        fn_,
        tn,
        accuracy: ratio(tp + tn, n),
        precision: ratio(tp, column),
        recall: ratio(tp, support),
        f1: ratio(2 * tp, column + support),
        support,
    }
}

/// Share of labeled clips whose true class is among the k highest scores; `None` without scores.
fn top_k(predictions: &Predictions) -> Option<BTreeMap<usize, f64>> {
    let scores = predictions.scores.as_ref()?;
    let ranks: Vec<usize> = decided(predictions)
        .map(|(row, truth, _)| {
            let (row, own) = (scores.row(row), scores[(row, truth)]);
            row.iter().enumerate().filter(|&(class, &s)| s > own || (s == own && class < truth)).count()
        })
        .collect();
    let share = |k: usize| ratio(ranks.iter().filter(|&&rank| rank < k).count() as u64, ranks.len() as u64);
    Some(TOP_K.into_iter().filter(|&k| k <= predictions.classes.len()).map(|k| (k, share(k))).collect())
}

/// Expected calibration error of the highest score, in [0, 1]: Σ over bins of (bin's share of clips) × |accuracy of the
/// highest score − mean highest score|, with 15 bins ((b−1)/15, b/15].
///
/// Source: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015), with
/// the bins of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, eq. 3).
fn calibration_error(predictions: &Predictions) -> Option<f64> {
    let scores = predictions.scores.as_ref()?;
    if scores.iter().any(|score| !(0.0..=1.0).contains(score)) {
        return None;
    }
    let (mut confidence, mut correct) = ([0.0; CALIBRATION_BINS], [0.0; CALIBRATION_BINS]);
    let mut n = 0;
    for (row, truth, _) in decided(predictions) {
        let row = scores.row(row);
        let predicted = argmax(row.iter().copied());
        let top = f64::from(row[predicted]);
        let bin = ((top * CALIBRATION_BINS as f64).ceil() as usize).clamp(1, CALIBRATION_BINS) - 1;
        confidence[bin] += top;
        correct[bin] += f64::from(u8::from(predicted == truth));
        n += 1;
    }
    // |accuracy − confidence| × clips in the bin is the difference of the two sums.
    let total: f64 = confidence.iter().zip(&correct).map(|(c, a)| f64::abs(a - c)).sum();
    Some(if n == 0 { 0.0 } else { total / n as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Task;
    use crate::evaluate::assert_close;
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
    fn every_number_is_scikit_learns() {
        let goldens: Vec<Golden> = serde_json::from_str(include_str!("../../fixtures/metrics.json")).unwrap();
        assert!(goldens.len() >= 6);
        for golden in goldens {
            let scores = golden
                .scores
                .map(|rows| Array2::from_shape_fn((rows.len(), golden.classes.len()), |(i, class)| rows[i][class]));
            let mut ours = predictions(golden.classes.len(), &golden.truth, &golden.predicted);
            ours.classes = golden.classes;
            ours.scores = scores;
            assert_close(&golden.name, &serde_json::to_value(measure(&ours)).unwrap(), &golden.expected);
        }
    }

    /// Class 0 of the SIFT table of the report that this reproduces: 18 of its 108 clips are found, 71 others taken for it.
    #[test]
    fn true_negatives_are_not_false_negatives() {
        let mut truth = vec![0; 108];
        truth.extend(vec![1; 1392]);
        let predicted: Vec<usize> = (0..1500).map(|i| usize::from(!(i < 18 || (108..179).contains(&i)))).collect();
        let class = &measure(&predictions(2, &truth, &predicted)).per_class[0];
        assert_eq!((class.tp, class.fp, class.fn_, class.tn, class.support), (18, 71, 90, 1321, 108));
        assert_eq!(format!("{:.4} {:.4}", class.recall, class.precision), "0.1667 0.2022");
    }

    #[test]
    fn equal_scores_rank_the_lower_class_first() {
        let mut ours = predictions(4, &[1, 3], &[0, 0]);
        ours.scores = Some(Array2::from_elem((2, 4), 0.25));
        let metrics = measure(&ours);
        assert_eq!(metrics.top_k, BTreeMap::from([(1, 0.0), (3, 0.5)]));
        assert_eq!(metrics.expected_calibration_error, Some(0.25));
    }

    #[test]
    fn unlabeled_clips_are_left_out() {
        let mut ours = predictions(2, &[0, 1, 1], &[0, 1, 0]);
        ours.truth[2].clear();
        let metrics = measure(&ours);
        assert_eq!((metrics.n, metrics.accuracy), (2, 1.0));
        ours.truth = vec![vec![]; 3];
        let nothing = measure(&ours);
        assert_eq!((nothing.n, nothing.accuracy, nothing.hardest), (0, 0.0, None));
    }

    #[test]
    fn confusions_are_named_largest_first() {
        let metrics = measure(&predictions(3, &[0, 0, 0, 1, 1, 2], &[0, 1, 1, 1, 2, 2]));
        let cells: Vec<_> = metrics.largest_confusions.iter().map(|c| (&*c.label, &*c.predicted, c.count)).collect();
        assert_eq!(cells, [("class 0", "class 1", 2), ("class 1", "class 2", 1)]);
        assert_eq!(metrics.hardest.as_deref(), Some("class 1"));
        assert_eq!(metrics.easiest.as_deref(), Some("class 2"));
    }

    proptest! {
        #[test]
        fn counts_and_averages_agree(pairs in prop::collection::vec((0usize..6, 0usize..6), 1..80)) {
            let (truth, predicted): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let metrics = measure(&predictions(6, &truth, &predicted));
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
            prop_assert_eq!(measure(&predictions(6, &truth, &predicted)), metrics);
        }
    }
}
