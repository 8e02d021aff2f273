//! Dropout.

use rand::RngCore;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::classify::numeric::Real;

/// Inverted dropout: in training each value is set to 0 with probability p and otherwise divided by 1 − p (Srivastava et
/// al. 2014, scaled as in `torch.nn.Dropout`). Random numbers are drawn on one thread, so that they depend on the seed only.
#[derive(Debug, Clone)]
pub struct Dropout {
    probability: f32,
    random: Xoshiro256PlusPlus,
}

impl Dropout {
    /// Creates a dropout layer with probability `probability`, in [0, 1).
    ///
    /// # Panics
    /// Panics if `probability` is not in [0, 1).
    pub fn new(probability: f32, random: Xoshiro256PlusPlus) -> Self {
        assert!((0.0..1.0).contains(&probability), "the dropout probability is in [0, 1)");
        Self { probability, random }
    }

    /// Applies a new random mask to `values` and to `derivative`; the backward pass therefore needs no mask.
    pub fn forward_training<T: Real>(&mut self, values: &mut [T], derivative: &mut [T]) {
        if self.probability == 0.0 {
            return;
        }
        let threshold = (f64::from(self.probability) * (1u64 << 32) as f64) as u64 as u32;
        let scale = T::of(1.0 / (1.0 - f64::from(self.probability)));
        const BLOCK: usize = 64;
        let mut factors = [T::zero(); BLOCK];
        for (values, derivative) in values.chunks_mut(BLOCK).zip(derivative.chunks_mut(BLOCK)) {
            for pair in factors.chunks_exact_mut(2) {
                let bits = self.random.next_u64();
                pair[0] = if bits as u32 >= threshold { scale } else { T::zero() };
                pair[1] = if (bits >> 32) as u32 >= threshold { scale } else { T::zero() };
            }
            for ((value, derivative), &factor) in values.iter_mut().zip(derivative).zip(&factors) {
                *value *= factor;
                *derivative *= factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn drops_the_requested_share_and_preserves_the_mean() {
        let mut dropout = Dropout::new(0.3, Xoshiro256PlusPlus::seed_from_u64(1));
        let (mut values, mut derivative) = (vec![1f32; 100_001], vec![2f32; 100_001]);
        dropout.forward_training(&mut values, &mut derivative);
        let dropped = values.iter().filter(|v| **v == 0.0).count() as f64 / 100_001.0;
        assert!((dropped - 0.3).abs() < 0.006, "{dropped}");
        assert!(
            values.iter().zip(&derivative).all(|(v, d)| 2.0 * v == *d && (*v == 0.0 || (*v - 1.0 / 0.7).abs() < 1e-6))
        );
    }
}
