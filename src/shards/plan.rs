//! The assignment of the clips of a manifest to shards.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::list;
use super::selection::Shard;
use crate::error::{Error, Result};
use crate::files;
use crate::manifest::{Clip, Manifest};
use crate::store::{Payload, Provenance};

const FORMAT: &str = "kinoprobe-shards";
const FORMAT_VERSION: u32 = 1;
/// Name of the file in the directory of the shards.
const FILE: &str = "shards.json";
/// What a clip costs in addition to its size: opening the file, and the network's work on a fixed number of frames.
const CLIP_BYTES: u64 = 1 << 20;

/// What tasks write: the kind of the merged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Product {
    /// A store.
    Store(Payload),
    /// A list of shots; `null` in JSON.
    Shots,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(payload) => payload.fmt(f),
            Self::Shots => f.write_str("shots"),
        }
    }
}

impl Product {
    /// Returns the extension of the file of a shard.
    fn extension(self) -> &'static str {
        match self {
            Self::Store(_) => "h5",
            Self::Shots => "csv",
        }
    }
}

/// The shards of a store or of a list of shots; the file `shards.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardPlan {
    format: String,
    format_version: u32,
    /// Number of shards.
    pub shards: usize,
    /// SHA-256 of the ids, paths, starts and ends of the clips in the order of their ids, in hexadecimal.
    clips_sha256: String,
    /// The kind of data.
    #[serde(rename = "payload")]
    pub product: Product,
    /// Recipe, model and decoder of all shards, and the hash of the manifest.
    pub provenance: Provenance,
    /// The ids of the clips in the order of the manifest, and their shards.
    pub clips: Vec<(String, usize)>,
}

/// Returns the directory of the shards of a file: `NAME.shards` for `NAME.h5`.
pub fn directory_of(out: &Path) -> PathBuf {
    out.with_extension("shards")
}

impl ShardPlan {
    /// Assigns the clips of a manifest to shards of about the same size in bytes. The shard of a clip depends on the ids and sizes of
    /// all clips, but not on their order.
    ///
    /// # Errors
    /// Returns an error if there are more shards than clips.
    pub fn new(shards: usize, manifest: &Manifest, product: Product, provenance: &Provenance) -> Result<Self> {
        if shards > manifest.clips.len() {
            return Err(Error::Data(format!(
                "{}: {} clips cannot be split into {shards} shards; use at most as many shards as clips",
                manifest.source.display(),
                manifest.clips.len()
            )));
        }
        let size = |clip: &Clip| std::fs::metadata(&clip.file).map_or(0, |metadata| metadata.len());
        let sizes: Vec<(&str, u64)> = manifest.clips.iter().map(|clip| (clip.id.as_str(), size(clip))).collect();
        let shard_of = assign(&sizes, shards);
        Ok(Self {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            shards,
            clips_sha256: manifest.unordered_sha256(),
            product,
            provenance: provenance.clone(),
            clips: manifest.clips.iter().map(|clip| clip.id.clone()).zip(shard_of).collect(),
        })
    }

    /// Returns the plan of a directory: the one that its first task has written, or a new one, which is written.
    ///
    /// # Errors
    /// Returns an error if the plan in the directory has another number of shards, other clips, or another recipe, model or decoder (the
    /// message lists the differences), or the file is damaged or cannot be written.
    pub fn open_or_create(
        directory: &Path,
        shards: usize,
        manifest: &Manifest,
        product: Product,
        provenance: &Provenance,
    ) -> Result<Self> {
        if let Some(plan) = Self::open(directory)? {
            plan.check(directory, shards, manifest, product, provenance)?;
            return Ok(plan);
        }
        let plan = Self::new(shards, manifest, product, provenance)?;
        if plan.write(directory)? {
            return Ok(plan);
        }
        // Another task was faster.
        Self::open_or_create(directory, shards, manifest, product, provenance)
    }

    /// Returns `true` if the shards of the file `out` have a plan.
    pub fn exists(out: &Path) -> bool {
        directory_of(out).join(FILE).is_file()
    }

    /// Reads the plan of a directory; `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged.
    pub fn open(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let json = match std::fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let damaged = |message: String| Error::Store { path: path.clone(), message: format!("damaged: {message}") };
        let plan: Self = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if plan.format != FORMAT || plan.format_version != FORMAT_VERSION {
            return Err(damaged(format!("{} {} is not {FORMAT} {FORMAT_VERSION}", plan.format, plan.format_version)));
        }
        if let Some((id, shard)) = plan.clips.iter().find(|(_, shard)| *shard >= plan.shards) {
            return Err(damaged(format!("clip {id} is in shard {shard} of {}", plan.shards)));
        }
        let mut known = HashSet::new();
        if let Some((id, _)) = plan.clips.iter().find(|(id, _)| !known.insert(id)) {
            return Err(damaged(format!("two clips have the id {id}")));
        }
        Ok(Some(plan))
    }

    /// Reads the plan of a directory.
    ///
    /// # Errors
    /// Returns an error if there is none, or it cannot be read or is damaged.
    pub fn open_existing(directory: &Path) -> Result<Self> {
        Self::open(directory)?.ok_or_else(|| {
            let message =
                "no shards.json: not a directory of shards (kinoprobe-extract --shard and kinoprobe-shots --shard write NAME.shards)".into();
            Error::Store { path: directory.into(), message }
        })
    }

