//! Updates of parameters in the memory of the CPU.
#![allow(unsafe_code)]

use kinoprobe::classify::optimizer::UpdateRule;
use tch::{Device, Kind, Tensor};

/// Updates a parameter and the moments of its optimizer in one pass over memory; libtorch's functions need one pass per operation.
/// The moments have the memory format of the parameter. Returns `false` and changes nothing if the tensors are not f32
/// values in the CPU's memory.
///
/// # Errors
/// Returns an error if libtorch runs out of memory.
///
/// # Panics
/// Panics if tensors share memory, or differ in their shapes or memory formats.
pub(super) fn update(
    rule: &UpdateRule<f32>,
    parameter: &Tensor,
    gradient: &Tensor,
    moments: &[Tensor],
) -> tch::Result<bool> {
    let suitable = |tensor: &Tensor| tensor.device() == Device::Cpu && tensor.kind() == Kind::Float;
    if !(suitable(parameter) && suitable(gradient) && moments.iter().all(suitable)) {
        return Ok(false);
    }
    let strides = parameter.stride();
    let gradient = if gradient.stride() == strides {
        gradient.shallow_clone()
    } else {
        let mut copy = parameter.f_zeros_like()?;
        copy.f_copy_(gradient)?;
        copy
    };
    let tensors = [Some(parameter), Some(&gradient), moments.first(), moments.get(1)];
    let mut starts = Vec::new();
    for tensor in tensors.into_iter().flatten() {
        assert!(tensor.size() == parameter.size() && tensor.stride() == strides, "the tensors have the same format");
        starts.push(tensor.data_ptr().addr());
    }
    let length = parameter.numel();
    starts.sort_unstable();
    assert!(is_dense(parameter), "the values of a parameter are adjacent");
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= length * size_of::<f32>()), "the tensors do not overlap");
    // SAFETY: a dense f32 tensor on the CPU has `length` values from its address on, the references keep it alive, and the memory of
    // the tensors does not overlap. Only this thread uses them: a step of the optimizer runs after the backward pass.
    let [values, gradient, first, second] = tensors.map(|tensor| match tensor {
        Some(tensor) => unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), length) },
        None => &mut [],
    });
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    rule.apply(values, gradient, first, second, threads);
    Ok(true)
}

/// Returns `true` if the values are adjacent in memory, in any order of the dimensions.
fn is_dense(tensor: &Tensor) -> bool {
    let mut dimensions: Vec<(i64, i64)> = tensor.stride().into_iter().zip(tensor.size()).collect();
    dimensions.retain(|&(_, length)| length != 1);
    dimensions.sort_unstable();
    let mut adjacent = 1;
    dimensions.into_iter().all(|(stride, length)| {
        let found = stride == adjacent;
        adjacent *= length;
        found
    })
}
