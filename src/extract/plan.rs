//! What is left to do: which clips a store already has, and which must be extracted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::store::{Failure, Payload, Provenance, Store, StoreWriter};

/// What happens to one clip of the manifest.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Its rows are copied from the store at this position of [`Plan::sources`].
    Keep {
        /// Position in [`Plan::sources`].
        source: usize,
        /// Position among that store's clips.
        clip: usize,
    },
    /// It failed before and is not tried again.
    KeepFailure(Failure),
    /// It is extracted: the clip at this position of the manifest.
    Extract(usize),
}

/// What an interrupted run left as `NAME.h5.partial`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    /// Nothing, or nothing worth keeping.
    #[default]
    None,
    /// The first clips of this manifest: gone on with.
    Beginning,
    /// Clips of another manifest: set aside, their rows are kept.
    Other,
    /// A file that cannot be read: set aside for the user to look at.
    Damaged,
}

/// The work that a run will do, in the order of the manifest.
#[derive(Debug, Default)]
pub struct Plan {
    /// Stores with rows that can be kept.
    pub sources: Vec<Store>,
    /// One step for each clip that the partial store does not have yet.
    pub steps: Vec<Step>,
    /// Clips that the partial store of an interrupted run already has.
    pub resumed: usize,
    /// Failures among them.
    pub resumed_failures: usize,
    /// Whether the finished store already is what was asked for.
    pub up_to_date: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
    leftover: Leftover,
}

impl Plan {
    /// Clips to extract.
    pub fn extractions(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Extract(_))).count()
    }

    /// Clips whose rows are copied from earlier stores.
    pub fn kept(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Keep { .. })).count()
    }
}

/// Looks at `out` and at what interrupted runs left beside it. Changes nothing.
///
/// # Errors
/// A store is locked by another process, or was made with another recipe, model or weights than `wanted`; the latter
/// lists what differs.
pub fn plan(
    manifest: &Manifest,
    out: &Path,
    payload: Payload,
    wanted: &Provenance,
    retry_failed: bool,
) -> Result<Plan> {
    let mut plan = Plan::default();
    let finished = open_if_there(out, payload, wanted)?;
    let partial_file = StoreWriter::partial_path(out);
    let partial = match open_if_there(&partial_file, payload, wanted) {
        Ok(partial) => partial,
        Err(error) if is_damage(&error) => {
            plan.warnings.push(format!("{error}; it is set aside as .damaged and its clips are extracted again"));
            plan.leftover = Leftover::Damaged;
            None
        }
        Err(error) => return Err(error),
    };

    if let (Some(store), None) = (&finished, &partial) {
        let same = store.provenance().manifest_sha256 == wanted.manifest_sha256;
        let retry = retry_failed && !store.failures().is_empty();
        if same && !retry && store.clips().len() + store.failures().len() == manifest.clips.len() {
            plan.up_to_date = true;
            return Ok(plan);
        }
    }
    // A partial store of the same manifest holds its first clips: go on behind them.
    let mut first = 0;
    let mut sources: Vec<Store> = finished.into_iter().collect();
    if let Some(store) = partial {
        if is_beginning(&store, manifest) {
            plan.leftover = Leftover::Beginning;
            plan.resumed = store.clips().len();
            plan.resumed_failures = store.failures().len();
            first = plan.resumed + plan.resumed_failures;
        } else {
            plan.leftover = Leftover::Other;
            sources.push(store);
        }
    }
    for path in set_aside(out) {
        sources.extend(open_if_there(&path, payload, wanted)?);
    }

    let mut kept: HashMap<(&str, &str), Step> = HashMap::new();
    let mut failed: HashMap<&str, &Failure> = HashMap::new();
    for (source, store) in sources.iter().enumerate() {
        for (clip, stored) in store.clips().iter().enumerate() {
            kept.insert((&stored.id, &stored.path), Step::Keep { source, clip });
        }
        failed.extend(store.failures().iter().map(|failure| (failure.id.as_str(), failure)));
    }
    plan.steps = manifest.clips[first..]
        .iter()
        .enumerate()
        .map(|(i, clip)| match (kept.remove(&(clip.id.as_str(), clip.path.as_str())), failed.get(clip.id.as_str())) {
            (Some(keep), _) => keep,
            (None, Some(&failure)) if !retry_failed => Step::KeepFailure(failure.clone()),
            _ => Step::Extract(first + i),
        })
        .collect();
    plan.sources = sources;
    Ok(plan)
}

/// Opens the partial store that the plan goes on with, or begins one; nothing that was left behind is lost.
///
/// # Errors
/// As [`StoreWriter::resume`] and [`StoreWriter::create`].
pub fn open_writer(plan: &Plan, out: &Path, payload: Payload, wanted: &Provenance) -> Result<StoreWriter> {
    let partial = StoreWriter::partial_path(out);
    let aside = match plan.leftover {
        Leftover::None => return StoreWriter::create(out, payload, wanted),
        Leftover::Beginning => return StoreWriter::resume(out, payload, wanted),
        Leftover::Other => previous(out).find(|path| !path.exists()).expect("numbers do not end"),
        Leftover::Damaged => out.with_extension("h5.damaged"),
    };
    std::fs::rename(&partial, &aside).map_err(Error::io(&partial))?;
    StoreWriter::create(out, payload, wanted)
}

/// Removes what was set aside, once the finished store has it all.
pub fn clean_up(out: &Path) -> Result<()> {
    for path in set_aside(out) {
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Whether the clips and failures of `store` are the first clips of the manifest, in order.
fn is_beginning(store: &Store, manifest: &Manifest) -> bool {
    let mut clips = store.clips().iter().peekable();
    let mut failures = store.failures().iter().peekable();
    for clip in &manifest.clips {
        if clips.peek().is_some_and(|stored| stored.id == clip.id && stored.path == clip.path) {
            clips.next();
        } else if failures.peek().is_some_and(|failure| failure.id == clip.id) {
            failures.next();
        } else {
            break;
        }
    }
    clips.peek().is_none() && failures.peek().is_none()
}

fn open_if_there(path: &Path, payload: Payload, wanted: &Provenance) -> Result<Option<Store>> {
    if !path.exists() {
        return Ok(None);
    }
    let store = Store::open(path)?;
    store.refuse_if_different(payload, wanted)?;
    Ok(Some(store))
}

/// Whether a partial store cannot be read, rather than being locked or made differently.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Store { message, .. } if message.starts_with("HDF5: ") || message.starts_with("damaged: ")
        || message.starts_with("not a feature store"))
}

/// `NAME.h5.previous.1`, `.2`, …: partial stores of other manifests.
fn previous(out: &Path) -> impl Iterator<Item = PathBuf> {
    let out = out.as_os_str().to_owned();
    (1..).map(move |number| {
        let mut name = out.clone();
        name.push(format!(".previous.{number}"));
        PathBuf::from(name)
    })
}

fn set_aside(out: &Path) -> Vec<PathBuf> {
    previous(out).take_while(|path| path.exists()).collect()
}
