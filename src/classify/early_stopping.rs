//! Early stopping.

/// Effect of an epoch on training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The best epoch so far: keep its parameters.
    Improved,
    /// No improvement; continue.
    Continue,
    /// No improvement for `patience` epochs: stop.
    Stop,
}

/// Tracks a metric of the validation split. An epoch improves if its metric is higher, or equal at a lower loss.
#[derive(Debug, Clone)]
pub struct EarlyStopping {
    patience: usize,
    epochs_without_improvement: usize,
    /// Metric and loss of the best epoch.
    best: Option<(f64, f64)>,
}

impl EarlyStopping {
    /// Creates a tracker that stops after `patience` consecutive epochs without improvement.
    pub fn new(patience: usize) -> Self {
        Self { patience, epochs_without_improvement: 0, best: None }
    }

    /// Records the validation metric and the validation loss of the next epoch.
    pub fn observe(&mut self, metric: f64, loss: f64) -> Decision {
        let improved = self.best.is_none_or(|(best, best_loss)| metric > best || (metric == best && loss < best_loss));
        if improved {
            self.best = Some((metric, loss));
            self.epochs_without_improvement = 0;
            return Decision::Improved;
        }
        self.epochs_without_improvement += 1;
        if self.epochs_without_improvement >= self.patience { Decision::Stop } else { Decision::Continue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_broken_by_loss_and_patience_counts_from_the_best_epoch() {
        let mut stopping = EarlyStopping::new(2);
        let observed: Vec<_> = [(0.5, 1.0), (0.5, 0.9), (0.5, 0.9), (0.6, 2.0), (0.6, 2.1), (0.59, 0.1)]
            .into_iter()
            .map(|(metric, loss)| stopping.observe(metric, loss))
            .collect();
        use Decision::*;
        assert_eq!(observed, [Improved, Improved, Continue, Improved, Continue, Stop]);
    }
}
