//! ResNet: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Parameter names and shapes are those of
//! torchvision's `resnet18` and `resnet50`, in which the 3×3 convolution of a bottleneck has the stride ("ResNet v1.5").
//! The embedding is the input of the classifier.

use crate::error::Result;
use crate::models::graph::{BatchNorm, Conv, Graph, MaxPool};

/// Channels of the 3×3 convolutions in the four layers. All but the first halve height and width.
const LAYERS: [usize; 4] = [64, 128, 256, 512];

/// The residual branch of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Branch {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 convolutions; the last one has four times as many channels.
    Bottleneck,
}

impl Branch {
    /// Output channels of a block relative to its 3×3 convolution.
    fn expansion(self) -> usize {
        match self {
            Branch::Basic => 1,
            Branch::Bottleneck => 4,
        }
    }
}

/// ResNet-18: `(batch, 3, height, width)` → `(batch, 512)`.
///
/// # Errors
/// Returns the errors of the backend.
pub fn resnet18<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    resnet(g, x, Branch::Basic, [2, 2, 2, 2])
}

/// ResNet-50: `(batch, 3, height, width)` → `(batch, 2048)`.
///
/// # Errors
/// Returns the errors of the backend.
pub fn resnet50<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    resnet(g, x, Branch::Bottleneck, [3, 4, 6, 3])
}

/// Returns `true` for tensors of the published checkpoint that the embedding does not need besides the classifier:
/// the batch counters of batch normalizations.
pub fn is_unused(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

fn resnet<G: Graph>(g: &mut G, x: &G::Value, branch: Branch, blocks: [usize; 4]) -> Result<G::Value> {
    let mut y = convolution(g, x, ("conv1", "bn1"), (3, LAYERS[0]), 7, 2)?;
    y = g.relu(&y)?;
    y = g.max_pool(&y, &MaxPool { kernel: &[3, 3], stride: &[2, 2], padding: &[(1, 1), (1, 1)] })?;
    let mut inputs = LAYERS[0];
    for (layer, (channels, blocks)) in LAYERS.into_iter().zip(blocks).enumerate() {
        for index in 0..blocks {
            let stride = if layer > 0 && index == 0 { 2 } else { 1 };
            y = block(g, &y, &format!("layer{}.{index}", layer + 1), branch, (inputs, channels), stride)?;
            inputs = channels * branch.expansion();
        }
    }
    g.global_average(&y)
}

/// Residual block. The shortcut is a strided 1×1 convolution if the shape changes.
fn block<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    branch: Branch,
    (inputs, channels): (usize, usize),
    stride: usize,
) -> Result<G::Value> {
    let outputs = channels * branch.expansion();
    let layer = |g: &mut G, x: &G::Value, index: usize, channels: (usize, usize), kernel: usize, stride: usize| {
        convolution(g, x, (&format!("{name}.conv{index}"), &format!("{name}.bn{index}")), channels, kernel, stride)
    };
    let y = match branch {
        Branch::Basic => {
            let mut y = layer(g, x, 1, (inputs, channels), 3, stride)?;
            y = g.relu(&y)?;
            layer(g, &y, 2, (channels, outputs), 3, 1)?
        }
        Branch::Bottleneck => {
            let mut y = layer(g, x, 1, (inputs, channels), 1, 1)?;
            y = g.relu(&y)?;
            y = layer(g, &y, 2, (channels, channels), 3, stride)?;
            y = g.relu(&y)?;
            layer(g, &y, 3, (channels, outputs), 1, 1)?
        }
    };
    let sum = if stride == 1 && inputs == outputs {
        g.add(&y, x)?
    } else {
        let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
        let shortcut = convolution(g, x, (&conv, &norm), (inputs, outputs), 1, stride)?;
        g.add(&y, &shortcut)?
    };
    g.relu(&sum)
}

/// A convolution without bias, zero-padded to keep the size at stride 1, and its batch normalization.
fn convolution<G: Graph>(
    g: &mut G,
    x: &G::Value,
    (conv, norm): (&str, &str),
    (inputs, outputs): (usize, usize),
    kernel: usize,
    stride: usize,
) -> Result<G::Value> {
    let conv = Conv {
        name: conv,
        inputs,
        outputs,
        kernel: &[kernel; 2],
        stride: &[stride; 2],
        padding: &[(kernel / 2, kernel / 2); 2],
        dilation: &[1, 1],
        groups: 1,
        bias: false,
    };
    let y = g.convolution(x, &conv)?;
    g.batch_norm(&y, &BatchNorm::new(norm, outputs))
}
