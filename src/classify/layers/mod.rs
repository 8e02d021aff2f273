//! Layers of trained networks, each with its forward and its backward pass.
//!
//! A batch is a matrix with one clip per row, or with the rows of all clips. Layers own their parameters and gradients. Activations are in buffers that the
//! network owns, or in the trace of a forward pass. Names, layouts and defaults are PyTorch's.

mod attention;
mod batch_norm;
mod dropout;
mod gelu;
mod layer_norm;
mod linear;
mod self_attention;

use ndarray::Array2;
use rand::RngCore;

use crate::classify::numeric::Real;

pub use attention::{Attention, PoolTrace};
pub use batch_norm::BatchNorm;
pub use dropout::Dropout;
pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use self_attention::SelfTrace;

/// A parameter and its gradient as flat slices of equal length, for an optimizer.
pub struct Parameter<'a, T> {
    /// Values.
    pub values: &'a mut [T],
    /// Gradient of the loss with respect to each value.
    pub gradient: &'a [T],
}

impl<'a, T> Parameter<'a, T> {
    /// Creates a parameter from matrices of equal shape.
    pub fn of_matrix(values: &'a mut Array2<T>, gradient: &'a Array2<T>) -> Self {
        Self {
            values: values.as_slice_mut().expect("parameters are contiguous"),
            gradient: gradient.as_slice().expect("gradients are contiguous"),
        }
    }
}

/// Draws a matrix from a normal distribution with mean 0 (Box & Muller 1958).
pub fn normal<T: Real>(rows: usize, columns: usize, deviation: f64, random: &mut impl RngCore) -> Array2<T> {
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    Array2::from_shape_simple_fn((rows, columns), || {
        let radius = (-2.0 * uniform().ln()).sqrt();
        T::of(deviation * radius * (std::f64::consts::TAU * uniform()).cos())
    })
}
