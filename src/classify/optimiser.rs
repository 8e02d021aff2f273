//! Optimisers: gradients → new parameters.

use rayon::prelude::*;

use super::layers::Parameter;
use super::numeric::Real;

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), as `torch.optim.AdamW`: for step t
///
/// ```text
/// θ ← θ·(1 − η·λ)
/// m ← β₁·m + (1 − β₁)·g,   v ← β₂·v + (1 − β₂)·g²
/// θ ← θ − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
/// ```
///
/// Decay applies to all parameters, biases and norms included, as PyTorch's default does.
#[derive(Debug, Clone)]
pub struct AdamW<T> {
    beta: (f64, f64),
    epsilon: f64,
    weight_decay: f64,
    step: i32,
    moments: Vec<(Vec<T>, Vec<T>)>,
}

impl<T: Real> AdamW<T> {
    /// β = (0.9, 0.999), ε = 1e-8, and the given λ.
    pub fn new(weight_decay: f64) -> Self {
        Self { beta: (0.9, 0.999), epsilon: 1e-8, weight_decay, step: 0, moments: Vec::new() }
    }

    /// One step of rate η over `parameters`, which must be the same, in the same order, at every step. The result does not
    /// depend on `threads`.
    pub fn step(&mut self, parameters: &mut [Parameter<'_, T>], rate: f64, threads: usize) {
        if self.moments.is_empty() {
            self.moments =
                parameters.iter().map(|p| (vec![T::zero(); p.values.len()], vec![T::zero(); p.values.len()])).collect();
        }
        assert_eq!(self.moments.len(), parameters.len(), "an optimiser steps the parameters it began with");
        self.step += 1;
        let (beta1, beta2) = self.beta;
        let constants = Constants {
            decay: T::of(1.0 - rate * self.weight_decay),
            first: T::of(1.0 - beta1),
            beta2: T::of(beta2),
            second: T::of(1.0 - beta2),
            rate: T::of(rate / (1.0 - beta1.powi(self.step))),
            root: T::of(1.0 / (1.0 - beta2.powi(self.step)).sqrt()),
            epsilon: T::of(self.epsilon),
        };
        const CHUNK: usize = 1 << 15;
        for (parameter, (m, v)) in parameters.iter_mut().zip(&mut self.moments) {
            if threads > 1 && parameter.values.len() > 2 * CHUNK {
                (parameter.values.par_chunks_mut(CHUNK), parameter.gradient.par_chunks(CHUNK))
                    .into_par_iter()
                    .zip((m.par_chunks_mut(CHUNK), v.par_chunks_mut(CHUNK)))
                    .for_each(|((values, gradient), (m, v))| constants.update(values, gradient, m, v));
            } else {
                constants.update(parameter.values, parameter.gradient, m, v);
            }
        }
    }
}

/// What one step multiplies by.
struct Constants<T> {
    decay: T,
    first: T,
    beta2: T,
    second: T,
    rate: T,
    root: T,
    epsilon: T,
}

impl<T: Real> Constants<T> {
    fn update(&self, values: &mut [T], gradient: &[T], m: &mut [T], v: &mut [T]) {
        for (((value, &g), m), v) in values.iter_mut().zip(gradient).zip(m).zip(v) {
            *m += self.first * (g - *m);
            *v = self.beta2 * *v + self.second * g * g;
            *value = *value * self.decay - self.rate * *m / (v.sqrt() * self.root + self.epsilon);
        }
    }
}
