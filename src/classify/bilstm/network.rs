//! (LayerNorm →) bidirectional LSTM → pooling → dropout → linear: forward and backward passes.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rand::RngCore;

use super::lstm::{LstmDirection, LstmTrace};
use super::sequences::PackedBatch;
use crate::classify::layers::{Dropout, LayerNorm, Linear, Parameter};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;

/// Reduces the hidden states of all steps of a clip to one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequencePooling {
    /// Maximum over the steps of the clip, 2H values (ties: the first step).
    MaxOverTime,
    /// Maximum of groups of four neighboring values of the last step, 2H/4 values (`torch.nn.MaxPool1d(4)`).
    LastStep,
}

impl SequencePooling {
    /// Returns the number of values per clip for H hidden units per direction.
    pub fn output_len(self, hidden: usize) -> usize {
        match self {
            SequencePooling::MaxOverTime => 2 * hidden,
            SequencePooling::LastStep => 2 * hidden / 4,
        }
    }
}

/// A bidirectional LSTM with the buffers of a training step.
#[derive(Debug, Clone)]
pub struct BilstmNetwork<T> {
    /// Normalizes the features of every row.
    pub norm: Option<LayerNorm<T>>,
    /// The forward and the reverse direction.
    pub lstm: [LstmDirection<T>; 2],
    /// Reduces the steps to one vector.
    pub pooling: SequencePooling,
    /// Maps the pooled values to logits.
    pub linear: Linear<T>,
    threads: usize,
    traces: [LstmTrace<T>; 2],
    /// Gradients of the outputs of each direction, (R, H).
    output_gradients: [Array2<T>; 2],
}

impl<T: Real> BilstmNetwork<T> {
    /// Creates a network with random weights that uses up to `threads` threads.
    pub fn new(
        (inputs, hidden, outputs): (usize, usize, usize),
        norm: bool,
        pooling: SequencePooling,
        random: &mut impl RngCore,
        threads: usize,
    ) -> Self {
        let lstm = [false, true].map(|reverse| LstmDirection::new(inputs, hidden, reverse, random));
        let linear = Linear::new(pooling.output_len(hidden), outputs, random);
        Self::from_layers(norm.then(|| LayerNorm::new(inputs)), lstm, pooling, linear, threads)
    }

    /// Creates a network from its layers.
    ///
    /// # Panics
    /// Panics if the shapes of the layers do not match.
    pub fn from_layers(
        norm: Option<LayerNorm<T>>,
        lstm: [LstmDirection<T>; 2],
        pooling: SequencePooling,
        linear: Linear<T>,
        threads: usize,
    ) -> Self {
        let hidden = lstm[0].hidden();
        assert_eq!(linear.weight.ncols(), pooling.output_len(hidden), "the shapes of the layers match");
        let traces = [LstmTrace::new(hidden), LstmTrace::new(hidden)];
        let output_gradients = [Array2::zeros((0, hidden)), Array2::zeros((0, hidden))];
        Self { norm, lstm, pooling, linear, threads, traces, output_gradients }
    }

