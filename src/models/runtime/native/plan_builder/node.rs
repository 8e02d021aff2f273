//! Inputs, outputs and attributes of ONNX nodes.

use super::super::shape::{ConvGeometry, Dhw};
use super::super::step::{PlanError, PlanResult, unsupported};
use crate::models::onnx::proto::{Attribute, NodeProto};

/// Maximum stride and kernel size along an axis.
const MAX_WINDOW: usize = 1 << 16;

/// Reads stride and padding of a convolution or pooling node with this kernel size, which has two or three axes.
pub(super) fn window_geometry(node: &NodeProto, kernel_shape: &[usize]) -> PlanResult<ConvGeometry> {
    let (operator, axes) = (&node.op_type, kernel_shape.len());
    let kernel: Dhw = match *kernel_shape {
        [height, width] => [1, height, width],
        [depth, height, width] => [depth, height, width],
        _ => return unsupported(format!("operator {operator} with a kernel of {axes} axes")),
    };
    if kernel.iter().any(|size| !(1..=MAX_WINDOW).contains(size)) {
        return unsupported(format!("operator {operator} with a kernel of size {kernel_shape:?}"));
    }
    if ints(node, "dilations").iter().any(|&step| step != 1) || attribute(node, "auto_pad").is_some() {
        return unsupported(format!("operator {operator} with dilations or auto_pad"));
    }
    // 2-D values get `default` along the depth.
    let to_dhw = |values: &[i64], name: &str, default: usize, valid: &dyn Fn(usize, usize) -> bool| {
        let mut dhw = [default; 3];
        if values.len() != axes {
            return unsupported(format!("operator {operator} with {name} of {} axes", values.len()));
        }
        for (axis, &value) in (3 - axes..).zip(values) {
            dhw[axis] = match usize::try_from(value) {
                Ok(value) if valid(axis, value) => value,
                _ => return unsupported(format!("operator {operator} with {name} {values:?}")),
            };
        }
        Ok(dhw)
    };
    let strides = ints(node, "strides");
    let stride = match strides {
        [] => [1; 3],
        _ => to_dhw(strides, "strides", 1, &|_, stride| (1..=MAX_WINDOW).contains(&stride))?,
    };
    let pads = ints(node, "pads");
    if !pads.len().is_multiple_of(2) {
        return unsupported(format!("operator {operator} with pads {pads:?}"));
    }
    let (before, after) = pads.split_at(pads.len() / 2);
    let padding = |pads: &[i64]| match pads {
        [] => Ok([0; 3]),
        _ => to_dhw(pads, "pads", 0, &|axis, padding| padding < kernel[axis]),
    };
    Ok(ConvGeometry { kernel, stride, pad_before: padding(before)?, pad_after: padding(after)? })
}

/// Returns the name of a required input.
pub(super) fn input(node: &NodeProto, index: usize) -> PlanResult<&str> {
    optional_input(node, index)
        .ok_or_else(|| PlanError::Mismatch(format!("operator {} without input {index}", node.op_type)))
}

/// Returns the name of an input; ONNX writes a missing one as an empty name.
pub(super) fn optional_input(node: &NodeProto, index: usize) -> Option<&str> {
    node.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
}

/// Returns the name of the first output.
pub(super) fn output(node: &NodeProto) -> PlanResult<&str> {
    let name = node.output.first().map(String::as_str);
    name.ok_or_else(|| PlanError::Mismatch(format!("operator {} without output", node.op_type)))
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a Attribute> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// Returns the values of an integer or integer list attribute; empty if it is missing.
pub(super) fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    attribute(node, name).map_or(&[], |attribute| match &attribute.i {
        Some(value) => std::slice::from_ref(value),
        None => &attribute.ints,
    })
}

pub(super) fn epsilon(node: &NodeProto) -> f32 {
    attribute(node, "epsilon").and_then(|attribute| attribute.f).unwrap_or(1e-5)
}
