//! Metrics of the ranking of N clips by the scores of one label.
//!
//! Each function takes the N truth values (`true` if the clip has the label) and the N scores, in any order; a higher score
//! ranks first. Clips with equal scores share one threshold, so their order does not matter. Scores must not be NaN.

use ndarray::{ArrayView2, Axis};
use pulp::{Arch, NullaryFnOnce};

/// The clips of one label sorted by descending score. Metrics of resamples reuse the order.
#[derive(Debug, Clone)]
pub struct Ranking {
    clips: Vec<RankedClip>,
}

/// Clips whose sums are computed before their precisions; the sums stay in the L1 cache.
const BLOCK: usize = 128;

/// A clip in 32 bits, since the bootstrap reads the rankings of all labels thousands of times: the index, and three flags.
#[derive(Debug, Clone, Copy)]
struct RankedClip(u32);

impl RankedClip {
    const HAS_LABEL: u32 = 1 << 31;
    const ENDS_THRESHOLD: u32 = 1 << 30;
    const ADDS_RECALL: u32 = 1 << 29;

    fn new(index: usize, has_label: bool, ends_threshold: bool, adds_recall: bool) -> Self {
        assert!(index < Self::ADDS_RECALL as usize, "at most 2^29 clips");
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        Self(
            index as u32
                | flag(has_label, Self::HAS_LABEL)
                | flag(ends_threshold, Self::ENDS_THRESHOLD)
                | flag(adds_recall, Self::ADDS_RECALL),
        )
    }

    fn index(self) -> usize {
        (self.0 & (Self::ADDS_RECALL - 1)) as usize
    }

    fn has_label(self) -> bool {
        self.0 & Self::HAS_LABEL != 0
    }

    /// `true` for the last clip of several with the same score.
    fn ends_threshold(self) -> bool {
        self.0 & Self::ENDS_THRESHOLD != 0
    }

    /// `true` for the last clip of several with the same score, at least one of which has the label.
    fn adds_recall(self) -> bool {
        self.0 & Self::ADDS_RECALL != 0
    }
}

impl Ranking {
    /// Sorts N clips by score.
    ///
    /// # Panics
    /// Panics if `truth` and `scores` differ in length.
    pub fn new(truth: &[bool], scores: &[f32]) -> Self {
        assert_eq!(truth.len(), scores.len(), "one score per clip");
        let order = descending(scores);
        let mut clips = Vec::with_capacity(order.len());
        // `==` instead of the total order: 0.0 and -0.0 are equal scores.
        for threshold in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let positive = threshold.iter().any(|&index| truth[index]);
            clips.extend(threshold.iter().enumerate().map(|(i, &index)| {
                let is_last = i + 1 == threshold.len();
                RankedClip::new(index, truth[index], is_last, is_last && positive)
            }));
        }
        Self { clips }
    }

    /// Computes average precision, Σ (Rₙ − Rₙ₋₁)·Pₙ over thresholds n by descending score, in [0, 1]; `None` if no clip has the
    /// label.
    ///
    /// Source: `sklearn.metrics.average_precision_score`.
    pub fn average_precision(&self) -> Option<f64> {
        let [value] = self.average_precision_of_resamples(&vec![[1u8]; self.clips.len()]);
        value
    }

    /// Computes [`Self::average_precision`] of L resamples; resample `l` contains clip `i` `counts[i][l]` times.
    ///
    /// The values of a resample do not depend on the others. Sixteen take little more time than one if the counts are bytes: most of
    /// the time is that of reading counts in the order of the scores.
    pub fn average_precision_of_resamples<N: Copy + Into<u32>, const L: usize>(
        &self,
        counts: &[[N; L]],
    ) -> [Option<f64>; L] {
        Arch::new().dispatch(AveragePrecision { clips: &self.clips, counts })
    }

    /// Computes the area under the precision-recall curve by the trapezoidal rule, in [0, 1]; `None` if no clip has the label.
    ///
    /// Linear interpolation is more optimistic than [`Self::average_precision`]; the published tables of Trailers12k use it.
    ///
    /// Source: `sklearn.metrics.auc` of `precision_recall_curve`.
    pub fn pr_auc_trapezoid(&self) -> Option<f64> {
        let thresholds = self.thresholds();
        let positives = thresholds.last().map_or(0, |last| last.tp);
        let (mut previous_tp, mut previous_precision) = (0, 1.0);
        let mut area = 0.0;
        for threshold in thresholds {
            area += (threshold.tp - previous_tp) as f64 * (threshold.precision() + previous_precision) / 2.0;
            (previous_tp, previous_precision) = (threshold.tp, threshold.precision());
        }
        (positives > 0).then(|| area / positives as f64)
    }

    /// Computes the area under the ROC curve, in [0, 1]: the probability that a clip with the label has a higher score than a
    /// clip without it; ties count half. `None` if all clips or no clips have the label.
    ///
    /// Source: `sklearn.metrics.roc_auc_score`.
    pub fn roc_auc(&self) -> Option<f64> {
        let thresholds = self.thresholds();
        let last = *thresholds.last()?;
        let mut previous = Threshold::default();
        let mut area = 0.0;
        for threshold in thresholds {
            area += (threshold.fp - previous.fp) as f64 * (threshold.tp + previous.tp) as f64 / 2.0;
            previous = threshold;
        }
        (last.tp > 0 && last.fp > 0).then(|| area / (last.tp as f64 * last.fp as f64))
    }

    /// Returns the thresholds by descending score; the last includes all clips.
    fn thresholds(&self) -> Vec<Threshold> {
        let mut current = Threshold::default();
        let mut thresholds = Vec::new();
        for clip in &self.clips {
            current.add(clip.has_label(), 1);
            if clip.ends_threshold() {
                thresholds.push(current);
            }
        }
        thresholds
    }
}

