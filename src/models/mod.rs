//! Networks: model cards, weights, definitions, ONNX files and the runtime.

pub mod batch_size;
pub mod card;
pub mod checkpoint;
pub mod external_data;
pub mod fetch;
pub mod graph;
pub mod initializer;
pub mod input;
pub mod inventory;
pub mod nets;
pub mod onnx;
pub mod parameters;
pub mod precision;
pub mod prepare;
#[cfg(feature = "onnx")]
pub mod quantize;
#[cfg(feature = "onnx")]
pub mod runtime;
pub mod seeded;

pub use batch_size::BatchSize;
pub use card::Card;
pub use precision::Precision;
pub use prepare::{PreparedModel, WeightsChoice, convert, prepare};
