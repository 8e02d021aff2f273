//! Early fusion: a classifier trained on the concatenated features of several runs.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use ndarray::{Array2, Axis, concatenate};

use super::compatibility::require_same_features;
use super::{save_codebook, write_fusion};
use crate::classify::{ClassifierKind, FitSettings, ModelMetadata, RunIdentity, RunInputs, SavedModel, experiment};
use crate::dataset::{Dataset, DatasetSplits};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::recipe::Recipe;
use crate::report;
use crate::report::compare::{ComparedRun, RunKind};
use crate::store::FeatureStore;

/// A store of the fusion with the settings of its run.
struct Member<'a> {
    run: &'a ComparedRun,
    recipe: Recipe,
    store: FeatureStore,
    data: DatasetSplits,
}

/// Trains the multi-layer perceptron of the first run's recipe on the concatenated features of the runs' stores, each
/// standardized by its training clips. It uses the clips that all stores contain and the splits of the first run. Writes the model,
/// the codebooks of its features and the files of an evaluation to the directory `out`. Returns `None` if the runs name fewer than two
/// stores.
///
/// # Errors
/// Returns an error if a run names no manifest, if its recipe, store or manifest cannot be read, if the stores have too few clips
/// in common, or if a file cannot be written.
pub fn fuse(runs: &[ComparedRun], out: &Path, threads: usize) -> Result<Option<ComparedRun>> {
    let mut first_of_store: Vec<(&Path, &ComparedRun)> = Vec::new();
    for run in runs.iter().filter(|run| run.is_fusible()) {
        if let Some(path) = run.inputs.features()
            && first_of_store.iter().all(|(known, _)| *known != path)
        {
            first_of_store.push((path, run));
        }
    }
    if first_of_store.len() < 2 {
        return Ok(None);
    }
    let manifest = first_of_store[0].1.manifest()?;
    let members: Vec<Member> =
        first_of_store.iter().map(|(path, run)| load_member(path, run, &manifest)).collect::<Result<_>>()?;
    let data = concat_features(&members.iter().map(|member| &member.data).collect::<Vec<_>>())?;

    let first = &members[0];
    let classify = &first.recipe.classify;
    let settings = FitSettings {
        // The first run may be calibrated on folds, whereas the fusion has a split, perhaps without val: it is not calibrated.
        trainer: classify.fit_settings().trainer,
        ..FitSettings::new(classify.classifier_settings(ClassifierKind::Mlp))
    };
    let identities: Vec<RunIdentity> = members
        .iter()
        .map(|member| RunIdentity { untrained: member.store.untrained(), ..member.run.identity.clone() })
        .collect();
    let identity = RunIdentity::of_fusion(&identities.iter().collect::<Vec<_>>(), "mlp");
    let parts = members.iter().map(|Member { store, recipe, data, .. }| {
        let pooling = ClassifierKind::Mlp.pooling(recipe.classify.pooling);
        let part = ModelMetadata::new(store.provenance(), &recipe.method, ClassifierKind::Mlp, pooling);
        ModelMetadata { dim: data.train.dim(), ..part }
    });
    let parts: Vec<ModelMetadata> = parts.collect();
    let metadata = ModelMetadata {
        identity: identity.clone(),
        extraction: String::new(),
        members: parts.clone(),
        ..parts[0].clone()
    };
    let experiment = experiment::run(&data, &settings, metadata, threads, &mut |_, _| {})?;
    report::begin(out)?;
    experiment.saved.save(out)?;
    for Member { store, recipe, .. } in &members {
        save_codebook(store, &recipe.method, out)?;
    }
    let extract_seconds = members.iter().map(|member| {
        let seconds = member.store.provenance().extract_seconds;
        (seconds > 0.0).then_some(seconds)
    });
    let fused = ComparedRun {
        name: format!("early fusion: {}", identity.method),
        kind: RunKind::EarlyFusion,
        identity,
        inputs: RunInputs::default(),
        directory: None,
        extract_seconds: extract_seconds.sum(),
        training_seconds: Some(experiment.train_seconds),
        parts: experiment.splits.into_iter().map(|(split, part)| (split.into(), part)).collect(),
        constant: experiment.constant.into_iter().map(|(split, metrics)| (split.into(), metrics)).collect(),
        unlabeled: HashSet::new(),
    };
    write_fusion(&fused, experiment.unlabeled, out)?;
    Ok(Some(fused))
}

fn load_member<'a>(path: &Path, run: &'a ComparedRun, manifest: &Manifest) -> Result<Member<'a>> {
    let recipe = match &run.directory {
        Some(directory) => Recipe::load(&directory.join("recipe.toml"))?,
        None => return Err(Error::Data(format!("{} has no directory with a recipe.toml", run.name))),
    };
    let store = FeatureStore::open(path)?;
    if let Some(directory) = run.directory.as_ref().filter(|directory| directory.join(SavedModel::FILES[0]).is_file()) {
        require_same_features(&SavedModel::load(directory)?.metadata, &store)?;
    }
    let data = Dataset::join(&store, manifest, ClassifierKind::Mlp.pooling(recipe.classify.pooling))?;
    Ok(Member { run, recipe, store, data })
}

/// Concatenates the features of the clips that all members contain, in the order of the first.
///
/// # Errors
/// Returns an error if a split that has clips has none in common.
pub fn concat_features(members: &[&DatasetSplits]) -> Result<DatasetSplits> {
    let part = |name: &str, of: fn(&DatasetSplits) -> &Dataset| {
        let parts: Vec<&Dataset> = members.iter().map(|member| of(member)).collect();
        let joined = concat_part(&parts)?;
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
        unlabeled: concat_part(&members.iter().map(|member| &member.unlabeled).collect::<Vec<_>>())?,
        warnings: Vec::new(),
    })
}

/// Concatenates the features of the clips that all parts contain, in the order of the first.
///
/// # Errors
/// Returns an error if the features of a clip are a sequence.
pub(super) fn concat_part(parts: &[&Dataset]) -> Result<Dataset> {
    let first = parts[0];
    let rows: Vec<HashMap<&str, usize>> =
        parts.iter().map(|part| part.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect()).collect();
    let common: Vec<usize> =
        (0..first.len()).filter(|&i| rows.iter().all(|rows| rows.contains_key(first.ids[i].as_str()))).collect();
    let features: Vec<Array2<f32>> = parts
        .iter()
        .zip(&rows)
        .map(|(part, rows)| {
            let of_part = part.select(&common.iter().map(|&i| rows[first.ids[i].as_str()]).collect::<Vec<_>>());
            Ok(of_part.vectors()?.into_owned())
        })
        .collect::<Result<_>>()?;
    let views: Vec<_> = features.iter().map(|features| features.view()).collect();
    Ok(Dataset {
        ids: common.iter().map(|&i| first.ids[i].clone()).collect(),
        groups: common.iter().map(|&i| first.groups[i].clone()).collect(),
        rows: concatenate(Axis(1), &views).expect("every part has one row per common clip").into(),
        offsets: (0..=common.len()).collect(),
        targets: first.targets.select(Axis(0), &common),
        classes: first.classes.clone(),
    })
}
