//! Descriptions of stores and manifests: text for the terminal; plots, tables and exports.

#[cfg(feature = "media")]
mod images;
mod labels;
mod manifest;
mod projection;
mod store;
#[cfg(test)]
mod tests;
#[cfg(feature = "media")]
mod videos;

use std::path::PathBuf;

pub use labels::label_set_table;
pub use manifest::inspect_manifest;
pub use projection::{Projection, project};
pub use store::inspect_store;

/// Result of an inspection.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Text for the terminal.
    pub text: String,
    /// Files that were written.
    pub files: Vec<PathBuf>,
    /// Number of failed clips that the store records.
    pub failed: usize,
}
