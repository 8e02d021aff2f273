//! The merge of shards into one list of shots.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::merge_options::{MergeOptions, MergeSummary, check_lost, complete_shards};
use super::plan::ShardPlan;
use crate::error::{Error, Result};
use crate::media::{Shot, Shots};
use crate::progress::ProgressSink;

/// Merges the lists of the shards. The result equals the list of a run without shards: the clips are in the order of the manifest. Clips of
/// complete shards that have no shots have failed.
///
/// # Errors
/// Returns an error if a shard is missing (without `partial`), is damaged or has clips of another shard; `out` exists with shots of clips that
/// the shards do not have; all clips failed; or the file cannot be written.
pub(super) fn merge_shots(
    directory: &Path,
    plan: &ShardPlan,
    options: &MergeOptions,
    progress: &dyn ProgressSink,
) -> Result<MergeSummary> {
    let MergeOptions { out, partial, virtual_rows, dry_run, .. } = options;
    if *virtual_rows {
        return Err(Error::Data("--virtual does not apply to lists of shots".into()));
    }
    let complete = complete_shards(directory, plan, *partial, progress)?;
    let shard_of: HashMap<&str, usize> = plan.clips.iter().map(|(id, shard)| (id.as_str(), *shard)).collect();
    let mut shots: HashMap<String, Vec<Shot>> = HashMap::new();
    for (index, path) in &complete {
        for shot in Shots::read(path)? {
            if shard_of.get(shot.id.as_str()) != Some(index) {
                let message = format!("damaged: clip {} does not belong to this shard", shot.id);
                return Err(Error::Store { path: path.clone(), message });
            }
            shots.entry(shot.id.clone()).or_default().push(shot);
        }
    }
    if out.exists() {
        let existing: HashSet<String> = Shots::read(out)?.into_iter().map(|shot| shot.id).collect();
        let mut lost: Vec<&str> = existing.iter().map(String::as_str).filter(|id| !shots.contains_key(*id)).collect();
        lost.sort_unstable();
        check_lost(out, "shots", &lost)?;
    }
    let of_complete: HashSet<usize> = complete.iter().map(|(index, _)| *index).collect();
    let clips = plan.clips.iter().filter(|(_, shard)| of_complete.contains(shard)).count();
    let (found, failed) = (shots.len(), clips - shots.len());
    if found == 0 {
        return Err(Error::Data(format!("all {failed} clips failed; no list is written")));
    }
    if !dry_run {
        let list: Vec<Shot> = plan.clips.iter().filter_map(|(id, _)| shots.remove(id)).flatten().collect();
        Shots::write(out, &list)?;
    }
    let missing = plan.clips.len() - clips;
    Ok(MergeSummary { out: out.clone(), shards: complete.len(), clips: found, failed, missing, dry_run: *dry_run })
}
