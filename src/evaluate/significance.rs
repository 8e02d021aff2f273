//! Bootstrap intervals, McNemar's exact test and Holm's correction.

use std::collections::{BTreeMap, HashMap};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::predictions::over_common_classes;
use super::{Predictions, multi_label, single_label};
use crate::dataset::Task;
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
    /// Of each headline number: `accuracy` and `macro_f1`, or `map` and `micro_f1`. A resample's mean over classes leaves
    /// out those that only the resample lacks.
    #[serde(flatten)]
    pub of: BTreeMap<String, Interval>,
    /// What share of the resampled values they hold, 0.95.
    pub level: f64,
    /// How many resamples.
    pub resamples: usize,
    /// What was drawn.
    pub unit: Unit,
    /// How many there are to draw from.
    pub units: usize,
}

/// Computes numbers of rows.
pub type Statistic = Box<dyn Fn(&[usize]) -> Vec<f64> + Send + Sync>;

/// Numbers that can be computed of any draw of a part's clips.
pub struct Statistics {
    /// What they are called, K of them.
    pub keys: Vec<&'static str>,
    /// Their K values for rows of the part, labeled ones, each any number of times.
    pub of: Statistic,
}

impl Statistics {
    /// The headline numbers of these predictions.
    pub fn of(predictions: &Predictions) -> Self {
        match predictions.task {
            Task::SingleLabel => single_label::statistics(predictions),
            Task::MultiLabel => multi_label::statistics(predictions),
        }
    }
}

/// Two classifiers on the same clips, by one number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The number: `accuracy`, `map` or `micro_f1`.
    pub measure: String,
    /// Clips that both predicted.
    pub n: usize,
    /// Clips that only the first has right; only with one label a clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_first: Option<u64>,
    /// Clips that only the second has right; only with one label a clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_second: Option<u64>,
    /// The first's number less the second's.
    pub difference: f64,
    /// Bootstrap interval of the difference, groups drawn whole; absent with fewer than two units.
    pub difference_interval: Option<Interval>,
    /// Two-sided p-value: McNemar's exact one for accuracy, else the bootstrap's (see [`bootstrap_p`]). 1 with fewer than
    /// two units.
    pub p: f64,
}

