//! Intervals of the metrics of a split, McNemar's exact test and Holm's correction.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Bootstrap, LEVEL, RESAMPLES, Resamples, Statistics, of_each, resample};
use super::intervals::{Interval, Intervals, ResamplingUnit};
use super::predictions::{Predictions, align_classes};
use super::units::{LANES, Lanes, Units};
use super::{multi_label, single_label};
use crate::dataset::Task;
use crate::error::{Error, Result};

/// Comparison of two classifiers on the same clips by one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedComparison {
    /// Key of the metric: `accuracy`, `map` or `micro_f1`.
    pub measure: String,
    /// Number of labeled clips that both classifiers predicted.
    pub n: usize,
    /// Number of clips that only the first classifier predicts correctly; `None` for multi-label tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_first: Option<u64>,
    /// Number of clips that only the second classifier predicts correctly; `None` for multi-label tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_second: Option<u64>,
    /// Metric of the first classifier minus that of the second.
    pub difference: f64,
    /// BCa interval of the difference, resampling groups; `None` with fewer than two units, or if it is undefined.
    pub difference_interval: Option<Interval>,
    /// Two-sided p-value: [`mcnemar`] for accuracy, otherwise that of the bootstrap. 1 with fewer than two units.
    pub p: f64,
}

/// Returns the resampling unit and the rows of each unit: the groups if there are any (a clip without a group is its own
/// unit), otherwise the clips. Excludes unlabeled clips.
pub fn resampling_units(predictions: &Predictions) -> (ResamplingUnit, Vec<Vec<usize>>) {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut unit_of_group: HashMap<&str, usize> = HashMap::new();
    for row in predictions.labeled_rows() {
        match &predictions.groups[row] {
            Some(group) => {
                let unit = *unit_of_group.entry(group).or_insert_with(|| {
                    units.push(Vec::new());
                    units.len() - 1
                });
                units[unit].push(row);
            }
            None => units.push(vec![row]),
        }
    }
    (if unit_of_group.is_empty() { ResamplingUnit::Clips } else { ResamplingUnit::Groups }, units)
}

/// Predictions with the headline metrics of their resamples. The intervals of the metrics, and those of the differences of several
/// predictions for the same clips, follow from them.
#[derive(Debug)]
pub struct Resampled<'a> {
    /// The predictions.
    pub predictions: &'a Predictions,
    keys: Vec<&'static str>,
    unit: ResamplingUnit,
    /// Number of units.
    units: usize,
    /// `None` with fewer than two units.
    metrics: Option<Resamples>,
}

impl<'a> Resampled<'a> {
    /// Resamples the labeled clips, or their groups.
    pub fn new(predictions: &'a Predictions) -> Self {
        Self::of_same_clips(&[predictions]).remove(0)
    }

