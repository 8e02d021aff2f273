//! Optimizers.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::definition::non_negative;
use super::layers::Parameter;
use super::numeric::Real;
use crate::value_parsers;

/// Settings of the optimizer; the table `[classify.optimizer]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// Optimizer.
    #[arg(id = "optimizer", long = "optimizer", value_name = "OPTIMIZER")]
    pub kind: OptimizerKind,
    /// Base learning rate of the schedule.
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub learning_rate: f64,
    /// Weight decay: decoupled for adamw, an L2 penalty for adam and sgd.
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub weight_decay: f64,
    /// Momentum of sgd.
    #[arg(long, value_name = "X", value_parser = value_parsers::below_one::<f64>)]
    pub momentum: f64,
    /// Nesterov momentum for sgd.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub nesterov: bool,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self { kind: OptimizerKind::Adamw, learning_rate: 0.01, weight_decay: 0.01, momentum: 0.9, nesterov: false }
    }
}

/// Optimization algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    Adamw,
    /// Adam.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

impl OptimizerSettings {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        non_negative("classify.optimizer.learning_rate", self.learning_rate)?;
        non_negative("classify.optimizer.weight_decay", self.weight_decay)?;
        if !(0.0..1.0).contains(&self.momentum) || (self.nesterov && self.momentum == 0.0) {
            return Err("classify.optimizer.momentum must be in [0, 1), and positive with nesterov".into());
        }
        Ok(())
    }

    /// Returns the flags that the chosen optimizer ignores, and its name.
    pub fn unused_flags(&self) -> (&'static [&'static str], String) {
        match self.kind {
            OptimizerKind::Adamw => (&["momentum", "nesterov"], "optimizer adamw".into()),
            OptimizerKind::Adam => (&["momentum", "nesterov"], "optimizer adam".into()),
            OptimizerKind::Sgd => (&[], String::new()),
        }
    }
}

/// β₁ and β₂ of Adam.
pub const BETA: (f64, f64) = (0.9, 0.999);
/// ε of Adam.
pub const EPSILON: f64 = 1e-8;

/// An optimizer with its state. The update rules are those of PyTorch's classes, with gradient g, learning rate η, weight
/// decay λ, momentum μ and step t, counted from 1:
///
/// ```text
/// AdamW (Loshchilov & Hutter 2019)      Adam (Kingma & Ba 2015)       SGD
/// θ ← θ·(1 − η·λ)                       g ← g + λ·θ                   g ← g + λ·θ
/// m ← β₁·m + (1 − β₁)·g                 m, v, θ as in AdamW            b ← μ·b + g   (b ← g at the first step)
/// v ← β₂·v + (1 − β₂)·g²                                              θ ← θ − η·b   (Nesterov: θ − η·(g + μ·b))
/// θ ← θ − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
/// ```
///
/// Weight decay applies to all parameters, including biases and normalization layers, as in PyTorch's default.
#[derive(Debug, Clone)]
pub struct Optimizer<T> {
    settings: OptimizerSettings,
    step: i32,
    /// Per parameter: m and v of Adam, or b and an empty vector of SGD.
    moments: Vec<(Vec<T>, Vec<T>)>,
}

impl<T: Real> Optimizer<T> {
    /// Creates an optimizer. The learning rate of `settings` is ignored; the schedule provides it at each step.
    pub fn new(settings: &OptimizerSettings) -> Self {
        Self { settings: settings.clone(), step: 0, moments: Vec::new() }
    }

    /// Updates `parameters` with the learning rate `rate`. The parameters must be the same, in the same order, at every step.
    /// The result does not depend on `threads`.
    ///
    /// # Panics
    /// Panics if the number of parameters changes between steps.
    pub fn step(&mut self, parameters: &mut [Parameter<'_, T>], rate: f64, threads: usize) {
        if self.moments.is_empty() {
            let moments = |p: &Parameter<'_, T>| {
                let zeros = vec![T::zero(); p.values.len()];
                if self.settings.kind == OptimizerKind::Sgd { (zeros, Vec::new()) } else { (zeros.clone(), zeros) }
            };
            self.moments = parameters.iter().map(moments).collect();
        }
        assert_eq!(self.moments.len(), parameters.len(), "the parameters of an optimizer do not change");
        self.step += 1;
        let rule = UpdateRule::new(&self.settings, self.step, rate);
        for (parameter, (m, v)) in parameters.iter_mut().zip(&mut self.moments) {
            rule.apply(parameter.values, parameter.gradient, m, v, threads);
        }
    }
}

