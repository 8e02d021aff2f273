//! Late, early and learned fusion.

use std::collections::BTreeMap;
use std::fs;

use kinoprobe::classify::SavedModel;

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

/// Returns the ids of the clips of a split of a run.
fn ids_of(workspace: &Workspace, run: &str, split: &str) -> Vec<String> {
    let table = workspace.table(&format!("{run}/predictions.csv"));
    table.into_iter().filter(|(_, row)| row["split"] == split).map(|(id, _)| id).collect()
}

const LEARNED: &str = "comparison/learned-fusion";

fn compare(workspace: &Workspace, runs: &[&str]) -> String {
    let arguments = [runs, &["--no-early-fusion", "--out", "comparison"]].concat();
    workspace.run(env!("CARGO_BIN_EXE_kinoprobe-compare"), &arguments)
}

#[test]
fn a_learned_fusion_is_saved_by_the_comparison() {
    let workspace = workspace();
    workspace.classify("tiny.h5", "sequence", &[&["--classifier", "bilstm"], &QUICK[..]].concat());
    compare(&workspace, &["tiny", "short", "sequence"]);
    let predict = |model: &[&str], out: &str| {
        let arguments = [model, &["manifest.csv", "--out", out, "--features", "new.h5"]].concat();
        workspace.assert_predicts(&arguments);
        workspace.table(out)
    };
    let found = predict(&["--model", LEARNED], "learned.csv");
    assert!(workspace.path("new-short.h5").is_file() && workspace.path("new-tiny.h5").is_file());
    let stored = workspace.table(&format!("{LEARNED}/predictions.csv"));
    let scores = |row: &BTreeMap<String, String>| ["score:down", "score:up"].map(|column| row[column].clone());
    let test = ids_of(&workspace, LEARNED, "test");
    assert!(test.len() > 5);
    for id in &test {
        assert_eq!(scores(&found[id]), scores(&stored[id]), "{id}");
    }
    // The stored scores of validation clips are those of a cross-validation.
    assert!(ids_of(&workspace, LEARNED, "val").iter().any(|id| scores(&found[id]) != scores(&stored[id])));

    // Together with one of its runs.
    let both = predict(&["--model", LEARNED, "--model", "short"], "both.csv");
    let short = workspace.table("short/predictions.csv");
    let number = |row: &BTreeMap<String, String>| row["score:up"].parse::<f32>().unwrap();
    for (id, row) in &short {
        assert_eq!(number(&both[id]), (number(&found[id]) + number(row)) / 2.0, "{id}");
    }
    // The paths of the runs are relative, so that a directory with all of them can be moved.
    fs::create_dir(workspace.path("moved")).unwrap();
    for directory in ["tiny", "short", "sequence", "comparison"] {
        fs::rename(workspace.path(directory), workspace.path("moved").join(directory)).unwrap();
    }
    assert_eq!(predict(&["--model", &format!("moved/{LEARNED}")], "moved.csv"), found);
}

#[test]
fn a_learned_fusion_of_calibrated_runs_has_tuned_thresholds() {
    let workspace = Workspace::new(|i| ["dark", "dark|fast", "fast", "dark|fast|slow"][i / 4 % 4]);
    workspace.classify("tiny.h5", "logistic", &["--classifier", "logistic", "--calibrate", "platt"]);
    workspace.classify("tiny.h5", "bayes", &["--classifier", "bayes"]);
    compare(&workspace, &["logistic", "bayes"]);
    let model = ["--model", LEARNED, "manifest.csv", "--features", "new.h5"];
    workspace.assert_predicts(&[&model[..], &["--out", "learned.csv", "--timeline", "timeline.csv"]].concat());
    let (found, stored) = (workspace.table("learned.csv"), workspace.table(&format!("{LEARNED}/predictions.csv")));
    let SavedModel { metadata, .. } = SavedModel::load(&workspace.path(LEARNED)).unwrap();
    let thresholds = metadata.thresholds.expect("the labels of a multi-label fusion have thresholds");
    for id in ids_of(&workspace, LEARNED, "test") {
        let score = |class: &String| found[&id][&format!("score:{class}")].clone();
        assert!(metadata.classes.iter().all(|class| score(class) == stored[&id][&format!("score:{class}")]), "{id}");
        let classes = metadata.classes.iter().zip(&thresholds);
        let reached = classes.filter(|(class, threshold)| score(class).parse::<f32>().unwrap() >= **threshold);
        let expected: Vec<&str> = reached.map(|(class, _)| class.as_str()).collect();
        assert_eq!(found[&id]["predicted"], expected.join("|"), "{id}");
    }
    assert!(workspace.read("timeline.csv").lines().count() > found.len());
}

#[test]
fn a_learned_fusion_refuses_runs_that_it_was_not_fitted_to() {
    let workspace = workspace();
    compare(&workspace, &["tiny", "short"]);
    let refuses = |model: &str, expected: &str| workspace.assert_error(&["--model", model, "clips"], expected);
    refuses("comparison/late-fusion", "the mean of the scores of its runs: pass each of them with --model");

    fs::rename(workspace.path("short"), workspace.path("elsewhere")).unwrap();
    refuses(
        LEARNED,
        "reads the scores of short · logistic (comparison/learned-fusion/../../short), whose model is missing",
    );
    workspace.classify("short.h5", "short", &["--classifier", "logistic", "--alpha", "100"]);
    refuses(LEARNED, "short), whose model has changed since the fusion: repeat kinoprobe-compare");
    fs::remove_dir_all(workspace.path("short")).unwrap();
    fs::rename(workspace.path("elsewhere"), workspace.path("short")).unwrap();
    workspace.assert_predicts(&["--model", LEARNED, "clips"]);

    let evaluate = ["--model", LEARNED, "--features", "tiny.h5", "--manifest", "manifest.csv", "--out", "evaluated"];
    let output = workspace.command(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &evaluate).output().unwrap();
    crate::support::assert_code(&output, 1);
    assert!(printed(&output).contains("a fusion, which reads the features of several stores"), "{}", printed(&output));

    for file in SavedModel::FILES {
        fs::remove_file(workspace.path(LEARNED).join(file)).unwrap();
    }
    refuses(
        LEARNED,
        "contains predictions, but no model: pass the directory of the run that made them (for a fusion, repeat kinoprobe-compare)",
    );

    let evaluate = ["--predictions", "short/predictions.csv", "--out", "evaluated"];
    workspace.run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &evaluate);
    refuses("evaluated", "contains predictions, but no model");
    compare(&workspace, &["tiny", "evaluated"]);
    refuses(LEARNED, "evaluated), which has no model, so that it cannot be applied to new clips");
}

#[test]
fn models_of_other_classes_are_not_averaged() {
    let workspace = Workspace::single_label();
    let manifest = workspace.read("manifest.csv");
    for (run, down) in [("first", ",down,"), ("partial", ",left,"), ("disjoint", ",left,")] {
        let up = if run == "disjoint" { ",right," } else { ",up," };
        let labels = manifest.replace(",down,", down).replace(",up,", up);
        fs::write(workspace.path("manifest.csv"), labels).unwrap();
        workspace.classify("tiny.h5", run, &["--classifier", "logistic"]);
    }
    workspace.assert_error(
        &["--model", "first", "--model", "disjoint", "clips"],
        "disjoint: has the classes left, right, none of those of first (down, up)",
    );
    let text = workspace.assert_predicts(&["--model", "first", "--model", "partial", "clips"]);
    assert!(text.contains("first: lacks the class left: its score is 0 in the fusion"), "{text}");
    assert!(text.contains("partial: lacks the class down: its score is 0 in the fusion"), "{text}");
}
