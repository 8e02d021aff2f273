//! One direction of an LSTM: forward and backward passes over a packed batch.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, s};
use pulp::Arch;
use rand::RngCore;

use super::sequences::PackedBatch;
use crate::classify::layers::Parameter;
use crate::classify::numeric::Real;
use crate::matrix::{Accumulate, multiply};

/// One direction of a long short-term memory network (Hochreiter & Schmidhuber 1997), with the gate order (i, f, g, o) and the
/// two biases of `torch.nn.LSTM`:
///
/// ```text
/// i, f, g, o = σ, σ, tanh, σ (x·W_ihᵀ + b_ih + h·W_hhᵀ + b_hh)
/// c ← f·c + i·g,   h ← o·tanh(c)
/// ```
///
/// The products with the input are computed as one product over all steps; only the products with h run step by step.
#[derive(Debug, Clone)]
pub struct LstmDirection<T> {
    /// W_ih, (4H, D).
    pub weight_input: Array2<T>,
    /// W_hh, (4H, H).
    pub weight_hidden: Array2<T>,
    /// b_ih, (4H).
    pub bias_input: Array1<T>,
    /// b_hh, (4H).
    pub bias_hidden: Array1<T>,
    reverse: bool,
    weight_input_gradient: Array2<T>,
    weight_hidden_gradient: Array2<T>,
    /// Gradient of both biases, which is the same.
    bias_gradient: Array1<T>,
}

/// The intermediate values of a forward pass that the backward pass needs. Each buffer has the size of the largest batch so
/// far.
#[derive(Debug, Clone)]
pub struct LstmTrace<T> {
    /// Hidden state after each row, (R, H).
    pub output: Array2<T>,
    /// Activated gates i, f, g and o, replaced by the gradient of their pre-activations, (R, 4H).
    gates: Array2<T>,
    /// tanh(c) of each row, (R, H).
    active_cell: Array2<T>,
    /// Cell state before each row, (R, H).
    cell_before: Array2<T>,
    /// Hidden state before each row, (R, H).
    hidden_before: Array2<T>,
    /// h (or its gradient) of each clip at the current step, (clips, H).
    hidden: Array2<T>,
    /// c (or its gradient) of each clip at the current step, (clips, H).
    cell: Array2<T>,
    /// W_hhᵀ, (H, 4H), transposed once so that the small products of the steps do not repack it.
    weight_transposed: Array2<T>,
}

impl<T: Real> LstmTrace<T> {
    /// Creates empty buffers for `hidden` units.
    pub fn new(hidden: usize) -> Self {
        let empty = Array2::zeros((0, hidden));
        Self {
            output: empty.clone(),
            gates: Array2::zeros((0, 4 * hidden)),
            active_cell: empty.clone(),
            cell_before: empty.clone(),
            hidden_before: empty.clone(),
            hidden: empty.clone(),
            cell: empty,
            weight_transposed: Array2::zeros((hidden, 4 * hidden)),
        }
    }

    fn reserve(&mut self, rows: usize, clips: usize) {
        let grow = |buffer: &mut Array2<T>, rows: usize| {
            if buffer.nrows() < rows {
                *buffer = Array2::zeros((rows, buffer.ncols()));
            }
        };
        for buffer in
            [&mut self.output, &mut self.gates, &mut self.active_cell, &mut self.cell_before, &mut self.hidden_before]
        {
            grow(buffer, rows);
        }
        grow(&mut self.hidden, clips);
        grow(&mut self.cell, clips);
    }
}

