use ndarray::{Array2, array};
use rand::{Rng, SeedableRng};

use super::*;
use crate::manifest::Split;
use crate::report::tests::{predictions, run};
use crate::report::{complete, write_run};
use crate::store::{ClipRows, Payload, Provenance, StoreWriter, Values};

pub(super) fn compared(name: &str, part: Part, predictions: Predictions) -> ComparedRun {
    ComparedRun {
        name: name.into(),
        kind: RunKind::Run,
        identity: RunIdentity { method: name.into(), classifier: "mlp".into(), ..RunIdentity::default() },
        inputs: RunInputs::default(),
        directory: None,
        extract_seconds: None,
        training_seconds: Some(1.0),
        parts: BTreeMap::from([(part, predictions)]),
        constant: BTreeMap::new(),
        unlabeled: HashSet::new(),
    }
}

pub(super) fn scored(ids: &[&str], truth: &[usize], scores: Array2<f32>, classes: &[&str]) -> Predictions {
    Predictions::from_scores(
        Task::SingleLabel,
        ids.iter().map(|id| id.to_string()).collect(),
        vec![None; ids.len()],
        truth.iter().map(|&class| vec![class]).collect(),
        scores,
        classes.iter().map(|class| class.to_string()).collect(),
    )
}

#[test]
fn late_fusion_averages_common_clips_by_class_name() {
    let first = scored(&["1", "2", "3"], &[0, 1, 0], array![[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], &["a", "b"]);
    let second = scored(&["2", "1"], &[0, 1], array![[0.8, 0.2], [0.3, 0.7]], &["b", "a"]);
    let fused = late_fusion::mean(&[&first, &second]).unwrap();
    assert_eq!(fused.ids, ["1", "2"]);
    assert_eq!(fused.classes, ["a", "b"]);
    let expected = array![[0.8, 0.2], [0.4, 0.6]];
    assert!((fused.scores.unwrap() - expected).iter().all(|difference| difference.abs() < 1e-6));
    assert_eq!(fused.predicted, [[0], [1]]);

    let other = scored(&["1"], &[1], array![[0.5, 0.5]], &["a", "b"]);
    assert!(late_fusion::mean(&[&first, &other]).unwrap_err().to_string().contains("clip `1` has different labels"));
}

#[test]
fn best_pair_is_selected_on_validation() {
    let ids = ["1", "2", "3", "4"];
    let truth = [0, 0, 1, 1];
    let good = array![[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]];
    let bad = 1.0 - &good;
    let with = |name: &str, val: &Array2<f32>, test: &Array2<f32>| {
        let mut run = compared(name, Part::Val, scored(&ids, &truth, val.clone(), &["a", "b"]));
        run.parts.insert(Part::Test, scored(&ids, &truth, test.clone(), &["a", "b"]));
        run
    };
    // The pair (x, z) is better on test, which must not be used.
    let runs = [with("x", &good, &good), with("y", &good, &bad), with("z", &bad, &good)];
    let (fused, notes) = late_fusion::fuse(&runs).unwrap();
    let names: Vec<&str> = fused.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["late fusion: all 3 runs", "late fusion: x + y (best pair on val)"]);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(fused[0].training_seconds, Some(3.0));
}

#[test]
fn the_best_run_is_selected_on_validation() {
    let ids = ["1", "2", "3", "4"];
    let truth = [0, 0, 1, 1];
    let good = array![[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]];
    let bad = 1.0 - &good;
    let with = |name: &str, val: &Array2<f32>, test: &Array2<f32>| {
        let mut run = compared(name, Part::Val, scored(&ids, &truth, val.clone(), &["a", "b"]));
        run.parts.insert(Part::Test, scored(&ids, &truth, test.clone(), &["a", "b"]));
        run
    };
    let mut runs = vec![with("x", &bad, &good), with("y", &good, &bad), with("z", &good, &good)];
    let comparison = compare(&runs, &[]).unwrap();
    assert_eq!(comparison.best.as_deref(), Some("y"), "the first of equal runs; x is better on test");
    for part in [Part::Val, Part::Test] {
        assert_eq!(tables::results(&comparison, part, 3).best, Some(1), "{part:?}");
    }
    let text = summary(&comparison);
    assert!(text.contains("Marked as the best (* or bold): y, by accuracy on the validation split.\n"), "{text}");
    assert!(text.contains("\n* y "), "{text}");

    runs[0].parts.remove(&Part::Val);
    let comparison = compare(&runs, &[]).unwrap();
    assert_eq!((&comparison.best, tables::results(&comparison, Part::Test, 3).best), (&None, None));
    let text = summary(&comparison);
    let expected = "No run is marked as the best, since runs are selected on validation clips and these have no predictions of them: x.\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(!text.contains("\n*") && text.matches("\n  y ").count() > 1, "all pairs are listed: {text}");
    assert_eq!(compare(&runs[1..2], &[]).unwrap().best, None, "nothing is selected from one run");
}

#[test]
fn late_fusion_notes_runs_without_probabilities() {
    let mut logits = compared("x", Part::Test, scored(&["1"], &[0], array![[3.0, -2.0]], &["a", "b"]));
    let probabilities = compared("y", Part::Test, scored(&["1"], &[0], array![[0.7, 0.3]], &["a", "b"]));
    let (fused, notes) = late_fusion::fuse(&[logits.clone(), probabilities.clone()]).unwrap();
    assert!(fused.is_empty() && notes[0].contains("x: not part of late fusion"), "{notes:?}");
    logits.identity.classifier = "constant".into();
    assert_eq!(late_fusion::fuse(&[logits, probabilities]).unwrap().1, Vec::<String>::new());
}

