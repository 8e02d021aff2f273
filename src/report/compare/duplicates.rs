//! Near-duplicate clips across splits.

use std::collections::HashMap;
use std::path::PathBuf;

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use serde::Serialize;

use super::{ComparedRun, Part};
use crate::error::Result;
use crate::matrix::{Accumulate, multiply};
use crate::report::table::Table;
use crate::store::{FeatureStore, Pooling};

/// Cosine similarity at or above which two clips are near-duplicates. Re-encoded or trimmed copies exceed it; different
/// clips do not.
pub const THRESHOLD: f32 = 0.9995;
/// Maximum number of listed pairs.
const MAX_LISTED: usize = 20;

/// Near-duplicates of one split in one store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Duplicates {
    /// Feature store.
    pub store: PathBuf,
    /// Held-out split.
    pub part: Part,
    /// Number of clips in the split with a near-duplicate in the training split (for test: or in the validation split).
    pub clips: usize,
    /// Number of clips in the split.
    pub total: usize,
    /// The first of these clips, each with its nearest neighbor.
    pub pairs: Vec<DuplicatePair>,
}

/// A clip and its nearest neighbor in another split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DuplicatePair {
    /// Id of the clip.
    pub id: String,
    /// Id of its nearest neighbor.
    pub neighbor: String,
    /// Split of the nearest neighbor.
    pub neighbor_part: Part,
    /// Cosine similarity of their mean-pooled features, centered by the mean of the store.
    pub cosine: f32,
}

impl Duplicates {
    /// Returns the listed pairs.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&["clip", "near-duplicate", "split of near-duplicate", "cosine"], 3);
        let cells = |pair: &DuplicatePair| {
            vec![
                pair.id.clone(),
                pair.neighbor.clone(),
                pair.neighbor_part.name().into(),
                format!("{:.5}", pair.cosine),
            ]
        };
        table.rows = self.pairs.iter().map(cells).collect();
        table
    }

    /// Returns a warning with the remedy.
    pub fn warning(&self) -> String {
        let example = self.pairs.first().map(|pair| format!(", for example {} and {}", pair.id, pair.neighbor));
        format!(
            "{}: {} of {} {} clips have a near-duplicate (cosine ≥ {THRESHOLD}) in another split{}; this inflates the \
             metrics: assign near-duplicates to one group and split by group",
            self.store.display(),
            self.clips,
            self.total,
            self.part.name(),
            example.unwrap_or_default()
        )
    }
}

/// Searches a store for near-duplicates across the splits of `run`. Clips that the run did not predict are its training
/// split; unlabeled clips are not part of a split.
///
/// # Errors
/// Returns an error if the store cannot be read.
pub fn of_run(store: &FeatureStore, run: &ComparedRun) -> Result<Vec<Duplicates>> {
    let mut part_of: HashMap<&str, Part> = HashMap::new();
    for (&part, predictions) in run.parts.iter().filter(|(part, _)| matches!(part, Part::Val | Part::Test)) {
        part_of.extend(predictions.ids.iter().map(|id| (id.as_str(), part)));
    }
    find(store, |id| match part_of.get(id) {
        Some(&part) => part,
        None if run.unlabeled.contains(id) => Part::All,
        None => Part::Train,
    })
}

/// Searches for clips of val and test whose mean-pooled features have a cosine similarity of at least [`THRESHOLD`] to those of
/// a clip of train (or, for test, of val). Splits without near-duplicates are omitted.
///
/// Features are centered first: those after a ReLU, and those of untrained networks, are in a narrow cone in which all
/// cosine similarities are high. `part_of` returns the split of a clip id, or [`Part::All`] if it belongs to none.
///
/// # Errors
/// Returns an error if the store cannot be read.
pub fn find(store: &FeatureStore, part_of: impl Fn(&str) -> Part) -> Result<Vec<Duplicates>> {
    let parts: Vec<Part> = store.clips().iter().map(|clip| part_of(&clip.id)).collect();
    let unit = unit_vectors(store.pooled(Pooling::Mean)?);
    let rows_of = |part: Part| (0..parts.len()).filter(|&i| parts[i] == part).collect::<Vec<_>>();
    let mut found = Vec::new();
    for (part, others) in [(Part::Val, &[Part::Train][..]), (Part::Test, &[Part::Train, Part::Val][..])] {
        let rows = rows_of(part);
        let against: Vec<usize> = others.iter().flat_map(|&other| rows_of(other)).collect();
        if rows.is_empty() || against.is_empty() {
            continue;
        }
        let (ours, theirs) = (unit.select(Axis(0), &rows), unit.select(Axis(0), &against));
        let nearest = nearest_rows(ours.view(), theirs.view());
        let near = nearest.into_iter().enumerate().filter(|(_, (_, cosine))| *cosine >= THRESHOLD);
        let (mut clips, mut pairs) = (0, Vec::new());
        for (i, (neighbor, cosine)) in near {
            clips += 1;
            if pairs.len() < MAX_LISTED {
                let (id, neighbor) = (rows[i], against[neighbor]);
                pairs.push(DuplicatePair {
                    id: store.clips()[id].id.clone(),
                    neighbor: store.clips()[neighbor].id.clone(),
                    neighbor_part: parts[neighbor],
                    cosine,
                });
            }
        }
        if clips > 0 {
            found.push(Duplicates { store: store.path().to_path_buf(), part, clips, total: rows.len(), pairs });
        }
    }
    Ok(found)
}

/// Returns the row of `theirs` (M ≥ 1, D) with the largest scalar product, and this product, for each row of `ours` (N, D).
fn nearest_rows(ours: ArrayView2<'_, f32>, theirs: ArrayView2<'_, f32>) -> Vec<(usize, f32)> {
    // Blocks bound the memory of the products.
    const ROWS: usize = 256;
    const COLUMNS: usize = 4096;
    let blocks: Vec<ArrayView2<'_, f32>> = ours.axis_chunks_iter(Axis(0), ROWS).collect();
    let of_block = |ours: ArrayView2<'_, f32>| {
        let mut nearest = vec![(0, f32::NEG_INFINITY); ours.nrows()];
        let mut products = Array2::zeros((ours.nrows(), COLUMNS));
        for (number, theirs) in theirs.axis_chunks_iter(Axis(0), COLUMNS).enumerate() {
            let mut products = products.slice_mut(s![.., ..theirs.nrows()]);
            multiply(ours, theirs.t(), products.view_mut(), Accumulate::No, 1);
            for (row, nearest) in products.rows().into_iter().zip(&mut nearest) {
                for (column, &product) in row.iter().enumerate() {
                    if product > nearest.1 {
                        *nearest = (number * COLUMNS + column, product);
                    }
                }
            }
        }
        nearest
    };
    blocks.into_par_iter().flat_map_iter(of_block).collect()
}

/// Centers the rows and scales them to unit length; rows equal to the mean become zero, and non-finite values count as 0.
fn unit_vectors(mut features: Array2<f32>) -> Array2<f32> {
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
