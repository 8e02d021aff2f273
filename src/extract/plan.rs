//! Planning of a run: which clips are extracted already, and which are to be extracted.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest};
use crate::store::{ClipKey, Failure, Journal, Payload, Provenance, Store, StoreWriter, StoredClip};

/// Treatment of the stored clips that are not in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// They stay in the store, after the clips of the manifest.
    Keep,
    /// They are removed from the store.
    Prune,
}

/// The work of one run.
#[derive(Debug)]
pub struct WorkPlan {
    /// The complete store of an earlier run, if there is one.
    previous: Option<Store>,
    /// Positions in the manifest of the clips to extract, in ascending order.
    pub pending: Vec<usize>,
    /// Number of clips whose rows are already in the previous store or in the journal.
    pub extracted: usize,
    /// Number of clips that failed in an earlier run and are not retried.
    pub failed: usize,
    /// Number of clips in the previous store and the journal that are not in the manifest.
    pub unlisted_clips: usize,
    /// `true` if the previous store matches the manifest, so that nothing has to be written.
    pub up_to_date: bool,
    unlisted: Unlisted,
}

impl WorkPlan {
    /// Compares the manifest with the store `out` and with its journal.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read, was made with a recipe, model or weights other than those in
    /// `provenance` (the message lists the differences), or has a clip that is to be kept and whose id belongs to another
    /// file, or another part of its file, in the manifest; or if a virtual store would have to be changed.
    pub fn new(
        manifest: &Manifest,
        out: &Path,
        journal: Option<&Journal>,
        payload: Payload,
        provenance: &Provenance,
        retry_failed: bool,
        unlisted: Unlisted,
    ) -> Result<Self> {
        let previous = out.exists().then(|| Store::open(out)).transpose()?;
        if let Some(store) = &previous {
            store.provenance().check_compatible(out, provenance)?;
            store.check_payload(payload)?;
        }
        let mut plan = Self {
            previous: None,
            pending: Vec::new(),
            extracted: 0,
            failed: 0,
            unlisted_clips: 0,
            up_to_date: false,
            unlisted,
        };
        let index = StoreIndex::new(previous.as_ref());
        for (position, clip) in manifest.clips.iter().enumerate() {
            let key = ClipKey::from(clip);
            if index.clips.contains_key(&key) || journal.is_some_and(|journal| journal.contains(&key)) {
                plan.extracted += 1;
            } else if !retry_failed && index.failure(clip, journal).is_some() {
                plan.failed += 1;
            } else {
                plan.pending.push(position);
            }
        }
        let stored = Stored::new(previous.as_ref(), journal);
        let unlisted_clips = stored.unlisted_clips(manifest);
        if unlisted == Unlisted::Keep {
            check_ids(manifest, out, &unlisted_clips)?;
        }
        plan.unlisted_clips = unlisted_clips.len();
        let kept = if unlisted == Unlisted::Keep { plan.unlisted_clips } else { 0 };
        plan.up_to_date = plan.pending.is_empty()
            && previous.as_ref().is_some_and(|store| {
                store.provenance().manifest_sha256 == provenance.manifest_sha256
                    && store.clips().len() == plan.extracted + kept
            });
        if previous.as_ref().is_some_and(Store::is_virtual) && !(plan.up_to_date && journal.is_none()) {
            let message = format!(
                "virtual: its rows are in shards, so that no clips can be added to or removed from it: extract the clips into the shards \
                 (--shard) and merge again, or copy it first (kinoprobe-merge {} --out OTHER.h5) and extract into the copy",
                out.display()
            );
            return Err(Error::Store { path: out.to_path_buf(), message });
        }
        plan.previous = previous;
        Ok(plan)
    }

    /// Checks that the rows of the previous store, if any, may share a store with `provenance`.
    ///
    /// # Errors
    /// Returns an error with the differences.
    pub fn check_previous(&self, out: &Path, provenance: &Provenance) -> Result<()> {
        self.previous.as_ref().map_or(Ok(()), |store| store.provenance().check_compatible(out, provenance))
    }

    /// Writes the store: every clip of the manifest that is in the journal or the previous store, in the order of the
    /// manifest, then the clips that are not in the manifest, unless they are pruned.
    ///
    /// # Errors
    /// Returns an error if the store cannot be written, or the journal or the previous store cannot be read.
    pub fn write_store(&self, manifest: &Manifest, out: &Path, payload: Payload, journal: &mut Journal) -> Result<()> {
        let mut provenance = journal.provenance().clone();
        if let Some(store) = &self.previous {
            provenance.extract_seconds += store.provenance().extract_seconds;
            provenance.add_provider(&store.provenance().provider);
            provenance.created = store.provenance().created.clone();
            if self.pending.is_empty() {
                // The batch size of the run that extracted the features.
                provenance.recipe = store.provenance().recipe.clone();
            }
        }
        let mut writer = StoreWriter::create(out, payload, &provenance)?;
        let index = StoreIndex::new(self.previous.as_ref());
        for clip in &manifest.clips {
            let key = ClipKey::from(clip);
            if journal.contains(&key) {
                writer.push(journal.read(&key)?)?;
            } else if let (Some(&position), Some(store)) = (index.clips.get(&key), &self.previous) {
                writer.push(store.read_clip(position)?)?;
            } else if let Some(failure) = index.failure(clip, Some(journal)) {
                writer.push_failure(failure.clone());
            }
        }
        if self.unlisted == Unlisted::Keep {
            self.write_unlisted(manifest, journal, &index, &mut writer)?;
        }
        writer.finish()
    }

