//! Shards: parts of a manifest that tasks of a scheduler extract independently, and their merge into one store; or into one list of shots.
//!
//! The shards of `NAME.h5`, or `NAME.csv`, are in the directory `NAME.shards`:
//!
//! | file | contents |
//! |-|-|
//! | `shards.json` | the [`ShardPlan`]: number of shards, recipe, model, and the shard of each clip; written by the first task |
//! | `0003-of-0200.h5`, or `.csv` | the store, or the list of shots, of a shard, once it is complete |
//! | `0003-of-0200.h5.partial` | its journal, while it grows |
//! | `0003-of-0200.lease` | the [`Lease`](crate::lease::Lease) of the task that works on it |
//!
//! Tasks share nothing but these files, which are only created, appended to by one task, and renamed.

mod claim;
mod merge;
mod merge_options;
mod merge_shots;
mod plan;
mod selection;
mod status;

use std::path::Path;

use crate::error::Result;
use crate::manifest::Manifest;

pub use claim::Claim;
pub use merge::merge;
pub use merge_options::{MergeOptions, MergeSummary};
pub use plan::{Product, ShardPlan, directory_of};
pub use selection::{Shard, ShardChoice};
pub use status::{Progress, ShardState, ShardStatus, Status, status};

/// Loads the manifest of a task that writes `out`, or a shard of it. If the shards have a plan, only the files of the task's own clips are
/// checked, when it claims its shard: a thousand tasks that each look at a million files are a burden for a network file system.
///
/// # Errors
/// As [`Manifest::load`] and [`Manifest::load_labels`].
pub fn load_manifest(source: &Path, root: Option<&Path>, out: &Path, shard: Option<Shard>) -> Result<Manifest> {
    match shard {
        Some(_) if ShardPlan::exists(out) => Manifest::load_labels(source, root),
        _ => Manifest::load(source, root),
    }
}

/// Number of ids, or of shards, in a message.
const EXAMPLES: usize = 10;

/// Joins the first few elements for a message.
fn list<T: std::fmt::Display>(elements: impl ExactSizeIterator<Item = T>) -> String {
    let more = if elements.len() > EXAMPLES { ", …" } else { "" };
    let shown: Vec<String> = elements.take(EXAMPLES).map(|element| element.to_string()).collect();
    format!("{}{more}", shown.join(", "))
}
