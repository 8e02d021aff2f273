//! Scores of images and videos.

use std::fs;
use std::process::Command;

use kinoprobe::posters::PosterModels;
use kinoprobe::store::FeatureStore;
use serde_json::{Value, json};

use super::models::LABELS;
use super::server::Server;
use super::{assert_schema, media};
use crate::support::{assert_code, fixture, root};

#[test]
fn image_scores_match_those_of_extracted_features() {
    assert_scores_match(&Server::start(&["--device", "native"]));
}

#[test]
fn image_scores_do_not_depend_on_the_batch() {
    let server = Server::start(&["--device", "cpu", "--batch", "4", "--delay", "2000"]);
    assert_scores_match(&server);
    // 6 images of one request, and 6 requests of one image.
    let metrics = server.get("/metrics").text;
    let value = |name: &str| -> f64 {
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    assert_eq!(value("kinoprobe_batch_images_sum "), 12.0);
    assert!(value("kinoprobe_batch_images_count ") < 12.0, "no batch had several images:\n{metrics}");
}

/// Compares the scores of images, in one request and one by one, with those of features that kinoprobe-extract computes.
fn assert_scores_match(server: &Server) {
    let images = ["alpha.png", "gray.png", "pixel.png", "sixteen.png", "pictures/turned_6.jpg", "pictures/cmyk.jpg"];
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = String::from("id,path\n");
    for name in images {
        manifest += &format!("{name},{}\n", fixture("media").join(name).display());
    }
    fs::write(dir.path().join("manifest.csv"), manifest).unwrap();
    let store = dir.path().join("tiny.h5");
    let mut extract = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    extract.current_dir(root()).args(["--method", "tiny", "--recipe"]).arg(fixture("pipelines/tiny.toml"));
    extract.arg("--models").arg(fixture("models")).arg("--manifest").arg(dir.path().join("manifest.csv"));
    assert_code(&extract.arg("--out").arg(&store).output().unwrap(), 0);
    let features = FeatureStore::open(&store).unwrap().features(0..images.len()).unwrap();
    let models = PosterModels::load(server.models.path()).unwrap();
    let expected = models.scores(features.view()).unwrap();

    let bytes: Vec<Vec<u8>> = images.iter().map(|name| media(name)).collect();
    let files: Vec<(&str, &[u8])> = images.iter().zip(&bytes).map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let batch = server.predict(&files);
    assert_eq!(batch.status, 200, "{}", batch.text);
    let batch = batch.json();
    assert_schema("Predictions", &batch);
    assert_eq!(batch["model"]["demo"], true);
    for (i, expected) in expected.iter().enumerate() {
        let result = &batch["results"][i];
        assert_eq!((&result["name"], &result["kind"]), (&json!(images[i].rsplit('/').next()), &json!("image")));
        let heads = models.years.iter().zip(&expected.years).zip(result["years"].as_array().unwrap());
        let years = heads.map(|((head, scores), got)| (&head.labels, scores, &got["genres"]));
        let overall =
            (&models.overall.as_ref().unwrap().labels, expected.overall.as_ref().unwrap(), &result["overall"]);
        for (labels, scores, got) in years.chain([overall]) {
            let got = got.as_array().unwrap();
            assert_eq!(got.len(), scores.len());
            assert!(got.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
            for (&label, &score) in labels.iter().zip(scores) {
                let genre = got.iter().find(|genre| genre["label"] == LABELS[label]).unwrap();
                let distance = (genre["score"].as_f64().unwrap() - f64::from(score)).abs();
                assert!(distance < 1e-6, "{}: {genre} against {score}", images[i]);
            }
        }
        // A request with a single file has the same scores.
        let single = server.predict(&files[i..=i]).json();
        for (a, b) in
            single["results"][0]["overall"].as_array().unwrap().iter().zip(result["overall"].as_array().unwrap())
        {
            assert!((a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap()).abs() < 1e-6);
        }
    }
    assert_ne!(batch["results"][0]["overall"], batch["results"][1]["overall"]);
}

#[test]
fn videos_have_scores_per_frame() {
    let server = Server::start(&["--frames", "3"]);
    let response = server.predict(&[("a trailer.mp4", &media("plain.mp4"))]);
    assert_eq!(response.status, 200, "{}", response.text);
    let response = response.json();
    assert_schema("Predictions", &response);
    let result = &response["results"][0];
    assert_eq!((&result["name"], &result["kind"]), (&json!("a trailer.mp4"), &json!("video")));
    let frames = result["frames"].as_array().unwrap();
    let seconds: Vec<f64> = frames.iter().map(|frame| frame["seconds"].as_f64().unwrap()).collect();
    assert!(seconds.len() == 3 && seconds[0] == 0.0 && seconds.windows(2).all(|pair| pair[0] < pair[1]), "{seconds:?}");
    for genre in result["overall"].as_array().unwrap() {
        let of = |frame: &Value| {
            let found = frame["genres"].as_array().unwrap().iter().find(|other| other["label"] == genre["label"]);
            found.unwrap()["score"].as_f64().unwrap()
        };
        let mean = frames.iter().map(of).sum::<f64>() / 3.0;
        assert!((mean - genre["score"].as_f64().unwrap()).abs() < 1e-5);
    }
}

#[test]
fn overall_is_the_mean_over_the_years_without_an_overall_model() {
    let server = Server::start_with(&[], |listed| {
        listed["overall"] = Value::Null;
        listed.as_object_mut().unwrap().remove("precision"); // files of earlier versions have no precision
    });
    let response = server.predict(&[("a.png", &media("gray.png"))]).json();
    assert_schema("Predictions", &response);
    assert_schema("Models", &server.get("/api/models").json());
    let result = &response["results"][0];
    for genre in result["overall"].as_array().unwrap() {
        let years = result["years"].as_array().unwrap().iter();
        let scores: Vec<f64> = years
            .flat_map(|year| year["genres"].as_array().unwrap())
            .filter(|other| other["label"] == genre["label"])
            .map(|other| other["score"].as_f64().unwrap())
            .collect();
        assert_eq!(scores.len(), if genre["label"] == "Horror" { 2 } else { 3 });
        assert!((scores.iter().sum::<f64>() / scores.len() as f64 - genre["score"].as_f64().unwrap()).abs() < 1e-6);
    }
}
