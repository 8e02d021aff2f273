//! The interface that networks are defined over.
//!
//! A network is a function that is generic over [`Graph`]. It calls one method per layer, and each layer names its
//! parameters as the published checkpoint does. A backend implements the layers: [`super::onnx::OnnxGraph`] writes an
//! ONNX file, [`super::parameters::ParameterList`] lists the parameters, and a backend with automatic differentiation
//! can execute the layers directly. Definitions describe the network only: initialization, precision and execution are
//! left to the backend and to the [`super::parameters::ParameterSource`] that it reads from.
//!
//! Shapes of activations are written `(batch, channel, …)`. The batch size is unknown to definitions.

use crate::error::Result;

/// A convolution over the axes after the channel axis, as many as `kernel` has. Parameters: `NAME.weight`
/// `(outputs, inputs / groups, kernel…)` and, if `bias` is set, `NAME.bias` `(outputs)`.
#[derive(Debug, Clone, Copy)]
pub struct Conv<'a> {
    /// Name of the layer in the checkpoint.
    pub name: &'a str,
    /// Number of input channels.
    pub inputs: usize,
    /// Number of output channels.
    pub outputs: usize,
    /// Kernel size along each axis.
    pub kernel: &'a [usize],
    /// Stride along each axis.
    pub stride: &'a [usize],
    /// Zero padding before and after, along each axis.
    pub padding: &'a [(usize, usize)],
    /// Dilation along each axis.
    pub dilation: &'a [usize],
    /// Number of groups of channels; equals `inputs` for a depthwise convolution.
    pub groups: usize,
    /// `true` if the layer has a bias.
    pub bias: bool,
}

/// A linear layer over the last axis. Parameters: `NAME.weight` `(outputs, inputs)` and, if `bias` is set, `NAME.bias`
/// `(outputs)`.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// Name of the layer in the checkpoint.
    pub name: &'a str,
    /// Number of input features.
    pub inputs: usize,
    /// Number of output features.
    pub outputs: usize,
    /// `true` if the layer has a bias.
    pub bias: bool,
}

/// Batch normalization over axis 1 (Ioffe and Szegedy 2015). Parameters: `NAME.weight`, `NAME.bias`,
/// `NAME.running_mean` and `NAME.running_var`, each `(channels)`.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Name of the layer in the checkpoint.
    pub name: &'a str,
    /// Number of channels.
    pub channels: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// Weight of the new batch in the running statistics, as in PyTorch: `(1 - momentum) · old + momentum · new`. Has no
    /// effect in [`Mode::Eval`].
    pub momentum: f64,
}

/// Layer normalization over the last axis (Ba et al. 2016). Parameters: `NAME.weight` and `NAME.bias`, each `(channels)`.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Name of the layer in the checkpoint.
    pub name: &'a str,
    /// Length of the last axis.
    pub channels: usize,
    /// Added to the variance.
    pub epsilon: f64,
}

/// Max pooling over the axes after the channel axis, as many as `kernel` has. Padding never wins: it counts as −∞.
#[derive(Debug, Clone, Copy)]
pub struct MaxPool<'a> {
    /// Kernel size along each axis.
    pub kernel: &'a [usize],
    /// Stride along each axis.
    pub stride: &'a [usize],
    /// Padding before and after, along each axis.
    pub padding: &'a [(usize, usize)],
}

/// The class token and the position embedding of a vision transformer (Dosovitskiy et al. 2021).
#[derive(Debug, Clone, Copy)]
pub struct TokenEmbedding<'a> {
    /// Name of the class token's parameter, `(channels)`.
    pub class_token: &'a str,
    /// Name of the position embedding's parameter, `(tokens, channels)`.
    pub position_embedding: &'a str,
    /// Number of tokens, including the class token.
    pub tokens: usize,
    /// Length of a token.
    pub channels: usize,
}

/// The role of a parameter in its layer. Initializers depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weight of a convolution or linear layer, `(outputs, inputs, …)`.
    Weight,
    /// Bias of a convolution or linear layer.
    Bias,
    /// Scale of a normalization.
    NormScale,
    /// Shift of a normalization.
    NormShift,
    /// Running mean of a batch normalization.
    RunningMean,
    /// Running variance of a batch normalization.
    RunningVariance,
    /// Per-channel scale of a residual branch (Touvron et al. 2021).
    LayerScale,
    /// A class token or a position embedding.
    Embedding,
}

