//! Class imbalance: measures, class weights and resampling. Pure arithmetic on class counts and label sets; a class is an
//! index.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// Returns the ratio of the largest to the smallest nonzero count, at least 1; 1 if no count is nonzero.
pub fn imbalance_ratio(counts: &[usize]) -> f64 {
    let present = || counts.iter().copied().filter(|&count| count > 0);
    present().max().unwrap_or(1) as f64 / present().min().unwrap_or(1) as f64
}

/// Returns the mean over the classes with a nonzero count of (largest count / count), at least 1; NaN if there is none.
///
/// Source: MeanIR of Charte, Rivera, del Jesus, Herrera, "Addressing imbalance in multilabel classification" (2015).
pub fn mean_imbalance_ratio(counts: &[usize]) -> f64 {
    let largest = counts.iter().copied().max().unwrap_or(0) as f64;
    let ratios: Vec<f64> = counts.iter().filter(|&&count| count > 0).map(|&count| largest / count as f64).collect();
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

/// Returns the effective number of classes, exp(entropy of the class frequencies): from 1 to the number of classes with a
/// nonzero count; 0 if there is none.
///
/// Source: Hill, "Diversity and Evenness" (1973), the number of order 1.
pub fn effective_classes(counts: &[usize]) -> f64 {
    let total = counts.iter().sum::<usize>() as f64;
    if total == 0.0 {
        return 0.0;
    }
    let frequencies = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / total);
    (-frequencies.map(|frequency| frequency * frequency.ln()).sum::<f64>()).exp()
}

/// Formula of a class weight, for n clips, C classes and n_c clips of class c.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weighting {
    /// n / (C · n_c): all classes have the same total weight. Source: scikit-learn's `class_weight="balanced"`.
    Balanced,
    /// √(n / (C · n_c)).
    SquareRoot,
    /// (n − n_c) / n_c: the ratio of negative to positive clips, for the `pos_weight` of PyTorch's `BCEWithLogitsLoss`.
    NegativeToPositive,
    /// (1 − β) / (1 − β^n_c), scaled to a mean weight of 1 over the classes that occur.
    ///
    /// Source: Cui, Jia, Lin, Song, Belongie, "Class-Balanced Loss Based on Effective Number of Samples" (2019).
    EffectiveNumber {
        /// β in [0, 1): 0 yields equal weights, values near 1 yield inverse class frequencies.
        beta: f64,
    },
}

/// Computes the weight of each class. `counts` is the number of clips of each class and `clips` the number of clips, which
/// is lower than the sum of `counts` if clips have several labels. A class without clips gets weight 0.
pub fn class_weights(counts: &[usize], clips: usize, weighting: Weighting) -> Vec<f64> {
    let (n, classes) = (clips as f64, counts.len() as f64);
    let weight = |count: f64| match weighting {
        Weighting::Balanced => n / (classes * count),
        Weighting::SquareRoot => (n / (classes * count)).sqrt(),
        Weighting::NegativeToPositive => (n - count) / count,
        Weighting::EffectiveNumber { beta } => (1.0 - beta) / (1.0 - beta.powf(count)),
    };
    let mut weights: Vec<f64> =
        counts.iter().map(|&count| if count == 0 { 0.0 } else { weight(count as f64) }).collect();
    if let Weighting::EffectiveNumber { .. } = weighting {
        let present = counts.iter().filter(|&&count| count > 0).count() as f64;
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight *= present / sum);
    }
    weights
}

/// Resampling of the training clips; the table `[classify.resample]` of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Resample {
    /// Brings the share of each distinct label set between two bounds by repeating or dropping clips; see
    /// [`resample_by_label_set`].
    Compose {
        /// Minimum share of the training clips, in [0, 1].
        low: f64,
        /// Maximum share of the training clips, in [low, 1].
        high: f64,
    },
}

