//! What is left to do: which clips are there already, and which must be extracted.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::Result;
use crate::manifest::{Clip, Manifest};
use crate::store::{Failure, Journal, Payload, Provenance, Store, StoreWriter};

/// The work of one run.
#[derive(Debug)]
pub struct Plan {
    /// The finished store of an earlier run, where there is one.
    finished: Option<Store>,
    /// Positions of the clips to extract, in the order of the manifest.
    pub extract: Vec<usize>,
    /// Clips whose rows are there already, in the finished store or the journal of an interrupted run.
    pub there: usize,
    /// Failures of earlier runs that are not tried again.
    pub failed: usize,
    /// Whether the finished store is what was asked for, so that nothing need be written.
    pub up_to_date: bool,
}

/// Looks at the finished store `out` and at the journal beside it.
///
/// # Errors
/// The store was made with another recipe, model or weights than `wanted` (the error lists what differs), or cannot be
/// read.
pub fn plan(
    manifest: &Manifest,
    out: &Path,
    journal: Option<&Journal>,
    payload: Payload,
    wanted: &Provenance,
    retry_failed: bool,
) -> Result<Plan> {
    let finished = out.exists().then(|| Store::open(out)).transpose()?;
    if let Some(store) = &finished {
        store.provenance().refuse_if_different(out, wanted)?;
        store.refuse_payload(payload)?;
    }
    let mut plan = Plan { finished: None, extract: Vec::new(), there: 0, failed: 0, up_to_date: false };
    {
        let (stored, failed) = contents(finished.as_ref());
        for (position, clip) in manifest.clips.iter().enumerate() {
            let key = (clip.id.as_str(), clip.path.as_str());
            if stored.contains_key(&key) || journal.is_some_and(|journal| journal.has(&clip.id, &clip.path)) {
                plan.there += 1;
            } else if !retry_failed && known_failure(clip, journal, &failed).is_some() {
                plan.failed += 1;
            } else {
                plan.extract.push(position);
            }
        }
    }
    plan.up_to_date = plan.extract.is_empty()
        && finished.as_ref().is_some_and(|store| {
            store.provenance().manifest_sha256 == wanted.manifest_sha256 && store.clips().len() == plan.there
        });
    plan.finished = finished;
    Ok(plan)
}

impl Plan {
    /// Writes the store: every clip of the manifest that is in the journal or the old store, in the manifest's order.
    ///
    /// # Errors
    /// The store cannot be written, or the journal or the old store cannot be read.
    pub fn write_store(&self, manifest: &Manifest, out: &Path, payload: Payload, journal: &mut Journal) -> Result<()> {
        let mut provenance = journal.provenance().clone();
        if let Some(store) = &self.finished {
            provenance.extract_seconds += store.provenance().extract_seconds;
            provenance.add_provider(&store.provenance().provider);
            provenance.created = store.provenance().created.clone();
        }
        let mut writer = StoreWriter::create(out, payload, &provenance)?;
        let (stored, failed) = contents(self.finished.as_ref());
        for clip in &manifest.clips {
            if journal.has(&clip.id, &clip.path) {
                writer.push(journal.read(&clip.id, &clip.path)?)?;
            } else if let (Some(&position), Some(store)) =
                (stored.get(&(clip.id.as_str(), clip.path.as_str())), &self.finished)
            {
                writer.push(store.read_clip(position)?)?;
            } else if let Some(failure) = known_failure(clip, Some(journal), &failed) {
                writer.push_failure(failure.clone());
            }
        }
        writer.finish()
    }

    /// Clips of the finished store that the manifest no longer has: their rows go.
    pub fn dropped(&self, manifest: &Manifest) -> usize {
        let wanted: HashSet<_> = manifest.clips.iter().map(|clip| (clip.id.as_str(), clip.path.as_str())).collect();
        self.finished.as_ref().map_or(0, |store| {
            store.clips().iter().filter(|clip| !wanted.contains(&(clip.id.as_str(), clip.path.as_str()))).count()
        })
    }
}

type Contents<'a> = (HashMap<(&'a str, &'a str), usize>, HashMap<&'a str, &'a Failure>);

/// Where the store has which clip, and what failed.
fn contents(store: Option<&Store>) -> Contents<'_> {
    let Some(store) = store else {
        return Contents::default();
    };
    let clips = store.clips().iter().enumerate().map(|(i, clip)| ((clip.id.as_str(), clip.path.as_str()), i)).collect();
    let failures = store.failures().iter().map(|failure| (failure.id.as_str(), failure)).collect();
    (clips, failures)
}

/// Why the clip failed; the journal knows better than the old store.
fn known_failure<'a>(
    clip: &Clip,
    journal: Option<&'a Journal>,
    failed: &HashMap<&str, &'a Failure>,
) -> Option<&'a Failure> {
    journal.and_then(|journal| journal.failure(&clip.id)).or_else(|| failed.get(clip.id.as_str()).copied())
}
