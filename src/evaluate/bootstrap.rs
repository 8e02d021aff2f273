//! The bootstrap and its BCa intervals.
//!
//! Percentile intervals of a statistic whose resamples are biased, such as the mean average precision of few clips, are lopsided.
//! BCa intervals correct the bias and the skewness. In simulations with 20 to 40 clips they covered the value of the population
//! more often than percentile intervals, and resampling within labels covered it least.

use std::ops::Range;

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::intervals::Interval;
use super::units::{LANES, Lanes, Units};
use crate::numeric::Real;

/// Number of resamples of a bootstrap.
pub const RESAMPLES: usize = 2000;
/// Confidence level of intervals.
pub const LEVEL: f64 = 0.95;
/// Name of the intervals in reports.
pub const METHOD: &str = "BCa bootstrap";
/// Seed of every bootstrap: the same predictions yield the same interval.
const SEED: u64 = 0;
/// Maximum number of parts that the jackknife leaves out in turn. More units are left out in blocks: sums over blocks have the
/// same expected acceleration, and the time stays linear in the number of clips.
const MAX_JACKKNIFE: usize = 1000;

/// Computes K metrics of several resamples from the number of rows of each kind.
pub type Statistic = Box<dyn Fn(&[Lanes<u32>]) -> Vec<Lanes<f64>> + Send + Sync>;

/// The headline metrics of a split as functions of the number of its rows of each kind.
pub struct Statistics {
    /// Keys of the metrics, K of them.
    pub keys: Vec<&'static str>,
    /// Kind of each row; of an unlabeled row, any.
    pub kind_of_row: Vec<u32>,
    /// Number of kinds.
    pub kinds: usize,
    /// Computes the K metrics.
    pub compute: Statistic,
}

/// Lets [`resample`] compute statistics one resample after the other.
pub fn of_each(
    statistics: impl Fn(&[u32]) -> Vec<f64> + Send + Sync,
) -> impl Fn(&[Lanes<u32>]) -> Vec<Lanes<f64>> + Send + Sync {
    move |counts| {
        let values: Lanes<Vec<f64>> =
            std::array::from_fn(|lane| statistics(&counts.iter().map(|counts| counts[lane]).collect::<Vec<u32>>()));
        (0..values[0].len()).map(|k| std::array::from_fn(|lane| values[lane][k])).collect()
    }
}

/// Values of one statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// Value of all units.
    pub estimate: f64,
    /// Values of the resamples in ascending order.
    pub resampled: Vec<f64>,
    /// Values without each unit, or without each block of units.
    pub jackknife: Vec<f64>,
}

/// Values of K statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct Resamples {
    /// Values of all units.
    estimates: Vec<f64>,
    /// Values of each resample.
    resamples: Vec<Vec<f64>>,
    /// Values without each unit, or without each block of units.
    without: Vec<Vec<f64>>,
}

/// Resamples units with replacement [`RESAMPLES`] times and computes K statistics of the number of rows of each kind. `None` with fewer
/// than two units. If few units differ, the time does not depend on their number. Units of equal contents have equal resamples.
///
/// `statistics` gets the counts of [`LANES`] resamples and returns K values of each; see [`of_each`].
///
/// Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; for groups the cluster bootstrap of Field,
/// Welsh, "Bootstrapping clustered data" (2007).
pub fn resample(units: &Units, statistics: impl Fn(&[Lanes<u32>]) -> Vec<Lanes<f64>> + Sync) -> Option<Resamples> {
    if units.len() < 2 {
        return None;
    }
    // Returns the values of the first lanes.
    let compute = |counts: &[Lanes<u32>], lanes: usize| -> Vec<Vec<f64>> {
        let values = statistics(counts);
        (0..lanes).map(|lane| values.iter().map(|value| value[lane]).collect()).collect()
    };
    let all = units.counts(&[&units.frequencies; LANES]);
    let estimates = compute(&all, 1).remove(0);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    // Drawn in order, so that the resamples do not depend on the number of threads, while the statistics of others are computed.
    let drawn = (0..RESAMPLES).step_by(LANES).map(|first| {
        let draws = (first..RESAMPLES).take(LANES).map(|_| units.draw(&mut random));
        (first, draws.collect::<Vec<Vec<u32>>>())
    });
    let mut resamples: Vec<(usize, Vec<Vec<f64>>)> =
        drawn.par_bridge().map(|(first, drawn)| (first, compute(&units.counts(&drawn), drawn.len()))).collect();
    resamples.sort_unstable_by_key(|(first, _)| *first);
    let resamples = resamples.into_iter().flat_map(|(_, values)| values).collect();
    let blocks: Vec<&[u32]> = units.content_of.chunks(units.len().div_ceil(MAX_JACKKNIFE)).collect();
    let without_blocks = |blocks: &[&[u32]]| {
        let mut counts = all.clone();
        for (lane, block) in blocks.iter().enumerate() {
            for &content in *block {
                units.contents[content as usize].iter().for_each(|&(kind, rows)| counts[kind as usize][lane] -= rows);
            }
        }
        compute(&counts, blocks.len())
    };
    let without = blocks.par_chunks(LANES).flat_map_iter(without_blocks).collect();
    Some(Resamples { estimates, resamples, without })
}

