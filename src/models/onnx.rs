//! The backend that writes ONNX: layers are collected, normalizations and scales are folded into the preceding layer in
//! f64, and the result is lowered to nodes with a dynamic batch size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use prost::Message as _;

use super::card::Card;
use super::graph::{self, BatchNorm, Conv, Graph, LayerNorm, Linear, MaxPool, TokenEmbedding};
use super::nets::Architecture;
use super::nets::head::Head;
use super::parameters::ParameterSource;
use super::precision::Precision;
use crate::error::{Error, Result};

pub(crate) mod builder;
pub(crate) mod fields;
mod lowering;
mod operation;
pub mod pixel_input;
pub(crate) mod proto;

use builder::GraphBuilder;
use fields::{Field, FieldReader};
use lowering::Lowering;
use operation::Operation;
use proto::{ModelProperties, StringEntry, ValueInfo};

/// Writes the network of a card with parameters from `source`, and returns the bytes of an ONNX file. Equal parameters
/// give equal bytes.
///
/// # Errors
/// Returns an error if the parameters do not match the architecture (it names all missing, unexpected and misshapen
/// tensors) or cannot be read.
pub fn write(card: &Card, architecture: Architecture, source: &dyn ParameterSource) -> Result<Vec<u8>> {
    write_with_head(card, architecture, None, source)
}

/// Writes the network of a card like [`write`], for [`Precision::Fp16`] in half precision. Input and output are f32.
///
/// # Errors
/// Returns an error under the conditions of [`write`], or if the network or a parameter needs more than half precision.
pub fn write_in(
    precision: Precision,
    card: &Card,
    architecture: Architecture,
    source: &dyn ParameterSource,
) -> Result<Vec<u8>> {
    let (graph, output) = build(card, architecture, None, source)?;
    if precision != Precision::Fp16 {
        return Ok(finish(graph.lower(card, output), card));
    }
    let unsupported = |reason: String| Error::Config {
        path: card.path(),
        message: format!("the network does not support precision fp16: {reason}; use tf32"),
    };
    if graph.layers.iter().any(|layer| matches!(layer.operation, Operation::ColorHistogram { .. })) {
        return Err(unsupported("its color histograms need f32".into()));
    }
    let half = graph.lower(card, output).into_half_precision(&card.input.name, &card.output.name);
    let graph = half.map_err(|constant| unsupported(format!("{constant} has a value beyond its range, 65504")))?;
    Ok(finish(graph, card))
}

/// Writes the network of a card with a classifier head, like [`write`]. The output of the card is that of the head.
///
/// # Errors
/// Returns an error under the conditions of [`write`].
pub fn write_with_head(
    card: &Card,
    architecture: Architecture,
    head: Option<&Head>,
    source: &dyn ParameterSource,
) -> Result<Vec<u8>> {
    let (graph, output) = build(card, architecture, head, source)?;
    Ok(finish(graph.lower(card, output), card))
}

/// Collects the layers of a network; returns its output too.
fn build<'a>(
    card: &Card,
    architecture: Architecture,
    head: Option<&Head>,
    source: &'a dyn ParameterSource,
) -> Result<(OnnxGraph<'a>, Activation)> {
    let mut parameters = architecture.parameters(&card.input);
    parameters.extend(head.into_iter().flat_map(Head::parameters));
    source.check(architecture.name(), &parameters, &|name| architecture.is_unused(name))?;
    let mut graph = OnnxGraph { source, layers: Vec::new() };
    let input = graph.push(Operation::Input, vec![]);
    let mut output = architecture.build(&mut graph, &input, &card.input)?;
    if let Some(head) = head {
        output = head.build(&mut graph, output)?;
    }
    Ok((graph, output))
}

fn finish(graph: GraphBuilder, card: &Card) -> Vec<u8> {
    let input: Vec<i64> = card.input.shape(1)[1..].iter().map(|d| *d as i64).collect();
    graph.finish(
        &card.name,
        ValueInfo::batched(&card.input.name, &input),
        ValueInfo::batched(&card.output.name, &[card.output.dim as i64]),
    )
}

/// Property of ONNX files: the precision of a network that is not f32.
pub const PRECISION_PROPERTY: &str = "kinoprobe.precision";

/// Appends properties to the bytes of an ONNX file, its `metadata_props`. Of two serialized messages, the concatenation is the
/// union (protobuf encoding, "Last One Wins").
pub fn append_properties(file: &mut Vec<u8>, properties: &BTreeMap<String, String>) {
    let entry = |(key, value): (&String, &String)| StringEntry { key: key.clone(), value: value.clone() };
    let message = ModelProperties { metadata_props: properties.iter().map(entry).collect() };
    file.extend(message.encode_to_vec());
}

/// Reads the properties of an ONNX file.
///
/// # Errors
/// Returns an error if the file cannot be read or is not an ONNX file.
pub fn read_properties(path: &Path) -> Result<BTreeMap<String, String>> {
    let file = File::open(path).map_err(Error::io(path))?;
    read_entries(file).map_err(|error| match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            Error::Weights { path: path.into(), message: format!("not an ONNX file: {error}") }
        }
        _ => Error::io(path)(error),
    })
}

