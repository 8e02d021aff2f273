//! The image tower of CLIP ViT-B/32: Radford et al., "Learning Transferable Visual Models From Natural Language
//! Supervision", ICML 2021. Parameter names and shapes are those of the published checkpoint in the layout of the
//! `transformers` library (`CLIPModel`), be it `.safetensors` or `.bin`; the text tower in it is not needed.

use crate::error::Result;
use crate::models::graph::{AFTER_LINEAR, AFTER_RELU, ClassToken, Conv, Graph, MIXED};

const CHANNELS: usize = 768;
const HEADS: usize = 12;
const LAYERS: usize = 12;
/// Side of a patch in pixels.
const PATCH: usize = 32;
/// 7 × 7 patches of a picture of 224 × 224, and the class token.
const TOKENS: usize = 50;
const EMBEDDING: usize = 512;
const EPSILON: f64 = 1e-5;

/// `(batch, 3, 224, 224)` → `(batch, 512)`: the projected class token, not divided by its length.
///
/// # Errors
/// Those of the backend.
pub fn clip_vit_b32<G: Graph>(g: &mut G, x: &G::Value) -> Result<G::Value> {
    let patches = Conv {
        name: "vision_model.embeddings.patch_embedding",
        inputs: 3,
        outputs: CHANNELS,
        kernel: &[PATCH, PATCH],
        stride: &[PATCH, PATCH],
        padding: &[(0, 0), (0, 0)],
        dilation: &[1, 1],
        groups: 1,
        bias: false,
        gain: AFTER_LINEAR,
        level: MIXED,
    };
    let mut x = g.convolution(x, &patches)?;
    x = g.flatten(&x, 2)?;
    x = g.permute(&x, &[0, 2, 1])?;
    let token = ClassToken {
        token: "vision_model.embeddings.class_embedding",
        positions: "vision_model.embeddings.position_embedding.weight",
        tokens: TOKENS,
        channels: CHANNELS,
    };
    x = g.class_token(&x, &token)?;
    x = g.layer_norm(&x, "vision_model.pre_layrnorm", CHANNELS, EPSILON)?; // spelt so in the checkpoint
    for layer in 0..LAYERS {
        x = encoder_layer(g, &x, &format!("vision_model.encoder.layers.{layer}"))?;
    }
    let class = g.first_token(&x)?;
    let class = g.layer_norm(&class, "vision_model.post_layernorm", CHANNELS, EPSILON)?;
    g.projection(&class, "visual_projection", (CHANNELS, EMBEDDING), AFTER_LINEAR)
}

/// Tensors of the published checkpoint that the embedding does not need: the text tower, the temperature, and the
/// list 0, 1, … of places that old files hold.
pub fn is_unused(name: &str) -> bool {
    name.starts_with("text_model.")
        || matches!(name, "text_projection.weight" | "logit_scale" | "vision_model.embeddings.position_ids")
}

/// Attention and a perceptron, each normalized before and added to what it read.
fn encoder_layer<G: Graph>(g: &mut G, x: &G::Value, name: &str) -> Result<G::Value> {
    let part = |suffix: &str| format!("{name}.{suffix}");
    let normed = g.layer_norm(x, &part("layer_norm1"), CHANNELS, EPSILON)?;
    let mut project = |name: &str, y: &G::Value| g.linear(y, name, (CHANNELS, CHANNELS), AFTER_LINEAR);
    let query = project(&part("self_attn.q_proj"), &normed)?;
    let key = project(&part("self_attn.k_proj"), &normed)?;
    let value = project(&part("self_attn.v_proj"), &normed)?;
    let mut y = g.attention([&query, &key, &value], HEADS, CHANNELS)?;
    y = g.linear(&y, &part("self_attn.out_proj"), (CHANNELS, CHANNELS), AFTER_LINEAR)?;
    let x = g.add(&y, x)?;
    y = g.layer_norm(&x, &part("layer_norm2"), CHANNELS, EPSILON)?;
    y = g.linear(&y, &part("mlp.fc1"), (CHANNELS, 4 * CHANNELS), AFTER_LINEAR)?;
    y = g.quick_gelu(&y)?;
    y = g.linear(&y, &part("mlp.fc2"), (4 * CHANNELS, CHANNELS), AFTER_RELU)?;
    g.add(&y, &x)
}
