//! R(2+1)D: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
//! Parameter names are those of torchvision's `r2plus1d_18`. The embedding is the input of its classifier.

use crate::error::Result;
use crate::models::graph::{BatchNorm, Conv, Graph};

/// Sizes of a network.
struct Sizes {
    /// Channels between the two convolutions of the stem.
    stem: usize,
    /// Channels of the four layers. All but the first halve time, height and width.
    layers: [usize; 4],
    /// Blocks per layer.
    blocks: usize,
}

/// R(2+1)D-18 as in torchvision: `(batch, 3, frame, height, width)` → `(batch, 512)`.
///
/// # Errors
/// Returns the errors of the backend.
pub fn r2plus1d_18<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    r2plus1d(g, x, &Sizes { stem: 45, layers: [64, 128, 256, 512], blocks: 2 })
}

/// A small network to train from scratch, with a quarter of the channels and half of the blocks of R(2+1)D-18:
/// `(batch, 3, frame, height, width)` → `(batch, 128)`.
///
/// # Errors
/// Returns the errors of the backend.
pub fn r2plus1d_tiny<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    r2plus1d(g, x, &Sizes { stem: 11, layers: [16, 32, 64, 128], blocks: 1 })
}

fn r2plus1d<G: Graph>(g: &mut G, x: &G::Value, sizes: &Sizes) -> Result<G::Value> {
    let mut inputs = sizes.layers[0];
    let spatial = Conv {
        name: "stem.0",
        inputs: 3,
        outputs: sizes.stem,
        kernel: &[1, 7, 7],
        stride: &[1, 2, 2],
        padding: &[(0, 0), (3, 3), (3, 3)],
        dilation: &[1, 1, 1],
        groups: 1,
        bias: false,
    };
    let mut y = g.convolution(x, &spatial)?;
    y = g.batch_norm(&y, &BatchNorm::new("stem.1", sizes.stem))?;
    y = g.relu(&y)?;
    y = temporal_convolution(g, &y, "stem.3", (sizes.stem, inputs), 1)?;
    y = g.batch_norm(&y, &BatchNorm::new("stem.4", inputs))?;
    y = g.relu(&y)?;
    for (layer, outputs) in sizes.layers.into_iter().enumerate() {
        for index in 0..sizes.blocks {
            let stride = if layer > 0 && index == 0 { 2 } else { 1 };
            y = block(g, &y, &format!("layer{}.{index}", layer + 1), (inputs, outputs), stride)?;
            inputs = outputs;
        }
    }
    g.global_average(&y)
}

/// Returns `true` for tensors of the published checkpoint that the embedding does not need besides the classifier:
/// the batch counters of batch normalizations.
pub fn is_unused(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

/// Residual block of two factorized convolutions. The shortcut is a strided convolution if the shape changes.
fn block<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, outputs): (usize, usize),
    stride: usize,
) -> Result<G::Value> {
    // The factorized convolution has as many parameters as one 3×3×3 convolution.
    let middle = inputs * outputs * 27 / (inputs * 9 + outputs * 3);
    let mut y = factorized_convolution(g, x, &format!("{name}.conv1"), (inputs, middle, outputs), stride)?;
    y = g.relu(&y)?;
    y = factorized_convolution(g, &y, &format!("{name}.conv2"), (outputs, middle, outputs), 1)?;
    let sum = if stride == 1 && inputs == outputs {
        g.add(&y, x)?
    } else {
        let conv = Conv {
            name: &format!("{name}.downsample.0"),
            inputs,
            outputs,
            kernel: &[1, 1, 1],
            stride: &[stride, stride, stride],
            padding: &[(0, 0); 3],
            dilation: &[1, 1, 1],
            groups: 1,
            bias: false,
        };
        let shortcut = g.convolution(x, &conv)?;
        let shortcut = g.batch_norm(&shortcut, &BatchNorm::new(&format!("{name}.downsample.1"), outputs))?;
        g.add(&y, &shortcut)?
    };
    g.relu(&sum)
}

/// A spatial 1×3×3 convolution and a temporal 3×1×1 convolution, each with batch normalization, and a ReLU in between.
fn factorized_convolution<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, middle, outputs): (usize, usize, usize),
    stride: usize,
) -> Result<G::Value> {
    let spatial = Conv {
        name: &format!("{name}.0.0"),
        inputs,
        outputs: middle,
        kernel: &[1, 3, 3],
        stride: &[1, stride, stride],
        padding: &[(0, 0), (1, 1), (1, 1)],
        dilation: &[1, 1, 1],
        groups: 1,
        bias: false,
    };
    let mut y = g.convolution(x, &spatial)?;
    y = g.batch_norm(&y, &BatchNorm::new(&format!("{name}.0.1"), middle))?;
    y = g.relu(&y)?;
    y = temporal_convolution(g, &y, &format!("{name}.0.3"), (middle, outputs), stride)?;
    g.batch_norm(&y, &BatchNorm::new(&format!("{name}.1"), outputs))
}

fn temporal_convolution<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, outputs): (usize, usize),
    stride: usize,
) -> Result<G::Value> {
    let conv = Conv {
        name,
        inputs,
        outputs,
        kernel: &[3, 1, 1],
        stride: &[stride, 1, 1],
        padding: &[(1, 1), (0, 0), (0, 0)],
        dilation: &[1, 1, 1],
        groups: 1,
        bias: false,
    };
    g.convolution(x, &conv)
}
