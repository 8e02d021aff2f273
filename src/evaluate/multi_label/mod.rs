//! Metrics of any number of labels a clip, as scikit-learn defines them (`zero_division` = 0).
//!
//! Clips without any label count as unlabeled and are left out of everything. Labels that no clip has are no one's
//! fault: their numbers are absent (null in JSON), and macro averages leave them out, where scikit-learn would count 0.
//! [`averages`] counts sets of labels, [`per_clip`] reads the scores of one clip, [`thresholds`] tunes.

pub mod averages;
pub mod per_clip;
#[cfg(test)]
mod tests;
pub mod thresholds;

use std::collections::BTreeMap;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

pub use averages::{Averages, Sets};
pub use thresholds::Thresholds;

use super::ranking::{Ranking, average_precision, mean_average_precision, pr_auc_trapezoid, roc_auc};
use super::significance::{Intervals, Statistics};
use super::{Confused, Predictions, largest_confusions};

/// The k of top-k accuracy.
const TOP_K: [usize; 3] = [1, 3, 5];
/// The sweep predicts the 1 to this many highest labels of every clip.
const SWEEP: usize = 10;
/// Scores that differ less than this between clips, for every label, are constant.
const SPREAD: f32 = 1e-4;

/// One label's numbers; absent where no clip has the label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerLabel {
    /// The label.
    pub label: String,
    /// TP / (TP + FP), 0 where it was never predicted.
    pub precision: Option<f64>,
    /// TP / (TP + FN).
    pub recall: Option<f64>,
    /// 2 TP / (2 TP + FP + FN).
    pub f1: Option<f64>,
    /// Clips that have the label, TP + FN.
    pub support: u64,
    /// Average precision, step-wise; absent without scores, as the two below.
    pub average_precision: Option<f64>,
    /// Area under the precision-recall curve by trapezoids, as published tables of Trailers12k have it.
    pub pr_auc_trapezoid: Option<f64>,
    /// Area under the ROC curve; absent also where all clips have the label.
    pub roc_auc: Option<f64>,
}

/// Average precision over all labels in four ways, in [0, 1]; absent without scores.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct MeanAveragePrecision {
    /// Of all (clip, label) pairs as one ranking.
    pub micro: Option<f64>,
    /// Unweighted mean over the labels that some clip has: what "mAP" means.
    #[serde(rename = "macro")]
    pub macro_: Option<f64>,
    /// Mean over the labels weighted by support.
    pub weighted: Option<f64>,
    /// Mean over the clips of the average precision of their ranking of labels.
    pub samples: Option<f64>,
}

/// What predicting the k highest labels of every clip gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TopK {
    /// How many labels are predicted.
    pub k: usize,
    /// Precision, recall and F1.
    #[serde(flatten)]
    pub averages: Averages,
}

/// All metrics of one split: the object of metrics.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabel {
    /// Labeled clips; clips without any label are left out of everything.
    pub n: usize,
    /// Label names, C of them.
    pub labels: Vec<String>,
    /// Every label by itself, in the order of `labels`.
    pub per_label: Vec<PerLabel>,
    /// Mean average precision.
    pub map: MeanAveragePrecision,
    /// Precision, recall and F1 of the predicted sets.
    #[serde(flatten)]
    pub averages: Averages,
    /// Share of clips whose predicted set is the true one.
    pub exact_match: f64,
    /// Share of the (clip, label) pairs that are wrong.
    pub hamming_loss: f64,
    /// 1 − Hamming loss; where labels are sparse, a model that predicts nothing has a high one.
    pub binary_accuracy: f64,
    /// Mean share of a clip's (true, other) label pairs in which the other scores at least as high; absent without scores,
    /// as the next three.
    pub ranking_loss: Option<f64>,
    /// Mean number of labels, from the highest score down, that it takes to hold all true ones, ties included; in [1, C].
    pub coverage_error: Option<f64>,
    /// Mean over a clip's true labels of the share of true ones among those that score at least as high.
    pub label_ranking_average_precision: Option<f64>,
    /// Mean share of true labels among the |y| highest of a clip with |y| true ones; equal scores rank the lower label
    /// index first.
    pub r_precision: Option<f64>,
    /// k → share of clips with a true label among the k highest, for k = 1, 3, 5 up to C; empty without scores.
    pub top_k: BTreeMap<usize, f64>,
    /// What predicting the k highest gives, k = 1 … 10 up to C; empty without scores.
    pub top_k_sweep: Vec<TopK>,
    /// What thresholds that were tuned on the validation split give here; absent on that split itself.
    pub thresholds: Option<Thresholds>,
    /// The label with clips whose average precision (without scores: F1) is lowest (ties: lower index).
    pub hardest: Option<String>,
    /// The label with clips whose average precision (without scores: F1) is highest (ties: lower index).
    pub easiest: Option<String>,
    /// Labels that were missed, with what the same clips got wrongly; at most ten, largest first.
    pub largest_confusions: Vec<Confused>,
    /// In words, where all clips get the same labels or the same scores.
    pub collapsed: Option<String>,
    /// Bootstrap intervals, where [`super::measure_parts`] added them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Intervals>,
}