/// Reads field 14 of `ModelProto` and skips the others: weights would need much memory.
fn read_entries(file: File) -> std::io::Result<BTreeMap<String, String>> {
    let (mut reader, mut properties) = (FieldReader::new(file)?, BTreeMap::new());
    while let Some(field) = reader.next_field()? {
        match field {
            Field::Bytes(14, length) => {
                let StringEntry { key, value } = reader.read_message(length)?;
                properties.insert(key, value);
            }
            Field::Bytes(_, length) => reader.skip(length)?,
            Field::Integer(..) | Field::Skipped => {}
        }
    }
    Ok(properties)
}

/// An activation: the layer that outputs it, and how often that layer had been folded into at that time.
#[derive(Debug, Clone, Copy)]
pub struct Activation {
    layer: usize,
    folds: usize,
}

/// A layer and its inputs.
struct Layer {
    operation: Operation,
    inputs: Vec<usize>,
    /// Number of layers that read the output.
    readers: usize,
    /// Number of normalizations and scales that were folded into the layer.
    folds: usize,
}

/// The backend that collects layers and writes them as ONNX.
pub struct OnnxGraph<'a> {
    source: &'a dyn ParameterSource,
    layers: Vec<Layer>,
}

impl OnnxGraph<'_> {
    fn push(&mut self, operation: Operation, inputs: Vec<&Activation>) -> Activation {
        for input in &inputs {
            let layer = &mut self.layers[input.layer];
            assert_eq!(layer.folds, input.folds, "a definition reads an activation after normalizing it");
            layer.readers += 1;
        }
        let inputs = inputs.into_iter().map(|v| v.layer).collect();
        self.layers.push(Layer { operation, inputs, readers: 0, folds: 0 });
        Activation { layer: self.layers.len() - 1, folds: 0 }
    }

    /// Returns the layer that outputs `x`, for folding, if no other layer reads it.
    fn unread(&mut self, x: &Activation) -> Option<&mut Layer> {
        Some(&mut self.layers[x.layer]).filter(|layer| layer.readers == 0)
    }

    /// Folds y = factor · x + offset, per channel, into the layer that outputs `x`, if that layer is linear.
    fn fold(&mut self, x: &Activation, factor: &[f64], offset: &[f64]) -> Option<Activation> {
        let layer = self.unread(x)?;
        let (weight, bias) = match &mut layer.operation {
            Operation::Convolution { weight, bias, .. } | Operation::Linear { weight, bias, .. } => {
                (weight, bias.get_or_insert_with(|| vec![0.0; factor.len()]))
            }
            _ => return None,
        };
        let fan_in = weight.len() / factor.len();
        for (filter, factor) in weight.chunks_mut(fan_in).zip(factor) {
            filter.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
        }
        for ((b, factor), offset) in bias.iter_mut().zip(factor).zip(offset) {
            *b = (f64::from(*b) * factor + offset) as f32;
        }
        layer.folds += 1;
        Some(Activation { layer: x.layer, folds: layer.folds })
    }

    /// Folds a factor on the last axis into a linear layer, whose outputs are on that axis.
    fn fold_linear(&mut self, x: &Activation, factor: &[f64]) -> Option<Activation> {
        self.unread(x).filter(|layer| matches!(layer.operation, Operation::Linear { .. }))?;
        self.fold(x, factor, &vec![0.0; factor.len()])
    }

    fn lower(self, card: &Card, output: Activation) -> GraphBuilder {
        let mut lowering = Lowering::default();
        let mut names: Vec<String> = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.into_iter().enumerate() {
            let inputs: Vec<&str> = layer.inputs.iter().map(|i| names[*i].as_str()).collect();
            let name = if index == output.layer { card.output.name.clone() } else { format!("v{index}") };
            let name = match layer.operation {
                Operation::Input => card.input.name.clone(),
                operation => {
                    lowering.layer(operation, &inputs, &name);
                    name
                }
            };
            names.push(name);
        }
        lowering.graph
    }
}