    /// Writes the plan, unless the directory has one. Returns whether it was written.
    fn write(&self, directory: &Path) -> Result<bool> {
        let json = serde_json::to_vec(self).expect("a plan serializes to JSON");
        Ok(files::create_new(&directory.join(FILE), &json)?.is_some())
    }

    /// Checks that the plan is the one of a task.
    ///
    /// # Errors
    /// Returns an error with the differences.
    pub fn check(
        &self,
        directory: &Path,
        shards: usize,
        manifest: &Manifest,
        product: Product,
        provenance: &Provenance,
    ) -> Result<()> {
        let mut lines = Vec::new();
        if self.shards != shards {
            lines.push(format!("shards: {}, requested {shards}", self.shards));
        }
        if self.clips_sha256 != manifest.unordered_sha256() {
            lines.push(self.manifest_difference(manifest));
        }
        if self.product != product {
            lines.push(format!("data: {}, requested {product}", self.product));
        }
        let differences = self.provenance.differences(provenance);
        lines.extend(differences.iter().map(|d| format!("{}: {}, requested {}", d.attribute, d.stored, d.requested)));
        if lines.is_empty() {
            return Ok(());
        }
        let message = format!(
            "the first task was started with other settings; use its settings, another --out, or remove the directory to start over\n  {}",
            lines.join("\n  ")
        );
        Err(Error::Store { path: directory.join(FILE), message })
    }

    fn manifest_difference(&self, manifest: &Manifest) -> String {
        let planned: HashSet<&str> = self.clips.iter().map(|(id, _)| id.as_str()).collect();
        let requested: HashSet<&str> = manifest.clips.iter().map(|clip| clip.id.as_str()).collect();
        let only = |a: &HashSet<&str>, b: &HashSet<&str>| {
            let mut ids: Vec<&str> = a.difference(b).copied().collect();
            ids.sort_unstable();
            if ids.is_empty() { "0".to_string() } else { format!("{} ({})", ids.len(), list(ids.iter())) }
        };
        let (removed, added) = (only(&planned, &requested), only(&requested, &planned));
        if (removed.as_str(), added.as_str()) == ("0", "0") {
            return "manifest: the same ids, but other paths, starts or ends".into();
        }
        format!("manifest: clips that are missing: {removed}; clips that are new: {added}")
    }

    /// Returns the clips of a shard, in the order of the plan.
    pub fn clips_of<'a>(&self, shard: Shard, manifest: &'a Manifest) -> Vec<&'a Clip> {
        let clips: HashMap<&str, &Clip> = manifest.clips.iter().map(|clip| (clip.id.as_str(), clip)).collect();
        let of_shard = self.clips.iter().filter(|(_, index)| *index == shard.index);
        of_shard.filter_map(|(id, _)| clips.get(id.as_str()).copied()).collect()
    }

    /// Returns the file of a shard in `directory`.
    pub fn path_of(&self, directory: &Path, index: usize) -> PathBuf {
        let digits = (self.shards - 1).to_string().len().max(4);
        directory.join(format!("{index:0digits$}-of-{:0digits$}.{}", self.shards, self.product.extension()))
    }
}

/// Assigns clips, given by id and size, to shards: the largest first, each to the shard with the smallest sum.
///
/// Source: Graham, "Bounds on Multiprocessing Timing Anomalies" (1969), longest processing time first; the largest sum is at most 4/3 of
/// the optimum.
fn assign(clips: &[(&str, u64)], shards: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..clips.len()).collect();
    order.sort_unstable_by_key(|&i| (Reverse(clips[i].1), clips[i].0));
    let mut smallest: BinaryHeap<Reverse<(u64, usize)>> = (0..shards).map(|shard| Reverse((0, shard))).collect();
    let mut shard_of = vec![0; clips.len()];
    for i in order {
        let mut top = smallest.peek_mut().expect("at least one shard");
        let Reverse((sum, shard)) = *top;
        shard_of[i] = shard;
        *top = Reverse((sum + clips[i].1 + CLIP_BYTES, shard));
    }
    shard_of
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn assignment_does_not_depend_on_the_order_and_is_balanced(
            sizes in proptest::collection::vec(0u64..1 << 30, 1..200),
            shards in 1usize..20,
            rotation in 0usize..200,
        ) {
            let ids: Vec<String> = (0..sizes.len()).map(|i| format!("clip{i}")).collect();
            let clips: Vec<(&str, u64)> = ids.iter().map(String::as_str).zip(sizes).collect();
            let shard_of = assign(&clips, shards);
            let mut rotated = clips.clone();
            rotated.rotate_left(rotation % clips.len());
            let of_rotated: HashMap<&str, usize> = rotated.iter().map(|(id, _)| *id).zip(assign(&rotated, shards)).collect();
            prop_assert!(clips.iter().zip(&shard_of).all(|((id, _), shard)| of_rotated[id] == *shard));
            let mut sums = vec![0; shards];
            clips.iter().zip(&shard_of).for_each(|((_, size), &shard)| sums[shard] += size + CLIP_BYTES);
            let total: u64 = sums.iter().sum();
            let largest = clips.iter().map(|(_, size)| size + CLIP_BYTES).max().unwrap();
            prop_assert!(*sums.iter().max().unwrap() <= total / shards as u64 + largest);
            prop_assert!(clips.len() < shards || sums.iter().all(|&sum| sum > 0));
        }
    }
}
