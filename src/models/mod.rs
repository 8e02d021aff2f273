//! Networks: cards, weights and where they come from, definitions, ONNX.

pub mod card;
pub mod nets;

pub use card::Card;
#[cfg(feature = "onnx")]
pub mod runtime;
