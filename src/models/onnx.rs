//! The backend that writes ONNX: layers are collected, norms and scales folded into the layer before them in f64,
//! then lowered to nodes with a dynamic batch.
//!
//! Format: <https://onnx.ai/onnx/repo-docs/IR.html>, messages as numbered in `onnx.proto`.

use prost::Message;

use super::card::Card;
use super::checkpoint::Checkpoint;
use super::graph::{self, ClassToken, Conv, Graph, Parameter};
use super::nets::Architecture;
use super::seeded;
use crate::error::{Error, Result};

mod lowering;
pub(crate) mod proto;

use lowering::Lowering;
use proto::{GraphProto, ModelProto, OperatorSet, ValueInfo};

/// Operator set of the files written: the first with LayerNormalization is 17.
pub const OPSET: i64 = 18;
/// IR version that goes with it.
const IR_VERSION: i64 = 8;

/// Where parameters come from.
#[derive(Debug)]
pub enum Weights<'a> {
    /// A checkpoint that [`graph::check_fit`] has passed.
    Checkpoint(&'a Checkpoint),
    /// Untrained weights.
    Seeded(u64),
}

impl Weights<'_> {
    fn get(&self, parameter: &Parameter) -> Result<Vec<f32>> {
        match self {
            Weights::Seeded(seed) => Ok(seeded::values(parameter, *seed)),
            Weights::Checkpoint(checkpoint) => {
                let tensor = checkpoint.tensors.get(&parameter.name).filter(|t| t.shape() == parameter.shape);
                let tensor = tensor.ok_or_else(|| Error::Weights {
                    path: checkpoint.path.clone(),
                    message: format!("has no tensor {} of shape {:?}", parameter.name, parameter.shape),
                })?;
                tensor.read()
            }
        }
    }
}

/// A card's network with weights, as the bytes of an ONNX file. The same weights give the same bytes.
///
/// # Errors
/// The weights do not fit the architecture (every missing, surplus or misshapen tensor is named), or cannot be read.
pub fn write(card: &Card, architecture: Architecture, weights: Weights) -> Result<Vec<u8>> {
    if let Weights::Checkpoint(checkpoint) = &weights {
        let parameters = architecture.parameters(&card.input);
        graph::check_fit(checkpoint, architecture.name(), &parameters, |name| architecture.is_unused(name))?;
    }
    let mut graph = OnnxGraph { weights, layers: Vec::new() };
    let input = graph.push(Operation::Input, vec![]);
    let output = architecture.build(&mut graph, &input, &card.input)?;
    Ok(graph.lower(card, output).encode_to_vec())
}

/// An activation: the layer that makes it, and how often that had been folded into when it was handed out.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    layer: usize,
    folds: usize,
}

enum Operation {
    Input,
    /// Weight `(outputs, inputs / groups, kernel…)`.
    Convolution {
        shape: Vec<usize>,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        stride: Vec<usize>,
        padding: Vec<(usize, usize)>,
        dilation: Vec<usize>,
        groups: usize,
    },
    BatchNorm {
        parameters: [Vec<f32>; 4],
        epsilon: f64,
    },
    LayerNorm {
        scale: Vec<f32>,
        shift: Vec<f32>,
        epsilon: f64,
    },
    /// Weight `(outputs, inputs)`.
    Linear {
        inputs: usize,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
    Scale(Vec<f32>),
    Relu,
    Relu6,
    Gelu,
    QuickGelu,
    /// A class token and the places, added in one: `(tokens, channels)`.
    ClassToken {
        table: Vec<f32>,
        tokens: usize,
    },
    FirstToken,
    /// Of query, key and value.
    Attention {
        heads: usize,
        head_channels: usize,
    },
    Add,
    Permute(Vec<usize>),
    GlobalAverage,
    Mean(Vec<usize>),
    AveragePool(Vec<usize>),
    Flatten(usize),
    Concatenate(usize),
    NeighborSimilarity {
        frames: usize,
        window: usize,
    },
    ColorHistogram {
        levels: usize,
    },
}

/// A layer in its place.
struct Placed {
    operation: Operation,
    inputs: Vec<usize>,
    /// How many layers read it.
    readers: usize,
    folds: usize,
}

/// See the module.
pub struct OnnxGraph<'a> {
    weights: Weights<'a>,
    layers: Vec<Placed>,
}

