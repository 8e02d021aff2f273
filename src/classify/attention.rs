//! Settings, saved tensors and ONNX export of attention layers, for the classifiers that have one.

use ndarray::{Array1, ArrayView2, Axis, aview1, concatenate, s};

use super::layers::{Attention, Linear};
use super::{Exporter, Tensor, Tensors};
use crate::error::{Error, Result};

/// Checks that a number of units is a multiple of the number of heads, which is at least 1.
pub(super) fn validate_dim(key: &str, heads: usize, dim: Option<usize>) -> std::result::Result<(), String> {
    match dim {
        Some(dim) if dim == 0 || !dim.is_multiple_of(heads) => {
            Err(format!("{key} must be a multiple of the number of heads, {heads}; it is {dim}"))
        }
        _ => Ok(()),
    }
}

/// Returns the number of units of the attention of the classifier `name`: `dim`, or one per feature.
///
/// # Errors
/// Returns an error if it is not a multiple of `heads`.
pub(super) fn width(name: &str, heads: usize, dim: Option<usize>, features: usize) -> Result<usize> {
    let width = dim.unwrap_or(features);
    if width.is_multiple_of(heads) {
        return Ok(width);
    }
    Err(Error::Data(format!(
        "{features} features are not a multiple of {heads} heads; set classify.{name}.heads (--heads) to a divisor, or \
         classify.{name}.dim (--dim) to a multiple of the heads"
    )))
}

/// Names of the projections of `torch.nn.MultiheadAttention` with `kdim` and `vdim`.
const PROJECTIONS: [&str; 3] = ["q_proj_weight", "k_proj_weight", "v_proj_weight"];

/// Returns the tensors of `layer`: those of `torch.nn.MultiheadAttention`, which has one tensor for the three projections if each row
/// has as many features as the layer has units, and the number of heads.
pub(super) fn tensors(layer: &Attention<f32>, prefix: &str) -> Vec<Tensor> {
    let name = |key: &str| format!("{prefix}{key}");
    let biases = [&layer.query, &layer.key, &layer.value].map(|layer| layer.bias.view());
    let biases = concatenate(Axis(0), &biases).expect("biases are vectors");
    let weights = [&layer.query, &layer.key, &layer.value].map(|layer| layer.weight.view());
    let mut tensors = match layer.inputs() == layer.width() {
        true => {
            let weights = concatenate(Axis(0), &weights).expect("the projections have the same inputs");
            vec![Tensor::matrix(&name("in_proj_weight"), weights.view())]
        }
        false => PROJECTIONS.iter().zip(weights).map(|(key, weight)| Tensor::matrix(&name(key), weight)).collect(),
    };
    tensors.extend([
        Tensor::vector(&name("in_proj_bias"), biases.view()),
        Tensor::matrix(&name("out_proj.weight"), layer.output.weight.view()),
        Tensor::vector(&name("out_proj.bias"), layer.output.bias.view()),
        Tensor::vector(&name("heads"), aview1(&[layer.heads() as f32])),
    ]);
    tensors
}

/// Restores a layer from its saved tensors.
///
/// # Errors
/// Returns an error if a tensor is missing or has a wrong shape.
pub(super) fn restore(tensors: &Tensors, prefix: &str) -> Result<Attention<f32>> {
    let name = |key: &str| format!("{prefix}{key}");
    let weight = tensors.matrix(&name("out_proj.weight"))?;
    let width = weight.nrows();
    if weight.ncols() != width {
        return Err(tensors.error(format!("tensor {} must be square", name("out_proj.weight"))));
    }
    let output = Linear::from_parameters(weight, tensors.vector_of(&name("out_proj.bias"), width)?);
    let [query, key, value] = match tensors.contains(&name("in_proj_weight")) {
        true => {
            let weights = tensors.matrix_of(&name("in_proj_weight"), width)?;
            if weights.nrows() != 3 * width {
                return Err(tensors.error(format!("tensor {} must have {} rows", name("in_proj_weight"), 3 * width)));
            }
            [0, 1, 2].map(|i| weights.slice(s![i * width..(i + 1) * width, ..]).to_owned())
        }
        false => {
            let [query, key, value] = PROJECTIONS.map(|key| tensors.matrix(&name(key)));
            [query?, key?, value?]
        }
    };
    if query.dim() != (width, width) || key.nrows() != width || value.dim() != key.dim() {
        return Err(tensors.error("the shapes of the attention weights do not match".into()));
    }
    let heads = tensors.vector_of(&name("heads"), 1)?[0] as usize;
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(tensors.error(format!("tensor {} does not divide the {width} units", name("heads"))));
    }
    let biases: Array1<f32> = tensors.vector_of(&name("in_proj_bias"), 3 * width)?;
    let part = |i: usize| biases.slice(s![i * width..(i + 1) * width]).to_owned();
    let [query, key, value] =
        [(query, 0), (key, 1), (value, 2)].map(|(weight, i)| Linear::from_parameters(weight, part(i)));
    Ok(Attention::from_layers(query, key, value, output, heads))
}

