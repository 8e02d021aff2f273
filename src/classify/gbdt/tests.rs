//! Boosted trees compared with scikit-learn and with the crate that fits them.

use std::path::Path;

use ndarray::{Array2, Axis, s};
use safetensors::SafeTensors;

use super::*;
use crate::classify::tests::{dataset, matrix, noise, one_hot, values};
use crate::classify::{Classifier, Tensor};

const GBDT: &[u8] = include_bytes!("../../../fixtures/gbdt.safetensors");

fn fit(
    settings: &GbdtSettings,
    task: Task,
    train: &Dataset,
    valid: &Dataset,
    threads: usize,
) -> (GbdtModel, FitOutput) {
    let mut ignore = |_: &_| {};
    let mut context = FitContext::new(5, task, threads, &mut ignore);
    let fitted = GradientBoosting(settings.clone()).fit(train, valid, &mut context).unwrap();
    (restored(&fitted.model.tensors(), task).unwrap(), fitted)
}

fn restored(tensors: &[Tensor], task: Task) -> Result<GbdtModel> {
    GbdtModel::restore(&Tensors::new(Path::new("model.safetensors"), tensors.iter().cloned()), task)
}

/// Clips of four classes, of scikit-learn's `make_classification`: for training and for the test.
fn clips() -> (Dataset, Dataset) {
    let file = SafeTensors::deserialize(GBDT).unwrap();
    let (features, targets): (Array2<f32>, _) = (matrix(&file, "features"), one_hot(&values(&file, "classes").1, 4));
    let part = |from, to| dataset(features.slice(s![from..to, ..]), targets.slice(s![from..to, ..]).to_owned());
    (part(0, 400), part(400, 1000))
}

fn accuracy(model: &GbdtModel, data: &Dataset) -> f64 {
    let scores = model.scores(data).unwrap();
    let correct = scores.rows().into_iter().zip(data.targets.rows()).filter(|(scores, targets)| {
        let top = scores.iter().copied().fold(f32::MIN, f32::max);
        scores.iter().zip(targets.iter()).any(|(&score, &target)| score == top && target > 0.0)
    });
    correct.count() as f64 / data.len() as f64
}

#[test]
fn accuracy_is_that_of_scikit_learn() {
    let file = SafeTensors::deserialize(GBDT).unwrap();
    let (train, test) = clips();
    let (model, _) = fit(&GbdtSettings::default(), Task::SingleLabel, &train, &test.select(&[]), 1);
    assert!(model.trees.iter().all(|trees| trees.len() == 100));
    assert!(model.trees.iter().flatten().all(|tree| tree.0.iter().filter(|node| node.is_leaf()).count() <= 31));
    let ours = accuracy(&model, &test);
    // Both classifiers label 600 clips: the standard error of the difference of independent accuracies is 0.02.
    for theirs in values(&file, "accuracy").1 {
        println!("accuracy {ours:.3}, scikit-learn {theirs:.3}");
        assert!((ours - theirs).abs() < 0.03, "{ours} {theirs}");
    }
}

#[test]
fn scores_are_those_of_the_crate_that_fits_the_trees() {
    let (train, test) = clips();
    let targets: Vec<f64> = train.targets.column(1).iter().map(|&target| f64::from(target)).collect();
    let mut booster = GradientBooster::default()
        .set_iterations(30)
        .set_learning_rate(0.1)
        .set_max_depth(usize::MAX)
        .set_max_leaves(31)
        .set_parallel(false);
    booster.grow_policy = GrowPolicy::LossGuide;
    let (train_columns, test_columns) = (columns(&train).unwrap(), columns(&test).unwrap());
    booster.fit_unweighted(&Matrix::new(&train_columns, train.len(), train.dim()), &targets, None).unwrap();
    let theirs = booster.predict(&Matrix::new(&test_columns, test.len(), test.dim()), false);
    let settings = GbdtSettings { trees: 30, ..GbdtSettings::default() };
    let (model, _) = fit(&settings, Task::MultiLabel, &train, &test.select(&[]), 1);
    for (score, logit) in model.scores(&test).unwrap().column(1).iter().zip(theirs) {
        let expected = 1.0 / (1.0 + (-logit).exp());
        assert!((f64::from(*score) - expected).abs() < 1e-6, "{score} {expected}");
    }
}

