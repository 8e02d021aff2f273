//! Distributes groups of clips with any number of labels over subsets of given fractions.

/// Clips that must stay in the same subset: the clips of a group, or a single clip.
pub(super) struct ClipGroup {
    /// Indices of the clips.
    pub(super) clips: Vec<usize>,
    /// Number of clips with each label that occurs, as (label index, count).
    pub(super) label_counts: Vec<(usize, usize)>,
}

impl ClipGroup {
    /// Returns the number of clips that have a label.
    fn count(&self, label: usize) -> usize {
        self.label_counts.iter().find(|(other, _)| *other == label).map_or(0, |&(_, count)| count)
    }

    /// Iterates over the labels and their counts, followed by the pseudo-label `size_label` with the number of clips.
    fn weights(&self, size_label: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let labels = self.label_counts.iter().map(|&(label, count)| (label, count as f64));
        labels.chain([(size_label, self.clips.len() as f64)])
    }
}

/// Iterative stratification. Returns the subset index of every group; `fractions` sum to 1.
///
/// Repeats: take the label with the fewest remaining clips and assign its groups one by one to the subset with the largest
/// demand for this label (ties: the largest demand for clips, then the lower index). A group contributes the summed label
/// counts of its clips. Groups with most clips of the label come first, so that small groups balance the subsets. Ties between
/// labels are broken by the lower index, ties between groups by the given order, which is that of a seeded hash.
///
/// Source: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data" (2011), algorithm 1, which breaks
/// ties at random and has no groups.
pub(super) fn iterative(groups: &[ClipGroup], fractions: &[f64]) -> Vec<usize> {
    let labels = label_count(groups);
    let mut remaining = vec![0.0; labels + 1];
    for (label, count) in groups.iter().flat_map(|group| group.weights(labels)) {
        remaining[label] += count;
    }
    // demand[subset][label]; the last label counts all clips.
    let mut demand: Vec<Vec<f64>> =
        fractions.iter().map(|fraction| remaining.iter().map(|total| total * fraction).collect()).collect();
    let mut groups_of_label: Vec<Vec<usize>> = vec![Vec::new(); labels];
    for (i, group) in groups.iter().enumerate() {
        group.label_counts.iter().for_each(|&(label, _)| groups_of_label[label].push(i));
    }
    let mut subset_of: Vec<Option<usize>> = vec![None; groups.len()];
    let rarest_label = |remaining: &[f64]| {
        let present = (0..labels).filter(|&label| remaining[label] > 0.5);
        present.min_by(|&a, &b| remaining[a].total_cmp(&remaining[b]))
    };
    while let Some(label) = rarest_label(&remaining) {
        let mut unassigned: Vec<usize> =
            groups_of_label[label].iter().copied().filter(|&group| subset_of[group].is_none()).collect();
        unassigned.sort_by_key(|&group| std::cmp::Reverse((groups[group].count(label), groups[group].clips.len())));
        for group in unassigned {
            let mut best = 0;
            for subset in 1..fractions.len() {
                let exceeds = |label: usize| {
                    let difference = demand[subset][label] - demand[best][label];
                    // Demands that should be equal differ by rounding errors.
                    if difference.abs() < 1e-9 { None } else { Some(difference > 0.0) }
                };
                if exceeds(label).or_else(|| exceeds(labels)).unwrap_or(false) {
                    best = subset;
                }
            }
            for (label, count) in groups[group].weights(labels) {
                demand[best][label] -= count;
                remaining[label] -= count;
            }
            subset_of[group] = Some(best);
        }
    }
    subset_of.into_iter().map(|subset| subset.expect("every group has a label")).collect()
}

/// Improves an assignment by local search: moves single groups to another subset as long as this lowers the imbalance or
/// adds the first training clip of a label. Subset 0 is the training split; `subset_of` is the subset index of every group.
pub(super) fn improve(groups: &[ClipGroup], fractions: &[f64], subset_of: &mut [usize]) {
    let mut imbalance = Imbalance::new(groups, fractions);
    for (group, &subset) in groups.iter().zip(subset_of.iter()) {
        imbalance.add(group, subset, 1.0);
    }
    // Largest groups first; the stable sort keeps the order of the hashes among equal ones.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&group| std::cmp::Reverse(groups[group].clips.len()));
    for _ in 0..MAX_ROUNDS {
        let mut moved = false;
        for &group in &order {
            let from = subset_of[group];
            imbalance.add(&groups[group], from, -1.0);
            let current_cost = imbalance.added_cost(&groups[group], from);
            let costs = (0..fractions.len()).map(|subset| imbalance.added_cost(&groups[group], subset));
            let (best, cost) = costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is a subset");
            let to = if cost < current_cost - 1e-9 { best } else { from };
            imbalance.add(&groups[group], to, 1.0);
            moved |= to != from;
            subset_of[group] = to;
        }
        if !moved {
            break;
        }
    }
}