    /// Does the same for several predictions. Multi-label predictions of the same clips share their resamples: each row is a kind
    /// of its own in all of them, and to draw and count 100,000 rows takes as long as to compute the metrics.
    pub fn of_all(predictions: &[&'a Predictions]) -> Vec<Self> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (i, of_one) in predictions.iter().enumerate() {
            let shares =
                |group: &&mut Vec<usize>| of_one.task == Task::MultiLabel && same_clips(predictions[group[0]], of_one);
            match groups.iter_mut().find(shares) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        let of_group = |group: &Vec<usize>| {
            let of_clips: Vec<&Predictions> = group.iter().map(|&i| predictions[i]).collect();
            group.iter().copied().zip(Self::of_same_clips(&of_clips)).collect::<Vec<_>>()
        };
        let mut resampled: Vec<(usize, Self)> = groups.par_iter().flat_map_iter(of_group).collect();
        resampled.sort_by_key(|(i, _)| *i);
        resampled.into_iter().map(|(_, resampled)| resampled).collect()
    }

    /// Resamples predictions with the same kinds of rows.
    fn of_same_clips(predictions: &[&'a Predictions]) -> Vec<Self> {
        let (unit, units) = resampling_units(predictions[0]);
        let statistics: Vec<Statistics> = predictions.iter().map(|predictions| statistics(predictions)).collect();
        let Statistics { kind_of_row, kinds, .. } = &statistics[0];
        let compute = |counts: &[Lanes<u32>]| statistics.iter().flat_map(|of_one| (of_one.compute)(counts)).collect();
        let metrics = resample(&Units::new(&units, kind_of_row, *kinds), compute);
        let mut end = 0;
        let of_one = |(&predictions, Statistics { keys, .. }): (&&'a Predictions, &Statistics)| {
            let start = end;
            end += keys.len();
            let metrics = metrics.as_ref().map(|metrics| metrics.select(start..end));
            Self { predictions, keys: keys.clone(), unit, units: units.len(), metrics }
        };
        predictions.iter().zip(&statistics).map(of_one).collect()
    }

    /// Computes the BCa intervals of the headline metrics for which they are defined; `None` with fewer than two units.
    pub fn intervals(&self) -> Option<Intervals> {
        let bootstraps = self.metrics.as_ref()?.bootstraps();
        let intervals =
            self.keys.iter().zip(&bootstraps).filter_map(|(key, values)| Some((key.to_string(), values.interval()?)));
        let by_metric = intervals.collect();
        Some(Intervals { by_metric, level: LEVEL, resamples: RESAMPLES, unit: self.unit, units: self.units })
    }

    /// Does the same as [`compare_paired`], in a fraction of its time for multi-label predictions of the same clips.
    ///
    /// # Errors
    /// Returns the error of [`compare_paired`].
    pub fn compare_paired(&self, other: &Self) -> Result<Vec<PairedComparison>> {
        let of_same_clips =
            self.predictions.task == Task::MultiLabel && same_clips(self.predictions, other.predictions);
        let (Some(first), Some(second), true) = (&self.metrics, &other.metrics, of_same_clips) else {
            return compare_paired(self.predictions, other.predictions);
        };
        let common = common_keys(&self.keys, &other.keys);
        let differences = first.differences(second, &common).bootstraps();
        let comparison = |(&(i, _), values): (&(usize, usize), &Bootstrap)| PairedComparison {
            measure: self.keys[i].into(),
            n: self.predictions.len(),
            only_first: None,
            only_second: None,
            difference: values.estimate,
            difference_interval: values.interval(),
            p: values.p_value(),
        };
        Ok(common.iter().zip(&differences).map(comparison).collect())
    }
}

/// `true` if both predict the same clips, all labeled, in the same order and with the same classes.
fn same_clips(first: &Predictions, second: &Predictions) -> bool {
    first.task == second.task
        && first.classes == second.classes
        && first.ids == second.ids
        && first.groups == second.groups
        && first.truth == second.truth
        && first.truth.iter().all(|labels| !labels.is_empty())
}

/// Returns the positions of each key that both have.
fn common_keys(first: &[&str], second: &[&str]) -> Vec<(usize, usize)> {
    (0..first.len()).filter_map(|i| Some((i, second.iter().position(|key| *key == first[i])?))).collect()
}

fn statistics(predictions: &Predictions) -> Statistics {
    match predictions.task {
        Task::SingleLabel => single_label::statistics(predictions),
        Task::MultiLabel => multi_label::statistics(predictions),
    }
}

/// Computes McNemar's exact two-sided p-value for `b` and `c` discordant pairs, in (0, 1]: with n = b + c and
/// k = min(b, c), min(1, 2 Σ_{i ≤ k} C(n, i) / 2ⁿ).
///
/// Source: McNemar (1947), in the exact binomial form; equal to `scipy.stats.binomtest(b, b + c, 0.5)`.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    let (n, k) = (b + c, b.min(c));
    if b == c {
        return 1.0;
    }
    // ln(C(n, k) / 2ⁿ), then the smaller terms by their ratios i / (n − i + 1): this avoids overflow.
    let log_largest: f64 =
        (1..=k).map(|j| ((n - k + j) as f64 / j as f64).ln()).sum::<f64>() - n as f64 * std::f64::consts::LN_2;
    let (mut term, mut sum) = (1.0, 1.0);
    for i in (1..=k).rev() {
        term *= i as f64 / (n - i + 1) as f64;
        sum += term;
    }
    (2.0 * log_largest.exp() * sum).min(1.0)
}

/// Corrects p-values by Holm's step-down method. Returns adjusted p-values in [0, 1], in the given order.
///
/// Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let m = p_values.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; m];
    let mut highest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        highest = highest.max(((m - rank) as f64 * p_values[i]).min(1.0));
        adjusted[i] = highest;
    }
    adjusted
}

