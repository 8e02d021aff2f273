//! Thresholds of multi-label models.

use std::collections::BTreeSet;

use kinoprobe::classify::SavedModel;

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
    std::fs::remove_file(workspace.path("run/predictions.csv")).unwrap();
    assert_ne!(predict("untuned.csv"), table);
}
