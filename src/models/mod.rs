//! Networks: cards, weights and where they come from, definitions, ONNX.

pub mod card;
pub mod checkpoint;
pub mod graph;
pub mod nets;
pub mod onnx;
pub mod seeded;

pub use card::Card;
#[cfg(feature = "onnx")]
pub mod runtime;
