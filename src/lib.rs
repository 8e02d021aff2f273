//! kinoprobe extracts features of video clips and images into HDF5 stores, and trains and compares classifiers on them.
//!
//! Data flows in one direction. A module imports only modules before it, or [`models`]:
//!
//! ```text
//! manifest → media → extract → store (HDF5) → dataset → evaluate → classify → posters → report → runs
//!               models ↗ (cards, weights, ONNX, runtime)
//! ```

pub mod archives;
pub mod cancel;
pub mod classify;
pub mod cli;
pub mod dataset;
#[cfg(feature = "media")]
pub mod demo;
pub mod error;
pub mod evaluate;
pub mod extract;
pub mod files;
pub mod interchange;
pub mod lease;
pub mod manifest;
pub mod matrix;
pub mod media;
pub mod memory;
pub mod models;
pub mod numeric;
pub mod ordered;
pub mod posters;
pub mod progress;
pub mod read_at;
pub mod recipe;
pub mod remote;
pub mod report;
pub mod runs;
#[cfg(feature = "serve")]
pub mod serve;
pub mod shards;
pub mod store;
pub mod suggest;
pub mod value_parsers;

pub use error::{Error, Result};
