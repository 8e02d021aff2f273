//! (LayerNorm →) bidirectional LSTM → pooling → dropout → linear: forward, backward and parameters.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rand::RngCore;

use super::lstm::{Direction, Trace};
use super::sequences::Packed;
use crate::classify::layers::{Dropout, LayerNorm, Linear, Parameter};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;

/// How the states of all steps become one vector a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The maximum over the clip's own steps, of 2H; of equal values the first.
    MaxOverTime,
    /// Of the last step, the maxima of four neighboring values each: 2H/4 (`torch.nn.MaxPool1d(4)`).
    LastStep,
}

impl Pool {
    /// Values a clip, from H hidden units of each direction.
    pub fn values(self, hidden: usize) -> usize {
        match self {
            Pool::MaxOverTime => 2 * hidden,
            Pool::LastStep => 2 * hidden / 4,
        }
    }
}

/// The network, with the buffers of a training step.
#[derive(Debug, Clone)]
pub struct Network<T> {
    /// Over the features of every row.
    pub norm: Option<LayerNorm<T>>,
    /// The two directions: forward, then reverse.
    pub lstm: [Direction<T>; 2],
    /// How steps become a vector.
    pub pool: Pool,
    /// From the pooled values to the logits.
    pub linear: Linear<T>,
    threads: usize,
    traces: [Trace<T>; 2],
    /// Gradients by the outputs of each direction, (R, H).
    gradients: [Array2<T>; 2],
}

impl<T: Real> Network<T> {
    /// A network of freshly drawn weights that uses up to `threads` threads.
    pub fn new(
        (inputs, hidden, outputs): (usize, usize, usize),
        norm: bool,
        pool: Pool,
        random: &mut impl RngCore,
        threads: usize,
    ) -> Self {
        let lstm = [false, true].map(|reverse| Direction::new(inputs, hidden, reverse, random));
        let linear = Linear::new(pool.values(hidden), outputs, random);
        Self::from_layers(norm.then(|| LayerNorm::new(inputs)), lstm, pool, linear, threads)
    }

    /// A network of given layers.
    pub fn from_layers(
        norm: Option<LayerNorm<T>>,
        lstm: [Direction<T>; 2],
        pool: Pool,
        linear: Linear<T>,
        threads: usize,
    ) -> Self {
        let hidden = lstm[0].hidden();
        assert_eq!(linear.weight.ncols(), pool.values(hidden), "the layers fit each other");
        let traces = [Trace::new(hidden), Trace::new(hidden)];
        let gradients = [Array2::zeros((0, hidden)), Array2::zeros((0, hidden))];
        Self { norm, lstm, pool, linear, threads, traces, gradients }
    }

    /// Forward and backward over one batch with multi-hot targets (N, classes) in the batch's own order: leaves every
    /// parameter's gradient in its layer, writes the logits (N, classes), in that order too, and gives the loss.
    pub fn learn(
        &mut self,
        batch: &Packed<T>,
        targets: ArrayView2<'_, f32>,
        loss: &Loss,
        dropout: &mut Dropout,
        mut outputs: ArrayViewMut2<'_, T>,
    ) -> f64 {
        let threads = self.threads;
        let (rows, hidden) = (batch.rows.nrows(), self.lstm[0].hidden());
        let normed = self.norm.as_ref().map(|norm| normed(norm, batch));
        let input = normed.as_ref().map_or(batch.rows.view(), |rows| rows.view());
        run(&self.lstm, input, batch, &mut self.traces, threads);
        let (mut pooled, chosen) = pool(self.pool, batch, &self.traces, hidden);
        let mut mask = Array2::ones(pooled.dim());
        dropout.forward_training(contiguous(&mut pooled), contiguous(&mut mask));
        self.linear.forward(pooled.view(), outputs.view_mut(), threads);

        let mut logits = outputs.to_owned();
        let value = loss.gradient(logits.view_mut(), targets);
        let mut gradient = Array2::zeros(pooled.dim());
        self.linear.backward(pooled.view(), logits.view(), Some(gradient.view_mut()), threads);
        gradient *= &mask;
        for by_output in &mut self.gradients {
            if by_output.nrows() < rows {
                *by_output = Array2::zeros((rows, hidden));
            }
            by_output.slice_mut(s![..rows, ..]).fill(T::zero());
        }
        for ((_, &(row, unit)), &by_value) in chosen.indexed_iter().zip(&gradient) {
            self.gradients[unit / hidden][(row, unit % hidden)] = by_value;
        }

        let mut by_input = [self.norm.is_some(); 2].map(|wanted| wanted.then(|| Array2::zeros(input.dim())));
        let ([first, second], [by_first, by_second]) = (&mut self.lstm, &mut by_input);
        let ([trace, other_trace], [by_output, by_other]) = (&mut self.traces, &self.gradients);
        let (each, whole) = (threads.div_ceil(2), s![..rows, ..]);
        both(
            threads,
            || {
                let into = by_first.as_mut().map(|gradient| gradient.view_mut());
                first.backward(input, batch, trace, by_output.slice(whole), into, each);
            },
            || {
                let into = by_second.as_mut().map(|gradient| gradient.view_mut());
                second.backward(input, batch, other_trace, by_other.slice(whole), into, each);
            },
        );
        if let (Some(norm), [Some(first), Some(second)]) = (&mut self.norm, by_input) {
            norm.backward(batch.rows.view(), (first + second).view());
        }
        value
    }

