//! Clips → features: what is left to do, decoding and running in parallel, and one store.

mod ordered;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod pipeline;
pub mod plan;
pub mod progress;
