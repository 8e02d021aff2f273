//! Late fusion: the mean of the scores of several runs.

use std::collections::{BTreeMap, HashMap};

use ndarray::Array2;

use super::{ComparedRun, Part, RunKind};
use crate::classify::{RunIdentity, RunInputs};
use crate::error::{Error, Result};
use crate::evaluate::predictions::align_classes;
use crate::evaluate::{Predictions, compute_metrics};

/// The classifier in the identity of a late fusion.
pub const CLASSIFIER: &str = "mean of probabilities";

/// Returns the runs that can be fused, and a note on each other run except the constant baseline: they have scores in [0, 1].
pub fn usable(runs: &[ComparedRun]) -> (Vec<&ComparedRun>, Vec<String>) {
    let fusible = runs.iter().filter(|run| run.is_fusible());
    let (usable, others): (Vec<_>, Vec<_>) = fusible.partition(|run| run.parts.values().all(has_probabilities));
    let note = |run: &ComparedRun| {
        format!("{}: not part of late fusion or learned fusion, since it has no scores in [0, 1]", run.name)
    };
    (usable, others.into_iter().map(note).collect())
}

/// Fuses all runs and, if there are at least three, also the best pair. Returns the fusions and a note on each run that is
/// excluded.
///
/// The constant baseline and runs without scores in [0, 1] are not fused. The best pair is selected by the first headline
/// metric on the validation split (the first of equal pairs), so its test metrics are unbiased; without a validation split
/// there is no best pair.
///
/// # Errors
/// Returns an error if two runs have different labels for a clip.
pub fn fuse(runs: &[ComparedRun]) -> Result<(Vec<ComparedRun>, Vec<String>)> {
    let (usable, mut notes) = usable(runs);
    if usable.len() >= 2 {
        let classes = |run: &&ComparedRun| run.parts.values().next().map_or(vec![], |part| part.classes.clone());
        let missing = missing_classes(&usable.iter().map(classes).collect::<Vec<_>>());
        let note = |(run, missing): (&&ComparedRun, String)| format!("{}: {missing}", run.name);
        notes.extend(usable.iter().zip(missing).filter_map(|(run, missing)| Some(note((run, missing?)))));
    }
    let mut fusions = Vec::new();
    if usable.len() >= 2 {
        fusions.extend(fuse_runs(&usable)?.map(|all| match usable.len() {
            2 => all,
            n => ComparedRun { name: format!("late fusion: all {n} runs"), ..all },
        }));
    }
    if usable.len() >= 3 {
        let mut best: Option<(f64, ComparedRun)> = None;
        for (i, &first) in usable.iter().enumerate() {
            for &second in &usable[i + 1..] {
                let Some(pair) = fuse_runs(&[first, second])? else { continue };
                let Some(val) = pair.parts.get(&Part::Val) else { continue };
                let (_, value) = compute_metrics(val).primary();
                if best.as_ref().is_none_or(|(highest, _)| value > *highest) {
                    best = Some((value, pair));
                }
            }
        }
        fusions.extend(best.map(|(_, pair)| ComparedRun { name: format!("{} (best pair on val)", pair.name), ..pair }));
    }
    Ok((fusions, notes))
}

/// Describes, for each of several lists of classes, which classes of the others it lacks; `None` if it lacks none.
pub fn missing_classes(lists: &[Vec<String>]) -> Vec<Option<String>> {
    let mut all: Vec<&String> = lists.iter().flatten().collect();
    all.sort_by(|a, b| natord::compare(a, b).then_with(|| a.cmp(b)));
    all.dedup();
    let describe = |own: &Vec<String>| {
        let missing: Vec<&str> = all.iter().filter(|class| !own.contains(class)).map(|class| class.as_str()).collect();
        let (word, its) = if missing.len() == 1 { ("class", "its score is") } else { ("classes", "their scores are") };
        (!missing.is_empty()).then(|| format!("lacks the {word} {}: {its} 0 in the fusion", missing.join(", ")))
    };
    lists.iter().map(describe).collect()
}