/// Returns the [`Resamples::bootstraps`] of [`resample`] by statistics of a single resample.
#[cfg(test)]
fn bootstrap(units: &Units, statistics: impl Fn(&[u32]) -> Vec<f64> + Send + Sync) -> Option<Vec<Bootstrap>> {
    Some(resample(units, of_each(statistics))?.bootstraps())
}

impl Resamples {
    /// Returns one element per statistic.
    pub fn bootstraps(&self) -> Vec<Bootstrap> {
        let of_statistic = |k: usize| {
            let mut resampled: Vec<f64> = self.resamples.iter().map(|values| values[k]).collect();
            resampled.sort_by(f64::total_cmp);
            let jackknife = self.without.iter().map(|values| values[k]).collect();
            Bootstrap { estimate: self.estimates[k], resampled, jackknife }
        };
        (0..self.estimates.len()).map(of_statistic).collect()
    }

    /// Returns some of the statistics.
    pub fn select(&self, statistics: Range<usize>) -> Self {
        let select = |values: &Vec<f64>| values[statistics.clone()].to_vec();
        Self {
            estimates: select(&self.estimates),
            resamples: self.resamples.iter().map(select).collect(),
            without: self.without.iter().map(select).collect(),
        }
    }

    /// Returns the differences of statistics i and those j of resamples of the same units, for `pairs` of (i, j).
    pub fn differences(&self, other: &Self, pairs: &[(usize, usize)]) -> Self {
        let difference = |(first, second): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            pairs.iter().map(|&(i, j)| first[i] - second[j]).collect()
        };
        let all = |first: &[Vec<f64>], second: &[Vec<f64>]| first.iter().zip(second).map(difference).collect();
        Self {
            estimates: difference((&self.estimates, &other.estimates)),
            resamples: all(&self.resamples, &other.resamples),
            without: all(&self.without, &other.without),
        }
    }
}

impl Bootstrap {
    /// Computes the bias-corrected and accelerated (BCa) interval at [`LEVEL`]. `None` if it is undefined: all resamples are on
    /// one side of the estimate, or all equal to it.
    ///
    /// Source: Efron, "Better Bootstrap Confidence Intervals" (1987); equal to `scipy.stats.bootstrap`.
    pub fn interval(&self) -> Option<Interval> {
        let n = self.resampled.len();
        let below = self.resampled.partition_point(|&value| value < self.estimate);
        let not_above = self.resampled.partition_point(|&value| value <= self.estimate);
        if not_above == 0 || below == n || not_above - below == n {
            return None;
        }
        let bias = normal_quantile((below + not_above) as f64 / (2 * n) as f64);
        let mean = self.jackknife.iter().sum::<f64>() / self.jackknife.len() as f64;
        let moment = |power| self.jackknife.iter().map(|value| (mean - value).powi(power)).sum::<f64>();
        let spread = 6.0 * moment(2).powf(1.5);
        let acceleration = if spread > 0.0 { moment(3) / spread } else { 0.0 };
        let bound = |probability: f64| {
            let shifted = bias + normal_quantile(probability);
            quantile(&self.resampled, normal_cdf(bias + shifted / (1.0 - acceleration * shifted)))
        };
        Some([bound((1.0 - LEVEL) / 2.0), bound((1.0 + LEVEL) / 2.0)])
    }

