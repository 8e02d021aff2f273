//! Errors at startup: flags and models.

use std::path::PathBuf;
use std::process::Command;

use kinoprobe::store::Provenance;
use serde_json::{Value, json};

use super::models::{LABELS, save_head, save_models, tiny_provenance};
use super::server::command;
use crate::support::{assert_code, printed};

#[test]
fn zero_frames_per_video_are_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path()).args(["--frames", "0"]).output().unwrap();
    assert_code(&output, 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--frames"));
}

#[test]
fn inconsistent_models_are_rejected() {
    let assert_rejected = |change: &dyn Fn(&mut Value), expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        save_models(dir.path(), change);
        let output = command(dir.path()).output().unwrap();
        assert_code(&output, 1);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(expected), "{message}");
    };
    assert_rejected(&|listed| listed["model_sha256"] = json!("00ff"), "was fitted to features of another network");
    assert_rejected(&|listed| listed["years"][0]["thresholds"] = json!([0.5]), "has 4 genres");
    assert_rejected(&|listed| listed["labels"] = json!(["Action", "Comedy"]), "has the genre \"Drama\"");
    assert_rejected(&|listed| listed["card"] = json!("huge"), "no such model card; known: tiny");
    assert_rejected(&|listed| listed["years"][1]["directory"] = json!("1999"), "1999");
    assert_rejected(
        &|listed| listed["precision"] = json!("f64"),
        "unknown variant `f64`, expected one of `auto`, `f32`, `tf32`, `fp16`, `bf16`, `int8`",
    );
    let dir = tempfile::tempdir().unwrap();
    save_models(dir.path(), |_| {});
    save_head(&dir.path().join("all"), 9, &LABELS, &Provenance { precision: "bf16".into(), ..tiny_provenance() });
    let output = command(dir.path()).output().unwrap();
    assert_code(&output, 1);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("was fitted to features of precision bf16, but posters.json lists f32"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    let output = command(&PathBuf::from(empty.path())).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("posters.json: No such file"));
}

#[test]
fn the_default_address_is_reachable_from_this_machine_only() {
    let output = Command::new(env!("CARGO_BIN_EXE_kinoprobe-serve")).arg("--help").output().unwrap();
    assert!(printed(&output).contains("[default: 127.0.0.1:8080]"), "{}", printed(&output));
}
