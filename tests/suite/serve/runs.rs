//! Servers of single runs.

use std::fs;
use std::path::Path;

use kinoprobe::classify::{ClassifierKind, FusedRun, ModelMetadata, SavedModel};
use kinoprobe::dataset::Task;
use kinoprobe::models::fetch::sha256_file;
use kinoprobe::store::{Pooling, Provenance};
use serde_json::json;
use tempfile::TempDir;

use super::models::{LABELS, save_classifier, tiny_provenance};
use super::server::{Server, command, program};
use super::{assert_schema, media};
use crate::support::assert_code;

/// Provenance of features of the tiny network that were extracted with this recipe.
fn provenance(recipe: &str) -> Provenance {
    let provenance = tiny_provenance();
    Provenance {
        method: "tiny".into(),
        model: "tiny".into(),
        weights: "file".into(),
        recipe: recipe.into(),
        ..provenance
    }
}

const IMAGES: &str =
    r#"{"sampling":{"kind":"even","frames":1},"extractor":{"kind":"network","card":"tiny","batch":4}}"#;

fn run(task: Task) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    save_classifier(directory.path(), 3, &LABELS, &provenance(IMAGES), task);
    directory
}

#[test]
fn a_single_label_run_is_served_without_years() {
    let server = Server::serve(run(Task::SingleLabel), &[]);
    let models = server.get("/api/models").json();
    assert_schema("Models", &models);
    let model = &models["models"][0];
    assert_eq!((&model["kind"], &model["task"]), (&json!("run"), &json!("single-label")));
    assert_eq!((&model["labels"], &model["years"]), (&json!(LABELS), &json!([])));
    assert_eq!(model["overall"]["thresholds"][0], json!({"label": "Action", "threshold": null}));
    let response = server.predict(&[("a.png", &media("gray.png")), ("b.mp4", &media("ten.mp4"))]).json();
    assert_schema("Predictions", &response);
    for result in response["results"].as_array().unwrap() {
        assert_eq!(result["years"], json!([]));
        let scores = result["overall"].as_array().unwrap();
        let sum: f64 = scores.iter().map(|genre| genre["score"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{result}");
        let likely: Vec<bool> = scores.iter().map(|genre| genre["likely"].as_bool().unwrap()).collect();
        assert_eq!(likely, [true, false, false, false]);
    }
}

#[test]
fn a_multi_label_run_has_its_thresholds() {
    let server = Server::serve(run(Task::MultiLabel), &[]);
    let model = server.get("/api/models").json()["models"][0].clone();
    assert_eq!(
        (&model["task"], &model["overall"]["thresholds"][1]["threshold"]),
        (&json!("multi-label"), &json!(0.25))
    );
    let response = server.predict(&[("a.png", &media("gray.png"))]).json();
    for genre in response["results"][0]["overall"].as_array().unwrap() {
        assert_eq!(genre["likely"].as_bool().unwrap(), genre["score"].as_f64().unwrap() >= 0.25, "{genre}");
    }
}

#[test]
fn a_run_is_exported() {
    let (models, directory) = (run(Task::SingleLabel), super::export::dir_with_runtime());
    let output = program(models.path()).current_dir(&directory).arg("--export").arg("site").output().unwrap();
    assert_code(&output, 0);
    let site = directory.path().join("site");
    let listed: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(site.join("models.json")).unwrap()).unwrap();
    assert_eq!(listed["heads"][0]["file"], "heads/model.onnx");
    assert_eq!(fs::read(site.join("heads/model.onnx")).unwrap(), fs::read(models.path().join("model.onnx")).unwrap());
}

#[test]
fn runs_that_do_not_read_images_are_refused() {
    let assert_refused = |directory: &Path, expected: &str| {
        let output = command(directory).output().unwrap();
        assert_code(&output, 1);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(expected) && message.contains("kinoprobe-predict"), "{message}");
    };
    let directory = tempfile::tempdir().unwrap();
    let sift = r#"{"sampling":{"kind":"even","frames":1},"extractor":{"kind":"sift","keypoints":4}}"#;
    save_classifier(directory.path(), 3, &LABELS, &provenance(sift), Task::SingleLabel);
    assert_refused(directory.path(), "histograms of SIFT descriptors");

    let mut fusion = SavedModel::load(run(Task::SingleLabel).path()).unwrap();
    let part = ModelMetadata::new(&provenance(IMAGES), "tiny", ClassifierKind::Mlp, Pooling::Mean);
    fusion.metadata.members = vec![part.clone(), part];
    fusion.save(directory.path()).unwrap();
    assert_refused(directory.path(), "fuses the features of several methods");

    let member = run(Task::SingleLabel);
    let mut learned = SavedModel::load(member.path()).unwrap();
    learned.metadata.runs = vec![FusedRun {
        name: "tiny".into(),
        directory: member.path().display().to_string(),
        model_sha256: sha256_file(&member.path().join(SavedModel::FILES[0])).unwrap(),
    }];
    learned.save(directory.path()).unwrap();
    assert_refused(directory.path(), "fuses the scores of several runs");
}
