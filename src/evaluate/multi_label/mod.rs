//! Metrics for any number of labels per clip, as scikit-learn defines them (`zero_division` = 0).
//!
//! Clips without labels count as unlabeled; metrics exclude them. The metrics of a label without a positive clip are undefined
//! (`None`, null in JSON), and macro averages exclude it; scikit-learn counts it as 0. [`averages`] compares
//! label sets, [`per_clip`] ranks the labels of a clip, [`thresholds`] tunes decision thresholds.

pub mod averages;
pub mod per_clip;
#[cfg(test)]
mod tests;
pub mod thresholds;

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView1, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use averages::{Averages, LabelMatrix};
pub use thresholds::Thresholds;

use super::bootstrap::Statistics;
use super::counts::{Confusion, largest_confusions, ratio};
use super::intervals::Intervals;
use super::predictions::Predictions;
use super::ranking::{Ranking, average_precision};
use super::reliability::calibration_error;
use super::units::{LANES, Lanes};

/// The k of top-k accuracy.
const TOP_K: [usize; 3] = [1, 3, 5];
/// Largest k of [`MultiLabelMetrics::top_k_sweep`].
const SWEEP_MAX_K: usize = 10;
/// Scores that differ by less than this between clips, for every label, count as constant.
const CONSTANT_TOLERANCE: f32 = 1e-4;

/// Metrics of a label, in [0, 1]; undefined (`None`) if the label has no positive clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerLabel {
    /// Name of the label.
    pub label: String,
    /// TP / (TP + FP); 0 if the label is never predicted.
    pub precision: Option<f64>,
    /// TP / (TP + FN).
    pub recall: Option<f64>,
    /// 2 TP / (2 TP + FP + FN).
    pub f1: Option<f64>,
    /// Number of clips with the label, TP + FN.
    pub support: u64,
    /// [`Ranking::average_precision`]; `None` without scores, as are `pr_auc_trapezoid` and `roc_auc`.
    pub average_precision: Option<f64>,
    /// [`Ranking::pr_auc_trapezoid`].
    pub pr_auc_trapezoid: Option<f64>,
    /// [`Ranking::roc_auc`]; also `None` if all clips have the label.
    pub roc_auc: Option<f64>,
}

/// Mean average precision in four averages, in [0, 1]; `None` without scores.
///
/// Source: `sklearn.metrics.average_precision_score`, except that `macro` excludes labels without a positive clip.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct MeanAveragePrecision {
    /// Average precision of all (clip, label) pairs in one ranking.
    pub micro: Option<f64>,
    /// mAP: unweighted mean over the labels with at least one positive clip.
    #[serde(rename = "macro")]
    pub macro_: Option<f64>,
    /// Mean over the labels weighted by support.
    pub weighted: Option<f64>,
    /// Mean over the clips of the average precision of their ranking of labels.
    pub samples: Option<f64>,
}

/// Metrics if the k labels with the highest scores of every clip are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TopKAverages {
    /// Number of predicted labels per clip.
    pub k: usize,
    /// Precision, recall and F1.
    #[serde(flatten)]
    pub averages: Averages,
}

