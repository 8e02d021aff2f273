//! Units of clips with any number of labels, divided into parts of given shares.

use super::split::Unit;

/// Iterative stratification: the part of every unit, `shares` adding up to 1.
///
/// Again and again the label with the fewest clips left is taken, and its units go one by one to the part that still
/// wants most clips of this label; on a tie to the one that wants most clips at all, then to the first. A unit is one
/// clip, or a group that stays whole: it counts with the sum of its clips' labels, and the units with most of the label
/// go first, so that small ones even things out. Ties between labels go to the first, between units to the order given,
/// which is that of a seeded hash.
///
/// Source: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data" (2011), algorithm 1, which draws
/// ties at random and knows no groups.
pub(super) fn iterative(units: &[Unit], shares: &[f64]) -> Vec<usize> {
    let labels = label_count(units);
    let mut left = vec![0.0; labels + 1];
    for (label, count) in units.iter().flat_map(|unit| unit.weights(labels)) {
        left[label] += count;
    }
    // wanted[part][label]; the last label is that of all clips.
    let mut wanted: Vec<Vec<f64>> = shares.iter().map(|share| left.iter().map(|all| all * share).collect()).collect();
    let mut with: Vec<Vec<usize>> = vec![Vec::new(); labels];
    for (i, unit) in units.iter().enumerate() {
        unit.labels.iter().for_each(|&(label, _)| with[label].push(i));
    }
    let mut part_of: Vec<Option<usize>> = vec![None; units.len()];
    let rarest =
        |left: &[f64]| (0..labels).filter(|&label| left[label] > 0.5).min_by(|&a, &b| left[a].total_cmp(&left[b]));
    while let Some(label) = rarest(&left) {
        let mut open: Vec<usize> = with[label].iter().copied().filter(|&unit| part_of[unit].is_none()).collect();
        open.sort_by_key(|&unit| std::cmp::Reverse((units[unit].count(label), units[unit].members.len())));
        for unit in open {
            let mut best = 0;
            for part in 1..shares.len() {
                let more = |label: usize| {
                    let (here, there) = (wanted[part][label], wanted[best][label]);
                    // Sums of counts and shares differ by rounding only where they should be equal.
                    if (here - there).abs() < 1e-9 { None } else { Some(here > there) }
                };
                if more(label).or_else(|| more(labels)).unwrap_or(false) {
                    best = part;
                }
            }
            for (label, count) in units[unit].weights(labels) {
                wanted[best][label] -= count;
                left[label] -= count;
            }
            part_of[unit] = Some(best);
        }
    }
    part_of.into_iter().map(|part| part.expect("every unit has a label")).collect()
}

/// Moves one unit at a time to another part as long as that lowers the imbalance, or gives a label its training clip;
/// part 0 trains. `part_of` is the part of every unit.
pub(super) fn improve(units: &[Unit], shares: &[f64], part_of: &mut [usize]) {
    let mut balance = Balance::new(units, shares);
    for (unit, &part) in units.iter().zip(part_of.iter()) {
        balance.put(unit, part, 1.0);
    }
    // The largest first; the sort keeps the order of the hashes among equals.
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&unit| std::cmp::Reverse(units[unit].members.len()));
    for _ in 0..MOVE_ROUNDS {
        let mut moved = false;
        for &unit in &order {
            let from = part_of[unit];
            balance.put(&units[unit], from, -1.0);
            let stay = balance.change(&units[unit], from, 1.0);
            let costs = (0..shares.len()).map(|part| balance.change(&units[unit], part, 1.0));
            let (best, cost) = costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is a part");
            let to = if cost < stay - 1e-9 { best } else { from };
            balance.put(&units[unit], to, 1.0);
            moved |= to != from;
            part_of[unit] = to;
        }
        if !moved {
            break;
        }
    }
}

fn label_count(units: &[Unit]) -> usize {
    units.iter().flat_map(|unit| &unit.labels).map(|(label, _)| label + 1).max().unwrap_or(0)
}

/// Rounds of single moves; each only ever lowers the imbalance, and few are ever needed.
const MOVE_ROUNDS: usize = 20;
/// The cost of a label without a training clip, and of a part without a clip: more than any imbalance.
const ABSENT: f64 = 1e6;

/// How far each part is from its share of each label: Σ over labels and parts of (count − share · total)² / total, the
/// number of clips counting as one more label.
struct Balance {
    /// (labels + 1) totals; the last is that of all clips.
    totals: Vec<f64>,
    shares: Vec<f64>,
    /// counts[part][label].
    counts: Vec<Vec<f64>>,
}

