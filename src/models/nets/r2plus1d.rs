//! R(2+1)D-18: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
//! Parameter names and shapes are those of torchvision's `r2plus1d_18`. The embedding is the input of its classifier.

use crate::error::Result;
use crate::models::graph::{BatchNorm, Conv, Graph};

/// Channels of the four layers, of two blocks each. All but the first halve time, height and width.
const LAYERS: [usize; 4] = [64, 128, 256, 512];

/// `(batch, 3, frame, height, width)` → `(batch, 512)`.
///
/// # Errors
/// Returns the errors of the backend.
pub fn r2plus1d_18<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    let spatial = Conv {
        name: "stem.0",
        inputs: 3,
        outputs: 45,
        kernel: &[1, 7, 7],
        stride: &[1, 2, 2],
        padding: &[(0, 0), (3, 3), (3, 3)],
        dilation: &[1, 1, 1],
        groups: 1,
        bias: false,
    };
    let mut y = g.convolution(x, &spatial)?;
    y = g.batch_norm(&y, &BatchNorm::new("stem.1", 45))?;
    y = g.relu(&y)?;
    y = temporal_convolution(g, &y, "stem.3", (45, LAYERS[0]), 1)?;
    y = g.batch_norm(&y, &BatchNorm::new("stem.4", LAYERS[0]))?;
    y = g.relu(&y)?;
    let mut inputs = LAYERS[0];
    for (layer, outputs) in LAYERS.into_iter().enumerate() {
        for index in 0..2 {
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
