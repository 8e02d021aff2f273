//! Choice of the range of a layer's input that 256 integers represent.

use std::fmt;

use clap::ValueEnum;

use crate::models::runtime::calibration::{InputQuantization, InputStatistics};

/// How the range of a layer's input is chosen from its values on the calibration clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Calibration {
    /// From the smallest to the largest value.
    #[value(name = "minmax")]
    MinMax,
    /// Without the 0.01 % of the values that are the largest or smallest, half at each end.
    Percentile,
    /// The range with the smallest mean squared error.
    #[default]
    Mse,
}

/// Share of the values that [`Calibration::Percentile`] keeps.
const KEPT_SHARE: f64 = 0.9999;

/// Number of bounds that [`Calibration::Mse`] tries at each end.
const STEPS: usize = 40;

/// Smallest scale: its inverse is finite.
const MIN_SCALE: f32 = 1e-30;

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("no variant is skipped").get_name())
    }
}

impl Calibration {
    /// Chooses the quantization of an input. The range contains 0, so that padding is exact.
    pub(super) fn quantization(self, statistics: &InputStatistics) -> InputQuantization {
        let bins = statistics.bins();
        let full = (statistics.min, statistics.max);
        let (low, high) = match self {
            Calibration::MinMax => full,
            Calibration::Percentile => percentiles(&bins, full),
            Calibration::Mse => smallest_error(&bins, full),
        };
        let scale = ((high - low) / 255.0).max(MIN_SCALE);
        InputQuantization { scale, zero_point: (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8 }
    }
}

/// Returns the range without the same number of values at each end.
fn percentiles(bins: &[(f32, u64)], (min, max): (f32, f32)) -> (f32, f32) {
    let total: u64 = bins.iter().map(|bin| bin.1).sum();
    let excluded = ((1.0 - KEPT_SHARE) / 2.0 * total as f64) as u64;
    let low = first_beyond(bins.iter(), excluded).clamp(min, 0.0);
    (low, first_beyond(bins.iter().rev(), excluded).clamp(0.0, max))
}

/// Returns the first value that more than `excluded` values do not come after.
fn first_beyond<'a>(mut bins: impl Iterator<Item = &'a (f32, u64)>, excluded: u64) -> f32 {
    let mut seen = 0;
    let within = bins.find(|(_, count)| {
        seen += count;
        seen > excluded
    });
    within.map_or(0.0, |bin| bin.0)
}

/// Returns the range with the smallest mean squared error. Within the range, the error is that of rounding, step²/12; beyond it, the
/// distance to the bound (Banner et al., "Post training 4-bit quantization of convolutional networks", NeurIPS 2019).
fn smallest_error(bins: &[(f32, u64)], (min, max): (f32, f32)) -> (f32, f32) {
    // The errors beyond a bound do not depend on the other bound.
    let candidates = |bound: f32, is_beyond: fn(f32, f32) -> bool| -> Vec<(f32, f64, u64)> {
        let bounds = (0..if bound == 0.0 { 1 } else { STEPS }).map(|step| bound * (1.0 - step as f32 / STEPS as f32));
        let with_error = |bound: f32| {
            let beyond = bins.iter().filter(|(value, _)| is_beyond(*value, bound));
            let error = beyond.clone().map(|&(value, count)| f64::from(value - bound).powi(2) * count as f64).sum();
            (bound, error, beyond.map(|bin| bin.1).sum())
        };
        bounds.map(with_error).collect()
    };
    let total: u64 = bins.iter().map(|bin| bin.1).sum();
    let (lows, highs) = (candidates(min, |value, low| value < low), candidates(max, |value, high| value > high));
    let mut best = ((min, max), f64::INFINITY);
    for &(low, low_error, below) in &lows {
        for &(high, high_error, above) in &highs {
            let step = f64::from(high - low) / 255.0;
            let error = step * step / 12.0 * (total - below - above) as f64 + low_error + high_error;
            if error < best.1 {
                best = ((low, high), error);
            }
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statistics of values 0.001·k for k from `first` to `last`, and of one outlier.
    fn statistics(first: i32, last: i32, outlier: f32) -> InputStatistics {
        let mut statistics = InputStatistics::new(1);
        let values: Vec<f32> = (first..=last).map(|k| k as f32 * 1e-3).chain([outlier]).collect();
        statistics.record(&values);
        statistics
    }

    #[test]
    fn ranges_contain_zero_and_represent_it_exactly() {
        for (first, last, outlier) in [(0, 1000, 1.0), (-1000, 1000, 3.0), (-1000, -500, -0.7), (0, 0, 0.0)] {
            for calibration in [Calibration::MinMax, Calibration::Percentile, Calibration::Mse] {
                let InputQuantization { scale, zero_point } =
                    calibration.quantization(&statistics(first, last, outlier));
                assert!(scale > 0.0 && scale.recip().is_finite());
                let (low, high) = (-scale * f32::from(zero_point), scale * (255.0 - f32::from(zero_point)));
                assert!(low <= 0.0 && high >= 0.0, "{calibration}: {low} {high}");
                let (min, max) = (first as f32 * 1e-3, last as f32 * 1e-3);
                assert!(low <= min.min(0.0) * 0.95 && high >= max.max(0.0) * 0.95, "{calibration}: {low} {high}");
            }
        }
    }

    #[test]
    fn outliers_are_clipped_unless_all_values_count() {
        let statistics = statistics(0, 100_000, 1e4);
        let high = |calibration: Calibration| calibration.quantization(&statistics).scale * 255.0;
        assert!((high(Calibration::MinMax) - 1e4).abs() < 1.0);
        assert!((99.0..101.0).contains(&high(Calibration::Percentile)), "{}", high(Calibration::Percentile));
        // The minimum of (1e4 − b)² + 1e5·(b/255)²/12 is at b = 8864.
        assert!((8500.0..=9250.0).contains(&high(Calibration::Mse)), "{}", high(Calibration::Mse));
    }
}