/// Measures predictions. Where no clip has a label every share is 0 and what rests on scores is absent.
///
/// Definitions are scikit-learn's: `precision_recall_fscore_support` and `average_precision_score` in all averages,
/// `accuracy_score`, `hamming_loss`, `label_ranking_loss`, `coverage_error`, `label_ranking_average_precision_score`.
pub fn measure(predictions: &Predictions) -> MultiLabel {
    let rows = predictions.labeled();
    let (n, classes) = (rows.len(), predictions.classes.len());
    let truth = Sets::of(&predictions.truth, &rows, classes);
    let predicted = Sets::of(&predictions.predicted, &rows, classes);
    let scores = predictions.scores.as_ref().filter(|_| n > 0).map(|scores| scores.select(ndarray::Axis(0), &rows));
    let per_label = per_label(predictions, &truth, &predicted, scores.as_ref());
    let hamming_loss = truth.disagreement(&predicted);
    let by_clip = |value: &dyn Fn(&[bool], &[f32]) -> f64| {
        scores.as_ref().map(|scores| per_clip::mean(&truth, scores, |truth, scores| value(truth, scores)))
    };
    let sweep = |scores: &Array2<f32>| {
        let at = |k| TopK { k, averages: Averages::of(&truth, &Sets::highest(scores, k)) };
        (1..=SWEEP.min(classes)).map(at).collect()
    };
    let any_of = |scores: &Array2<f32>| {
        let share = |k| per_clip::mean(&truth, scores, |truth, scores| per_clip::any_of_highest(truth, scores, k));
        TOP_K.into_iter().filter(|&k| k <= classes).map(|k| (k, share(k))).collect()
    };
    let (hardest, easiest) = extremes(&per_label);
    MultiLabel {
        n,
        labels: predictions.classes.clone(),
        map: scores.as_ref().map(|scores| mean_average_precisions(&truth, scores, &per_label)).unwrap_or_default(),
        averages: Averages::of(&truth, &predicted),
        exact_match: truth.agreement(&predicted),
        hamming_loss,
        binary_accuracy: if n == 0 { 0.0 } else { 1.0 - hamming_loss },
        ranking_loss: by_clip(&per_clip::ranking_loss),
        coverage_error: by_clip(&per_clip::coverage),
        label_ranking_average_precision: by_clip(&per_clip::label_ranking_average_precision),
        r_precision: by_clip(&per_clip::r_precision),
        top_k: scores.as_ref().map(any_of).unwrap_or_default(),
        top_k_sweep: scores.as_ref().map(sweep).unwrap_or_default(),
        thresholds: None,
        hardest,
        easiest,
        largest_confusions: confusions(predictions, &truth, &predicted),
        collapsed: collapsed(predictions, &rows, scores.as_ref()),
        interval: None,
        per_label,
    }
}

fn per_label(predictions: &Predictions, truth: &Sets, predicted: &Sets, scores: Option<&Array2<f32>>) -> Vec<PerLabel> {
    let counts = truth.counts(predicted).into_iter().zip(&predictions.classes).enumerate();
    counts
        .map(|(class, (counts, label))| {
            let present = counts.support() > 0;
            let average = present.then(|| counts.average());
            let ranked = |value: fn(&[bool], &[f32]) -> Option<f64>| {
                let scores = scores.filter(|_| present)?.column(class).to_vec();
                value(&truth.label(class), &scores)
            };
            PerLabel {
                label: label.clone(),
                precision: average.map(|average| average.precision),
                recall: average.map(|average| average.recall),
                f1: average.map(|average| average.f1),
                support: counts.support(),
                average_precision: ranked(average_precision),
                pr_auc_trapezoid: ranked(pr_auc_trapezoid),
                roc_auc: ranked(roc_auc),
            }
        })
        .collect()
}

fn mean_average_precisions(truth: &Sets, scores: &Array2<f32>, per_label: &[PerLabel]) -> MeanAveragePrecision {
    let targets = truth.matrix().mapv(|has| f32::from(u8::from(has)));
    let support: u64 = per_label.iter().map(|label| label.support).sum();
    let weighted: f64 =
        per_label.iter().filter_map(|label| Some(label.support as f64 * label.average_precision?)).sum();
    MeanAveragePrecision {
        micro: average_precision(
            &truth.matrix().iter().copied().collect::<Vec<_>>(),
            &scores.iter().copied().collect::<Vec<_>>(),
        ),
        macro_: mean_average_precision(targets.view(), scores.view()),
        weighted: (support > 0).then(|| weighted / support as f64),
        samples: Some(per_clip::mean(truth, scores, |truth, scores| average_precision(truth, scores).unwrap_or(0.0))),
    }
}