/// The update of one step, with precomputed factors.
pub struct UpdateRule<T>(Factors<T>);

#[derive(Clone, Copy)]
enum Factors<T> {
    /// AdamW has `decay` = 1 − η·λ and `penalty` = 0; Adam has `decay` = 1 and `penalty` = λ.
    Adam { decay: T, penalty: T, first: T, beta2: T, second: T, rate: T, correction: T, epsilon: T },
    /// `lookahead` is the momentum for Nesterov's update, else 0.
    Sgd { penalty: T, momentum: T, lookahead: T, rate: T },
}

impl<T: Real> UpdateRule<T> {
    /// Creates the rule of step `step`, counted from 1, with the learning rate `rate`.
    pub fn new(settings: &OptimizerSettings, step: i32, rate: f64) -> Self {
        let (beta1, beta2) = BETA;
        let adam = |decay: f64, penalty: f64| Factors::Adam {
            decay: T::of(decay),
            penalty: T::of(penalty),
            first: T::of(1.0 - beta1),
            beta2: T::of(beta2),
            second: T::of(1.0 - beta2),
            rate: T::of(rate / (1.0 - beta1.powi(step))),
            correction: T::of(1.0 / (1.0 - beta2.powi(step)).sqrt()),
            epsilon: T::of(EPSILON),
        };
        let decay = settings.weight_decay;
        Self(match settings.kind {
            OptimizerKind::Adamw => adam(1.0 - rate * decay, 0.0),
            OptimizerKind::Adam => adam(1.0, decay),
            OptimizerKind::Sgd => Factors::Sgd {
                penalty: T::of(decay),
                momentum: T::of(settings.momentum),
                lookahead: T::of(if settings.nesterov { settings.momentum } else { 0.0 }),
                rate: T::of(rate),
            },
        })
    }

    /// Updates a parameter by its gradient, and the moments `m` and `v` of Adam, or b as `m` of SGD, for which `v` is empty. The result
    /// does not depend on `threads`.
    pub fn apply(&self, values: &mut [T], gradient: &[T], m: &mut [T], v: &mut [T], threads: usize) {
        const CHUNK: usize = 1 << 15;
        if threads == 1 || values.len() <= 2 * CHUNK {
            return self.update(values, gradient, m, v);
        }
        let chunks =
            (values.par_chunks_mut(CHUNK), gradient.par_chunks(CHUNK), m.par_chunks_mut(CHUNK)).into_par_iter();
        match self.0 {
            Factors::Adam { .. } => chunks
                .zip(v.par_chunks_mut(CHUNK))
                .for_each(|((values, gradient, m), v)| self.update(values, gradient, m, v)),
            Factors::Sgd { .. } => chunks.for_each(|(values, gradient, m)| self.update(values, gradient, m, &mut [])),
        }
    }

    fn update(&self, values: &mut [T], gradient: &[T], m: &mut [T], v: &mut [T]) {
        let elements = values.iter_mut().zip(gradient).zip(m);
        match self.0 {
            Factors::Adam { decay, penalty, first, beta2, second, rate, correction, epsilon } => {
                for (((value, &g), m), v) in elements.zip(v) {
                    let g = g + penalty * *value;
                    *m += first * (g - *m);
                    *v = beta2 * *v + second * g * g;
                    *value = *value * decay - rate * *m / (v.sqrt() * correction + epsilon);
                }
            }
            Factors::Sgd { penalty, momentum, lookahead, rate } => {
                for ((value, &g), b) in elements {
                    let g = g + penalty * *value;
                    *b = momentum * *b + g;
                    *value -= rate * if lookahead > T::zero() { g + lookahead * *b } else { *b };
                }
            }
        }
    }
}
