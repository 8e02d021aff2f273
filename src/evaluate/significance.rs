//! Bootstrap intervals, McNemar's exact test and Holm's correction.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::Predictions;
use crate::error::{Error, Result};

/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 2000;
/// What share of the resampled values an interval holds.
pub const LEVEL: f64 = 0.95;
/// Seed of every bootstrap: the same predictions give the same interval.
const SEED: u64 = 0;

/// Lower and upper end of an interval.
pub type Interval = [f64; 2];

/// What a bootstrap draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Single clips.
    Clips,
    /// Whole groups: clips of one film are no independent evidence.
    Groups,
}

/// Percentile bootstrap intervals of a split's metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Of the accuracy.
    pub accuracy: Interval,
    /// Of the macro F1; a resample's mean leaves out classes that only the resample lacks.
    pub macro_f1: Interval,
    /// What share of the resampled values they hold, 0.95.
    pub level: f64,
    /// How many resamples.
    pub resamples: usize,
    /// What was drawn.
    pub unit: Unit,
    /// How many there are to draw from.
    pub units: usize,
}

/// Two classifiers on the same clips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Clips that both predicted.
    pub n: usize,
    /// Clips that only the first has right.
    pub only_first: u64,
    /// Clips that only the second has right.
    pub only_second: u64,
    /// Accuracy of the first less that of the second.
    pub difference: f64,
    /// Bootstrap interval of the difference, groups drawn whole; absent with fewer than two units.
    pub difference_interval: Option<Interval>,
    /// McNemar's exact two-sided p-value.
    pub p: f64,
}

/// Rows (labelled clips) of each unit: the groups where there are any (a clip without is one by itself), else the clips.
pub fn units(predictions: &Predictions) -> (Unit, Vec<Vec<usize>>) {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut of_group: HashMap<&str, usize> = HashMap::new();
    for row in (0..predictions.len()).filter(|&row| predictions.truth[row].is_some()) {
        match &predictions.groups[row] {
            Some(group) => {
                let unit = *of_group.entry(group).or_insert_with(|| {
                    units.push(Vec::new());
                    units.len() - 1
                });
                units[unit].push(row);
            }
            None => units.push(vec![row]),
        }
    }
    (if of_group.is_empty() { Unit::Clips } else { Unit::Groups }, units)
}

