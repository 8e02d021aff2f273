//! Batch normalization.

use ndarray::{Array1, ArrayView2, ArrayViewMut2};

use super::Parameter;
use crate::classify::numeric::Real;

/// `y = γ·(x − mean)/√(variance + ε) + β` per feature, as in `torch.nn.BatchNorm1d` (Ioffe & Szegedy 2015).
///
/// Training uses the mean and the biased variance (divided by the batch size) of the batch, and updates running averages of
/// the mean and the unbiased variance (divided by the batch size − 1). Prediction uses the running averages.
#[derive(Debug, Clone)]
pub struct BatchNorm<T> {
    /// γ.
    pub weight: Array1<T>,
    /// β.
    pub bias: Array1<T>,
    /// Running mean.
    pub running_mean: Array1<T>,
    /// Running unbiased variance.
    pub running_variance: Array1<T>,
    /// Gradient of γ.
    pub weight_gradient: Array1<T>,
    /// Gradient of β.
    pub bias_gradient: Array1<T>,
    mean: Array1<T>,
    variance: Array1<T>,
    scale: Array1<T>,
    shift: Array1<T>,
}

impl<T: Real> BatchNorm<T> {
    /// ε.
    pub const EPSILON: f64 = 1e-5;
    /// Weight of a new batch in the running averages.
    pub const MOMENTUM: f64 = 0.1;

    /// Creates a layer with γ = 1, β = 0, running mean 0 and running variance 1 for `features` features.
    pub fn new(features: usize) -> Self {
        let (zeros, ones) = (Array1::zeros(features), Array1::ones(features));
        Self {
            weight: ones.clone(),
            bias: zeros.clone(),
            running_mean: zeros.clone(),
            running_variance: ones.clone(),
            weight_gradient: zeros.clone(),
            bias_gradient: zeros.clone(),
            mean: zeros.clone(),
            variance: zeros.clone(),
            scale: zeros.clone(),
            shift: zeros,
        }
    }

    /// Runs the training pass over a batch (N ≥ 2, features): replaces `input` by the normalized input x̂, which
    /// [`BatchNorm::backward`] needs, and sets `output` to γ·x̂ + β.
    pub fn forward_training(&mut self, mut input: ArrayViewMut2<'_, T>, mut output: ArrayViewMut2<'_, T>) {
        let count = T::of(input.nrows() as f64);
        self.mean.fill(T::zero());
        for row in input.rows() {
            self.mean += &row;
        }
        self.mean /= count;
        self.variance.fill(T::zero());
        let mean = contiguous(&self.mean);
        for row in input.rows() {
            let row = row.to_slice().expect("activations are contiguous");
            let variance = self.variance.as_slice_mut().expect("contiguous");
            for ((variance, &x), &mean) in variance.iter_mut().zip(row).zip(mean) {
                let centered = x - mean;
                *variance += centered * centered;
            }
        }
        self.variance /= count;

        let momentum = T::of(Self::MOMENTUM);
        let retained = T::one() - momentum;
        let unbias = momentum * count / (count - T::one());
        self.running_mean.zip_mut_with(&self.mean, |running, &mean| *running = retained * *running + momentum * mean);
        self.running_variance
            .zip_mut_with(&self.variance, |running, &variance| *running = retained * *running + unbias * variance);

        let epsilon = T::of(Self::EPSILON);
        self.scale.assign(&self.variance);
        self.scale.mapv_inplace(|variance| T::one() / (variance + epsilon).sqrt());
        let (scale, weight, bias) = (contiguous(&self.scale), contiguous(&self.weight), contiguous(&self.bias));
        for (mut row, mut out) in input.rows_mut().into_iter().zip(output.rows_mut()) {
            let row = row.as_slice_mut().expect("activations are contiguous");
            let out = out.as_slice_mut().expect("activations are contiguous");
            for (i, (x, y)) in row.iter_mut().zip(out).enumerate() {
                let normalized = (*x - mean[i]) * scale[i];
                *x = normalized;
                *y = weight[i] * normalized + bias[i];
            }
        }
    }

    /// Normalizes a batch in place by the running averages, for prediction.
    pub fn forward_running(&self, mut batch: ArrayViewMut2<'_, T>) {
        let epsilon = T::of(Self::EPSILON);
        let scale = self.running_variance.mapv(|variance| T::one() / (variance + epsilon).sqrt()) * &self.weight;
        let shift = &self.bias - &(&self.running_mean * &scale);
        for mut row in batch.rows_mut() {
            row *= &scale;
            row += &shift;
        }
    }

    /// Replaces the gradient of the output by the gradient of the input, and computes the gradients of γ and β. `normalized`
    /// is x̂.
    ///
    /// With the gradient of the output g, the gradients are Σ g·x̂ for γ, Σ g for β, and
    /// γ/√(variance + ε)·(g − mean(g) − x̂·mean(g·x̂)) for x.
    pub fn backward(&mut self, normalized: ArrayView2<'_, T>, mut gradient: ArrayViewMut2<'_, T>) {
        let count = T::of(gradient.nrows() as f64);
        self.weight_gradient.fill(T::zero());
        self.bias_gradient.fill(T::zero());
        for (row, normalized) in gradient.rows().into_iter().zip(normalized.rows()) {
            let row = row.to_slice().expect("activations are contiguous");
            let normalized = normalized.to_slice().expect("activations are contiguous");
            let weight_gradient = self.weight_gradient.as_slice_mut().expect("contiguous");
            let bias_gradient = self.bias_gradient.as_slice_mut().expect("contiguous");
            for (((weight_gradient, bias_gradient), &g), &x) in
                weight_gradient.iter_mut().zip(bias_gradient).zip(row).zip(normalized)
            {
                *weight_gradient += g * x;
                *bias_gradient += g;
            }
        }
        // `scale` is γ/√(variance + ε), `shift` is mean(g), `mean` is mean(g·x̂).
        self.scale *= &self.weight;
        self.shift.assign(&self.bias_gradient);
        self.shift /= count;
        self.mean.assign(&self.weight_gradient);
        self.mean /= count;
        let (scale, mean_gradient, mean_product) =
            (contiguous(&self.scale), contiguous(&self.shift), contiguous(&self.mean));
        for (mut row, normalized) in gradient.rows_mut().into_iter().zip(normalized.rows()) {
            let row = row.as_slice_mut().expect("activations are contiguous");
            let normalized = normalized.to_slice().expect("activations are contiguous");
            for (i, (g, &x)) in row.iter_mut().zip(normalized).enumerate() {
                *g = scale[i] * (*g - mean_gradient[i] - x * mean_product[i]);
            }
        }
    }

    /// Returns γ, then β.
    pub fn parameters(&mut self) -> [Parameter<'_, T>; 2] {
        [
            Parameter {
                values: self.weight.as_slice_mut().expect("γ is contiguous"),
                gradient: contiguous(&self.weight_gradient),
            },
            Parameter {
                values: self.bias.as_slice_mut().expect("β is contiguous"),
                gradient: contiguous(&self.bias_gradient),
            },
        ]
    }
}

fn contiguous<T>(vector: &Array1<T>) -> &[T] {
    vector.as_slice().expect("vectors are contiguous")
}
