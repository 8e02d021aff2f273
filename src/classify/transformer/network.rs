//! (Linear →) positions → one layer of a transformer encoder → mean or first row → linear: forward and backward passes.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rand::RngCore;
use rayon::prelude::*;

use crate::classify::clip_rows::ClipRows;
use crate::classify::layers::{Attention, Dropout, Gelu, LayerNorm, Linear, Parameter, SelfTrace, normal};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;

/// A transformer encoder with one layer, and the buffers of a training step. `x + …` are residual connections, and LayerNorm is behind
/// them, as in `torch.nn.TransformerEncoderLayer` with `norm_first=False` and the activation GELU:
///
/// ```text
/// x ← LayerNorm(x + Attention(x)),   x ← LayerNorm(x + Linear(GELU(Linear(x))))
/// ```
///
/// Dropout follows the attention, GELU and the second linear layer; the weights of the attention have none.
#[derive(Debug, Clone)]
pub struct TransformerNetwork<T> {
    /// The layers.
    pub layers: TransformerLayers<T>,
    positions_gradient: Array2<T>,
    cls_gradient: Array2<T>,
    threads: usize,
}

/// The layers of a transformer, for rows with D features and E units.
#[derive(Debug, Clone)]
pub struct TransformerLayers<T> {
    /// Maps the features of a row to units, (E, D); without it, E equals D.
    pub projection: Option<Linear<T>>,
    /// Added to the rows of a clip in order, (maximum number of rows, E).
    pub positions: Array2<T>,
    /// A row in front of the rows of each clip, (1, E), whose output is read; without it, the mean of all outputs is.
    pub cls: Option<Array2<T>>,
    /// Attention of the rows of a clip to each other.
    pub attention: Attention<T>,
    /// Normalizes the sum of the input and of the output of the attention.
    pub norm1: LayerNorm<T>,
    /// The first layer of the feed-forward network, (hidden, E).
    pub linear1: Linear<T>,
    /// Its second layer, (E, hidden).
    pub linear2: Linear<T>,
    /// Normalizes the sum of the input and of the output of the feed-forward network.
    pub norm2: LayerNorm<T>,
    /// Maps the output that is read to logits.
    pub linear: Linear<T>,
}

/// The sizes of a network.
#[derive(Debug, Clone, Copy)]
pub struct TransformerSizes {
    /// Features per row, D.
    pub inputs: usize,
    /// Units per row, E.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden units of the feed-forward network.
    pub hidden: usize,
    /// Maximum number of rows of a clip.
    pub length: usize,
    /// Classes.
    pub outputs: usize,
}

/// The intermediate values of a forward pass. Rows are those of all clips, with the first row of [`TransformerNetwork::cls`].
struct Trace<T> {
    /// First row of each clip, and their number.
    offsets: Vec<usize>,
    input: Array2<T>,
    attention: SelfTrace<T>,
    /// Factors of the dropout behind the attention.
    attention_mask: Array2<T>,
    /// Input of the first LayerNorm.
    sum1: Array2<T>,
    /// Output of the first LayerNorm.
    normalized: Array2<T>,
    /// Hidden units of the feed-forward network after dropout.
    hidden: Array2<T>,
    /// Derivative of GELU times the dropout mask.
    derivative: Array2<T>,
    /// Factors of the dropout behind the feed-forward network.
    output_mask: Array2<T>,
    /// Input of the second LayerNorm.
    sum2: Array2<T>,
    /// Mean or first row of each clip, (clips, E).
    pooled: Array2<T>,
}

/// Standard deviation of new positions and of a new first row, as in BERT and ViT.
const DEVIATION: f64 = 0.02;

impl<T: Real> TransformerNetwork<T> {
    /// Creates a network with random weights that uses up to `threads` threads. It has a projection if `width` differs from `inputs`.
    ///
    /// # Panics
    /// Panics if the number of heads does not divide the width.
    pub fn new(sizes: TransformerSizes, cls: bool, random: &mut impl RngCore, threads: usize) -> Self {
        let TransformerSizes { inputs, width, heads, hidden, length, outputs } = sizes;
        let projection = (inputs != width).then(|| Linear::new(inputs, width, random));
        let positions = normal(length, width, DEVIATION, random);
        let cls = cls.then(|| normal(1, width, DEVIATION, random));
        let attention = Attention::new(width, width, heads, random);
        let linear1 = Linear::new(width, hidden, random);
        let linear2 = Linear::new(hidden, width, random);
        let layers = TransformerLayers {
            projection,
            positions,
            cls,
            attention,
            norm1: LayerNorm::new(width),
            linear1,
            linear2,
            norm2: LayerNorm::new(width),
            linear: Linear::new(width, outputs, random),
        };
        Self::from_layers(layers, threads)
    }