/// A parameter of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// Role in its layer.
    pub role: Role,
}

/// Whether layers behave as in training or as in inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Batch normalization uses and updates batch statistics; dropout and stochastic depth are active.
    Train,
    /// Batch normalization uses running statistics; dropout and stochastic depth are the identity.
    #[default]
    Eval,
}

/// A backend that implements the layers of a network.
///
/// Layers borrow their inputs, so that an activation can be read several times without copying it.
///
/// # Errors
/// Every method returns an error if the parameters of the layer cannot be read or the layer cannot be executed.
pub trait Graph {
    /// An activation.
    type Value;

    /// Returns the mode of all layers. Backends for inference only keep the default, [`Mode::Eval`].
    fn mode(&self) -> Mode {
        Mode::Eval
    }

    /// Convolution (cross-correlation, as in deep-learning libraries).
    fn convolution(&mut self, x: &Self::Value, conv: &Conv) -> Result<Self::Value>;
    /// Batch normalization, by running statistics in [`Mode::Eval`].
    fn batch_norm(&mut self, x: &Self::Value, norm: &BatchNorm) -> Result<Self::Value>;
    /// Layer normalization.
    fn layer_norm(&mut self, x: &Self::Value, norm: &LayerNorm) -> Result<Self::Value>;
    /// Linear layer.
    fn linear(&mut self, x: &Self::Value, linear: &Linear) -> Result<Self::Value>;
    /// Multiplies the last axis by the parameter `name`, whose axes other than the channel axis have length 1.
    fn layer_scale(&mut self, x: &Self::Value, name: &str, shape: &[usize]) -> Result<Self::Value>;
    /// max(x, 0).
    fn relu(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// min(max(x, 0), 6).
    fn relu6(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// x·Φ(x) with the Gaussian distribution function by erf (Hendrycks and Gimpel 2016).
    fn gelu(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// x·σ(1.702·x), the sigmoid approximation of GELU (Hendrycks and Gimpel 2016).
    fn quick_gelu(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// Prepends the class token and adds the position embedding:
    /// `(batch, tokens - 1, channels)` → `(batch, tokens, channels)`.
    fn token_embedding(&mut self, x: &Self::Value, embedding: &TokenEmbedding) -> Result<Self::Value>;
    /// Selects the first token: `(batch, tokens, channels)` → `(batch, channels)`.
    fn first_token(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// Multi-head attention softmax(q·kᵀ / √d)·v in each of `heads` groups of d = `channels / heads` channels. Query, key,
    /// value and result are `(batch, tokens, channels)` (Vaswani et al. 2017, section 3.2).
    fn attention(&mut self, qkv: [&Self::Value; 3], heads: usize, channels: usize) -> Result<Self::Value>;
    /// Sum of two activations of the same shape.
    fn add(&mut self, x: &Self::Value, y: &Self::Value) -> Result<Self::Value>;
    /// Permutes the axes: axis i of the result is axis `axes[i]` of `x`.
    fn permute(&mut self, x: &Self::Value, axes: &[usize]) -> Result<Self::Value>;
    /// Mean over all axes after the channel axis: `(batch, channel, …)` → `(batch, channel)`.
    fn global_average(&mut self, x: &Self::Value) -> Result<Self::Value>;
    /// Mean over `axes`, which are removed.
    fn mean(&mut self, x: &Self::Value, axes: &[usize]) -> Result<Self::Value>;
    /// Average pooling over the axes after the channel axis, with stride `kernel` and without padding.
    fn average_pool(&mut self, x: &Self::Value, kernel: &[usize]) -> Result<Self::Value>;
    /// Max pooling.
    fn max_pool(&mut self, x: &Self::Value, pool: &MaxPool) -> Result<Self::Value>;
    /// Merges the axes from `axis` on into one, row-major.
    fn flatten(&mut self, x: &Self::Value, axis: usize) -> Result<Self::Value>;
    /// Concatenates activations along `axis`, which is at least 1.
    fn concatenate(&mut self, xs: &[&Self::Value], axis: usize) -> Result<Self::Value>;
    /// Cosine similarity of each frame's vector with those of its neighbors, from `(window - 1) / 2` frames before to as
    /// many after, and 0 beyond the ends: `(batch, frames, channels)` → `(batch, frames, window)`. `window` is odd.
    fn neighbor_similarity(&mut self, x: &Self::Value, frames: usize, window: usize) -> Result<Self::Value>;
    /// Color histogram of each frame, with `levels` equal bins per channel (a power of two):
    /// `(batch, 3, frames, height, width)` of eight-bit values divided by 255 → `(batch, frames, levels³)`, the bin of the
    /// third channel varying fastest.
    fn color_histogram(&mut self, x: &Self::Value, levels: usize) -> Result<Self::Value>;

    /// Dropout (Srivastava et al. 2014): in [`Mode::Train`], zeroes each element with probability `p` and multiplies the
    /// others by 1 / (1 − p). The default implementation is the identity, for inference.
    fn dropout(&mut self, x: Self::Value, p: f64) -> Result<Self::Value> {
        let _ = p;
        Ok(x)
    }

    /// Stochastic depth on a residual branch (Huang et al. 2016): in [`Mode::Train`], zeroes the branch of each item of the
    /// batch with probability `p` and multiplies the others by 1 / (1 − p). The default implementation is the identity,
    /// for inference.
    fn stochastic_depth(&mut self, branch: Self::Value, p: f64) -> Result<Self::Value> {
        let _ = p;
        Ok(branch)
    }
}

fn parameter(name: &str, suffix: &str, shape: &[usize], role: Role) -> Parameter {
    Parameter { name: format!("{name}{suffix}"), shape: shape.to_vec(), role }
}

impl Conv<'_> {
    /// Returns the weight and, if the layer has one, the bias.
    pub fn parameters(&self) -> (Parameter, Option<Parameter>) {
        let mut shape = vec![self.outputs, self.inputs / self.groups];
        shape.extend(self.kernel);
        let bias = self.bias.then(|| parameter(self.name, ".bias", &[self.outputs], Role::Bias));
        (parameter(self.name, ".weight", &shape, Role::Weight), bias)
    }
}

impl<'a> Linear<'a> {
    /// Creates a linear layer with bias.
    pub fn new(name: &'a str, inputs: usize, outputs: usize) -> Self {
        Self { name, inputs, outputs, bias: true }
    }

    /// Creates a linear layer without bias.
    pub fn without_bias(name: &'a str, inputs: usize, outputs: usize) -> Self {
        Self { name, inputs, outputs, bias: false }
    }

    /// Returns the weight and, if the layer has one, the bias.
    pub fn parameters(&self) -> (Parameter, Option<Parameter>) {
        let bias = self.bias.then(|| parameter(self.name, ".bias", &[self.outputs], Role::Bias));
        (parameter(self.name, ".weight", &[self.outputs, self.inputs], Role::Weight), bias)
    }
}

impl<'a> BatchNorm<'a> {
    /// Creates a batch normalization with PyTorch's defaults: epsilon 1e-5 and momentum 0.1.
    pub fn new(name: &'a str, channels: usize) -> Self {
        Self { name, channels, epsilon: 1e-5, momentum: 0.1 }
    }

    /// Returns scale, shift, running mean and running variance.
    pub fn parameters(&self) -> [Parameter; 4] {
        [
            (".weight", Role::NormScale),
            (".bias", Role::NormShift),
            (".running_mean", Role::RunningMean),
            (".running_var", Role::RunningVariance),
        ]
        .map(|(suffix, role)| parameter(self.name, suffix, &[self.channels], role))
    }
}

impl LayerNorm<'_> {
    /// Returns scale and shift.
    pub fn parameters(&self) -> [Parameter; 2] {
        [(".weight", Role::NormScale), (".bias", Role::NormShift)]
            .map(|(suffix, role)| parameter(self.name, suffix, &[self.channels], role))
    }
}

impl TokenEmbedding<'_> {
    /// Returns the class token and the position embedding.
    pub fn parameters(&self) -> [Parameter; 2] {
        let token = parameter(self.class_token, "", &[self.channels], Role::Embedding);
        [token, parameter(self.position_embedding, "", &[self.tokens, self.channels], Role::Embedding)]
    }
}

/// Returns the parameter of [`Graph::layer_scale`].
pub fn layer_scale_parameter(name: &str, shape: &[usize]) -> Parameter {
    parameter(name, "", shape, Role::LayerScale)
}