fn extremes(per_label: &[PerLabel]) -> (Option<String>, Option<String>) {
    let value = |label: &PerLabel| label.average_precision.or(label.f1);
    let present: Vec<(f64, &str)> =
        per_label.iter().filter_map(|label| Some((value(label)?, label.label.as_str()))).collect();
    // Of equal ones, `min_by` keeps the first, and so does `max_by` from the end.
    let lowest = present.iter().min_by(|a, b| a.0.total_cmp(&b.0));
    let highest = present.iter().rev().max_by(|a, b| a.0.total_cmp(&b.0));
    (lowest.map(|(_, label)| label.to_string()), highest.map(|(_, label)| label.to_string()))
}

fn confusions(predictions: &Predictions, truth: &Sets, predicted: &Sets) -> Vec<Confused> {
    let classes = predictions.classes.len();
    let mut counts = vec![vec![0; classes]; classes];
    for (truth, predicted) in truth.matrix().outer_iter().zip(predicted.matrix().outer_iter()) {
        for missed in (0..classes).filter(|&class| truth[class] && !predicted[class]) {
            for wrong in (0..classes).filter(|&class| predicted[class] && !truth[class]) {
                counts[missed][wrong] += 1;
            }
        }
    }
    let support: Vec<u64> = truth.counts(predicted).iter().map(|counts| counts.support()).collect();
    largest_confusions(&predictions.classes, &counts, &support)
}

fn collapsed(predictions: &Predictions, rows: &[usize], scores: Option<&Array2<f32>>) -> Option<String> {
    let (&first, others) = rows.split_first()?;
    if others.is_empty() {
        return None;
    }
    let sets = &predictions.predicted;
    if others.iter().all(|&row| sets[row] == sets[first]) {
        let what = match sets[first].is_empty() {
            true => "no label".to_string(),
            false => predictions.names(&sets[first]),
        };
        return Some(format!("collapsed: every clip is predicted as {what}"));
    }
    let spread = |column: ndarray::ArrayView1<'_, f32>| {
        let (low, high) = column.iter().fold((f32::MAX, f32::MIN), |(low, high), &s| (low.min(s), high.max(s)));
        high - low
    };
    let constant = scores?.columns().into_iter().all(|column| spread(column) < SPREAD);
    constant.then(|| "collapsed: every clip gets the same scores, to within 0.0001".to_string())
}

/// mAP (where there are scores) and micro F1 of any draw of the clips: what a bootstrap computes. Labels that a draw lacks
/// are left out of its mAP.
pub(super) fn statistics(predictions: &Predictions) -> Statistics {
    let rows: Vec<usize> = (0..predictions.len()).collect();
    let classes = predictions.classes.len();
    let truth = Sets::of(&predictions.truth, &rows, classes);
    let rankings: Option<Vec<Ranking>> = predictions.scores.as_ref().map(|scores| {
        let ranking = |class: usize| Ranking::new(&truth.label(class), &scores.column(class).to_vec());
        (0..classes).filter(|&class| truth.label(class).contains(&true)).map(ranking).collect()
    });
    // Of each clip: labels it has and was given; labels it has + labels it was given.
    let sets = predictions.truth.iter().zip(&predictions.predicted);
    let agreed: Vec<(u64, u64)> = sets
        .map(|(truth, predicted)| {
            let hits = predicted.iter().filter(|class| truth.contains(class)).count();
            (hits as u64, (truth.len() + predicted.len()) as u64)
        })
        .collect();
    let mut keys = vec!["map", "micro_f1"];
    keys.drain(..usize::from(rankings.is_none()));
    let of = move |rows: &[usize]| {
        let (hits, sum) = rows.iter().fold((0, 0), |(hits, sum), &row| (hits + agreed[row].0, sum + agreed[row].1));
        let micro_f1 = super::ratio(2 * hits, sum);
        let mut values = vec![micro_f1];
        if let Some(rankings) = &rankings {
            let mut times = vec![0; agreed.len()];
            rows.iter().for_each(|&row| times[row] += 1);
            let each: Vec<f64> = rankings.iter().filter_map(|ranking| ranking.average_precision(&times)).collect();
            values.insert(0, each.iter().sum::<f64>() / each.len().max(1) as f64);
        }
        values
    };
    Statistics { keys, of: Box::new(of) }
}
