//! The join of a store and a manifest.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis};

use super::{Dataset, DatasetSplits, Rows, Task};
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest, Split};
use crate::store::{CachedRows, ClipKey, FeatureStore, Pooling, StoredClip};

impl Dataset {
    /// Joins the features of `store` to the clips of `manifest` by id, in the order of the manifest.
    ///
    /// Features are pooled and in memory, or sequences with [`Pooling::None`], which are read from the store when they are needed
    /// (see [`FeatureStore::cached_rows`]).
    /// The classes are the labels of all clips with a split, in natural order. Clips without features (with the reason from
    /// the store, if known) and labeled clips without a split (if other clips have one) are excluded with a warning.
    ///
    /// # Errors
    /// Returns an error if there is no training clip, a split of the manifest has no clip with features, a class has no
    /// training clip with features, or a feature is not finite.
    pub fn join(store: &FeatureStore, manifest: &Manifest, pooling: Pooling) -> Result<DatasetSplits> {
        let (splits, missing) = Self::collect(store, manifest, pooling)?;
        splits.check(manifest, "features", &format!("have no features in {}", store.path().display()), &missing)?;
        Ok(splits)
    }

    /// Joins as [`Dataset::join`] for a fitted model: training clips are not required. If no labeled clip has a split, all
    /// labeled clips are test clips.
    ///
    /// # Errors
    /// Returns an error if no clip has features, or a feature is not finite.
    pub fn join_for_evaluation(store: &FeatureStore, manifest: &Manifest, pooling: Pooling) -> Result<DatasetSplits> {
        let mut manifest = manifest.clone();
        if manifest.clips.iter().all(|clip| clip.split.is_none() || clip.labels.is_empty()) {
            manifest.clips.iter_mut().for_each(|clip| clip.split = Some(Split::Test));
        }
        let (splits, missing) = Self::collect(store, &manifest, pooling)?;
        if splits.splits().iter().all(|(_, clips)| clips.is_empty()) && splits.unlabeled.is_empty() {
            let clips = if missing.is_empty() { String::new() } else { format!(": {}", first_names(&missing)) };
            return Err(Error::Data(format!(
                "{}: no clip has features in {}{clips}",
                manifest.source.display(),
                store.path().display()
            )));
        }
        Ok(splits)
    }

    /// Returns the splits, and the ids (with the reason) of the clips without features.
    fn collect(store: &FeatureStore, manifest: &Manifest, pooling: Pooling) -> Result<(DatasetSplits, Vec<String>)> {
        let features = StoredFeatures::open(store, pooling)?;
        let missing = missing_features(store, manifest, &features);
        let warnings = exclusion_warnings(store, manifest, &missing);
        let mut splits = split_clips(manifest, |clips, classes| features.dataset(clips, classes))?;
        splits.warnings = warnings;
        splits.warnings.extend(splits.leakage_warning()?);
        Ok((splits, missing))
    }
}

/// Builds the dataset of each split with `dataset`, from clips and classes.
fn split_clips(
    manifest: &Manifest,
    dataset: impl Fn(&mut dyn Iterator<Item = &Clip>, &[String]) -> Result<Dataset>,
) -> Result<DatasetSplits> {
    let with_split = || manifest.clips.iter().filter(|clip| clip.split.is_some());
    let used: BTreeSet<&str> = with_split().flat_map(|clip| clip.labels.iter().map(String::as_str)).collect();
    let classes: Vec<String> = manifest.classes().into_iter().filter(|class| used.contains(class.as_str())).collect();
    let select = |keep: &dyn Fn(&Clip) -> bool| dataset(&mut manifest.clips.iter().filter(|clip| keep(clip)), &classes);
    let labeled = |split: Split| select(&|clip| clip.split == Some(split) && !clip.labels.is_empty());
    let is_multi_label = with_split().any(|clip| clip.labels.len() > 1);
    Ok(DatasetSplits {
        task: if is_multi_label { Task::MultiLabel } else { Task::SingleLabel },
        train: labeled(Split::Train)?,
        resampled: None,
        val: labeled(Split::Val)?,
        test: labeled(Split::Test)?,
        unlabeled: select(&|clip| clip.labels.is_empty())?,
        warnings: Vec::new(),
    })
}

