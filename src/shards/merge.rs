//! The merge of shards into one store, or one list of shots.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::merge_options::{MergeOptions, MergeSummary, check_lost, complete_shards};
use super::merge_shots::merge_shots;
use super::plan::{Product, ShardPlan};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::progress::{Event, ProgressSink, Unit};
use crate::store::{ClipCursor, ClipKey, Failure, Payload, Provenance, Store, StoreWriter, StoredClip};

/// Memory for the blocks that are read from all shards, in bytes.
const BLOCKS_BYTES: usize = 256 << 20;

/// What to merge.
struct Sources {
    stores: Vec<Store>,
    provenance: Provenance,
    /// Id of each clip, and the store that has it or its failure.
    order: Vec<(String, usize)>,
    missing: usize,
}

/// Merges shards. The result equals the store of an extraction without shards, except for the times in its attributes; stores without a
/// plan are concatenated. The memory for features does not depend on the number of clips or shards. With `virtual_rows`, nothing is copied,
/// the clips are in the order of the shards, and the shards must stay where they are relative to the store.
///
/// # Errors
/// Returns an error if a shard is missing (without `partial`), damaged, or has another recipe, model, precision or kind of data than the
/// others; an id is missing, unexpected or occurs twice; `out` exists with clips that the shards do not have; or a file cannot be written.
pub fn merge(options: &MergeOptions, progress: &dyn ProgressSink, cancel: &CancellationToken) -> Result<MergeSummary> {
    let Sources { stores, provenance, order, missing } = match &options.shards[..] {
        [directory] if directory.is_dir() => {
            let plan = ShardPlan::open_existing(directory)?;
            match plan.product {
                Product::Store(payload) => of_plan(directory, plan, payload, options.partial, progress)?,
                Product::Shots => return merge_shots(directory, &plan, options, progress),
            }
        }
        paths => of_stores(paths, options.partial)?,
    };
    let first = stores.first().ok_or_else(|| Error::Data("no shard is complete".into()))?;
    check_existing(&options.out, &stores)?;
    let failures: Vec<HashMap<&str, &Failure>> = stores
        .iter()
        .map(|store| store.failures().iter().map(|failure| (failure.id.as_str(), failure)).collect())
        .collect();
    let failed = stores.iter().map(|store| store.failures().len()).sum();
    let clips = stores.iter().map(|store| store.clips().len()).sum();
    let summary = MergeSummary {
        out: options.out.clone(),
        shards: stores.len(),
        clips,
        failed,
        missing,
        dry_run: options.dry_run,
    };
    check_complete(&stores, &failures, &order)?;
    if clips == 0 {
        return Err(Error::Data(format!("all {failed} clips failed; no store is written")));
    }
    if options.dry_run {
        return Ok(summary);
    }
    if options.virtual_rows {
        let mut writer = StoreWriter::create_virtual(&options.out, &stores, &provenance)?;
        order.iter().filter_map(|(id, i)| failures[*i].get(id.as_str())).for_each(|&f| writer.push_failure(f.clone()));
        writer.finish()?;
        return Ok(summary);
    }
    progress.report(Event::Started { task: "merge", unit: Unit::Clips, total: Some(order.len() as u64), done: 0 });
    let mut writer = StoreWriter::create(&options.out, first.payload(), &provenance)?;
    let block_bytes = BLOCKS_BYTES / stores.len();
    let mut cursors =
        stores.iter().map(|store| ClipCursor::new(store, block_bytes)).collect::<Result<Vec<ClipCursor<'_>>>>()?;
    for (id, store) in &order {
        cancel.check()?;
        match failures[*store].get(id.as_str()) {
            Some(failure) => writer.push_failure((*failure).clone()),
            None => {
                let clip = cursors[*store].next().expect("the ids were checked")?;
                assert_eq!(clip.id, *id, "clips are in the order of the plan");
                writer.push(clip)?;
            }
        }
        progress.report(Event::Advanced(1));
    }
    writer.finish()?;
    progress.report(Event::Finished);
    Ok(summary)
}

/// Opens the complete shards of a directory.
fn of_plan(
    directory: &Path,
    plan: ShardPlan,
    payload: Payload,
    partial: bool,
    progress: &dyn ProgressSink,
) -> Result<Sources> {
    let complete = complete_shards(directory, &plan, partial, progress)?;
    let mut stores = Vec::new();
    // Position among the complete shards.
    let mut position = vec![None; plan.shards];
    for (index, path) in complete {
        let store = Store::open(&path)?;
        store.check_payload(payload)?;
        store.provenance().check_compatible(&path, &plan.provenance)?;
        position[index] = Some(stores.len());
        stores.push(store);
    }
    let (mut order, mut missing) = (Vec::with_capacity(plan.clips.len()), 0);
    for (id, shard) in &plan.clips {
        match position[*shard] {
            Some(store) => order.push((id.clone(), store)),
            None => missing += 1,
        }
    }
    let mut provenance = combined(&stores);
    provenance.manifest_sha256 = plan.provenance.manifest_sha256;
    Ok(Sources { stores, provenance, order, missing })
}

