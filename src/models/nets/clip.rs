//! Image encoder of CLIP ViT-B/32: Radford et al., "Learning Transferable Visual Models From Natural Language
//! Supervision", ICML 2021. Parameter names and shapes are those of `CLIPModel` in the `transformers` library, in
//! `.safetensors` or `.bin` files. The text encoder is not used.

use crate::error::Result;
use crate::models::graph::{Conv, Graph, LayerNorm, Linear, TokenEmbedding};

const CHANNELS: usize = 768;
const HEADS: usize = 12;
const LAYERS: usize = 12;
/// Height and width of a patch in pixels.
const PATCH: usize = 32;
/// 7 × 7 patches of an image of 224 × 224 pixels, and the class token.
const TOKENS: usize = 50;
const EMBEDDING: usize = 512;

/// `(batch, 3, 224, 224)` → `(batch, 512)`: the projected class token, not normalized.
///
/// # Errors
/// Returns the errors of the backend.
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
    };
    let mut x = g.convolution(x, &patches)?;
    x = g.flatten(&x, 2)?;
    x = g.permute(&x, &[0, 2, 1])?;
    let embedding = TokenEmbedding {
        class_token: "vision_model.embeddings.class_embedding",
        position_embedding: "vision_model.embeddings.position_embedding.weight",
        tokens: TOKENS,
        channels: CHANNELS,
    };
    x = g.token_embedding(&x, &embedding)?;
    x = layer_norm(g, &x, "vision_model.pre_layrnorm")?; // sic
    for layer in 0..LAYERS {
        x = encoder_layer(g, &x, &format!("vision_model.encoder.layers.{layer}"))?;
    }
    let class = g.first_token(&x)?;
    let class = layer_norm(g, &class, "vision_model.post_layernorm")?;
    g.linear(&class, &Linear::without_bias("visual_projection", CHANNELS, EMBEDDING))
}

/// Returns `true` for tensors of the published checkpoint that the embedding does not need: the text encoder, the
/// temperature, and the position indices of old files.
pub fn is_unused(name: &str) -> bool {
    name.starts_with("text_model.")
        || matches!(name, "text_projection.weight" | "logit_scale" | "vision_model.embeddings.position_ids")
}

fn layer_norm<G: Graph>(g: &mut G, x: &G::Value, name: &str) -> Result<G::Value> {
    g.layer_norm(x, &LayerNorm { name, channels: CHANNELS, epsilon: 1e-5 })
}

/// Pre-norm transformer layer: attention and a feed-forward network, each with a residual connection.
fn encoder_layer<G: Graph>(g: &mut G, x: &G::Value, name: &str) -> Result<G::Value> {
    let layer_name = |suffix: &str| format!("{name}.{suffix}");
    let normed = layer_norm(g, x, &layer_name("layer_norm1"))?;
    let linear = |g: &mut G, y: &G::Value, suffix: &str, inputs: usize, outputs: usize| {
        g.linear(y, &Linear::new(&layer_name(suffix), inputs, outputs))
    };
    let query = linear(g, &normed, "self_attn.q_proj", CHANNELS, CHANNELS)?;
    let key = linear(g, &normed, "self_attn.k_proj", CHANNELS, CHANNELS)?;
    let value = linear(g, &normed, "self_attn.v_proj", CHANNELS, CHANNELS)?;
    let mut y = g.attention([&query, &key, &value], HEADS, CHANNELS)?;
    y = linear(g, &y, "self_attn.out_proj", CHANNELS, CHANNELS)?;
    let x = g.add(&y, x)?;
    y = layer_norm(g, &x, &layer_name("layer_norm2"))?;
    y = linear(g, &y, "mlp.fc1", CHANNELS, 4 * CHANNELS)?;
    y = g.quick_gelu(&y)?;
    y = linear(g, &y, "mlp.fc2", 4 * CHANNELS, CHANNELS)?;
    g.add(&y, &x)
}
