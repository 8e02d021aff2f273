//! Fully connected layer.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};
use rand::RngCore;

use super::Parameter;
use crate::classify::numeric::Real;
use crate::matrix::{Accumulate, multiply};

/// `y = x·Wᵀ + b`, as in `torch.nn.Linear`.
#[derive(Debug, Clone)]
pub struct Linear<T> {
    /// W, (outputs, inputs).
    pub weight: Array2<T>,
    /// b, (outputs).
    pub bias: Array1<T>,
    /// Gradient of W.
    pub weight_gradient: Array2<T>,
    /// Gradient of b.
    pub bias_gradient: Array1<T>,
}

impl<T: Real> Linear<T> {
    /// Creates a layer with PyTorch's default initialization: weights and biases uniform in ±1/√inputs (He et al. 2015,
    /// with a = √5).
    pub fn new(inputs: usize, outputs: usize, random: &mut impl RngCore) -> Self {
        let bound = 1.0 / (inputs as f64).sqrt();
        let mut draw = || T::of(((random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0) * bound);
        let weight = Array2::from_shape_simple_fn((outputs, inputs), &mut draw);
        let bias = Array1::from_shape_simple_fn(outputs, &mut draw);
        Self::from_parameters(weight, bias)
    }

    /// Creates a layer with the given W, (outputs, inputs), and b, (outputs).
    ///
    /// # Panics
    /// Panics if the shapes do not match.
    pub fn from_parameters(weight: Array2<T>, bias: Array1<T>) -> Self {
        assert_eq!(weight.nrows(), bias.len(), "a linear layer has one bias per output");
        Self {
            weight_gradient: Array2::zeros(weight.dim()),
            bias_gradient: Array1::zeros(bias.len()),
            weight: weight.as_standard_layout().into_owned(),
            bias,
        }
    }

    /// Computes `output` (batch, outputs) from `input` (batch, inputs).
    pub fn forward(&self, input: ArrayView2<'_, T>, mut output: ArrayViewMut2<'_, T>, threads: usize) {
        output.assign(&self.bias);
        multiply(input, self.weight.t(), output, Accumulate::Yes, threads);
    }

    /// Computes the gradients of W and b (stored in the layer) and, if requested, of the input from the gradient of the output.
    pub fn backward(
        &mut self,
        input: ArrayView2<'_, T>,
        output_gradient: ArrayView2<'_, T>,
        input_gradient: Option<ArrayViewMut2<'_, T>>,
        threads: usize,
    ) {
        multiply(output_gradient.t(), input, self.weight_gradient.view_mut(), Accumulate::No, threads);
        self.bias_gradient.fill(T::zero());
        for row in output_gradient.rows() {
            self.bias_gradient += &row;
        }
        if let Some(input_gradient) = input_gradient {
            multiply(output_gradient, self.weight.view(), input_gradient, Accumulate::No, threads);
        }
    }

    /// Returns W, then b.
    pub fn parameters(&mut self) -> [Parameter<'_, T>; 2] {
        [
            Parameter {
                values: self.weight.as_slice_mut().expect("W is contiguous"),
                gradient: self.weight_gradient.as_slice().expect("its gradient is contiguous"),
            },
            Parameter {
                values: self.bias.as_slice_mut().expect("b is contiguous"),
                gradient: self.bias_gradient.as_slice().expect("its gradient is contiguous"),
            },
        ]
    }
}
