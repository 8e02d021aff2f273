//! Linear → BatchNorm1d → GELU → Dropout → Linear: forward, backward and parameters.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rand::RngCore;

use crate::classify::layers::{BatchNorm, Dropout, Gelu, Linear, Parameter};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;

/// The network, with the buffers of a training step. As a `torch.nn.Sequential` its layers are 0 (linear), 1 (batch
/// norm), 2 (GELU), 3 (dropout) and 4 (linear).
#[derive(Debug, Clone)]
pub struct Network<T> {
    /// Layer 0.
    pub first: Linear<T>,
    /// Layer 1.
    pub norm: BatchNorm<T>,
    /// Layer 4.
    pub second: Linear<T>,
    threads: usize,
    buffers: Buffers<T>,
}

/// Activations of one batch; each has room for the largest batch seen, and serves its first rows.
#[derive(Debug, Clone)]
struct Buffers<T> {
    /// x̂ of the batch norm, (batch, hidden).
    normalized: Array2<T>,
    /// After dropout, (batch, hidden).
    hidden: Array2<T>,
    /// Gradient by the hidden activations, on its way back through dropout, GELU and batch norm, (batch, hidden).
    gradient: Array2<T>,
    /// Derivative of GELU times the dropout mask, (batch, hidden).
    derivative: Array2<T>,
    /// Logits, then their gradient, (batch, classes).
    logits: Array2<T>,
}

impl<T: Real> Network<T> {
    /// A network of freshly drawn weights that uses up to `threads` threads.
    pub fn new(inputs: usize, hidden: usize, outputs: usize, random: &mut impl RngCore, threads: usize) -> Self {
        let first = Linear::new(inputs, hidden, random);
        let second = Linear::new(hidden, outputs, random);
        Self::from_layers(first, BatchNorm::new(hidden), second, threads)
    }

    /// A network of given layers.
    pub fn from_layers(first: Linear<T>, norm: BatchNorm<T>, second: Linear<T>, threads: usize) -> Self {
        let (hidden, outputs) = (first.bias.len(), second.bias.len());
        assert!(norm.weight.len() == hidden && second.weight.ncols() == hidden, "the layers fit each other");
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

    /// Forward and backward over one batch (N ≥ 2, inputs) with multi-hot targets (N, classes): leaves every parameter's
    /// gradient in its layer, writes the logits (N, classes), and gives the loss.
    pub fn learn(
        &mut self,
        input: ArrayView2<'_, T>,
        targets: ArrayView2<'_, f32>,
        loss: &Loss,
        dropout: &mut Dropout,
        mut outputs: ArrayViewMut2<'_, T>,
    ) -> f64 {
        let count = input.nrows();
        self.buffers.make_room(count);
        let Buffers { normalized, hidden, gradient, derivative, logits } = &mut self.buffers;
        let mut normalized = normalized.slice_mut(s![..count, ..]);
        let mut hidden = hidden.slice_mut(s![..count, ..]);
        let mut gradient = gradient.slice_mut(s![..count, ..]);
        let mut derivative = derivative.slice_mut(s![..count, ..]);
        let mut logits = logits.slice_mut(s![..count, ..]);

        self.first.forward(input, normalized.view_mut(), self.threads);
        self.norm.forward_training(normalized.view_mut(), hidden.view_mut());
        let values = hidden.as_slice_mut().expect("buffers are contiguous");
        let slopes = derivative.as_slice_mut().expect("buffers are contiguous");
        Gelu.forward_training(values, slopes);
        dropout.forward_training(values, slopes);
        self.second.forward(hidden.view(), logits.view_mut(), self.threads);

        outputs.assign(&logits);
        let value = loss.gradient(logits.view_mut(), targets);
        self.second.backward(hidden.view(), logits.view(), Some(gradient.view_mut()), self.threads);
        gradient *= &derivative;
        self.norm.backward(normalized.view(), gradient.view_mut());
        self.first.backward(input, gradient.view(), None, self.threads);
        value
    }

    /// Logits (N, classes) of clips (N, inputs) with running averages and without dropout, block by block.
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

    /// `0.weight`, `0.bias`, `1.weight`, `1.bias`, `4.weight`, `4.bias`.
    pub fn parameters(&mut self) -> [Parameter<'_, T>; 6] {
        let [a, b] = self.first.parameters();
        let [c, d] = self.norm.parameters();
        let [e, f] = self.second.parameters();
        [a, b, c, d, e, f]
    }

    /// Everything a prediction needs: the parameters and the running averages.
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
    fn make_room(&mut self, count: usize) {
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
    fn gradients_agree_with_finite_differences() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let (n, inputs, hidden, classes) = (7, 5, 6, 4);
        let mut network = Network::<f64>::new(inputs, hidden, classes, &mut random, 1);
        let mut noise = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        let x = Array2::from_shape_simple_fn((n, inputs), &mut noise);
        for parameter in network.parameters() {
            parameter.values.iter_mut().for_each(|v| *v += 0.3 * noise());
        }
        let targets = Array2::from_shape_fn((n, classes), |(i, c)| f32::from(i % classes == c));
        // The same mask every time: the generator is cloned before use.
        let dropout = Dropout::new(0.4, Xoshiro256PlusPlus::seed_from_u64(5));
        let loss = Loss::CrossEntropy { weights: None };
        let learn = |network: &mut Network<f64>| {
            let mut logits = Array2::zeros((n, classes));
            network.learn(x.view(), targets.view(), &loss, &mut dropout.clone(), logits.view_mut())
        };
        let loss_of = |network: &Network<f64>| learn(&mut network.clone());
        learn(&mut network);
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
                assert!((numeric - exact).abs() < 1e-8, "parameter {which}, element {i}: {exact} against {numeric}");
            }
        }
    }
}
