//! Linear → BatchNorm1d → GELU → Dropout → Linear: forward and backward passes.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rand::RngCore;

use crate::classify::layers::{BatchNorm, Dropout, Gelu, Linear, Parameter};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;

/// A multi-layer perceptron with the buffers of a training step. Layers are numbered as in `torch.nn.Sequential`: 0 (linear),
/// 1 (batch normalization), 2 (GELU), 3 (dropout) and 4 (linear).
#[derive(Debug, Clone)]
pub struct MlpNetwork<T> {
    /// Layer 0.
    pub first: Linear<T>,
    /// Layer 1.
    pub norm: BatchNorm<T>,
    /// Layer 4.
    pub second: Linear<T>,
    threads: usize,
    buffers: Buffers<T>,
}

/// Activations of one batch. Each buffer has the size of the largest batch so far; a smaller batch uses its first rows.
#[derive(Debug, Clone)]
struct Buffers<T> {
    /// x̂ of the batch normalization, (batch, hidden).
    normalized: Array2<T>,
    /// After dropout, (batch, hidden).
    hidden: Array2<T>,
    /// Gradient of the hidden activations; updated in place by the backward passes of dropout, GELU and batch normalization,
    /// (batch, hidden).
    gradient: Array2<T>,
    /// Derivative of GELU times the dropout mask, (batch, hidden).
    derivative: Array2<T>,
    /// Logits, replaced by their gradient, (batch, classes).
    logits: Array2<T>,
}

impl<T: Real> MlpNetwork<T> {
    /// Creates a network with random weights that uses up to `threads` threads.
    pub fn new(inputs: usize, hidden: usize, outputs: usize, random: &mut impl RngCore, threads: usize) -> Self {
        let first = Linear::new(inputs, hidden, random);
        let second = Linear::new(hidden, outputs, random);
        Self::from_layers(first, BatchNorm::new(hidden), second, threads)
    }

    /// Creates a network from its layers.
    ///
    /// # Panics
    /// Panics if the shapes of the layers do not match.
    pub fn from_layers(first: Linear<T>, norm: BatchNorm<T>, second: Linear<T>, threads: usize) -> Self {
        let (hidden, outputs) = (first.bias.len(), second.bias.len());
        assert!(norm.weight.len() == hidden && second.weight.ncols() == hidden, "the shapes of the layers match");
        let empty = Array2::zeros((0, hidden));
        let buffers = Buffers {
            normalized: empty.clone(),
            hidden: empty.clone(),
            gradient: empty.clone(),
            derivative: empty,
            logits: Array2::zeros((0, outputs)),
        };
        Self { first, norm, second, threads, buffers }
    }

    /// Runs the forward and backward passes over one batch (N ≥ 2, inputs) with multi-hot targets (N, classes): stores the
    /// gradient of every parameter in its layer, writes the logits (N, classes) and returns the loss.
    pub fn train_step(
        &mut self,
        input: ArrayView2<'_, T>,
        targets: ArrayView2<'_, f32>,
        loss: &Loss,
        dropout: &mut Dropout,
        mut outputs: ArrayViewMut2<'_, T>,
    ) -> f64 {
        let count = input.nrows();
        self.buffers.reserve(count);
        let Buffers { normalized, hidden, gradient, derivative, logits } = &mut self.buffers;
        let mut normalized = normalized.slice_mut(s![..count, ..]);
        let mut hidden = hidden.slice_mut(s![..count, ..]);
        let mut gradient = gradient.slice_mut(s![..count, ..]);
        let mut derivative = derivative.slice_mut(s![..count, ..]);
        let mut logits = logits.slice_mut(s![..count, ..]);

        self.first.forward(input, normalized.view_mut(), self.threads);
        self.norm.forward_training(normalized.view_mut(), hidden.view_mut());
        let values = hidden.as_slice_mut().expect("buffers are contiguous");
        let derivatives = derivative.as_slice_mut().expect("buffers are contiguous");
        Gelu.forward_training(values, derivatives);
        dropout.forward_training(values, derivatives);
        self.second.forward(hidden.view(), logits.view_mut(), self.threads);

        outputs.assign(&logits);
        let value = loss.gradient(logits.view_mut(), targets);
        self.second.backward(hidden.view(), logits.view(), Some(gradient.view_mut()), self.threads);
        gradient *= &derivative;
        self.norm.backward(normalized.view(), gradient.view_mut());
        self.first.backward(input, gradient.view(), None, self.threads);
        value
    }

