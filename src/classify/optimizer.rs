//! Optimizers: gradients → new parameters.

use rayon::prelude::*;

use super::layers::Parameter;
use super::numeric::Real;
use crate::recipe::{self, OptimizerKind};

/// β₁, β₂ and ε of Adam.
const BETA: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

/// One of three rules, each as PyTorch's class of the same name has it. With g the gradient, η the rate, λ the weight decay
/// and t the step, counted from 1:
///
/// ```text
/// AdamW (Loshchilov & Hutter 2019)      Adam (Kingma & Ba 2015)       SGD
/// θ ← θ·(1 − η·λ)                       g ← g + λ·θ                   g ← g + λ·θ
/// m ← β₁·m + (1 − β₁)·g                 m, v, θ as AdamW              b ← μ·b + g   (b ← g at the first step)
/// v ← β₂·v + (1 − β₂)·g²                                              θ ← θ − η·b   (Nesterov: θ − η·(g + μ·b))
/// θ ← θ − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
/// ```
///
/// Decay applies to all parameters, biases and norms included, as PyTorch's default does.
#[derive(Debug, Clone)]
pub struct Optimizer<T> {
    settings: recipe::Optimizer,
    step: i32,
    /// m and v, or b and nothing, of each parameter.
    moments: Vec<(Vec<T>, Vec<T>)>,
}

impl<T: Real> Optimizer<T> {
    /// The optimizer of a recipe; its learning rate is for the schedule.
    pub fn new(settings: &recipe::Optimizer) -> Self {
        Self { settings: settings.clone(), step: 0, moments: Vec::new() }
    }

    /// One step of rate η over `parameters`, which must be the same, in the same order, at every step. The result does not
    /// depend on `threads`.
    pub fn step(&mut self, parameters: &mut [Parameter<'_, T>], rate: f64, threads: usize) {
        if self.moments.is_empty() {
            let zeros = |p: &Parameter<'_, T>| vec![T::zero(); p.values.len()];
            self.moments = parameters.iter().map(|p| (zeros(p), zeros(p))).collect();
        }
        assert_eq!(self.moments.len(), parameters.len(), "an optimizer steps the parameters it began with");
        self.step += 1;
        let rule = Rule::new(&self.settings, self.step, rate);
        const CHUNK: usize = 1 << 15;
        for (parameter, (m, v)) in parameters.iter_mut().zip(&mut self.moments) {
            if threads > 1 && parameter.values.len() > 2 * CHUNK {
                (parameter.values.par_chunks_mut(CHUNK), parameter.gradient.par_chunks(CHUNK))
                    .into_par_iter()
                    .zip((m.par_chunks_mut(CHUNK), v.par_chunks_mut(CHUNK)))
                    .for_each(|((values, gradient), (m, v))| rule.update(values, gradient, m, v));
            } else {
                rule.update(parameter.values, parameter.gradient, m, v);
            }
        }
    }
}

/// One step's rule, with what it multiplies by.
enum Rule<T> {
    /// `decay` is 1 − η·λ for AdamW, `penalty` λ for Adam; the other is neutral.
    Adam { decay: T, penalty: T, first: T, beta2: T, second: T, rate: T, root: T, epsilon: T },
    /// `ahead` is the momentum for Nesterov's step, else 0.
    Sgd { penalty: T, momentum: T, ahead: T, rate: T },
}

impl<T: Real> Rule<T> {
    fn new(settings: &recipe::Optimizer, step: i32, rate: f64) -> Self {
        let (beta1, beta2) = BETA;
        let adam = |decay: f64, penalty: f64| Rule::Adam {
            decay: T::of(decay),
            penalty: T::of(penalty),
            first: T::of(1.0 - beta1),
            beta2: T::of(beta2),
            second: T::of(1.0 - beta2),
            rate: T::of(rate / (1.0 - beta1.powi(step))),
            root: T::of(1.0 / (1.0 - beta2.powi(step)).sqrt()),
            epsilon: T::of(EPSILON),
        };
        let decay = settings.weight_decay;
        match settings.kind {
            OptimizerKind::Adamw => adam(1.0 - rate * decay, 0.0),
            OptimizerKind::Adam => adam(1.0, decay),
            OptimizerKind::Sgd => Rule::Sgd {
                penalty: T::of(decay),
                momentum: T::of(settings.momentum),
                ahead: T::of(if settings.nesterov { settings.momentum } else { 0.0 }),
                rate: T::of(rate),
            },
        }
    }

    fn update(&self, values: &mut [T], gradient: &[T], m: &mut [T], v: &mut [T]) {
        let each = values.iter_mut().zip(gradient).zip(m);
        match *self {
            Rule::Adam { decay, penalty, first, beta2, second, rate, root, epsilon } => {
                for (((value, &g), m), v) in each.zip(v) {
                    let g = g + penalty * *value;
                    *m += first * (g - *m);
                    *v = beta2 * *v + second * g * g;
                    *value = *value * decay - rate * *m / (v.sqrt() * root + epsilon);
                }
            }
            Rule::Sgd { penalty, momentum, ahead, rate } => {
                for ((value, &g), b) in each {
                    let g = g + penalty * *value;
                    *b = momentum * *b + g;
                    *value -= rate * if ahead > T::zero() { g + ahead * *b } else { *b };
                }
            }
        }
    }
}
