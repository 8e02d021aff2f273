//! Seeded, stratified, group-aware splits.
//!
//! Which clip goes where depends on the seed, the ids, the labels and the groups, not on the order of the rows: clips
//! (or groups) are ordered by a hash of the seed and their name, so that the same data always splits the same way and
//! a clip that is added moves few of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Clip, Manifest, Split, stratify};
use crate::error::{Error, Result};

/// Which shares of the labeled clips are held out; the rest trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fractions {
    /// Share of the validation split, at least 0 and below 1.
    pub val: f64,
    /// Share of the test split, at least 0 and below 1; 0 for none.
    pub test: f64,
}

impl Default for Fractions {
    /// 80/20 without a test split.
    fn default() -> Self {
        Self { val: 0.2, test: 0.0 }
    }
}

/// Draws a split for the labeled clips that want one, and says whether it did.
///
/// - No labeled clip has a split: train and val (and test) are drawn.
/// - There are training clips but none of val: val is carved out of train (`fractions.val` of it), test stays.
/// - Otherwise nothing is changed. Unlabeled clips never get a split, and clips without one, where others have one,
///   stay out.
///
/// With one label and no groups the numbers are exact: every class gives `fraction · clips` of it, rounded by largest
/// remainder so that the whole does too, and keeps at least one clip for training. Otherwise whole groups (clips that
/// share a file count as a group even if the manifest does not say so) are divided by iterative stratification, the
/// rarest label first (Sechidis et al. 2011), and are then moved one at a time as long as that brings the labels closer
/// to their shares; every label keeps a training clip where it can.
///
/// # Errors
/// A fraction is out of range; or there are too few clips or groups to hold any out.
pub fn assign(manifest: &mut Manifest, fractions: Fractions, seed: u64) -> Result<bool> {
    let in_range = |share: f64| (0.0..1.0).contains(&share);
    if !in_range(fractions.val) || !in_range(fractions.test) || fractions.val + fractions.test >= 1.0 {
        return Err(Error::Data(format!(
            "the shares of val ({}) and test ({}) must be at least 0 and leave something to train on",
            fractions.val, fractions.test
        )));
    }
    let labeled: Vec<usize> = (0..manifest.clips.len()).filter(|&i| !manifest.clips[i].labels.is_empty()).collect();
    let has = |split: Split| labeled.iter().any(|&i| manifest.clips[i].split == Some(split));
    let (pool, fractions) = if labeled.iter().all(|&i| manifest.clips[i].split.is_none()) {
        (labeled, fractions)
    } else if has(Split::Train) && !has(Split::Val) {
        let train = |i: &usize| manifest.clips[*i].split == Some(Split::Train);
        (labeled.into_iter().filter(train).collect(), Fractions { test: 0.0, ..fractions })
    } else {
        return Ok(false);
    };
    if pool.is_empty() {
        return Ok(false);
    }
    let clips: Vec<&Clip> = pool.iter().map(|&i| &manifest.clips[i]).collect();
    let units = units(&clips, seed);
    let single = units.iter().all(|unit| unit.members.len() == 1) && clips.iter().all(|clip| clip.labels.len() == 1);
    let parts = if single { stratified(&units, fractions) } else { balanced(&units, fractions) };
    for (share, split) in [(fractions.val, Split::Val), (fractions.test, Split::Test)] {
        if share > 0.0 && !parts.contains(&split) {
            return Err(Error::Manifest {
                path: manifest.source.clone(),
                line: None,
                message: format!(
                    "cannot hold {split} clips out of {} labeled clips in {} groups; add clips, or say in the column split which to use",
                    clips.len(),
                    units.len()
                ),
            });
        }
    }
    let assigned: Vec<(usize, Split)> = units
        .iter()
        .zip(&parts)
        .flat_map(|(unit, &part)| unit.members.iter().map(|&member| (pool[member], part)).collect::<Vec<_>>())
        .collect();
    for (index, split) in assigned {
        manifest.clips[index].split = Some(split);
    }
    Ok(true)
}

/// What goes into a split as a whole: a group, or a clip without one.
pub(super) struct Unit {
    /// Indices of its clips.
    pub(super) members: Vec<usize>,
    /// How many of its clips have each label (label index, count).
    pub(super) labels: Vec<(usize, usize)>,
}