    /// Creates a network from its layers, whose shapes match.
    pub fn from_layers(layers: TransformerLayers<T>, threads: usize) -> Self {
        let positions_gradient = Array2::zeros(layers.positions.dim());
        let cls_gradient = Array2::zeros((1, layers.positions.ncols()));
        Self { layers, positions_gradient, cls_gradient, threads }
    }

    /// Returns the number of features, D.
    pub fn inputs(&self) -> usize {
        self.layers.projection.as_ref().map_or(self.layers.attention.width(), |projection| projection.weight.ncols())
    }

    /// Runs the forward and backward passes over one batch with multi-hot targets (N, classes): stores the gradient of every
    /// parameter in its layer, writes the logits (N, classes) and returns the loss.
    ///
    /// # Panics
    /// Panics if a clip has more rows than there are positions.
    pub fn train_step(
        &mut self,
        batch: &ClipRows<T>,
        targets: ArrayView2<'_, f32>,
        loss: &Loss,
        dropout: &mut Dropout,
        mut outputs: ArrayViewMut2<'_, T>,
    ) -> f64 {
        let threads = self.threads;
        let mut trace = self.forward(batch, Some(dropout), threads);
        self.layers.linear.forward(trace.pooled.view(), outputs.view_mut(), threads);
        let mut logits = outputs.to_owned();
        let value = loss.gradient(logits.view_mut(), targets);
        let mut pooled = Array2::zeros(trace.pooled.dim());
        self.layers.linear.backward(trace.pooled.view(), logits.view(), Some(pooled.view_mut()), threads);

        let gradient = self.unpool(pooled, &trace.offsets);
        let mut sum = Array2::zeros(gradient.dim());
        self.layers.norm2.backward(trace.sum2.view(), gradient.view(), Some(sum.view_mut()));
        let output = &sum * &trace.output_mask;
        let mut hidden = Array2::zeros(trace.hidden.dim());
        self.layers.linear2.backward(trace.hidden.view(), output.view(), Some(hidden.view_mut()), threads);
        hidden *= &trace.derivative;
        let mut gradient = output;
        self.layers.linear1.backward(trace.normalized.view(), hidden.view(), Some(gradient.view_mut()), threads);
        gradient += &sum;
        self.layers.norm1.backward(trace.sum1.view(), gradient.view(), Some(sum.view_mut()));
        let output = &sum * &trace.attention_mask;
        let (input, offsets) = (trace.input.view(), &trace.offsets);
        let attention = &mut trace.attention;
        self.layers.attention.attend_backward(input, offsets, attention, output.view(), gradient.view_mut(), threads);
        gradient += &sum;

        self.positions_gradient.fill(T::zero());
        self.cls_gradient.fill(T::zero());
        let first = usize::from(self.layers.cls.is_some());
        for range in offsets.windows(2) {
            let rows = gradient.slice(s![range[0] + first..range[1], ..]);
            let mut positions = self.positions_gradient.slice_mut(s![..rows.nrows(), ..]);
            positions += &rows;
            if first > 0 {
                self.cls_gradient += &gradient.slice(s![range[0]..=range[0], ..]);
            }
        }
        if let Some(projection) = &mut self.layers.projection {
            let mut rows = Array2::zeros((batch.rows.nrows(), gradient.ncols()));
            for (range, from) in batch.offsets.windows(2).zip(offsets) {
                let from = s![from + first..from + first + range[1] - range[0], ..];
                rows.slice_mut(s![range[0]..range[1], ..]).assign(&gradient.slice(from));
            }
            projection.backward(batch.rows.view(), rows.view(), None, threads);
        }
        value
    }

