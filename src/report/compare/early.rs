//! Early fusion: one classifier on several methods' features side by side.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ndarray::{Array2, Axis, concatenate};

use super::{Entry, Kind, part_of};
use crate::classify::{ClassifierKind, FitSettings, ModelMetadata, experiment};
use crate::dataset::{Dataset, DatasetSplits};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::recipe::Recipe;
use crate::store::FeatureStore;

/// One store of the fusion, as its run used it.
struct Member {
    method: String,
    recipe: Recipe,
    store: FeatureStore,
    data: DatasetSplits,
}

/// Trains the multi-layer perceptron of the first run's recipe on the features of all runs' stores side by side, each
/// standardized by its training clips, over the clips that all stores have and the splits of the first run. `None` where
/// the runs name fewer than two stores.
///
/// # Errors
/// A run names no manifest, or its recipe, its store or the manifest cannot be read; or the stores have too few clips in
/// common to train on.
pub fn fuse(entries: &[Entry], threads: usize) -> Result<Option<Entry>> {
    let mut of_store: BTreeMap<&Path, &Entry> = BTreeMap::new();
    let mut order: Vec<&Path> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Run && entry.classifier != "constant") {
        let Some(path) = entry.features.as_deref() else { continue };
        of_store.entry(path).or_insert_with(|| {
            order.push(path);
            entry
        });
    }
    if order.len() < 2 {
        return Ok(None);
    }
    let manifest = manifest_of(of_store[order[0]])?;
    let members: Vec<Member> =
        order.iter().map(|&path| member(path, of_store[path], &manifest)).collect::<Result<_>>()?;
    let data = side_by_side(&members.iter().map(|member| &member.data).collect::<Vec<_>>())?;

    let first = &members[0];
    let classify = &first.recipe.classify;
    let settings = FitSettings {
        classifier: classify.classifier_settings(ClassifierKind::Mlp),
        standardize: true,
        seeds: 1,
        ..classify.fit_settings()
    };
    let pooling = ClassifierKind::Mlp.pooling(classify.pooling);
    let metadata = ModelMetadata::new(first.store.provenance(), &first.recipe.method, ClassifierKind::Mlp, pooling);
    let experiment = experiment::run(&data, &settings, metadata, threads, &mut |_, _| {})?;
    let methods: Vec<&str> = members.iter().map(|member| member.method.as_str()).collect();
    let extract_seconds = members.iter().map(|member| {
        let seconds = member.store.provenance().extract_seconds;
        (seconds > 0.0).then_some(seconds)
    });
    Ok(Some(Entry {
        name: format!("early fusion: {}", methods.join(" + ")),
        kind: Kind::EarlyFusion,
        method: methods.join(" + "),
        classifier: "mlp".into(),
        untrained: members.iter().any(|member| member.store.untrained()),
        folder: None,
        features: None,
        manifest: None,
        root: None,
        extract_seconds: extract_seconds.sum(),
        training_seconds: Some(experiment.train_seconds),
        parts: experiment.splits.into_iter().map(|(split, part)| (part_of(split), part)).collect(),
        constant: experiment.constant.iter().map(|(&split, metrics)| (part_of(split), metrics.primary().1)).collect(),
        unlabeled: HashSet::new(),
    }))
}

/// The manifest of a run, with the split that the run drew where it drew one.
fn manifest_of(entry: &Entry) -> Result<Manifest> {
    let Some(given) = entry.manifest.as_deref() else {
        return Err(Error::Data(format!("{} does not name the manifest it was trained with", entry.name)));
    };
    let drawn = entry.folder.as_deref().map(|folder| folder.join("manifest.csv")).filter(|path| path.is_file());
    // Paths of the drawn one are below the root of the given one, which is its own folder where none was given.
    let beside = || if given.is_dir() { given.to_path_buf() } else { folder_of(given) };
    let root = entry.root.clone().or_else(|| drawn.is_some().then(beside));
    Manifest::load(drawn.as_deref().unwrap_or(given), root.as_deref())
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

fn member(path: &Path, entry: &Entry, manifest: &Manifest) -> Result<Member> {
    let recipe = match &entry.folder {
        Some(folder) => Recipe::load(&folder.join("recipe.toml"))?,
        None => return Err(Error::Data(format!("{} has no folder with a recipe", entry.name))),
    };
    let store = FeatureStore::open(path)?;
    let data = Dataset::join(&store, manifest, ClassifierKind::Mlp.pooling(recipe.classify.pooling))?;
    Ok(Member { method: entry.method.clone(), recipe, store, data })
}

/// The clips that all members have, their features side by side, in the order of the first.
///
/// # Errors
/// A part loses all its clips.
pub fn side_by_side(members: &[&DatasetSplits]) -> Result<DatasetSplits> {
    let part = |name: &str, of: fn(&DatasetSplits) -> &Dataset| {
        let parts: Vec<&Dataset> = members.iter().map(|member| of(member)).collect();
        let joined = concat(&parts)?;
        if joined.is_empty() && parts.iter().any(|part| !part.is_empty()) {
            return Err(Error::Data(format!("the stores have no {name} clip in common")));
        }
        Ok(joined)
    };
    Ok(DatasetSplits {
        task: members[0].task,
        train: part("training", |joined| &joined.train)?,
        resampled: None,
        val: part("validation", |joined| &joined.val)?,
        test: part("test", |joined| &joined.test)?,
        unlabeled: concat(&members.iter().map(|member| &member.unlabeled).collect::<Vec<_>>())?,
        warnings: Vec::new(),
    })
}

fn concat(parts: &[&Dataset]) -> Result<Dataset> {
    let first = parts[0];
    let rows: Vec<HashMap<&str, usize>> =
        parts.iter().map(|part| part.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect()).collect();
    let common: Vec<usize> =
        (0..first.len()).filter(|&i| rows.iter().all(|rows| rows.contains_key(first.ids[i].as_str()))).collect();
    let features: Vec<Array2<f32>> = parts
        .iter()
        .zip(&rows)
        .map(|(part, rows)| {
            let vectors = part.vectors()?;
            Ok(vectors.select(Axis(0), &common.iter().map(|&i| rows[first.ids[i].as_str()]).collect::<Vec<_>>()))
        })
        .collect::<Result<_>>()?;
    let views: Vec<_> = features.iter().map(|features| features.view()).collect();
    Ok(Dataset {
        ids: common.iter().map(|&i| first.ids[i].clone()).collect(),
        groups: common.iter().map(|&i| first.groups[i].clone()).collect(),
        rows: concatenate(Axis(1), &views).expect("every member gives one row per common clip"),
        offsets: (0..=common.len()).collect(),
        targets: first.targets.select(Axis(0), &common),
        classes: first.classes.clone(),
    })
}
