//! The networks, each defined once over [`super::graph::Graph`] with its published checkpoint's parameter names.

use serde::{Deserialize, Serialize};

use super::card::{Input, Layout};

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
}

impl Architecture {
    /// Every network, for tables and completeness tests.
    pub const ALL: [Architecture; 3] =
        [Architecture::ConvNextBase, Architecture::R2Plus1D18, Architecture::EfficientNetLite2];

    /// The name in cards.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::ConvNextBase => "convnext_base",
            Architecture::R2Plus1D18 => "r2plus1d_18",
            Architecture::EfficientNetLite2 => "efficientnet_lite2",
        }
    }

    /// Length of the embedding.
    pub fn dim(self) -> usize {
        match self {
            Architecture::ConvNextBase => 1024,
            Architecture::R2Plus1D18 => 512,
            Architecture::EfficientNetLite2 => 1280,
        }
    }

    /// Layout of the input.
    pub fn layout(self) -> Layout {
        match self {
            Architecture::ConvNextBase | Architecture::EfficientNetLite2 => Layout::Frames,
            Architecture::R2Plus1D18 => Layout::Clip,
        }
    }

    /// Whether a card's input and output suit this network.
    pub(crate) fn check_card(self, input: &Input, dim: usize) -> Result<(), String> {
        if input.layout != self.layout() {
            return Err(format!("input.layout: {} takes {:?}", self.name(), self.layout()).to_lowercase());
        }
        if dim != self.dim() {
            return Err(format!("output.dim: {} gives {}, not {dim}", self.name(), self.dim()));
        }
        Ok(())
    }
}
