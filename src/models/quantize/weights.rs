//! Quantization of weights, per output channel, and correction of the bias.

use ndarray::{Array1, ArrayView3, Axis};
use rayon::prelude::*;

use crate::models::runtime::calibration::{InputStatistics, MAX_WEIGHT};

/// Number of scales that are tried per output channel.
const STEPS: usize = 20;

/// Returns one scale per output channel of `weight` (taps, input channels, output channels): of those from half the largest magnitude to
/// the largest magnitude, the one with the smallest squared error.
pub(super) fn scales(weight: ArrayView3<'_, f32>) -> Vec<f32> {
    let levels = f32::from(MAX_WEIGHT);
    let scale = |output: usize| {
        // Contiguous, as it is read many times.
        let channel: Vec<f32> = weight.index_axis(Axis(2), output).iter().copied().collect();
        let max = channel.iter().fold(0.0f32, |max, value| max.max(value.abs()));
        if max == 0.0 {
            return 1.0;
        }
        let scale = |step: usize| max / levels * (1.0 - step as f32 / (2 * STEPS) as f32);
        let error = |scale: f32| -> f64 {
            channel.iter().map(|&value| f64::from(value - scale * f32::from(quantized(value, scale))).powi(2)).sum()
        };
        let errors = (0..STEPS).map(scale).map(|scale| (scale, error(scale)));
        // The first of equal ones.
        errors.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(max / levels, |best| best.0)
    };
    (0..weight.len_of(Axis(2))).into_par_iter().map(scale).collect()
}

/// Quantizes one weight.
pub(super) fn quantized(value: f32, scale: f32) -> i8 {
    let levels = f32::from(MAX_WEIGHT);
    (value / scale).round_ties_even().clamp(-levels, levels) as i8
}

/// Returns the mean error of each output channel that rounding the weights causes, to be added to the bias: Σ (w − ŵ)·E[x] (Nagel et al.,
/// "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, eq. 16).
pub(super) fn bias_correction(
    weight: ArrayView3<'_, f32>,
    integers: ArrayView3<'_, i8>,
    scales: &[f32],
    statistics: &InputStatistics,
) -> Vec<f32> {
    let (taps, channels, outputs) = weight.dim();
    let stride = statistics.sums.len() / taps;
    let mut correction = Array1::<f64>::zeros(outputs);
    for tap in 0..taps {
        for channel in 0..channels {
            let mean = statistics.sums[tap * stride + channel] / statistics.rows.max(1) as f64;
            for output in 0..outputs {
                let index = (tap, channel, output);
                let error = f64::from(weight[index]) - f64::from(scales[output]) * f64::from(integers[index]);
                correction[output] += error * mean;
            }
        }
    }
    correction.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;

    #[test]
    fn rounding_errors_are_small_and_corrected() {
        // Two taps of three input channels (padded to four in the statistics), two output channels, one of them zero.
        let weight =
            Array3::from_shape_fn(
                (2, 3, 2),
                |(tap, channel, output)| {
                    if output == 0 { (tap * 3 + channel) as f32 * 0.0317 - 0.1 } else { 0.0 }
                },
            );
        let scales = scales(weight.view());
        let integers = Array3::from_shape_fn(weight.dim(), |index| quantized(weight[index], scales[index.2]));
        for (index, &value) in weight.indexed_iter() {
            let error = value - scales[index.2] * f32::from(integers[index]);
            assert!(error.abs() <= 0.1 / 64.0 && integers[index].abs() <= MAX_WEIGHT, "{error}");
        }
        let mut statistics = InputStatistics::new(8);
        statistics.record(&[1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0, 3.0, 2.0, 1.0, 0.0, 6.0, 5.0, 4.0, 0.0]);
        let mean = |tap: usize| [2.0, 5.0][tap];
        let expected: f64 = (0..2)
            .flat_map(|tap| (0..3).map(move |channel| (tap, channel)))
            .map(|(tap, channel)| {
                let index = (tap, channel, 0);
                mean(tap) * f64::from(weight[index] - scales[0] * f32::from(integers[index]))
            })
            .sum();
        let correction = bias_correction(weight.view(), integers.view(), &scales, &statistics);
        assert!(
            (f64::from(correction[0]) - expected).abs() < 1e-6 && correction[1] == 0.0,
            "{correction:?} {expected}"
        );
    }
}
