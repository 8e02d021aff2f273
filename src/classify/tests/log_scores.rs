//! Models that read the scores of other models.

use super::super::*;
use super::{all_rows, fit, parts, quick};

/// A model of logarithms, and scores as features, 0 and 1 among them.
fn model(task: Task) -> (LogScores, Dataset) {
    let (train, _) = parts(ClassifierKind::Logistic, task);
    let mut scores = all_rows(&train).mapv(|value| 1.0 / (1.0 + (-4.0 * value).exp()));
    (scores[(0, 0)], scores[(1, 1)], scores[(2, 2)]) = (0.0, 1.0, 1e-7);
    let data = train.with_rows(scores);
    let margin = 1e-6;
    let logarithms = LogScores::transform(&data, task, margin).unwrap();
    let model = fit(&quick(ClassifierKind::Logistic, false), task, &logarithms, &logarithms.select(&[]), 1).model;
    (LogScores { task, margin, model }, data)
}

#[test]
fn logarithms_are_finite_and_those_of_the_definition() {
    for task in [Task::SingleLabel, Task::MultiLabel] {
        let (_, data) = model(task);
        let scores = all_rows(&data);
        let logarithms = all_rows(&LogScores::transform(&data, task, 1e-6).unwrap());
        for (score, logarithm) in scores.iter().zip(&logarithms) {
            let p = f64::from(*score);
            let expected = match task {
                Task::SingleLabel => p.max(1e-6).ln(),
                Task::MultiLabel => (p.clamp(1e-6, 1.0 - 1e-6) / (1.0 - p.clamp(1e-6, 1.0 - 1e-6))).ln(),
            };
            assert!((f64::from(*logarithm) - expected).abs() < 1e-5, "{task:?}: {p}");
        }
    }
}

#[test]
fn saved_models_read_scores() {
    let dir = tempfile::tempdir().unwrap();
    for task in [Task::SingleLabel, Task::MultiLabel] {
        let (model, data) = model(task);
        let before = model.scores(&data).unwrap();
        let metadata = ModelMetadata {
            identity: RunIdentity { task, ..RunIdentity::of_fusion(&[&RunIdentity::default()], "logistic") },
            classes: data.classes.clone(),
            dim: data.dim(),
            runs: vec![FusedRun { name: "a · b".into(), directory: "../b".into(), model_sha256: "00".into() }],
            ..ModelMetadata::new(&Default::default(), "", ClassifierKind::Logistic, crate::store::Pooling::Mean)
        };
        SavedModel { metadata: metadata.clone(), model: Box::new(model) }.save(dir.path()).unwrap();
        let loaded = SavedModel::load(dir.path()).unwrap();
        assert_eq!(loaded.metadata, metadata);
        assert_eq!(ModelMetadata::read_onnx(&dir.path().join("model.onnx")).unwrap(), metadata);
        assert_eq!(loaded.model.scores(&data).unwrap(), before, "{task:?}");
        #[cfg(feature = "onnx")]
        assert_onnx(&dir.path().join("model.onnx"), &data, &before);
    }
}

/// Asserts that ONNX Runtime computes the scores.
#[cfg(feature = "onnx")]
fn assert_onnx(path: &std::path::Path, data: &Dataset, expected: &ndarray::Array2<f32>) {
    use crate::models::runtime::{Device, Session, SessionOptions};
    let options = SessionOptions::for_floats(vec![data.dim()], expected.ncols(), data.len());
    let mut network = Session::load(path, Device::Cpu, options).unwrap();
    let rows = all_rows(data).as_standard_layout().as_slice().unwrap().to_vec();
    let found = network.run(&rows).unwrap();
    let distance = (expected - &found).iter().fold(0f32, |max, d| max.max(d.abs()));
    assert!(distance < 1e-5, "{distance:e}");
}
