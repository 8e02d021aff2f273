//! The interface over which networks are defined, once.
//!
//! A network is a function that is generic over [`Graph`]: it asks for layers, and each layer asks for its parameters
//! by the name and shape they have in the published checkpoint. What comes of it is the backend's affair:
//! [`super::onnx::OnnxGraph`] writes an ONNX file, [`Parameters`] lists the parameters, and an engine with gradients
//! can compute on the spot. Nothing here knows of ONNX.
//!
//! Shapes of activations are written `(batch, channel, …)`; the batch is never known to a definition.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::Checkpoint;
use crate::error::{Error, Result};

/// Standard deviation that a zero-mean layer needs so that its ReLU's output keeps unit variance:
/// 1 / sqrt(1/2 − 1/(2π)), from the variance of a rectified standard normal.
pub const AFTER_RELU: f64 = 1.713_1;
/// Standard deviation for a layer whose input did not pass a ReLU.
pub const AFTER_LINEAR: f64 = 1.0;

/// Level of seeded filters that answer only to how a channel changes within their window: their taps in each channel
/// sum to zero. For the first layer over space or time, so that color and brightness do not drown everything else.
pub const CHANGE: i64 = 0;
/// Level of seeded filters whose taps are independent.
pub const MIXED: i64 = 1;
/// Level of seeded filters that mostly average a channel over their window. For layers behind the first nonlinear one:
/// so what it found outlives the depth.
pub const AVERAGE: i64 = 4;

/// A convolution over the axes after the channel; as many as `kernel` has. Parameters `NAME.weight`
/// `(outputs, inputs / groups, kernel…)` and, where it has one, `NAME.bias` `(outputs)`.
#[derive(Debug, Clone, Copy)]
pub struct Conv<'a> {
    /// Name in the checkpoint, without `.weight`.
    pub name: &'a str,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Kernel size along each axis.
    pub kernel: &'a [usize],
    /// Step along each axis.
    pub stride: &'a [usize],
    /// Zeros before and after, along each axis.
    pub padding: &'a [(usize, usize)],
    /// Distance between the kernel's taps, along each axis.
    pub dilation: &'a [usize],
    /// Groups of channels that do not mix; `inputs` for a depthwise convolution.
    pub groups: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// For seeded weights only: the standard deviation is `gain / sqrt(fan-in)`.
    pub gain: f64,
    /// For seeded weights only: [`CHANGE`], [`MIXED`] or [`AVERAGE`].
    pub level: i64,
}

/// The class token of a vision transformer and what is added to tokens by their place.
#[derive(Debug, Clone, Copy)]
pub struct ClassToken<'a> {
    /// Name of the token's parameter, `(channels)`.
    pub token: &'a str,
    /// Name of the places' parameter, `(tokens, channels)`.
    pub positions: &'a str,
    /// Tokens, the class token among them.
    pub tokens: usize,
    /// Length of a token.
    pub channels: usize,
}

/// What a parameter is to its layer: decides how it is seeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// Of a convolution or linear layer, `(outputs, …)`.
    Weight {
        /// The standard deviation of seeded weights is `gain / sqrt(fan-in)`.
        gain: f64,
        /// By how much the mean of a seeded filter's taps in a channel is magnified.
        level: i64,
    },
    /// Of a convolution or linear layer.
    Bias,
    /// Factor of a normalization.
    NormScale,
    /// Summand of a normalization.
    NormShift,
    /// Mean over the training data.
    RunningMean,
    /// Variance over the training data.
    RunningVariance,
    /// Factor on a residual branch, per channel.
    LayerScale,
    /// A token, or what is added to tokens by their place.
    Embedding,
}

/// A parameter as a definition asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// What it is to its layer.
    pub role: Role,
}

/// A backend: makes layers out of requests.
///
/// # Errors
/// Every method fails where the backend cannot supply the layer's parameters.
pub trait Graph {
    /// An activation.
    type Value: Clone;

