//! SIFT features, which need the codebook of the training, and features of shots.

use std::fs;

use super::{Workspace, text};
use crate::support::root;

const RECIPE: &str = r#"
method = "words"

[sampling]
kind = "even"
frames = 2

[extractor]
kind = "sift"
keypoints = 12

[codebook]
words = 8
max_iterations = 20
tolerance = 0.0001
seed = 0
normalize = "l2"
"#;

#[test]
fn fisher_vectors_are_those_of_the_codebook_of_the_training() {
    let workspace = Workspace::single_label();
    fs::write(workspace.path("words.toml"), format!("{RECIPE}components = 20\nencoding = \"fisher\"\n")).unwrap();
    let manifest = ["--manifest", "manifest.csv", "--recipe", "words.toml", "--quiet"];
    let extract = ["--method", "words", "--out", "words.descriptors.h5"];
    workspace.run(env!("CARGO_BIN_EXE_kinoprobe-extract"), &[&manifest[..], &extract].concat());
    let codebook = ["--descriptors", "words.descriptors.h5", "--out", "words.h5"];
    workspace.run(env!("CARGO_BIN_EXE_kinoprobe-codebook"), &[&manifest[..], &codebook].concat());
    workspace.classify("words.h5", "run", &["--classifier", "svm"]);
    // Only the run has the codebook now.
    fs::remove_file(workspace.path("words.h5")).unwrap();
    workspace.assert_predicts(&["--model", "run", "manifest.csv", "--out", "predictions.csv", "--features", "new.h5"]);
    workspace.assert_equal("predictions.csv", "run");
}

#[test]
fn histograms_are_those_of_the_codebook_of_the_training() {
    let workspace = Workspace::single_label();
    fs::write(workspace.path("words.toml"), RECIPE).unwrap();
    let manifest = ["--manifest", "manifest.csv", "--recipe", "words.toml", "--quiet"];
    let extract = ["--method", "words", "--out", "words.descriptors.h5"];
    workspace.run(env!("CARGO_BIN_EXE_kinoprobe-extract"), &[&manifest[..], &extract].concat());
    let codebook = ["--descriptors", "words.descriptors.h5", "--out", "words.h5"];
    workspace.run(env!("CARGO_BIN_EXE_kinoprobe-codebook"), &[&manifest[..], &codebook].concat());
    workspace.classify("words.h5", "run", &["--classifier", "logistic"]);
    let arguments = ["--model", "run", "manifest.csv", "--out", "predictions.csv", "--features", "new.h5"];
    workspace.assert_predicts(&arguments);
    workspace.assert_equal("predictions.csv", "run");
    assert!(workspace.path("new.descriptors.h5").is_file());
    let text = workspace.assert_predicts(&arguments);
    assert!(text.contains("up to date (36 clips)"), "{text}");

    // The codebook is kept with the run. Earlier runs refer to the store only.
    fs::rename(workspace.path("words.h5"), workspace.path("moved.h5")).unwrap();
    workspace.assert_predicts(&arguments);
    fs::remove_file(workspace.path("run/words.codebook.h5")).unwrap();
    workspace.assert_error(&arguments, "the codebook of words is missing: pass the store");
    workspace.assert_predicts(&[&arguments[..], &["--codebook", "moved.h5"]].concat());
    workspace.assert_equal("predictions.csv", "run");
    workspace.assert_error(&[&arguments[..], &["--codebook", "tiny.h5"]].concat(), "has no codebook");
    workspace.assert_error(&[&arguments[..], &["--weights", "seeded"]].concat(), "--weights applies to models of one");
    fs::rename(workspace.path("moved.h5"), workspace.path("words.h5")).unwrap();
    workspace.assert_predicts(&arguments);

    // Descriptors that are gone would take rows of the store with them.
    fs::remove_file(workspace.path("new.descriptors.h5")).unwrap();
    let fewer = ["--model", "run", "clips/plain.mp4", "--features", "new.h5"];
    workspace.assert_error(&fewer, "so it would be lost");
}

#[test]
fn features_of_shots_need_the_shots_of_the_clips() {
    let workspace = Workspace::single_label();
    let recipe =
        workspace.read("tiny.toml").replace("kind = \"even\"", "kind = \"shots\"").replace("\"tiny\"", "\"cuts\"");
    fs::write(workspace.path("cuts.toml"), recipe.replace("card = \"cuts\"", "card = \"tiny\"")).unwrap();
    let mut list = String::from("id,start_frame,end_frame\n");
    for i in 0..36 {
        list += &format!("clip{i:02},0,200\n");
    }
    fs::write(workspace.path("shots.csv"), &list).unwrap();
    workspace.extract("cuts", &["--shots", "shots.csv"]);
    workspace.classify("cuts.h5", "run", &["--classifier", "logistic"]);
    // The list of the new clips differs from that of the training, whose hash the model records.
    let new = "id,path,start,end\nclip02,clips/plain.mp4,0.20,0.50\nclip03,clips/plain.mp4,0.30,0.60\n";
    fs::write(workspace.path("new.csv"), new).unwrap();
    fs::write(workspace.path("new-shots.csv"), "id,start_frame,end_frame\nclip02,0,200\nclip03,0,200\n").unwrap();
    let arguments = ["--model", "run", "new.csv", "--out", "predictions.csv", "--shots", "new-shots.csv"];
    let printed = workspace.assert_predicts(&arguments);
    assert!(!printed.contains("other settings"), "{printed}");
    let (expected, found) = (workspace.table("run/predictions.csv"), workspace.table("predictions.csv"));
    assert_eq!(found["clip02"]["score:up"], expected["clip02"]["score:up"]);
    workspace.classify("tiny.h5", "even", &["--classifier", "logistic"]);
    workspace.assert_error(
        &["--model", "even", "new.csv", "--shots", text(&root().join("fixtures/media/shots.json"))],
        "no model samples shots",
    );
}
