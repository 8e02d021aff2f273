//! How well the scores of one label order the clips.
//!
//! Each function takes the truth of N clips (whether they have the label) and their N scores, in any order; higher scores
//! say yes. Clips of equal score count as one step, whatever their order. Scores must not be NaN.

use ndarray::{ArrayView2, Axis};

/// The clips of one label in falling order of score, for draws of them: the order is found once, whatever is drawn.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// Clips in falling order of score, each with whether it has the label and whether a step ends with it.
    order: Vec<(usize, bool, bool)>,
}

impl Ranking {
    /// Ranks N clips.
    pub fn new(truth: &[bool], scores: &[f32]) -> Self {
        assert_eq!(truth.len(), scores.len(), "one score a clip");
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let ends = |place: usize, i: usize| {
            // `==` and not the total order: 0.0 and -0.0 are one score.
            order.get(place + 1).is_none_or(|&next: &usize| scores[next] != scores[i])
        };
        Self { order: order.iter().enumerate().map(|(place, &i)| (i, truth[i], ends(place, i))).collect() }
    }

    /// [`average_precision`] where clip `i` stands `times[i]` times.
    pub fn average_precision(&self, times: &[u32]) -> Option<f64> {
        let (mut step, mut before, mut area) = (Step { hits: 0, misses: 0 }, 0, 0.0);
        for &(i, hit, ends) in &self.order {
            *(if hit { &mut step.hits } else { &mut step.misses }) += times[i] as usize;
            if ends && step.hits > before {
                area += (step.hits - before) as f64 * step.precision();
                before = step.hits;
            }
        }
        (before > 0).then(|| area / before as f64)
    }

    /// The steps of falling score; the last one holds all clips.
    fn steps(&self) -> Vec<Step> {
        let mut step = Step { hits: 0, misses: 0 };
        let mut steps = Vec::new();
        for &(_, hit, ends) in &self.order {
            *(if hit { &mut step.hits } else { &mut step.misses }) += 1;
            if ends {
                steps.push(step);
            }
        }
        steps
    }
}

/// One step down the ranking: how many clips with and without the label score at least so high.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    hits: usize,
    misses: usize,
}

impl Step {
    fn precision(self) -> f64 {
        self.hits as f64 / (self.hits + self.misses) as f64
    }
}

/// The precision-recall curve as (recall, precision), from recall 0 with precision 1 to recall 1, as
/// `sklearn.metrics.precision_recall_curve` turned around; empty where no clip has the label.
pub fn precision_recall_curve(truth: &[bool], scores: &[f32]) -> Vec<(f64, f64)> {
    let steps = Ranking::new(truth, scores).steps();
    let total = match steps.last() {
        Some(last) if last.hits > 0 => last.hits as f64,
        _ => return Vec::new(),
    };
    let points = steps.into_iter().map(|step| (step.hits as f64 / total, step.precision()));
    std::iter::once((0.0, 1.0)).chain(points).collect()
}

/// Average precision, Σ (Rₙ − Rₙ₋₁)·Pₙ over the steps of falling score, in [0, 1], as
/// `sklearn.metrics.average_precision_score`; `None` where no clip has the label.
pub fn average_precision(truth: &[bool], scores: &[f32]) -> Option<f64> {
    Ranking::new(truth, scores).average_precision(&vec![1; truth.len()])
}

/// Area under the precision-recall curve by trapezoids, in [0, 1], as `sklearn.metrics.auc` over
/// `precision_recall_curve` (which begins at recall 0 with precision 1); more flattering than [`average_precision`], and
/// what the published tables of Trailers12k state. `None` where no clip has the label.
pub fn pr_auc_trapezoid(truth: &[bool], scores: &[f32]) -> Option<f64> {
    let steps = Ranking::new(truth, scores).steps();
    let total = steps.last().map_or(0, |last| last.hits);
    let (mut before, mut precision) = (0, 1.0);
    let mut area = 0.0;
    for step in steps {
        area += (step.hits - before) as f64 * (step.precision() + precision) / 2.0;
        (before, precision) = (step.hits, step.precision());
    }
    (total > 0).then(|| area / total as f64)
}

/// Area under the ROC curve, in [0, 1]: the probability that a clip with the label scores higher than one without, ties
/// counting half, as `sklearn.metrics.roc_auc_score`. `None` where all clips have the label, or none.
pub fn roc_auc(truth: &[bool], scores: &[f32]) -> Option<f64> {
    let steps = Ranking::new(truth, scores).steps();
    let last = *steps.last()?;
    let mut before = Step { hits: 0, misses: 0 };
    let mut area = 0.0;
    for step in steps {
        area += (step.misses - before.misses) as f64 * (step.hits + before.hits) as f64 / 2.0;
        before = step;
    }
    (last.hits > 0 && last.misses > 0).then(|| area / (last.hits as f64 * last.misses as f64))
}

/// Macro mean of the labels' [`average_precision`] for targets (N, C), 0 or 1, and scores (N, C). Labels that no clip has
/// are left out; `None` where that is all of them.
pub fn mean_average_precision(targets: ArrayView2<'_, f32>, scores: ArrayView2<'_, f32>) -> Option<f64> {
    assert_eq!(targets.dim(), scores.dim(), "one score a target");
    let each: Vec<f64> = targets
        .axis_iter(Axis(1))
        .zip(scores.axis_iter(Axis(1)))
        .filter_map(|(truth, scores)| {
            let truth: Vec<bool> = truth.iter().map(|&target| target > 0.0).collect();
            average_precision(&truth, &scores.to_vec())
        })
        .collect();
    (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    // scikit-learn 1.7: average_precision_score, auc(*precision_recall_curve()[1::-1]), roc_auc_score on these.
    const TRUTH: [bool; 8] = [true, false, true, true, false, false, true, false];
    const SCORES: [f32; 8] = [0.9, 0.8, 0.7, 0.7, 0.7, 0.3, 0.2, 0.2];

    #[test]
    fn ties_are_one_step() {
        let close = |value: Option<f64>, expected: f64| assert!((value.unwrap() - expected).abs() < 1e-12, "{value:?}");
        // Steps (hits, misses): (1,0) (1,1) (3,2) (3,3) (4,4).
        close(average_precision(&TRUTH, &SCORES), (1.0 + 2.0 * 0.6 + 0.5) / 4.0);
        close(pr_auc_trapezoid(&TRUTH, &SCORES), (1.0 + 2.0 * (0.5 + 0.6) / 2.0 + 0.5) / 4.0);
        close(roc_auc(&TRUTH, &SCORES), (1.0 + 2.0 + 3.0 + 3.5) / 16.0);
    }

    #[test]
    fn labels_of_no_clip_have_no_value() {
        assert_eq!(average_precision(&[false, false], &[0.1, 0.2]), None);
        assert_eq!(roc_auc(&[true, true], &[0.1, 0.2]), None);
        assert_eq!(roc_auc(&[], &[]), None);
        let targets = ndarray::array![[1.0, 0.0], [0.0, 0.0]];
        let scores = ndarray::array![[0.9, 0.5], [0.1, 0.5]];
        assert_eq!(mean_average_precision(targets.view(), scores.view()), Some(1.0));
    }
}
