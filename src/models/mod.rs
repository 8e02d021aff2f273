//! Networks: cards, weights and where they come from, definitions, ONNX.

pub mod card;
pub mod checkpoint;
pub mod fetch;
pub mod graph;
pub mod inventory;
pub mod nets;
pub mod onnx;
pub mod seeded;
pub mod weights;

pub use card::Card;
#[cfg(feature = "onnx")]
pub mod runtime;
pub use weights::{PreparedModel, WeightsChoice, prepare};