/// The metrics of a split in metrics.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelMetrics {
    /// Number of labeled clips. Metrics exclude unlabeled clips.
    pub n: usize,
    /// Label names, C of them.
    pub labels: Vec<String>,
    /// Metrics of every label, in the order of `labels`.
    pub per_label: Vec<PerLabel>,
    /// Mean average precision.
    pub map: MeanAveragePrecision,
    /// Precision, recall and F1 of the predicted label sets.
    #[serde(flatten)]
    pub averages: Averages,
    /// Fraction of clips with the correct label set, in [0, 1]. Source: `sklearn.metrics.accuracy_score`.
    pub exact_match: f64,
    /// Fraction of wrong (clip, label) pairs, in [0, 1] (lower is better). Source: `sklearn.metrics.hamming_loss`.
    pub hamming_loss: f64,
    /// 1 − Hamming loss, in [0, 1]; if labels are sparse, a model that predicts no labels has a high value.
    pub binary_accuracy: f64,
    /// Mean of [`per_clip::ranking_loss`], in [0, 1] (lower is better); this and the next three metrics are `None` without scores.
    pub ranking_loss: Option<f64>,
    /// Mean of [`per_clip::coverage_error`], in [1, C] (lower is better).
    pub coverage_error: Option<f64>,
    /// Mean of [`per_clip::label_ranking_average_precision`], in [0, 1].
    pub label_ranking_average_precision: Option<f64>,
    /// Mean of [`per_clip::r_precision`], in [0, 1].
    pub r_precision: Option<f64>,
    /// k → fraction of clips with a true label among the k highest scores (ties: the lower label index ranks first), in
    /// [0, 1], for k = 1, 3, 5 up to C; empty without scores.
    pub top_k: BTreeMap<usize, f64>,
    /// Metrics of the k highest scores for k = 1 … 10 up to C; empty without scores.
    pub top_k_sweep: Vec<TopKAverages>,
    /// Mean over the labels of their [`calibration_error`], in [0, 1] (lower is better); `None` without scores, or if one is not in [0, 1].
    pub expected_calibration_error: Option<f64>,
    /// Metrics with thresholds tuned on the validation split; `None` for that split itself.
    pub thresholds: Option<Thresholds>,
    /// The label with the lowest average precision (without scores: F1) among those with clips (ties: lower index).
    pub hardest: Option<String>,
    /// The label with the highest average precision (without scores: F1) among those with clips (ties: lower index).
    pub easiest: Option<String>,
    /// The most frequent pairs of a missed label and a wrong label of the same clip; at most ten, in descending order.
    pub largest_confusions: Vec<Confusion>,
    /// A description if all clips get the same labels or the same scores.
    pub collapsed: Option<String>,
    /// Bootstrap intervals, if [`super::evaluate_splits`] computed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Intervals>,
}

/// Computes the metrics of predictions. Without labeled clips, metrics of label sets are 0 and metrics of scores `None`.
pub fn compute_metrics(predictions: &Predictions) -> MultiLabelMetrics {
    let rows = predictions.labeled_rows();
    let (n, classes) = (rows.len(), predictions.classes.len());
    let truth = LabelMatrix::from_sets(&predictions.truth, &rows, classes);
    let predicted = LabelMatrix::from_sets(&predictions.predicted, &rows, classes);
    let scores = predictions.scores.as_ref().filter(|_| n > 0).map(|scores| scores.select(Axis(0), &rows));
    let per_label = per_label_metrics(predictions, &truth, &predicted, scores.as_ref());
    let hamming_loss = truth.hamming_loss(&predicted);
    let clip_mean = |metric: &dyn Fn(&[bool], &[f32]) -> f64| {
        scores.as_ref().map(|scores| per_clip::mean(&truth, scores, |truth, scores| metric(truth, scores)))
    };
    let sweep = |scores: &Array2<f32>| {
        let at = |k| TopKAverages { k, averages: Averages::compute(&truth, &LabelMatrix::from_top_k(scores, k)) };
        (1..=SWEEP_MAX_K.min(classes)).map(at).collect()
    };
    let top_k = |scores: &Array2<f32>| {
        let accuracy = |k| per_clip::mean(&truth, scores, |truth, scores| per_clip::top_k_hit(truth, scores, k));
        TOP_K.into_iter().filter(|&k| k <= classes).map(|k| (k, accuracy(k))).collect()
    };
    let (hardest, easiest) = hardest_and_easiest(&per_label);
    MultiLabelMetrics {
        n,
        labels: predictions.classes.clone(),
        map: scores.as_ref().map(|scores| mean_average_precisions(&truth, scores, &per_label)).unwrap_or_default(),
        averages: Averages::compute(&truth, &predicted),
        exact_match: truth.exact_match(&predicted),
        hamming_loss,
        binary_accuracy: if n == 0 { 0.0 } else { 1.0 - hamming_loss },
        ranking_loss: clip_mean(&per_clip::ranking_loss),
        coverage_error: clip_mean(&per_clip::coverage_error),
        label_ranking_average_precision: clip_mean(&per_clip::label_ranking_average_precision),
        r_precision: clip_mean(&per_clip::r_precision),
        top_k: scores.as_ref().map(top_k).unwrap_or_default(),
        top_k_sweep: scores.as_ref().map(sweep).unwrap_or_default(),
        expected_calibration_error: calibration_error(predictions).filter(|_| n > 0),
        thresholds: None,
        hardest,
        easiest,
        largest_confusions: confusions(predictions, &truth, &predicted),
        collapsed: describe_collapse(predictions, &rows, scores.as_ref()),
        interval: None,
        per_label,
    }
}

