//! Thresholds of multi-label models.

use std::collections::BTreeSet;
use std::fs;

use kinoprobe::classify::SavedModel;
use kinoprobe::dataset::Task;
use kinoprobe::evaluate::multi_label::Thresholds;
use kinoprobe::evaluate::predictions::PredictionTable;
use kinoprobe::manifest::Split;
use kinoprobe::report::compare::late_fusion;

use super::{QUICK, Workspace};

#[test]
fn tuned_thresholds_decide_which_labels_are_predicted() {
    let workspace = Workspace::new(|i| ["dark", "dark|fast", "fast", "dark|fast|slow"][i / 4 % 4]);
    workspace.classify("tiny.h5", "run", &[&["--classifier", "mlp"], &QUICK[..]].concat());
    let predict = |out: &str| {
        let text = workspace.assert_predicts(&["--model", "run", "manifest.csv", "--features", "new.h5", "--out", out]);
        assert!(text.contains(" +"), "predicted labels are marked: {text}");
        workspace.table(out)
    };
    let mut saved = SavedModel::load(&workspace.path("run")).unwrap();
    let thresholds = saved.metadata.thresholds.clone().expect("the run has validation clips");
    // Labels of five validation clips are tuned.
    assert!(thresholds.iter().any(|threshold| *threshold != 0.5), "{thresholds:?}");
    let table = predict("predictions.csv");
    let mut differences = 0;
    for row in table.values() {
        let expected = |thresholds: &[f32]| -> BTreeSet<&str> {
            let classes = saved.metadata.classes.iter().zip(thresholds);
            let reached = classes
                .filter(|(class, threshold)| row[&format!("score:{class}")].parse::<f32>().unwrap() >= **threshold);
            reached.map(|(class, _)| class.as_str()).collect()
        };
        let predicted: BTreeSet<&str> = row["predicted"].split('|').filter(|name| !name.is_empty()).collect();
        assert_eq!(predicted, expected(&thresholds), "{row:?}");
        differences += usize::from(predicted != expected(&[0.5; 3]));
    }
    assert!(differences > 0, "the thresholds make a difference");
    workspace.assert_equal("predictions.csv", "run");

    // Runs of earlier versions do not record thresholds: they are tuned on the predictions of the validation clips.
    saved.metadata.thresholds = None;
    saved.save(&workspace.path("run")).unwrap();
    assert_eq!(predict("again.csv"), table);
    fs::remove_file(workspace.path("run/predictions.csv")).unwrap();
    assert_ne!(predict("untuned.csv"), table);
}

#[test]
fn the_thresholds_of_a_fusion_are_tuned_on_its_validation_clips() {
    let workspace = Workspace::new(|i| ["dark", "dark|fast", "fast", "dark|fast|slow"][i / 4 % 4]);
    for kind in ["logistic", "bayes"] {
        workspace.classify("tiny.h5", kind, &["--classifier", kind]);
    }
    let arguments =
        ["--model", "logistic", "--model", "bayes", "manifest.csv", "--features", "new.h5", "--out", "fused.csv"];
    workspace.assert_predicts(&arguments);
    let validation = ["logistic", "bayes"].map(|run| {
        let path = workspace.path(run).join("predictions.csv");
        PredictionTable::read_csv(&path, Some(Task::MultiLabel)).unwrap().select_split(Split::Val)
    });
    let fused = late_fusion::mean(&validation.each_ref()).unwrap();
    let thresholds = Thresholds::tune(&fused).unwrap().values();
    let expected = |row: &std::collections::BTreeMap<String, String>, thresholds: &[f32]| {
        let classes = fused.classes.iter().zip(thresholds);
        let reached =
            classes.filter(|(class, threshold)| row[&format!("score:{class}")].parse::<f32>().unwrap() >= **threshold);
        reached.map(|(class, _)| class.as_str()).collect::<Vec<_>>().join("|")
    };
    assert!(workspace.table("fused.csv").values().all(|row| row["predicted"] == expected(row, &thresholds)));

    // Runs that were trained on other labels have no common validation clips.
    let text = workspace.read("bayes/predictions.csv").replace(",val,dark,", ",val,slow,");
    fs::write(workspace.path("bayes/predictions.csv"), text).unwrap();
    let text = workspace.assert_predicts(&arguments);
    assert!(text.contains("the thresholds of the fusion cannot be tuned: clip `"), "{text}");
    assert!(workspace.table("fused.csv").values().all(|row| row["predicted"] == expected(row, &[0.5; 3])));
}
