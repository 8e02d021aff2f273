//! How unequal classes are, and what is done about it: measures, weights, resampling. Pure arithmetic over counts and
//! label sets; a class is an index.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// How many times commoner the commonest class is than the rarest that occurs; 1 where none or one does.
pub fn imbalance_ratio(counts: &[usize]) -> f64 {
    let present = || counts.iter().copied().filter(|&count| count > 0);
    present().max().unwrap_or(1) as f64 / present().min().unwrap_or(1) as f64
}

/// The mean over the classes that occur of how many times commoner the commonest is; NaN where none occurs.
///
/// Source: MeanIR of Charte, Rivera, del Jesus, Herrera, "Addressing imbalance in multilabel classification" (2015).
pub fn mean_imbalance_ratio(counts: &[usize]) -> f64 {
    let most = counts.iter().copied().max().unwrap_or(0) as f64;
    let present: Vec<f64> = counts.iter().filter(|&&count| count > 0).map(|&count| most / count as f64).collect();
    present.iter().sum::<f64>() / present.len() as f64
}

/// As how many equally common classes these are: e to the entropy of the counts' shares, from 1 to the number of classes
/// that occur; 0 where none does.
///
/// Source: Hill, "Diversity and Evenness" (1973), the number of order 1.
pub fn effective_classes(counts: &[usize]) -> f64 {
    let all = counts.iter().sum::<usize>() as f64;
    if all == 0.0 {
        return 0.0;
    }
    let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / all);
    (-shares.map(|share| share * share.ln()).sum::<f64>()).exp()
}

/// A formula for the weight of a class. n are the clips, C the classes, n_c the clips of class c.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weighting {
    /// n / (C · n_c): the classes weigh the same in sum. Source: scikit-learn's `class_weight="balanced"`.
    Balanced,
    /// √(n / (C · n_c)): half way to it, on a logarithmic scale.
    SquareRoot,
    /// (n − n_c) / n_c: what the positive clips of a label weigh so that they equal its negative ones, as the
    /// `pos_weight` of PyTorch's `BCEWithLogitsLoss` is meant.
    NegativeToPositive,
    /// (1 − β) / (1 − β^n_c), scaled so that the classes that occur have the mean weight 1.
    ///
    /// Source: Cui, Jia, Lin, Song, Belongie, "Class-Balanced Loss Based on Effective Number of Samples" (2019).
    EffectiveNumber {
        /// In [0, 1): 0 gives equal weights, near 1 inverse frequencies.
        beta: f64,
    },
}

/// The weight of each class; `counts` are the clips of each, of `clips` in all (fewer than the sum of counts where clips
/// have several labels). A class without a clip weighs 0.
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
    /// Brings the share of each distinct label set between two bounds by repeating or dropping clips; see [`compose`].
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

/// Clips drawn so that no label set is too rare or too common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resampled {
    /// Which clips, ascending, some of them several times.
    pub indices: Vec<usize>,
    /// The compose classes, the commonest before first.
    pub classes: Vec<ComposeClass>,
}

/// All clips with one and the same label set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeClass {
    /// The label set, ascending.
    pub labels: Vec<usize>,
    /// Its clips before.
    pub before: usize,
    /// Its clips after, repeats counted.
    pub after: usize,
}

/// Resamples training clips by compose class: each distinct label set is one. Of n clips, a class of fewer than `low` · n is
/// repeated up to that (rounded up), every clip as often as any other but for one; of one of more than `high` · n as many
/// are drawn as that is (rounded down), each at most once. The others stay as they are.
///
/// `label_sets` are the label indices of each clip, in any order; `low` ≤ `high`, both in [0, 1]. The same seed draws the
/// same clips. The shares are of the clips before; as the sizes change, those after differ a little.
pub fn compose(label_sets: &[Vec<usize>], low: f64, high: f64, seed: u64) -> Resampled {
    let mut members: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (clip, labels) in label_sets.iter().enumerate() {
        let mut labels = labels.clone();
        labels.sort_unstable();
        labels.dedup();
        members.entry(labels).or_default().push(clip);
    }
    // A hair off, so that 0.01 · 700 is 7 and not a rounding error above or below.
    let clips = label_sets.len() as f64;
    let least = (low * clips - 1e-9).ceil().max(1.0) as usize;
    let most = ((high * clips + 1e-9).floor() as usize).max(least);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut resampled = Resampled { indices: Vec::with_capacity(label_sets.len()), classes: Vec::new() };
    for (labels, mut clips) in members {
        let (before, after) = (clips.len(), clips.len().clamp(least, most));
        if after != before {
            clips.shuffle(&mut random);
        }
        resampled.indices.extend(clips.iter().cycle().take(after));
        resampled.classes.push(ComposeClass { labels, before, after });
    }
    resampled.indices.sort_unstable();
    resampled.classes.sort_by_key(|class| std::cmp::Reverse(class.before));
    resampled
}

