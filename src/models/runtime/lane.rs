//! Interface between sessions and backends: lanes, options, and checks of inputs and outputs.

use ndarray::Array2;

use crate::error::{Error, Result};
use crate::models::Precision;

/// Shapes of a network and how it is run.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Shape of one item without the batch axis: (3, H, W) or (3, T, H, W).
    pub item: Vec<usize>,
    /// Length of one embedding.
    pub dim: usize,
    /// Items per run. Every run has exactly this many, so that results do not depend on how clips are batched.
    pub batch: usize,
    /// Number of cores that all lanes together may use.
    pub threads: usize,
    /// Name of the output to read; required if the network has several.
    pub output: Option<String>,
    /// Arithmetic precision.
    pub precision: Precision,
}

impl SessionOptions {
    /// Returns the shape of a batch.
    pub(super) fn input_shape(&self) -> Vec<usize> {
        std::iter::once(self.batch).chain(self.item.iter().copied()).collect()
    }

    /// Returns the number of elements in a batch.
    pub fn input_len(&self) -> usize {
        self.input_shape().iter().product()
    }
}

/// An execution context of a loaded network. Lanes run concurrently and share the weights.
pub trait Lane: Send {
    /// Runs one batch of `batch` consecutive items; returns (batch, dim).
    ///
    /// # Errors
    /// Returns an error if the run fails, or if the output has an unexpected size or contains a non-finite value.
    fn run(&mut self, items: &[f32]) -> Result<Array2<f32>>;

    /// Sets whether the lane uses the threads of idle lanes, if the backend supports it: latency decreases at the cost of
    /// other work on the same cores.
    fn borrow_idle_threads(&mut self, _: bool) {}
}

/// Converts the output of one run to (batch, dim).
///
/// # Errors
/// Returns an error if a value is not finite or the number of values is wrong.
pub(super) fn embeddings(values: &[f32], options: &SessionOptions) -> Result<Array2<f32>> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::Runtime(format!("the network returned {} at index {index}", values[index])));
    }
    Array2::from_shape_vec((options.batch, options.dim), values.to_vec()).map_err(|_| {
        let (batch, dim) = (options.batch, options.dim);
        Error::Runtime(format!("the network returned {} values instead of {batch} × {dim}", values.len()))
    })
}

/// Returns `true` if a declared shape, in which negative axes are dynamic, accepts `shape`.
pub(super) fn shape_matches(declared: &[i64], shape: &[usize]) -> bool {
    declared.len() == shape.len() && declared.iter().zip(shape).all(|(&axis, &len)| axis < 0 || axis == len as i64)
}

/// Returns `true` if a declared output shape is (batch, dim), possibly with additional axes of length 1.
pub(super) fn is_embedding(shape: &[i64], dim: usize) -> bool {
    let axes: Vec<i64> = shape.iter().skip(1).copied().filter(|&axis| axis != 1).collect();
    shape.len() >= 2
        && (axes.as_slice() == [dim as i64] || (dim == 1 && axes.is_empty()) || axes.iter().any(|&axis| axis < 0))
}
