//! ConvNeXt-base: Liu et al., "A ConvNet for the 2020s", CVPR 2022. Parameter names and shapes are those of
//! torchvision's `convnext_base`; the embedding is the input of its last linear layer.

use crate::error::Result;
use crate::models::graph::{AFTER_LINEAR, AFTER_RELU, AVERAGE, CHANGE, Conv, Graph, MIXED};

/// Channels and blocks of the four stages.
const STAGES: [(usize, usize); 4] = [(128, 3), (256, 3), (512, 27), (1024, 3)];
const EPSILON: f64 = 1e-6;
/// `(batch, channel, height, width)` → channels last, and back.
const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];
const CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];

/// `(batch, 3, height, width)` → `(batch, 1024)`: average pool, layer normalization, flatten.
///
/// # Errors
/// Those of the backend.
pub fn convnext_base<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    let mut x = patches(g, x, "features.0.0", (3, STAGES[0].0), 4, CHANGE)?;
    x = norm(g, &x, "features.0.1", STAGES[0].0)?;
    for (stage, (channels, blocks)) in STAGES.into_iter().enumerate() {
        if stage > 0 {
            let narrower = STAGES[stage - 1].0;
            let name = format!("features.{}", 2 * stage);
            x = norm(g, &x, &format!("{name}.0"), narrower)?;
            x = patches(g, &x, &format!("{name}.1"), (narrower, channels), 2, AVERAGE)?;
        }
        for index in 0..blocks {
            x = block(g, &x, &format!("features.{}.{index}", 2 * stage + 1), channels)?;
        }
    }
    let pooled = g.global_average(&x)?;
    g.layer_norm(&pooled, "classifier.0", STAGES[3].0, EPSILON)
}

/// Tensors of the published checkpoint that the embedding does not need: the classifier.
pub fn is_unused(name: &str) -> bool {
    matches!(name, "classifier.2.weight" | "classifier.2.bias")
}

/// Convolution of square patches that do not overlap.
fn patches<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, outputs): (usize, usize),
    side: usize,
    level: i64,
) -> Result<G::Value> {
    let conv = Conv {
        name,
        inputs,
        outputs,
        kernel: &[side, side],
        stride: &[side, side],
        padding: &[(0, 0), (0, 0)],
        dilation: &[1, 1],
        groups: 1,
        bias: true,
        gain: AFTER_LINEAR,
        level,
    };
    g.convolution(x, &conv)
}

/// Layer normalization over the channels of `(batch, channel, height, width)`.
fn norm<G: Graph>(g: &mut G, x: &G::Value, name: &str, channels: usize) -> Result<G::Value> {
    let last = g.permute(x, &CHANNELS_LAST)?;
    let normed = g.layer_norm(&last, name, channels, EPSILON)?;
    g.permute(&normed, &CHANNELS_FIRST)
}

fn block<G: Graph>(g: &mut G, x: &G::Value, name: &str, channels: usize) -> Result<G::Value> {
    let part = |n: usize| format!("{name}.block.{n}");
    let depthwise = Conv {
        name: &part(0),
        inputs: channels,
        outputs: channels,
        kernel: &[7, 7],
        stride: &[1, 1],
        padding: &[(3, 3), (3, 3)],
        dilation: &[1, 1],
        groups: channels,
        bias: true,
        gain: AFTER_LINEAR,
        level: MIXED,
    };
    let mut y = g.convolution(x, &depthwise)?;
    y = g.permute(&y, &CHANNELS_LAST)?;
    y = g.layer_norm(&y, &part(2), channels, EPSILON)?;
    y = g.linear(&y, &part(3), (channels, 4 * channels), AFTER_LINEAR)?;
    y = g.gelu(&y)?;
    y = g.linear(&y, &part(5), (4 * channels, channels), AFTER_RELU)?;
    y = g.layer_scale(&y, &format!("{name}.layer_scale"), &[channels, 1, 1])?;
    y = g.permute(&y, &CHANNELS_FIRST)?;
    g.add(&y, x)
}
