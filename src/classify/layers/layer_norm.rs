//! Layer normalization over the features of a row.

use ndarray::{Array1, ArrayView2, ArrayViewMut2};

use super::Parameter;
use crate::classify::numeric::Real;

/// `y = γ·(x − mean)/√(variance + ε) + β` over the features of each row, with the biased variance, as `torch.nn.LayerNorm`
/// (Ba et al. 2016). It stands before everything else, so it gives no gradient by its input.
#[derive(Debug, Clone)]
pub struct LayerNorm<T> {
    /// γ.
    pub weight: Array1<T>,
    /// β.
    pub bias: Array1<T>,
    weight_gradient: Array1<T>,
    bias_gradient: Array1<T>,
}

impl<T: Real> LayerNorm<T> {
    /// ε.
    pub const EPSILON: f64 = 1e-5;

    /// γ = 1 and β = 0, for `features` features.
    pub fn new(features: usize) -> Self {
        Self::from_parameters(Array1::ones(features), Array1::zeros(features))
    }

    /// A layer of given γ and β.
    pub fn from_parameters(weight: Array1<T>, bias: Array1<T>) -> Self {
        Self { weight_gradient: Array1::zeros(weight.len()), bias_gradient: Array1::zeros(weight.len()), weight, bias }
    }

    /// `output` from `input`, both (rows, features).
    pub fn forward(&self, input: ArrayView2<'_, T>, mut output: ArrayViewMut2<'_, T>) {
        for (x, mut y) in input.rows().into_iter().zip(output.rows_mut()) {
            let (mean, scale) = statistics(x);
            y.assign(&x);
            y.mapv_inplace(|x| (x - mean) * scale);
            y *= &self.weight;
            y += &self.bias;
        }
    }

    /// Keeps the gradients by γ and β, from that by the output.
    pub fn backward(&mut self, input: ArrayView2<'_, T>, gradient: ArrayView2<'_, T>) {
        self.weight_gradient.fill(T::zero());
        self.bias_gradient.fill(T::zero());
        for (x, g) in input.rows().into_iter().zip(gradient.rows()) {
            let (mean, scale) = statistics(x);
            self.weight_gradient += &(x.mapv(|x| (x - mean) * scale) * g);
            self.bias_gradient += &g;
        }
    }

    /// γ, then β.
    pub fn parameters(&mut self) -> [Parameter<'_, T>; 2] {
        const WHOLE: &str = "parameters are contiguous";
        [
            Parameter {
                values: self.weight.as_slice_mut().expect(WHOLE),
                gradient: self.weight_gradient.as_slice().expect(WHOLE),
            },
            Parameter {
                values: self.bias.as_slice_mut().expect(WHOLE),
                gradient: self.bias_gradient.as_slice().expect(WHOLE),
            },
        ]
    }
}

/// The mean of a row, and 1/√(variance + ε).
fn statistics<T: Real>(row: ndarray::ArrayView1<'_, T>) -> (T, T) {
    let count = T::of(row.len() as f64);
    let mean = row.sum() / count;
    let variance = row.fold(T::zero(), |sum, &x| sum + (x - mean) * (x - mean)) / count;
    (mean, T::one() / (variance + T::of(LayerNorm::<T>::EPSILON)).sqrt())
}
