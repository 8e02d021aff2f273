//! The interface between a classifier's file and the registry, and helpers for settings.

use super::{Classifier, Model, Tensors, Trainer};
use crate::dataset::Task;
use crate::error::Result;

/// Capabilities of a classifier: the kind of input it reads and the shared settings it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Reads sequences of rows (pooling `none`) instead of one vector per clip.
    pub sequences: bool,
    /// Uses the training loop of [`Trainer`], and with it `[classify.loss]`, `[classify.training]`, `[classify.optimizer]`,
    /// `[classify.schedule]` and several seeds. Other classifiers are deterministic.
    pub trained: bool,
}

/// The definition of a classifier, implemented by its settings: a table of recipes (through serde) whose keys are also
/// flags (through clap).
pub trait ClassifierDefinition: clap::Args {
    /// Capabilities of the classifier.
    const CAPABILITIES: Capabilities;
    /// `true` if models have an [output layer](super::Model::output_layer) that is fitted by cross-entropy, so that
    /// [`Pooled`](super::Pooled) can correct it.
    const POOLS: bool = false;
    /// Settings that a search tries by default: names of flags, and their values as in `--search NAME=VALUES`.
    const SEARCH: &'static [(&'static str, &'static str)] = &[];

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    fn validate(&self) -> std::result::Result<(), String>;

    /// Returns the flags that these settings ignore, and the setting that makes them ineffective.
    fn unused_flags(&self) -> (&'static [&'static str], String) {
        (&[], String::new())
    }

    /// Returns the penalty, if a fit can start from one with another penalty ([`WarmStart`](super::WarmStart)).
    fn penalty_mut(&mut self) -> Option<&mut f64> {
        None
    }

    /// Creates the classifier. `trainer` is used by trained classifiers only.
    fn build(&self, trainer: &Trainer) -> Box<dyn Classifier>;

    /// Restores a model of this classifier from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>>;
}

/// Returns the flags of a settings table. None of them is required.
pub fn flags_of<T: clap::Args>() -> Vec<clap::Arg> {
    T::augment_args_for_update(clap::Command::new("settings")).get_arguments().cloned().collect()
}

/// Checks that a setting is at least 1.
pub(crate) fn positive(key: &str, value: usize) -> std::result::Result<(), String> {
    if value == 0 { Err(format!("{key} must be at least 1")) } else { Ok(()) }
}

/// Checks that a setting is finite and not negative.
pub(crate) fn non_negative(key: &str, value: f64) -> std::result::Result<(), String> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(format!("{key} must be a finite number ≥ 0")) }
}

/// Checks that a setting is a dropout probability.
pub(crate) fn dropout_probability(key: &str, value: f32) -> std::result::Result<(), String> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(format!("{key} must be in [0, 1)")) }
}