impl Resample {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        let Self::Compose { low, high } = self;
        if 0.0 <= *low && low <= high && *high <= 1.0 && *high > 0.0 {
            return Ok(());
        }
        Err("classify.resample: low and high must be shares with 0 ≤ low ≤ high ≤ 1 and high > 0".into())
    }
}

/// Resampled clips, with the frequency of every label set bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resampled {
    /// Indices of the clips, ascending, with repetitions.
    pub indices: Vec<usize>,
    /// Sizes of the label sets, the largest before resampling first.
    pub label_sets: Vec<LabelSetSize>,
}

/// Number of clips with exactly these labels, before and after resampling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSetSize {
    /// The label set, ascending.
    pub labels: Vec<usize>,
    /// Number of clips before resampling.
    pub before: usize,
    /// Number of clips after resampling, with repetitions.
    pub after: usize,
}

/// Resamples clips by label set, so that every label set has between `low` · n and `high` · n of the n clips.
///
/// A label set with fewer than `low` · n clips (rounded up) is oversampled to that size by repeating its clips, whose
/// repetitions differ by at most one. A label set with more than `high` · n clips (rounded down) is undersampled to that
/// size without replacement. Other label sets are unchanged.
///
/// `label_sets` are the label indices of each clip, in any order; 0 ≤ `low` ≤ `high` ≤ 1. The result is deterministic for
/// a seed. The bounds are fractions of n before resampling; the fractions afterwards differ, because n changes.
pub fn resample_by_label_set(label_sets: &[Vec<usize>], low: f64, high: f64, seed: u64) -> Resampled {
    let mut members: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (clip, labels) in label_sets.iter().enumerate() {
        let mut labels = labels.clone();
        labels.sort_unstable();
        labels.dedup();
        members.entry(labels).or_default().push(clip);
    }
    // The offsets compensate rounding: 0.01 · 700 is 7.
    let n = label_sets.len() as f64;
    let min_size = (low * n - 1e-9).ceil().max(1.0) as usize;
    let max_size = ((high * n + 1e-9).floor() as usize).max(min_size);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut resampled = Resampled { indices: Vec::with_capacity(label_sets.len()), label_sets: Vec::new() };
    for (labels, mut clips) in members {
        let (before, after) = (clips.len(), clips.len().clamp(min_size, max_size));
        if after != before {
            clips.shuffle(&mut rng);
        }
        resampled.indices.extend(clips.iter().cycle().take(after));
        resampled.label_sets.push(LabelSetSize { labels, before, after });
    }
    resampled.indices.sort_unstable();
    resampled.label_sets.sort_by_key(|set| std::cmp::Reverse(set.before));
    resampled
}

