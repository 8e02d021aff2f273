//! Late and early fusion.

use std::fs;

use super::{QUICK, Workspace};
use crate::support::printed;

/// A workspace with runs of two methods.
fn workspace() -> Workspace {
    let workspace = Workspace::single_label();
    let other = workspace.read("tiny.toml").replace("method = \"tiny\"", "method = \"short\"");
    fs::write(workspace.path("short.toml"), other.replace("frames = 6", "frames = 2")).unwrap();
    workspace.extract("short", &[]);
    workspace.classify("tiny.h5", "tiny", &[&["--classifier", "mlp"], &QUICK[..]].concat());
    workspace.classify("short.h5", "short", &["--classifier", "logistic"]);
    workspace
}

#[test]
fn the_scores_of_several_models_are_averaged() {
    let workspace = workspace();
    workspace.classify("short.h5", "third", &["--classifier", "knn"]);
    let models = ["--model", "tiny", "--model", "short", "--model", "third"];
    let arguments = [&models[..], &["manifest.csv", "--out", "fused.csv", "--features", "new.h5"]].concat();
    workspace.assert_predicts(&arguments);
    let fused = workspace.table("fused.csv");
    let [tiny, short, third] = ["tiny", "short", "third"].map(|run| workspace.table(&format!("{run}/predictions.csv")));
    assert!(tiny.len() > 10);
    for (id, row) in &tiny {
        for column in ["score:down", "score:up"] {
            let score = |cell: &String| cell.parse::<f32>().unwrap();
            let sum = score(&row[column]) + score(&short[id][column]) + score(&third[id][column]);
            assert_eq!(score(&fused[id][column]), sum / 3.0, "{id}, {column}");
        }
    }
    // Models of the same features share a store.
    let mut stores: Vec<String> = fs::read_dir(workspace.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("new"))
        .collect();
    stores.sort();
    assert_eq!(stores, ["new-short.h5", "new-tiny.h5"]);
    let text = workspace.assert_predicts(&arguments);
    assert_eq!(text.matches("up to date (36 clips)").count(), 2, "{text}");
    workspace.assert_error(
        &[&models[..], &["manifest.csv", "--timeline", "timeline.csv"]].concat(),
        "the models read different features",
    );
    // Models of one method and their fusion have the same rows.
    let same = ["--model", "short", "--model", "third", "clips", "--timeline", "timeline.csv"];
    workspace.assert_predicts(&same);
    assert_eq!(workspace.read("timeline.csv").lines().count(), 1 + 3 * 2);
}

#[test]
fn an_early_fusion_is_saved_by_the_comparison() {
    let workspace = workspace();
    workspace.run(env!("CARGO_BIN_EXE_kinoprobe-compare"), &["tiny", "short", "--out", "comparison"]);
    let fusion = "comparison/early-fusion";
    workspace.assert_predicts(&["--model", fusion, "manifest.csv", "--out", "early.csv"]);
    workspace.assert_equal("early.csv", fusion);
    // Together with one of its parts.
    let models = ["--model", fusion, "--model", "short", "manifest.csv", "--out", "both.csv", "--features", "new.h5"];
    workspace.assert_predicts(&models);
    assert!(workspace.path("new-short.h5").is_file() && workspace.path("new-tiny.h5").is_file());

    // A clip that fails in one method has no score.
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    let output = workspace.predict(&["--model", fusion, "clips", "text.mp4", "--out", "failed.csv"]);
    crate::support::assert_code(&output, 3);
    assert!(printed(&output).contains("clip text failed"), "{}", printed(&output));
    let table = workspace.table("failed.csv");
    assert!(table["text"]["error"].contains("no video stream") && !table["plain"]["score:up"].is_empty());
}