/// See [`Ranking::average_precision_of_resamples`].
struct AveragePrecision<'a, N, const L: usize> {
    clips: &'a [RankedClip],
    counts: &'a [[N; L]],
}

impl<N: Copy + Into<u32>, const L: usize> NullaryFnOnce for AveragePrecision<'_, N, L> {
    type Output = [Option<f64>; L];

    #[inline(always)]
    fn call(self) -> [Option<f64>; L] {
        // Counts of all clips so far and of those with the label.
        let (mut all, mut tp) = ([0; L], [0; L]);
        let (mut previous_tp, mut areas) = ([0; L], [0.0; L]);
        let mut thresholds = [([0; L], [0; L]); BLOCK];
        for block in self.clips.chunks(BLOCK) {
            // No branch depends on the labels: the processor could not predict it.
            let mut kept = 0;
            for clip in block {
                let counts: [u32; L] = self.counts[clip.index()].map(Into::into);
                let mask = 0u32.wrapping_sub(u32::from(clip.has_label()));
                (0..L).for_each(|l| all[l] += counts[l]);
                (0..L).for_each(|l| tp[l] += counts[l] & mask);
                thresholds[kept] = (all, tp);
                kept += usize::from(clip.adds_recall());
            }
            for (all, tp) in &thresholds[..kept] {
                for l in 0..L {
                    // Signed, because the conversion of unsigned integers has no instruction before AVX-512.
                    let [all, added, tp] = [all[l].max(1), tp[l] - previous_tp[l], tp[l]].map(|n| f64::from(n as i32));
                    areas[l] += added * (tp / all);
                }
                previous_tp = *tp;
            }
        }
        std::array::from_fn(|l| (previous_tp[l] > 0).then(|| areas[l] / f64::from(previous_tp[l])))
    }
}

/// Counts of the clips whose score is at least a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Threshold {
    /// Clips with the label.
    tp: usize,
    /// Clips without the label.
    fp: usize,
}

impl Threshold {
    fn add(&mut self, has_label: bool, count: usize) {
        *(if has_label { &mut self.tp } else { &mut self.fp }) += count;
    }

    fn precision(self) -> f64 {
        self.tp as f64 / (self.tp + self.fp) as f64
    }
}

/// Returns the indices of the scores in descending order (equal scores: the lower index first). Scores must not be NaN.
///
/// # Panics
/// Panics with 2^32 scores or more.
pub fn descending(scores: &[f32]) -> Vec<usize> {
    // Integers with the score in the upper half sort in a fraction of the time of a comparison of two scores in memory.
    let key = |(index, &score): (usize, &f32)| {
        // 0.0 and -0.0 are equal scores. Without the sign bit, the bits of a float are in the order of its absolute value.
        let bits = (score + 0.0).to_bits();
        let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
        u64::from(!ascending) << 32 | u64::from(u32::try_from(index).expect("fewer than 2^32 scores"))
    };
    let mut keys: Vec<u64> = scores.iter().enumerate().map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32 as usize).collect()
}

/// Returns the indices of the `k` highest scores in the order of [`descending`].
pub fn top_k_indices(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order = descending(scores);
    order.truncate(k);
    order
}

/// Computes the precision-recall curve as (recall, precision) pairs, from recall 0 with precision 1 to recall 1; empty if no
/// clip has the label.
///
/// Source: `sklearn.metrics.precision_recall_curve`, in reverse order.
pub fn precision_recall_curve(truth: &[bool], scores: &[f32]) -> Vec<(f64, f64)> {
    let thresholds = Ranking::new(truth, scores).thresholds();
    let positives = match thresholds.last() {
        Some(last) if last.tp > 0 => last.tp as f64,
        _ => return Vec::new(),
    };
    let points = thresholds.into_iter().map(|threshold| (threshold.tp as f64 / positives, threshold.precision()));
    std::iter::once((0.0, 1.0)).chain(points).collect()
}

/// Computes [`Ranking::average_precision`].
pub fn average_precision(truth: &[bool], scores: &[f32]) -> Option<f64> {
    Ranking::new(truth, scores).average_precision()
}

