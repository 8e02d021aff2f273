//! The bootstrap and its BCa intervals.
//!
//! Percentile intervals of a statistic whose resamples are biased, such as the mean average precision of few clips, are lopsided.
//! BCa intervals correct the bias and the skewness. In simulations with 20 to 40 clips they covered the value of the population
//! more often than percentile intervals, and resampling within labels covered it least.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::intervals::Interval;
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

/// Resamples that are drawn before their statistics are computed in parallel; bounds the memory.
const CHUNK: usize = 32;

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

/// Resamples units with replacement [`RESAMPLES`] times and computes K statistics of the resampled rows. Returns one element per
/// statistic; `None` with fewer than two units.
///
/// Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; for groups the cluster bootstrap of Field,
/// Welsh, "Bootstrapping clustered data" (2007).
pub fn bootstrap(units: &[Vec<usize>], statistics: impl Fn(&[usize]) -> Vec<f64> + Sync) -> Option<Vec<Bootstrap>> {
    if units.len() < 2 {
        return None;
    }
    let estimates = statistics(&units.concat());
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let mut draw = || {
        let drawn = (0..units.len()).flat_map(|_| &units[rng.gen_range(0..units.len())]);
        drawn.copied().collect::<Vec<usize>>()
    };
    let mut resamples = Vec::with_capacity(RESAMPLES);
    while resamples.len() < RESAMPLES {
        // Drawn in order, so that the resamples do not depend on the number of threads.
        let drawn: Vec<Vec<usize>> = (resamples.len()..RESAMPLES).take(CHUNK).map(|_| draw()).collect();
        resamples.par_extend(drawn.par_iter().map(|rows| statistics(rows)));
    }
    let block = units.len().div_ceil(MAX_JACKKNIFE);
    let starts: Vec<usize> = (0..units.len()).step_by(block).collect();
    let without: Vec<Vec<f64>> = starts
        .into_par_iter()
        .map(|start| statistics(&[units[..start].concat(), units[units.len().min(start + block)..].concat()].concat()))
        .collect();
    let of_statistic = |k: usize| {
        let mut resampled: Vec<f64> = resamples.iter().map(|values| values[k]).collect();
        resampled.sort_by(f64::total_cmp);
        Bootstrap { estimate: estimates[k], resampled, jackknife: without.iter().map(|values| values[k]).collect() }
    };
    Some((0..estimates.len()).map(of_statistic).collect())
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
        let units: Vec<Vec<usize>> = (0..2500).map(|i| vec![i]).collect();
        let fraction =
            |rows: &[usize]| vec![rows.iter().filter(|&&row| row % 10 == 0).count() as f64 / rows.len() as f64];
        let bootstrap = &bootstrap(&units, fraction).unwrap()[0];
        assert_eq!((bootstrap.resampled.len(), bootstrap.jackknife.len()), (RESAMPLES, 834));
        let [low, high] = bootstrap.interval().unwrap();
        // The normal approximation, 0.1 ± 1.96 · √(0.1 · 0.9 / 2500).
        assert!((low - 0.0882).abs() < 0.002 && (high - 0.1118).abs() < 0.002, "[{low}, {high}]");
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
        let units: Vec<Vec<usize>> = (0..20).map(|i| vec![i]).collect();
        let [covered, by_percentiles] = coverage(1.0, |rng| {
            let sample: Vec<f64> = (0..20).map(|_| -rng.gen_range(f64::EPSILON..1.0).ln()).collect();
            let variance = |rows: &[usize]| {
                let mean = |value: &dyn Fn(f64) -> f64| rows.iter().map(|&row| value(sample[row])).sum::<f64>() / 20.0;
                let first = mean(&|value| value);
                vec![mean(&|value| (value - first).powi(2))]
            };
            let bootstrap = &bootstrap(&units, variance).unwrap()[0];
            [bootstrap.interval().unwrap(), [0.025, 0.975].map(|q| quantile(&bootstrap.resampled, q))]
        });
        assert!(covered > by_percentiles + 15, "{covered} and {by_percentiles} of {SAMPLES}");
    }

    /// The accuracy on independent clips.
    #[test]
    fn intervals_of_clips_have_the_nominal_coverage() {
        let units: Vec<Vec<usize>> = (0..100).map(|i| vec![i]).collect();
        let [covered] = coverage(0.8, |rng| {
            let correct: Vec<bool> = (0..100).map(|_| rng.gen_bool(0.8)).collect();
            let accuracy = |rows: &[usize]| vec![rows.iter().filter(|&&row| correct[row]).count() as f64 / 100.0];
            [bootstrap(&units, accuracy).unwrap()[0].interval().unwrap()]
        });
        assert_nominal(covered);
    }

    /// The accuracy on 32 films of four clips. All clips of seven of ten films are correct, and a third of those of the others: the
    /// intraclass correlation is 0.0933 / 0.16, so that the variance of the accuracy is 1 + 3 · 0.583 = 2.75 times that of independent
    /// clips. Intervals that ignore the films are too narrow; by the normal approximation they cover 2 Φ(1.96 / √2.75) − 1 = 76 %.
    #[test]
    fn intervals_of_groups_have_the_nominal_coverage_and_those_that_ignore_them_do_not() {
        let films: Vec<Vec<usize>> = (0..32).map(|film| (4 * film..4 * film + 4).collect()).collect();
        let clips: Vec<Vec<usize>> = (0..128).map(|i| vec![i]).collect();
        let [by_film, by_clip] = coverage(0.8, |rng| {
            let easy: Vec<bool> = (0..32).map(|_| rng.gen_bool(0.7)).collect();
            let correct: Vec<bool> = (0..128).map(|clip| easy[clip / 4] || rng.gen_bool(1.0 / 3.0)).collect();
            let accuracy = |rows: &[usize]| vec![rows.iter().filter(|&&row| correct[row]).count() as f64 / 128.0];
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