impl Graph for OnnxGraph<'_> {
    type Value = Activation;

    fn convolution(&mut self, x: &Activation, conv: &Conv) -> Result<Activation> {
        let (weight, bias) = conv.parameters();
        let operation = Operation::Convolution {
            weight: self.source.read(&weight)?,
            shape: weight.shape,
            bias: bias.map(|bias| self.source.read(&bias)).transpose()?,
            stride: conv.stride.to_vec(),
            padding: conv.padding.to_vec(),
            dilation: conv.dilation.to_vec(),
            groups: conv.groups,
        };
        Ok(self.push(operation, vec![x]))
    }

    fn batch_norm(&mut self, x: &Activation, norm: &BatchNorm) -> Result<Activation> {
        let [scale, shift, mean, variance] = norm.parameters();
        let [scale, shift] = [self.source.read(&scale)?, self.source.read(&shift)?];
        let [mean, variance] = [self.source.read(&mean)?, self.source.read(&variance)?];
        let wide = f64::from;
        let factor: Vec<f64> =
            scale.iter().zip(&variance).map(|(s, v)| wide(*s) / (wide(*v) + norm.epsilon).sqrt()).collect();
        let offset: Vec<f64> =
            shift.iter().zip(&mean).zip(&factor).map(|((s, m), f)| wide(*s) - wide(*m) * f).collect();
        Ok(match self.fold(x, &factor, &offset) {
            Some(folded) => folded,
            None => {
                let parameters = [scale, shift, mean, variance];
                self.push(Operation::BatchNorm { parameters, epsilon: norm.epsilon }, vec![x])
            }
        })
    }

    fn layer_norm(&mut self, x: &Activation, norm: &LayerNorm) -> Result<Activation> {
        let [scale, shift] = norm.parameters();
        let (scale, shift) = (self.source.read(&scale)?, self.source.read(&shift)?);
        Ok(self.push(Operation::LayerNorm { scale, shift, epsilon: norm.epsilon }, vec![x]))
    }

    fn linear(&mut self, x: &Activation, linear: &Linear) -> Result<Activation> {
        let (weight, bias) = linear.parameters();
        let operation = Operation::Linear {
            inputs: linear.inputs,
            weight: self.source.read(&weight)?,
            bias: bias.map(|bias| self.source.read(&bias)).transpose()?,
        };
        Ok(self.push(operation, vec![x]))
    }

    fn layer_scale(&mut self, x: &Activation, name: &str, shape: &[usize]) -> Result<Activation> {
        let scale = self.source.read(&graph::layer_scale_parameter(name, shape))?;
        let factor: Vec<f64> = scale.iter().map(|s| f64::from(*s)).collect();
        Ok(match self.fold_linear(x, &factor) {
            Some(folded) => folded,
            None => self.push(Operation::Scale(scale), vec![x]),
        })
    }

    fn relu(&mut self, x: &Activation) -> Result<Activation> {
        Ok(self.push(Operation::Relu, vec![x]))
    }

    fn relu6(&mut self, x: &Activation) -> Result<Activation> {
        Ok(self.push(Operation::Relu6, vec![x]))
    }

    fn gelu(&mut self, x: &Activation) -> Result<Activation> {
        Ok(self.push(Operation::Gelu, vec![x]))
    }

    fn quick_gelu(&mut self, x: &Activation) -> Result<Activation> {
        Ok(self.push(Operation::QuickGelu, vec![x]))
    }

    fn token_embedding(&mut self, x: &Activation, embedding: &TokenEmbedding) -> Result<Activation> {
        let [class_token, positions] = embedding.parameters();
        let mut table = self.source.read(&positions)?;
        table.iter_mut().zip(self.source.read(&class_token)?).for_each(|(position, class)| *position += class);
        Ok(self.push(Operation::TokenEmbedding { table, tokens: embedding.tokens }, vec![x]))
    }

    fn first_token(&mut self, x: &Activation) -> Result<Activation> {
        Ok(self.push(Operation::FirstToken, vec![x]))
    }

    fn attention(&mut self, qkv: [&Activation; 3], heads: usize, channels: usize) -> Result<Activation> {
        Ok(self.push(Operation::Attention { heads, head_channels: channels / heads }, qkv.to_vec()))
    }

    fn add(&mut self, x: &Activation, y: &Activation) -> Result<Activation> {
        Ok(self.push(Operation::Add, vec![x, y]))
    }

    fn permute(&mut self, x: &Activation, axes: &[usize]) -> Result<Activation> {
        Ok(self.push(Operation::Permute(axes.to_vec()), vec![x]))
    }

    fn global_average(&mut self, x: &Activation) -> Result<Activation> {
        Ok(self.push(Operation::GlobalAverage, vec![x]))
    }

    fn mean(&mut self, x: &Activation, axes: &[usize]) -> Result<Activation> {
        Ok(self.push(Operation::Mean(axes.to_vec()), vec![x]))
    }

    fn average_pool(&mut self, x: &Activation, kernel: &[usize]) -> Result<Activation> {
        Ok(self.push(Operation::AveragePool(kernel.to_vec()), vec![x]))
    }

    fn max_pool(&mut self, x: &Activation, pool: &MaxPool) -> Result<Activation> {
        let operation = Operation::MaxPool {
            kernel: pool.kernel.to_vec(),
            stride: pool.stride.to_vec(),
            padding: pool.padding.to_vec(),
        };
        Ok(self.push(operation, vec![x]))
    }

    fn flatten(&mut self, x: &Activation, axis: usize) -> Result<Activation> {
        Ok(self.push(Operation::Flatten(axis), vec![x]))
    }

    fn concatenate(&mut self, xs: &[&Activation], axis: usize) -> Result<Activation> {
        Ok(self.push(Operation::Concatenate(axis), xs.to_vec()))
    }

    fn neighbor_similarity(&mut self, x: &Activation, frames: usize, window: usize) -> Result<Activation> {
        Ok(self.push(Operation::NeighborSimilarity { frames, window }, vec![x]))
    }

    fn color_histogram(&mut self, x: &Activation, levels: usize) -> Result<Activation> {
        Ok(self.push(Operation::ColorHistogram { levels }, vec![x]))
    }
}