/// Compares two classifiers on the labeled clips that both predicted; classes are matched by name. Returns one comparison of
/// accuracy for single-label tasks, and one comparison per common headline metric for multi-label tasks.
///
/// McNemar's test assumes independent clips. With groups, prefer the interval of the difference, which resamples groups.
///
/// # Errors
/// Returns an error if there is no common labeled clip, the true classes of a clip differ, or the tasks differ.
pub fn compare_paired(first: &Predictions, second: &Predictions) -> Result<Vec<PairedComparison>> {
    if first.task != second.task {
        return Err(Error::Data("cannot compare single-label with multi-label predictions".into()));
    }
    let (first, second) = common_clips(first, second)?;
    let Statistics { keys, kind_of_row, kinds, compute } = differences(&first, &second);
    let units = Units::new(&resampling_units(&first).1, &kind_of_row, kinds);
    let resampled = resample(&units, &compute).map(|resamples| resamples.bootstraps());
    let discordant = (first.task == Task::SingleLabel).then(|| discordant_pairs(&first, &second));
    let comparison = |(k, (&key, [difference, ..])): (usize, (&&str, Lanes<f64>))| {
        let resampled = resampled.as_ref().map(|values| &values[k]);
        PairedComparison {
            measure: key.into(),
            n: first.len(),
            only_first: discordant.map(|(only_first, _)| only_first),
            only_second: discordant.map(|(_, only_second)| only_second),
            difference,
            difference_interval: resampled.and_then(|values| values.interval()),
            p: match (discordant, resampled) {
                (Some((only_first, only_second)), _) => mcnemar(only_first, only_second),
                (None, resampled) => resampled.map_or(1.0, |values| values.p_value()),
            },
        }
    };
    let mut counts = vec![[0; LANES]; kinds];
    kind_of_row.iter().for_each(|&kind| counts[kind as usize][0] += 1);
    Ok(keys.iter().zip(compute(&counts)).enumerate().map(comparison).collect())
}

/// Returns the differences of the metrics that both classifiers have; of single-label tasks, of the accuracy only. Both have the
/// same labeled clips.
fn differences(first: &Predictions, second: &Predictions) -> Statistics {
    if first.task == Task::SingleLabel {
        // Four kinds of clips: wrong, only the second correct, only the first, both.
        let kind = |i| 2 * u32::from(is_correct(first, i)) + u32::from(is_correct(second, i));
        let accuracy = |counts: &[u32]| {
            let share = |correct: [usize; 2]| {
                f64::from(counts[correct[0]] + counts[correct[1]]) / f64::from(counts.iter().sum::<u32>())
            };
            vec![share([2, 3]) - share([1, 3])]
        };
        let kind_of_row = (0..first.len()).map(kind).collect();
        return Statistics { keys: vec!["accuracy"], kind_of_row, kinds: 4, compute: Box::new(of_each(accuracy)) };
    }
    let (first, second) = (multi_label::statistics(first), multi_label::statistics(second));
    let common = common_keys(&first.keys, &second.keys);
    let keys = common.iter().map(|&(i, _)| first.keys[i]).collect();
    // In both, each clip is a kind of its own.
    let (kind_of_row, kinds) = (first.kind_of_row, first.kinds);
    let compute = move |counts: &[Lanes<u32>]| {
        let (first, second) = ((first.compute)(counts), (second.compute)(counts));
        let difference = |&(i, j): &(usize, usize)| std::array::from_fn(|lane| first[i][lane] - second[j][lane]);
        common.iter().map(difference).collect()
    };
    Statistics { keys, kind_of_row, kinds, compute: Box::new(compute) }
}

