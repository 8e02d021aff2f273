//! Layers of trained networks, each with its forward and its backward pass.
//!
//! A batch is a matrix with one clip per row. Layers own their parameters and gradients. Activations are in buffers that the
//! network owns, so that a training step does not allocate. Names, layouts and defaults are PyTorch's.

mod batch_norm;
mod dropout;
mod gelu;
mod layer_norm;
mod linear;

pub use batch_norm::BatchNorm;
pub use dropout::Dropout;
pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::Linear;

/// A parameter and its gradient as flat slices of equal length, for an optimizer.
pub struct Parameter<'a, T> {
    /// Values.
    pub values: &'a mut [T],
    /// Gradient of the loss with respect to each value.
    pub gradient: &'a [T],
}
