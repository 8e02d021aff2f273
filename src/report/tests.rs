use ndarray::Array2;

use super::*;
use crate::dataset::Task;
use crate::evaluate::compute_metrics;

/// Returns scored predictions of `n` clips, two thirds of them correct, unlabeled unless `labeled`.
pub(super) fn predictions(prefix: &str, n: usize, classes: &[String], labeled: bool) -> Predictions {
    let count = classes.len();
    let target = |i: usize| (i * 7) % count;
    let scores = Array2::from_shape_fn((n, count), |(i, class)| {
        let chosen = if i % 3 == 0 { (target(i) + 1 + i % 2) % count } else { target(i) };
        if class == chosen { 0.6 } else { 0.4 / (count - 1) as f32 }
    });
    Predictions::from_scores(
        Task::SingleLabel,
        (0..n).map(|i| format!("{prefix}{i:03}")).collect(),
        (0..n).map(|i| Some(format!("film {}", i / 4))).collect(),
        (0..n).map(|i| labeled.then_some(target(i)).into_iter().collect()).collect(),
        scores,
        classes.to_vec(),
    )
}

pub(super) fn run(classes: &[&str]) -> TrainingRun {
    let classes: Vec<String> = classes.iter().map(|class| class.to_string()).collect();
    let splits = BTreeMap::from([
        (Split::Val, predictions("v", 60, &classes, true)),
        (Split::Test, predictions("t", 90, &classes, true)),
    ]);
    let constant = splits
        .iter()
        .map(|(&split, predictions)| {
            let all_first =
                Predictions { predicted: vec![vec![0]; predictions.len()], scores: None, ..predictions.clone() };
            (split, compute_metrics(&all_first))
        })
        .collect();
    let curves = (1..=37)
        .map(|epoch| {
            let e = epoch as f64;
            Epoch {
                epoch,
                train_loss: 2.5 / e,
                train_score: 1.0 - 0.9 / e,
                val_loss: 2.5 / e.sqrt(),
                val_score: 0.7 - 0.6 / e - if epoch > 22 { 0.02 } else { 0.0 },
                learning_rate: 0.005 * (1.0 + (std::f64::consts::PI * (e % 10.0) / 10.0).cos()),
                time: 1.5e9 + e,
            }
        })
        .collect();
    let seed = |seed: u64, accuracy: f64| SeedResult {
        seed,
        splits: BTreeMap::from([(
            Split::Val,
            BTreeMap::from([("accuracy".into(), accuracy), ("macro_f1".into(), accuracy - 0.02)]),
        )]),
        seconds: 1.5,
    };
    TrainingRun {
        search: None,
        identity: RunIdentity {
            method: "cnn3d".into(),
            classifier: "mlp".into(),
            untrained: true,
            weights: "seeded".into(),
            model: "r2plus1d_18".into(),
            ..RunIdentity::default()
        },
        inputs: RunInputs { features: "features/cnn3d.h5".into(), manifest: "clips.csv".into(), root: None },
        recipe: "method = \"cnn3d\"\n".into(),
        extract_seconds: 12.5,
        splits,
        calibration: None,
        unlabeled: Some(predictions("u", 5, &classes, false)),
        constant,
        curves,
        score_name: "accuracy",
        best_epoch: Some(22),
        seeds: vec![seed(0, 0.6), seed(1, 0.7)],
        train_seconds: 1.5,
        warnings: vec!["clips without a class: 3 | 4".into()],
    }
}

