//! What a task does first: find its clips, and make sure that no other task works on them.

use std::path::{Path, PathBuf};

use super::plan::{ShardPlan, directory_of};
use super::selection::Shard;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::lease::{Busy, Lease};
use crate::manifest::Manifest;
use crate::progress::{Event, ProgressSink};
use crate::store::{Payload, Provenance};

/// A shard that this process works on.
#[derive(Debug)]
pub struct Claim {
    /// The clips of the shard.
    pub manifest: Manifest,
    /// The store of the shard.
    pub store: PathBuf,
    lease: Lease,
}

impl Claim {
    /// Returns the result of the work on the shard, or an error if another task has taken over in the meantime.
    ///
    /// # Errors
    /// Returns the error of `result`, or of [`Lease::check`].
    pub fn finish<T>(self, result: Result<T>) -> Result<T> {
        // A lost lease interrupts the work; its error says more.
        if matches!(result, Err(Error::Interrupted)) {
            self.lease.check()?;
        }
        result
    }
}

/// Claims a shard of the store `out`. The first task writes the plan; the others must agree with it. If the shard is lost to another task,
/// `cancel` is cancelled.
///
/// # Errors
/// Returns an error if the task disagrees with the plan, another task works on the shard, or a file cannot be read or written.
pub fn claim(
    out: &Path,
    shard: Shard,
    manifest: &Manifest,
    (payload, provenance): (Payload, &Provenance),
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<Claim> {
    let directory = directory_of(out);
    let plan = ShardPlan::open_or_create(&directory, shard.count, manifest, payload, provenance)?;
    let store = plan.store_path(&directory, shard.index);
    let wait = |message: &str| progress.report(Event::Info(message));
    let lease = Lease::acquire(&store.with_extension("lease"), Busy::Fail, cancel, &wait)?;
    Ok(Claim { manifest: manifest.with_clips(plan.clips_of(shard, manifest)), store, lease })
}

/// Returns the clips and the store of a shard without writing anything.
///
/// # Errors
/// Returns an error if the task disagrees with the plan, or a file cannot be read.
pub fn preview(
    out: &Path,
    shard: Shard,
    manifest: &Manifest,
    (payload, provenance): (Payload, &Provenance),
) -> Result<(Manifest, PathBuf)> {
    let directory = directory_of(out);
    let plan = match ShardPlan::open(&directory)? {
        Some(plan) => {
            plan.check(&directory, shard.count, manifest, payload, provenance)?;
            plan
        }
        None => ShardPlan::new(shard.count, manifest, payload, provenance)?,
    };
    Ok((manifest.with_clips(plan.clips_of(shard, manifest)), plan.store_path(&directory, shard.index)))
}
