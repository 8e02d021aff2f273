//! ConvNeXt-base: Liu et al., "A ConvNet for the 2020s", CVPR 2022. Parameter names and shapes are those of
//! torchvision's `convnext_base`. The embedding is the input of its last linear layer.

use crate::error::Result;
use crate::models::graph::{Conv, Graph, LayerNorm, Linear};

/// Channels and number of blocks of the four stages.
const STAGES: [(usize, usize); 4] = [(128, 3), (256, 3), (512, 27), (1024, 3)];
const EPSILON: f64 = 1e-6;
/// Stochastic depth probability of the last block; it increases linearly from 0 at the first block.
const STOCHASTIC_DEPTH: f64 = 0.5;
/// Permutes `(batch, channel, height, width)` to `(batch, height, width, channel)`.
const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];
/// The inverse of [`CHANNELS_LAST`].
const CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];

/// `(batch, 3, height, width)` → `(batch, 1024)`: average pooling and layer normalization of the last feature map.
///
/// # Errors
/// Returns the errors of the backend.
pub fn convnext_base<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    let total_blocks: usize = STAGES.iter().map(|(_, blocks)| blocks).sum();
    let mut block_index = 0;
    let mut x = patch_convolution(g, x, "features.0.0", (3, STAGES[0].0), 4)?;
    x = channel_norm(g, &x, "features.0.1", STAGES[0].0)?;
    for (stage, (channels, blocks)) in STAGES.into_iter().enumerate() {
        if stage > 0 {
            let inputs = STAGES[stage - 1].0;
            let name = format!("features.{}", 2 * stage);
            x = channel_norm(g, &x, &format!("{name}.0"), inputs)?;
            x = patch_convolution(g, &x, &format!("{name}.1"), (inputs, channels), 2)?;
        }
        for index in 0..blocks {
            let drop = STOCHASTIC_DEPTH * block_index as f64 / (total_blocks - 1) as f64;
            x = block(g, &x, &format!("features.{}.{index}", 2 * stage + 1), channels, drop)?;
            block_index += 1;
        }
    }
    let pooled = g.global_average(&x)?;
    g.layer_norm(&pooled, &LayerNorm { name: "classifier.0", channels: STAGES[3].0, epsilon: EPSILON })
}

/// Convolution with a stride equal to the kernel size: non-overlapping patches of `size` × `size`.
fn patch_convolution<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, outputs): (usize, usize),
    size: usize,
) -> Result<G::Value> {
    let conv = Conv {
        name,
        inputs,
        outputs,
        kernel: &[size, size],
        stride: &[size, size],
        padding: &[(0, 0), (0, 0)],
        dilation: &[1, 1],
        groups: 1,
        bias: true,
    };
    g.convolution(x, &conv)
}

/// Layer normalization over the channels of `(batch, channel, height, width)`.
fn channel_norm<G: Graph>(g: &mut G, x: &G::Value, name: &str, channels: usize) -> Result<G::Value> {
    let last = g.permute(x, &CHANNELS_LAST)?;
    let normed = g.layer_norm(&last, &LayerNorm { name, channels, epsilon: EPSILON })?;
    g.permute(&normed, &CHANNELS_FIRST)
}

/// Residual block: depthwise 7×7 convolution, layer normalization, and an inverted bottleneck of linear layers.
/// `drop` is the probability of stochastic depth.
fn block<G: Graph>(g: &mut G, x: &G::Value, name: &str, channels: usize, drop: f64) -> Result<G::Value> {
    let layer_name = |index: usize| format!("{name}.block.{index}");
    let depthwise = Conv {
        name: &layer_name(0),
        inputs: channels,
        outputs: channels,
        kernel: &[7, 7],
        stride: &[1, 1],
        padding: &[(3, 3), (3, 3)],
        dilation: &[1, 1],
        groups: channels,
        bias: true,
    };
    let mut y = g.convolution(x, &depthwise)?;
    y = g.permute(&y, &CHANNELS_LAST)?;
    y = g.layer_norm(&y, &LayerNorm { name: &layer_name(2), channels, epsilon: EPSILON })?;
    y = g.linear(&y, &Linear::new(&layer_name(3), channels, 4 * channels))?;
    y = g.gelu(&y)?;
    y = g.linear(&y, &Linear::new(&layer_name(5), 4 * channels, channels))?;
    y = g.layer_scale(&y, &format!("{name}.layer_scale"), &[channels, 1, 1])?;
    y = g.permute(&y, &CHANNELS_FIRST)?;
    y = g.stochastic_depth(y, drop)?;
    g.add(&y, x)
}