impl OnnxGraph<'_> {
    fn push(&mut self, operation: Operation, inputs: Vec<&Value>) -> Value {
        for input in &inputs {
            let read = &mut self.layers[input.layer];
            assert_eq!(read.folds, input.folds, "a network reads an activation after normalizing it in place");
            read.readers += 1;
        }
        let inputs = inputs.into_iter().map(|v| v.layer).collect();
        self.layers.push(Placed { operation, inputs, readers: 0, folds: 0 });
        Value { layer: self.layers.len() - 1, folds: 0 }
    }

    /// The layer that made `x`, to be folded into: only while nothing else has read it.
    fn unread(&mut self, x: &Value) -> Option<&mut Placed> {
        Some(&mut self.layers[x.layer]).filter(|placed| placed.readers == 0)
    }

    /// Applies y = factor · x + offset, per channel, to the layer that made `x`, if that is linear.
    fn fold(&mut self, x: &Value, factor: &[f64], offset: &[f64]) -> Option<Value> {
        let placed = self.unread(x)?;
        let (weight, bias) = match &mut placed.operation {
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
        placed.folds += 1;
        Some(Value { layer: x.layer, folds: placed.folds })
    }
}

impl Graph for OnnxGraph<'_> {
    type Value = Value;

    fn convolution(&mut self, x: &Value, conv: &Conv) -> Result<Value> {
        let (weight, bias) = conv.parameters();
        let operation = Operation::Convolution {
            weight: self.weights.get(&weight)?,
            shape: weight.shape,
            bias: bias.map(|bias| self.weights.get(&bias)).transpose()?,
            stride: conv.stride.to_vec(),
            padding: conv.padding.to_vec(),
            dilation: conv.dilation.to_vec(),
            groups: conv.groups,
        };
        Ok(self.push(operation, vec![x]))
    }

    fn batch_norm(&mut self, x: &Value, name: &str, channels: usize, epsilon: f64) -> Result<Value> {
        let [scale, shift, mean, variance] = graph::batch_norm_parameters(name, channels);
        let [scale, shift] = [self.weights.get(&scale)?, self.weights.get(&shift)?];
        let [mean, variance] = [self.weights.get(&mean)?, self.weights.get(&variance)?];
        let wide = f64::from;
        let factor: Vec<f64> =
            scale.iter().zip(&variance).map(|(s, v)| wide(*s) / (wide(*v) + epsilon).sqrt()).collect();
        let offset: Vec<f64> =
            shift.iter().zip(&mean).zip(&factor).map(|((s, m), f)| wide(*s) - wide(*m) * f).collect();
        Ok(match self.fold(x, &factor, &offset) {
            Some(folded) => folded,
            None => self.push(Operation::BatchNorm { parameters: [scale, shift, mean, variance], epsilon }, vec![x]),
        })
    }

    fn layer_norm(&mut self, x: &Value, name: &str, channels: usize, epsilon: f64) -> Result<Value> {
        let [scale, shift] = graph::layer_norm_parameters(name, channels);
        let operation =
            Operation::LayerNorm { scale: self.weights.get(&scale)?, shift: self.weights.get(&shift)?, epsilon };
        Ok(self.push(operation, vec![x]))
    }

    fn linear(&mut self, x: &Value, name: &str, sizes: (usize, usize), gain: f64) -> Result<Value> {
        let [weight, bias] = graph::linear_parameters(name, sizes, gain);
        let (weight, bias) = (self.weights.get(&weight)?, Some(self.weights.get(&bias)?));
        Ok(self.push(Operation::Linear { inputs: sizes.0, weight, bias }, vec![x]))
    }

    fn projection(&mut self, x: &Value, name: &str, sizes: (usize, usize), gain: f64) -> Result<Value> {
        let [weight, _] = graph::linear_parameters(name, sizes, gain);
        let operation = Operation::Linear { inputs: sizes.0, weight: self.weights.get(&weight)?, bias: None };
        Ok(self.push(operation, vec![x]))
    }

    fn layer_scale(&mut self, x: &Value, name: &str, shape: &[usize]) -> Result<Value> {
        let scale = self.weights.get(&graph::layer_scale_parameter(name, shape))?;
        let factor: Vec<f64> = scale.iter().map(|s| f64::from(*s)).collect();
        Ok(match self.fold_linear(x, &factor) {
            Some(folded) => folded,
            None => self.push(Operation::Scale(scale), vec![x]),
        })
    }

    fn relu(&mut self, x: &Value) -> Result<Value> {
        Ok(self.push(Operation::Relu, vec![x]))
    }

    fn relu6(&mut self, x: &Value) -> Result<Value> {
        Ok(self.push(Operation::Relu6, vec![x]))
    }

    fn gelu(&mut self, x: &Value) -> Result<Value> {
        Ok(self.push(Operation::Gelu, vec![x]))
    }

    fn quick_gelu(&mut self, x: &Value) -> Result<Value> {
        Ok(self.push(Operation::QuickGelu, vec![x]))
    }

    fn class_token(&mut self, x: &Value, token: &ClassToken) -> Result<Value> {
        let [class, positions] = token.parameters();
        let mut table = self.weights.get(&positions)?;
        table.iter_mut().zip(self.weights.get(&class)?).for_each(|(place, class)| *place += class);
        Ok(self.push(Operation::ClassToken { table, tokens: token.tokens }, vec![x]))
    }

    fn first_token(&mut self, x: &Value) -> Result<Value> {
        Ok(self.push(Operation::FirstToken, vec![x]))
    }

    fn attention(&mut self, qkv: [&Value; 3], heads: usize, channels: usize) -> Result<Value> {
        Ok(self.push(Operation::Attention { heads, head_channels: channels / heads }, qkv.to_vec()))
    }

    fn add(&mut self, x: &Value, y: &Value) -> Result<Value> {
        Ok(self.push(Operation::Add, vec![x, y]))
    }

    fn permute(&mut self, x: &Value, axes: &[usize]) -> Result<Value> {
        Ok(self.push(Operation::Permute(axes.to_vec()), vec![x]))
    }

    fn global_average(&mut self, x: &Value) -> Result<Value> {
        Ok(self.push(Operation::GlobalAverage, vec![x]))
    }

    fn mean(&mut self, x: &Value, axes: &[usize]) -> Result<Value> {
        Ok(self.push(Operation::Mean(axes.to_vec()), vec![x]))
    }

    fn average_pool(&mut self, x: &Value, kernel: &[usize]) -> Result<Value> {
        Ok(self.push(Operation::AveragePool(kernel.to_vec()), vec![x]))
    }

    fn flatten(&mut self, x: &Value, axis: usize) -> Result<Value> {
        Ok(self.push(Operation::Flatten(axis), vec![x]))
    }

    fn concatenate(&mut self, xs: &[&Value], axis: usize) -> Result<Value> {
        Ok(self.push(Operation::Concatenate(axis), xs.to_vec()))
    }

    fn neighbor_similarity(&mut self, x: &Value, frames: usize, window: usize) -> Result<Value> {
        Ok(self.push(Operation::NeighborSimilarity { frames, window }, vec![x]))
    }

    fn color_histogram(&mut self, x: &Value, levels: usize) -> Result<Value> {
        Ok(self.push(Operation::ColorHistogram { levels }, vec![x]))
    }
}

