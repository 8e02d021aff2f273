//! EfficientNet-Lite2: Tan and Le, "EfficientNet", ICML 2019, in the variant for mobile devices (no squeeze and
//! excitation, ReLU6, stem and head not scaled). Parameter names and shapes are those of the PyPI package
//! `efficientnet_lite_pytorch`. The embedding is the input of its classifier.

use crate::error::Result;
use crate::models::graph::{BatchNorm, Conv, Graph};

/// A sequence of blocks with the same kernel size, expansion and number of output channels.
struct Stage {
    blocks: usize,
    kernel: usize,
    /// Stride of the first block; the others have stride 1.
    stride: usize,
    expansion: usize,
    outputs: usize,
}

/// The stages with width 1.1 (rounded to multiples of 8) and depth 1.2 (rounded up) applied. The depth of the first and
/// the last stage is not scaled.
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
/// Stochastic depth probability; that of block i of n is `STOCHASTIC_DEPTH · i / n`.
const STOCHASTIC_DEPTH: f64 = 0.2;

/// `(batch, 3, height, width)` → `(batch, 1280)`. The padding depends on the input's `size` (height, width).
///
/// # Errors
/// Returns the errors of the backend.
pub fn efficientnet_lite2<G: Graph>(g: &mut G, x: &G::Value, size: [usize; 2]) -> Result<G::Value> {
    let mut size = size;
    let stem = Layer { conv: "_conv_stem", norm: "_bn0", inputs: 3, outputs: STEM, kernel: 3, stride: 2, groups: 1 };
    let mut y = stem.build(g, x, &mut size)?;
    y = g.relu6(&y)?;
    let total_blocks: usize = STAGES.iter().map(|stage| stage.blocks).sum();
    let mut inputs = STEM;
    let mut index = 0;
    for stage in &STAGES {
        for index_in_stage in 0..stage.blocks {
            let block = Block {
                name: format!("_blocks.{index}"),
                stage,
                inputs,
                stride: if index_in_stage == 0 { stage.stride } else { 1 },
                drop: STOCHASTIC_DEPTH * index as f64 / total_blocks as f64,
            };
            y = block.build(g, &y, &mut size)?;
            inputs = stage.outputs;
            index += 1;
        }
    }
    let head = Layer { conv: "_conv_head", norm: "_bn1", inputs, outputs: HEAD, kernel: 1, stride: 1, groups: 1 };
    y = head.build(g, &y, &mut size)?;
    y = g.relu6(&y)?;
    g.global_average(&y)
}

/// Returns `true` for tensors of the published checkpoint that the embedding does not need besides the classifier:
/// the batch counters of batch normalizations.
pub fn is_unused(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

/// Inverted bottleneck: expansion, depthwise convolution, projection, and a shortcut if the shape does not change.
struct Block<'a> {
    name: String,
    stage: &'a Stage,
    inputs: usize,
    stride: usize,
    /// Probability of stochastic depth.
    drop: f64,
}

impl Block<'_> {
    fn build<G: Graph>(&self, g: &mut G, x: &G::Value, size: &mut [usize; 2]) -> Result<G::Value> {
        let &Self { stage, inputs, stride, .. } = self;
        let layer_name = |suffix: &str| format!("{}.{suffix}", self.name);
        let expanded = inputs * stage.expansion;
        let expansion = if stage.expansion == 1 {
            None
        } else {
            let (conv, norm) = (layer_name("_expand_conv"), layer_name("_bn0"));
            let expand = Layer { conv: &conv, norm: &norm, inputs, outputs: expanded, kernel: 1, stride: 1, groups: 1 };
            let y = expand.build(g, x, size)?;
            Some(g.relu6(&y)?)
        };
        let (conv, norm) = (layer_name("_depthwise_conv"), layer_name("_bn1"));
        let kernel = stage.kernel;
        let depthwise =
            Layer { conv: &conv, norm: &norm, inputs: expanded, outputs: expanded, kernel, stride, groups: expanded };
        let mut y = depthwise.build(g, expansion.as_ref().unwrap_or(x), size)?;
        y = g.relu6(&y)?;
        let (conv, norm) = (layer_name("_project_conv"), layer_name("_bn2"));
        let outputs = stage.outputs;
        let project = Layer { conv: &conv, norm: &norm, inputs: expanded, outputs, kernel: 1, stride: 1, groups: 1 };
        y = project.build(g, &y, size)?;
        if stride == 1 && inputs == outputs {
            y = g.stochastic_depth(y, self.drop)?;
            y = g.add(&y, x)?;
        }
        Ok(y)
    }
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
    /// Adds the layer and updates `size`, the height and width of the activation.
    fn build<G: Graph>(&self, g: &mut G, x: &G::Value, size: &mut [usize; 2]) -> Result<G::Value> {
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
        };
        let y = g.convolution(x, &conv)?;
        g.batch_norm(&y, &BatchNorm { name: self.norm, channels: self.outputs, epsilon: 1e-3, momentum: 0.01 })
    }
}

/// Padding before and after for TensorFlow's `SAME`: the output has length `ceil(side / stride)`, and of an odd amount the
/// larger part comes after.
fn same_padding(side: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((side.div_ceil(stride) - 1) * stride + kernel).saturating_sub(side);
    (total / 2, total - total / 2)
}

#[cfg(test)]
mod tests {
    use super::same_padding;

    #[test]
    fn same_padding_agrees_with_tensorflow() {
        assert_eq!(same_padding(260, 3, 2), (0, 1));
        assert_eq!(same_padding(65, 5, 2), (2, 2));
        assert_eq!(same_padding(33, 3, 2), (1, 1));
        assert_eq!(same_padding(17, 5, 1), (2, 2));
        assert_eq!(same_padding(17, 1, 1), (0, 0));
    }
}
