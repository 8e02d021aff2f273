//! Seeded weights: untrained, the same bits on every machine and in every language with IEEE 754 doubles.
//!
//! Every tensor has its own stream of integers. Its state is FNV-1a (64 bits) of the tensor's name, exclusive-or
//! `seed · 0x9E3779B97F4A7C15` (wrapping). Element i takes the i-th output of SplitMix64 from that state; the top
//! 16 bits of it, read as a signed integer, are `u` in [−32768, 32767]. All arithmetic below is in exact integers
//! and f64, rounded to f32 once at the end.
//!
//! - Weights of convolutions and linear layers, for each output filter of c input channels with t taps each (a linear
//!   layer's inputs have one): s is the sum of u over a channel's taps, S over the filter, and
//!   `v = c·(t·u − s) + level·(c·s − S)`. The first term is how a tap differs from its channel's mean, the second how
//!   that differs from the filter's; level 0 leaves filters that see only change, 1 independent taps
//!   (`v = c·t·u − S`), more of it averages. With `Q = c·Σ(t·Σu² − s²) + level²·(c·Σs² − S²)`, the sums being over
//!   channels and in them over taps, `w = v · (gain / (sqrt(c·t) · sqrt(Q)))`. A filter so has mean zero up to
//!   rounding, and norm `gain`: activations neither grow nor collapse onto their mean through many layers. Where
//!   Q = 0 (a filter of one element, or of like ones), `w = u · (gain / 32768)`.
//! - All others are uniform, `low + (high − low) · ((u + 32768) / 65535)`: normalization scale [0.8, 1.2], shift and
//!   running mean [−0.3, 0.3], running variance [0.5, 1.5], bias [−0.1, 0.1], layer scale [0.1, 0.4],
//!   tokens and what is added to them [−0.5, 0.5].
//!
//! So no layer is an identity: a fold that forgets a term shows.

use super::graph::{Parameter, Role};

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The values of a parameter, row-major.
pub fn values(parameter: &Parameter, seed: u64) -> Vec<f32> {
    let count = parameter.shape.iter().product();
    let integers = integers(&parameter.name, seed, count);
    let (low, high) = match parameter.role {
        Role::Weight { gain, level } => {
            let taps = parameter.shape[2..].iter().product();
            return weights(&integers, (parameter.shape[1], taps), gain, level);
        }
        Role::Bias => (-0.1, 0.1),
        Role::NormScale => (0.8, 1.2),
        Role::NormShift | Role::RunningMean => (-0.3, 0.3),
        Role::RunningVariance => (0.5, 1.5),
        Role::LayerScale => (0.1, 0.4),
        Role::Embedding => (-0.5, 0.5),
    };
    integers.iter().map(|u| (low + (high - low) * (f64::from(u + 32768) / 65535.0)) as f32).collect()
}

/// The first `count` integers of a name's stream, each in [−32768, 32767].
pub fn integers(name: &str, seed: u64, count: usize) -> Vec<i32> {
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    let state = hash ^ seed.wrapping_mul(GOLDEN);
    (1..=count as u64)
        .map(|i| {
            let mut z = state.wrapping_add(i.wrapping_mul(GOLDEN));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            i32::from(((z ^ (z >> 31)) >> 48) as u16 as i16)
        })
        .collect()
}

fn weights(integers: &[i32], (channels, taps): (usize, usize), gain: f64, level: i64) -> Vec<f32> {
    let (c, t, fan_in) = (channels as i64, taps as i64, channels * taps);
    let mut weights = Vec::with_capacity(integers.len());
    for filter in integers.chunks(fan_in.max(1)) {
        let (mut within, mut sum, mut squares) = (0i64, 0i64, 0i64);
        for channel in filter.chunks(taps) {
            let (s, q) = sums(channel);
            within += t * q - s * s;
            sum += s;
            squares += s * s;
        }
        let spread = c * within + level * level * (c * squares - sum * sum);
        if spread == 0 {
            weights.extend(filter.iter().map(|u| (f64::from(*u) * (gain / 32768.0)) as f32));
            continue;
        }
        let factor = gain / ((fan_in as f64).sqrt() * (spread as f64).sqrt());
        for channel in filter.chunks(taps) {
            let s = sums(channel).0;
            let mean = level * (c * s - sum);
            weights.extend(channel.iter().map(|u| ((c * (t * i64::from(*u) - s) + mean) as f64 * factor) as f32));
        }
    }
    weights
}

/// Of integers, and of their squares.
fn sums(integers: &[i32]) -> (i64, i64) {
    integers.iter().map(|u| i64::from(*u)).fold((0, 0), |(sum, squares), u| (sum + u, squares + u * u))
}

#[cfg(test)]
mod tests {
    use super::super::graph::{AVERAGE, CHANGE, MIXED};
    use super::*;

    #[test]
    fn levels_say_how_much_of_a_channels_mean_a_filter_sees() {
        let shares = [CHANGE, MIXED, AVERAGE].map(|level| {
            let role = Role::Weight { gain: 1.5, level };
            let weights = values(&Parameter { name: "w".into(), shape: vec![8, 32, 1, 3, 3], role }, 0);
            for filter in weights.chunks(32 * 9) {
                let sum: f32 = filter.iter().sum();
                let norm: f32 = filter.iter().map(|w| w * w).sum::<f32>().sqrt();
                assert!(sum.abs() < 1e-5 && (norm - 1.5).abs() < 1e-5, "{level}: {sum} {norm}");
            }
            // Of the squared norm, what is left where every tap is its channel's mean.
            weights.chunks(9).map(|taps| taps.iter().sum::<f32>().powi(2) / 9.0).sum::<f32>() / (8.0 * 1.5 * 1.5)
        });
        // 0, 1 / 9 and 16 / (8 + 16) of it, but for chance.
        assert!(shares[0] < 1e-9 && (shares[1] - 0.11).abs() < 0.03 && (shares[2] - 0.67).abs() < 0.05, "{shares:?}");
    }
}