impl Resampled {
    /// Returns the number of clips with each of `labels` labels, as (before, after).
    pub fn label_counts(&self, labels: usize) -> Vec<(usize, usize)> {
        let mut counts = vec![(0, 0); labels];
        for set in &self.label_sets {
            for &label in &set.labels {
                counts[label].0 += set.before;
                counts[label].1 += set.after;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn assert_close(actual: &[f64], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        assert!(actual.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{actual:?} != {expected:?}");
    }

    #[test]
    fn imbalance_measures_of_known_counts() {
        assert_eq!(imbalance_ratio(&[10, 40, 0, 20]), 4.0);
        assert_eq!(imbalance_ratio(&[]), 1.0);
        assert_eq!(mean_imbalance_ratio(&[10, 40, 0, 20]), (4.0 + 1.0 + 2.0) / 3.0);
        assert_close(
            &[effective_classes(&[5, 5, 5, 0]), effective_classes(&[7]), effective_classes(&[])],
            &[3.0, 1.0, 0.0],
        );
        // −(0.75 ln 0.75 + 0.25 ln 0.25) = 0.562335…
        assert_close(&[effective_classes(&[3, 1])], &[0.562_335_144_618_808_3_f64.exp()]);
    }

    #[test]
    fn class_weights_follow_their_formulas() {
        let counts = [10, 40, 0, 50];
        assert_close(&class_weights(&counts, 100, Weighting::Balanced), &[2.5, 0.625, 0.0, 0.5]);
        assert_close(
            &class_weights(&counts, 100, Weighting::SquareRoot),
            &[2.5f64.sqrt(), 0.625f64.sqrt(), 0.0, 0.5f64.sqrt()],
        );
        assert_close(&class_weights(&counts, 100, Weighting::NegativeToPositive), &[9.0, 1.5, 0.0, 1.0]);
        let raw = [10, 40, 50].map(|n| 0.1 / (1.0 - 0.9f64.powi(n)));
        let scale = 3.0 / raw.iter().sum::<f64>();
        let expected = [raw[0] * scale, raw[1] * scale, 0.0, raw[2] * scale];
        assert_close(&class_weights(&counts, 100, Weighting::EffectiveNumber { beta: 0.9 }), &expected);
        assert_close(&class_weights(&counts, 100, Weighting::EffectiveNumber { beta: 0.0 }), &[1.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn resampling_oversamples_rare_and_undersamples_frequent_label_sets() {
        // 1 % of 700 clips are 7, 4 % are 28.
        let mut sets = vec![vec![0]; 500];
        sets.extend(vec![vec![1, 0]; 28]);
        sets.extend(vec![vec![0, 1]; 5]);
        sets.extend(vec![vec![2]; 3]);
        sets.extend((0..164).map(|i| vec![3 + i / 7]));
        let resampled = resample_by_label_set(&sets, 0.01, 0.04, 7);
        let sizes = |labels: &[usize]| {
            let set = resampled.label_sets.iter().find(|set| set.labels == labels).unwrap();
            (set.before, set.after)
        };
        assert_eq!(
            (sizes(&[0]), sizes(&[0, 1]), sizes(&[2]), sizes(&[3]), sizes(&[26])),
            ((500, 28), (33, 28), (3, 7), (7, 7), (3, 7))
        );
        assert_eq!(resampled.label_sets[0].labels, [0]);
        let count = |clip: usize| resampled.indices.iter().filter(|&&index| index == clip).count();
        let mut repeats: Vec<usize> = (533..536).map(count).collect();
        repeats.sort_unstable();
        assert_eq!(repeats, [2, 2, 3]);
        assert_eq!(resampled.label_counts(27)[..3], [(533, 56), (33, 28), (3, 7)]);
        assert_eq!(resample_by_label_set(&sets, 0.01, 0.04, 7), resampled);
        assert_ne!(resample_by_label_set(&sets, 0.01, 0.04, 8).indices, resampled.indices);
    }

    proptest! {
        /// Every label set keeps a clip and is within the bounds, and the sizes match the indices.
        #[test]
        fn resampling_respects_the_bounds(
            sets in prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 1..200),
            (low, high) in (0.0f64..0.2, 0.2f64..1.0),
            seed in any::<u64>(),
        ) {
            let resampled = resample_by_label_set(&sets, low, high, seed);
            prop_assert_eq!(resampled.label_sets.iter().map(|set| set.before).sum::<usize>(), sets.len());
            prop_assert_eq!(resampled.label_sets.iter().map(|set| set.after).sum::<usize>(), resampled.indices.len());
            let (min_size, max_size) = (low * sets.len() as f64, high * sets.len() as f64);
            for set in &resampled.label_sets {
                prop_assert!(set.after >= 1 && set.after as f64 + 1e-6 >= min_size);
                prop_assert!(set.after as f64 <= max_size + 1e-6 || set.after == (min_size.ceil() as usize).max(1));
                let same = |clip: &&usize| {
                    let mut labels = sets[**clip].clone();
                    labels.sort_unstable();
                    labels.dedup();
                    labels == set.labels
                };
                prop_assert_eq!(resampled.indices.iter().filter(same).count(), set.after);
            }
        }
    }
}
