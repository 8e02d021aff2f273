//! Networks with automatic differentiation: a backend of [`kinoprobe::models::graph::Graph`] that computes with libtorch.

mod device;
mod file;
mod graph;
mod initialize;
mod parameters;
#[cfg(test)]
mod tests;

pub use device::device;
#[cfg(test)]
pub use file::values as values_of;
pub use file::{load, save};
pub use graph::TorchGraph;
pub use parameters::TorchParameters;
pub(crate) use parameters::is_below;

use kinoprobe::error::{Error, Result};
use tch::{Device, Tensor};

/// Converts the result of a call of libtorch. The message of an exception is reduced to its first line; the others are a
/// stack trace.
///
/// # Errors
/// Returns the error of libtorch.
pub fn torch<T>(result: tch::Result<T>) -> Result<T> {
    result.map_err(|error| {
        let message = error.to_string();
        let line = message.lines().next().unwrap_or_default();
        let line = line.strip_prefix("Internal torch error: ").unwrap_or(line);
        // The messages of the allocators of CUDA and of the CPU.
        Error::Runtime(if line.contains("out of memory") || line.contains("can't allocate memory") {
            format!("libtorch: {line}: lower --batch, --draw or the input size, or use --precision bf16 on CUDA")
        } else {
            format!("libtorch: {line}")
        })
    })
}

/// Returns images (N, C, H, W), or the weights of a 2-D convolution, in the memory format that libtorch's convolutions prefer: channels
/// last on the CPU. Other tensors are returned as they are: with channels last, the gradients of 3-D convolutions are slower.
pub(crate) fn preferred_format(tensor: Tensor) -> Result<Tensor> {
    if tensor.dim() != 4 || tensor.device() != Device::Cpu {
        return Ok(tensor);
    }
    torch(tensor.f_permute([0, 2, 3, 1]).and_then(|tensor| tensor.f_contiguous()?.f_permute([0, 3, 1, 2])))
}

/// Held by tests that seed libtorch's random generator, which all threads share.
#[cfg(test)]
pub(crate) static SEEDING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Converts the shape of a parameter.
fn shape(dimensions: &[usize]) -> Vec<i64> {
    dimensions.iter().map(|length| *length as i64).collect()
}