    /// Runs the forward and backward passes over one batch with multi-hot targets (N, classes) in the order of the batch:
    /// stores the gradient of every parameter in its layer, writes the logits (N, classes) in the order of the batch and
    /// returns the loss.
    pub fn train_step(
        &mut self,
        batch: &PackedBatch<T>,
        targets: ArrayView2<'_, f32>,
        loss: &Loss,
        dropout: &mut Dropout,
        mut outputs: ArrayViewMut2<'_, T>,
    ) -> f64 {
        let threads = self.threads;
        let (rows, hidden) = (batch.rows.nrows(), self.lstm[0].hidden());
        let normalized = self.norm.as_ref().map(|norm| normalize_rows(norm, batch));
        let input = normalized.as_ref().map_or(batch.rows.view(), |rows| rows.view());
        run_lstm(&self.lstm, input, batch, &mut self.traces, threads);
        let (mut pooled, sources) = pool(self.pooling, batch, &self.traces, hidden);
        let mut mask = Array2::ones(pooled.dim());
        dropout.forward_training(contiguous(&mut pooled), contiguous(&mut mask));
        self.linear.forward(pooled.view(), outputs.view_mut(), threads);

        let mut logits = outputs.to_owned();
        let value = loss.gradient(logits.view_mut(), targets);
        let mut gradient = Array2::zeros(pooled.dim());
        self.linear.backward(pooled.view(), logits.view(), Some(gradient.view_mut()), threads);
        gradient *= &mask;
        for gradient in &mut self.output_gradients {
            if gradient.nrows() < rows {
                *gradient = Array2::zeros((rows, hidden));
            }
            gradient.slice_mut(s![..rows, ..]).fill(T::zero());
        }
        for (&(row, unit), &value) in sources.iter().zip(&gradient) {
            self.output_gradients[unit / hidden][(row, unit % hidden)] = value;
        }

        let mut input_gradients = [self.norm.is_some(); 2].map(|needed| needed.then(|| Array2::zeros(input.dim())));
        let ([forward, reverse], [forward_input, reverse_input]) = (&mut self.lstm, &mut input_gradients);
        let ([forward_trace, reverse_trace], [forward_output, reverse_output]) =
            (&mut self.traces, &self.output_gradients);
        let (threads_each, batch_rows) = (threads.div_ceil(2), s![..rows, ..]);
        join(
            threads,
            || {
                let input_gradient = forward_input.as_mut().map(|gradient| gradient.view_mut());
                let output_gradient = forward_output.slice(batch_rows);
                forward.backward(input, batch, forward_trace, output_gradient, input_gradient, threads_each);
            },
            || {
                let input_gradient = reverse_input.as_mut().map(|gradient| gradient.view_mut());
                let output_gradient = reverse_output.slice(batch_rows);
                reverse.backward(input, batch, reverse_trace, output_gradient, input_gradient, threads_each);
            },
        );
        if let (Some(norm), [Some(forward), Some(reverse)]) = (&mut self.norm, input_gradients) {
            norm.backward(batch.rows.view(), (forward + reverse).view(), None);
        }
        value
    }

    /// Computes the logits (N, classes) of a batch in evaluation mode, in the order of the batch.
    pub fn logits(&self, batch: &PackedBatch<T>) -> Array2<T> {
        let hidden = self.lstm[0].hidden();
        let normalized = self.norm.as_ref().map(|norm| normalize_rows(norm, batch));
        let input = normalized.as_ref().map_or(batch.rows.view(), |rows| rows.view());
        let mut traces = [LstmTrace::new(hidden), LstmTrace::new(hidden)];
        run_lstm(&self.lstm, input, batch, &mut traces, self.threads);
        let (pooled, _) = pool(self.pooling, batch, &traces, hidden);
        let mut logits = Array2::zeros((batch.clips(), self.linear.bias.len()));
        self.linear.forward(pooled.view(), logits.view_mut(), self.threads);
        logits
    }

    /// Returns the parameters of the LayerNorm (if any), of each direction and of the linear layer.
    pub fn parameters(&mut self) -> Vec<Parameter<'_, T>> {
        let norm = self.norm.iter_mut().flat_map(|norm| norm.parameters());
        let lstm = self.lstm.iter_mut().flat_map(|direction| direction.parameters());
        norm.chain(lstm).chain(self.linear.parameters()).collect()
    }
}

fn contiguous<T>(buffer: &mut Array2<T>) -> &mut [T] {
    buffer.as_slice_mut().expect("buffers are contiguous")
}

fn normalize_rows<T: Real>(norm: &LayerNorm<T>, batch: &PackedBatch<T>) -> Array2<T> {
    let mut rows = Array2::zeros(batch.rows.dim());
    norm.forward(batch.rows.view(), rows.view_mut());
    rows
}

/// Runs both closures, in parallel if there is more than one thread.
fn join(threads: usize, first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    if threads > 1 {
        rayon::join(first, second);
    } else {
        first();
        second();
    }
}

/// Runs the forward pass of both directions.
fn run_lstm<T: Real>(
    [forward, reverse]: &[LstmDirection<T>; 2],
    input: ArrayView2<'_, T>,
    batch: &PackedBatch<T>,
    [forward_trace, reverse_trace]: &mut [LstmTrace<T>; 2],
    threads: usize,
) {
    let threads_each = threads.div_ceil(2);
    join(
        threads,
        || forward.forward(input, batch, forward_trace, threads_each),
        || reverse.forward(input, batch, reverse_trace, threads_each),
    );
}