    /// Computes the two-sided p-value of a difference of 0, in (0, 1]: min(1, 2 (1 + count) / (1 + B)), with the smaller count of
    /// the B resampled differences on either side of 0 (ties with 0 count on both sides).
    ///
    /// Source: the inverted percentile interval (Efron, Tibshirani 1993, ch. 15), with the added 1 of Davison, Hinkley,
    /// "Bootstrap Methods and their Application" (1997), eq. 4.11.
    pub fn p_value(&self) -> f64 {
        let not_above = self.resampled.partition_point(|&difference| difference <= 0.0);
        let not_below = self.resampled.len() - self.resampled.partition_point(|&difference| difference < 0.0);
        (2.0 * (1 + not_above.min(not_below)) as f64 / (1 + self.resampled.len()) as f64).min(1.0)
    }
}

/// Returns the quantile `q` in [0, 1] of sorted values with linear interpolation (NumPy's default).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    low + (high - low) * position.fract()
}

/// Returns the probability that a standard normal variable is at most `x`.
fn normal_cdf(x: f64) -> f64 {
    0.5 * (1.0 + Real::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// Returns the x in [−8, 8] at which [`normal_cdf`] is `p`, by bisection; absolute error below 1e-12 for p in [1e-4, 1 − 1e-4].
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Goldens {
        bca: Vec<Golden>,
    }

    #[derive(Deserialize)]
    struct Golden {
        estimate: f64,
        resampled: Vec<f64>,
        jackknife: Vec<f64>,
        interval: Interval,
    }

    #[test]
    fn interval_of_given_resamples_equals_scipy() {
        let goldens: Goldens = serde_json::from_str(include_str!("../../fixtures/significance.json")).unwrap();
        assert_eq!(goldens.bca.len(), 3);
        for Golden { estimate, resampled, jackknife, interval } in goldens.bca {
            let actual = Bootstrap { estimate, resampled, jackknife }.interval().unwrap();
            for (actual, expected) in actual.iter().zip(interval) {
                assert!((actual - expected).abs() <= 1e-9 * expected, "{actual} != {expected}");
            }
        }
    }

    #[test]
    fn interval_is_undefined_if_no_resample_is_on_one_side() {
        let of = |resampled: &[f64]| {
            let bootstrap = Bootstrap { estimate: 0.5, resampled: resampled.to_vec(), jackknife: vec![0.4, 0.6] };
            bootstrap.interval()
        };
        assert_eq!(of(&[0.5, 0.5, 0.5]), None);
        assert_eq!(of(&[0.6, 0.7, 0.7]), None);
        assert_eq!(of(&[0.2, 0.3, 0.3]), None);
        assert!(of(&[0.4, 0.5, 0.5]).is_some());
    }

    #[test]
    fn many_units_are_left_out_in_blocks() {
        let fraction = |counts: &[u32]| {
            let every_tenth: u32 = counts.iter().step_by(10).sum();
            vec![f64::from(every_tenth) / f64::from(counts.iter().sum::<u32>())]
        };
        // Drawn one by one, and, as there are ten kinds of rows only, by kind.
        for kinds in [2500, 10] {
            let kind_of_row: Vec<u32> = (0..2500).map(|row| row % kinds).collect();
            let bootstrap = &bootstrap(&single_rows(&kind_of_row), fraction).unwrap()[0];
            assert_eq!((bootstrap.resampled.len(), bootstrap.jackknife.len()), (RESAMPLES, 834));
            let [low, high] = bootstrap.interval().unwrap();
            // The normal approximation, 0.1 ± 1.96 · √(0.1 · 0.9 / 2500).
            assert!((low - 0.0882).abs() < 0.002 && (high - 0.1118).abs() < 0.002, "{kinds}: [{low}, {high}]");
        }
    }

    /// Units of one row each.
    fn single_rows(kind_of_row: &[u32]) -> Units {
        let units: Vec<Vec<usize>> = (0..kind_of_row.len()).map(|row| vec![row]).collect();
        Units::new(&units, kind_of_row, *kind_of_row.iter().max().unwrap() as usize + 1)
    }

    /// Number of simulated samples.
    const SAMPLES: usize = 300;

    /// Counts the simulated samples whose intervals contain the value of the population, for each of K intervals.
    fn coverage<const K: usize>(
        value: f64,
        mut intervals: impl FnMut(&mut Xoshiro256PlusPlus) -> [Interval; K],
    ) -> [usize; K] {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut covered = [0; K];
        for _ in 0..SAMPLES {
            let contains = |[low, high]: Interval| usize::from(low <= value && value <= high);
            covered.iter_mut().zip(intervals(&mut rng)).for_each(|(count, interval)| *count += contains(interval));
        }
        covered
    }

    /// Asserts that the coverage is that of the level up to three standard deviations of a binomial distribution.
    #[track_caller]
    fn assert_nominal(covered: usize) {
        let tolerance = 3.0 * (SAMPLES as f64 * LEVEL * (1.0 - LEVEL)).sqrt();
        assert!((covered as f64 - SAMPLES as f64 * LEVEL).abs() <= tolerance, "{covered} of {SAMPLES}");
    }

    /// The variance (with divisor n) of 20 exponential values: resamples are skewed and, as those of the mean average precision,
    /// biased.
    #[test]
    fn intervals_cover_the_value_of_the_population_more_often_than_percentiles() {
        let units = single_rows(&(0..20).collect::<Vec<u32>>());
        let [covered, by_percentiles] = coverage(1.0, |rng| {
            let sample: Vec<f64> = (0..20).map(|_| -rng.gen_range(f64::EPSILON..1.0).ln()).collect();
            let variance = |counts: &[u32]| {
                let values = || sample.iter().zip(counts);
                let mean = |value: &dyn Fn(f64) -> f64| {
                    values().map(|(&x, &count)| f64::from(count) * value(x)).sum::<f64>() / 20.0
                };
                let first = mean(&|value| value);
                vec![mean(&|value| (value - first).powi(2))]
            };
            let bootstrap = &bootstrap(&units, variance).unwrap()[0];
            [bootstrap.interval().unwrap(), [0.025, 0.975].map(|q| quantile(&bootstrap.resampled, q))]
        });
        assert!(covered > by_percentiles + 15, "{covered} and {by_percentiles} of {SAMPLES}");
    }

    /// Returns the share of correct rows, each of which is a kind.
    fn share(counts: &[u32], correct: &[bool]) -> f64 {
        let of_correct: u32 = counts.iter().zip(correct).filter(|(_, correct)| **correct).map(|(count, _)| count).sum();
        f64::from(of_correct) / f64::from(counts.iter().sum::<u32>())
    }

    /// The accuracy on independent clips.
    #[test]
    fn intervals_of_clips_have_the_nominal_coverage() {
        let units = single_rows(&(0..100).collect::<Vec<u32>>());
        let [covered] = coverage(0.8, |rng| {
            let correct: Vec<bool> = (0..100).map(|_| rng.gen_bool(0.8)).collect();
            [bootstrap(&units, |counts| vec![share(counts, &correct)]).unwrap()[0].interval().unwrap()]
        });
        assert_nominal(covered);
    }

    /// The accuracy on 32 films of four clips. All clips of seven of ten films are correct, and a third of those of the others: the
    /// intraclass correlation is 0.0933 / 0.16, so that the variance of the accuracy is 1 + 3 · 0.583 = 2.75 times that of independent
    /// clips. Intervals that ignore the films are too narrow; by the normal approximation they cover 2 Φ(1.96 / √2.75) − 1 = 76 %.
    #[test]
    fn intervals_of_groups_have_the_nominal_coverage_and_those_that_ignore_them_do_not() {
        let kind_of_row: Vec<u32> = (0..128).collect();
        let films: Vec<Vec<usize>> = (0..32).map(|film| (4 * film..4 * film + 4).collect()).collect();
        let (films, clips) = (Units::new(&films, &kind_of_row, 128), single_rows(&kind_of_row));
        let [by_film, by_clip] = coverage(0.8, |rng| {
            let easy: Vec<bool> = (0..32).map(|_| rng.gen_bool(0.7)).collect();
            let correct: Vec<bool> = (0..128).map(|clip| easy[clip / 4] || rng.gen_bool(1.0 / 3.0)).collect();
            let accuracy = |counts: &[u32]| vec![share(counts, &correct)];
            [&films, &clips].map(|units| bootstrap(units, accuracy).unwrap()[0].interval().unwrap())
        });
        assert_nominal(by_film);
        assert!((0.70..0.85).contains(&(by_clip as f64 / SAMPLES as f64)), "{by_clip} of {SAMPLES}");
    }

    #[test]
    fn normal_distribution_matches_tabulated_values() {
        for (x, p) in [(-3.0, 0.001349898031630), (-1.0, 0.158655253931457), (0.0, 0.5), (1.959963984540054, 0.975)] {
            assert!((normal_cdf(x) - p).abs() < 1e-14 && (normal_quantile(p) - x).abs() < 1e-11, "{x}");
        }
    }
}
