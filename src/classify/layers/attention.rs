//! Multi-head attention.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, aview1, s};
use pulp::Arch;
use rand::RngCore;

use super::{Linear, Parameter};
use crate::classify::clip_rows::ClipRows;
use crate::classify::numeric::Real;
use crate::matrix::{Accumulate, multiply};

/// Multi-head attention (Vaswani et al. 2017), as in `torch.nn.MultiheadAttention` with `embed_dim` E and `kdim` and `vdim` D.
/// Each of H heads has E/H of the E units of the projections:
///
/// ```text
/// head_h = softmax(q_h·k_hᵀ/√(E/H))·v_h,   q = x_q·W_qᵀ + b_q,   k = x·W_kᵀ + b_k,   v = x·W_vᵀ + b_v
/// y = (head_1, …, head_H)·W_oᵀ + b_o
/// ```
///
/// Rows of different clips are not compared, whatever the number of rows of each clip.
#[derive(Debug, Clone)]
pub struct Attention<T> {
    /// W_q, (E, E), and b_q.
    pub query: Linear<T>,
    /// W_k, (E, D), and b_k.
    pub key: Linear<T>,
    /// W_v, (E, D), and b_v.
    pub value: Linear<T>,
    /// W_o, (E, E), and b_o.
    pub output: Linear<T>,
    heads: usize,
}

/// The intermediate values of [`Attention::pool`] that its backward pass needs.
#[derive(Debug, Clone)]
pub struct PoolTrace<T> {
    /// q, (1, E).
    query: Array2<T>,
    /// Attention of each head to each row, (H, n) for each clip with n rows.
    weights: Vec<T>,
    /// Mean of the rows of each clip for each head, weighted by the attention, (clips, H·D).
    means: Array2<T>,
    /// Outputs of the heads, (clips, E).
    heads: Array2<T>,
}

