//! What a task does first: find its clips, and make sure that no other task works on them.

use std::path::{Path, PathBuf};

use super::plan::{Product, ShardPlan, directory_of};
use super::selection::Shard;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::lease::{Busy, Lease, active_holder};
use crate::manifest::Manifest;
use crate::progress::{Event, ProgressSink};
use crate::store::Provenance;

/// A shard of a store or of a list of shots.
#[derive(Debug)]
pub struct Claim {
    /// The clips of the shard.
    pub manifest: Manifest,
    /// The file of the shard.
    pub path: PathBuf,
    /// `None` for a preview.
    lease: Option<Lease>,
}

impl Claim {
    /// Claims a shard of the file `out`. The first task writes the plan; the others must agree with it. If the shard is lost to another
    /// task, `cancel` is cancelled.
    ///
    /// # Errors
    /// Returns an error if the task disagrees with the plan, another task works on the shard (with [`Busy::Fail`]), or a file cannot be
    /// read or written.
    pub fn new(
        out: &Path,
        shard: Shard,
        busy: Busy,
        manifest: &Manifest,
        (product, provenance): (Product, &Provenance),
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let directory = directory_of(out);
        let plan = ShardPlan::open_or_create(&directory, shard.count, manifest, product, provenance)?;
        let mut claim = Self::of_plan(&plan, &directory, shard, manifest)?;
        let wait = |message: &str| progress.report(Event::Info(message));
        claim.lease = Some(Lease::acquire(&claim.path.with_extension("lease"), busy, cancel, &wait)?);
        Ok(claim)
    }

    /// Returns a shard that this process will not work on. A plan is not written, and one that exists may have another precision: that of
    /// the device of the tasks.
    ///
    /// # Errors
    /// Returns an error if the settings disagree with the plan, a task works on the shard, or a file cannot be read.
    pub fn preview(
        out: &Path,
        shard: Shard,
        manifest: &Manifest,
        (product, provenance): (Product, &Provenance),
    ) -> Result<Self> {
        let directory = directory_of(out);
        let plan = match ShardPlan::open(&directory)? {
            Some(plan) => {
                let provenance = Provenance { precision: plan.provenance.precision.clone(), ..provenance.clone() };
                plan.check(&directory, shard.count, manifest, product, &provenance)?;
                plan
            }
            None => ShardPlan::new(shard.count, manifest, product, provenance)?,
        };
        let claim = Self::of_plan(&plan, &directory, shard, manifest)?;
        let lease = claim.path.with_extension("lease");
        match active_holder(&lease)? {
            Some(holder) => {
                let message = format!("{holder} works on this shard; kinoprobe-status shows its progress");
                Err(Error::Store { path: lease, message })
            }
            None => Ok(claim),
        }
    }

    fn of_plan(plan: &ShardPlan, directory: &Path, shard: Shard, manifest: &Manifest) -> Result<Self> {
        let manifest = manifest.with_clips(plan.clips_of(shard, manifest));
        manifest.check_files()?;
        Ok(Self { manifest, path: plan.path_of(directory, shard.index), lease: None })
    }

    /// Passes the result of the work on the shard on. If the loss of the shard interrupted the work, its error says more.
    ///
    /// # Errors
    /// Returns the error of `result`, or that of [`Lease::check`].
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        if matches!(result, Err(Error::Interrupted)) {
            self.check()?;
        }
        result
    }

    /// Checks that no other task has taken over the shard.
    ///
    /// # Errors
    /// Returns the error of [`Lease::check`].
    pub fn check(&self) -> Result<()> {
        self.lease.as_ref().map_or(Ok(()), Lease::check)
    }
}