    /// Logits (N, classes) of a batch, in its own order, without dropout.
    pub fn logits(&self, batch: &Packed<T>) -> Array2<T> {
        let hidden = self.lstm[0].hidden();
        let normed = self.norm.as_ref().map(|norm| normed(norm, batch));
        let input = normed.as_ref().map_or(batch.rows.view(), |rows| rows.view());
        let mut traces = [Trace::new(hidden), Trace::new(hidden)];
        run(&self.lstm, input, batch, &mut traces, self.threads);
        let (pooled, _) = pool(self.pool, batch, &traces, hidden);
        let mut logits = Array2::zeros((batch.clips(), self.linear.bias.len()));
        self.linear.forward(pooled.view(), logits.view_mut(), self.threads);
        logits
    }

    /// The norm's where there is one, each direction's, the linear layer's.
    pub fn parameters(&mut self) -> Vec<Parameter<'_, T>> {
        let norm = self.norm.iter_mut().flat_map(|norm| norm.parameters());
        let lstm = self.lstm.iter_mut().flat_map(|direction| direction.parameters());
        norm.chain(lstm).chain(self.linear.parameters()).collect()
    }
}

fn contiguous<T>(of: &mut Array2<T>) -> &mut [T] {
    of.as_slice_mut().expect("buffers are contiguous")
}

fn normed<T: Real>(norm: &LayerNorm<T>, batch: &Packed<T>) -> Array2<T> {
    let mut rows = Array2::zeros(batch.rows.dim());
    norm.forward(batch.rows.view(), rows.view_mut());
    rows
}

/// Runs both, side by side where there are threads.
fn both(threads: usize, first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    if threads > 1 {
        rayon::join(first, second);
    } else {
        first();
        second();
    }
}

fn run<T: Real>(
    [forward, reverse]: &[Direction<T>; 2],
    input: ArrayView2<'_, T>,
    batch: &Packed<T>,
    [trace, other]: &mut [Trace<T>; 2],
    threads: usize,
) {
    let each = threads.div_ceil(2);
    both(threads, || forward.forward(input, batch, trace, each), || reverse.forward(input, batch, other, each));
}

