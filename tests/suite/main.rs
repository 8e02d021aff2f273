//! Integration tests in a single program. Most of them run the programs on real files.

mod architecture;
mod classify;
mod codebook;
#[cfg(feature = "media")]
mod demo;
#[cfg(all(feature = "media", feature = "onnx"))]
mod dense_sift;
mod evaluate;
#[cfg(all(feature = "media", feature = "onnx"))]
mod external_data;
#[cfg(all(feature = "media", feature = "onnx"))]
mod extract;
mod flags;
mod interchange;
mod makefile;
mod manifest;
#[cfg(feature = "media")]
mod media;
mod models;
mod multi_label;
mod outputs;
mod pooled;
#[cfg(all(feature = "media", feature = "onnx"))]
mod posters;
#[cfg(all(feature = "media", feature = "onnx"))]
mod predict;
#[cfg(feature = "serve")]
mod serve;
mod setup;
#[cfg(all(feature = "media", feature = "onnx"))]
mod shots;
#[cfg(feature = "media")]
mod sift;
mod support;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "media")]
mod transform;