impl<T: Real> Attention<T> {
    /// Creates random weights for `inputs` features (D), `width` units (E) and `heads` heads: uniform in ±√(6/(inputs + outputs))
    /// for the projections (Glorot & Bengio 2010) and in ±1/√E for W_o, with biases of 0.
    ///
    /// # Panics
    /// Panics if `heads` does not divide `width`.
    pub fn new(inputs: usize, width: usize, heads: usize, random: &mut impl RngCore) -> Self {
        let mut layer = |inputs: usize, bound: f64| {
            let draw = || T::of(((random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0) * bound);
            Linear::from_parameters(Array2::from_shape_simple_fn((width, inputs), draw), Array1::zeros(width))
        };
        let glorot = |inputs: usize| (6.0 / (inputs + width) as f64).sqrt();
        let query = layer(width, glorot(width));
        let key = layer(inputs, glorot(inputs));
        let value = layer(inputs, glorot(inputs));
        let output = layer(width, 1.0 / (width as f64).sqrt());
        Self::from_layers(query, key, value, output, heads)
    }

    /// Creates the layer from its projections.
    ///
    /// # Panics
    /// Panics if the shapes do not match, or if `heads` does not divide E.
    pub fn from_layers(query: Linear<T>, key: Linear<T>, value: Linear<T>, output: Linear<T>, heads: usize) -> Self {
        let width = query.bias.len();
        assert!(heads > 0 && width.is_multiple_of(heads), "the heads divide the width");
        assert!(query.weight.ncols() == width && output.weight.dim() == (width, width), "the shapes match");
        assert!(key.weight.dim() == value.weight.dim() && key.bias.len() == width, "the shapes match");
        Self { query, key, value, output, heads }
    }

    /// Returns the number of features of a row, D.
    pub fn inputs(&self) -> usize {
        self.key.weight.ncols()
    }

    /// Returns the number of units, E.
    pub fn width(&self) -> usize {
        self.query.bias.len()
    }

    /// Returns the number of heads, H.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Returns the units of each head.
    pub(super) fn units(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + use<T> {
        let size = self.width() / self.heads;
        (0..self.heads).map(move |head| (head, head * size..(head + 1) * size))
    }

    /// Returns 1/√(E/H).
    pub(super) fn scale(&self) -> T {
        T::of((self.heads as f64 / self.width() as f64).sqrt())
    }

    /// Returns the vector of each head whose product with a row is its score, W_k,hᵀ·q_h/√(E/H), (H, D), for a projected query q,
    /// (1, E).
    fn scorers(&self, query: ArrayView2<'_, T>) -> Array2<T> {
        let mut scorers = Array2::zeros((self.heads, self.inputs()));
        for (head, units) in self.units() {
            let (query, key) = (query.slice(s![.., units.clone()]), self.key.weight.slice(s![units, ..]));
            multiply(query, key, scorers.slice_mut(s![head..=head, ..]), Accumulate::No, 1);
        }
        scorers *= self.scale();
        scorers
    }

    /// Returns the [`scorers`](Self::scorers) of a query x_q, (1, E).
    pub fn scorers_of(&self, query: ArrayView2<'_, T>) -> Array2<T> {
        let mut projected = Array2::zeros(query.dim());
        self.query.forward(query, projected.view_mut(), 1);
        self.scorers(projected.view())
    }

    /// Computes `output` (clips, E) by attending with one query x_q (1, E) to the rows of each clip. `output` may have more rows, which have
    /// no meaning: products of matrices with the same number of rows round each row in the same way.
    ///
    /// The keys and values of the rows are not computed, which would take 2·R·D·E multiplications:
    /// q_h·(W_k,h·x + b_k,h) = (W_k,hᵀ·q_h)·x + constant, and the constant has no effect on the softmax, whose weights add up to 1,
    /// so that Σ a·(W_v,h·x + b_v,h) = W_v,h·(Σ a·x) + b_v,h. What remains takes 2·R·D·H.
    pub fn pool(
        &self,
        query: ArrayView2<'_, T>,
        batch: &ClipRows<T>,
        output: ArrayViewMut2<'_, T>,
        threads: usize,
    ) -> PoolTrace<T> {
        let ClipRows { rows, offsets } = batch;
        let (inputs, clips) = (self.inputs(), output.nrows());
        let mut trace = PoolTrace {
            query: Array2::zeros((1, self.width())),
            weights: vec![T::zero(); self.heads * rows.nrows()],
            means: Array2::zeros((clips, self.heads * inputs)),
            heads: Array2::zeros((clips, self.width())),
        };
        self.query.forward(query, trace.query.view_mut(), threads);
        let scorers = self.scorers(trace.query.view());
        for (clip, range) in offsets.windows(2).enumerate() {
            // One product per clip, with strides that depend on the clip only, so that its rounding does not depend on other clips.
            let rows = rows.slice(s![range[0]..range[1], ..]);
            let mut weights = by_head(&mut trace.weights[self.heads * range[0]..self.heads * range[1]], self.heads);
            multiply(scorers.view(), rows.t(), weights.view_mut(), Accumulate::No, threads);
            let values = weights.as_slice_mut().expect("weights are contiguous");
            Arch::new().dispatch(|| values.chunks_exact_mut(rows.nrows()).for_each(softmax));
            let means = trace.means.row_mut(clip).into_slice().expect("means are contiguous");
            multiply(weights.view(), rows, by_head(means, self.heads), Accumulate::No, threads);
        }
        trace.heads.assign(&self.value.bias);
        for (head, units) in self.units() {
            let means = trace.means.slice(s![.., head * inputs..(head + 1) * inputs]);
            let value = self.value.weight.slice(s![units.clone(), ..]);
            multiply(means, value.t(), trace.heads.slice_mut(s![.., units]), Accumulate::Yes, threads);
        }
        self.output.forward(trace.heads.view(), output, threads);
        trace
    }

    /// Computes the gradients of the parameters (stored here) and of the query, (1, E), from the gradient of the output of
    /// [`pool`](Self::pool). The gradient of b_k is 0.
    pub fn pool_backward(
        &mut self,
        query: ArrayView2<'_, T>,
        batch: &ClipRows<T>,
        trace: &PoolTrace<T>,
        output_gradient: ArrayView2<'_, T>,
        query_gradient: ArrayViewMut2<'_, T>,
        threads: usize,
    ) {
        let ClipRows { rows, offsets } = batch;
        let inputs = self.inputs();
        let mut heads = Array2::zeros(trace.heads.dim());
        self.output.backward(trace.heads.view(), output_gradient, Some(heads.view_mut()), threads);
        self.value.bias_gradient.assign(&heads.sum_axis(Axis(0)));
        let mut means = Array2::zeros(trace.means.dim());
        for (head, units) in self.units() {
            let (part, features) = (heads.slice(s![.., units.clone()]), s![.., head * inputs..(head + 1) * inputs]);
            let gradient = self.value.weight_gradient.slice_mut(s![units.clone(), ..]);
            multiply(part.t(), trace.means.slice(features), gradient, Accumulate::No, threads);
            let value = self.value.weight.slice(s![units, ..]);
            multiply(part, value, means.slice_mut(features), Accumulate::No, threads);
        }
        let mut scorers = Array2::zeros((self.heads, inputs));
        let mut scores = vec![T::zero(); trace.weights.len()];
        for (clip, range) in offsets.windows(2).enumerate() {
            let (rows, values) = (rows.slice(s![range[0]..range[1], ..]), self.heads * range[0]..self.heads * range[1]);
            let means = means.row_mut(clip).into_slice().expect("gradients are contiguous");
            let (weights, scores) = (&trace.weights[values.clone()], &mut scores[values]);
            multiply(by_head(means, self.heads).view(), rows.t(), by_head(scores, self.heads), Accumulate::No, threads);
            Arch::new().dispatch(|| {
                for (weights, scores) in weights.chunks_exact(rows.nrows()).zip(scores.chunks_exact_mut(rows.nrows())) {
                    softmax_backward(weights, scores);
                }
            });
            multiply(by_head(scores, self.heads).view(), rows, scorers.view_mut(), Accumulate::Yes, threads);
        }
        scorers *= self.scale();
        let mut projected = Array2::zeros(trace.query.dim());
        for (head, units) in self.units() {
            let (scorer, query) = (scorers.slice(s![head..=head, ..]), trace.query.slice(s![.., units.clone()]));
            let gradient = self.key.weight_gradient.slice_mut(s![units.clone(), ..]);
            multiply(query.t(), scorer, gradient, Accumulate::No, threads);
            let key = self.key.weight.slice(s![units.clone(), ..]);
            multiply(scorer, key.t(), projected.slice_mut(s![.., units]), Accumulate::No, threads);
        }
        self.key.bias_gradient.fill(T::zero());
        self.query.backward(query, projected.view(), Some(query_gradient), threads);
    }

    /// Returns W_q, b_q, W_k, b_k, W_v, b_v, W_o and b_o.
    pub fn parameters(&mut self) -> impl Iterator<Item = Parameter<'_, T>> {
        [&mut self.query, &mut self.key, &mut self.value, &mut self.output].into_iter().flat_map(Linear::parameters)
    }
}

/// Views the values of a clip as a matrix with one row per head.
fn by_head<T>(values: &mut [T], heads: usize) -> ArrayViewMut2<'_, T> {
    let columns = values.len() / heads;
    ArrayViewMut2::from_shape((heads, columns), values).expect("the heads have the same number of values")
}

/// Replaces scores by their softmax. A score that is not finite makes all weights NaN.
#[inline(always)]
pub(super) fn softmax<T: Real>(scores: &mut [T]) {
    let maximum =
        scores.iter().fold(T::neg_infinity(), |maximum, &score| if score > maximum { score } else { maximum });
    for score in &mut *scores {
        let shifted = *score - maximum;
        // The exponential of f32 clamps its argument, also NaN. The second term is 0 or NaN.
        *score = shifted.exp_nonpositive() + shifted * T::zero();
    }
    let total = aview1(scores).sum();
    for score in scores {
        *score /= total;
    }
}

/// Replaces the gradient of the weights by that of the scores: w·(g − Σ w·g).
#[inline(always)]
pub(super) fn softmax_backward<T: Real>(weights: &[T], gradient: &mut [T]) {
    let mean = aview1(weights).dot(&aview1(gradient));
    for (gradient, &weight) in gradient.iter_mut().zip(weights) {
        *gradient = weight * (*gradient - mean);
    }
}
