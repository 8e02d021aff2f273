//! R(2+1)D-18: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
//! Parameter names and shapes are those of torchvision's `r2plus1d_18`; the embedding is the input of its classifier.

use crate::error::Result;
use crate::models::graph::{AFTER_LINEAR, AFTER_RELU, AVERAGE, CHANGE, Conv, Graph, MIXED};

/// Channels of the four layers, of two blocks each; all but the first halve time, height and width.
const LAYERS: [usize; 4] = [64, 128, 256, 512];
const EPSILON: f64 = 1e-5;
/// Seeded weights only: the end of a residual branch is quieter than its shortcut, or eight blocks add up to a roar.
const BRANCH_END: f64 = 0.49;
/// Seeded weights only: to what is alike over its window an average answers with more than its norm, by √6 for 3×3 taps
/// and √(8/3) for three. So these are [`AFTER_RELU`] divided by that.
const SPATIAL: f64 = 0.7;
const TEMPORAL: f64 = 1.05;

/// `(batch, 3, frame, height, width)` → `(batch, 512)`.
///
/// # Errors
/// Those of the backend.
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
        gain: AFTER_LINEAR,
        level: CHANGE,
    };
    let mut y = g.convolution(x, &spatial)?;
    y = g.batch_norm(&y, "stem.1", 45, EPSILON)?;
    y = g.relu(&y)?;
    y = temporal(g, &y, "stem.3", (45, LAYERS[0]), 1, (AFTER_RELU, CHANGE))?;
    y = g.batch_norm(&y, "stem.4", LAYERS[0], EPSILON)?;
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

/// Tensors of the published checkpoint that the embedding does not need: the classifier, and counters of training.
pub fn is_unused(name: &str) -> bool {
    matches!(name, "fc.weight" | "fc.bias") || name.ends_with(".num_batches_tracked")
}

fn block<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, outputs): (usize, usize),
    stride: usize,
) -> Result<G::Value> {
    // As many channels between the two halves as give the pair the parameters of one 3x3x3 convolution.
    let middle = inputs * outputs * 27 / (inputs * 9 + outputs * 3);
    let mut y = halves(g, x, &format!("{name}.conv1"), (inputs, middle, outputs), stride, TEMPORAL)?;
    y = g.relu(&y)?;
    y = halves(g, &y, &format!("{name}.conv2"), (outputs, middle, outputs), 1, BRANCH_END)?;
    let shortcut = if stride == 1 && inputs == outputs {
        x.clone()
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
            gain: AFTER_LINEAR,
            level: MIXED,
        };
        let shortcut = g.convolution(x, &conv)?;
        g.batch_norm(&shortcut, &format!("{name}.downsample.1"), outputs, EPSILON)?
    };
    let sum = g.add(&y, &shortcut)?;
    g.relu(&sum)
}

/// A convolution over space, then one over time, each with its batch normalization.
fn halves<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, middle, outputs): (usize, usize, usize),
    stride: usize,
    end_gain: f64,
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
        gain: SPATIAL,
        level: AVERAGE,
    };
    let mut y = g.convolution(x, &spatial)?;
    y = g.batch_norm(&y, &format!("{name}.0.1"), middle, EPSILON)?;
    y = g.relu(&y)?;
    y = temporal(g, &y, &format!("{name}.0.3"), (middle, outputs), stride, (end_gain, AVERAGE))?;
    g.batch_norm(&y, &format!("{name}.1"), outputs, EPSILON)
}

fn temporal<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    (inputs, outputs): (usize, usize),
    stride: usize,
    (gain, level): (f64, i64),
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
        gain,
        level,
    };
    g.convolution(x, &conv)
}
