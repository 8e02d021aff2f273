//! One learned query → multi-head attention over the rows of a clip → LayerNorm → dropout → linear: forward and backward passes.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rand::RngCore;

use crate::classify::clip_rows::ClipRows;
use crate::classify::layers::{Attention, Dropout, LayerNorm, Linear, Parameter, PoolTrace, normal};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;

/// An attentive probe.
#[derive(Debug, Clone)]
pub struct AttentiveNetwork<T> {
    /// The learned query, (1, E).
    pub query: Array2<T>,
    /// Attention of the query to the rows of a clip.
    pub attention: Attention<T>,
    /// Normalizes the output of the attention.
    pub norm: LayerNorm<T>,
    /// Maps the normalized values to logits.
    pub linear: Linear<T>,
    query_gradient: Array2<T>,
    threads: usize,
}

/// Standard deviation of a new query, as in V-JEPA.
const QUERY_DEVIATION: f64 = 0.02;

impl<T: Real> AttentiveNetwork<T> {
    /// Number of clips of a batch in evaluation mode. Smaller batches are padded, because the rounding of a product depends on its shape.
    pub const BLOCK: usize = 32;

    /// Creates a network with random weights for `inputs` features, `width` units and `outputs` classes that uses up to `threads`
    /// threads.
    ///
    /// # Panics
    /// Panics if `heads` does not divide `width`.
    pub fn new(
        (inputs, width, outputs): (usize, usize, usize),
        heads: usize,
        random: &mut impl RngCore,
        threads: usize,
    ) -> Self {
        let query = normal(1, width, QUERY_DEVIATION, random);
        let attention = Attention::new(inputs, width, heads, random);
        let linear = Linear::new(width, outputs, random);
        Self::from_layers(query, attention, LayerNorm::new(width), linear, threads)
    }

    /// Creates a network from its query, (1, E), and its layers.
    ///
    /// # Panics
    /// Panics if the shapes do not match.
    pub fn from_layers(
        query: Array2<T>,
        attention: Attention<T>,
        norm: LayerNorm<T>,
        linear: Linear<T>,
        threads: usize,
    ) -> Self {
        let width = attention.width();
        assert!(query.dim() == (1, width) && norm.weight.len() == width, "the shapes of the layers match");
        assert_eq!(linear.weight.ncols(), width, "the shapes of the layers match");
        Self { query_gradient: Array2::zeros(query.dim()), query, attention, norm, linear, threads }
    }

    /// Runs the forward and backward passes over one batch with multi-hot targets (N, classes): stores the gradient of every
    /// parameter in its layer, writes the logits (N, classes) and returns the loss.
    pub fn train_step(
        &mut self,
        batch: &ClipRows<T>,
        targets: ArrayView2<'_, f32>,
        loss: &Loss,
        dropout: &mut Dropout,
        mut outputs: ArrayViewMut2<'_, T>,
    ) -> f64 {
        let (attended, mut normalized, trace) = self.attend(batch, batch.clips());
        let mut mask = Array2::ones(normalized.dim());
        dropout.forward_training(contiguous(&mut normalized), contiguous(&mut mask));
        self.linear.forward(normalized.view(), outputs.view_mut(), self.threads);

        let mut logits = outputs.to_owned();
        let value = loss.gradient(logits.view_mut(), targets);
        let mut gradient = Array2::zeros(normalized.dim());
        self.linear.backward(normalized.view(), logits.view(), Some(gradient.view_mut()), self.threads);
        gradient *= &mask;
        let mut attended_gradient = Array2::zeros(attended.dim());
        self.norm.backward(attended.view(), gradient.view(), Some(attended_gradient.view_mut()));
        self.attention.pool_backward(
            self.query.view(),
            batch,
            &trace,
            attended_gradient.view(),
            self.query_gradient.view_mut(),
            self.threads,
        );
        value
    }

    /// Computes the logits (N, classes) of a batch of up to [`Self::BLOCK`] clips in evaluation mode. The logits of a clip do not depend on
    /// the other clips.
    pub fn logits(&self, batch: &ClipRows<T>) -> Array2<T> {
        let (_, normalized, _) = self.attend(batch, batch.clips().next_multiple_of(Self::BLOCK));
        let mut logits = Array2::zeros((normalized.nrows(), self.linear.bias.len()));
        self.linear.forward(normalized.view(), logits.view_mut(), self.threads);
        logits.slice_move(s![..batch.clips(), ..])
    }

    /// Returns the output of the attention, (`count`, E) with `count` ≥ N, the same normalized, and the trace of the attention.
    fn attend(&self, batch: &ClipRows<T>, count: usize) -> (Array2<T>, Array2<T>, PoolTrace<T>) {
        let mut attended = Array2::zeros((count, self.attention.width()));
        let mut normalized = Array2::zeros(attended.dim());
        let trace = self.attention.pool(self.query.view(), batch, attended.view_mut(), self.threads);
        self.norm.forward(attended.view(), normalized.view_mut());
        (attended, normalized, trace)
    }

    /// Returns the parameters: the query, and those of the attention, of the LayerNorm and of the linear layer.
    pub fn parameters(&mut self) -> Vec<Parameter<'_, T>> {
        let query = Parameter::of_matrix(&mut self.query, &self.query_gradient);
        let layers = self.attention.parameters().chain(self.norm.parameters()).chain(self.linear.parameters());
        std::iter::once(query).chain(layers).collect()
    }
}

fn contiguous<T>(buffer: &mut Array2<T>) -> &mut [T] {
    buffer.as_slice_mut().expect("buffers are contiguous")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::tests::check_gradients;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    fn check(inputs: usize, width: usize, heads: usize) {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(4);
        let (classes, offsets) = (3, vec![0, 3, 9, 10, 14]);
        let mut network = AttentiveNetwork::<f64>::new((inputs, width, classes), heads, &mut random, 1);
        let mut noise = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        for parameter in network.parameters() {
            parameter.values.iter_mut().for_each(|v| *v += 0.4 * noise());
        }
        let batch = ClipRows { rows: Array2::from_shape_simple_fn((14, inputs), || 2.0 * noise()), offsets };
        let targets = Array2::from_shape_fn((4, classes), |(i, c)| f32::from((i + c) % 2 == 0));
        let dropout = Dropout::new(0.2, Xoshiro256PlusPlus::seed_from_u64(5));
        let loss = Loss::Asymmetric { gamma_positive: 1.0, gamma_negative: 2.0, margin: 0.05 };
        let train_step = |network: &mut AttentiveNetwork<f64>| {
            let mut logits = Array2::zeros((4, classes));
            network.train_step(&batch, targets.view(), &loss, &mut dropout.clone(), logits.view_mut())
        };
        check_gradients(&network, AttentiveNetwork::parameters, train_step, 1e-6, 1e-8);
    }

    #[test]
    fn gradients_match_finite_differences() {
        check(6, 6, 2);
        check(5, 6, 3);
        check(4, 2, 1);
    }

    #[test]
    fn a_row_that_is_not_finite_makes_the_logits_of_its_clip_nan() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let network = AttentiveNetwork::<f32>::new((4, 4, 3), 2, &mut random, 1);
        for value in [f32::NAN, f32::INFINITY] {
            let mut rows = Array2::from_shape_fn((5, 4), |(i, d)| (i + 2 * d) as f32 / 3.0);
            rows[(1, 2)] = value;
            let logits = network.logits(&ClipRows { rows, offsets: vec![0, 3, 5] });
            assert!(
                logits.row(0).iter().all(|z| z.is_nan()) && logits.row(1).iter().all(|z| z.is_finite()),
                "{logits}"
            );
        }
    }
}
