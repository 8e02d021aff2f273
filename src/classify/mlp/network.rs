//! (Linear → BatchNorm1d → GELU → Dropout) × hidden layers → Linear: forward and backward passes.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rand::RngCore;

use crate::classify::layers::{BatchNorm, Dropout, Gelu, Linear, Parameter};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;

/// A multi-layer perceptron with the buffers of a training step. Layers are numbered as in `torch.nn.Sequential`: hidden layer i, from 0,
/// has 4i (linear), 4i + 1 (batch normalization), 4i + 2 (GELU) and 4i + 3 (dropout); the last linear layer follows.
#[derive(Debug, Clone)]
pub struct MlpNetwork<T> {
    /// Hidden layers, at least one.
    pub hidden: Vec<HiddenLayer<T>>,
    /// The last linear layer.
    pub output: Linear<T>,
    threads: usize,
    /// Logits, replaced by their gradient, (batch, classes).
    logits: Array2<T>,
}

/// A hidden layer: Linear → BatchNorm1d → GELU → Dropout.
#[derive(Debug, Clone)]
pub struct HiddenLayer<T> {
    /// The linear layer.
    pub linear: Linear<T>,
    /// Batch normalization.
    pub norm: BatchNorm<T>,
    buffers: Buffers<T>,
}

/// Activations of one batch. Each buffer has the size of the largest batch so far; a smaller batch uses its first rows.
#[derive(Debug, Clone)]
struct Buffers<T> {
    /// x̂ of the batch normalization, (batch, hidden).
    normalized: Array2<T>,
    /// After dropout, (batch, hidden).
    output: Array2<T>,
    /// Gradient of the output; updated in place by the backward passes of dropout, GELU and batch normalization,
    /// (batch, hidden).
    gradient: Array2<T>,
    /// Derivative of GELU times the dropout mask, (batch, hidden).
    derivative: Array2<T>,
}

impl<T: Real> HiddenLayer<T> {
    /// Creates a layer from its linear layer and its batch normalization.
    ///
    /// # Panics
    /// Panics if the shapes do not match.
    pub fn new(linear: Linear<T>, norm: BatchNorm<T>) -> Self {
        assert_eq!(linear.bias.len(), norm.weight.len(), "the shapes of the layers match");
        let empty = Array2::zeros((0, linear.bias.len()));
        let buffers =
            Buffers { normalized: empty.clone(), output: empty.clone(), gradient: empty.clone(), derivative: empty };
        Self { linear, norm, buffers }
    }

    /// Returns the number of units.
    pub fn units(&self) -> usize {
        self.linear.bias.len()
    }

    /// Computes the output of a batch, (batch, units), in training mode.
    fn forward_training(&mut self, input: ArrayView2<'_, T>, dropout: &mut Dropout, threads: usize) {
        let count = input.nrows();
        let Buffers { normalized, output, derivative, .. } = &mut self.buffers;
        let mut normalized = normalized.slice_mut(s![..count, ..]);
        let mut output = output.slice_mut(s![..count, ..]);
        let mut derivative = derivative.slice_mut(s![..count, ..]);
        self.linear.forward(input, normalized.view_mut(), threads);
        self.norm.forward_training(normalized.view_mut(), output.view_mut());
        let values = output.as_slice_mut().expect("buffers are contiguous");
        let derivatives = derivative.as_slice_mut().expect("buffers are contiguous");
        Gelu.forward_training(values, derivatives);
        dropout.forward_training(values, derivatives);
    }

    /// Computes the gradients of the parameters and, if requested, of the input from the gradient of the output, which is in its
    /// buffer.
    fn backward(&mut self, input: ArrayView2<'_, T>, input_gradient: Option<ArrayViewMut2<'_, T>>, threads: usize) {
        let count = input.nrows();
        let Buffers { normalized, gradient, derivative, .. } = &mut self.buffers;
        let mut gradient = gradient.slice_mut(s![..count, ..]);
        gradient *= &derivative.slice(s![..count, ..]);
        self.norm.backward(normalized.slice(s![..count, ..]), gradient.view_mut());
        self.linear.backward(input, gradient.view(), input_gradient, threads);
    }

    /// Computes the output of a batch, (batch, units), in evaluation mode.
    fn forward(&self, input: ArrayView2<'_, T>, threads: usize) -> Array2<T> {
        let mut output = Array2::zeros((input.nrows(), self.units()));
        self.linear.forward(input, output.view_mut(), threads);
        self.norm.forward_running(output.view_mut());
        Gelu.forward(output.as_slice_mut().expect("buffers are contiguous"));
        output
    }

    fn parameters(&mut self) -> impl Iterator<Item = Parameter<'_, T>> {
        self.linear.parameters().into_iter().chain(self.norm.parameters())
    }
}

impl<T: Real> MlpNetwork<T> {
    /// Creates a network with random weights and the given numbers of hidden units that uses up to `threads` threads.
    pub fn new(inputs: usize, hidden: &[usize], outputs: usize, random: &mut impl RngCore, threads: usize) -> Self {
        let mut features = inputs;
        let mut layers = Vec::new();
        for &units in hidden {
            layers.push(HiddenLayer::new(Linear::new(features, units, random), BatchNorm::new(units)));
            features = units;
        }
        Self::from_layers(layers, Linear::new(features, outputs, random), threads)
    }

