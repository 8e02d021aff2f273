//! Random numbers that are pure functions of a seed and of what they are for.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// What random numbers are for. Numbers of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Order of the clips of an epoch, or their choice.
    Order = 1,
    /// The windows of a clip that an epoch uses.
    Windows = 2,
    /// Augmentation of a window.
    Augmentation = 3,
    /// Augmentation of the second view of a window.
    SecondView = 4,
    /// Mixing of a batch.
    Mixup = 5,
    /// Frames of the self-supervised task.
    Rotations = 6,
    /// Dropout of a step.
    Dropout = 7,
}

/// Creates a generator from a seed, a purpose and counters such as the epoch and the clip.
///
/// # Source
/// The words are hashed one after the other by the output function of SplitMix64 (Steele, Lea, Flood 2014), which is bijective;
/// xoshiro256++ is seeded as its authors recommend.
pub fn generator(seed: u64, purpose: Purpose, counters: &[u64]) -> Xoshiro256PlusPlus {
    let mut state = mix(seed ^ mix(purpose as u64));
    for &counter in counters {
        state = mix(state ^ counter);
    }
    Xoshiro256PlusPlus::seed_from_u64(state)
}

fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws from the beta distribution Beta(α, α), for α > 0.
///
/// # Source
/// X / (X + Y) for two gamma variables, whose logarithms avoid underflow for small α.
pub fn symmetric_beta(alpha: f64, rng: &mut impl Rng) -> f64 {
    let (x, y) = (log_gamma_variable(alpha, rng), log_gamma_variable(alpha, rng));
    1.0 / (1.0 + (y - x).exp())
}

/// Draws the logarithm of a variable of the gamma distribution with shape α and scale 1.
///
/// # Source
/// Marsaglia & Tsang 2000, "A Simple Method for Generating Gamma Variables", with their boost for α < 1: G(α) = G(α + 1)·U^(1/α).
fn log_gamma_variable(alpha: f64, rng: &mut impl Rng) -> f64 {
    let boost = if alpha < 1.0 { open_uniform(rng).ln() / alpha } else { 0.0 };
    let d = if alpha < 1.0 { alpha + 1.0 } else { alpha } - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && open_uniform(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln() + boost;
        }
    }
}

/// Draws from the standard normal distribution (Box & Muller 1958).
fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * open_uniform(rng).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.r#gen::<f64>()).cos()
}

/// Draws from (0, 1].
fn open_uniform(rng: &mut impl Rng) -> f64 {
    1.0 - rng.r#gen::<f64>()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn generators_differ_in_every_argument() {
        let first = |seed, purpose, counters: &[u64]| generator(seed, purpose, counters).r#gen::<u64>();
        let mut seen = HashSet::new();
        for seed in 0..4 {
            for purpose in [Purpose::Order, Purpose::Windows, Purpose::Augmentation, Purpose::SecondView] {
                for counters in [&[][..], &[0], &[1], &[0, 0], &[0, 1], &[1, 0], &[0, 0, 0]] {
                    assert!(seen.insert(first(seed, purpose, counters)), "{seed} {purpose:?} {counters:?}");
                }
            }
        }
        assert_eq!(first(7, Purpose::Mixup, &[1, 2]), first(7, Purpose::Mixup, &[1, 2]));
    }

    #[test]
    fn beta_variables_have_the_moments_of_the_distribution() {
        for alpha in [0.1, 0.4, 1.0, 3.0] {
            let mut rng = generator(0, Purpose::Mixup, &[]);
            let n = 20_000;
            let values: Vec<f64> = (0..n).map(|_| symmetric_beta(alpha, &mut rng)).collect();
            assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
            let mean = values.iter().sum::<f64>() / f64::from(n);
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / f64::from(n);
            // Var = 1 / (4·(2α + 1)); tolerances of five standard errors.
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 5.0 * (expected / f64::from(n)).sqrt(), "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.05, "{alpha}: {variance}, not {expected}");
        }
    }
}
