use ndarray::array;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Golden {
    name: String,
    method: CalibrationMethod,
    scores: Vec<Vec<f32>>,
    truth: Vec<Vec<usize>>,
    other: Vec<Vec<f32>>,
    calibrated: Vec<Vec<f64>>,
    temperature: Option<f64>,
    slope: Option<Vec<f64>>,
    intercept: Option<Vec<f64>>,
}

fn matrix<T: Copy>(rows: &[Vec<T>]) -> Array2<T> {
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, c)| rows[i][c])
}

fn predictions(task: Task, truth: &[Vec<usize>], scores: Array2<f32>) -> Predictions {
    let ids = (0..truth.len()).map(|i| format!("clip{i}")).collect();
    let classes = (0..scores.ncols()).map(|class| format!("class{class}")).collect();
    Predictions::from_scores(task, ids, vec![None; truth.len()], truth.to_vec(), scores, classes)
}

fn task(method: CalibrationMethod) -> Task {
    if method == CalibrationMethod::Temperature { Task::SingleLabel } else { Task::MultiLabel }
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("../../../fixtures/calibration.json")).unwrap()
}

fn fit(golden: &Golden) -> Calibration {
    let val = predictions(task(golden.method), &golden.truth, matrix(&golden.scores));
    let (calibration, notes) = Calibration::fit(golden.method, &val).unwrap();
    assert_eq!(notes, [""; 0], "{}", golden.name);
    calibration
}

#[test]
fn calibration_equals_scikit_learn() {
    let close = |a: f32, b: f64, tolerance: f64| (f64::from(a) - b).abs() <= tolerance * b.abs().max(1.0);
    let goldens = goldens();
    assert!(goldens.len() >= 10);
    for golden in goldens {
        let calibration = fit(&golden);
        match &calibration {
            Calibration::Temperature(temperature) => assert!(close(*temperature, golden.temperature.unwrap(), 1e-6)),
            Calibration::Platt { slope, intercept } => {
                let pairs = slope.iter().chain(intercept);
                let expected = golden.slope.unwrap().into_iter().chain(golden.intercept.unwrap());
                assert!(pairs.zip(expected).all(|(ours, theirs)| close(*ours, theirs, 1e-6)), "{calibration:?}");
            }
            Calibration::Isotonic(_) => {}
        }
        let calibrated = calibration.apply(matrix(&golden.other).view());
        for (ours, theirs) in calibrated.iter().zip(&matrix(&golden.calibrated)) {
            assert!(close(*ours, *theirs, 1e-6), "{}: {ours} instead of {theirs}", golden.name);
        }
    }
}

#[test]
fn calibration_is_restored_from_its_tensors() {
    for golden in goldens() {
        let calibration = fit(&golden);
        let tensors = Tensors::new(std::path::Path::new("model.safetensors"), calibration.tensors());
        assert_eq!(Calibration::restore(&tensors).unwrap(), Some(calibration));
    }
    let none = Tensors::new(std::path::Path::new("model.safetensors"), []);
    assert_eq!(Calibration::restore(&none).unwrap(), None);
}

#[test]
fn methods_belong_to_tasks() {
    use CalibrationMethod::{Isotonic, None, Platt, Temperature};
    for (method, task, expected) in [
        (Temperature, Task::MultiLabel, "choose platt or isotonic"),
        (Platt, Task::SingleLabel, "choose temperature"),
        (Isotonic, Task::SingleLabel, "choose temperature"),
    ] {
        assert!(method.check(task).unwrap_err().to_string().contains(expected));
    }
    for (method, task) in [(None, Task::MultiLabel), (Temperature, Task::SingleLabel), (Isotonic, Task::MultiLabel)] {
        method.check(task).unwrap();
    }
}