fn has_probabilities(predictions: &Predictions) -> bool {
    predictions.scores.as_ref().is_some_and(|scores| scores.iter().all(|score| (0.0..=1.0).contains(score)))
}

/// Returns the fusion of `runs`; `None` if they have no clip of any part in common.
fn fuse_runs(runs: &[&ComparedRun]) -> Result<Option<ComparedRun>> {
    let mut parts = BTreeMap::new();
    for &part in runs[0].parts.keys() {
        let members: Vec<&Predictions> = runs.iter().filter_map(|run| run.parts.get(&part)).collect();
        if members.len() == runs.len() {
            let fused = mean(&members)?;
            if !fused.is_empty() {
                parts.insert(part, fused);
            }
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let identities: Vec<&RunIdentity> = runs.iter().map(|run| &run.identity).collect();
    let sum = |value: fn(&ComparedRun) -> Option<f64>| runs.iter().map(|run| value(run)).sum::<Option<f64>>();
    Ok(Some(ComparedRun {
        name: format!("late fusion: {}", names.join(" + ")),
        kind: RunKind::LateFusion,
        identity: RunIdentity::of_fusion(&identities, CLASSIFIER),
        inputs: RunInputs::default(),
        directory: None,
        // The extraction time of a store that two runs share would count twice.
        extract_seconds: if have_distinct_stores(runs) { sum(|run| run.extract_seconds) } else { None },
        training_seconds: sum(|run| run.training_seconds),
        parts,
        constant: runs[0].constant.clone(),
        unlabeled: Default::default(),
    }))
}

fn have_distinct_stores(runs: &[&ComparedRun]) -> bool {
    let mut stores: Vec<_> = runs.iter().filter_map(|run| run.inputs.features()).collect();
    stores.sort_unstable();
    stores.dedup();
    stores.len() == runs.len()
}

/// Averages the scores of `members` over the clips that all of them predict, in the order of the first. The classes are the
/// union of the members' classes in natural order; a class that a member lacks has score 0 there.
///
/// # Errors
/// Returns an error if the members have different labels for a clip.
///
/// # Panics
/// Panics if `members` is empty or if a member has no scores.
pub fn mean(members: &[&Predictions]) -> Result<Predictions> {
    let aligned = align(members)?;
    let mut scores = Array2::<f32>::zeros((aligned[0].len(), aligned[0].classes.len()));
    for member in &aligned {
        scores += member.scores.as_ref().expect("only runs with scores are fused");
    }
    scores /= members.len() as f32;
    let Predictions { task, ids, groups, truth, classes, .. } =
        aligned.into_iter().next().expect("at least one member");
    Ok(Predictions::from_scores(task, ids, groups, truth, scores, classes))
}

/// Selects the clips that all `members` predict, in the order of the first, over the union of their classes in natural order. A
/// class that a member lacks has score 0 there.
///
/// # Errors
/// Returns an error if the members have different labels for a clip.
///
/// # Panics
/// Panics if `members` is empty.
pub fn align(members: &[&Predictions]) -> Result<Vec<Predictions>> {
    let rows: Vec<HashMap<&str, usize>> = members
        .iter()
        .map(|member| member.ids.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect())
        .collect();
    let common: Vec<&String> =
        members[0].ids.iter().filter(|id| rows.iter().all(|rows| rows.contains_key(id.as_str()))).collect();
    let selected: Vec<Predictions> = members
        .iter()
        .zip(&rows)
        .map(|(member, rows)| member.select(&common.iter().map(|id| rows[id.as_str()]).collect::<Vec<_>>()))
        .collect();
    let aligned = align_classes(&selected.iter().collect::<Vec<_>>())?;
    for member in &aligned[1..] {
        if let Some(row) = (0..common.len()).find(|&row| member.truth[row] != aligned[0].truth[row]) {
            return Err(Error::Data(format!(
                "clip `{}` has different labels in different runs: run them with the same manifest",
                common[row]
            )));
        }
    }
    Ok(aligned)
}