    /// Computes the logits (N, classes) of clips (N, inputs) in evaluation mode, in blocks of clips.
    pub fn logits(&self, input: ArrayView2<'_, T>) -> Array2<T> {
        const BLOCK: usize = 256;
        let mut logits = Array2::zeros((input.nrows(), self.second.bias.len()));
        let mut hidden = Array2::zeros((BLOCK.min(input.nrows()), self.first.bias.len()));
        for (input, output) in input.axis_chunks_iter(Axis(0), BLOCK).zip(logits.axis_chunks_iter_mut(Axis(0), BLOCK)) {
            self.forward(input, hidden.slice_mut(s![..input.nrows(), ..]), output);
        }
        logits
    }

    fn forward(&self, input: ArrayView2<'_, T>, mut hidden: ArrayViewMut2<'_, T>, output: ArrayViewMut2<'_, T>) {
        self.first.forward(input, hidden.view_mut(), self.threads);
        self.norm.forward_running(hidden.view_mut());
        Gelu.forward(hidden.as_slice_mut().expect("buffers are contiguous"));
        self.second.forward(hidden.view(), output, self.threads);
    }

    /// Returns `0.weight`, `0.bias`, `1.weight`, `1.bias`, `4.weight` and `4.bias`.
    pub fn parameters(&mut self) -> [Parameter<'_, T>; 6] {
        let [a, b] = self.first.parameters();
        let [c, d] = self.norm.parameters();
        let [e, f] = self.second.parameters();
        [a, b, c, d, e, f]
    }

    /// Returns everything that predictions depend on: the parameters and the running averages.
    pub fn state(&mut self) -> [&mut [T]; 8] {
        let Self { first, norm, second, .. } = self;
        let [weight, bias, mean, variance] =
            [&mut norm.weight, &mut norm.bias, &mut norm.running_mean, &mut norm.running_variance]
                .map(|vector| vector.as_slice_mut().expect("vectors are contiguous"));
        let [a, b] = first.parameters().map(|parameter| parameter.values);
        let [c, d] = second.parameters().map(|parameter| parameter.values);
        [a, b, weight, bias, mean, variance, c, d]
    }
}

impl<T: Real> Buffers<T> {
    fn reserve(&mut self, count: usize) {
        if self.hidden.nrows() < count {
            for buffer in
                [&mut self.normalized, &mut self.hidden, &mut self.gradient, &mut self.derivative, &mut self.logits]
            {
                *buffer = Array2::zeros((count, buffer.ncols()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    #[test]
    fn gradients_match_finite_differences() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let (n, inputs, hidden, classes) = (7, 5, 6, 4);
        let mut network = MlpNetwork::<f64>::new(inputs, hidden, classes, &mut random, 1);
        let mut noise = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        let x = Array2::from_shape_simple_fn((n, inputs), &mut noise);
        for parameter in network.parameters() {
            parameter.values.iter_mut().for_each(|v| *v += 0.3 * noise());
        }
        let targets = Array2::from_shape_fn((n, classes), |(i, c)| f32::from(i % classes == c));
        // The generator is cloned before use, so that every pass has the same mask.
        let dropout = Dropout::new(0.4, Xoshiro256PlusPlus::seed_from_u64(5));
        let loss = Loss::CrossEntropy { weights: None };
        let train_step = |network: &mut MlpNetwork<f64>| {
            let mut logits = Array2::zeros((n, classes));
            network.train_step(x.view(), targets.view(), &loss, &mut dropout.clone(), logits.view_mut())
        };
        let loss_of = |network: &MlpNetwork<f64>| train_step(&mut network.clone());
        train_step(&mut network);
        let step = 1e-5;
        for which in 0..6 {
            for i in 0..network.parameters()[which].values.len() {
                let shifted = |by: f64| {
                    let mut other = network.clone();
                    other.parameters()[which].values[i] += by;
                    loss_of(&other)
                };
                let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
                let exact = network.parameters()[which].gradient[i];
                assert!((numeric - exact).abs() < 1e-8, "parameter {which}, element {i}: {exact} vs. {numeric}");
            }
        }
    }
}
