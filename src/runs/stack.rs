//! The scores of several runs as features of a learned fusion.

use ndarray::{Array2, Axis, concatenate};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::evaluate::Predictions;
use crate::report::compare::late_fusion;

/// Returns a data set of the clips that all `members` predict, in the order of the first: the features are the scores of each member, one after
/// the other, for the union of their classes.
///
/// # Errors
/// Returns an error if two members have different labels for a clip.
pub(super) fn stack(members: &[&Predictions]) -> Result<Dataset> {
    let aligned = late_fusion::align(members)?;
    let first = &aligned[0];
    let scores: Vec<_> =
        aligned.iter().map(|member| member.scores.as_ref().expect("only runs with scores are fused").view()).collect();
    let rows = concatenate(Axis(1), &scores).expect("every member has one row per common clip");
    let mut targets = Array2::zeros((first.len(), first.classes.len()));
    for (i, labels) in first.truth.iter().enumerate() {
        labels.iter().for_each(|&class| targets[(i, class)] = 1.0);
    }
    Ok(Dataset {
        ids: first.ids.clone(),
        groups: first.groups.clone(),
        rows: rows.into(),
        offsets: (0..=first.len()).collect(),
        targets,
        classes: first.classes.clone(),
    })
}
