//! Learning rates over time.

/// Cosine annealing with warm restarts (Loshchilov & Hutter 2017), as `torch.optim.lr_scheduler.
/// CosineAnnealingWarmRestarts`: η = η₀·(1 + cos(π·t/T))/2, with t the epochs since the last restart and T the length of
/// the current cosine, T_0, T_0·T_mult, T_0·T_mult², …
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineWarmRestarts {
    /// η₀, the rate at the top of each cosine.
    pub peak: f64,
    /// T_0, epochs of the first cosine; at least 1.
    pub restart_every: usize,
    /// T_mult, factor by which each cosine is longer than the one before; at least 1.
    pub restart_factor: usize,
}

impl CosineWarmRestarts {
    /// The rate after `epoch` epochs, a fraction where steps are counted (epoch + step / steps).
    pub fn rate(&self, epoch: f64) -> f64 {
        let (mut since, mut length) = (epoch, self.restart_every as f64);
        if self.restart_factor == 1 {
            since = epoch.rem_euclid(length);
        } else {
            while since >= length {
                since -= length;
                length *= self.restart_factor as f64;
            }
        }
        self.peak * (1.0 + (std::f64::consts::PI * since / length).cos()) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_where_the_cosines_end() {
        let schedule = CosineWarmRestarts { peak: 0.01, restart_every: 10, restart_factor: 2 };
        assert_eq!(schedule.rate(0.0), 0.01);
        assert!((schedule.rate(5.0) - 0.005).abs() < 1e-15);
        assert!(schedule.rate(9.999) < 1e-8);
        assert_eq!(schedule.rate(10.0), 0.01);
        assert!((schedule.rate(20.0) - 0.005).abs() < 1e-15);
        assert_eq!(schedule.rate(30.0), 0.01);
        let even = CosineWarmRestarts { restart_factor: 1, ..schedule };
        assert_eq!(even.rate(30.0), 0.01);
        assert!((even.rate(35.0) - 0.005).abs() < 1e-15);
    }
}