impl<T: Real> LstmDirection<T> {
    /// Creates random weights with PyTorch's initialization: uniform in ±1/√H.
    pub fn new(inputs: usize, hidden: usize, reverse: bool, random: &mut impl RngCore) -> Self {
        let bound = 1.0 / (hidden as f64).sqrt();
        let mut draw = || T::of(((random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0) * bound);
        let weight_input = Array2::from_shape_simple_fn((4 * hidden, inputs), &mut draw);
        let weight_hidden = Array2::from_shape_simple_fn((4 * hidden, hidden), &mut draw);
        let bias_input = Array1::from_shape_simple_fn(4 * hidden, &mut draw);
        let bias_hidden = Array1::from_shape_simple_fn(4 * hidden, &mut draw);
        Self::from_parameters(weight_input, weight_hidden, bias_input, bias_hidden, reverse)
    }

    /// Creates a direction from its parameters: W_ih (4H, D), W_hh (4H, H), b_ih and b_hh (4H).
    ///
    /// # Panics
    /// Panics if the shapes do not match.
    pub fn from_parameters(
        weight_input: Array2<T>,
        weight_hidden: Array2<T>,
        bias_input: Array1<T>,
        bias_hidden: Array1<T>,
        reverse: bool,
    ) -> Self {
        let (gates, hidden) = weight_hidden.dim();
        let shapes_match = gates == 4 * hidden && weight_input.nrows() == gates;
        assert!(shapes_match && bias_input.len() == gates && bias_hidden.len() == gates, "the shapes match");
        Self {
            weight_input_gradient: Array2::zeros(weight_input.dim()),
            weight_hidden_gradient: Array2::zeros(weight_hidden.dim()),
            bias_gradient: Array1::zeros(gates),
            weight_input,
            weight_hidden,
            bias_input,
            bias_hidden,
            reverse,
        }
    }

    /// Returns the number of hidden units, H.
    pub fn hidden(&self) -> usize {
        self.weight_hidden.ncols()
    }

    /// Runs the forward pass over `batch` and writes the hidden states to `trace.output`. `input` (R, D) holds the rows of the
    /// batch, possibly normalized.
    pub fn forward(&self, input: ArrayView2<'_, T>, batch: &PackedBatch<T>, trace: &mut LstmTrace<T>, threads: usize) {
        let (rows, units) = (input.nrows(), self.hidden());
        trace.reserve(rows, batch.clips());
        let mut gates = trace.gates.slice_mut(s![..rows, ..]);
        gates.assign(&(&self.bias_input + &self.bias_hidden));
        multiply(input, self.weight_input.t(), gates.view_mut(), Accumulate::Yes, threads);
        trace.weight_transposed.assign(&self.weight_hidden.t());
        trace.hidden.fill(T::zero());
        trace.cell.fill(T::zero());
        let steps = batch.counts.len();
        for step in 0..steps {
            let step = if self.reverse { steps - 1 - step } else { step };
            let (range, clips) = (batch.step(step), batch.counts[step]);
            let hidden = trace.hidden.slice(s![..clips, ..]);
            trace.hidden_before.slice_mut(s![range.clone(), ..]).assign(&hidden);
            let mut gates = gates.slice_mut(s![range.clone(), ..]);
            multiply(hidden, trace.weight_transposed.view(), gates.view_mut(), Accumulate::Yes, 1);
            let elements = range.start * units..range.end * units;
            let forward = ForwardStep {
                gates: gates.as_slice_mut().expect("rows are contiguous"),
                active_cell: &mut slice(&mut trace.active_cell)[elements.clone()],
                cell_before: &mut slice(&mut trace.cell_before)[elements.clone()],
                output: &mut slice(&mut trace.output)[elements],
                hidden: &mut slice(&mut trace.hidden)[..clips * units],
                cell: &mut slice(&mut trace.cell)[..clips * units],
            };
            Arch::new().dispatch(|| forward.run(units));
        }
    }

    /// Computes the gradients of the parameters (stored here) and, if requested, of the input from the gradient of the output,
    /// (R, H). `trace` is that of the forward pass; its gates are overwritten.
    pub fn backward(
        &mut self,
        input: ArrayView2<'_, T>,
        batch: &PackedBatch<T>,
        trace: &mut LstmTrace<T>,
        output_gradient: ArrayView2<'_, T>,
        input_gradient: Option<ArrayViewMut2<'_, T>>,
        threads: usize,
    ) {
        let (rows, units) = (input.nrows(), self.hidden());
        trace.hidden.fill(T::zero());
        trace.cell.fill(T::zero());
        let output_gradient = output_gradient.as_slice().expect("gradients are contiguous");
        let steps = batch.counts.len();
        for step in 0..steps {
            let step = if self.reverse { step } else { steps - 1 - step };
            let (range, clips) = (batch.step(step), batch.counts[step]);
            let elements = range.start * units..range.end * units;
            let mut gates = trace.gates.slice_mut(s![range, ..]);
            let backward = BackwardStep {
                gates: gates.as_slice_mut().expect("rows are contiguous"),
                active_cell: &slice(&mut trace.active_cell)[elements.clone()],
                cell_before: &slice(&mut trace.cell_before)[elements.clone()],
                output: &output_gradient[elements],
                hidden: &slice(&mut trace.hidden)[..clips * units],
                cell: &mut slice(&mut trace.cell)[..clips * units],
            };
            Arch::new().dispatch(|| backward.run(units));
            let hidden = trace.hidden.slice_mut(s![..clips, ..]);
            multiply(gates.view(), self.weight_hidden.view(), hidden, Accumulate::No, 1);
        }
        let gates = trace.gates.slice(s![..rows, ..]);
        let hidden_before = trace.hidden_before.slice(s![..rows, ..]);
        multiply(gates.t(), hidden_before, self.weight_hidden_gradient.view_mut(), Accumulate::No, threads);
        multiply(gates.t(), input, self.weight_input_gradient.view_mut(), Accumulate::No, threads);
        self.bias_gradient.fill(T::zero());
        for row in gates.rows() {
            self.bias_gradient += &row;
        }
        if let Some(input_gradient) = input_gradient {
            multiply(gates, self.weight_input.view(), input_gradient, Accumulate::No, threads);
        }
    }

    /// Returns W_ih, W_hh, b_ih and b_hh.
    pub fn parameters(&mut self) -> [Parameter<'_, T>; 4] {
        fn parameter<'a, T>(values: &'a mut [T], gradient: Option<&'a [T]>) -> Parameter<'a, T> {
            Parameter { values, gradient: gradient.expect("gradients are contiguous") }
        }
        const CONTIGUOUS: &str = "parameters are contiguous";
        [
            parameter(self.weight_input.as_slice_mut().expect(CONTIGUOUS), self.weight_input_gradient.as_slice()),
            parameter(self.weight_hidden.as_slice_mut().expect(CONTIGUOUS), self.weight_hidden_gradient.as_slice()),
            parameter(self.bias_input.as_slice_mut().expect(CONTIGUOUS), self.bias_gradient.as_slice()),
            parameter(self.bias_hidden.as_slice_mut().expect(CONTIGUOUS), self.bias_gradient.as_slice()),
        ]
    }
}

fn slice<T>(buffer: &mut Array2<T>) -> &mut [T] {
    buffer.as_slice_mut().expect("buffers are contiguous")
}

/// One step of the forward pass. All buffers are (clips, H), except the gates, (clips, 4H).
struct ForwardStep<'a, T> {
    gates: &'a mut [T],
    active_cell: &'a mut [T],
    cell_before: &'a mut [T],
    output: &'a mut [T],
    hidden: &'a mut [T],
    cell: &'a mut [T],
}