/// Adds the attention of one query, (1, E), to the rows of each clip, `features` (N, time, D), and returns the name of its output,
/// (N, E).
pub(super) fn export_pool(
    graph: &mut Exporter,
    layer: &Attention<f32>,
    prefix: &str,
    query: ArrayView2<'_, f32>,
    features: &str,
) -> String {
    let (heads, inputs, width) = (layer.heads(), layer.inputs(), layer.width());
    let size = width / heads;
    let scorers = layer.scorers_of(query);
    let scorers = graph.constant(Tensor::matrix(&format!("{prefix}scorers"), scorers.t()));
    let scores = graph.node("MatMul", &[features, &scorers]);
    // Attention to the rows, axis 1.
    let weights = graph.softmax_over(&scores, 1);
    let weights = graph.transpose(&weights, &[0, 2, 1]);
    let means = graph.node("MatMul", &[&weights, features]);
    // (N, H, 1, D) · (H, D, E/H).
    let means = graph.reshape(&means, &[0, 0, 1, inputs as i64]);
    let values = layer.value.weight.to_shape((heads, size, inputs)).expect("weights are contiguous");
    let values = values.permuted_axes([0, 2, 1]);
    let value = graph.constant(Tensor {
        name: format!("{prefix}value"),
        shape: vec![heads, inputs, size],
        values: values.iter().copied().collect(),
    });
    let values = graph.node("MatMul", &[&means, &value]);
    let values = graph.reshape(&values, &[0, width as i64]);
    let bias = graph.constant(Tensor::vector(&format!("{prefix}value_bias"), layer.value.bias.view()));
    let values = graph.node("Add", &[&values, &bias]);
    let weight = graph.constant(Tensor::matrix(&format!("{prefix}out_proj.weight"), layer.output.weight.view()));
    let bias = graph.constant(Tensor::vector(&format!("{prefix}out_proj.bias"), layer.output.bias.view()));
    graph.linear(&values, &weight, &bias)
}

/// Adds the attention of the rows of each clip to each other, `rows` (N, time, E), and returns the name of its output, (N, time, E).
pub(super) fn export_attend(graph: &mut Exporter, layer: &Attention<f32>, prefix: &str, rows: &str) -> String {
    let (heads, width) = (layer.heads() as i64, layer.width() as i64);
    let mut project = |key: &str, layer: &Linear<f32>, axes: [usize; 4]| {
        let values = graph.linear_steps(rows, &format!("{prefix}{key}"), layer.weight.view(), layer.bias.view());
        let values = graph.reshape(&values, &[0, 0, heads, width / heads]);
        graph.transpose(&values, &axes)
    };
    let query = project("query", &layer.query, [0, 2, 1, 3]);
    let key = project("key", &layer.key, [0, 2, 3, 1]);
    let value = project("value", &layer.value, [0, 2, 1, 3]);
    let scores = graph.node("MatMul", &[&query, &key]);
    let scale = graph.scalar((heads as f32 / width as f32).sqrt());
    let scores = graph.node("Mul", &[&scores, &scale]);
    let weights = graph.softmax_over(&scores, -1);
    let values = graph.node("MatMul", &[&weights, &value]);
    let values = graph.transpose(&values, &[0, 2, 1, 3]);
    let values = graph.reshape(&values, &[0, 0, width]);
    graph.linear_steps(&values, &format!("{prefix}out_proj"), layer.output.weight.view(), layer.output.bias.view())
}