#[test]
fn repeated_names_are_made_unique() {
    let predictions = scored(&["1"], &[0], array![[1.0]], &["a"]);
    let mut runs = vec![compared("x", Part::All, predictions); 3];
    runs[1].directory = Some("runs/other".into());
    make_names_unique(&mut runs);
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["x", "x (other)", "x #2"]);
}

#[test]
fn different_labels_are_rejected_with_names_of_runs() {
    let first = compared("x", Part::Test, scored(&["1"], &[0], array![[1.0, 0.0]], &["a", "b"]));
    let second = compared("y", Part::Test, scored(&["1"], &[1], array![[1.0, 0.0]], &["a", "b"]));
    let error = compare(&[first, second], &[]).unwrap_err().to_string();
    assert!(error.contains("x and y, test: clip `1` has the label `a` in one run and `b` in another"), "{error}");
    assert!(compare(&[], &[]).is_err());
}

/// Writes a store of the clips of [`run`] and 100 training clips; `t003` is a copy of the training clip `x000`.
fn store(path: &Path) {
    let mut writer = StoreWriter::create(
        path,
        Payload::Features { dim: 8 },
        &Provenance { extract_seconds: 50.0, ..Default::default() },
    )
    .unwrap();
    let vector = |seed: u64| {
        let mut random = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(seed);
        Array2::from_shape_fn((1, 8), |_| random.gen_range(5.0..6.0f32))
    };
    let ids = [("x", 100), ("v", 60), ("t", 90), ("u", 5)];
    let mut seed = 0;
    for (prefix, n) in ids {
        for i in 0..n {
            seed += 1;
            let id = format!("{prefix}{i:03}");
            let values = if id == "t003" { vector(1) } else { vector(seed) };
            let row = crate::store::RowSource {
                start_frame: 0,
                start_seconds: 0.0,
                end_seconds: 1.0,
                padded: false,
                scale: 1.0,
            };
            writer
                .push(ClipRows {
                    id,
                    path: "p".into(),
                    start: None,
                    end: None,
                    frame_count: 10,
                    fps: 25.0,
                    duration_seconds: 2.0,
                    fully_decoded: false,
                    version: String::new(),
                    rows: vec![row],
                    values: Values::Features(values),
                })
                .unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
fn report_is_self_contained_and_complete() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = run(&["a<b>", "bird", "cat|dog", "x_y"]);
    first.inputs.features = directory.path().join("cnn3d.h5");
    store(&first.inputs.features);
    let mut second = first.clone();
    second.identity.method = "sift & co".into();
    second.identity.untrained = false;
    second.inputs.features = directory.path().join("missing.h5");
    for predictions in second.splits.values_mut() {
        let n = predictions.len();
        *predictions =
            Predictions { ids: predictions.ids.clone(), ..self::predictions("q", n, &predictions.classes, true) };
        predictions.scores.as_mut().unwrap().column_mut(0).fill(0.9);
        let scores = predictions.scores.clone().unwrap();
        predictions.predicted = vec![vec![0]; n];
        predictions.scores = Some(scores);
    }
    let directories = [directory.path().join("one"), directory.path().join("two")];
    write_run(&directories[0], &first).unwrap();
    complete(&directories[0]).unwrap();
    write_run(&directories[1], &second).unwrap();
    complete(&directories[1]).unwrap();
    let mut runs: Vec<ComparedRun> = directories.iter().map(|directory| load(directory).unwrap()).collect();
    assert_eq!(runs[0].parts[&Part::Test], first.splits[&Split::Test]);
    runs.extend(late_fusion::fuse(&runs).unwrap().0);
    let comparison = compare(&runs, &[]).unwrap();
    let out = directory.path().join("out");
    write(&out, &comparison, &runs, 3).unwrap();

    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    for external in ["href=", "src=", "<script", "a<b>", "@import", "url("] {
        assert!(!html.contains(external), "{external} in the page");
    }
    for part in
        ["class=\"alarm\"", "UNTRAINED", "sift &amp; co · mlp", "95 %", "a&lt;b&gt;", "late fusion: cnn3d", "<svg"]
    {
        assert!(html.contains(part), "no {part} in the page");
    }
    assert_eq!(comparison.rows.len(), 3);
    assert_eq!(comparison.pairs.len(), 6);
    assert_eq!(comparison.rows[0].extraction.unwrap().clips, Some(255));
    assert_eq!(comparison.duplicates.len(), 1);
    let pair = &comparison.duplicates[0].pairs[0];
    assert_eq!((pair.id.as_str(), pair.neighbor.as_str(), pair.neighbor_part), ("t003", "x000", Part::Train));
    let warnings = comparison.warnings.join("\n");
    assert!(warnings.contains("1 of 90 test clips") && warnings.contains("missing.h5"), "{warnings}");
    let text = summary(&comparison);
    assert!(text.contains("Test split") && text.contains("66.7 % ["), "{text}");
    // Two of three pairs include the best row; the results come last.
    assert!(text.contains("with the best run (all 3 are in the report)"), "{text}");
    assert!(text.find("Validation split") < text.find("Test split") && text.find("Pairwise") < text.find("Test split"));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("compare.json")).unwrap()).unwrap();
    assert!(json["pairs"][0]["p_holm"].is_number() && json["rows"][2]["kind"] == "late-fusion");
    let csv = std::fs::read_to_string(out.join("compare.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.records().map(Result::unwrap).count(), 6);
}

#[test]
fn directory_without_metrics_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let error = load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("contains no metrics.json"), "{error}");
    std::fs::write(directory.path().join("metrics.json"), "{\"format\": \"other\"}").unwrap();
    assert!(load(directory.path()).unwrap_err().to_string().contains("format is `other`"));
    std::fs::write(directory.path().join("metrics.json"), "{").unwrap();
    assert!(load(directory.path()).unwrap_err().to_string().contains("not the metrics of a run"));
}