/// Builds a dataset of `clips` with the row offsets `offsets`.
fn labeled_rows(clips: &[&Clip], classes: &[String], offsets: Vec<usize>, rows: Rows) -> Dataset {
    let class_index: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
    let mut targets = Array2::zeros((clips.len(), classes.len()));
    for (i, clip) in clips.iter().enumerate() {
        for label in &clip.labels {
            if let Some(&class) = class_index.get(label.as_str()) {
                targets[(i, class)] = 1.0;
            }
        }
    }
    Dataset {
        ids: clips.iter().map(|clip| clip.id.clone()).collect(),
        groups: clips.iter().map(|clip| clip.group.clone()).collect(),
        rows,
        offsets,
        targets,
        classes: classes.to_vec(),
    }
}

/// The features of a store.
struct StoredFeatures<'a> {
    store: &'a FeatureStore,
    rows: StoredRows,
    /// Index of each clip in the store.
    index: HashMap<&'a str, usize>,
}

enum StoredRows {
    /// One row per clip, (clips of the store, D).
    Pooled(Arc<Array2<f32>>),
    Sequences(Arc<CachedRows>),
}

impl<'a> StoredFeatures<'a> {
    fn open(store: &'a FeatureStore, pooling: Pooling) -> Result<Self> {
        let rows = match pooling {
            Pooling::None => StoredRows::Sequences(Arc::new(store.cached_rows()?)),
            pooling => StoredRows::Pooled(Arc::new(store.pooled(pooling)?)),
        };
        let index = store.clips().iter().zip(0..).map(|(clip, i)| (clip.id.as_str(), i)).collect();
        Ok(Self { store, rows, index })
    }

    /// Builds the dataset of the clips that have features.
    fn dataset<'c>(&self, clips: impl Iterator<Item = &'c Clip>, classes: &[String]) -> Result<Dataset> {
        let (clips, stored): (Vec<&Clip>, Vec<usize>) =
            clips.filter_map(|clip| self.index.get(clip.id.as_str()).map(|&stored| (clip, stored))).unzip();
        match &self.rows {
            StoredRows::Pooled(pooled) => {
                self.check_finite(&clips, &stored, pooled.view())?;
                let offsets = (0..=clips.len()).collect();
                Ok(labeled_rows(&clips, classes, offsets, Rows::of_memory(pooled.clone(), stored)))
            }
            StoredRows::Sequences(rows) => {
                let mut offsets = vec![0];
                for (clip, &stored) in stored.iter().enumerate() {
                    offsets.push(offsets[clip] + self.store.clips()[stored].length);
                }
                let starts = stored.iter().map(|&stored| self.store.clips()[stored].offset).collect();
                Ok(labeled_rows(&clips, classes, offsets, Rows::of_store(rows.clone(), starts)))
            }
        }
    }

    /// Checks that the rows `stored` of `pooled`, the features of `clips`, are finite. Sequences are checked when they are read.
    fn check_finite(&self, clips: &[&Clip], stored: &[usize], pooled: ArrayView2<'_, f32>) -> Result<()> {
        for (clip, &stored) in clips.iter().zip(stored) {
            let features = pooled.index_axis(Axis(0), stored);
            if let Some((column, value)) = features.iter().enumerate().find(|(_, value)| !value.is_finite()) {
                return Err(Error::Store {
                    path: self.store.path().to_path_buf(),
                    message: format!("feature {column} of clip {} is {value}; extract the clip again", clip.id),
                });
            }
        }
        Ok(())
    }
}

/// Returns the ids of the clips without features, with the reason if the store recorded a failure.
fn missing_features(store: &FeatureStore, manifest: &Manifest, features: &StoredFeatures) -> Vec<String> {
    let failures: HashMap<&str, String> = store
        .failures()
        .iter()
        .map(|failure| (failure.id.as_str(), format!("{}: {}", failure.stage, failure.error)))
        .collect();
    let missing = manifest.clips.iter().filter(|clip| !features.index.contains_key(clip.id.as_str()));
    missing
        .map(|clip| match failures.get(clip.id.as_str()) {
            Some(reason) => format!("{} ({reason})", clip.id),
            None => clip.id.clone(),
        })
        .collect()
}