fn per_label_metrics(
    predictions: &Predictions,
    truth: &LabelMatrix,
    predicted: &LabelMatrix,
    scores: Option<&Array2<f32>>,
) -> Vec<PerLabel> {
    let counts = truth.counts(predicted);
    let labels = counts.into_par_iter().zip(&predictions.classes).enumerate();
    labels
        .map(|(class, (counts, label))| {
            let present = counts.support() > 0;
            let metrics = present.then(|| counts.metrics());
            let ranking = scores
                .filter(|_| present)
                .map(|scores| Ranking::new(&truth.label(class), &scores.column(class).to_vec()));
            PerLabel {
                label: label.clone(),
                precision: metrics.map(|metrics| metrics.precision),
                recall: metrics.map(|metrics| metrics.recall),
                f1: metrics.map(|metrics| metrics.f1),
                support: counts.support(),
                average_precision: ranking.as_ref().and_then(Ranking::average_precision),
                pr_auc_trapezoid: ranking.as_ref().and_then(Ranking::pr_auc_trapezoid),
                roc_auc: ranking.as_ref().and_then(Ranking::roc_auc),
            }
        })
        .collect()
}

fn mean_average_precisions(truth: &LabelMatrix, scores: &Array2<f32>, per_label: &[PerLabel]) -> MeanAveragePrecision {
    let defined: Vec<f64> = per_label.iter().filter_map(|label| label.average_precision).collect();
    let support: u64 = per_label.iter().map(|label| label.support).sum();
    let weighted: f64 =
        per_label.iter().filter_map(|label| Some(label.support as f64 * label.average_precision?)).sum();
    MeanAveragePrecision {
        micro: average_precision(
            &truth.matrix().iter().copied().collect::<Vec<_>>(),
            &scores.iter().copied().collect::<Vec<_>>(),
        ),
        macro_: (!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64),
        weighted: (support > 0).then(|| weighted / support as f64),
        samples: Some(per_clip::mean(truth, scores, |truth, scores| average_precision(truth, scores).unwrap_or(0.0))),
    }
}

/// Returns the counts as bytes, if they fit.
fn to_bytes(counts: &Lanes<u32>) -> Option<Lanes<u8>> {
    let fit = counts.iter().all(|&count| count <= u32::from(u8::MAX));
    fit.then(|| counts.map(|count| count as u8))
}

fn hardest_and_easiest(per_label: &[PerLabel]) -> (Option<String>, Option<String>) {
    let value = |label: &PerLabel| label.average_precision.or(label.f1);
    let present: Vec<(f64, &str)> =
        per_label.iter().filter_map(|label| Some((value(label)?, label.label.as_str()))).collect();
    // `min_by` returns the first of equal elements, `max_by` the last; reversed, the first.
    let lowest = present.iter().min_by(|a, b| a.0.total_cmp(&b.0));
    let highest = present.iter().rev().max_by(|a, b| a.0.total_cmp(&b.0));
    (lowest.map(|(_, label)| label.to_string()), highest.map(|(_, label)| label.to_string()))
}

