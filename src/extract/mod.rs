//! Clips → features: what is left to do, decoding and running in parallel, and one store.

pub mod codebook;
#[cfg(all(feature = "media", feature = "onnx"))]
mod job;
pub mod kmeans;
#[cfg(all(feature = "media", feature = "onnx"))]
mod ordered;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod pipeline;
pub mod plan;
pub mod progress;
mod settings;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod shots;
#[cfg(feature = "media")]
pub mod sift;

#[cfg(all(feature = "media", feature = "onnx"))]
pub use job::{Options, run};
pub use settings::{CodebookSettings, ExtractionSettings, Extractor, Normalize};