    /// Computes the logits (N, classes) of a batch in evaluation mode. The logits of a clip do not depend on the other clips: clips are
    /// computed one by one, because the rounding of a product depends on its shape.
    ///
    /// # Panics
    /// Panics if a clip has more rows than there are positions.
    pub fn logits(&self, batch: &ClipRows<T>) -> Array2<T> {
        let mut logits = Array2::zeros((batch.clips(), self.layers.linear.bias.len()));
        let compute = |(clip, mut logits): (usize, ArrayViewMut2<'_, T>)| {
            let rows = batch.rows.slice(s![batch.offsets[clip]..batch.offsets[clip + 1], ..]).to_owned();
            let clip = ClipRows { offsets: vec![0, rows.nrows()], rows };
            let trace = self.forward(&clip, None, 1);
            let mut output = Array2::zeros(logits.dim());
            self.layers.linear.forward(trace.pooled.view(), output.view_mut(), 1);
            logits.assign(&output);
        };
        if self.threads > 1 {
            logits.axis_chunks_iter_mut(Axis(0), 1).into_par_iter().enumerate().for_each(compute);
        } else {
            logits.axis_chunks_iter_mut(Axis(0), 1).enumerate().for_each(compute);
        }
        logits
    }

    fn forward(&self, batch: &ClipRows<T>, mut dropout: Option<&mut Dropout>, threads: usize) -> Trace<T> {
        let (input, offsets) = self.embed(batch, threads);
        let mut apply_dropout = |values: &mut Array2<T>, derivative: &mut Array2<T>| {
            if let Some(dropout) = &mut dropout {
                dropout.forward_training(contiguous(values), contiguous(derivative));
            }
        };
        let mut sum1 = Array2::zeros(input.dim());
        let attention = self.layers.attention.attend(input.view(), &offsets, sum1.view_mut(), threads);
        let mut attention_mask = Array2::ones(input.dim());
        apply_dropout(&mut sum1, &mut attention_mask);
        sum1 += &input;
        let mut normalized = Array2::zeros(input.dim());
        self.layers.norm1.forward(sum1.view(), normalized.view_mut());

        let mut hidden = Array2::zeros((input.nrows(), self.layers.linear1.bias.len()));
        let mut derivative = Array2::zeros(hidden.dim());
        self.layers.linear1.forward(normalized.view(), hidden.view_mut(), threads);
        Gelu.forward_training(contiguous(&mut hidden), contiguous(&mut derivative));
        apply_dropout(&mut hidden, &mut derivative);
        let mut sum2 = Array2::zeros(input.dim());
        self.layers.linear2.forward(hidden.view(), sum2.view_mut(), threads);
        let mut output_mask = Array2::ones(input.dim());
        apply_dropout(&mut sum2, &mut output_mask);
        sum2 += &normalized;
        let mut output = Array2::zeros(input.dim());
        self.layers.norm2.forward(sum2.view(), output.view_mut());
        let pooled = self.pool(output.view(), &offsets);
        Trace {
            offsets,
            input,
            attention,
            attention_mask,
            sum1,
            normalized,
            hidden,
            derivative,
            output_mask,
            sum2,
            pooled,
        }
    }

    /// Returns the rows of all clips with their positions and the first row, and the first row of each clip.
    fn embed(&self, batch: &ClipRows<T>, threads: usize) -> (Array2<T>, Vec<usize>) {
        let projected = self.layers.projection.as_ref().map(|projection| {
            let mut rows = Array2::zeros((batch.rows.nrows(), self.layers.attention.width()));
            projection.forward(batch.rows.view(), rows.view_mut(), threads);
            rows
        });
        let rows = projected.as_ref().unwrap_or(&batch.rows);
        let first = usize::from(self.layers.cls.is_some());
        let offsets: Vec<usize> = batch.offsets.iter().enumerate().map(|(i, offset)| offset + first * i).collect();
        let mut input = Array2::zeros((offsets[batch.clips()], self.layers.attention.width()));
        for (range, &from) in batch.offsets.windows(2).zip(&offsets) {
            let count = range[1] - range[0];
            if let Some(cls) = &self.layers.cls {
                input.row_mut(from).assign(&cls.row(0));
            }
            let mut part = input.slice_mut(s![from + first..from + first + count, ..]);
            part.assign(&rows.slice(s![range[0]..range[1], ..]));
            part += &self.layers.positions.slice(s![..count, ..]);
        }
        (input, offsets)
    }