/// Computes mAP, the mean of [`average_precision`] over the labels with at least one positive clip; `None` if there are none.
///
/// `targets` is (N, C) with values 0 or 1, `scores` is (N, C).
///
/// # Panics
/// Panics if the shapes differ.
pub fn mean_average_precision(targets: ArrayView2<'_, f32>, scores: ArrayView2<'_, f32>) -> Option<f64> {
    assert_eq!(targets.dim(), scores.dim(), "one score per target");
    let values: Vec<f64> = targets
        .axis_iter(Axis(1))
        .zip(scores.axis_iter(Axis(1)))
        .filter_map(|(truth, scores)| {
            let truth: Vec<bool> = truth.iter().map(|&target| target > 0.0).collect();
            average_precision(&truth, &scores.to_vec())
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values: average_precision_score, auc(*precision_recall_curve()[1::-1]), roc_auc_score of scikit-learn 1.7.
    const TRUTH: [bool; 8] = [true, false, true, true, false, false, true, false];
    const SCORES: [f32; 8] = [0.9, 0.8, 0.7, 0.7, 0.7, 0.3, 0.2, 0.2];

    #[test]
    fn tied_scores_are_one_threshold() {
        let close = |value: Option<f64>, expected: f64| assert!((value.unwrap() - expected).abs() < 1e-12, "{value:?}");
        // (true positives, false positives) at the thresholds: (1,0) (1,1) (3,2) (3,3) (4,4).
        close(average_precision(&TRUTH, &SCORES), (1.0 + 2.0 * 0.6 + 0.5) / 4.0);
        let ranking = Ranking::new(&TRUTH, &SCORES);
        close(ranking.pr_auc_trapezoid(), (1.0 + 2.0 * (0.5 + 0.6) / 2.0 + 0.5) / 4.0);
        close(ranking.roc_auc(), (1.0 + 2.0 + 3.0 + 3.5) / 16.0);
    }

    #[test]
    fn average_precision_of_resamples_equals_that_of_their_clips() {
        // More clips than a block, equal scores, and resamples without some clips.
        let n = 5 * BLOCK + 7;
        let truth: Vec<bool> = (0..n).map(|i| i * i % 7 == 2).collect();
        let scores: Vec<f32> =
            (0..n).map(|i| (i * 37 % 211) as f32 / 211.0 + f32::from(u8::from(truth[i])) * 0.2).collect();
        let counts: Vec<[u32; 4]> =
            (0..n as u32).map(|i| [1, i % 3, u32::from(i % 50 == 1) * 9, u32::from(!truth[i as usize])]).collect();
        let values = Ranking::new(&truth, &scores).average_precision_of_resamples(&counts);
        for (l, value) in values.into_iter().enumerate() {
            let rows = || (0..n).flat_map(|i| std::iter::repeat_n(i, counts[i][l] as usize));
            let truth: Vec<bool> = rows().map(|i| truth[i]).collect();
            let scores: Vec<f32> = rows().map(|i| scores[i]).collect();
            // By the definition.
            let (mut tp, mut area) = (0.0, 0.0);
            let mut order: Vec<usize> = (0..truth.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut all = 0.0;
            for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
                let positives = equal.iter().filter(|&&i| truth[i]).count() as f64;
                (all, tp) = (all + equal.len() as f64, tp + positives);
                area += positives * tp / all;
            }
            match value {
                Some(value) => assert!((value - area / tp).abs() < 1e-12, "{l}: {value} and {}", area / tp),
                None => assert_eq!((l, tp), (3, 0.0), "resample without positive clips"),
            }
        }
        assert_eq!(values.map(|value| value.is_some()), [true, true, true, false]);
    }

    #[test]
    fn descending_order_is_that_of_a_stable_sort_by_comparison() {
        let scores: Vec<f32> = (0..500)
            .map(|i| match i % 7 {
                0 => 0.0,
                1 => -0.0,
                2 => f32::INFINITY,
                3 => -f32::from(i as u16 % 11),
                4 => f32::MIN_POSITIVE / 2.0,
                _ => ((i * 37) % 101) as f32 - 50.5,
            })
            .collect();
        let mut expected: Vec<usize> = (0..scores.len()).collect();
        expected.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap());
        assert_eq!(descending(&scores), expected);
        assert_eq!(top_k_indices(&scores, 3), [2, 9, 16]);
    }

    #[test]
    fn metrics_of_absent_labels_are_undefined() {
        assert_eq!(average_precision(&[false, false], &[0.1, 0.2]), None);
        assert_eq!(Ranking::new(&[false, false], &[0.1, 0.2]).pr_auc_trapezoid(), None);
        assert_eq!(Ranking::new(&[true, true], &[0.1, 0.2]).roc_auc(), None);
        assert_eq!(Ranking::new(&[], &[]).roc_auc(), None);
        let targets = ndarray::array![[1.0, 0.0], [0.0, 0.0]];
        let scores = ndarray::array![[0.9, 0.5], [0.1, 0.5]];
        assert_eq!(mean_average_precision(targets.view(), scores.view()), Some(1.0));
    }
}