fn is_correct(predictions: &Predictions, i: usize) -> bool {
    predictions.predicted[i] == predictions.truth[i]
}

/// Selects the labeled clips that both classifiers predicted, over the union of their classes.
fn common_clips(first: &Predictions, second: &Predictions) -> Result<(Predictions, Predictions)> {
    let row_of_id: HashMap<&str, usize> = second.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let labeled = first.labeled_rows();
    let in_both = |&i: &usize| Some((i, *row_of_id.get(first.ids[i].as_str())?));
    let common = labeled.iter().filter_map(in_both).filter(|&(_, j)| !second.truth[j].is_empty());
    let (first_rows, second_rows): (Vec<usize>, Vec<usize>) = common.unzip();
    if first_rows.is_empty() {
        return Err(Error::Data("no labeled clip is in both sets of predictions".into()));
    }
    let mut aligned = align_classes(&[&first.select(&first_rows), &second.select(&second_rows)])?.into_iter();
    let (Some(first), Some(second)) = (aligned.next(), aligned.next()) else { unreachable!("one result per input") };
    if let Some(i) = (0..first.len()).find(|&i| first.truth[i] != second.truth[i]) {
        return Err(Error::Data(format!(
            "clip `{}` has the label `{}` in one run and `{}` in another; compare runs of the same manifest",
            first.ids[i],
            first.label_names(&first.truth[i]),
            second.label_names(&second.truth[i])
        )));
    }
    Ok((first, second))
}

