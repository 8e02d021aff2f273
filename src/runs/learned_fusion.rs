//! Learned fusion: logistic regression on the scores of several runs (stacking).

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use ndarray::Axis;

use super::stack::stack;
use super::{TrainedRun, write_fusion};

use crate::classify::cross_validation::{self, Folds};
use crate::classify::experiment::Experiment;
use crate::classify::{
    ClassifierSettings, FitSettings, FusedRun, LogScores, LogisticSettings, ModelMetadata, RunIdentity, RunInputs,
    SavedModel,
};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::manifest::{Clip, Manifest, split};
use crate::models::fetch::sha256_file;
use crate::report;
use crate::report::compare::{ComparedRun, Part, RunKind};
use crate::store::Pooling;

/// Most folds of the cross-validation of the fusion.
const FOLDS: usize = 5;
/// Scores are clipped to this distance from 0 and 1 before their logarithm is computed.
const MARGIN: f32 = 1e-6;

/// Fits logistic regression (penalty α = 1, scikit-learn's C = 1) to the scores of `runs` for the validation clips. The features of a clip are
/// the logarithms of all scores, for several labels per clip their log odds. The predictions of the split val are those of a
/// cross-validation with up to five folds, which keeps groups together; those of the test split and of `unlabeled`, the predictions of each run for
/// clips without a label, are those of a model of all validation clips. Writes this model, which names the runs and the hashes of their models, and
/// the files of an evaluation to the directory `out`. Returns `None` if fewer than two runs have scores for validation clips.
///
/// Source: Wolpert, "Stacked Generalization" (1992); scikit-learn's `StackingClassifier` with `cv="prefit"`.
///
/// # Errors
/// Returns an error if two runs have different labels for a clip, there are too few validation clips of a class, or a file cannot be written.
pub fn fuse(
    runs: &[&ComparedRun],
    unlabeled: &[&Predictions],
    out: &Path,
    threads: usize,
) -> Result<Option<ComparedRun>> {
    if runs.len() < 2 || runs.iter().any(|run| !run.parts.contains_key(&Part::Val)) {
        return Ok(None);
    }
    let task = runs[0].identity.task;
    let part = |part: Part| -> Result<Option<Dataset>> {
        let members: Vec<&Predictions> = runs.iter().filter_map(|run| run.parts.get(&part)).collect();
        if members.len() < runs.len() { Ok(None) } else { log_scores(&members).map(Some) }
    };
    let train = part(Part::Val)?.expect("every run has validation clips");
    let none = train.select(&[]);
    let data = DatasetSplits {
        task,
        resampled: None,
        val: none.clone(),
        test: part(Part::Test)?.unwrap_or(none.clone()),
        unlabeled: if unlabeled.is_empty() { none } else { log_scores(unlabeled)? },
        warnings: Vec::new(),
        train,
    };
    let identities: Vec<&RunIdentity> = runs.iter().map(|run| &run.identity).collect();
    let identity = RunIdentity::of_fusion(&identities, "logistic");
    let Experiment { saved, splits, unlabeled, constant, .. } = fit(&data, identity.clone(), threads)?;
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let fused = ComparedRun {
        name: match names.len() {
            2 => format!("learned fusion: {}", names.join(" + ")),
            n => format!("learned fusion: all {n} runs"),
        },
        kind: RunKind::LearnedFusion,
        identity,
        inputs: RunInputs::default(),
        directory: None,
        extract_seconds: None,
        // That of the runs. The fit of the fusion takes a fraction of a second, and comparisons are repeatable without it.
        training_seconds: runs.iter().map(|run| run.training_seconds).sum(),
        parts: splits.into_iter().map(|(split, part)| (split.into(), part)).collect(),
        constant: constant.into_iter().map(|(split, metrics)| (split.into(), metrics)).collect(),
        unlabeled: Default::default(),
    };
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let fused_runs = runs.iter().map(|run| fused_run(run, out)).collect::<Result<_>>()?;
    let model = LogScores { task, margin: MARGIN, model: saved.model };
    let metadata = ModelMetadata { runs: fused_runs, ..saved.metadata };
    report::begin(out)?;
    SavedModel { metadata, model: Box::new(model) }.save(out)?;
    write_fusion(&fused, unlabeled, out)?;
    Ok(Some(fused))
}

/// Names a run of the fusion whose directory is `out`.
fn fused_run(run: &ComparedRun, out: &Path) -> Result<FusedRun> {
    let directory = run.directory.as_deref().unwrap_or(Path::new(""));
    let model = TrainedRun::model_file(directory);
    Ok(FusedRun {
        name: run.name.clone(),
        directory: relative_path(directory, out)?.to_string_lossy().into_owned(),
        model_sha256: model.map(|path| sha256_file(&path)).transpose()?.unwrap_or_default(),
    })
}

/// Returns the path of `target` relative to the directory `from`. Both must exist.
fn relative_path(target: &Path, from: &Path) -> Result<PathBuf> {
    let canonical = |path: &Path| path.canonicalize().map_err(Error::io(path));
    let (target, from) = (canonical(target)?, canonical(from)?);
    let common = target.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    Ok(up.chain(target.components().skip(common)).collect())
}

/// Cross-validates logistic regression on the clips of `data.train`, and fits it to all of them.
fn fit(data: &DatasetSplits, identity: RunIdentity, threads: usize) -> Result<Experiment> {
    let count = match data.task {
        Task::MultiLabel => FOLDS,
        // Every class has clips in all but one of the folds.
        Task::SingleLabel => {
            let counts = data.train.targets.sum_axis(Axis(0));
            let fewest = (0..counts.len()).min_by(|&a, &b| counts[a].total_cmp(&counts[b])).unwrap_or(0);
            if counts[fewest] < 2.0 {
                let (class, clips) = (&data.train.classes[fewest], counts[fewest]);
                return Err(Error::Data(format!(
                    "class {class} has {clips} validation clips in common, at least 2 are needed"
                )));
            }
            FOLDS.min(counts[fewest] as usize)
        }
    };
    let labels = |i: usize| {
        let has = data.train.targets.row(i);
        data.train.classes.iter().zip(has).filter(|(_, t)| **t > 0.0).map(|(class, _)| class.clone()).collect()
    };
    let clips = (0..data.train.len()).map(|i| Clip {
        id: data.train.ids[i].clone(),
        // Clips of one file would be a group.
        file: data.train.ids[i].clone().into(),
        labels: labels(i),
        group: data.train.groups[i].clone(),
        ..Clip::default()
    });
    let mut manifest = Manifest {
        source: "validation clips".into(),
        clips: clips.collect(),
        warnings: Vec::new(),
        sha256: String::new(),
    };
    let fold_of: HashMap<String, usize> = split::assign_folds(&mut manifest, count, 0)?;
    let folds = Folds { count, of_clip: vec![data.train.ids.iter().map(|id| fold_of[id]).collect()] };
    let logistic = ClassifierSettings::Logistic(LogisticSettings::default());
    let settings = FitSettings { standardize: false, ..FitSettings::new(logistic) };
    let metadata = ModelMetadata {
        identity,
        ..ModelMetadata::new(&Default::default(), "", settings.classifier.kind(), Pooling::Mean)
    };
    cross_validation::run(data, &settings, &[], &folds, metadata, threads, &mut |_, _| {})
}

/// Returns the data that the logistic regression is fitted to: the logarithms or log odds of the scores.
fn log_scores(members: &[&Predictions]) -> Result<Dataset> {
    LogScores::transform(&stack(members)?, members[0].task, MARGIN)
}
