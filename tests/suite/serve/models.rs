//! The poster models of the servers.

use std::fs;
use std::path::Path;

use kinoprobe::classify::{self, FitContext, ModelMetadata, SavedModel};
use kinoprobe::dataset::{Dataset, Task};
use kinoprobe::models::fetch;
use kinoprobe::recipe::{Classify, Recipe};
use kinoprobe::store::Provenance;
use ndarray::Array2;
use serde_json::{Value, json};

use crate::support::fixture;

pub const LABELS: [&str; 4] = ["Action", "Comedy", "Drama", "Horror"];
const YEARS: [i32; 3] = [2004, 2005, 2006];

/// Trains a small multi-label classifier on noise and saves it in `dir`.
pub fn save_head(dir: &Path, seed: u64, labels: &[&str], provenance: &Provenance) {
    save_classifier(dir, seed, labels, provenance, Task::MultiLabel);
}

/// Trains a small classifier on noise and saves it in `dir`.
pub fn save_classifier(dir: &Path, seed: u64, labels: &[&str], provenance: &Provenance, task: Task) {
    let noise = |i: usize, k: usize| ((i * 7919 + k * 104_729 + seed as usize * 31) % 1000) as f32 / 500.0 - 1.0;
    let count = 48;
    let classes: Vec<String> = labels.iter().map(|label| (*label).to_string()).collect();
    let data = Dataset {
        ids: (0..count).map(|i| i.to_string()).collect(),
        groups: vec![None; count],
        rows: Array2::from_shape_fn((count, 8), |(i, k)| noise(i, k)).into(),
        offsets: (0..=count).collect(),
        targets: Array2::from_shape_fn((count, labels.len()), |(i, c)| match task {
            Task::MultiLabel => f32::from(noise(i, c) > 0.0),
            Task::SingleLabel => f32::from(i % labels.len() == c),
        }),
        classes: classes.clone(),
    };
    let mut settings = Classify { standardize: true, ..Classify::default() };
    settings.mlp.hidden = vec![8];
    settings.training.epochs = 3;
    let mut progress = |_: &_| {};
    let mut context = FitContext::new(seed, task, 1, &mut progress);
    let fitted = classify::build(&settings.fit_settings()).fit(&data, &data, &mut context).unwrap();
    let recipe = Recipe::load(&fixture("pipelines/tiny.toml")).unwrap();
    let metadata = ModelMetadata::new(provenance, &recipe.method, settings.classifier, settings.pooling);
    let mut metadata = ModelMetadata { classes, dim: 8, ..metadata };
    metadata.identity.task = task;
    metadata.thresholds = (task == Task::MultiLabel).then(|| vec![0.25; labels.len()]);
    SavedModel { metadata, model: fitted.model }.save(dir).unwrap();
}

/// Returns the provenance of features of the tiny network.
pub fn tiny_provenance() -> Provenance {
    let model_sha256 = fetch::sha256_file(&fixture("models/tiny.onnx")).unwrap();
    Provenance { model_sha256, precision: "f32".into(), ..Provenance::default() }
}

/// Writes poster models and their posters.json, modified by `change`.
pub fn save_models(dir: &Path, change: impl FnOnce(&mut Value)) {
    let provenance = tiny_provenance();
    for (seed, year) in YEARS.iter().enumerate() {
        // The model of the last year lacks one genre.
        save_head(&dir.join(year.to_string()), seed as u64, &LABELS[..4 - seed / 2], &provenance);
    }
    save_head(&dir.join("all"), 9, &LABELS, &provenance);
    let year = |year: i32, thresholds: &[f32]| {
        json!({"year": year, "directory": year.to_string(), "thresholds": thresholds,
               "clips": {"train": 40, "val": 4, "test": 4}, "metrics": {"map": 0.5}})
    };
    let mut listed = json!({
        "format": "kinoprobe-posters", "format_version": 1, "method": "tiny", "card": "tiny", "weights": "file",
        "model_sha256": provenance.model_sha256, "precision": "f32", "untrained": false, "demo": true, "labels": LABELS, "by": "year", "window": null,
        "years": [year(2004, &[0.5; 4]), year(2005, &[0.4; 4]), year(2006, &[0.3; 3])],
        "overall": {"directory": "all", "thresholds": [0.5, 0.5, 0.5, 0.5]},
    });
    change(&mut listed);
    fs::write(dir.join("posters.json"), listed.to_string()).unwrap();
}
