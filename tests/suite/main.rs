//! The integration tests: one program, one module per room, driving the real binaries on real files.

mod classify;
#[cfg(all(feature = "media", feature = "onnx"))]
mod extract;
mod models;
mod support;

#[cfg(feature = "media")]
mod media;
#[cfg(feature = "media")]
mod sift;
#[cfg(feature = "media")]
mod transform;