/// Percentile bootstrap: draws as many units as there are, with replacement, [`RESAMPLES`] times, and returns the middle
/// [`LEVEL`] of each of the K statistics of the drawn rows. Quantiles interpolate linearly (NumPy's default).
///
/// Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; the cluster bootstrap where units are
/// groups (Field, Welsh 2007). `None` with fewer than two units.
pub fn bootstrap<const K: usize>(
    units: &[Vec<usize>],
    mut statistics: impl FnMut(&[usize]) -> [f64; K],
) -> Option<[Interval; K]> {
    if units.len() < 2 {
        return None;
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let mut drawn = Vec::new();
    let mut values = vec![Vec::with_capacity(RESAMPLES); K];
    for _ in 0..RESAMPLES {
        drawn.clear();
        for _ in 0..units.len() {
            drawn.extend_from_slice(&units[random.gen_range(0..units.len())]);
        }
        for (values, value) in values.iter_mut().zip(statistics(&drawn)) {
            values.push(value);
        }
    }
    let mut intervals = [[0.0; 2]; K];
    for (interval, values) in intervals.iter_mut().zip(&mut values) {
        values.sort_by(f64::total_cmp);
        *interval = [quantile(values, (1.0 - LEVEL) / 2.0), quantile(values, (1.0 + LEVEL) / 2.0)];
    }
    Some(intervals)
}

/// The quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Intervals of accuracy and macro F1; `None` with fewer than two units.
pub fn intervals(predictions: &Predictions) -> Option<Intervals> {
    let (unit, units) = units(predictions);
    let classes = predictions.classes.len();
    // A class that the whole split lacks counts as 0, as in the metric; one that only the resample lacks does not count.
    let mut seen = vec![false; classes];
    for (truth, &predicted) in predictions.truth.iter().zip(&predictions.predicted) {
        if let Some(truth) = *truth {
            (seen[truth], seen[predicted]) = (true, true);
        }
    }
    let absent = seen.iter().filter(|&&seen| !seen).count();
    let [accuracy, macro_f1] = bootstrap(&units, |rows| {
        let mut counts = vec![(0u32, 0u32); classes]; // true positives; clips of the class + predictions of it
        let mut correct = 0u32;
        for &row in rows {
            let truth = predictions.truth[row].expect("units hold labelled clips");
            let predicted = predictions.predicted[row];
            counts[truth].1 += 1;
            counts[predicted].1 += 1;
            if truth == predicted {
                counts[truth].0 += 1;
                correct += 1;
            }
        }
        let present = counts.iter().filter(|(_, sum)| *sum > 0);
        let (f1, n) = present.fold((0.0, 0), |(f1, n), &(tp, sum)| (f1 + 2.0 * f64::from(tp) / f64::from(sum), n + 1));
        [f64::from(correct) / rows.len() as f64, f1 / (n + absent) as f64]
    })?;
    Some(Intervals { accuracy, macro_f1, level: LEVEL, resamples: RESAMPLES, unit, units: units.len() })
}

/// McNemar's exact two-sided p-value for `b` and `c` discordant pairs: with n = b + c and k = min(b, c),
/// min(1, 2 Σ_{i ≤ k} C(n, i) / 2ⁿ).
///
/// Source: McNemar 1947, in the exact binomial form (as `scipy.stats.binomtest(b, b + c, 0.5)`).
pub fn mcnemar(b: u64, c: u64) -> f64 {
    let (n, k) = (b + c, b.min(c));
    if b == c {
        return 1.0;
    }
    // ln C(n, k) / 2ⁿ, then the terms below it by their ratio i / (n - i + 1): nothing overflows.
    let log_top: f64 =
        (1..=k).map(|j| ((n - k + j) as f64 / j as f64).ln()).sum::<f64>() - n as f64 * std::f64::consts::LN_2;
    let (mut term, mut sum) = (1.0, 1.0);
    for i in (1..=k).rev() {
        term *= i as f64 / (n - i + 1) as f64;
        sum += term;
    }
    (2.0 * log_top.exp() * sum).min(1.0)
}

/// Holm's step-down correction of p-values (Holm 1979), in the given order.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let m = p_values.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; m];
    let mut highest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        highest = highest.max(((m - rank) as f64 * p_values[i]).min(1.0));
        corrected[i] = highest;
    }
    corrected
}

