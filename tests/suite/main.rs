//! The integration tests: one program, one module per room, driving the real binaries on real files.

#[cfg(all(feature = "media", feature = "onnx"))]
mod extract;
mod support;
