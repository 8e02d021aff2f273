//! Seeded, stratified and group-aware splits.
//!
//! The assignment depends on the seed, the ids, the labels and the groups, not on the order of the clips: clips (or
//! groups) are ordered by a hash of the seed and their name. Adding a clip therefore changes the split of few others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::stratify::{self, ClipGroup};
use super::{Clip, Manifest, Split};
use crate::error::{Error, Result};

/// Fractions of the labeled clips in the validation and test splits; the remainder is the training split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fractions {
    /// Fraction of the validation split, in [0, 1).
    pub val: f64,
    /// Fraction of the test split, in [0, 1); 0 for no test split.
    pub test: f64,
}

impl Default for Fractions {
    /// 80 % training, 20 % validation, no test split.
    fn default() -> Self {
        Self { val: 0.2, test: 0.0 }
    }
}

/// Assigns splits to the labeled clips if the manifest lacks them. Returns `true` if it assigned any.
///
/// - No labeled clip has a split: all splits are drawn.
/// - There are training clips, but no validation clips: `fractions.val` of the training clips become validation clips;
///   the test split is unchanged.
/// - Otherwise the splits are unchanged. Unlabeled clips are not assigned to a split, and clips without a split are excluded if others have
///   one.
///
/// Without groups and with one label per clip, the split is exact: every class contributes `fraction · clips`, rounded by
/// the largest-remainder method so that the total is exact too, and keeps at least one training clip. Otherwise groups are
/// kept together (clips that share a file are a group even if the manifest has none) and distributed by iterative
/// stratification ([`stratify::iterative`]) and local search ([`stratify::improve`]); every label keeps a training clip
/// if possible.
///
/// # Errors
/// Returns an error if a fraction is out of range, or if there are too few clips or groups to fill a split.
pub fn assign(manifest: &mut Manifest, fractions: Fractions, seed: u64) -> Result<bool> {
    let in_range = |fraction: f64| (0.0..1.0).contains(&fraction);
    if !in_range(fractions.val) || !in_range(fractions.test) || fractions.val + fractions.test >= 1.0 {
        return Err(Error::Data(format!(
            "invalid fractions of val ({}) and test ({}): each must be at least 0 and their sum below 1",
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
    let groups = group_clips(&clips, seed);
    let exact = groups.iter().all(|group| group.clips.len() == 1) && clips.iter().all(|clip| clip.labels.len() == 1);
    let splits = if exact { split_exactly(&groups, fractions) } else { split_groups(&groups, fractions) };
    for (fraction, split) in [(fractions.val, Split::Val), (fractions.test, Split::Test)] {
        if fraction > 0.0 && !splits.contains(&split) {
            return Err(Error::Manifest {
                path: manifest.source.clone(),
                line: None,
                message: format!(
                    "cannot draw a {split} split from {} labeled clips in {} groups; add clips, or set the column split",
                    clips.len(),
                    groups.len()
                ),
            });
        }
    }
    let assigned: Vec<(usize, Split)> = groups
        .iter()
        .zip(&splits)
        .flat_map(|(group, &split)| group.clips.iter().map(|&clip| (pool[clip], split)).collect::<Vec<_>>())
        .collect();
    for (index, split) in assigned {
        manifest.clips[index].split = Some(split);
    }
    Ok(true)
}

/// Assigns the clips of the training and validation splits, or all labeled clips of a manifest without splits, to `count` folds, and
/// their split to train. Returns the fold of each of these clips by its id. The test split is unchanged.
///
/// Groups are kept together, and labels are distributed by iterative stratification ([`stratify::iterative`]): with one label per clip,
/// the numbers of clips of a class differ by at most one between the folds.
///
/// # Errors
/// Returns an error if there are fewer groups of clips than folds.
pub fn assign_folds(manifest: &mut Manifest, count: usize, seed: u64) -> Result<HashMap<String, usize>> {
    let labeled: Vec<usize> = (0..manifest.clips.len()).filter(|&i| !manifest.clips[i].labels.is_empty()).collect();
    let without_splits = labeled.iter().all(|&i| manifest.clips[i].split.is_none());
    let in_pool = |split: Option<Split>| match split {
        None => without_splits,
        Some(split) => split != Split::Test,
    };
    let pool: Vec<usize> = labeled.into_iter().filter(|&i| in_pool(manifest.clips[i].split)).collect();
    let clips: Vec<&Clip> = pool.iter().map(|&i| &manifest.clips[i]).collect();
    let groups = group_clips(&clips, seed);
    if groups.len() < count {
        return Err(Error::Manifest {
            path: manifest.source.clone(),
            line: None,
            message: format!(
                "cannot draw {count} folds from {} labeled clips in {} groups: add clips, or use fewer folds",
                clips.len(),
                groups.len()
            ),
        });
    }
    let folds = stratify::iterative(&groups, &vec![1.0 / count as f64; count]);
    let mut assigned = Vec::new();
    for (group, fold) in groups.iter().zip(folds) {
        assigned.extend(group.clips.iter().map(|&clip| (pool[clip], fold)));
    }
    let mut fold_of = HashMap::new();
    for (index, fold) in assigned {
        let clip = &mut manifest.clips[index];
        clip.split = Some(Split::Train);
        fold_of.insert(clip.id.clone(), fold);
    }
    Ok(fold_of)
}

/// Collects clips into groups, in the order of their hashes. Labels are numbered in alphabetical order.
fn group_clips(clips: &[&Clip], seed: u64) -> Vec<ClipGroup> {
    let labels: BTreeSet<&str> = clips.iter().flat_map(|clip| clip.labels.iter().map(String::as_str)).collect();
    let label_index: BTreeMap<&str, usize> = labels.into_iter().zip(0..).collect();
    let mut group_of_file: BTreeMap<&Path, &str> = BTreeMap::new();
    for clip in clips {
        if let Some(group) = clip.group.as_deref() {
            let first = group_of_file.entry(&clip.file).or_insert(group);
            *first = group.min(*first);
        }
    }
    let mut members: BTreeMap<(Option<&str>, Option<&Path>), Vec<usize>> = BTreeMap::new();
    for (i, clip) in clips.iter().enumerate() {
        let group = clip.group.as_deref().or_else(|| group_of_file.get(clip.file.as_path()).copied());
        members.entry((group, group.is_none().then_some(clip.file.as_path()))).or_default().push(i);
    }
    let mut groups: Vec<([u8; 32], ClipGroup)> = members
        .into_iter()
        .map(|((group, _), members)| {
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            for label in members.iter().flat_map(|&member| &clips[member].labels) {
                *counts.entry(label_index[label.as_str()]).or_default() += 1;
            }
            let first_id = members.iter().map(|&member| clips[member].id.as_str()).min().expect("groups are not empty");
            let hash = Sha256::new()
                .chain_update(seed.to_le_bytes())
                .chain_update([u8::from(group.is_some())])
                .chain_update(group.unwrap_or(first_id))
                .finalize();
            (hash.into(), ClipGroup { clips: members, label_counts: counts.into_iter().collect() })
        })
        .collect();
    groups.sort_by_key(|group| group.0);
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Stratifies groups of one clip with one label exactly. Returns the split of every group.
fn split_exactly(groups: &[ClipGroup], fractions: Fractions) -> Vec<Split> {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, group) in groups.iter().enumerate() {
        classes.entry(group.label_counts[0].0).or_default().push(i);
    }
    let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
    let test = class_quotas(&sizes, &sizes, fractions.test);
    let available: Vec<usize> = sizes.iter().zip(&test).map(|(size, taken)| size - taken).collect();
    let val = class_quotas(&sizes, &available, fractions.val);
    let mut splits = vec![Split::Train; groups.len()];
    for (members, (test, val)) in classes.values().zip(test.into_iter().zip(val)) {
        for (rank, &group) in members.iter().enumerate() {
            splits[group] = match rank {
                _ if rank < test => Split::Test,
                _ if rank < test + val => Split::Val,
                _ => Split::Train,
            };
        }
    }
    splits
}

/// Computes the number of clips that each class contributes to a split, by the largest-remainder method.
///
/// A class contributes `fraction · size`, rounded down. The classes with the largest remainders (ties: the larger class,
/// then the lower index) contribute one more until the sum is `fraction` of all clips, rounded, and at least one. A class
/// keeps at least one of its `available` clips.
fn class_quotas(sizes: &[usize], available: &[usize], fraction: f64) -> Vec<usize> {
    // The offset compensates rounding: 0.2 · 15 is 3.
    let exact: Vec<f64> = sizes.iter().map(|&size| size as f64 * fraction + 1e-9).collect();
    let limits: Vec<usize> = available.iter().map(|available| available.saturating_sub(1)).collect();
    let mut quotas: Vec<usize> =
        exact.iter().zip(&limits).map(|(exact, &limit)| (*exact as usize).min(limit)).collect();
    let total = sizes.iter().sum::<usize>() as f64 * fraction;
    let total = if fraction > 0.0 { (total.round() as usize).max(1) } else { 0 };
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(sizes[b].cmp(&sizes[a])).then(a.cmp(&b)));
    let mut remaining = total.saturating_sub(quotas.iter().sum());
    for class in order {
        if remaining > 0 && quotas[class] < limits[class] {
            quotas[class] += 1;
            remaining -= 1;
        }
    }
    quotas
}

/// Distributes groups, or clips with several labels, by iterative stratification and local search. Returns the split of
/// every group.
fn split_groups(groups: &[ClipGroup], fractions: Fractions) -> Vec<Split> {
    let train = 1.0 - fractions.val - fractions.test;
    let splits = [(Split::Train, train), (Split::Val, fractions.val), (Split::Test, fractions.test)];
    let splits: Vec<(Split, f64)> = splits.into_iter().filter(|(_, fraction)| *fraction > 0.0).collect();
    let fractions: Vec<f64> = splits.iter().map(|split| split.1).collect();
    let mut subset_of = stratify::iterative(groups, &fractions);
    stratify::improve(groups, &fractions, &mut subset_of);
    subset_of.into_iter().map(|subset| splits[subset].0).collect()
}
