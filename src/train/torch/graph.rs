//! The backend that executes layers with libtorch.

use kinoprobe::error::{Error, Result};
use kinoprobe::models::graph::{
    BatchNorm, Conv, Graph, LayerNorm, Linear, MaxPool, Mode, Parameter, TokenEmbedding, layer_scale_parameter,
};
use tch::{Device, Kind, Tensor};

use super::{TorchParameters, torch};

/// A backend that computes activations, and records what automatic differentiation needs for the parameters that are
/// trainable.
///
/// In [`Mode::Train`], batch normalizations update their running statistics in place. Frozen ones, whose scale is not
/// trainable, behave as in [`Mode::Eval`]. Dropout and stochastic depth use libtorch's random generator: seed it with
/// [`tch::manual_seed`] before each step to make steps reproducible.
pub struct TorchGraph<'a> {
    parameters: &'a TorchParameters,
    mode: Mode,
}

impl<'a> TorchGraph<'a> {
    /// Creates a backend that reads `parameters`.
    pub fn new(parameters: &'a TorchParameters, mode: Mode) -> Self {
        Self { parameters, mode }
    }

    fn read(&self, parameter: &Parameter) -> Result<&'a Tensor> {
        self.parameters.get(&parameter.name)
    }

    fn weight_and_bias(
        &self,
        (weight, bias): (Parameter, Option<Parameter>),
    ) -> Result<(&'a Tensor, Option<&'a Tensor>)> {
        Ok((self.read(&weight)?, bias.map(|bias| self.read(&bias)).transpose()?))
    }
}

fn list(lengths: &[usize]) -> Vec<i64> {
    super::shape(lengths)
}

/// Pads the axes after the channel axis.
fn pad(x: &Tensor, padding: &[(usize, usize)], value: f64) -> Result<Tensor> {
    let last_first: Vec<i64> =
        padding.iter().rev().flat_map(|(before, after)| [*before as i64, *after as i64]).collect();
    torch(x.f_pad(last_first, "constant", value))
}

/// Returns the padding if it is the same before and after on every axis.
fn symmetric(padding: &[(usize, usize)]) -> Option<Vec<i64>> {
    padding.iter().map(|(before, after)| (before == after).then_some(*before as i64)).collect()
}