#[test]
fn run_files_are_complete_and_readable() {
    let directory = tempfile::tempdir().unwrap();
    let run = run(&["a<b>", "bird", "cat|dog", "x_y"]);
    write_run(directory.path(), &run).unwrap();
    complete(directory.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();

    let metrics: serde_json::Value = serde_json::from_str(&read("metrics.json")).unwrap();
    assert_eq!(metrics["untrained"], true);
    assert_eq!(metrics["test"]["n"], 90);
    assert_eq!(metrics["test"]["interval"]["unit"], "groups");
    assert!(metrics["val"]["accuracy"].as_f64().unwrap() > 0.5);
    assert!(metrics["val"]["macro"]["f1"].is_number() && metrics["val"]["per_class"][0]["fn"].is_number());
    assert!((metrics["seeds"]["summary"]["val"]["accuracy"]["mean"].as_f64().unwrap() - 0.65).abs() < 1e-12);
    assert_eq!(metrics["constant"]["test"]["top_k"]["1"], metrics["constant"]["test"]["accuracy"]);
    assert_eq!(metrics["best_epoch"], 22);
    let back = Metrics::read(&directory.path().join("metrics.json")).unwrap();
    assert_eq!(back.constant, run.constant);
    assert_eq!(serde_json::to_value(&back).unwrap(), metrics);

    let table = PredictionTable::read_csv(&directory.path().join("predictions.csv"), None).unwrap();
    assert_eq!(table.select_split(Split::Val), run.splits[&Split::Val]);
    assert_eq!(table.select_split(Split::Test), run.splits[&Split::Test]);

    assert!(read("submission.csv").starts_with("Id,Category\nu000,"));
    assert_eq!(read("curves.csv").lines().count(), 38);
    assert_eq!(read("per_class.csv").lines().count(), 1 + 2 * 4);
    assert_eq!(read("confusion_val.csv").lines().count(), 5);
    assert_eq!(read("recipe.toml"), run.recipe);
    let report = read("REPORT.md");
    for part in
        ["# cnn3d · mlp", "**⚠ UNTRAINED", "a&lt;b&gt;", "cat\\|dog", "| test | constant |", "curves.svg", "2 seeds"]
    {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
    assert!(!report.contains("<b>"));
    for name in ["curves.svg", "confusion_val.svg", "confusion_test.svg"] {
        assert!(!read(name).contains("<b>"), "{name} escapes class names");
    }
}

#[test]
fn files_of_an_earlier_run_are_removed_and_others_kept() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut run = run(&["a", "b"]);
    write_run(directory.path(), &run).unwrap();
    complete(directory.path()).unwrap();
    std::fs::write(at("tensorboard/val/notes.txt"), "kept").unwrap();
    let event = |split: &str| at("tensorboard").join(split).join("events.out.tfevents.0.kinoprobe");
    assert!(event("train").is_file() && event("val").is_file() && at("curves.svg").is_file());

    run.curves.clear();
    write_run(directory.path(), &run).unwrap();
    complete(directory.path()).unwrap();
    assert!(!at("tensorboard/train").exists() && !event("val").exists() && !at("curves.svg").exists());
    assert!(at("tensorboard/val/notes.txt").is_file() && at("metrics.json").is_file());

    std::fs::write(at("model.onnx"), "").unwrap();
    remove_run(directory.path()).unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tensorboard"], "the user's file is in it");
    std::fs::write(at("metrics.json"), "{}").unwrap();
    remove_run(directory.path()).unwrap();
    assert!(at("metrics.json").is_file(), "not the directory of a run");
}

#[test]
fn an_incomplete_run_has_no_metrics_and_its_files_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    write_run(directory.path(), &run(&["a", "b"])).unwrap();
    assert!(!at("metrics.json").exists());
    complete(directory.path()).unwrap();
    assert!(at("metrics.json").is_file() && !at("metrics.json.partial").exists());
    // A program that was killed after it had begun, and another one that writes other files.
    begin(directory.path()).unwrap();
    assert!(!at("metrics.json").exists() && !at("confusion_val.svg").exists());
    std::fs::write(at("confusion_val.svg"), "of the killed program").unwrap();
    begin(directory.path()).unwrap();
    assert!(!at("confusion_val.svg").exists());
    // Files of others are kept.
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("report.html"), "").unwrap();
    begin(other.path()).unwrap();
    assert!(other.path().join("report.html").is_file());
}

#[test]
fn event_files_of_a_training_are_continued() {
    let directory = tempfile::tempdir().unwrap();
    let [dir, fresh] = ["run", "fresh"].map(|name| directory.path().join(name));
    let curves = run(&["a", "b"]).curves;
    let path = |dir: &Path| dir.join("tensorboard/train/events.out.tfevents.0.kinoprobe");
    let write = |dir: &Path, epochs: &[Epoch]| {
        write_epochs(dir, "accuracy", epochs).unwrap();
        std::fs::read(path(dir)).unwrap()
    };
    let complete = write(&fresh, &curves[..3]);
    let first = write(&dir, &curves[..1]);
    assert!(
        complete.starts_with(&first) && write(&dir, &curves[..3]) == complete && write(&dir, &curves[..3]) == complete
    );
    // A program that was killed while it wrote, and another training.
    std::fs::write(path(&dir), &complete[..first.len() + 7]).unwrap();
    assert_eq!(write(&dir, &curves[..3]), complete);
    let other: Vec<Epoch> = curves[..3].iter().map(|epoch| Epoch { train_loss: 7.0, ..*epoch }).collect();
    let written = write(&dir, &other);
    assert!(written.len() == complete.len() && written != complete);
    assert_eq!(write(&dir, &curves[..2]), write(&directory.path().join("two"), &curves[..2]));
}