impl<T: Real> ForwardStep<'_, T> {
    #[inline(always)]
    fn run(self, units: usize) {
        self.cell_before.copy_from_slice(self.cell);
        let clips = self.gates.chunks_exact_mut(4 * units).zip(self.cell.chunks_exact_mut(units));
        let outputs = self.active_cell.chunks_exact_mut(units).zip(self.output.chunks_exact_mut(units));
        for ((gates, cell), (active_cell, output)) in clips.zip(outputs) {
            // Several short loops: the compiler does not vectorize one loop over all slices.
            let (input_forget, rest) = gates.split_at_mut(2 * units);
            let (g, o) = rest.split_at_mut(units);
            input_forget.iter_mut().for_each(|gate| *gate = gate.sigmoid());
            g.iter_mut().for_each(|gate| *gate = Real::tanh(*gate));
            o.iter_mut().for_each(|gate| *gate = gate.sigmoid());
            let (i, f) = input_forget.split_at(units);
            for (((cell, &i), &f), &g) in cell.iter_mut().zip(i).zip(f).zip(&*g) {
                *cell = f * *cell + i * g;
            }
            for (active, &cell) in active_cell.iter_mut().zip(&*cell) {
                *active = Real::tanh(cell);
            }
            for ((output, &o), &active) in output.iter_mut().zip(&*o).zip(&*active_cell) {
                *output = o * active;
            }
        }
        self.hidden.copy_from_slice(self.output);
    }
}

/// One step of the backward pass: replaces the gates by the gradient of their pre-activations.
struct BackwardStep<'a, T> {
    gates: &'a mut [T],
    active_cell: &'a [T],
    cell_before: &'a [T],
    /// Gradient of the output.
    output: &'a [T],
    /// Gradient of h from the following step.
    hidden: &'a [T],
    /// Gradient of c from the following step; replaced by that for the preceding step.
    cell: &'a mut [T],
}

impl<T: Real> BackwardStep<'_, T> {
    #[inline(always)]
    fn run(self, units: usize) {
        let one = T::one();
        let clips = self.gates.chunks_exact_mut(4 * units).zip(self.cell.chunks_exact_mut(units));
        let states = self.active_cell.chunks_exact(units).zip(self.cell_before.chunks_exact(units));
        let outputs = self.output.chunks_exact(units).zip(self.hidden.chunks_exact(units));
        for (((gates, cell), (active_cell, cell_before)), (output, hidden)) in clips.zip(states).zip(outputs) {
            // Several short loops, as in the forward pass. `cell` is the gradient of c after the first loop.
            let (i, rest) = gates.split_at_mut(units);
            let (f, rest) = rest.split_at_mut(units);
            let (g, o) = rest.split_at_mut(units);
            let gradients = output.iter().zip(hidden).zip(active_cell);
            for ((cell, &o), ((&output, &hidden), &active)) in cell.iter_mut().zip(&*o).zip(gradients.clone()) {
                *cell += (output + hidden) * o * (one - active * active);
            }
            for (o, ((&output, &hidden), &active)) in o.iter_mut().zip(gradients) {
                *o = (output + hidden) * active * *o * (one - *o);
            }
            for ((i, g), &cell) in i.iter_mut().zip(g).zip(&*cell) {
                let (input, candidate) = (*i, *g);
                *i = cell * candidate * input * (one - input);
                *g = cell * input * (one - candidate * candidate);
            }
            for ((f, cell), &cell_before) in f.iter_mut().zip(cell).zip(cell_before) {
                let forget = *f;
                *f = *cell * cell_before * forget * (one - forget);
                *cell *= forget;
            }
        }
    }
}
