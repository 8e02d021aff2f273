//! What the scores of one clip say of its labels. Each function takes whether the clip has each of C labels, at least one,
//! and the C scores.

use ndarray::Array2;

use super::Sets;

/// The mean of `value` over the clips; 0 without clips.
pub(super) fn mean(truth: &Sets, scores: &Array2<f32>, value: impl Fn(&[bool], &[f32]) -> f64) -> f64 {
    let clips = truth.matrix();
    let each =
        clips.outer_iter().zip(scores.outer_iter()).map(|(truth, scores)| value(&truth.to_vec(), &scores.to_vec()));
    let sum: f64 = each.sum();
    if clips.nrows() == 0 { 0.0 } else { sum / clips.nrows() as f64 }
}

/// The indices of the `k` highest scores; of equal ones, the lower index.
pub fn highest(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Stable; `partial_cmp` and not the total order: 0.0 and -0.0 are one score.
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).expect("scores are numbers"));
    order.truncate(k);
    order
}

/// 1 where one of the `k` highest labels is true, else 0.
pub fn any_of_highest(truth: &[bool], scores: &[f32], k: usize) -> f64 {
    f64::from(u8::from(highest(scores, k).into_iter().any(|class| truth[class])))
}

/// How many of the |y| highest labels are true, of |y| that are.
pub fn r_precision(truth: &[bool], scores: &[f32]) -> f64 {
    let total = truth.iter().filter(|&&has| has).count();
    let found = highest(scores, total).into_iter().filter(|&class| truth[class]).count();
    found as f64 / total.max(1) as f64
}

/// How many labels score at least as high as the lowest true one, as `sklearn.metrics.coverage_error`.
pub fn coverage(truth: &[bool], scores: &[f32]) -> f64 {
    let lowest =
        truth.iter().zip(scores).filter(|(has, _)| **has).map(|(_, &score)| score).fold(f32::INFINITY, f32::min);
    scores.iter().filter(|&&score| score >= lowest).count() as f64
}

/// The share of (true, other) pairs in which the other scores at least as high, as `sklearn.metrics.label_ranking_loss`;
/// 0 where all labels are true.
pub fn ranking_loss(truth: &[bool], scores: &[f32]) -> f64 {
    let (mut wrong, mut pairs) = (0u64, 0u64);
    for (_, own) in truth.iter().zip(scores).filter(|(has, _)| **has) {
        for (_, other) in truth.iter().zip(scores).filter(|(has, _)| !**has) {
            pairs += 1;
            wrong += u64::from(other >= own);
        }
    }
    crate::evaluate::ratio(wrong, pairs)
}

/// The mean over the true labels of the share of true ones among the labels that score at least as high, as
/// `sklearn.metrics.label_ranking_average_precision_score`.
pub fn label_ranking_average_precision(truth: &[bool], scores: &[f32]) -> f64 {
    let precision = |own: f32| {
        let above = truth.iter().zip(scores).filter(|(_, score)| **score >= own);
        let (hits, all) = above.fold((0, 0), |(hits, all), (&has, _)| (hits + u64::from(has), all + 1));
        crate::evaluate::ratio(hits, all)
    };
    let each: Vec<f64> = truth.iter().zip(scores).filter(|(has, _)| **has).map(|(_, &own)| precision(own)).collect();
    each.iter().sum::<f64>() / each.len().max(1) as f64
}