    /// Creates a network from its layers.
    ///
    /// # Panics
    /// Panics if there is no hidden layer, or if the shapes of the layers do not match.
    pub fn from_layers(hidden: Vec<HiddenLayer<T>>, output: Linear<T>, threads: usize) -> Self {
        let inputs =
            hidden.iter().skip(1).map(|layer| &layer.linear).chain([&output]).map(|linear| linear.weight.ncols());
        assert!(!hidden.is_empty(), "there is a hidden layer");
        assert!(hidden.iter().map(HiddenLayer::units).eq(inputs), "the shapes of the layers match");
        let logits = Array2::zeros((0, output.bias.len()));
        Self { hidden, output, threads, logits }
    }

    /// Returns the number of features.
    pub fn inputs(&self) -> usize {
        self.hidden[0].linear.weight.ncols()
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
        self.reserve(count);
        let rows = s![..count, ..];
        let mut logits = self.logits.slice_mut(rows);
        for i in 0..self.hidden.len() {
            let (before, layers) = self.hidden.split_at_mut(i);
            let input = before.last().map_or(input.view(), |layer| layer.buffers.output.slice(rows));
            layers[0].forward_training(input, dropout, self.threads);
        }
        let last = &mut self.hidden.last_mut().expect("there is a hidden layer").buffers;
        let (hidden, gradient) = (last.output.slice(rows), last.gradient.slice_mut(rows));
        self.output.forward(hidden, logits.view_mut(), self.threads);

        outputs.assign(&logits);
        let value = loss.gradient(logits.view_mut(), targets);
        self.output.backward(hidden, logits.view(), Some(gradient), self.threads);
        for i in (0..self.hidden.len()).rev() {
            let (before, layers) = self.hidden.split_at_mut(i);
            match before.last_mut() {
                None => layers[0].backward(input, None, self.threads),
                Some(HiddenLayer { buffers, .. }) => {
                    let (input, gradient) = (buffers.output.slice(rows), buffers.gradient.slice_mut(rows));
                    layers[0].backward(input, Some(gradient), self.threads);
                }
            }
        }
        value
    }

    /// Computes the logits (N, classes) of clips (N, inputs) in evaluation mode, in blocks of clips.
    pub fn logits(&self, input: ArrayView2<'_, T>) -> Array2<T> {
        const BLOCK: usize = 256;
        let mut logits = Array2::zeros((input.nrows(), self.output.bias.len()));
        for (input, output) in input.axis_chunks_iter(Axis(0), BLOCK).zip(logits.axis_chunks_iter_mut(Axis(0), BLOCK)) {
            self.output.forward(self.last_hidden(input).view(), output, self.threads);
        }
        logits
    }

    /// Computes the output of the last hidden layer, (N, units), for clips (N, inputs) in evaluation mode.
    pub fn last_hidden(&self, input: ArrayView2<'_, T>) -> Array2<T> {
        let (first, rest) = self.hidden.split_first().expect("there is a hidden layer");
        let hidden = first.forward(input, self.threads);
        rest.iter().fold(hidden, |hidden, layer| layer.forward(hidden.view(), self.threads))
    }

    /// Returns the parameters of each layer, in order: of the linear layer and the batch normalization of each hidden layer, and of the
    /// last linear layer.
    pub fn parameters(&mut self) -> Vec<Parameter<'_, T>> {
        self.hidden.iter_mut().flat_map(HiddenLayer::parameters).chain(self.output.parameters()).collect()
    }

    /// Returns everything that predictions depend on: the parameters and the running averages.
    pub fn state(&mut self) -> Vec<&mut [T]> {
        let mut state = Vec::new();
        for HiddenLayer { linear, norm, .. } in &mut self.hidden {
            state.extend(linear.parameters().map(|parameter| parameter.values));
            state.extend(
                [&mut norm.weight, &mut norm.bias, &mut norm.running_mean, &mut norm.running_variance]
                    .map(|vector| vector.as_slice_mut().expect("vectors are contiguous")),
            );
        }
        state.extend(self.output.parameters().map(|parameter| parameter.values));
        state
    }

    fn reserve(&mut self, count: usize) {
        if self.logits.nrows() >= count {
            return;
        }
        self.logits = Array2::zeros((count, self.output.bias.len()));
        for HiddenLayer { buffers, .. } in &mut self.hidden {
            let Buffers { normalized, output, gradient, derivative } = buffers;
            for buffer in [normalized, output, gradient, derivative] {
                *buffer = Array2::zeros((count, buffer.ncols()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::tests::check_gradients;
    use ndarray::Array2;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    fn check(hidden: &[usize], tolerance: f64) {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let (n, inputs, classes) = (7, 5, 4);
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
        check_gradients(&network, MlpNetwork::parameters, train_step, 1e-5, tolerance);
    }

    #[test]
    fn gradients_match_finite_differences() {
        check(&[6], 1e-8);
        // Batch normalization of 7 clips with 3 units has large third derivatives, with which finite differences are less exact.
        check(&[6, 3, 5], 1e-6);
    }
}
