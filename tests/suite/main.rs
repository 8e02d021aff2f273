//! The integration tests: one program, one module per room, driving the real binaries on real files.

// mod extract;
mod classify;
mod evaluate;
mod support;
