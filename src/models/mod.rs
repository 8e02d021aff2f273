//! Networks: cards, weights and where they come from, definitions, ONNX.

pub mod card;
pub mod checkpoint;
pub mod fetch;
pub mod graph;
pub mod inventory;
pub mod nets;
pub mod onnx;
#[cfg(feature = "onnx")]
pub mod runtime;
pub mod seeded;
pub mod weights;

pub use card::Card;
pub use weights::{PreparedModel, WeightsChoice, prepare};
