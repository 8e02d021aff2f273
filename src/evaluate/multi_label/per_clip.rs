//! Metrics of the ranking of labels within a clip. Each function takes the C truth values of a clip (`true` if it has the
//! label, at least one) and its C scores. Scores must not be NaN.

use ndarray::Array2;

use super::averages::LabelMatrix;
use crate::evaluate::counts::ratio;
use crate::evaluate::ranking::top_k_indices;

/// Returns the mean of `metric` over the clips; 0 without clips.
pub(super) fn mean(truth: &LabelMatrix, scores: &Array2<f32>, metric: impl Fn(&[bool], &[f32]) -> f64) -> f64 {
    let clips = truth.matrix();
    let values =
        clips.outer_iter().zip(scores.outer_iter()).map(|(truth, scores)| metric(&truth.to_vec(), &scores.to_vec()));
    let sum: f64 = values.sum();
    if clips.nrows() == 0 { 0.0 } else { sum / clips.nrows() as f64 }
}

/// Returns 1 if one of the `k` labels with the highest scores is true, otherwise 0 (ties: the lower index).
pub fn top_k_hit(truth: &[bool], scores: &[f32], k: usize) -> f64 {
    f64::from(u8::from(top_k_indices(scores, k).into_iter().any(|class| truth[class])))
}

/// Computes R-precision, in [0, 1]: the precision of the |y| labels with the highest scores of a clip with |y| true labels
/// (ties: the lower index).
pub fn r_precision(truth: &[bool], scores: &[f32]) -> f64 {
    let positives = truth.iter().filter(|&&has| has).count();
    let hits = top_k_indices(scores, positives).into_iter().filter(|&class| truth[class]).count();
    hits as f64 / positives.max(1) as f64
}

/// Computes the coverage error, in [1, C]: the number of labels that score at least as high as the lowest true label.
///
/// Source: `sklearn.metrics.coverage_error`.
pub fn coverage_error(truth: &[bool], scores: &[f32]) -> f64 {
    let lowest =
        truth.iter().zip(scores).filter(|(has, _)| **has).map(|(_, &score)| score).fold(f32::INFINITY, f32::min);
    scores.iter().filter(|&&score| score >= lowest).count() as f64
}

/// Computes the ranking loss, in [0, 1]: the fraction of (true, false) label pairs in which the false label scores at least
/// as high; 0 if all labels are true.
///
/// Source: `sklearn.metrics.label_ranking_loss`.
pub fn ranking_loss(truth: &[bool], scores: &[f32]) -> f64 {
    let (mut wrong, mut pairs) = (0u64, 0u64);
    for (_, true_score) in truth.iter().zip(scores).filter(|(has, _)| **has) {
        for (_, false_score) in truth.iter().zip(scores).filter(|(has, _)| !**has) {
            pairs += 1;
            wrong += u64::from(false_score >= true_score);
        }
    }
    ratio(wrong, pairs)
}

/// Computes label-ranking average precision, in [0, 1]: the mean over the true labels of the fraction of true labels among
/// those that score at least as high.
///
/// Source: `sklearn.metrics.label_ranking_average_precision_score`.
pub fn label_ranking_average_precision(truth: &[bool], scores: &[f32]) -> f64 {
    let precision_at = |threshold: f32| {
        let selected = truth.iter().zip(scores).filter(|(_, score)| **score >= threshold);
        let (hits, all) = selected.fold((0, 0), |(hits, all), (&has, _)| (hits + u64::from(has), all + 1));
        ratio(hits, all)
    };
    let precisions: Vec<f64> =
        truth.iter().zip(scores).filter(|(has, _)| **has).map(|(_, &score)| precision_at(score)).collect();
    precisions.iter().sum::<f64>() / precisions.len().max(1) as f64
}