impl OnnxGraph<'_> {
    /// A factor on the last axis folds into a linear layer (whose outputs are the last axis), not into a convolution.
    fn fold_linear(&mut self, x: &Value, factor: &[f64]) -> Option<Value> {
        self.unread(x).filter(|placed| matches!(placed.operation, Operation::Linear { .. }))?;
        self.fold(x, factor, &vec![0.0; factor.len()])
    }

    fn lower(self, card: &Card, output: Value) -> ModelProto {
        let mut lowering = Lowering::default();
        let mut names: Vec<String> = Vec::with_capacity(self.layers.len());
        for (index, placed) in self.layers.into_iter().enumerate() {
            let inputs: Vec<&str> = placed.inputs.iter().map(|i| names[*i].as_str()).collect();
            let name = if index == output.layer { card.output.name.clone() } else { format!("v{index}") };
            let name = match placed.operation {
                Operation::Input => card.input.name.clone(),
                operation => {
                    lowering.layer(operation, &inputs, &name);
                    name
                }
            };
            names.push(name);
        }
        let input: Vec<i64> = card.input.shape(1)[1..].iter().map(|d| *d as i64).collect();
        let graph = GraphProto {
            node: lowering.nodes,
            name: card.name.clone(),
            initializer: lowering.initializers,
            input: vec![ValueInfo::batched(&card.input.name, &input)],
            output: vec![ValueInfo::batched(&card.output.name, &[card.output.dim as i64])],
        };
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "kinoprobe".into(),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        }
    }
}