impl Balance {
    fn new(units: &[Unit], shares: &[f64]) -> Self {
        let labels = label_count(units);
        let mut totals = vec![0.0; labels + 1];
        for unit in units {
            for (label, count) in unit.weights(labels) {
                totals[label] += count;
            }
        }
        Self { counts: vec![vec![0.0; labels + 1]; shares.len()], totals, shares: shares.to_vec() }
    }

    /// What putting (`sign` 1) a unit into a part adds to the cost.
    fn change(&self, unit: &Unit, part: usize, sign: f64) -> f64 {
        let all = self.totals.len() - 1;
        let cost = |label: usize, count: f64| {
            let deviation = count - self.shares[part] * self.totals[label];
            // Part 0 is train: each label wants to be in it. Any part wants a clip.
            let absent = count < 0.5 && (part == 0 || label == all);
            deviation * deviation / self.totals[label] + if absent { ABSENT } else { 0.0 }
        };
        unit.weights(all)
            .map(|(label, weight)| {
                let before = self.counts[part][label];
                cost(label, before + sign * weight) - cost(label, before)
            })
            .sum()
    }

    fn put(&mut self, unit: &Unit, part: usize, sign: f64) {
        for (label, weight) in unit.weights(self.totals.len() - 1) {
            self.counts[part][label] += sign * weight;
        }
    }
}

impl Unit {
    /// How many of its clips have a label.
    fn count(&self, label: usize) -> usize {
        self.labels.iter().find(|(other, _)| *other == label).map_or(0, |&(_, count)| count)
    }

    /// The labels with their counts, and the number of clips as the label numbered `all`.
    fn weights(&self, all: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let labels = self.labels.iter().map(|&(label, count)| (label, count as f64));
        labels.chain([(all, self.members.len() as f64)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A unit with this many clips of each label, of `size` clips.
    fn unit(size: usize, labels: &[(usize, usize)]) -> Unit {
        Unit { members: vec![0; size], labels: labels.to_vec() }
    }

    #[test]
    fn the_rarest_label_goes_first_and_the_rest_follows() {
        // Label 1 is the rarer: its two units go apart before the units of label 0 fill up what is left.
        let units = [
            unit(1, &[(0, 1)]),
            unit(1, &[(0, 1), (1, 1)]),
            unit(1, &[(0, 1)]),
            unit(1, &[(0, 1), (1, 1)]),
            unit(1, &[(0, 1)]),
            unit(1, &[(0, 1)]),
        ];
        assert_eq!(iterative(&units, &[0.5, 0.5]), [0, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn a_large_group_is_weighed_by_its_clips() {
        let units = [unit(1, &[(0, 1)]), unit(4, &[(0, 4)]), unit(1, &[(0, 1)]), unit(2, &[(0, 2)])];
        assert_eq!(iterative(&units, &[0.5, 0.5]), [1, 0, 1, 1]);
    }

    #[test]
    fn a_label_without_a_training_clip_is_moved_to_train() {
        let units = [unit(1, &[(0, 1)]), unit(1, &[(0, 1)]), unit(1, &[(1, 1)]), unit(1, &[(0, 1)])];
        let mut part_of = vec![0, 0, 1, 0];
        improve(&units, &[0.7, 0.3], &mut part_of);
        assert_eq!(part_of[2], 0);
        assert!(part_of.contains(&1), "{part_of:?}");
    }

    proptest! {
        /// Before any improvement every label is within two clips of its share for each other label it may come with.
        #[test]
        fn every_label_is_near_its_share(sets in prop::collection::vec(1u8..16, 40..200), val in 0.1f64..0.4) {
            let units: Vec<Unit> = sets
                .iter()
                .map(|set| unit(1, &(0..4).filter(|bit| set & (1 << bit) != 0).map(|bit| (bit, 1)).collect::<Vec<_>>()))
                .collect();
            let shares = [1.0 - val, val];
            let part_of = iterative(&units, &shares);
            for label in 0..4 {
                let of = |part: usize| {
                    units.iter().zip(&part_of).filter(|(unit, p)| **p == part && unit.count(label) > 0).count() as f64
                };
                prop_assert!((of(1) - val * (of(0) + of(1))).abs() <= 8.0, "label {}: {} of {}", label, of(1), of(0));
            }
        }
    }
}