/// Counts the clips that only the first, and only the second classifier predicts correctly; both have the same clips.
fn discordant_pairs(first: &Predictions, second: &Predictions) -> (u64, u64) {
    let count = |a: bool, b: bool| {
        (0..first.len()).filter(|&i| is_correct(first, i) == a && is_correct(second, i) == b).count() as u64
    };
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
    struct Bound {
        interval: Interval,
        tolerance: f64,
    }

    #[derive(Deserialize)]
    struct BootstrapGolden {
        truth: Vec<usize>,
        predicted: Vec<usize>,
        group_size: usize,
        accuracy: Bound,
        macro_f1: Bound,
    }

    fn intervals(predictions: &Predictions) -> Option<Intervals> {
        Resampled::new(predictions).intervals()
    }

    fn goldens() -> Goldens {
        serde_json::from_str(include_str!("../../fixtures/significance.json")).unwrap()
    }

    fn binary_predictions(correct: &[u8], group: impl Fn(usize) -> Option<String>) -> Predictions {
        Predictions {
            task: Task::SingleLabel,
            ids: (0..correct.len()).map(|i| i.to_string()).collect(),
            groups: (0..correct.len()).map(group).collect(),
            truth: vec![vec![0]; correct.len()],
            predicted: correct.iter().map(|&correct| vec![usize::from(correct == 0)]).collect(),
            scores: None,
            classes: vec!["a".into(), "b".into()],
        }
    }

    #[test]
    fn p_values_equal_scipy() {
        for (b, c, p) in goldens().mcnemar {
            let actual = mcnemar(b, c);
            assert!((actual - p).abs() <= 1e-10 * p, "mcnemar({b}, {c}): {actual} != {p}");
        }
        for (p_values, adjusted) in goldens().holm {
            for (actual, expected) in holm(&p_values).iter().zip(&adjusted) {
                assert!((actual - expected).abs() < 1e-12, "{actual} != {expected}");
            }
        }
    }

    #[test]
    fn intervals_equal_scipy_within_resampling_error() {
        for golden in goldens().bootstrap {
            let (n, grouped) = (golden.truth.len(), golden.group_size > 1);
            let mut predictions =
                binary_predictions(&vec![0; n], |i| grouped.then(|| (i / golden.group_size).to_string()));
            predictions.classes =
                (0..=*golden.truth.iter().chain(&golden.predicted).max().unwrap()).map(|k| k.to_string()).collect();
            predictions.truth = golden.truth.iter().map(|&class| vec![class]).collect();
            predictions.predicted = golden.predicted.iter().map(|&class| vec![class]).collect();
            let actual = intervals(&predictions).unwrap();
            let unit = if grouped { ResamplingUnit::Groups } else { ResamplingUnit::Clips };
            assert_eq!((actual.unit, actual.units), (unit, n / golden.group_size));
            for (key, expected) in [("accuracy", golden.accuracy), ("macro_f1", golden.macro_f1)] {
                for (actual, bound) in actual.by_metric[key].iter().zip(expected.interval) {
                    assert!((actual - bound).abs() <= expected.tolerance, "{key}, {n} clips: {actual} != {bound}");
                }
            }
        }
    }

    #[test]
    fn bootstrap_resamples_groups() {
        // Ten groups of eight clips, all correct or all wrong: the interval is that of ten clips, not of eighty.
        let correct: Vec<u8> = (0..80).map(|i| u8::from(i / 8 < 6)).collect();
        let grouped = intervals(&binary_predictions(&correct, |i| Some((i / 8).to_string()))).unwrap();
        let ten = intervals(&binary_predictions(&[1, 1, 1, 1, 1, 1, 0, 0, 0, 0], |_| None)).unwrap();
        let eighty = intervals(&binary_predictions(&correct, |_| None)).unwrap();
        assert_eq!((grouped.unit, grouped.units), (ResamplingUnit::Groups, 10));
        assert_eq!(grouped.by_metric["accuracy"], ten.by_metric["accuracy"]);
        let width = |intervals: &Intervals| intervals.by_metric["accuracy"][1] - intervals.by_metric["accuracy"][0];
        assert!(width(&eighty) < 0.5 * width(&grouped));
        assert_eq!(intervals(&binary_predictions(&[1, 0], |_| Some("one".into()))), None);
    }

    #[test]
    fn paired_comparison_matches_ids_and_class_names() {
        let first = binary_predictions(&[1, 1, 1, 0, 0], |_| None);
        let mut second = binary_predictions(&[1, 0, 0, 1, 0], |_| None);
        second.classes.reverse();
        second.truth = vec![vec![1]; 5];
        second.predicted = second.predicted.iter().map(|class| vec![1 - class[0]]).collect();
        second.ids[4] = "another".into();
        let comparison = &compare_paired(&first, &second).unwrap()[0];
        assert_eq!((comparison.n, comparison.only_first, comparison.only_second), (4, Some(2), Some(1)));
        assert_eq!((comparison.difference, comparison.p), (0.25, 1.0));
        second.classes.reverse();
        assert!(
            compare_paired(&first, &second)
                .unwrap_err()
                .to_string()
                .contains("clip `0` has the label `a` in one run and `b`")
        );
    }

    proptest! {
        #[test]
        fn mcnemar_is_symmetric_and_a_probability(b in 0u64..400, c in 0u64..400) {
            let p = mcnemar(b, c);
            prop_assert!(p > 0.0 && p <= 1.0);
            prop_assert!((p - mcnemar(c, b)).abs() <= 1e-15);
        }

        #[test]
        fn intervals_contain_the_accuracy(correct in prop::collection::vec(0u8..2, 2..60)) {
            let predictions = binary_predictions(&correct, |_| None);
            let accuracy = correct.iter().map(|&r| f64::from(r)).sum::<f64>() / correct.len() as f64;
            match intervals(&predictions).unwrap().by_metric.get("accuracy") {
                Some([low, high]) => prop_assert!(*low <= accuracy && accuracy <= *high),
                None => prop_assert!(accuracy == 0.0 || accuracy == 1.0, "every resample is equal"),
            }
        }
    }
}
