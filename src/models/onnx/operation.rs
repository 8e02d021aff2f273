//! Layers with their parameters, before they are lowered to nodes.

/// A layer without its inputs.
pub(super) enum Operation {
    Input,
    /// Weight `(outputs, inputs / groups, kernel…)`.
    Convolution {
        shape: Vec<usize>,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        stride: Vec<usize>,
        padding: Vec<(usize, usize)>,
        dilation: Vec<usize>,
        groups: usize,
    },
    /// Scale, shift, running mean and running variance.
    BatchNorm {
        parameters: [Vec<f32>; 4],
        epsilon: f64,
    },
    LayerNorm {
        scale: Vec<f32>,
        shift: Vec<f32>,
        epsilon: f64,
    },
    /// Weight `(outputs, inputs)`.
    Linear {
        inputs: usize,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
    Scale(Vec<f32>),
    Relu,
    Relu6,
    Gelu,
    QuickGelu,
    /// The position embedding `(tokens, channels)`, with the class token added to its first row.
    TokenEmbedding {
        table: Vec<f32>,
        tokens: usize,
    },
    FirstToken,
    /// Inputs: query, key and value.
    Attention {
        heads: usize,
        head_channels: usize,
    },
    Add,
    Permute(Vec<usize>),
    GlobalAverage,
    Mean(Vec<usize>),
    AveragePool(Vec<usize>),
    MaxPool {
        kernel: Vec<usize>,
        stride: Vec<usize>,
        padding: Vec<(usize, usize)>,
    },
    Flatten(usize),
    Concatenate(usize),
    NeighborSimilarity {
        frames: usize,
        window: usize,
    },
    ColorHistogram {
        levels: usize,
    },
}