fn confusions(predictions: &Predictions, truth: &LabelMatrix, predicted: &LabelMatrix) -> Vec<Confusion> {
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

fn describe_collapse(predictions: &Predictions, rows: &[usize], scores: Option<&Array2<f32>>) -> Option<String> {
    let (&first, others) = rows.split_first()?;
    if others.is_empty() {
        return None;
    }
    let sets = &predictions.predicted;
    if others.iter().all(|&row| sets[row] == sets[first]) {
        let labels = match sets[first].is_empty() {
            true => "no label".to_string(),
            false => predictions.label_names(&sets[first]),
        };
        return Some(format!("collapsed: every clip is predicted as {labels}"));
    }
    let spread = |column: ArrayView1<'_, f32>| {
        let (min, max) = column.iter().fold((f32::MAX, f32::MIN), |(min, max), &s| (min.min(s), max.max(s)));
        max - min
    };
    let constant = scores?.columns().into_iter().all(|column| spread(column) < CONSTANT_TOLERANCE);
    constant.then(|| "collapsed: every clip gets the same scores, within 0.0001".to_string())
}

/// Returns mAP (if there are scores) and micro F1. Each row is a kind of its own. The mAP excludes labels without a positive
/// clip in the resample.
pub(super) fn statistics(predictions: &Predictions) -> Statistics {
    let rows: Vec<usize> = (0..predictions.len()).collect();
    let classes = predictions.classes.len();
    let truth = LabelMatrix::from_sets(&predictions.truth, &rows, classes);
    let rankings: Option<Vec<Ranking>> = predictions.scores.as_ref().map(|scores| {
        let ranking = |class: usize| Ranking::new(&truth.label(class), &scores.column(class).to_vec());
        (0..classes).into_par_iter().filter(|&class| truth.label(class).contains(&true)).map(ranking).collect()
    });
    // Per clip: true positives, and 2 TP + FP + FN.
    let sets = predictions.truth.iter().zip(&predictions.predicted);
    let sums: Vec<(u64, u64)> = sets
        .map(|(truth, predicted)| {
            let tp = predicted.iter().filter(|class| truth.contains(class)).count();
            (tp as u64, (truth.len() + predicted.len()) as u64)
        })
        .collect();
    let mut keys = vec!["map", "micro_f1"];
    keys.drain(..usize::from(rankings.is_none()));
    let kinds = sums.len();
    let compute = move |counts: &[Lanes<u32>]| {
        let (mut tp, mut sum) = ([0; LANES], [0; LANES]);
        for (counts, &(tp_of_row, sum_of_row)) in counts.iter().zip(&sums) {
            for lane in 0..LANES {
                tp[lane] += u64::from(counts[lane]) * tp_of_row;
                sum[lane] += u64::from(counts[lane]) * sum_of_row;
            }
        }
        let micro_f1 = std::array::from_fn(|lane| ratio(2 * tp[lane], sum[lane]));
        let Some(rankings) = &rankings else { return vec![micro_f1] };
        // Bytes stay in the cache. A resample practically never contains a clip more than 255 times.
        let bytes: Option<Vec<Lanes<u8>>> = counts.iter().map(to_bytes).collect();
        // Per lane: the sum over the labels, and their number.
        let mut map: Lanes<(f64, usize)> = [(0.0, 0); LANES];
        for ranking in rankings {
            let values = match &bytes {
                Some(bytes) => ranking.average_precision_of_resamples(bytes),
                None => ranking.average_precision_of_resamples(counts),
            };
            for ((sum, labels), value) in map.iter_mut().zip(values) {
                *sum += value.unwrap_or(0.0);
                *labels += usize::from(value.is_some());
            }
        }
        vec![map.map(|(sum, labels)| sum / labels.max(1) as f64), micro_f1]
    };
    Statistics { keys, kind_of_row: (0..kinds as u32).collect(), kinds, compute: Box::new(compute) }
}
