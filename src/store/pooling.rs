//! Pooling settings.

use serde::{Deserialize, Serialize};

/// Combines the rows of a clip into its features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the rows.
    Mean,
    /// Maximum over the rows.
    Max,
    /// No pooling: all rows in order, a sequence.
    None,
}
