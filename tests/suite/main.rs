//! The integration tests: one program, one module per room, driving the real binaries on real files.

#[cfg(all(feature = "media", feature = "onnx"))]
mod extract;
mod classify;
mod evaluate;
mod support;

#[cfg(feature = "media")]
mod media;
#[cfg(feature = "media")]
mod sift;
#[cfg(feature = "media")]
mod transform;
