//! When to stop, and which epoch to keep.

/// What an epoch means for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The best so far: keep it.
    Better,
    /// Not better; go on.
    Wait,
    /// Not better for as many epochs as patience lasts: stop.
    Stop,
}

/// Watches a number of the validation split: an epoch is better if it is higher, or equal at a lower loss.
#[derive(Debug, Clone)]
pub struct EarlyStopping {
    patience: usize,
    waited: usize,
    best: Option<(f64, f64)>,
}

impl EarlyStopping {
    /// Stops after `patience` epochs in a row without a better one.
    pub fn new(patience: usize) -> Self {
        Self { patience, waited: 0, best: None }
    }

    /// Judges the next epoch by the number that is watched, such as its validation accuracy, and its validation loss.
    pub fn observe(&mut self, accuracy: f64, loss: f64) -> Verdict {
        let better = self.best.is_none_or(|(best, at)| accuracy > best || (accuracy == best && loss < at));
        if better {
            self.best = Some((accuracy, loss));
            self.waited = 0;
            return Verdict::Better;
        }
        self.waited += 1;
        if self.waited >= self.patience { Verdict::Stop } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_goes_to_the_lower_loss_and_patience_counts_from_the_best() {
        let mut stopping = EarlyStopping::new(2);
        let observed: Vec<_> = [(0.5, 1.0), (0.5, 0.9), (0.5, 0.9), (0.6, 2.0), (0.6, 2.1), (0.59, 0.1)]
            .into_iter()
            .map(|(accuracy, loss)| stopping.observe(accuracy, loss))
            .collect();
        use Verdict::*;
        assert_eq!(observed, [Better, Better, Wait, Better, Wait, Stop]);
    }
}
