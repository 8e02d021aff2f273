//! Fusions of the runs of a comparison, each with its directory.

use std::path::{Path, PathBuf};

use super::compatibility::require_same_features;
use super::{early_fusion, learned_fusion, write_fusion};
use crate::classify::SavedModel;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::report;
use crate::report::compare::{ComparedRun, late_fusion};
use crate::store::FeatureStore;

/// The directories of the fusions; the last one is optional.
const DIRECTORIES: [&str; 3] = ["late-fusion", "learned-fusion", "early-fusion"];

/// Fuses runs: the mean of their scores ([`late_fusion`]), logistic regression on their scores ([`learned_fusion`]) and, with `early`, a
/// classifier on their concatenated features ([`early_fusion`]). Writes the directories late-fusion (all runs), learned-fusion and
/// early-fusion below `out`, and removes those of an earlier call that are not replaced. Returns the fusions, and notes on what is
/// missing.
///
/// # Errors
/// Returns an error if two runs have different labels for a clip, one of them is in a directory that a fusion would replace, or a file cannot be
/// written.
pub fn fuse(runs: &[ComparedRun], out: &Path, early: bool, threads: usize) -> Result<(Vec<ComparedRun>, Vec<String>)> {
    let directories = DIRECTORIES.map(|name| out.join(name));
    check_not_replaced(runs, if early { &directories } else { &directories[..2] })?;
    let [late, learned, early_directory] = directories;
    let (mut fusions, mut notes) = late_fusion::fuse(runs)?;
    let (usable, _) = late_fusion::usable(runs);
    let unlabeled = unlabeled_predictions(&usable).unwrap_or_else(|error| {
        notes.push(format!("the fusions do not predict clips without a label: {error}"));
        Vec::new()
    });
    let members: Vec<&Predictions> = unlabeled.iter().collect();
    match fusions.first() {
        Some(all) => {
            let unlabeled = if members.is_empty() { None } else { Some(late_fusion::mean(&members)?) };
            write_fusion(all, unlabeled, &late)?;
        }
        None => report::remove_run(&late)?,
    }
    match learned_fusion::fuse(&usable, &members, &learned, threads) {
        Ok(Some(fused)) => fusions.push(fused),
        Ok(None) => report::remove_run(&learned)?,
        Err(error) => {
            report::remove_run(&learned)?;
            notes.push(format!("no learned fusion: {error}"));
        }
    }
    if early {
        // Only early fusion requires the stores, so a missing store is not an error.
        match early_fusion::fuse(runs, &early_directory, threads) {
            Ok(Some(fused)) => fusions.push(fused),
            Ok(None) => report::remove_run(&early_directory)?,
            Err(error) => {
                report::remove_run(&early_directory)?;
                notes.push(format!("no early fusion: {error}"));
            }
        }
    }
    Ok((fusions, notes))
}

/// Checks that no run is in one of the directories `outputs`.
fn check_not_replaced(runs: &[ComparedRun], outputs: &[PathBuf]) -> Result<()> {
    for directory in runs.iter().filter_map(|run| run.directory.as_ref()) {
        let is_output =
            |out: &PathBuf| matches!((out.canonicalize(), directory.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if outputs.iter().any(is_output) {
            let message = "an input, which a fusion of this comparison would replace: choose another --out";
            return Err(Error::Config { path: directory.clone(), message: message.into() });
        }
    }
    Ok(())
}

/// Returns the predictions of each run for its clips without a label; none if a run has no such clips. The runs store their classes, but not
/// the scores, so that their models predict them again.
fn unlabeled_predictions(runs: &[&ComparedRun]) -> Result<Vec<Predictions>> {
    if runs.len() < 2 || runs.iter().any(|run| run.unlabeled.is_empty()) {
        return Ok(Vec::new());
    }
    let predict = |run: &&ComparedRun| {
        let (Some(directory), Some(features)) = (&run.directory, run.inputs.features()) else {
            return Err(Error::Data(format!("{} names no feature store", run.name)));
        };
        let saved = SavedModel::load(directory)?;
        let store = FeatureStore::open(features)?;
        require_same_features(&saved.metadata, &store)?;
        let manifest = run.manifest()?;
        let clips = Dataset::join_for_evaluation(&store, &manifest, saved.metadata.pooling)?.unlabeled;
        let known: Vec<usize> = (0..clips.len()).filter(|&i| run.unlabeled.contains(&clips.ids[i])).collect();
        saved.predict(&clips.select(&known))
    };
    runs.iter().map(predict).collect()
}
