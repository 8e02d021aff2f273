//! Layer normalization.

use ndarray::{Array1, ArrayView2, ArrayViewMut2};

use super::Parameter;
use crate::classify::numeric::Real;

/// `y = γ·(x − mean)/√(variance + ε) + β` over the features of each row, with the biased variance, as in `torch.nn.LayerNorm`
/// (Ba et al. 2016).
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

    /// Creates a layer with γ = 1 and β = 0 for `features` features.
    pub fn new(features: usize) -> Self {
        Self::from_parameters(Array1::ones(features), Array1::zeros(features))
    }

    /// Creates a layer with the given γ and β.
    pub fn from_parameters(weight: Array1<T>, bias: Array1<T>) -> Self {
        Self { weight_gradient: Array1::zeros(weight.len()), bias_gradient: Array1::zeros(weight.len()), weight, bias }
    }

    /// Computes `output` from `input`, both (rows, features).
    pub fn forward(&self, input: ArrayView2<'_, T>, mut output: ArrayViewMut2<'_, T>) {
        for (x, mut y) in input.rows().into_iter().zip(output.rows_mut()) {
            let (mean, scale) = statistics(x);
            y.assign(&x);
            y.mapv_inplace(|x| (x - mean) * scale);
            y *= &self.weight;
            y += &self.bias;
        }
    }

    /// Computes the gradients of γ and β and, if requested, of the input from the gradient of the output.
    ///
    /// With x̂ = (x − mean)/√(variance + ε) and the gradient of the output g, the gradient of the input is
    /// (γ·g − mean(γ·g) − x̂·mean(γ·g·x̂))/√(variance + ε).
    pub fn backward(
        &mut self,
        input: ArrayView2<'_, T>,
        gradient: ArrayView2<'_, T>,
        mut input_gradient: Option<ArrayViewMut2<'_, T>>,
    ) {
        self.weight_gradient.fill(T::zero());
        self.bias_gradient.fill(T::zero());
        let count = T::of(input.ncols() as f64);
        for (i, (x, g)) in input.rows().into_iter().zip(gradient.rows()).enumerate() {
            let (mean, scale) = statistics(x);
            let normalized = x.mapv(|x| (x - mean) * scale);
            self.weight_gradient += &(&normalized * &g);
            self.bias_gradient += &g;
            if let Some(input_gradient) = &mut input_gradient {
                let mut out = input_gradient.row_mut(i);
                out.assign(&g);
                out *= &self.weight;
                let (mean, product) = (out.sum() / count, out.dot(&normalized) / count);
                out.zip_mut_with(&normalized, |g, &x| *g = scale * (*g - mean - x * product));
            }
        }
    }

    /// Returns γ, then β.
    pub fn parameters(&mut self) -> [Parameter<'_, T>; 2] {
        const CONTIGUOUS: &str = "parameters are contiguous";
        [
            Parameter {
                values: self.weight.as_slice_mut().expect(CONTIGUOUS),
                gradient: self.weight_gradient.as_slice().expect(CONTIGUOUS),
            },
            Parameter {
                values: self.bias.as_slice_mut().expect(CONTIGUOUS),
                gradient: self.bias_gradient.as_slice().expect(CONTIGUOUS),
            },
        ]
    }
}

/// Computes the mean of a row, and 1/√(variance + ε).
fn statistics<T: Real>(row: ndarray::ArrayView1<'_, T>) -> (T, T) {
    let count = T::of(row.len() as f64);
    let mean = row.sum() / count;
    let variance = row.fold(T::zero(), |sum, &x| sum + (x - mean) * (x - mean)) / count;
    (mean, T::one() / (variance + T::of(LayerNorm::<T>::EPSILON)).sqrt())
}