    /// Returns the first row or the mean of the rows of each clip, (clips, E).
    fn pool(&self, rows: ArrayView2<'_, T>, offsets: &[usize]) -> Array2<T> {
        if self.layers.cls.is_some() {
            return rows.select(Axis(0), &offsets[..offsets.len() - 1]);
        }
        let mut pooled = Array2::zeros((offsets.len() - 1, rows.ncols()));
        for (range, mut pooled) in offsets.windows(2).zip(pooled.rows_mut()) {
            for row in rows.slice(s![range[0]..range[1], ..]).rows() {
                pooled += &row;
            }
            pooled /= T::of((range[1] - range[0]) as f64);
        }
        pooled
    }

    /// Returns the gradient of the rows from that of [`Self::pool`].
    fn unpool(&self, pooled: Array2<T>, offsets: &[usize]) -> Array2<T> {
        let mut gradient = Array2::zeros((offsets[offsets.len() - 1], pooled.ncols()));
        for (range, pooled) in offsets.windows(2).zip(pooled.rows()) {
            match self.layers.cls {
                Some(_) => gradient.row_mut(range[0]).assign(&pooled),
                None => {
                    let pooled = &pooled / T::of((range[1] - range[0]) as f64);
                    gradient.slice_mut(s![range[0]..range[1], ..]).assign(&pooled);
                }
            }
        }
        gradient
    }

    /// Returns the parameters of the projection (if any), the positions, the first row (if any), and the parameters of the attention,
    /// of norm1, linear1, linear2 and norm2, and of the last layer.
    pub fn parameters(&mut self) -> Vec<Parameter<'_, T>> {
        let Self { layers, positions_gradient, cls_gradient, .. } = self;
        let projection = layers.projection.iter_mut().flat_map(Linear::parameters);
        let positions = Parameter::of_matrix(&mut layers.positions, positions_gradient);
        let cls = layers.cls.iter_mut().map(|cls| Parameter::of_matrix(cls, cls_gradient));
        projection
            .chain([positions])
            .chain(cls)
            .chain(layers.attention.parameters())
            .chain(layers.norm1.parameters())
            .chain(layers.linear1.parameters())
            .chain(layers.linear2.parameters())
            .chain(layers.norm2.parameters())
            .chain(layers.linear.parameters())
            .collect()
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

    fn check(sizes: TransformerSizes, cls: bool) {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(4);
        let offsets = vec![0, 3, 9, 10, 14];
        let mut network = TransformerNetwork::<f64>::new(sizes, cls, &mut random, 1);
        let mut noise = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        for parameter in network.parameters() {
            parameter.values.iter_mut().for_each(|v| *v += 0.4 * noise());
        }
        let batch = ClipRows { rows: Array2::from_shape_simple_fn((14, sizes.inputs), || 2.0 * noise()), offsets };
        let targets = Array2::from_shape_fn((4, sizes.outputs), |(i, c)| f32::from((i + c) % 2 == 0));
        let dropout = Dropout::new(0.2, Xoshiro256PlusPlus::seed_from_u64(5));
        let loss = Loss::Asymmetric { gamma_positive: 1.0, gamma_negative: 2.0, margin: 0.05 };
        let train_step = |network: &mut TransformerNetwork<f64>| {
            let mut logits = Array2::zeros((4, sizes.outputs));
            network.train_step(&batch, targets.view(), &loss, &mut dropout.clone(), logits.view_mut())
        };
        check_gradients(&network, TransformerNetwork::parameters, train_step, 1e-6, 1e-7);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let sizes = TransformerSizes { inputs: 6, width: 6, heads: 2, hidden: 5, length: 7, outputs: 3 };
        check(sizes, false);
        check(TransformerSizes { inputs: 5, width: 4, heads: 4, ..sizes }, true);
    }

    #[test]
    fn a_row_that_is_not_finite_makes_the_logits_of_its_clip_nan() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let sizes = TransformerSizes { inputs: 4, width: 4, heads: 2, hidden: 5, length: 3, outputs: 3 };
        for cls in [false, true] {
            let network = TransformerNetwork::<f32>::new(sizes, cls, &mut random, 1);
            let mut rows = Array2::from_shape_fn((5, 4), |(i, d)| (i + 2 * d) as f32 / 3.0);
            rows[(1, 2)] = f32::NAN;
            let logits = network.logits(&ClipRows { rows, offsets: vec![0, 3, 5] });
            assert!(
                logits.row(0).iter().all(|z| z.is_nan()) && logits.row(1).iter().all(|z| z.is_finite()),
                "{logits}"
            );
        }
    }
}