#[test]
fn thresholds_separate_the_same_values_as_in_double_precision() {
    for threshold in [0.1f64, -0.1, 1.0, 1e-50, -1e-50, 0.3f32.into(), 0.0] {
        let nearest = threshold as f32;
        for value in [nearest.next_down(), nearest, nearest.next_up(), 0.0, -0.0] {
            assert_eq!(value < model::ceil(threshold), f64::from(value) < threshold, "{value} {threshold}");
        }
    }
}

#[test]
fn models_do_not_depend_on_the_number_of_threads() {
    let mut noise = noise(4);
    let rows = Array2::from_shape_fn((6000, 40), |_| noise());
    let targets = Array2::from_shape_fn((6000, 2), |(i, c)| f32::from(rows[(i, c)] * rows[(i, c + 1)] > 0.1));
    let data = dataset(rows.view(), targets);
    let (train, valid) = (data.select(&(0..5000).collect::<Vec<_>>()), data.select(&(5000..6000).collect::<Vec<_>>()));
    let settings = GbdtSettings { trees: 8, feature_fraction: 0.5, ..GbdtSettings::default() };
    let fit = |threads| fit(&settings, Task::MultiLabel, &train, &valid, threads).0;
    let one = fit(1);
    assert!([2, 3].into_iter().all(|threads| fit(threads) == one));
}

#[test]
fn validation_clips_stop_the_growth() {
    let (train, test) = clips();
    let settings = GbdtSettings { shrinkage: 0.5, ..GbdtSettings::default() };
    let (stopped, output) = fit(&settings, Task::MultiLabel, &train, &test, 1);
    let (all, _) = fit(&settings, Task::MultiLabel, &train, &test.select(&[]), 1);
    let counts: Vec<usize> = stopped.trees.iter().map(Vec::len).collect();
    assert!(counts.iter().all(|count| (2..90).contains(count)), "{counts:?}");
    assert_eq!(output.kept_epoch, counts.iter().max().copied());
    let loss = |count: usize| {
        let model = GbdtModel { trees: vec![all.trees[0][..count].to_vec(); 4], ..all.clone() };
        let scores = model.scores(&test).unwrap().mapv(f64::from);
        let of = |(score, target): (&f64, &f32)| -if *target > 0.0 { *score } else { 1.0 - score }.ln();
        scores.column(0).iter().zip(test.targets.column(0)).map(of).sum::<f64>()
    };
    assert_eq!(stopped.trees[0], all.trees[0][..counts[0]]);
    let best = (1..=counts[0] + settings.early_stopping).map(loss).fold(f64::INFINITY, f64::min);
    assert!((loss(counts[0]) - best).abs() < 1e-6 * best);
}

#[test]
fn labels_of_all_or_no_clips_have_constant_scores() {
    let (train, test) = clips();
    let mut targets = train.targets.clone();
    targets.column_mut(0).fill(0.0);
    targets.column_mut(1).fill(1.0);
    for class_weight in [ClassWeights::None, ClassWeights::Balanced] {
        let settings = GbdtSettings { class_weight, trees: 3, ..GbdtSettings::default() };
        let (model, _) =
            fit(&settings, Task::MultiLabel, &Dataset { targets: targets.clone(), ..train.clone() }, &test, 1);
        let scores = model.scores(&test).unwrap();
        assert!(scores.column(0).iter().all(|score| (score - 0.5 / 401.0).abs() < 1e-6));
        assert!(scores.column(1).iter().all(|score| (score - 400.5 / 401.0).abs() < 1e-6));
        assert!(scores.axis_iter(Axis(1)).skip(2).all(|column| column.iter().any(|score| *score != column[0])));
    }
}

