//! Feature extraction: planning, parallel decoding and inference, SIFT and visual words, shot detection.

#[cfg(all(feature = "media", feature = "onnx"))]
mod batches;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod budget;
#[cfg(all(feature = "media", feature = "onnx"))]
mod calibration;
pub mod codebook;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod decoded;
#[cfg(feature = "media")]
pub mod dense_sift;
#[cfg(feature = "media")]
pub mod descriptors;
pub mod fisher;
pub mod histogram;
#[cfg(all(feature = "media", feature = "onnx"))]
mod job;
pub mod kmeans;
pub mod pca;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod pipeline;
pub mod plan;
mod settings;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod shots;
#[cfg(feature = "media")]
pub mod sift;
#[cfg(all(feature = "media", feature = "onnx"))]
mod summary;
#[cfg(all(feature = "media", feature = "onnx"))]
pub mod timings;
#[cfg(all(feature = "media", feature = "onnx"))]
mod workers;

#[cfg(all(feature = "media", feature = "onnx"))]
pub use calibration::calibration_items;
#[cfg(all(feature = "media", feature = "onnx"))]
pub use job::{Options, run};
pub use settings::{
    BIN_WIDTHS, CodebookSettings, DESCRIPTOR_LEN, DenseSiftSettings, Encoding, ExtractionSettings, Extractor,
    MAX_CELLS, MAX_SIDES, Normalize, POSITION_LEN,
};
#[cfg(all(feature = "media", feature = "onnx"))]
pub use summary::{Action, Summary};
#[cfg(all(feature = "media", feature = "onnx"))]
pub use timings::{Clocks, Stage, Timings};