#[test]
fn report_names_collapsed_model() {
    let mut run = run(&["a", "b", "c"]);
    for predictions in run.splits.values_mut() {
        predictions.predicted.fill(vec![1]);
        predictions.scores = None;
    }
    let directory = tempfile::tempdir().unwrap();
    write_run(directory.path(), &run).unwrap();
    complete(directory.path()).unwrap();
    let report = std::fs::read_to_string(directory.path().join("REPORT.md")).unwrap();
    assert!(report.contains("collapsed: every clip is predicted as b"), "{report}");
    assert!(report.contains("includes the constant baseline (33.3 %)"), "{report}");
}

#[test]
fn multi_label_run_files_are_complete_and_readable() {
    let mut run = run(&["a<b>", "bird", "cat", "never"]);
    let several = |part: &Predictions| {
        let truth: Vec<Vec<usize>> = part
            .truth
            .iter()
            .enumerate()
            .map(|(i, set)| match set[..] {
                [3] => vec![0],
                [class] if i % 2 == 0 && class < 2 => vec![class, 2],
                _ => set.clone(),
            })
            .collect();
        let (ids, groups, scores) = (part.ids.clone(), part.groups.clone(), part.scores.clone().unwrap());
        Predictions::from_scores(Task::MultiLabel, ids, groups, truth, scores, part.classes.clone())
    };
    run.identity.task = Task::MultiLabel;
    run.splits.values_mut().for_each(|part| *part = several(part));
    run.unlabeled = run.unlabeled.as_ref().map(several);
    run.constant = run
        .splits
        .iter()
        .map(|(&split, part)| {
            let scores = Some(Array2::from_elem((part.len(), 4), 0.4));
            (split, compute_metrics(&Predictions { predicted: vec![vec![0, 2]; part.len()], scores, ..part.clone() }))
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    write_run(directory.path(), &run).unwrap();
    complete(directory.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&read("metrics.json")).unwrap();
    assert_eq!(metrics["task"], "multi-label");
    assert!(metrics["test"]["map"]["macro"].as_f64() > metrics["constant"]["test"]["map"]["macro"].as_f64());
    assert!(metrics["test"]["thresholds"]["micro"]["f1"].is_number());
    assert!(metrics["constant"]["test"]["collapsed"].is_string());
    let back = Metrics::read(&directory.path().join("metrics.json")).unwrap();
    // Through text, since conversion to a value would widen the f32 thresholds.
    let again: serde_json::Value = serde_json::from_str(&serde_json::to_string(&back).unwrap()).unwrap();
    assert_eq!(again, metrics);
    assert!(back.warnings.contains(
        &"test: 1 of 4 labels have no clips in this split: they are n/a and excluded from macro averages".into()
    ));
    let table = PredictionTable::read_csv(&directory.path().join("predictions.csv"), None).unwrap();
    assert_eq!(table.select_split(Split::Test), run.splits[&Split::Test]);
    assert!(read("submission.csv").starts_with("Id,Category\nu000,"));
    let report = read("REPORT.md");
    for part in ["| test | constant |", "constant: the most frequent training labels", "a&lt;b&gt;", "| never | n/a |"]
    {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
    for name in ["precision_recall_test.svg", "average_precision_test.svg", "precision_recall_val.svg"] {
        assert!(report.contains(name) && !read(name).contains("<b>"), "{name}");
    }
    let entry = compare::load(directory.path()).unwrap();
    assert_eq!(
        entry.constant[&compare::Part::Test].primary().1,
        metrics["constant"]["test"]["map"]["macro"].as_f64().unwrap()
    );
}

#[test]
fn unwritable_directory_is_named_in_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("taken");
    std::fs::write(&file, "").unwrap();
    let error = write_run(&file.join("run"), &run(&["a", "b"])).unwrap_err().to_string();
    assert!(error.contains("taken"), "{error}");
}
