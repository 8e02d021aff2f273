//! What a store or a manifest holds: numbers for the terminal, pictures and exports for a folder.

mod labels;
mod manifest;
mod npy;
#[cfg(feature = "media")]
mod pictures;
mod projection;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use labels::label_set_table;
pub use manifest::inspect_manifest;
pub use npy::write_npy;
pub use projection::{Projection, project};
pub use store::{Export, inspect_store};

/// What an inspection says and wrote.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The text for the terminal.
    pub text: String,
    /// Files written.
    pub files: Vec<PathBuf>,
    /// Clips that failed and are recorded in the store.
    pub failed: usize,
}
