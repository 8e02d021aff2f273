//! Attention of the rows of a clip to each other.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use pulp::Arch;
use rayon::prelude::*;

use super::attention::{Attention, softmax, softmax_backward};
use crate::classify::numeric::Real;
use crate::matrix::{Accumulate, multiply};

/// The intermediate values of [`Attention::attend`] that its backward pass needs.
#[derive(Debug, Clone)]
pub struct SelfTrace<T> {
    /// q/√(E/H), (R, E).
    queries: Array2<T>,
    /// k, (R, E).
    keys: Array2<T>,
    /// v, (R, E).
    values: Array2<T>,
    /// Attention of each row of a clip to each other, (H, n, n) for each clip with n rows.
    weights: Vec<T>,
    /// Outputs of the heads, (R, E).
    heads: Array2<T>,
}

/// The values of one clip, for a thread of its own.
struct Clip<'a, T> {
    rows: std::ops::Range<usize>,
    weights: &'a mut [T],
    /// Outputs of the forward or the backward pass, (n, E) each.
    outputs: Vec<ArrayViewMut2<'a, T>>,
}

impl<T: Real> Attention<T> {
    /// Computes `output` (R, E) by attending with each row of a clip to all rows of the clip. Clip c has the rows from `offsets[c]` to
    /// `offsets[c + 1]` of `rows` (R, D), where D equals E.
    pub fn attend(
        &self,
        rows: ArrayView2<'_, T>,
        offsets: &[usize],
        output: ArrayViewMut2<'_, T>,
        threads: usize,
    ) -> SelfTrace<T> {
        let empty = || Array2::zeros((rows.nrows(), self.width()));
        let total = offsets.windows(2).map(|range| self.heads() * (range[1] - range[0]).pow(2)).sum();
        let mut trace = SelfTrace {
            queries: empty(),
            keys: empty(),
            values: empty(),
            weights: vec![T::zero(); total],
            heads: empty(),
        };
        let SelfTrace { queries, keys, values, weights, heads } = &mut trace;
        self.query.forward(rows, queries.view_mut(), threads);
        *queries *= self.scale();
        self.key.forward(rows, keys.view_mut(), threads);
        self.value.forward(rows, values.view_mut(), threads);
        each_clip(offsets, self.heads(), weights, [heads], threads, |mut clip| {
            let count = clip.rows.len();
            let weights = clip.weights.chunks_exact_mut(count * count);
            for ((_, units), weights) in self.units().zip(weights) {
                let part = s![clip.rows.clone(), units.clone()];
                let mut scores = square(weights, count);
                multiply(queries.slice(part), keys.slice(part).t(), scores.view_mut(), Accumulate::No, 1);
                let scores = scores.into_slice().expect("weights are contiguous");
                Arch::new().dispatch(|| scores.chunks_exact_mut(count).for_each(softmax));
                let output = clip.outputs[0].slice_mut(s![.., units]);
                multiply(square(scores, count).view(), values.slice(part), output, Accumulate::No, 1);
            }
        });
        self.output.forward(trace.heads.view(), output, threads);
        trace
    }

    /// Computes the gradients of the parameters (stored here) and of the rows, (R, D), from the gradient of the output of
    /// [`attend`](Self::attend). The weights of `trace` are overwritten.
    pub fn attend_backward(
        &mut self,
        rows: ArrayView2<'_, T>,
        offsets: &[usize],
        trace: &mut SelfTrace<T>,
        output_gradient: ArrayView2<'_, T>,
        mut input_gradient: ArrayViewMut2<'_, T>,
        threads: usize,
    ) {
        let empty = || Array2::zeros(trace.heads.dim());
        let [mut heads, mut query_gradient, mut key_gradient, mut value_gradient] =
            [empty(), empty(), empty(), empty()];
        self.output.backward(trace.heads.view(), output_gradient, Some(heads.view_mut()), threads);
        let SelfTrace { queries, keys, values, weights, .. } = trace;
        let outputs = [&mut query_gradient, &mut key_gradient, &mut value_gradient];
        each_clip(offsets, self.heads(), weights, outputs, threads, |mut clip| {
            let count = clip.rows.len();
            let mut scratch = vec![T::zero(); count * count];
            let weights = clip.weights.chunks_exact_mut(count * count);
            for ((_, units), weights) in self.units().zip(weights) {
                let (part, columns) = (s![clip.rows.clone(), units.clone()], s![.., units]);
                let gradient = heads.slice(part);
                multiply(gradient, values.slice(part).t(), square(&mut scratch, count), Accumulate::No, 1);
                let value = clip.outputs[2].slice_mut(columns);
                multiply(square(weights, count).t(), gradient, value, Accumulate::No, 1);
                Arch::new().dispatch(|| {
                    for (weights, gradient) in weights.chunks_exact(count).zip(scratch.chunks_exact_mut(count)) {
                        softmax_backward(weights, gradient);
                    }
                });
                let scores = square(&mut scratch, count);
                let query = clip.outputs[0].slice_mut(columns);
                multiply(scores.view(), keys.slice(part), query, Accumulate::No, 1);
                multiply(scores.t(), queries.slice(part), clip.outputs[1].slice_mut(columns), Accumulate::No, 1);
            }
        });
        query_gradient *= self.scale();
        let mut part = Array2::zeros(rows.dim());
        self.query.backward(rows, query_gradient.view(), Some(input_gradient.view_mut()), threads);
        self.key.backward(rows, key_gradient.view(), Some(part.view_mut()), threads);
        input_gradient += &part;
        self.value.backward(rows, value_gradient.view(), Some(part.view_mut()), threads);
        input_gradient += &part;
    }
}

fn square<T>(values: &mut [T], count: usize) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((count, count), values).expect("there is one value per pair of rows")
}

/// Calls `work` for each clip with its part of `weights`, (H, n, n) per clip, and of each of `outputs`, (R, E); in parallel if there is
/// more than one thread.
fn each_clip<'a, T: Real>(
    offsets: &[usize],
    heads: usize,
    mut weights: &'a mut [T],
    outputs: impl IntoIterator<Item = &'a mut Array2<T>>,
    threads: usize,
    work: impl Fn(Clip<'_, T>) + Sync + Send,
) {
    let mut outputs: Vec<_> = outputs.into_iter().map(|output| output.view_mut()).collect();
    let mut clips = Vec::new();
    for range in offsets.windows(2) {
        let count = range[1] - range[0];
        let (part, rest) = weights.split_at_mut(heads * count * count);
        weights = rest;
        let parts;
        (parts, outputs) = outputs.into_iter().map(|output| output.split_at(Axis(0), count)).unzip();
        clips.push(Clip { rows: range[0]..range[1], weights: part, outputs: parts });
    }
    if threads > 1 {
        clips.into_par_iter().for_each(work);
    } else {
        clips.into_iter().for_each(work);
    }
}
