//! Fusions of the runs of a comparison, each with its directory.

use std::path::Path;

use super::compatibility::check_features;
use super::{early_fusion, learned_fusion, write_fusion};
use crate::classify::SavedModel;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::report;
use crate::report::compare::{ComparedRun, late_fusion};
use crate::store::FeatureStore;

/// Fuses runs: the mean of their scores ([`late_fusion`]), logistic regression on their scores ([`learned_fusion`]) and, with `early`, a
/// classifier on their concatenated features ([`early_fusion`]). Writes the directories late-fusion (all runs), learned-fusion and
/// early-fusion below `out`, and removes those of an earlier call that are not replaced. Returns the fusions, and notes on what is
/// missing.
///
/// # Errors
/// Returns an error if two runs have different labels for a clip, or a file cannot be written.
pub fn fuse(runs: &[ComparedRun], out: &Path, early: bool, threads: usize) -> Result<(Vec<ComparedRun>, Vec<String>)> {
    let (mut fusions, mut notes) = late_fusion::fuse(runs)?;
    let (usable, _) = late_fusion::usable(runs);
    let unlabeled = unlabeled_predictions(&usable).unwrap_or_else(|error| {
        notes.push(format!("the fusions do not predict clips without a label: {error}"));
        Vec::new()
    });
    let members: Vec<&Predictions> = unlabeled.iter().collect();
    let [late, learned] = ["late-fusion", "learned-fusion"].map(|name| out.join(name));
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
        let directory = out.join("early-fusion");
        // Only early fusion requires the stores, so a missing store is not an error.
        match early_fusion::fuse(runs, &directory, threads) {
            Ok(Some(fused)) => fusions.push(fused),
            Ok(None) => report::remove_run(&directory)?,
            Err(error) => {
                report::remove_run(&directory)?;
                notes.push(format!("no early fusion: {error}"));
            }
        }
    }
    Ok((fusions, notes))
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
        check_features(&saved.metadata, &store, false)?;
        let manifest = run.manifest()?;
        let clips = Dataset::join_for_evaluation(&store, &manifest, saved.metadata.pooling)?.unlabeled;
        let known: Vec<usize> = (0..clips.len()).filter(|&i| run.unlabeled.contains(&clips.ids[i])).collect();
        saved.predict(&clips.select(&known))
    };
    runs.iter().map(predict).collect()
}