#[test]
fn labels_of_few_clips_keep_their_scores() {
    // Label 0: 4 of 10 clips, label 1: 5 of 10, label 2: 6 of 10.
    let truth: Vec<Vec<usize>> = (0..10)
        .map(|i| [i < 4, i < 5, i < 6].iter().zip(0..).filter(|(has, _)| **has).map(|(_, c)| c).collect())
        .collect();
    let truth: Vec<Vec<usize>> =
        truth.into_iter().map(|set: Vec<usize>| if set.is_empty() { vec![3] } else { set }).collect();
    let scores = Array2::from_shape_fn((10, 4), |(i, _)| (10 - i) as f32 / 11.0);
    let val = predictions(Task::MultiLabel, &truth, scores.clone());
    for method in [CalibrationMethod::Platt, CalibrationMethod::Isotonic] {
        let (calibration, notes) = Calibration::fit(method, &val).unwrap();
        let expected =
            "not calibrated, fewer than 5 validation clips with or without the label: class0, class2, class3";
        assert_eq!(notes, [expected]);
        let calibrated = calibration.apply(scores.view());
        for class in [0, 2, 3] {
            let difference = (&calibrated.column(class) - &scores.column(class)).fold(0f32, |max, d| max.max(d.abs()));
            assert!(difference < 1e-6, "{method:?}: {difference}");
        }
        assert!((calibrated[(0, 1)] - scores[(0, 1)]).abs() > 0.01);
    }
}

#[test]
fn separable_or_useless_scores_determine_no_temperature() {
    let truth: Vec<Vec<usize>> = (0..6).map(|i| vec![i % 2]).collect();
    let correct = Array2::from_shape_fn((6, 2), |(i, class)| if i % 2 == class { 0.75 } else { 0.25 });
    let wrong = correct.mapv(|score| 1.0 - score);
    for scores in [correct, wrong] {
        let val = predictions(Task::SingleLabel, &truth, scores.clone());
        let (calibration, notes) = Calibration::fit(CalibrationMethod::Temperature, &val).unwrap();
        assert_eq!(calibration, Calibration::Temperature(1.0));
        assert!(notes[0].contains("determine no temperature"), "{notes:?}");
        assert_eq!(calibration.apply(scores.view()), scores);
    }
}

#[test]
fn reversed_rankings_are_noted() {
    let truth: Vec<Vec<usize>> = (0..20).map(|i| vec![usize::from(i % 5 < 2)]).collect();
    let scores =
        Array2::from_shape_fn((20, 2), |(i, class)| if (truth[i][0] == class) == (i % 3 > 0) { 0.3 } else { 0.7 });
    let val = predictions(Task::MultiLabel, &truth, scores);
    let (_, notes) = Calibration::fit(CalibrationMethod::Platt, &val).unwrap();
    assert!(
        notes.len() == 1 && notes[0].contains("reverses the ranking") && notes[0].ends_with("class0, class1"),
        "{notes:?}"
    );
}

#[test]
fn missing_scores_are_errors_and_stay_missing() {
    let truth = [vec![0], vec![1], vec![]];
    let mut scores = array![[0.5, 0.5], [0.25, 0.75], [f32::NAN, 0.0]];
    let with_unlabeled = predictions(Task::SingleLabel, &truth, scores.clone());
    Calibration::fit(CalibrationMethod::Temperature, &with_unlabeled).unwrap();
    scores[(1, 0)] = f32::NAN;
    let val = predictions(Task::SingleLabel, &truth, scores.clone());
    let error = Calibration::fit(CalibrationMethod::Temperature, &val).unwrap_err().to_string();
    assert!(error.contains("clip clip1 has the score NaN"), "{error}");
    let unlabeled = predictions(Task::SingleLabel, &[vec![], vec![], vec![]], scores.clone());
    let error = Calibration::fit(CalibrationMethod::Temperature, &unlabeled).unwrap_err().to_string();
    assert!(error.contains("no labeled validation clip"), "{error}");
    let platt = Calibration::Platt { slope: vec![2.0, 1.0], intercept: vec![0.5, 0.0] };
    let isotonic = Calibration::Isotonic(IsotonicCurves::new(&[None, Some(vec![(0.0, 0.25), (0.5, 0.75)])]));
    for calibration in [platt, isotonic, Calibration::Temperature(2.0)] {
        let calibrated = calibration.apply(scores.view());
        assert!(calibrated[(1, 0)].is_nan() && calibrated[(2, 0)].is_nan() && !calibrated[(0, 0)].is_nan());
        // Softmax normalizes over the classes, so that no score of the clip is known.
        assert_eq!(calibrated[(1, 1)].is_nan(), matches!(calibration, Calibration::Temperature(_)));
    }
}

