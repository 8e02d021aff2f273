//! EfficientNet-Lite2: Tan and Le, "EfficientNet", ICML 2019, in the variant for mobile devices (no squeeze and
//! excitation, ReLU6, stem and head not widened). Parameter names and shapes are those of the PyPI package
//! `efficientnet_lite_pytorch`; the embedding is the input of its classifier.

use crate::error::Result;
use crate::models::graph::{AFTER_LINEAR, AFTER_RELU, Conv, Graph, MIXED};

/// A run of blocks: how many, kernel, stride of the first, expansion, channels out.
struct Stage {
    blocks: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    outputs: usize,
}

/// Width 1.1 (to multiples of eight) and depth 1.2 (upwards) are multiplied in; the first and last stage keep their depth.
const STAGES: [Stage; 7] = [
    Stage { blocks: 1, kernel: 3, stride: 1, expansion: 1, outputs: 16 },
    Stage { blocks: 3, kernel: 3, stride: 2, expansion: 6, outputs: 24 },
    Stage { blocks: 3, kernel: 5, stride: 2, expansion: 6, outputs: 48 },
    Stage { blocks: 4, kernel: 3, stride: 2, expansion: 6, outputs: 88 },
    Stage { blocks: 4, kernel: 5, stride: 1, expansion: 6, outputs: 120 },
    Stage { blocks: 5, kernel: 5, stride: 2, expansion: 6, outputs: 208 },
    Stage { blocks: 1, kernel: 3, stride: 1, expansion: 6, outputs: 352 },
];
const STEM: usize = 32;
const HEAD: usize = 1280;
const EPSILON: f64 = 1e-3;
/// Seeded weights only: with more the network is chaotic and magnifies rounding a thousandfold, with less it forgets its input.
const BRANCH_END: f64 = 1.15;

/// `(batch, 3, height, width)` → `(batch, 1280)`. The padding depends on `size` (height, width) of the input.
///
/// # Errors
/// Those of the backend.
pub fn efficientnet_lite2<G: Graph>(g: &mut G, x: &G::Value, size: [usize; 2]) -> Result<G::Value> {
    let mut size = size;
    let stem = Layer { conv: "_conv_stem", norm: "_bn0", inputs: 3, outputs: STEM, kernel: 3, stride: 2, groups: 1 };
    let mut y = stem.build(g, x, &mut size, AFTER_LINEAR)?;
    y = g.relu6(&y)?;
    let mut inputs = STEM;
    let mut index = 0;
    for stage in &STAGES {
        for nth in 0..stage.blocks {
            let stride = if nth == 0 { stage.stride } else { 1 };
            y = block(g, &y, &format!("_blocks.{index}"), stage, inputs, stride, &mut size)?;
            inputs = stage.outputs;
            index += 1;
        }
    }
    let head = Layer { conv: "_conv_head", norm: "_bn1", inputs, outputs: HEAD, kernel: 1, stride: 1, groups: 1 };
    y = head.build(g, &y, &mut size, AFTER_LINEAR)?;
    y = g.relu6(&y)?;
    g.global_average(&y)
}

/// Tensors of the published checkpoint that the embedding does not need: the classifier, and counters of training.
pub fn is_unused(name: &str) -> bool {
    matches!(name, "_fc.weight" | "_fc.bias") || name.ends_with(".num_batches_tracked")
}

/// Expand, filter each channel, project; with a shortcut where the shape stays.
fn block<G: Graph>(
    g: &mut G,
    x: &G::Value,
    name: &str,
    stage: &Stage,
    inputs: usize,
    stride: usize,
    size: &mut [usize; 2],
) -> Result<G::Value> {
    let part = |part: &str| format!("{name}.{part}");
    let wide = inputs * stage.expansion;
    let mut y = x.clone();
    if stage.expansion != 1 {
        let (conv, norm) = (part("_expand_conv"), part("_bn0"));
        let expand = Layer { conv: &conv, norm: &norm, inputs, outputs: wide, kernel: 1, stride: 1, groups: 1 };
        y = expand.build(g, &y, size, AFTER_LINEAR)?;
        y = g.relu6(&y)?;
    }
    let (conv, norm) = (part("_depthwise_conv"), part("_bn1"));
    let kernel = stage.kernel;
    let filter = Layer { conv: &conv, norm: &norm, inputs: wide, outputs: wide, kernel, stride, groups: wide };
    y = filter.build(g, &y, size, AFTER_RELU)?;
    y = g.relu6(&y)?;
    let (conv, norm) = (part("_project_conv"), part("_bn2"));
    let outputs = stage.outputs;
    let project = Layer { conv: &conv, norm: &norm, inputs: wide, outputs, kernel: 1, stride: 1, groups: 1 };
    y = project.build(g, &y, size, BRANCH_END)?;
    if stride == 1 && inputs == outputs { g.add(&y, x) } else { Ok(y) }
}

/// A convolution and its batch normalization.
struct Layer<'a> {
    conv: &'a str,
    norm: &'a str,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl Layer<'_> {
    fn build<G: Graph>(&self, g: &mut G, x: &G::Value, size: &mut [usize; 2], gain: f64) -> Result<G::Value> {
        let padding = size.map(|side| same_padding(side, self.kernel, self.stride));
        *size = size.map(|side| side.div_ceil(self.stride));
        let conv = Conv {
            name: self.conv,
            inputs: self.inputs,
            outputs: self.outputs,
            kernel: &[self.kernel; 2],
            stride: &[self.stride; 2],
            padding: &padding,
            dilation: &[1, 1],
            groups: self.groups,
            bias: false,
            gain,
            level: MIXED,
        };
        let y = g.convolution(x, &conv)?;
        g.batch_norm(&y, self.norm, self.outputs, EPSILON)
    }
}

/// TensorFlow's `SAME`: as many zeros as give `ceil(side / stride)` outputs, the odd one behind.
fn same_padding(side: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((side.div_ceil(stride) - 1) * stride + kernel).saturating_sub(side);
    (total / 2, total - total / 2)
}

#[cfg(test)]
mod tests {
    use super::same_padding;

    #[test]
    fn same_padding_is_tensorflows() {
        assert_eq!(same_padding(260, 3, 2), (0, 1));
        assert_eq!(same_padding(65, 5, 2), (2, 2));
        assert_eq!(same_padding(33, 3, 2), (1, 1));
        assert_eq!(same_padding(17, 5, 1), (2, 2));
        assert_eq!(same_padding(17, 1, 1), (0, 0));
    }
}
