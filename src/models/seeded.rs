//! Seeded weights: untrained values that are bit-identical on every machine, and in every language with IEEE 754 doubles.
//!
//! Each tensor has its own stream of integers. The initial state is the 64-bit FNV-1a hash of the tensor's name, XOR
//! `seed · 0x9E3779B97F4A7C15` (wrapping). Element i uses the i-th output of SplitMix64 from that state; its top 16 bits,
//! read as a signed integer, are `u` in [−32768, 32767]. The formulas below use exact integers and f64, and round to f32
//! once at the end. The distribution depends on the parameter's role and name ([`super::initializer`]).
//!
//! - Filters: for a filter with c input channels and t taps per channel (t = 1 for linear layers), s is the sum of u over
//!   the taps of a channel and S the sum over the filter. `v = c·(t·u − s) + f·(c·s − S)` with the mean factor f: the
//!   first term is the deviation of a tap from the mean of its channel, the second that of the channel from the mean of
//!   the filter. With f = 0 the taps of each channel sum to zero, with f = 1 taps are independent (`v = c·t·u − S`), and
//!   larger factors make averaging filters. With `Q = c·Σ(t·Σu² − s²) + f²·(c·Σs² − S²)`, summed over channels and, inside,
//!   over taps, `w = v · (gain / (sqrt(c·t) · sqrt(Q)))`. Each filter has mean zero, up to rounding, and norm `gain`, so
//!   that activations neither grow nor collapse over many layers. If Q = 0 (a single element, or equal elements),
//!   `w = u · (gain / 32768)`.
//! - Uniform: `low + (high − low) · ((u + 32768) / 65535)`.
//!
//! No layer is the identity, so that tests detect an optimization that omits a term.

use super::graph::Parameter;
use super::initializer::{Distribution, distribution};
use super::nets::Architecture;
use super::parameters::ParameterSource;
use crate::error::Result;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Seeded weights of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeededParameters {
    /// The network.
    pub architecture: Architecture,
    /// The seed.
    pub seed: u64,
}

impl SeededParameters {
    /// Computes the values of a parameter in row-major order.
    pub fn values(&self, Parameter { name, shape, role }: &Parameter) -> Vec<f32> {
        let integers = integers(name, self.seed, shape.iter().product());
        match distribution(self.architecture, *role, name) {
            Distribution::Filters { gain, mean_factor } => {
                filters(&integers, (shape[1], shape[2..].iter().product()), gain, mean_factor)
            }
            Distribution::Uniform(low, high) => {
                integers.iter().map(|u| (low + (high - low) * (f64::from(u + 32768) / 65535.0)) as f32).collect()
            }
        }
    }
}

impl ParameterSource for SeededParameters {
    fn check(&self, _: &str, _: &[Parameter], _: &dyn Fn(&str) -> bool) -> Result<()> {
        Ok(())
    }

    fn read(&self, parameter: &Parameter) -> Result<Vec<f32>> {
        Ok(self.values(parameter))
    }
}

/// Returns the initial state of the random numbers of the tensor `name`.
pub fn state(name: &str, seed: u64) -> u64 {
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ seed.wrapping_mul(GOLDEN)
}

/// Returns the first `count` integers of the stream of a name, each in [−32768, 32767].
pub fn integers(name: &str, seed: u64, count: usize) -> Vec<i32> {
    let state = state(name, seed);
    (1..=count as u64)
        .map(|i| {
            let mut z = state.wrapping_add(i.wrapping_mul(GOLDEN));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            i32::from(((z ^ (z >> 31)) >> 48) as u16 as i16)
        })
        .collect()
}

fn filters(integers: &[i32], (channels, taps): (usize, usize), gain: f64, mean_factor: i64) -> Vec<f32> {
    let (c, t, fan_in) = (channels as i64, taps as i64, channels * taps);
    let mut weights = Vec::with_capacity(integers.len());
    for filter in integers.chunks(fan_in.max(1)) {
        let (mut within, mut sum, mut squares) = (0i64, 0i64, 0i64);
        for channel in filter.chunks(taps) {
            let (s, q) = sum_and_squares(channel);
            within += t * q - s * s;
            sum += s;
            squares += s * s;
        }
        let spread = c * within + mean_factor * mean_factor * (c * squares - sum * sum);
        if spread == 0 {
            weights.extend(filter.iter().map(|u| (f64::from(*u) * (gain / 32768.0)) as f32));
            continue;
        }
        let factor = gain / ((fan_in as f64).sqrt() * (spread as f64).sqrt());
        for channel in filter.chunks(taps) {
            let s = sum_and_squares(channel).0;
            let mean = mean_factor * (c * s - sum);
            weights.extend(channel.iter().map(|u| ((c * (t * i64::from(*u) - s) + mean) as f64 * factor) as f32));
        }
    }
    weights
}

/// Returns the sum of integers and the sum of their squares.
fn sum_and_squares(integers: &[i32]) -> (i64, i64) {
    integers.iter().map(|u| i64::from(*u)).fold((0, 0), |(sum, squares), u| (sum + u, squares + u * u))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_factor_sets_the_share_of_channel_means_in_filters() {
        let integers = integers("w", 0, 8 * 32 * 9);
        let shares = [0, 1, 4].map(|mean_factor| {
            let weights = filters(&integers, (32, 9), 1.5, mean_factor);
            for filter in weights.chunks(32 * 9) {
                let sum: f32 = filter.iter().sum();
                let norm: f32 = filter.iter().map(|w| w * w).sum::<f32>().sqrt();
                assert!(sum.abs() < 1e-5 && (norm - 1.5).abs() < 1e-5, "{mean_factor}: {sum} {norm}");
            }
            // The share of the squared norm that remains if each tap is replaced by the mean of its channel.
            weights.chunks(9).map(|taps| taps.iter().sum::<f32>().powi(2) / 9.0).sum::<f32>() / (8.0 * 1.5 * 1.5)
        });
        // Expected values: 0, 1 / 9 and 16 / (8 + 16).
        assert!(shares[0] < 1e-9 && (shares[1] - 0.11).abs() < 0.03 && (shares[2] - 0.67).abs() < 0.05, "{shares:?}");
    }
}