#[test]
fn without_a_validation_split_there_is_no_calibration() {
    let test = predictions(Task::SingleLabel, &[vec![0], vec![1]], array![[0.5, 0.5], [0.25, 0.75]]);
    let mut splits = BTreeMap::from([(Split::Test, test)]);
    assert!(RunCalibration::fit(CalibrationMethod::None, &mut splits).unwrap().is_none());
    let error = RunCalibration::fit(CalibrationMethod::Temperature, &mut splits).err().unwrap().to_string();
    assert!(error.contains("no labeled validation clip"), "{error}");
}

/// A model whose features are its scores.
#[cfg(feature = "onnx")]
struct Identity;

#[cfg(feature = "onnx")]
impl Model for Identity {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        Ok(data.vectors()?.to_owned())
    }

    fn tensors(&self) -> Vec<Tensor> {
        vec![]
    }

    fn export(&self, _: &mut Exporter, features: &str) -> String {
        features.into()
    }
}

#[cfg(feature = "onnx")]
#[test]
fn exported_calibrations_match_in_onnx_runtime() {
    use crate::classify::tests::dataset;
    use crate::models::runtime::{Device, Session, SessionOptions};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    for golden in goldens() {
        let scores = matrix(&golden.other);
        let (count, classes) = scores.dim();
        let model = Calibrated { calibration: fit(&golden), model: Box::new(Identity) };
        Exporter::export(&model, classes, classes, &mut std::fs::File::create(&path).unwrap()).unwrap();
        let options = SessionOptions::for_floats(vec![classes], classes, count);
        let theirs = Session::load(&path, Device::Cpu, options).unwrap().run(scores.as_slice().unwrap()).unwrap();
        let ours = model.scores(&dataset(scores.view(), Array2::zeros((count, classes)))).unwrap();
        let distance = (&ours - &theirs).iter().fold(0f32, |max, d| max.max(d.abs()));
        assert!(distance < 1e-6, "{}: {distance:e}", golden.name);
    }
}

proptest! {
    /// Calibration maps scores to scores, preserves the order of the classes (temperature) and never decreases (isotonic).
    #[test]
    fn calibrated_scores_are_scores(
        clips in prop::collection::vec((0usize..3, prop::array::uniform3(0u16..1000)), 12..60),
    ) {
        let scores = Array2::from_shape_fn((clips.len(), 3), |(i, class)| f32::from(clips[i].1[class]) / 999.0);
        let truth: Vec<Vec<usize>> = clips.iter().map(|(class, _)| vec![*class]).collect();
        for method in [CalibrationMethod::Temperature, CalibrationMethod::Platt, CalibrationMethod::Isotonic] {
            let mut scores = scores.clone();
            if method == CalibrationMethod::Temperature {
                for mut row in scores.rows_mut() {
                    let sum = row.sum().max(1e-3);
                    row /= sum;
                }
            }
            let val = predictions(task(method), &truth, scores.clone());
            let (calibration, _) = Calibration::fit(method, &val).unwrap();
            let calibrated = calibration.calibrate(&val).scores.unwrap();
            prop_assert!(calibrated.iter().all(|score| (0.0..=1.0).contains(score)), "{calibration:?}");
            for (i, class, other) in (0..clips.len()).flat_map(|i| [(i, 0, 1), (i, 1, 2)]) {
                if method == CalibrationMethod::Temperature && scores[(i, class)] < scores[(i, other)] {
                    prop_assert!(calibrated[(i, class)] <= calibrated[(i, other)]);
                }
            }
            for i in 1..clips.len() {
                if method == CalibrationMethod::Isotonic && scores[(i - 1, 0)] < scores[(i, 0)] {
                    prop_assert!(calibrated[(i - 1, 0)] <= calibrated[(i, 0)] + 1e-6);
                }
            }
        }
    }
}