fn label_count(groups: &[ClipGroup]) -> usize {
    groups.iter().flat_map(|group| &group.label_counts).map(|(label, _)| label + 1).max().unwrap_or(0)
}

/// Maximum number of rounds of the local search. Every move lowers the imbalance; a few rounds suffice.
const MAX_ROUNDS: usize = 20;
/// Cost of a label without a training clip, and of a subset without clips; larger than any imbalance.
const ABSENCE_COST: f64 = 1e6;

/// Deviation of the subsets from their fractions: Σ over labels and subsets of (count − fraction · total)² / total. The
/// number of clips counts as one more label.
struct Imbalance {
    /// Totals of the labels; the last element counts all clips.
    totals: Vec<f64>,
    fractions: Vec<f64>,
    /// counts[subset][label].
    counts: Vec<Vec<f64>>,
}

impl Imbalance {
    /// Starts with empty subsets.
    fn new(groups: &[ClipGroup], fractions: &[f64]) -> Self {
        let labels = label_count(groups);
        let mut totals = vec![0.0; labels + 1];
        for group in groups {
            for (label, count) in group.weights(labels) {
                totals[label] += count;
            }
        }
        Self { counts: vec![vec![0.0; labels + 1]; fractions.len()], totals, fractions: fractions.to_vec() }
    }

    /// Returns the change of the cost if a group is added to a subset.
    fn added_cost(&self, group: &ClipGroup, subset: usize) -> f64 {
        let size_label = self.totals.len() - 1;
        let cost = |label: usize, count: f64| {
            let deviation = count - self.fractions[subset] * self.totals[label];
            // Every label must occur in subset 0, the training split, and no subset may be empty.
            let absent = count < 0.5 && (subset == 0 || label == size_label);
            deviation * deviation / self.totals[label] + if absent { ABSENCE_COST } else { 0.0 }
        };
        group
            .weights(size_label)
            .map(|(label, weight)| {
                let count = self.counts[subset][label];
                cost(label, count + weight) - cost(label, count)
            })
            .sum()
    }

    /// Adds a group to a subset (`sign` 1) or removes it (`sign` −1).
    fn add(&mut self, group: &ClipGroup, subset: usize, sign: f64) {
        for (label, weight) in group.weights(self.totals.len() - 1) {
            self.counts[subset][label] += sign * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a group of `size` clips with these (label, count) pairs.
    fn group(size: usize, label_counts: &[(usize, usize)]) -> ClipGroup {
        ClipGroup { clips: vec![0; size], label_counts: label_counts.to_vec() }
    }

    #[test]
    fn rarest_label_is_assigned_first() {
        // Label 1 is the rarest: its two groups are separated before those of label 0 fill the subsets.
        let groups = [
            group(1, &[(0, 1)]),
            group(1, &[(0, 1), (1, 1)]),
            group(1, &[(0, 1)]),
            group(1, &[(0, 1), (1, 1)]),
            group(1, &[(0, 1)]),
            group(1, &[(0, 1)]),
        ];
        assert_eq!(iterative(&groups, &[0.5, 0.5]), [0, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn groups_are_weighted_by_clip_count() {
        let groups = [group(1, &[(0, 1)]), group(4, &[(0, 4)]), group(1, &[(0, 1)]), group(2, &[(0, 2)])];
        assert_eq!(iterative(&groups, &[0.5, 0.5]), [1, 0, 1, 1]);
    }

    #[test]
    fn label_without_training_clip_is_moved_to_train() {
        let groups = [group(1, &[(0, 1)]), group(1, &[(0, 1)]), group(1, &[(1, 1)]), group(1, &[(0, 1)])];
        let mut subset_of = vec![0, 0, 1, 0];
        improve(&groups, &[0.7, 0.3], &mut subset_of);
        assert_eq!(subset_of[2], 0);
        assert!(subset_of.contains(&1), "{subset_of:?}");
    }

    proptest! {
        /// Before the local search, the count of every label is within 12 clips of its target: an observation, not a guarantee of the algorithm.
        #[test]
        fn every_label_is_near_its_target(sets in prop::collection::vec(1u8..16, 40..200), val in 0.1f64..0.4) {
            let groups: Vec<ClipGroup> = sets
                .iter()
                .map(|set| group(1, &(0..4).filter(|bit| set & (1 << bit) != 0).map(|bit| (bit, 1)).collect::<Vec<_>>()))
                .collect();
            let fractions = [1.0 - val, val];
            let subset_of = iterative(&groups, &fractions);
            for label in 0..4 {
                let count = |subset: usize| {
                    groups.iter().zip(&subset_of).filter(|(group, s)| **s == subset && group.count(label) > 0).count() as f64
                };
                prop_assert!((count(1) - val * (count(0) + count(1))).abs() <= 12.0, "label {}: {} of {}", label, count(1), count(0));
            }
        }
    }
}
