//! Seeded weights: untrained, the same bits on every machine and in every language with IEEE 754 doubles.
//!
//! Every tensor has its own stream of integers. Its state is FNV-1a (64 bits) of the tensor's name, exclusive-or
//! `seed · 0x9E3779B97F4A7C15` (wrapping). Element i takes the i-th output of SplitMix64 from that state; the top
//! 16 bits of it, read as a signed integer, are `u` in [−32768, 32767]. All arithmetic below is in exact integers
//! and f64, rounded to f32 once at the end.
//!
//! - Weights of convolutions and linear layers, for each output filter of n elements (the fan-in) with S = Σu and
//!   Q = n·Σu² − S²: `w = (n·u − S) · (gain / (sqrt(n) · sqrt(Q)))`. A filter so has mean zero up to rounding,
//!   and norm `gain`: activations neither grow nor collapse onto their mean through many layers. A filter of one
//!   element is `u · (gain / 32768)`, and so is one whose elements are all alike (Q = 0).
//! - All others are uniform, `low + (high − low) · ((u + 32768) / 65535)`: normalisation scale [0.8, 1.2], shift and
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
        Role::Weight { gain } => {
            let fan_in = parameter.shape[1..].iter().product();
            return weights(&integers, fan_in, gain);
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

fn weights(integers: &[i32], fan_in: usize, gain: f64) -> Vec<f32> {
    let n = fan_in as i64;
    let mut weights = Vec::with_capacity(integers.len());
    for filter in integers.chunks(fan_in.max(1)) {
        let sum: i64 = filter.iter().map(|u| i64::from(*u)).sum();
        let squares: i64 = filter.iter().map(|u| i64::from(*u) * i64::from(*u)).sum();
        let spread = n * squares - sum * sum;
        if spread == 0 {
            weights.extend(filter.iter().map(|u| (f64::from(*u) * (gain / 32768.0)) as f32));
            continue;
        }
        let factor = gain / ((n as f64).sqrt() * (spread as f64).sqrt());
        weights.extend(filter.iter().map(|u| ((n * i64::from(*u) - sum) as f64 * factor) as f32));
    }
    weights
}
