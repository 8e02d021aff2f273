//! How far the shards of a store, or of a list of shots, are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::plan::{Product, ShardPlan};
use crate::error::Result;
use crate::lease;
use crate::media::Shots;
use crate::store::{Journal, JournalSummary, Store};

/// State of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// Its store is complete.
    Done,
    /// A task works on it.
    Running,
    /// A task has worked on it; it continues when the shard is extracted again.
    Interrupted,
    /// No task has started it.
    Waiting,
}

impl ShardState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Done, Self::Running, Self::Interrupted, Self::Waiting];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Waiting => "waiting",
        }
    }
}

/// How many of some clips are extracted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// Number of clips.
    pub clips: usize,
    /// Number of clips with features.
    pub done: usize,
    /// Number of clips that failed.
    pub failed: usize,
    /// Number of the other clips.
    pub missing: usize,
    /// Clips per second of extraction, over all runs; `None` before the first clip.
    pub clips_per_second: Option<f64>,
    /// Estimated time until the running shards are complete, in seconds.
    pub eta_seconds: Option<f64>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardStatus {
    /// Index of the shard, from 0.
    pub shard: usize,
    /// Its state.
    pub state: ShardState,
    /// The progress of its clips.
    #[serde(flatten)]
    pub progress: Progress,
    /// The machine of a running shard.
    pub host: Option<String>,
    /// The process of a running shard.
    pub pid: Option<u32>,
    /// Ids of the missing clips, in the order of the manifest.
    #[serde(skip)]
    pub missing_ids: Vec<String>,
    /// The failed clips and their errors; without errors for shards that are not complete, and for shots.
    #[serde(skip)]
    pub failures: Vec<(String, String)>,
}

impl ShardStatus {
    /// `true` if all its clips are extracted or have failed, and no task works on it.
    pub fn is_done(&self) -> bool {
        self.state == ShardState::Done
    }
}

/// The shards of a store or of a list of shots, and their sums.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The directory of the shards.
    pub directory: PathBuf,
    /// Name of the method.
    pub method: String,
    /// The progress of all clips; its rate is that of the running shards.
    #[serde(flatten)]
    pub progress: Progress,
    /// The shards.
    pub shards: Vec<ShardStatus>,
}

impl Status {
    /// Returns the number of shards in a state.
    pub fn count(&self, state: ShardState) -> usize {
        self.shards.iter().filter(|shard| shard.state == state).count()
    }
}

/// Reads the status of a directory of shards. Tasks may be running.
///
/// # Errors
/// Returns an error if the directory has no plan, or a file cannot be read or is damaged.
pub fn status(directory: &Path) -> Result<Status> {
    let plan = ShardPlan::open_existing(directory)?;
    let mut ids: Vec<Vec<&str>> = vec![Vec::new(); plan.shards];
    plan.clips.iter().for_each(|(id, shard)| ids[*shard].push(id));
    let shards = ids
        .iter()
        .enumerate()
        .map(|(index, ids)| shard_status(plan.product, &plan.path_of(directory, index), index, ids))
        .collect::<Result<Vec<ShardStatus>>>()?;
    let sum = |count: fn(&Progress) -> usize| shards.iter().map(|shard| count(&shard.progress)).sum();
    let running = || shards.iter().filter(|shard| shard.state == ShardState::Running).map(|shard| &shard.progress);
    let progress = Progress {
        clips: plan.clips.len(),
        done: sum(|shard| shard.done),
        failed: sum(|shard| shard.failed),
        missing: sum(|shard| shard.missing),
        clips_per_second: running().filter_map(|shard| shard.clips_per_second).reduce(|a, b| a + b),
        eta_seconds: running().filter_map(|shard| shard.eta_seconds).reduce(f64::max),
    };
    Ok(Status { directory: directory.into(), method: plan.provenance.method, progress, shards })
}

fn shard_status(product: Product, path: &Path, shard: usize, ids: &[&str]) -> Result<ShardStatus> {
    let holder = lease::active_holder(&path.with_extension("lease"))?;
    let mut journal = JournalSummary::read(path)?;
    let begun = Journal::path_for(path).exists();
    let complete = path.exists();
    let mut failures: Vec<(String, String)> = Vec::new();
    if complete && product == Product::Shots {
        journal.clips.extend(Shots::read(path)?.into_iter().map(|shot| shot.id));
        // A list has the clips that have not failed.
        let failed = ids.iter().filter(|id| !journal.clips.contains(**id));
        failures.extend(failed.map(|id| (id.to_string(), String::new())));
    } else if complete {
        let stored = Store::open(path)?;
        journal.seconds += stored.provenance().extract_seconds;
        for failure in stored.failures().iter().filter(|failure| !journal.clips.contains(&failure.id)) {
            failures.push((failure.id.clone(), failure.error.clone()));
            journal.failures.remove(&failure.id);
        }
        journal.clips.extend(stored.clips().iter().map(|clip| clip.id.clone()));
    }
    failures.extend(journal.failures.iter().map(|id| (id.clone(), String::new())));
    failures.sort_unstable();
    let state = match (&holder, complete, begun) {
        (Some(_), _, _) => ShardState::Running,
        (None, true, false) => ShardState::Done,
        (None, _, true) => ShardState::Interrupted,
        (None, false, false) => ShardState::Waiting,
    };
    let failed: HashSet<&str> = failures.iter().map(|(id, _)| id.as_str()).collect();
    let is_missing = |id: &&&str| !journal.clips.contains(**id) && !failed.contains(**id);
    let missing_ids: Vec<String> = ids.iter().filter(is_missing).map(ToString::to_string).collect();
    let extracted = journal.clips.len();
    let clips_per_second = (extracted > 0 && journal.seconds > 0.0).then(|| extracted as f64 / journal.seconds);
    let running = state == ShardState::Running;
    let progress = Progress {
        clips: ids.len(),
        done: extracted,
        failed: failures.len(),
        missing: missing_ids.len(),
        clips_per_second,
        eta_seconds: clips_per_second.filter(|_| running).map(|rate| missing_ids.len() as f64 / rate),
    };
    let (host, pid) = (holder.as_ref().map(|holder| holder.host.clone()), holder.map(|holder| holder.pid));
    Ok(ShardStatus { shard, state, progress, host, pid, missing_ids, failures })
}
