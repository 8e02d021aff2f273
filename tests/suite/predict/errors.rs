//! Models and files that cannot be used.

use std::fs;

use super::Workspace;
use crate::support::{assert_code, fixture, printed};

#[test]
fn a_network_that_changed_since_the_training_is_rejected() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    fs::create_dir(workspace.path("cards")).unwrap();
    let predict = |more: &[&str]| {
        let arguments = ["--model", "run", "clips", "--cards", "cards"];
        let mut command = workspace.command(env!("CARGO_BIN_EXE_kinoprobe-predict"), &arguments);
        let output = command.args(more).output().unwrap();
        (output.status.code(), printed(&output))
    };
    let (code, text) = predict(&[]);
    assert!(code == Some(1) && text.contains("cards/tiny.toml: no such model card"), "{text}");
    fs::copy(fixture("models/tiny.toml"), workspace.path("cards/tiny.toml")).unwrap();
    let (code, text) = predict(&[]);
    assert!(code == Some(1) && text.contains("tiny.onnx: no such file"), "{text}");
    // An ONNX file with an additional property is another file.
    let mut network = fs::read(fixture("models/tiny.onnx")).unwrap();
    let properties = [("changed".to_string(), "yes".to_string())].into();
    kinoprobe::models::onnx::append_properties(&mut network, &properties);
    fs::write(workspace.path("cards/tiny.onnx"), network).unwrap();
    let (code, text) = predict(&[]);
    assert!(code == Some(1) && text.contains("than the one that the model was trained with"), "{text}");
    let original = fixture("models/tiny.onnx");
    let (code, text) = predict(&["--weights", original.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn stores_and_files_of_others_are_not_replaced() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    let recipe = workspace.read("tiny.toml").replace("frames = 6", "frames = 2");
    fs::write(workspace.path("tiny.toml"), recipe).unwrap();
    fs::rename(workspace.path("tiny.h5"), workspace.path("six.h5")).unwrap();
    workspace.extract("tiny", &[]);
    workspace.assert_error(
        &["--model", "run", "manifest.csv", "--features", "tiny.h5"],
        "made with other settings; choose another store",
    );
    for (out, content) in [("labels.csv", "id,label\na,b\n"), ("notes.jsonl", "{\"a\": 1}\n")] {
        fs::write(workspace.path(out), content).unwrap();
        workspace.assert_error(&["--model", "run", "clips", "--out", out], "is not a file of predictions");
        assert_eq!(workspace.read(out), content);
    }
    workspace
        .assert_error(&["--model", "run", "manifest.csv", "--out", "manifest.csv"], "an input, which the predictions");
    workspace.assert_error(&["--model", "run", "clips", "--out", "predictions.txt"], "choose the format with --format");
    workspace.assert_error(&["--model", "run", "clips", "--timeline", "x.svg"], "name a .csv file");
    // Earlier predictions may be replaced.
    let arguments = ["--model", "run", "clips", "--out", "predictions.csv", "--timeline", "scores.csv"];
    workspace.assert_predicts(&arguments);
    workspace.assert_predicts(&arguments);
}

#[test]
fn timelines_do_not_replace_files_of_others() {
    let workspace = Workspace::single_label();
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    for (existing, content, timeline, expected) in [
        ("labels.csv", "id,label\na,b\n", "labels.csv", "exists and is not a timeline"),
        ("drawing.svg", "<svg></svg>\n", "drawing.csv", "exists and is not the plot of an earlier timeline"),
    ] {
        fs::write(workspace.path(existing), content).unwrap();
        workspace.assert_error(&["--model", "run", "clips", "--timeline", timeline], expected);
        assert_eq!(workspace.read(existing), content);
    }
    let manifest = workspace.read("manifest.csv");
    workspace.assert_error(
        &["--model", "run", "manifest.csv", "--timeline", "manifest.csv"],
        "an input, which the predictions would replace",
    );
    assert_eq!(workspace.read("manifest.csv"), manifest);
}

#[test]
fn directories_without_a_usable_model_are_explained() {
    let workspace = Workspace::single_label();
    workspace.assert_error(&["--model", "clips", "clips"], "contains no model: pass the directory of a run");
    fs::create_dir(workspace.path("posters")).unwrap();
    fs::write(workspace.path("posters/posters.json"), "{}").unwrap();
    workspace.assert_error(&["--model", "posters", "clips"], "name one of them, such as posters/all");
    workspace.classify("tiny.h5", "run", &["--classifier", "logistic"]);
    workspace.assert_error(&["--model", "run", "none.mp4"], "none.mp4: No such file");
    workspace.assert_error(&["--model", "run", "clips", "--root", "."], "does not apply: no input is a manifest");
    for flags in ["--top=0", "--workers=0", "--memory=0"] {
        assert_code(&workspace.predict(&["--model", "run", "clips", flags]), 2);
    }
    assert_code(&workspace.predict(&["--model", "run", "clips", "--format", "csv"]), 2);
}