/// Describes the clips that the join excludes, and those whose start or end has changed.
fn exclusion_warnings(store: &FeatureStore, manifest: &Manifest, missing: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    if !missing.is_empty() {
        warnings.push(format!(
            "excluded {} of {} clips of the manifest without features in {}: {}",
            missing.len(),
            manifest.clips.len(),
            store.path().display(),
            first_names(missing)
        ));
    }
    let manifest_ids: BTreeSet<&str> = manifest.clips.iter().map(|clip| clip.id.as_str()).collect();
    let not_in_manifest = store.clips().iter().filter(|clip| !manifest_ids.contains(clip.id.as_str()));
    let not_in_manifest: Vec<String> = not_in_manifest.map(|clip| clip.id.clone()).collect();
    if !not_in_manifest.is_empty() {
        warnings.push(format!(
            "excluded {} clips of {} that are not in the manifest: {}",
            not_in_manifest.len(),
            store.path().display(),
            first_names(&not_in_manifest)
        ));
    }
    let stored: HashMap<&str, &StoredClip> = store.clips().iter().map(|clip| (clip.id.as_str(), clip)).collect();
    let is_changed = |clip: &&Clip| {
        let stored = stored.get(clip.id.as_str());
        store.has_periods() && stored.is_some_and(|stored| stored.key().period() != ClipKey::from(*clip).period())
    };
    let changed: Vec<String> = manifest.clips.iter().filter(is_changed).map(|clip| clip.id.clone()).collect();
    if !changed.is_empty() {
        warnings.push(format!(
            "the features of {} clips in {} are of another start or end than in the manifest: {}; extract them again",
            changed.len(),
            store.path().display(),
            first_names(&changed)
        ));
    }
    warnings.extend(without_split_warning(manifest));
    warnings
}

/// Describes the labeled clips without a split, which are excluded.
fn without_split_warning(manifest: &Manifest) -> Option<String> {
    let without_split = manifest.clips.iter().filter(|clip| !clip.labels.is_empty() && clip.split.is_none());
    let without_split: Vec<String> = without_split.map(|clip| clip.id.clone()).collect();
    (!without_split.is_empty()).then(|| {
        format!("excluded {} labeled clips without a split: {}", without_split.len(), first_names(&without_split))
    })
}

impl DatasetSplits {
    /// Splits the clips of a manifest for training on their frames. The features have no columns. `failed` has the reason by id of the
    /// clips that cannot be decoded, which are excluded with a warning.
    ///
    /// # Errors
    /// Returns an error under the conditions of [`Dataset::join`].
    pub fn without_features(manifest: &Manifest, failed: &HashMap<String, String>) -> Result<Self> {
        let mut splits = split_clips(manifest, |clips, classes| {
            let clips: Vec<&Clip> = clips.filter(|clip| !failed.contains_key(&clip.id)).collect();
            let offsets = (0..=clips.len()).collect();
            let rows = Array2::zeros((clips.len(), 0)).into();
            Ok(labeled_rows(&clips, classes, offsets, rows))
        })?;
        let missing = manifest.clips.iter().filter_map(|clip| failed.get(&clip.id).map(|reason| (&clip.id, reason)));
        let missing: Vec<String> = missing.map(|(id, reason)| format!("{id} ({reason})")).collect();
        if !missing.is_empty() {
            splits.warnings.push(format!(
                "excluded {} of {} clips of the manifest that cannot be decoded: {}",
                missing.len(),
                manifest.clips.len(),
                first_names(&missing)
            ));
        }
        splits.warnings.extend(without_split_warning(manifest));
        splits.check(manifest, "frames", "cannot be decoded", &missing)?;
        Ok(splits)
    }

    /// Checks that the splits can be used. `missing` are the clips that lack `noun` (features, frames), which `problem` states.
    fn check(&self, manifest: &Manifest, noun: &str, problem: &str, missing: &[String]) -> Result<()> {
        let data_error = |message: String| {
            let source = manifest.source.display();
            Error::Data(if missing.is_empty() {
                format!("{source}: {message}")
            } else {
                format!("{source}: {message}; {} clips {problem}: {}", missing.len(), first_names(missing))
            })
        };
        for (split, clips) in self.splits() {
            let planned = manifest.clips.iter().filter(|c| c.split == Some(split) && !c.labels.is_empty()).count();
            if clips.is_empty() && planned > 0 {
                return Err(data_error(format!("none of the {planned} clips of the split {split} has {noun}")));
            }
        }
        if self.train.is_empty() {
            return Err(data_error("no labeled clip in the split train".into()));
        }
        let columns = self.train.targets.columns();
        let empty: Vec<String> = columns
            .into_iter()
            .zip(&self.train.classes)
            .filter(|(column, _)| column.iter().all(|target| *target == 0.0))
            .map(|(_, class)| class.clone())
            .collect();
        if !empty.is_empty() {
            let classes = if empty.len() == 1 { "class" } else { "classes" };
            return Err(data_error(format!(
                "no training clip with {noun} for {classes} {}; add clips, or remove the clips with these labels from the manifest",
                first_names(&empty)
            )));
        }
        Ok(())
    }
}

/// Number of names that messages list.
const MAX_SHOWN: usize = 5;

/// Joins the first names and the number of the others.
fn first_names(names: &[String]) -> String {
    let shown = names.iter().take(MAX_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
