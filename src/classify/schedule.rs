//! Learning rates over time.

use crate::recipe::{self, ScheduleKind};

/// The learning rate at each step of a training. With η₀ the optimizer's rate and t the epochs since the warm-up ended:
///
/// | kind | η | PyTorch |
/// |-|-|-|
/// | constant | η₀ | |
/// | step | η₀·γ^⌊t / every⌋ | `StepLR`, stepped after each epoch |
/// | cosine | η₀·(1 + cos(π·⌊t⌋ / (epochs − warm-up)))/2 | `CosineAnnealingLR`, stepped after each epoch |
/// | restarts | η₀·(1 + cos(π·t/T))/2, t since the last restart, T = T_0, T_0·T_mult, … | `CosineAnnealingWarmRestarts` |
///
/// The cosines are those of Loshchilov & Hutter 2017; restarts count parts of epochs, and are stepped after each step i of
/// an epoch to epoch + i / steps, as PyTorch's documentation has it. A warm-up of w epochs multiplies η₀ by (k + 1) / (w·steps)
/// at its step k, counted from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    settings: recipe::Schedule,
    base: f64,
    epochs: usize,
}

impl Schedule {
    /// The schedule of a recipe, around the rate `base` (η₀) and over `epochs` epochs.
    pub fn new(settings: &recipe::Schedule, base: f64, epochs: usize) -> Self {
        Self { settings: settings.clone(), base, epochs }
    }

    /// The rate of the step `step` (below `steps`) of the epoch `epoch`, both counted from 0.
    pub fn rate(&self, epoch: usize, step: usize, steps: usize) -> f64 {
        let recipe::Schedule { kind, warm_up, restart_every, restart_factor, step_every, step_factor } = self.settings;
        let Some(since) = epoch.checked_sub(warm_up) else {
            return self.base * (epoch * steps + step + 1) as f64 / (warm_up * steps) as f64;
        };
        let cosine = |share: f64| (1.0 + (std::f64::consts::PI * share).cos()) / 2.0;
        self.base
            * match kind {
                ScheduleKind::Constant => 1.0,
                ScheduleKind::Step => step_factor.powi((since / step_every) as i32),
                ScheduleKind::Cosine => cosine(since as f64 / (self.epochs - warm_up) as f64),
                ScheduleKind::Restarts => {
                    // Stepped after each step: a step has the rate that the one before it led to.
                    let before = (since * steps + step).saturating_sub(1);
                    let at = (before / steps) as f64 + (before % steps) as f64 / steps as f64;
                    cosine(share_of_cosine(at, restart_every, restart_factor))
                }
            }
    }
}

/// How much of its cosine is over after `epochs` epochs, in [0, 1).
fn share_of_cosine(epochs: f64, every: usize, factor: usize) -> f64 {
    let (mut since, mut length) = (epochs, every as f64);
    if factor == 1 {
        since = epochs.rem_euclid(length);
    } else {
        while since >= length {
            since -= length;
            length *= factor as f64;
        }
    }
    since / length
}