/// Computes a convolution along time, (k, 1, 1), as a 2-D convolution of (time, height · width), which libtorch computes faster on the
/// CPU; the values are the same. Returns `None` for other convolutions, and on other devices.
fn temporal_convolution(
    x: &Tensor,
    conv: &Conv,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Option<tch::Result<Tensor>> {
    let (&[_, 1, 1], &[stride, 1, 1], &[(before, after), (0, 0), (0, 0)]) = (conv.kernel, conv.stride, conv.padding)
    else {
        return None;
    };
    if before != after || x.device() != Device::Cpu {
        return None;
    }
    let (height, width) = (x.size()[3], x.size()[4]);
    let [stride, padding, dilation] = [stride, before, conv.dilation[0]].map(|value| value as i64);
    let run = || {
        let (x, weight) = (x.f_flatten(3, 4)?, weight.f_squeeze_dim(4)?);
        let groups = conv.groups as i64;
        let y = x.f_convolution(&weight, bias, [stride, 1], [padding, 0], [dilation, 1], false, [0, 0], groups)?;
        y.f_unflatten(3, [height, width])
    };
    Some(run())
}

fn unsupported(operator: &str) -> Error {
    Error::Runtime(format!("{operator} is not implemented for training: TransNet V2 cannot be trained"))
}

impl Graph for TorchGraph<'_> {
    type Value = Tensor;

    fn mode(&self) -> Mode {
        self.mode
    }

    fn convolution(&mut self, x: &Tensor, conv: &Conv) -> Result<Tensor> {
        let (weight, bias) = self.weight_and_bias(conv.parameters())?;
        if let Some(y) = temporal_convolution(x, conv, weight, bias) {
            return torch(y);
        }
        let (stride, dilation) = (list(conv.stride), list(conv.dilation));
        let (output_padding, groups) = (vec![0; stride.len()], conv.groups as i64);
        let run = |x: &Tensor, padding: Vec<i64>| {
            torch(x.f_convolution(weight, bias, &stride, padding, &dilation, false, &output_padding, groups))
        };
        match symmetric(conv.padding) {
            Some(padding) => run(x, padding),
            None => run(&pad(x, conv.padding, 0.0)?, vec![0; stride.len()]),
        }
    }

    fn batch_norm(&mut self, x: &Tensor, norm: &BatchNorm) -> Result<Tensor> {
        let parameters = norm.parameters();
        let training = self.mode == Mode::Train && self.parameters.is_trainable(&parameters[0].name)?;
        let [scale, shift, mean, variance] = parameters.map(|parameter| self.read(&parameter));
        let (scale, shift, mean, variance) = (Some(scale?), Some(shift?), Some(mean?), Some(variance?));
        torch(x.f_batch_norm(scale, shift, mean, variance, training, norm.momentum, norm.epsilon, true))
    }

    fn layer_norm(&mut self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let [scale, shift] = norm.parameters().map(|parameter| self.read(&parameter));
        torch(x.f_layer_norm([norm.channels as i64], Some(scale?), Some(shift?), norm.epsilon, true))
    }

    fn linear(&mut self, x: &Tensor, linear: &Linear) -> Result<Tensor> {
        let (weight, bias) = self.weight_and_bias(linear.parameters())?;
        torch(x.f_linear(weight, bias))
    }

    fn layer_scale(&mut self, x: &Tensor, name: &str, shape: &[usize]) -> Result<Tensor> {
        let scale = self.read(&layer_scale_parameter(name, shape))?;
        torch(scale.f_reshape([-1]).and_then(|scale| x.f_mul(&scale)))
    }

    fn relu(&mut self, x: &Tensor) -> Result<Tensor> {
        torch(x.f_relu())
    }

    fn relu6(&mut self, x: &Tensor) -> Result<Tensor> {
        torch(x.f_clamp(0.0, 6.0))
    }

    fn gelu(&mut self, x: &Tensor) -> Result<Tensor> {
        torch(x.f_gelu("none"))
    }

    fn quick_gelu(&mut self, x: &Tensor) -> Result<Tensor> {
        torch(x.f_mul_scalar(1.702).and_then(|y| y.f_sigmoid()).and_then(|gate| x.f_mul(&gate)))
    }

    fn token_embedding(&mut self, x: &Tensor, embedding: &TokenEmbedding) -> Result<Tensor> {
        let [class_token, positions] = embedding.parameters().map(|parameter| self.read(&parameter));
        let (class_token, positions) = (class_token?, positions?);
        let expanded = torch(class_token.f_expand([x.size()[0], 1, embedding.channels as i64], false))?;
        torch(Tensor::f_cat(&[&expanded, x], 1).and_then(|tokens| tokens.f_add(positions)))
    }

    fn first_token(&mut self, x: &Tensor) -> Result<Tensor> {
        torch(x.f_select(1, 0))
    }

    fn attention(&mut self, qkv: [&Tensor; 3], heads: usize, channels: usize) -> Result<Tensor> {
        let (heads, channels) = (heads as i64, channels as i64);
        let split = |x: &Tensor| {
            let size = x.size();
            torch(x.f_reshape([size[0], size[1], heads, channels / heads]).and_then(|x| x.f_transpose(1, 2)))
        };
        let [query, key, value] = qkv.map(split);
        let y =
            Tensor::f_scaled_dot_product_attention::<&Tensor>(&query?, &key?, &value?, None, 0.0, false, None, false);
        let size = qkv[0].size();
        torch(y.and_then(|y| y.f_transpose(1, 2)).and_then(|y| y.f_reshape([size[0], size[1], channels])))
    }

    fn add(&mut self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        torch(x.f_add(y))
    }

    fn permute(&mut self, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
        torch(x.f_permute(list(axes)))
    }

    fn global_average(&mut self, x: &Tensor) -> Result<Tensor> {
        let axes: Vec<i64> = (2..x.dim() as i64).collect();
        torch(x.f_mean_dim(&axes[..], false, None::<Kind>))
    }

    fn mean(&mut self, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
        torch(x.f_mean_dim(&list(axes)[..], false, None::<Kind>))
    }

    fn average_pool(&mut self, x: &Tensor, kernel: &[usize]) -> Result<Tensor> {
        let (kernel, zeros) = (list(kernel), vec![0; kernel.len()]);
        torch(match kernel.len() {
            2 => x.f_avg_pool2d(&kernel, &kernel, &zeros, false, true, None::<i64>),
            3 => x.f_avg_pool3d(&kernel, &kernel, &zeros, false, true, None::<i64>),
            axes => return Err(unsupported(&format!("average pooling over {axes} axes"))),
        })
    }

    fn max_pool(&mut self, x: &Tensor, pool: &MaxPool) -> Result<Tensor> {
        let (kernel, stride, dilation) = (list(pool.kernel), list(pool.stride), vec![1; pool.kernel.len()]);
        let run = |x: &Tensor, padding: Vec<i64>| match kernel.len() {
            2 => torch(x.f_max_pool2d(&kernel, &stride, padding, &dilation, false)),
            3 => torch(x.f_max_pool3d(&kernel, &stride, padding, &dilation, false)),
            axes => Err(unsupported(&format!("max pooling over {axes} axes"))),
        };
        match symmetric(pool.padding) {
            Some(padding) => run(x, padding),
            None => run(&pad(x, pool.padding, f64::NEG_INFINITY)?, vec![0; kernel.len()]),
        }
    }

    fn flatten(&mut self, x: &Tensor, axis: usize) -> Result<Tensor> {
        torch(x.f_flatten(axis as i64, -1))
    }

    fn concatenate(&mut self, xs: &[&Tensor], axis: usize) -> Result<Tensor> {
        torch(Tensor::f_cat(xs, axis as i64))
    }

    fn neighbor_similarity(&mut self, _: &Tensor, _: usize, _: usize) -> Result<Tensor> {
        Err(unsupported("the similarity of neighboring frames"))
    }

    fn color_histogram(&mut self, _: &Tensor, _: usize) -> Result<Tensor> {
        Err(unsupported("the color histogram"))
    }

    fn dropout(&mut self, x: Tensor, p: f64) -> Result<Tensor> {
        if self.mode == Mode::Train && p > 0.0 { torch(x.f_dropout(p, true)) } else { Ok(x) }
    }

    fn stochastic_depth(&mut self, branch: Tensor, p: f64) -> Result<Tensor> {
        if self.mode == Mode::Eval || p == 0.0 {
            return Ok(branch);
        }
        // One factor per item: 0, or 1 / (1 − p).
        let mut size = vec![1; branch.dim()];
        size[0] = branch.size()[0];
        let ones = torch(Tensor::f_ones(size, (branch.kind(), branch.device())))?;
        torch(ones.f_dropout(p, true).and_then(|factors| branch.f_mul(&factors)))
    }
}