impl Resampled {
    /// Clips of each of `labels` labels before and after.
    pub fn label_counts(&self, labels: usize) -> Vec<(usize, usize)> {
        let mut counts = vec![(0, 0); labels];
        for class in &self.classes {
            for &label in &class.labels {
                counts[label].0 += class.before;
                counts[label].1 += class.after;
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
    fn close(found: &[f64], wanted: &[f64]) {
        assert_eq!(found.len(), wanted.len());
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} is not {wanted:?}");
    }

    #[test]
    fn measures_of_known_counts() {
        assert_eq!(imbalance_ratio(&[10, 40, 0, 20]), 4.0);
        assert_eq!(imbalance_ratio(&[]), 1.0);
        assert_eq!(mean_imbalance_ratio(&[10, 40, 0, 20]), (4.0 + 1.0 + 2.0) / 3.0);
        close(&[effective_classes(&[5, 5, 5, 0]), effective_classes(&[7]), effective_classes(&[])], &[3.0, 1.0, 0.0]);
        // −(0.75 ln 0.75 + 0.25 ln 0.25) = 0.562335…
        close(&[effective_classes(&[3, 1])], &[0.562_335_144_618_808_3_f64.exp()]);
    }

    #[test]
    fn weights_follow_their_formulas() {
        let counts = [10, 40, 0, 50];
        close(&class_weights(&counts, 100, Weighting::Balanced), &[2.5, 0.625, 0.0, 0.5]);
        close(
            &class_weights(&counts, 100, Weighting::SquareRoot),
            &[2.5f64.sqrt(), 0.625f64.sqrt(), 0.0, 0.5f64.sqrt()],
        );
        close(&class_weights(&counts, 100, Weighting::NegativeToPositive), &[9.0, 1.5, 0.0, 1.0]);
        let raw = [10, 40, 50].map(|n| 0.1 / (1.0 - 0.9f64.powi(n)));
        let scale = 3.0 / raw.iter().sum::<f64>();
        let wanted = [raw[0] * scale, raw[1] * scale, 0.0, raw[2] * scale];
        close(&class_weights(&counts, 100, Weighting::EffectiveNumber { beta: 0.9 }), &wanted);
        close(&class_weights(&counts, 100, Weighting::EffectiveNumber { beta: 0.0 }), &[1.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn rare_label_sets_are_repeated_and_common_ones_thinned() {
        // Of 700 clips 1 % are 7 and 4 % are 28.
        let mut sets = vec![vec![0]; 500];
        sets.extend(vec![vec![1, 0]; 28]);
        sets.extend(vec![vec![0, 1]; 5]);
        sets.extend(vec![vec![2]; 3]);
        sets.extend((0..164).map(|i| vec![3 + i / 7]));
        let resampled = compose(&sets, 0.01, 0.04, 7);
        let of = |labels: &[usize]| {
            let class = resampled.classes.iter().find(|class| class.labels == labels).unwrap();
            (class.before, class.after)
        };
        assert_eq!(
            (of(&[0]), of(&[0, 1]), of(&[2]), of(&[3]), of(&[26])),
            ((500, 28), (33, 28), (3, 7), (7, 7), (3, 7))
        );
        assert_eq!(resampled.classes[0].labels, [0]);
        let times = |clip: usize| resampled.indices.iter().filter(|&&index| index == clip).count();
        let mut repeats: Vec<usize> = (533..536).map(times).collect();
        repeats.sort_unstable();
        assert_eq!(repeats, [2, 2, 3]);
        assert_eq!(resampled.label_counts(27)[..3], [(533, 56), (33, 28), (3, 7)]);
        assert_eq!(compose(&sets, 0.01, 0.04, 7), resampled);
        assert_ne!(compose(&sets, 0.01, 0.04, 8).indices, resampled.indices);
    }

    proptest! {
        /// Every size is within the bounds or as it was, none vanishes, and the indices are those that the table counts.
        #[test]
        fn compose_keeps_its_bounds(
            sets in prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 1..200),
            (low, high) in (0.0f64..0.2, 0.2f64..1.0),
            seed in any::<u64>(),
        ) {
            let resampled = compose(&sets, low, high, seed);
            prop_assert_eq!(resampled.classes.iter().map(|class| class.before).sum::<usize>(), sets.len());
            prop_assert_eq!(resampled.classes.iter().map(|class| class.after).sum::<usize>(), resampled.indices.len());
            let (least, most) = (low * sets.len() as f64, high * sets.len() as f64);
            for class in &resampled.classes {
                prop_assert!(class.after >= 1 && class.after as f64 + 1e-6 >= least);
                prop_assert!(class.after as f64 <= most + 1e-6 || class.after == (least.ceil() as usize).max(1));
                let same = |clip: &&usize| {
                    let mut labels = sets[**clip].clone();
                    labels.sort_unstable();
                    labels.dedup();
                    labels == class.labels
                };
                prop_assert_eq!(resampled.indices.iter().filter(same).count(), class.after);
            }
        }
    }
}