/// Compares two classifiers on the labelled clips that both predicted; classes go by name.
///
/// McNemar's test takes clips as independent; where there are groups, the interval of the difference, which draws whole
/// groups, is the safer reading.
///
/// # Errors
/// No labelled clip is in both, or the two disagree on a clip's true class.
pub fn paired(first: &Predictions, second: &Predictions) -> Result<Paired> {
    let of_id: HashMap<&str, usize> = second.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let mut rows = Vec::new();
    let mut right = vec![[false; 2]; first.len()];
    for (i, id) in first.ids.iter().enumerate() {
        let (Some(&j), Some(truth)) = (of_id.get(id.as_str()), first.truth[i]) else { continue };
        let Some(other) = second.truth[j] else { continue };
        if first.classes[truth] != second.classes[other] {
            return Err(Error::Data(format!(
                "clip `{id}` is `{}` in one run and `{}` in another: they were made from different labels",
                first.classes[truth], second.classes[other]
            )));
        }
        right[i] = [first.predicted[i] == truth, second.predicted[j] == other];
        rows.push(i);
    }
    if rows.is_empty() {
        return Err(Error::Data("the two have no labelled clip in common".into()));
    }
    let count = |wanted: [bool; 2]| rows.iter().filter(|&&row| right[row] == wanted).count() as u64;
    let (only_first, only_second) = (count([true, false]), count([false, true]));
    let difference = |rows: &[usize]| {
        let sum: i64 = rows.iter().map(|&row| i64::from(right[row][0]) - i64::from(right[row][1])).sum();
        [sum as f64 / rows.len() as f64]
    };
    let common = first.select(&rows);
    let of_common = |drawn: &[usize]| difference(&drawn.iter().map(|&i| rows[i]).collect::<Vec<_>>());
    Ok(Paired {
        n: rows.len(),
        only_first,
        only_second,
        difference: difference(&rows)[0],
        difference_interval: bootstrap(&units(&common).1, of_common).map(|[interval]| interval),
        p: mcnemar(only_first, only_second),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Goldens {
        mcnemar: Vec<(u64, u64, f64)>,
        holm: Vec<(Vec<f64>, Vec<f64>)>,
        bootstrap: Vec<BootstrapGolden>,
    }

    #[derive(Deserialize)]
    struct BootstrapGolden {
        right: Vec<u8>,
        interval: Interval,
        tolerance: f64,
    }

    fn goldens() -> Goldens {
        serde_json::from_str(include_str!("../../fixtures/significance.json")).unwrap()
    }

    fn binary(right: &[u8], group: impl Fn(usize) -> Option<String>) -> Predictions {
        Predictions {
            ids: (0..right.len()).map(|i| i.to_string()).collect(),
            groups: (0..right.len()).map(group).collect(),
            truth: vec![Some(0); right.len()],
            predicted: right.iter().map(|&right| usize::from(right == 0)).collect(),
            scores: None,
            classes: vec!["a".into(), "b".into()],
        }
    }

    #[test]
    fn p_values_are_scipys() {
        for (b, c, p) in goldens().mcnemar {
            let ours = mcnemar(b, c);
            assert!((ours - p).abs() <= 1e-10 * p, "mcnemar({b}, {c}) = {ours}, not {p}");
        }
        for (p_values, corrected) in goldens().holm {
            for (ours, theirs) in holm(&p_values).iter().zip(&corrected) {
                assert!((ours - theirs).abs() < 1e-12, "{ours} is not {theirs}");
            }
        }
    }

    #[test]
    fn intervals_are_scipys_up_to_chance() {
        for golden in goldens().bootstrap {
            let ours = intervals(&binary(&golden.right, |_| None)).unwrap();
            assert_eq!((ours.unit, ours.units), (Unit::Clips, golden.right.len()));
            for (ours, theirs) in ours.accuracy.iter().zip(golden.interval) {
                assert!((ours - theirs).abs() <= golden.tolerance, "{ours} is not {theirs}");
            }
        }
    }

    #[test]
    fn groups_are_drawn_whole() {
        // Ten groups of eight clips, each right or wrong as a whole: as wide as ten clips' interval, not eighty's.
        let right: Vec<u8> = (0..80).map(|i| u8::from(i / 8 < 6)).collect();
        let grouped = intervals(&binary(&right, |i| Some((i / 8).to_string()))).unwrap();
        let ten = intervals(&binary(&[1, 1, 1, 1, 1, 1, 0, 0, 0, 0], |_| None)).unwrap();
        let eighty = intervals(&binary(&right, |_| None)).unwrap();
        assert_eq!((grouped.unit, grouped.units), (Unit::Groups, 10));
        assert_eq!(grouped.accuracy, ten.accuracy);
        assert!(eighty.accuracy[1] - eighty.accuracy[0] < 0.5 * (grouped.accuracy[1] - grouped.accuracy[0]));
        assert_eq!(intervals(&binary(&[1, 0], |_| Some("one".into()))), None);
    }

    #[test]
    fn pairs_are_counted_on_common_ids_by_class_name() {
        let first = binary(&[1, 1, 1, 0, 0], |_| None);
        let mut second = binary(&[1, 0, 0, 1, 0], |_| None);
        second.classes.reverse();
        second.truth = vec![Some(1); 5];
        second.predicted = second.predicted.iter().map(|class| 1 - class).collect();
        second.ids[4] = "another".into();
        let pair = paired(&first, &second).unwrap();
        assert_eq!((pair.n, pair.only_first, pair.only_second), (4, 2, 1));
        assert_eq!((pair.difference, pair.p), (0.25, 1.0));
        second.classes.reverse();
        assert!(paired(&first, &second).unwrap_err().to_string().contains("clip `0` is `a` in one run and `b`"));
    }

    proptest! {
        #[test]
        fn mcnemar_is_symmetric_and_a_probability(b in 0u64..400, c in 0u64..400) {
            let p = mcnemar(b, c);
            prop_assert!(p > 0.0 && p <= 1.0);
            prop_assert!((p - mcnemar(c, b)).abs() <= 1e-15);
        }

        #[test]
        fn intervals_hold_the_accuracy(right in prop::collection::vec(0u8..2, 2..60)) {
            let predictions = binary(&right, |_| None);
            let accuracy = right.iter().map(|&r| f64::from(r)).sum::<f64>() / right.len() as f64;
            let [low, high] = intervals(&predictions).unwrap().accuracy;
            prop_assert!(low <= accuracy && accuracy <= high);
        }
    }
}