/// Rows (labeled clips) of each unit: the groups where there are any (a clip without is one by itself), else the clips.
pub fn units(predictions: &Predictions) -> (Unit, Vec<Vec<usize>>) {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut of_group: HashMap<&str, usize> = HashMap::new();
    for row in (0..predictions.len()).filter(|&row| !predictions.truth[row].is_empty()) {
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

/// Draws as many units as there are, with replacement, [`RESAMPLES`] times, and returns the sorted values of each of the K
/// statistics of the drawn rows. `None` with fewer than two units.
///
/// Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; the cluster bootstrap where units are
/// groups (Field, Welsh 2007).
pub fn bootstrap(units: &[Vec<usize>], statistics: impl Fn(&[usize]) -> Vec<f64>) -> Option<Vec<Vec<f64>>> {
    if units.len() < 2 {
        return None;
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let mut drawn = Vec::new();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for _ in 0..RESAMPLES {
        drawn.clear();
        for _ in 0..units.len() {
            drawn.extend_from_slice(&units[random.gen_range(0..units.len())]);
        }
        let drawn = statistics(&drawn);
        values.resize_with(drawn.len(), Vec::new);
        values.iter_mut().zip(drawn).for_each(|(values, value)| values.push(value));
    }
    values.iter_mut().for_each(|values| values.sort_by(f64::total_cmp));
    Some(values)
}

/// The percentile interval: the middle [`LEVEL`] of sorted values. Quantiles interpolate linearly (NumPy's default).
fn percentile(sorted: &[f64]) -> Interval {
    [quantile(sorted, (1.0 - LEVEL) / 2.0), quantile(sorted, (1.0 + LEVEL) / 2.0)]
}

/// Two-sided bootstrap p-value of a difference being 0: twice the smaller share of the B resampled differences on either
/// side of 0 (0 itself counts on both), as min(1, 2 (1 + count) / (1 + B)), which is never 0.
///
/// Source: the inverted percentile interval (Efron, Tibshirani 1993, ch. 15), with the added one of Davison, Hinkley,
/// "Bootstrap Methods and their Application" (1997), eq. 4.11.
pub fn bootstrap_p(differences: &[f64]) -> f64 {
    let below = differences.iter().filter(|&&difference| difference <= 0.0).count();
    let above = differences.iter().filter(|&&difference| difference >= 0.0).count();
    (2.0 * (1 + below.min(above)) as f64 / (1 + differences.len()) as f64).min(1.0)
}

/// The quantile of sorted values, linear between neighbors.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Intervals of the headline numbers; `None` with fewer than two units.
pub fn intervals(predictions: &Predictions) -> Option<Intervals> {
    let (unit, units) = units(predictions);
    let Statistics { keys, of } = Statistics::of(predictions);
    let values = bootstrap(&units, of)?;
    let of = keys.iter().zip(&values).map(|(key, values)| (key.to_string(), percentile(values))).collect();
    Some(Intervals { of, level: LEVEL, resamples: RESAMPLES, unit, units: units.len() })
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

/// Compares two classifiers on the labeled clips that both predicted; classes go by name. With one label a clip there is
/// one comparison, of accuracy; with several, one of each headline number that both have.
///
/// McNemar's test takes clips as independent; where there are groups, the interval of the difference, which draws whole
/// groups, is the safer reading.
///
/// # Errors
/// No labeled clip is in both, the two disagree on a clip's true classes, or their tasks differ.
pub fn paired(first: &Predictions, second: &Predictions) -> Result<Vec<Paired>> {
    if first.task != second.task {
        return Err(Error::Data("one has one label a clip and the other several: they cannot be compared".into()));
    }
    let of_id: HashMap<&str, usize> = second.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let in_both = |&i: &usize| Some((i, *of_id.get(first.ids[i].as_str())?));
    let labeled = first.labeled();
    let common = labeled.iter().filter_map(in_both).filter(|&(_, j)| !second.truth[j].is_empty());
    let (ours, theirs): (Vec<usize>, Vec<usize>) = common.unzip();
    if ours.is_empty() {
        return Err(Error::Data("the two have no labeled clip in common".into()));
    }
    let aligned = over_common_classes(&[&first.select(&ours), &second.select(&theirs)])?;
    let [first, second] = &aligned[..] else { unreachable!("two went in") };
    if let Some(i) = (0..first.len()).find(|&i| first.truth[i] != second.truth[i]) {
        return Err(Error::Data(format!(
            "clip `{}` is `{}` in one run and `{}` in another: they were made from different labels",
            first.ids[i],
            first.names(&first.truth[i]),
            second.names(&second.truth[i])
        )));
    }
    let (ours, theirs) = (Statistics::of(first), Statistics::of(second));
    let both: Vec<(usize, usize, &str)> = (0..ours.keys.len())
        .filter_map(|k| Some((k, theirs.keys.iter().position(|key| *key == ours.keys[k])?, ours.keys[k])))
        .filter(|(.., key)| first.task == Task::MultiLabel || *key == "accuracy")
        .collect();
    let differences = |rows: &[usize]| -> Vec<f64> {
        let (ours, theirs) = ((ours.of)(rows), (theirs.of)(rows));
        both.iter().map(|&(k, l, _)| ours[k] - theirs[l]).collect()
    };
    let all: Vec<usize> = (0..first.len()).collect();
    let resampled = bootstrap(&units(first).1, differences);
    let single = (first.task == Task::SingleLabel).then(|| discordant(first, second));
    let pair = |(k, (&(.., key), difference)): (usize, (&(usize, usize, &str), f64))| {
        let resampled = resampled.as_ref().map(|values| &values[k]);
        Paired {
            measure: key.into(),
            n: first.len(),
            only_first: single.map(|(only_first, _)| only_first),
            only_second: single.map(|(_, only_second)| only_second),
            difference,
            difference_interval: resampled.map(|values| percentile(values)),
            p: match (single, resampled) {
                (Some((only_first, only_second)), _) => mcnemar(only_first, only_second),
                (None, resampled) => resampled.map_or(1.0, |values| bootstrap_p(values)),
            },
        }
    };
    Ok(both.iter().zip(differences(&all)).enumerate().map(pair).collect())
}

/// Clips that only the first has right, and clips that only the second has right; the clips are the same.
fn discordant(first: &Predictions, second: &Predictions) -> (u64, u64) {
    let right = |predictions: &Predictions, i: usize| predictions.predicted[i] == predictions.truth[i];
    let count =
        |a: bool, b: bool| (0..first.len()).filter(|&i| right(first, i) == a && right(second, i) == b).count() as u64;
    (count(true, false), count(false, true))
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
            task: Task::SingleLabel,
            ids: (0..right.len()).map(|i| i.to_string()).collect(),
            groups: (0..right.len()).map(group).collect(),
            truth: vec![vec![0]; right.len()],
            predicted: right.iter().map(|&right| vec![usize::from(right == 0)]).collect(),
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
            for (ours, theirs) in ours.of["accuracy"].iter().zip(golden.interval) {
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
        assert_eq!(grouped.of["accuracy"], ten.of["accuracy"]);
        let width = |intervals: &Intervals| intervals.of["accuracy"][1] - intervals.of["accuracy"][0];
        assert!(width(&eighty) < 0.5 * width(&grouped));
        assert_eq!(intervals(&binary(&[1, 0], |_| Some("one".into()))), None);
    }

    #[test]
    fn pairs_are_counted_on_common_ids_by_class_name() {
        let first = binary(&[1, 1, 1, 0, 0], |_| None);
        let mut second = binary(&[1, 0, 0, 1, 0], |_| None);
        second.classes.reverse();
        second.truth = vec![vec![1]; 5];
        second.predicted = second.predicted.iter().map(|class| vec![1 - class[0]]).collect();
        second.ids[4] = "another".into();
        let pair = &paired(&first, &second).unwrap()[0];
        assert_eq!((pair.n, pair.only_first, pair.only_second), (4, Some(2), Some(1)));
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
            let [low, high] = intervals(&predictions).unwrap().of["accuracy"];
            prop_assert!(low <= accuracy && accuracy <= high);
        }
    }
}
