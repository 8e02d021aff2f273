//! Planning of a run: which clips are extracted already, and which are to be extracted.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::Result;
use crate::manifest::{Clip, Manifest};
use crate::store::{Failure, Journal, Payload, Provenance, Store, StoreWriter};

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
    /// `true` if the previous store matches the manifest, so that nothing has to be written.
    pub up_to_date: bool,
}

impl WorkPlan {
    /// Compares the manifest with the store `out` and with its journal.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read, or was made with a recipe, model or weights other than those in
    /// `provenance` (the message lists the differences).
    pub fn new(
        manifest: &Manifest,
        out: &Path,
        journal: Option<&Journal>,
        payload: Payload,
        provenance: &Provenance,
        retry_failed: bool,
    ) -> Result<Self> {
        let previous = out.exists().then(|| Store::open(out)).transpose()?;
        if let Some(store) = &previous {
            store.provenance().check_compatible(out, provenance)?;
            store.check_payload(payload)?;
        }
        let mut plan = Self { previous: None, pending: Vec::new(), extracted: 0, failed: 0, up_to_date: false };
        let index = StoreIndex::new(previous.as_ref());
        for (position, clip) in manifest.clips.iter().enumerate() {
            if index.clips.contains_key(&key(clip))
                || journal.is_some_and(|journal| journal.contains(&clip.id, &clip.path))
            {
                plan.extracted += 1;
            } else if !retry_failed && index.failure(clip, journal).is_some() {
                plan.failed += 1;
            } else {
                plan.pending.push(position);
            }
        }
        plan.up_to_date = plan.pending.is_empty()
            && previous.as_ref().is_some_and(|store| {
                store.provenance().manifest_sha256 == provenance.manifest_sha256
                    && store.clips().len() == plan.extracted
            });
        plan.previous = previous;
        Ok(plan)
    }

    /// Writes the store: every clip of the manifest that is in the journal or the previous store, in the order of the
    /// manifest.
    ///
    /// # Errors
    /// Returns an error if the store cannot be written, or the journal or the previous store cannot be read.
    pub fn write_store(&self, manifest: &Manifest, out: &Path, payload: Payload, journal: &mut Journal) -> Result<()> {
        let mut provenance = journal.provenance().clone();
        if let Some(store) = &self.previous {
            provenance.extract_seconds += store.provenance().extract_seconds;
            provenance.add_provider(&store.provenance().provider);
            provenance.created = store.provenance().created.clone();
        }
        let mut writer = StoreWriter::create(out, payload, &provenance)?;
        let index = StoreIndex::new(self.previous.as_ref());
        for clip in &manifest.clips {
            if journal.contains(&clip.id, &clip.path) {
                writer.push(journal.read(&clip.id, &clip.path)?)?;
            } else if let (Some(&position), Some(store)) = (index.clips.get(&key(clip)), &self.previous) {
                writer.push(store.read_clip(position)?)?;
            } else if let Some(failure) = index.failure(clip, Some(journal)) {
                writer.push_failure(failure.clone());
            }
        }
        writer.finish()
    }

    /// Returns the number of clips of the previous store that are not in the manifest. The new store omits them.
    pub fn dropped(&self, manifest: &Manifest) -> usize {
        let listed: HashSet<_> = manifest.clips.iter().map(key).collect();
        self.previous.as_ref().map_or(0, |store| {
            store.clips().iter().filter(|clip| !listed.contains(&(clip.id.as_str(), clip.path.as_str()))).count()
        })
    }
}

/// Identifies a clip across manifests: its id and its path.
fn key(clip: &Clip) -> (&str, &str) {
    (&clip.id, &clip.path)
}

/// Lookup tables of a store.
#[derive(Default)]
struct StoreIndex<'a> {
    /// Position of each clip.
    clips: HashMap<(&'a str, &'a str), usize>,
    /// Failures by clip id.
    failures: HashMap<&'a str, &'a Failure>,
}

impl<'a> StoreIndex<'a> {
    fn new(store: Option<&'a Store>) -> Self {
        let Some(store) = store else { return Self::default() };
        let clips = store.clips().iter().enumerate();
        Self {
            clips: clips.map(|(position, clip)| ((clip.id.as_str(), clip.path.as_str()), position)).collect(),
            failures: store.failures().iter().map(|failure| (failure.id.as_str(), failure)).collect(),
        }
    }

    /// Returns the most recent failure of a clip: the journal's, otherwise the store's.
    fn failure(&self, clip: &Clip, journal: Option<&'a Journal>) -> Option<&'a Failure> {
        let recorded = journal.and_then(|journal| journal.failure(&clip.id));
        recorded.or_else(|| self.failures.get(clip.id.as_str()).copied())
    }
}