/// The units, in the order of their hashes; labels are numbered in alphabetical order.
fn units(clips: &[&Clip], seed: u64) -> Vec<Unit> {
    let names: BTreeSet<&str> = clips.iter().flat_map(|clip| clip.labels.iter().map(String::as_str)).collect();
    let index: BTreeMap<&str, usize> = names.into_iter().zip(0..).collect();
    let mut group_of: BTreeMap<&Path, &str> = BTreeMap::new();
    for clip in clips {
        if let Some(group) = clip.group.as_deref() {
            let known = group_of.entry(&clip.file).or_insert(group);
            *known = group.min(*known);
        }
    }
    let mut members: BTreeMap<(Option<&str>, Option<&Path>), Vec<usize>> = BTreeMap::new();
    for (i, clip) in clips.iter().enumerate() {
        let group = clip.group.as_deref().or_else(|| group_of.get(clip.file.as_path()).copied());
        members.entry((group, group.is_none().then_some(clip.file.as_path()))).or_default().push(i);
    }
    let mut units: Vec<([u8; 32], Unit)> = members
        .into_iter()
        .map(|((group, _), members)| {
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            for label in members.iter().flat_map(|&member| &clips[member].labels) {
                *counts.entry(index[label.as_str()]).or_default() += 1;
            }
            let first = members.iter().map(|&member| clips[member].id.as_str()).min().expect("a unit has a clip");
            let hash = Sha256::new()
                .chain_update(seed.to_le_bytes())
                .chain_update([u8::from(group.is_some())])
                .chain_update(group.unwrap_or(first))
                .finalize();
            (hash.into(), Unit { members, labels: counts.into_iter().collect() })
        })
        .collect();
    units.sort_by_key(|unit| unit.0);
    units.into_iter().map(|(_, unit)| unit).collect()
}

/// Exact stratification of clips with one label each: the part of every unit.
fn stratified(units: &[Unit], fractions: Fractions) -> Vec<Split> {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, unit) in units.iter().enumerate() {
        classes.entry(unit.labels[0].0).or_default().push(i);
    }
    let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
    let test = quotas(&sizes, &sizes, fractions.test);
    let free: Vec<usize> = sizes.iter().zip(&test).map(|(size, taken)| size - taken).collect();
    let val = quotas(&sizes, &free, fractions.val);
    let mut parts = vec![Split::Train; units.len()];
    for (members, (test, val)) in classes.values().zip(test.into_iter().zip(val)) {
        for (place, &unit) in members.iter().enumerate() {
            parts[unit] = match place {
                _ if place < test => Split::Test,
                _ if place < test + val => Split::Val,
                _ => Split::Train,
            };
        }
    }
    parts
}

/// How many clips each class gives: `share · size`, rounded down, then one more to those with the largest remainder
/// (the larger class, then the first, on a tie) until the sum is `share` of all, rounded; at least one in all. Of its
/// `free` clips a class keeps one.
fn quotas(sizes: &[usize], free: &[usize], share: f64) -> Vec<usize> {
    // A hair above, so that 0.2 · 15 is 3 and not a rounding error below.
    let exact: Vec<f64> = sizes.iter().map(|&size| size as f64 * share + 1e-9).collect();
    let most: Vec<usize> = free.iter().map(|free| free.saturating_sub(1)).collect();
    let mut quotas: Vec<usize> = exact.iter().zip(&most).map(|(exact, &most)| (*exact as usize).min(most)).collect();
    let total = sizes.iter().sum::<usize>() as f64 * share;
    let total = if share > 0.0 { (total.round() as usize).max(1) } else { 0 };
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(sizes[b].cmp(&sizes[a])).then(a.cmp(&b)));
    let mut wanting = total.saturating_sub(quotas.iter().sum());
    for class in order {
        if wanting > 0 && quotas[class] < most[class] {
            quotas[class] += 1;
            wanting -= 1;
        }
    }
    quotas
}

/// Groups, or clips with several labels: the part of every unit, by iterative stratification and then single moves.
fn balanced(units: &[Unit], fractions: Fractions) -> Vec<Split> {
    let train = 1.0 - fractions.val - fractions.test;
    let parts = [(Split::Train, train), (Split::Val, fractions.val), (Split::Test, fractions.test)];
    let parts: Vec<(Split, f64)> = parts.into_iter().filter(|(_, share)| *share > 0.0).collect();
    let shares: Vec<f64> = parts.iter().map(|part| part.1).collect();
    let mut part_of = stratify::iterative(units, &shares);
    stratify::improve(units, &shares, &mut part_of);
    part_of.into_iter().map(|part| parts[part].0).collect()
}