#[test]
fn balanced_weights_are_those_of_repeated_clips() {
    let (train, test) = clips();
    // 60 clips with label 0 and 180 without it: balanced weights of 2 and 2/3.
    let positive: Vec<usize> = (0..400).filter(|&i| train.targets[(i, 0)] > 0.0).take(60).collect();
    let negative: Vec<usize> = (0..400).filter(|&i| train.targets[(i, 0)] == 0.0).take(180).collect();
    let plain = train.select(&[positive.clone(), negative.clone()].concat());
    let repeated = train.select(&[positive.clone(), positive.clone(), positive, negative].concat());
    // Without a penalty, the scale of the weights does not matter, and fewer than 256 values are not binned.
    let settings = GbdtSettings { trees: 4, leaves: 4, l2: 0.0, min_leaf_weight: 1e-3, ..GbdtSettings::default() };
    let balanced = GbdtSettings { class_weight: ClassWeights::Balanced, ..settings.clone() };
    let none = test.select(&[]);
    let ours = fit(&balanced, Task::MultiLabel, &plain, &none, 1).0.scores(&test).unwrap();
    let expected = fit(&settings, Task::MultiLabel, &repeated, &none, 1).0.scores(&test).unwrap();
    for (ours, expected) in ours.column(0).iter().zip(expected.column(0)) {
        assert!((ours - expected).abs() < 1e-4, "{ours} {expected}");
    }
}

#[test]
fn a_refit_grows_the_number_of_trees_that_was_kept() {
    let (train, test) = clips();
    let mut ignore = |_: &_| {};
    let mut context = FitContext::new(0, Task::SingleLabel, 1, &mut ignore);
    context.last_epoch = Some(7);
    let fitted = GradientBoosting(GbdtSettings::default()).fit(&train, &test.select(&[]), &mut context).unwrap();
    let model = restored(&fitted.model.tensors(), Task::SingleLabel).unwrap();
    assert!(model.trees.iter().all(|trees| trees.len() == 7) && fitted.kept_epoch.is_none());
}

#[test]
fn malformed_trees_are_errors() {
    let inner = Node { feature: 1, threshold: 0.5, left: 1, right: 2, value: 0.0 };
    let tree = Tree([vec![inner], Tree::leaf(1.0).0, Tree::leaf(2.0).0].concat());
    let model = GbdtModel { base: vec![0.0], trees: vec![vec![tree]], dim: 2, task: Task::MultiLabel };
    assert_eq!(restored(&model.tensors(), Task::MultiLabel).unwrap(), model);
    // (tensor, index, value): a feature that does not exist, children that precede their parent, do not exist or are no integers,
    // a leaf with one child, and wrong numbers of trees, nodes and features.
    for (name, index, value) in [
        ("gbdt.nodes", 0, 2.0),
        ("gbdt.nodes", 0, -1.0),
        ("gbdt.nodes", 2, 3.0),
        ("gbdt.nodes", 3, 0.0),
        ("gbdt.nodes", 2, 1.5),
        ("gbdt.nodes", 2, f32::NAN),
        ("gbdt.nodes", 8, 2.0),
        ("gbdt.trees", 0, 0.0),
        ("gbdt.trees", 0, 2.0),
        ("gbdt.sizes", 0, 2.0),
        ("gbdt.sizes", 0, 4.0),
        ("gbdt.features", 0, 1.0),
    ] {
        let mut tensors = model.tensors();
        tensors.iter_mut().find(|tensor| tensor.name == name).unwrap().values[index] = value;
        let error = restored(&tensors, Task::MultiLabel).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains("gbdt.nodes"), "{name} {index} {value}: {error}");
    }
}

#[test]
fn settings_out_of_range_are_errors() {
    let default = GbdtSettings::default;
    assert_eq!(default().validate(), Ok(()));
    for (settings, key) in [
        (GbdtSettings { trees: 0, ..default() }, "trees"),
        (GbdtSettings { shrinkage: 0.0, ..default() }, "shrinkage"),
        (GbdtSettings { leaves: 1, ..default() }, "leaves"),
        (GbdtSettings { min_leaf_weight: -1.0, ..default() }, "min_leaf_weight"),
        (GbdtSettings { l2: f64::NAN, ..default() }, "l2"),
        (GbdtSettings { feature_fraction: 0.0, ..default() }, "feature_fraction"),
        (GbdtSettings { early_stopping: 0, ..default() }, "early_stopping"),
    ] {
        assert!(settings.validate().unwrap_err().contains(&format!("classify.gbdt.{key}")), "{key}");
    }
}