    /// Appends the clips and failures of the previous store and the journal that are not in the manifest.
    fn write_unlisted(
        &self,
        manifest: &Manifest,
        journal: &mut Journal,
        index: &StoreIndex<'_>,
        writer: &mut StoreWriter,
    ) -> Result<()> {
        let stored = Stored::new(self.previous.as_ref(), Some(journal));
        let mut ids: HashSet<String> = manifest.clips.iter().map(|clip| clip.id.clone()).collect();
        let failures: Vec<Failure> = stored.failures.iter().map(|&failure| failure.clone()).collect();
        for clip in stored.unlisted_clips(manifest) {
            if journal.contains(&clip) {
                writer.push(journal.read(&clip)?)?;
            } else if let (Some(&position), Some(store)) = (index.clips.get(&clip), &self.previous) {
                writer.push(store.read_clip(position)?)?;
            }
            ids.insert(clip.id);
        }
        for failure in failures {
            if ids.insert(failure.id.clone()) {
                writer.push_failure(failure);
            }
        }
        Ok(())
    }
}

/// Checks that the manifest and the clips that are to be kept have one file, and one part of it, per id.
fn check_ids(manifest: &Manifest, out: &Path, unlisted_clips: &[ClipKey]) -> Result<()> {
    let mut known: HashMap<String, ClipKey> =
        manifest.clips.iter().map(|clip| (clip.id.clone(), ClipKey::from(clip))).collect();
    let mut conflicts = Vec::new();
    for stored in unlisted_clips {
        match known.get(&stored.id) {
            Some(other) => conflicts.push((stored, other.to_string())),
            None => {
                known.insert(stored.id.clone(), stored.clone());
            }
        }
    }
    let Some((stored, other)) = conflicts.first() else { return Ok(()) };
    let message = format!(
        "{} of its clips have another path, start or end in the manifest or in an interrupted run (`{}`: {stored} and {other}): \
         choose another store (--out; --features of kinoprobe-predict), or remove all clips that are not in the manifest with \
         kinoprobe-extract --prune",
        conflicts.len(),
        stored.id,
    );
    Err(Error::Store { path: out.to_path_buf(), message })
}

/// The clips and failures of the previous store, followed by those that only the journal has.
struct Stored<'a> {
    clips: Vec<ClipKey>,
    failures: Vec<&'a Failure>,
}

impl<'a> Stored<'a> {
    fn new(store: Option<&'a Store>, journal: Option<&'a Journal>) -> Self {
        let mut clips: Vec<ClipKey> = Vec::new();
        let mut failures: Vec<&Failure> = Vec::new();
        if let Some(store) = store {
            clips.extend(store.clips().iter().map(StoredClip::key));
            failures.extend(store.failures());
        }
        if let Some(journal) = journal {
            let known: HashSet<ClipKey> = clips.iter().cloned().collect();
            clips.extend(journal.clips().into_iter().filter(|clip| !known.contains(clip)).cloned());
            failures.extend(journal.failures());
        }
        Self { clips, failures }
    }

    /// Returns the clips that are not in the manifest.
    fn unlisted_clips(&self, manifest: &Manifest) -> Vec<ClipKey> {
        let listed: HashSet<ClipKey> = manifest.clips.iter().map(ClipKey::from).collect();
        self.clips.iter().filter(|clip| !listed.contains(clip)).cloned().collect()
    }
}

/// Lookup tables of a store.
#[derive(Default)]
struct StoreIndex<'a> {
    /// Position of each clip.
    clips: HashMap<ClipKey, usize>,
    /// Failures by clip id.
    failures: HashMap<&'a str, &'a Failure>,
}

impl<'a> StoreIndex<'a> {
    fn new(store: Option<&'a Store>) -> Self {
        let Some(store) = store else { return Self::default() };
        let clips = store.clips().iter().enumerate();
        Self {
            clips: clips.map(|(position, clip)| (clip.key(), position)).collect(),
            failures: store.failures().iter().map(|failure| (failure.id.as_str(), failure)).collect(),
        }
    }

    /// Returns the most recent failure of a clip: the journal's, otherwise the store's. A failure with another path, start or
    /// end does not count.
    fn failure(&self, clip: &Clip, journal: Option<&'a Journal>) -> Option<&'a Failure> {
        let recorded = journal.and_then(|journal| journal.failure(&clip.id));
        recorded.or_else(|| self.failures.get(clip.id.as_str()).copied()).filter(|failure| failure.is_of(clip))
    }
}
