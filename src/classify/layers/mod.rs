//! The building blocks of trained networks, each with its forward and its backward pass.
//!
//! A batch is a matrix with one clip a row. Layers hold parameters and their gradients; activations live in buffers that
//! the network owns, so that a training step allocates nothing. Names, layouts and defaults are PyTorch's.

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

/// A parameter with its gradient, as an optimizer sees it. Both in the layer's order, of one length.
pub struct Parameter<'a, T> {
    /// The values.
    pub values: &'a mut [T],
    /// The gradient of the loss by each of them.
    pub gradient: &'a [T],
}