/// The pooled values, (clips, P), and for each the row and the unit (of both directions, 2H) that it comes from.
fn pool<T: Real>(
    pool: Pool,
    batch: &Packed<T>,
    traces: &[Trace<T>; 2],
    hidden: usize,
) -> (Array2<T>, Array2<(usize, usize)>) {
    let (clips, values) = (batch.clips(), pool.values(hidden));
    let mut pooled = Array2::from_elem((clips, values), T::neg_infinity());
    let mut chosen = Array2::from_elem((clips, values), (0, 0));
    match pool {
        Pool::MaxOverTime => {
            for (step, &clips) in batch.counts.iter().enumerate() {
                for clip in 0..clips {
                    let row = batch.offsets[step] + clip;
                    for (side, trace) in traces.iter().enumerate() {
                        let units = side * hidden..(side + 1) * hidden;
                        let mut pooled = pooled.slice_mut(s![clip, units.clone()]);
                        let mut chosen = chosen.slice_mut(s![clip, units.clone()]);
                        let each = pooled.iter_mut().zip(&mut chosen).zip(trace.output.row(row)).zip(units);
                        for (((most, from), &value), unit) in each {
                            if value > *most {
                                (*most, *from) = (value, (row, unit));
                            }
                        }
                    }
                }
            }
        }
        Pool::LastStep => {
            for clip in 0..clips {
                let last = batch.counts.partition_point(|&count| count > clip) - 1;
                let row = batch.offsets[last] + clip;
                for unit in 0..4 * values {
                    let value = traces[unit / hidden].output[(row, unit % hidden)];
                    if value > pooled[(clip, unit / 4)] {
                        pooled[(clip, unit / 4)] = value;
                        chosen[(clip, unit / 4)] = (row, unit);
                    }
                }
            }
        }
    }
    (pooled, chosen)
}

/// `rows` (N, …), each of which belongs to the clip that `order` names, in the order of the clips.
pub fn in_order_of_clips(rows: ArrayView2<'_, f32>, order: &[usize], mut out: ArrayViewMut2<'_, f32>) {
    for (row, &clip) in rows.axis_iter(Axis(0)).zip(order) {
        out.row_mut(clip).assign(&row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::bilstm::sequences::Window;
    use crate::dataset::Dataset;
    use crate::recipe::SequenceSample;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    fn gradients_agree(norm: bool, pool: Pool, pad: bool) {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(4);
        let lengths = [3usize, 6, 1, 4];
        let (inputs, hidden, classes) = (5, 4, 3);
        let mut network = Network::<f64>::new((inputs, hidden, classes), norm, pool, &mut random, 1);
        let mut noise = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        for parameter in network.parameters() {
            parameter.values.iter_mut().for_each(|v| *v += 0.4 * noise());
        }
        let offsets: Vec<usize> =
            std::iter::once(0).chain(lengths.iter().scan(0, |sum, l| (*sum += l, Some(*sum)).1)).collect();
        let data = Dataset {
            ids: (0..4).map(|i| i.to_string()).collect(),
            groups: vec![None; 4],
            rows: Array2::from_shape_simple_fn((14, inputs), || 2.0 * noise() as f32),
            offsets,
            targets: Array2::from_shape_fn((4, classes), |(i, c)| f32::from((i + c) % 2 == 0)),
            classes: vec![String::new(); classes],
        };
        let window = Window { length: 6, sample: SequenceSample::Truncate, pad };
        let batch = Packed::<f64>::new(&data, &[0, 1, 2, 3], window, None);
        let targets = data.targets.select(Axis(0), &batch.order);
        let dropout = Dropout::new(0.2, Xoshiro256PlusPlus::seed_from_u64(5));
        let loss = Loss::Asymmetric { gamma_positive: 1.0, gamma_negative: 2.0, margin: 0.05 };
        let learn = |network: &mut Network<f64>| {
            let mut logits = Array2::zeros((4, classes));
            network.learn(&batch, targets.view(), &loss, &mut dropout.clone(), logits.view_mut())
        };
        learn(&mut network);
        let step = 1e-6;
        for which in 0..network.parameters().len() {
            for i in 0..network.parameters()[which].values.len() {
                let shifted = |by: f64| {
                    let mut other = network.clone();
                    other.parameters()[which].values[i] += by;
                    learn(&mut other)
                };
                let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
                let exact = network.parameters()[which].gradient[i];
                assert!((numeric - exact).abs() < 1e-8, "parameter {which}, element {i}: {exact} against {numeric}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        gradients_agree(false, Pool::MaxOverTime, false);
        gradients_agree(true, Pool::LastStep, true);
    }
}