/// Computes the pooled values (clips, P), and the row and unit (of 2H) that each value comes from.
fn pool<T: Real>(
    pooling: SequencePooling,
    batch: &PackedBatch<T>,
    traces: &[LstmTrace<T>; 2],
    hidden: usize,
) -> (Array2<T>, Array2<(usize, usize)>) {
    let (clips, values) = (batch.clips(), pooling.output_len(hidden));
    let mut pooled = Array2::from_elem((clips, values), T::neg_infinity());
    let mut sources = Array2::from_elem((clips, values), (0, 0));
    match pooling {
        SequencePooling::MaxOverTime => {
            for (step, &clips) in batch.counts.iter().enumerate() {
                for clip in 0..clips {
                    let row = batch.offsets[step] + clip;
                    for (direction, trace) in traces.iter().enumerate() {
                        let units = direction * hidden..(direction + 1) * hidden;
                        let mut pooled = pooled.slice_mut(s![clip, units.clone()]);
                        let mut sources = sources.slice_mut(s![clip, units.clone()]);
                        let elements = pooled.iter_mut().zip(&mut sources).zip(trace.output.row(row)).zip(units);
                        for (((maximum, source), &value), unit) in elements {
                            if value > *maximum {
                                (*maximum, *source) = (value, (row, unit));
                            }
                        }
                    }
                }
            }
        }
        SequencePooling::LastStep => {
            for clip in 0..clips {
                let last = batch.counts.partition_point(|&count| count > clip) - 1;
                let row = batch.offsets[last] + clip;
                for unit in 0..4 * values {
                    let value = traces[unit / hidden].output[(row, unit % hidden)];
                    if value > pooled[(clip, unit / 4)] {
                        pooled[(clip, unit / 4)] = value;
                        sources[(clip, unit / 4)] = (row, unit);
                    }
                }
            }
        }
    }
    (pooled, sources)
}

/// Copies `rows` (N, …) to `out` in the order of the clips; row `i` belongs to clip `order[i]`.
pub fn restore_clip_order(rows: ArrayView2<'_, f32>, order: &[usize], mut out: ArrayViewMut2<'_, f32>) {
    for (row, &clip) in rows.axis_iter(Axis(0)).zip(order) {
        out.row_mut(clip).assign(&row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::SequenceSample;
    use crate::classify::bilstm::sequences::SequenceWindow;
    use crate::classify::tests::check_gradients;
    use crate::dataset::Dataset;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    fn check(norm: bool, pooling: SequencePooling, pad: bool) {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(4);
        let lengths = [3usize, 6, 1, 4];
        let (inputs, hidden, classes) = (5, 4, 3);
        let mut network = BilstmNetwork::<f64>::new((inputs, hidden, classes), norm, pooling, &mut random, 1);
        let mut noise = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        for parameter in network.parameters() {
            parameter.values.iter_mut().for_each(|v| *v += 0.4 * noise());
        }
        let offsets: Vec<usize> =
            std::iter::once(0).chain(lengths.iter().scan(0, |sum, l| (*sum += l, Some(*sum)).1)).collect();
        let data = Dataset {
            ids: (0..4).map(|i| i.to_string()).collect(),
            groups: vec![None; 4],
            rows: Array2::from_shape_simple_fn((14, inputs), || 2.0 * noise() as f32).into(),
            offsets,
            targets: Array2::from_shape_fn((4, classes), |(i, c)| f32::from((i + c) % 2 == 0)),
            classes: vec![String::new(); classes],
        };
        let window = SequenceWindow { length: 6, sample: SequenceSample::Truncate, pad };
        let batch = PackedBatch::<f64>::new(&data, &[0, 1, 2, 3], window, None).unwrap();
        let targets = data.targets.select(Axis(0), &batch.order);
        let dropout = Dropout::new(0.2, Xoshiro256PlusPlus::seed_from_u64(5));
        let loss = Loss::Asymmetric { gamma_positive: 1.0, gamma_negative: 2.0, margin: 0.05 };
        let train_step = |network: &mut BilstmNetwork<f64>| {
            let mut logits = Array2::zeros((4, classes));
            network.train_step(&batch, targets.view(), &loss, &mut dropout.clone(), logits.view_mut())
        };
        check_gradients(&network, BilstmNetwork::parameters, train_step, 1e-6, 1e-8);
    }

    #[test]
    fn gradients_match_finite_differences() {
        check(false, SequencePooling::MaxOverTime, false);
        check(true, SequencePooling::LastStep, true);
    }
}