    /// Convolution (cross-correlation, as in every deep-learning library).
    fn convolution(&mut self, x: &Self::Value, conv: &Conv) -> Result<Self::Value>;
    /// Batch normalization by running statistics over axis 1. Parameters `NAME.weight`, `.bias`, `.running_mean`,
    /// `.running_var`, each `(channels)`.
    fn batch_norm(&mut self, x: &Self::Value, name: &str, channels: usize, epsilon: f64) -> Result<Self::Value>;
    /// Layer normalization over the last axis. Parameters `NAME.weight`, `.bias`, each `(channels)`.
    fn layer_norm(&mut self, x: &Self::Value, name: &str, channels: usize, epsilon: f64) -> Result<Self::Value>;
    /// Linear layer over the last axis. Parameters `NAME.weight` `(outputs, inputs)` and `NAME.bias` `(outputs)`.
    fn linear(&mut self, x: &Self::Value, name: &str, sizes: (usize, usize), gain: f64) -> Result<Self::Value>;
    /// Linear layer without bias over the last axis. Parameter `NAME.weight` `(outputs, inputs)`.
    fn projection(&mut self, x: &Self::Value, name: &str, sizes: (usize, usize), gain: f64) -> Result<Self::Value>;
    /// Multiplies the last axis by the parameter `name`, whose axes other than the channel have length one.
    fn layer_scale(&mut self, x: &Self::Value, name: &str, shape: &[usize]) -> Result<Self::Value>;
    /// max(x, 0).
    fn relu(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// min(max(x, 0), 6).
    fn relu6(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// x·Φ(x) with the exact Gaussian distribution function (by erf).
    fn gelu(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// x·σ(1.702·x), the logistic approximation of GELU (Hendrycks and Gimpel 2016).
    fn quick_gelu(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// Puts the class token before the others, then adds to each token what belongs to its place:
    /// `(batch, tokens - 1, channels)` → `(batch, tokens, channels)`.
    fn class_token(&mut self, x: &Self::Value, token: &ClassToken) -> Result<Self::Value>;
    /// The token that stands first: `(batch, tokens, channels)` → `(batch, channels)`.
    fn first_token(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// softmax(q·kᵀ / √d)·v in each of `heads` groups of d = `channels / heads` channels; all `(batch, tokens, channels)`
    /// (Vaswani et al. 2017, section 3.2).
    fn attention(&mut self, qkv: [&Self::Value; 3], heads: usize, channels: usize) -> Result<Self::Value>;
    /// Sum of two activations of one shape.
    fn add(&mut self, x: &Self::Value, y: &Self::Value) -> Result<Self::Value>;
    /// Reorders the axes: axis i of the result is axis `axes[i]` of `x`.
    fn permute(&mut self, x: &Self::Value, axes: &[usize]) -> Result<Self::Value>;
    /// Mean over all axes after the channel: `(batch, channel, …)` → `(batch, channel)`.
    fn global_average(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// Mean over `axes`, which go.
    fn mean(&mut self, x: &Self::Value, axes: &[usize]) -> Result<Self::Value>;
    /// Mean over boxes of `kernel` places along the axes after the channel, side by side; a rest at the end is left out.
    fn average_pool(&mut self, x: &Self::Value, kernel: &[usize]) -> Result<Self::Value>;
    /// Merges the axes from `axis` on into one, row-major.
    fn flatten(&mut self, x: &Self::Value, axis: usize) -> Result<Self::Value>;
    /// Joins activations along `axis`, at least 1.
    fn concatenate(&mut self, xs: &[&Self::Value], axis: usize) -> Result<Self::Value>;
    /// Cosine of each frame's vector with those of its neighbors, from `(window - 1) / 2` frames before to as many
    /// after, 0 beyond the ends: `(batch, frames, channels)` → `(batch, frames, window)`. `window` is odd.
    fn neighbor_similarity(&mut self, x: &Self::Value, frames: usize, window: usize) -> Result<Self::Value>;
    /// How many of a frame's pixels have each color, each channel being cut into `levels` equal steps (a power of two):
    /// `(batch, 3, frames, height, width)` of eight-bit values divided by 255 → `(batch, frames, levels³)`, the third
    /// channel's step varying fastest.
    fn color_histogram(&mut self, x: &Self::Value, levels: usize) -> Result<Self::Value>;
}

/// The backend that computes nothing and lists the parameters in the order they are asked for.
#[derive(Debug, Default)]
pub struct Parameters(Vec<Parameter>);

impl Parameters {
    /// The parameters of a definition.
    ///
    /// # Errors
    /// Whatever the definition reports; those here do not fail.
    pub fn of(definition: impl FnOnce(&mut Self) -> Result<()>) -> Result<Vec<Parameter>> {
        let mut parameters = Self::default();
        definition(&mut parameters)?;
        Ok(parameters.0)
    }

    fn push(&mut self, parameters: impl IntoIterator<Item = Parameter>) -> Result<()> {
        self.0.extend(parameters);
        Ok(())
    }
}

fn parameter(name: &str, suffix: &str, shape: &[usize], role: Role) -> Parameter {
    Parameter { name: format!("{name}{suffix}"), shape: shape.to_vec(), role }
}

impl Conv<'_> {
    /// The weight, and the bias where there is one.
    pub(super) fn parameters(&self) -> (Parameter, Option<Parameter>) {
        let mut shape = vec![self.outputs, self.inputs / self.groups];
        shape.extend(self.kernel);
        let weight = parameter(self.name, ".weight", &shape, Role::Weight { gain: self.gain, level: self.level });
        (weight, self.bias.then(|| parameter(self.name, ".bias", &[self.outputs], Role::Bias)))
    }
}

/// Scale, shift, running mean and running variance of a batch normalization.
pub(super) fn batch_norm_parameters(name: &str, channels: usize) -> [Parameter; 4] {
    let [scale, shift] = layer_norm_parameters(name, channels);
    let mean = parameter(name, ".running_mean", &[channels], Role::RunningMean);
    [scale, shift, mean, parameter(name, ".running_var", &[channels], Role::RunningVariance)]
}

/// Scale and shift of a layer normalization.
pub(super) fn layer_norm_parameters(name: &str, channels: usize) -> [Parameter; 2] {
    let scale = parameter(name, ".weight", &[channels], Role::NormScale);
    [scale, parameter(name, ".bias", &[channels], Role::NormShift)]
}

/// Weight and bias of a linear layer.
pub(super) fn linear_parameters(name: &str, (inputs, outputs): (usize, usize), gain: f64) -> [Parameter; 2] {
    let weight = parameter(name, ".weight", &[outputs, inputs], Role::Weight { gain, level: MIXED });
    [weight, parameter(name, ".bias", &[outputs], Role::Bias)]
}

impl ClassToken<'_> {
    /// The token and the places.
    pub(super) fn parameters(&self) -> [Parameter; 2] {
        let token = parameter(self.token, "", &[self.channels], Role::Embedding);
        [token, parameter(self.positions, "", &[self.tokens, self.channels], Role::Embedding)]
    }
}

/// The factor on a residual branch.
pub(super) fn layer_scale_parameter(name: &str, shape: &[usize]) -> Parameter {
    parameter(name, "", shape, Role::LayerScale)
}

impl Graph for Parameters {
    type Value = ();

    fn convolution(&mut self, _: &(), conv: &Conv) -> Result<()> {
        let (weight, bias) = conv.parameters();
        self.push(std::iter::once(weight).chain(bias))
    }
    fn batch_norm(&mut self, _: &(), name: &str, channels: usize, _: f64) -> Result<()> {
        self.push(batch_norm_parameters(name, channels))
    }
    fn layer_norm(&mut self, _: &(), name: &str, channels: usize, _: f64) -> Result<()> {
        self.push(layer_norm_parameters(name, channels))
    }
    fn linear(&mut self, _: &(), name: &str, sizes: (usize, usize), gain: f64) -> Result<()> {
        self.push(linear_parameters(name, sizes, gain))
    }
    fn projection(&mut self, _: &(), name: &str, sizes: (usize, usize), gain: f64) -> Result<()> {
        let [weight, _] = linear_parameters(name, sizes, gain);
        self.push([weight])
    }
    fn class_token(&mut self, _: &(), token: &ClassToken) -> Result<()> {
        self.push(token.parameters())
    }
    fn layer_scale(&mut self, _: &(), name: &str, shape: &[usize]) -> Result<()> {
        self.push([layer_scale_parameter(name, shape)])
    }
    fn relu(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn relu6(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn gelu(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn add(&mut self, _: &(), _: &()) -> Result<()> {
        Ok(())
    }
    fn permute(&mut self, _: &(), _: &[usize]) -> Result<()> {
        Ok(())
    }
    fn global_average(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn quick_gelu(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn first_token(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn attention(&mut self, _: [&(); 3], _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    fn mean(&mut self, _: &(), _: &[usize]) -> Result<()> {
        Ok(())
    }
    fn average_pool(&mut self, _: &(), _: &[usize]) -> Result<()> {
        Ok(())
    }
    fn flatten(&mut self, _: &(), _: usize) -> Result<()> {
        Ok(())
    }
    fn concatenate(&mut self, _: &[&()], _: usize) -> Result<()> {
        Ok(())
    }
    fn neighbor_similarity(&mut self, _: &(), _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    fn color_histogram(&mut self, _: &(), _: usize) -> Result<()> {
        Ok(())
    }
}

/// Checks that a checkpoint has exactly the parameters of a definition, apart from those `is_unused` says belong to
/// a classifier head or to training.
///
/// # Errors
/// Tensors are missing, surplus or of another shape; the sentence names them.
pub fn check_fit(
    checkpoint: &Checkpoint,
    network: &str,
    parameters: &[Parameter],
    is_unused: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    let mut known = BTreeMap::new();
    for parameter in parameters {
        known.insert(parameter.name.as_str(), ());
        match checkpoint.tensors.get(&parameter.name) {
            None => missing.push(parameter.name.clone()),
            Some(tensor) if tensor.shape() != parameter.shape => misshapen.push(format!(
                "{} is {:?} where {:?} belongs",
                parameter.name,
                tensor.shape(),
                parameter.shape
            )),
            Some(_) => {}
        }
    }
    let surplus: Vec<String> = checkpoint
        .tensors
        .keys()
        .filter(|name| !known.contains_key(name.as_str()) && !is_unused(name))
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let faults: Vec<String> = [("missing", missing), ("surplus", surplus), ("misshapen", misshapen)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(fault, names)| format!("{fault}: {}", some_of(&names)))
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::Weights {
        path: checkpoint.path.clone(),
        message: format!("does not fit {network}; {}", faults.join("; ")),
    })
}

/// The first of many names, and how many more there are.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