/// Opens stores that are not in a directory with a plan.
fn of_stores(paths: &[PathBuf], partial: bool) -> Result<Sources> {
    if partial {
        return Err(Error::Data(
            "--partial does not apply to stores: only a directory with a shards.json has missing shards".into(),
        ));
    }
    let stores = paths.iter().map(|path| Store::open(path)).collect::<Result<Vec<Store>>>()?;
    let mut order = Vec::new();
    for (i, store) in stores.iter().enumerate() {
        store.check_payload(stores[0].payload())?;
        check_provenance(&stores[0], store)?;
        if store.provenance().weights == "kmeans" {
            let message =
                "histograms of visual words: merge the stores of descriptors, then run kinoprobe-codebook".into();
            return Err(Error::Store { path: store.path().into(), message });
        }
        let clips = store.clips().iter().map(|clip| &clip.id);
        order.extend(clips.chain(store.failures().iter().map(|failure| &failure.id)).map(|id| (id.clone(), i)));
    }
    let mut store_of: HashMap<&str, usize> = HashMap::new();
    for (id, i) in &order {
        if let Some(other) = store_of.insert(id, *i) {
            let message = format!("clip {id} is also in {}", stores[other].path().display());
            return Err(Error::Store { path: stores[*i].path().into(), message });
        }
    }
    let provenance = combined(&stores);
    Ok(Sources { stores, provenance, order, missing: 0 })
}

/// Returns the provenance of the merged store. The hash of the manifest is that of the first store.
fn combined(stores: &[Store]) -> Provenance {
    let mut combined = stores.first().map(|store| store.provenance().clone()).unwrap_or_default();
    for store in stores.iter().skip(1) {
        let provenance = store.provenance();
        combined.extract_seconds += provenance.extract_seconds;
        combined.add_provider(&provenance.provider);
        // RFC 3339 times in UTC are in the order of their text.
        if provenance.created < combined.created {
            combined.created.clone_from(&provenance.created);
        }
    }
    combined
}

fn check_provenance(first: &Store, other: &Store) -> Result<()> {
    let differences = first.provenance().differences(other.provenance());
    if differences.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        differences.iter().map(|d| format!("  {}: {}, not {}", d.attribute, d.requested, d.stored)).collect();
    let message = format!("made with other settings than {}:\n{}", first.path().display(), lines.join("\n"));
    Err(Error::Store { path: other.path().into(), message })
}

/// Checks that `out` does not exist, or has been made with the same settings and has no features that would be lost.
fn check_existing(out: &Path, stores: &[Store]) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    // Its rows are replaced: the sources of a virtual store may have changed.
    let existing = Store::open_without_rows(out)?;
    existing.check_payload(stores[0].payload())?;
    existing.provenance().check_compatible(out, stores[0].provenance())?;
    let merged: HashSet<ClipKey> = stores.iter().flat_map(Store::clips).map(StoredClip::key).collect();
    let lost: Vec<&str> =
        existing.clips().iter().filter(|clip| !merged.contains(&clip.key())).map(|clip| clip.id.as_str()).collect();
    check_lost(out, "features", &lost)
}

/// Checks that each store has exactly the clips and failures that `order` expects, in its order.
fn check_complete(stores: &[Store], failures: &[HashMap<&str, &Failure>], order: &[(String, usize)]) -> Result<()> {
    let mut next = vec![0; stores.len()];
    let mut failed = vec![0; stores.len()];
    for (id, i) in order {
        let expected = stores[*i].clips().get(next[*i]).map(|clip| clip.id.as_str());
        if expected == Some(id) {
            next[*i] += 1;
        } else if failures[*i].contains_key(id.as_str()) {
            failed[*i] += 1;
        } else {
            let message = match stores[*i].clips().iter().any(|clip| clip.id == *id) {
                true => format!("damaged: clip {id} is not in the order of shards.json"),
                false => format!("damaged: clip {id} of shards.json is missing"),
            };
            return Err(Error::Store { path: stores[*i].path().into(), message });
        }
    }
    for (i, store) in stores.iter().enumerate() {
        let unexpected = if let Some(clip) = store.clips().get(next[i]) {
            &clip.id
        } else if failed[i] < store.failures().len() {
            let expected: HashSet<&str> = order.iter().map(|(id, _)| id.as_str()).collect();
            let is_unexpected = |failure: &&Failure| !expected.contains(failure.id.as_str());
            store.failures().iter().find(is_unexpected).map_or(&store.failures()[0].id, |failure| &failure.id)
        } else {
            continue;
        };
        let message = format!("damaged: clip {unexpected} does not belong to this shard");
        return Err(Error::Store { path: store.path().into(), message });
    }
    Ok(())
}
