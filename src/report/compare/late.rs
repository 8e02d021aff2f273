//! Late fusion: the mean of several runs' probabilities.

use std::collections::{BTreeMap, HashMap};

use ndarray::Array2;

use super::{Entry, Kind, Part};
use crate::error::{Error, Result};
use crate::evaluate::predictions::align_classes;
use crate::evaluate::{Predictions, compute_metrics};

/// Fuses all runs that can be fused, and where there are three or more also the pair that is best on the validation split.
/// Returns the fusions and what to tell of runs left out.
///
/// The constant predictor is never fused, nor are runs without scores in [0, 1]. The pair is chosen on validation alone
/// (by the first headline number, the first of equal ones), so that its test numbers are as honest as any other's; without a validation split
/// there is none.
///
/// # Errors
/// Two runs were made from different labels.
pub fn fuse(entries: &[Entry]) -> Result<(Vec<Entry>, Vec<String>)> {
    let mut notes = Vec::new();
    let mut usable = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Run && entry.classifier != "constant") {
        if entry.parts.values().all(has_probabilities) {
            usable.push(entry);
        } else {
            notes.push(format!("{}: no probabilities (scores in [0, 1]), left out of late fusion", entry.name));
        }
    }
    let mut fused = Vec::new();
    if usable.len() >= 2 {
        fused.extend(together(&usable)?.map(|all| match usable.len() {
            2 => all,
            n => Entry { name: format!("late fusion: all {n} runs"), ..all },
        }));
    }
    if usable.len() >= 3 {
        let mut best: Option<(f64, Entry)> = None;
        for (i, &first) in usable.iter().enumerate() {
            for &second in &usable[i + 1..] {
                let Some(pair) = together(&[first, second])? else { continue };
                let Some(val) = pair.parts.get(&Part::Val) else { continue };
                let (_, value) = compute_metrics(val).primary();
                if best.as_ref().is_none_or(|(highest, _)| value > *highest) {
                    best = Some((value, pair));
                }
            }
        }
        fused.extend(best.map(|(_, pair)| Entry { name: format!("{} (best pair on val)", pair.name), ..pair }));
    }
    Ok((fused, notes))
}

fn has_probabilities(predictions: &Predictions) -> bool {
    predictions.scores.as_ref().is_some_and(|scores| scores.iter().all(|score| (0.0..=1.0).contains(score)))
}

/// The fusion of these runs; `None` where no part has clips in common.
fn together(entries: &[&Entry]) -> Result<Option<Entry>> {
    let mut parts = BTreeMap::new();
    for &part in entries[0].parts.keys() {
        let members: Vec<&Predictions> = entries.iter().filter_map(|entry| entry.parts.get(&part)).collect();
        if members.len() == entries.len() {
            let fused = mean(&members)?;
            if !fused.is_empty() {
                parts.insert(part, fused);
            }
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let sum = |value: fn(&Entry) -> Option<f64>| entries.iter().map(|entry| value(entry)).sum::<Option<f64>>();
    Ok(Some(Entry {
        name: format!("late fusion: {}", names.join(" + ")),
        kind: Kind::LateFusion,
        method: entries.iter().map(|entry| entry.method.as_str()).collect::<Vec<_>>().join(" + "),
        classifier: "mean of probabilities".into(),
        untrained: entries.iter().any(|entry| entry.untrained),
        folder: None,
        features: None,
        manifest: None,
        root: None,
        // Two runs of one store share its extraction, which then would count twice.
        extract_seconds: if distinct_stores(entries) { sum(|entry| entry.extract_seconds) } else { None },
        training_seconds: sum(|entry| entry.training_seconds),
        parts,
        constant: entries[0].constant.clone(),
        unlabeled: Default::default(),
    }))
}

fn distinct_stores(entries: &[&Entry]) -> bool {
    let mut stores: Vec<_> = entries.iter().filter_map(|entry| entry.features.as_ref()).collect();
    stores.sort_unstable();
    stores.dedup();
    stores.len() == entries.len()
}

/// The mean of the members' probabilities over the clips that all have, in the first one's order, over the union of their
/// classes in natural order; a class that a member does not know has probability 0 there.
///
/// # Errors
/// The members disagree on a clip's true class.
pub fn mean(members: &[&Predictions]) -> Result<Predictions> {
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
                "clip `{}` has another label in another run: they were made from different manifests",
                common[row]
            )));
        }
    }
    let mut scores = Array2::<f32>::zeros((common.len(), aligned[0].classes.len()));
    for member in &aligned {
        scores += member.scores.as_ref().expect("only runs with scores are fused");
    }
    scores /= members.len() as f32;
    let Predictions { task, ids, groups, truth, classes, .. } =
        aligned.into_iter().next().expect("at least one member");
    Ok(Predictions::from_scores(task, ids, groups, truth, scores, classes))
}
