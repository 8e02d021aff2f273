//! Clips that look alike across splits.

use std::collections::HashMap;
use std::path::PathBuf;

use ndarray::{Array2, Axis, s};
use serde::Serialize;

use super::{Entry, Part};
use crate::error::Result;
use crate::report::table::Table;
use crate::store::{FeatureStore, Pooling};

/// Cosine from which two clips count as near-duplicates. Re-encoded or trimmed copies lie above, different clips below.
pub const THRESHOLD: f32 = 0.9995;
/// Pairs that are named.
const NAMED: usize = 20;

/// The near-duplicates of one store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Duplicates {
    /// The store.
    pub store: PathBuf,
    /// The split that is measured.
    pub part: Part,
    /// Its clips that have a near-duplicate in the training split (or, for test, in the validation split).
    pub clips: usize,
    /// Clips of the part.
    pub of: usize,
    /// The first of them, with their closest twin.
    pub pairs: Vec<Twin>,
}

/// A clip and its closest twin in another split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Twin {
    /// The clip.
    pub id: String,
    /// Its closest twin.
    pub twin: String,
    /// The split of the twin.
    pub twin_part: Part,
    /// Cosine of their pooled features less the mean of the store.
    pub cosine: f32,
}

impl Duplicates {
    /// The pairs that are named.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&["clip", "closest twin", "its split", "cosine"], 3);
        let cells = |twin: &Twin| {
            vec![twin.id.clone(), twin.twin.clone(), twin.twin_part.name().into(), format!("{:.5}", twin.cosine)]
        };
        table.rows = self.pairs.iter().map(cells).collect();
        table
    }

    /// What it means.
    pub fn sentence(&self) -> String {
        let example = self.pairs.first().map(|pair| format!(", such as {} and {}", pair.id, pair.twin));
        format!(
            "{}: {} of {} {} clips have a near-duplicate (cosine ≥ {THRESHOLD}) in another split{}; this inflates their \
             accuracy: put copies into one group and split by group",
            self.store.display(),
            self.clips,
            self.of,
            self.part.name(),
            example.unwrap_or_default()
        )
    }
}

/// The near-duplicates of a run: the splits are those of `entry`; clips of the store that it did not predict are its training
/// split, clips without a label none.
///
/// # Errors
/// As [`find`].
pub fn of_entry(store: &FeatureStore, entry: &Entry) -> Result<Vec<Duplicates>> {
    let mut part_of: HashMap<&str, Part> = HashMap::new();
    for (&part, predictions) in entry.parts.iter().filter(|(part, _)| matches!(part, Part::Val | Part::Test)) {
        part_of.extend(predictions.ids.iter().map(|id| (id.as_str(), part)));
    }
    find(store, |id| match part_of.get(id) {
        Some(&part) => part,
        None if entry.unlabeled.contains(id) => Part::All,
        None => Part::Train,
    })
}

/// Looks for clips of val and test whose mean-pooled features nearly coincide with those of a clip of train (or val).
///
/// The store's mean is taken off first: features after a ReLU, and those of untrained networks, lie in a narrow cone where
/// everything has a high cosine. `part_of` gives the part of a clip, [`Part::All`] for one that is in none. Nothing is
/// returned for a part without near-duplicates.
///
/// # Errors
/// The store cannot be read.
pub fn find(store: &FeatureStore, part_of: impl Fn(&str) -> Part) -> Result<Vec<Duplicates>> {
    let parts: Vec<Part> = store.clips().iter().map(|clip| part_of(&clip.id)).collect();
    let unit = directions(store.pooled(Pooling::Mean)?);
    let rows_of = |part: Part| (0..parts.len()).filter(|&i| parts[i] == part).collect::<Vec<_>>();
    let mut found = Vec::new();
    for (part, others) in [(Part::Val, &[Part::Train][..]), (Part::Test, &[Part::Train, Part::Val][..])] {
        let rows = rows_of(part);
        let against: Vec<usize> = others.iter().flat_map(|&other| rows_of(other)).collect();
        if rows.is_empty() || against.is_empty() {
            continue;
        }
        let (ours, theirs) = (unit.select(Axis(0), &rows), unit.select(Axis(0), &against));
        let (mut clips, mut pairs) = (0, Vec::new());
        // In blocks, so that thousands of clips against thousands do not fill the memory.
        for start in (0..rows.len()).step_by(256) {
            let end = rows.len().min(start + 256);
            let cosines = ours.slice(s![start..end, ..]).dot(&theirs.t());
            for (i, cosines) in cosines.outer_iter().enumerate() {
                let closest = cosines.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                let Some((twin, &cosine)) = closest.filter(|&(_, &cosine)| cosine >= THRESHOLD) else { continue };
                clips += 1;
                if pairs.len() < NAMED {
                    let (id, twin) = (rows[start + i], against[twin]);
                    pairs.push(Twin {
                        id: store.clips()[id].id.clone(),
                        twin: store.clips()[twin].id.clone(),
                        twin_part: parts[twin],
                        cosine,
                    });
                }
            }
        }
        if clips > 0 {
            found.push(Duplicates { store: store.path().to_path_buf(), part, clips, of: rows.len(), pairs });
        }
    }
    Ok(found)
}

/// The rows less their mean, at length 1; a row that equals the mean, or is not finite, becomes zeros.
fn directions(mut features: Array2<f32>) -> Array2<f32> {
    features.mapv_inplace(|value| if value.is_finite() { value } else { 0.0 });
    if let Some(mean) = features.mapv(f64::from).mean_axis(Axis(0)) {
        features -= &mean.mapv(|value| value as f32);
    }
    for mut row in features.outer_iter_mut() {
        let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt() as f32;
        row.mapv_inplace(|value| if length > 0.0 { value / length } else { 0.0 });
    }
    features
}
