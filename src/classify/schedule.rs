//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

use super::definition::{non_negative, positive};
use crate::value_parsers;

/// Settings of the learning-rate schedule; the table `[classify.schedule]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSettings {
    /// Learning-rate schedule.
    #[arg(id = "schedule", long = "schedule", value_name = "SCHEDULE")]
    pub kind: ScheduleKind,
    /// Epochs of linear warm-up before the schedule.
    #[arg(long, value_name = "N")]
    pub warm_up: usize,
    /// Schedule restarts: epochs of the first cosine (T_0).
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub restart_every: usize,
    /// Schedule restarts: ratio of the lengths of successive cosines (T_mult).
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub restart_factor: usize,
    /// Schedule step: epochs per step.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub step_every: usize,
    /// Schedule step: factor per step (γ).
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub step_factor: f64,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Restarts,
            warm_up: 0,
            restart_every: 10,
            restart_factor: 1,
            step_every: 30,
            step_factor: 0.1,
        }
    }
}

/// Shapes of the learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Constant.
    Constant,
    /// Multiplied by a factor every few epochs.
    Step,
    /// One cosine from the first epoch to the last.
    Cosine,
    /// Cosine annealing with warm restarts.
    Restarts,
}

impl ScheduleSettings {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        positive("classify.schedule.restart_every", self.restart_every)?;
        positive("classify.schedule.restart_factor", self.restart_factor)?;
        positive("classify.schedule.step_every", self.step_every)?;
        non_negative("classify.schedule.step_factor", self.step_factor)
    }

    /// Returns the flags that the chosen schedule ignores, and its name.
    pub fn unused_flags(&self) -> (&'static [&'static str], String) {
        const STEP: [&str; 2] = ["step_every", "step_factor"];
        const RESTARTS: [&str; 2] = ["restart_every", "restart_factor"];
        const BOTH: [&str; 4] = ["step_every", "step_factor", "restart_every", "restart_factor"];
        match self.kind {
            ScheduleKind::Constant => (&BOTH, "schedule constant".into()),
            ScheduleKind::Step => (&RESTARTS, "schedule step".into()),
            ScheduleKind::Cosine => (&BOTH, "schedule cosine".into()),
            ScheduleKind::Restarts => (&STEP, "schedule restarts".into()),
        }
    }
}

/// The learning rate η at each training step, with base rate η₀ and t epochs since the end of the warm-up:
///
/// | kind | η | PyTorch |
/// |-|-|-|
/// | constant | η₀ | |
/// | step | η₀·γ^⌊t / every⌋ | `StepLR`, advanced after each epoch |
/// | cosine | η₀·(1 + cos(π·⌊t⌋ / (epochs − warm-up)))/2 | `CosineAnnealingLR`, advanced after each epoch |
/// | restarts | η₀·(1 + cos(π·t/T))/2, t since the last restart, T = T_0, T_0·T_mult, … | `CosineAnnealingWarmRestarts` |
///
/// The cosine schedules are those of Loshchilov & Hutter 2017. The schedule with restarts uses fractional epochs: after step
/// i of an epoch it is set to epoch + i / steps, as in PyTorch's documentation. A warm-up of w epochs multiplies η₀ by
/// (k + 1) / (w·steps) at step k, counted from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    settings: ScheduleSettings,
    base: f64,
    epochs: usize,
}

impl Schedule {
    /// Creates a schedule with base rate `base` (η₀) over `epochs` epochs.
    pub fn new(settings: &ScheduleSettings, base: f64, epochs: usize) -> Self {
        Self { settings: settings.clone(), base, epochs }
    }

    /// Returns the learning rate of step `step` (< `steps`) of epoch `epoch`, both counted from 0.
    pub fn rate(&self, epoch: usize, step: usize, steps: usize) -> f64 {
        let ScheduleSettings { kind, warm_up, restart_every, restart_factor, step_every, step_factor } = self.settings;
        let Some(since) = epoch.checked_sub(warm_up) else {
            return self.base * (epoch * steps + step + 1) as f64 / (warm_up * steps) as f64;
        };
        let cosine = |progress: f64| (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0;
        self.base
            * match kind {
                ScheduleKind::Constant => 1.0,
                ScheduleKind::Step => step_factor.powi((since / step_every) as i32),
                ScheduleKind::Cosine => cosine(since as f64 / (self.epochs - warm_up) as f64),
                ScheduleKind::Restarts => {
                    // PyTorch's scheduler is advanced after each step, so a step has the rate set after the previous one.
                    let previous = (since * steps + step).saturating_sub(1);
                    let epochs = (previous / steps) as f64 + (previous % steps) as f64 / steps as f64;
                    cosine(cosine_progress(epochs, restart_every, restart_factor))
                }
            }
    }
}

/// Returns the completed fraction of the current cosine after `epochs` epochs, in [0, 1).
fn cosine_progress(epochs: f64, every: usize, factor: usize) -> f64 {
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
