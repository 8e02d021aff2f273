//! Against PyTorch and scikit-learn, on the numbers of tests/goldens/{mlp,baselines}.py.

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::layers::{BatchNorm, Dropout, Linear};
use super::loss::Loss;
use super::mlp::network::Network;
use super::numeric::Real;
use super::optimiser::AdamW;
use super::schedule::CosineWarmRestarts;
use super::*;
use crate::recipe;

const MLP: &[u8] = include_bytes!("../../fixtures/mlp.safetensors");
const BASELINES: &[u8] = include_bytes!("../../fixtures/baselines.safetensors");

fn values(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the fixture has {name}"));
    let values = match view.dtype() {
        Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
        }
        Dtype::F64 => view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        other => panic!("{name} is {other:?}"),
    };
    (view.shape().to_vec(), values)
}

fn vector<T: Real>(file: &SafeTensors<'_>, name: &str) -> Array1<T> {
    values(file, name).1.into_iter().map(T::of).collect()
}

fn matrix<T: Real>(file: &SafeTensors<'_>, name: &str) -> Array2<T> {
    let (shape, values) = values(file, name);
    let columns = *shape.last().unwrap();
    let values: Vec<T> = values.into_iter().map(T::of).collect();
    Array2::from_shape_vec((values.len() / columns, columns), values).unwrap()
}

fn one_hot(classes: &[f64], count: usize) -> Array2<f32> {
    Array2::from_shape_fn((classes.len(), count), |(i, c)| f32::from(classes[i] as usize == c))
}

/// The largest difference to PyTorch's state after each of the nine steps, over all tensors but those of `except`.
fn distance_to_pytorch<T: Real>(precision: &str, except: &[&str]) -> f64 {
    let file = SafeTensors::deserialize(MLP).unwrap();
    let name = |key: &str| format!("{precision}.{key}");
    let mut norm = BatchNorm::new(16);
    norm.weight = vector(&file, &name("0.1.weight"));
    norm.bias = vector(&file, &name("0.1.bias"));
    let first = Linear::from_parameters(matrix(&file, &name("0.0.weight")), vector(&file, &name("0.0.bias")));
    let second = Linear::from_parameters(matrix(&file, &name("0.4.weight")), vector(&file, &name("0.4.bias")));
    let mut network = Network::<T>::from_layers(first, norm, second, 1);
    let features: Array2<T> = matrix(&file, &name("features"));
    let classes = values(&file, &name("classes")).1;
    let (losses, rates) = (values(&file, &name("losses")).1, values(&file, &name("rates")).1);

    let mut optimiser = AdamW::new(0.01);
    let schedule = CosineWarmRestarts { peak: 0.01, restart_every: 1, restart_factor: 2 };
    let mut dropout = Dropout::new(0.0, Xoshiro256PlusPlus::seed_from_u64(0));
    let mut rate = schedule.rate(0.0);
    let mut worst = 0f64;
    for step in 0..9 {
        let x = features.slice(s![10 * step..10 * (step + 1), ..]);
        let targets = one_hot(&classes[10 * step..10 * (step + 1)], 5);
        let (loss, _) = network.learn(x, targets.view(), Loss::CrossEntropy, &mut dropout);
        assert!((loss - losses[step]).abs() < 1e-5 && (rate - rates[step]).abs() < 1e-9, "step {step}");
        optimiser.step(&mut network.parameters(), rate, 1);
        rate = schedule.rate((step / 3) as f64 + (step % 3) as f64 / 3.0);
        let of = |v: &Array1<T>| v.iter().map(|v| v.double()).collect::<Vec<_>>();
        let of2 = |v: &Array2<T>| v.iter().map(|v| v.double()).collect::<Vec<_>>();
        for (key, ours) in [
            ("0.weight", of2(&network.first.weight)),
            ("0.bias", of(&network.first.bias)),
            ("1.weight", of(&network.norm.weight)),
            ("1.bias", of(&network.norm.bias)),
            ("1.running_mean", of(&network.norm.running_mean)),
            ("1.running_var", of(&network.norm.running_variance)),
            ("4.weight", of2(&network.second.weight)),
            ("4.bias", of(&network.second.bias)),
        ] {
            if except.contains(&key) {
                continue;
            }
            let theirs = values(&file, &name(&format!("{}.{key}", step + 1))).1;
            assert_eq!(ours.len(), theirs.len());
            let distance = ours.iter().zip(&theirs).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
            worst = worst.max(distance);
        }
    }
    if except.is_empty() {
        let mut probabilities = network.logits(features.slice(s![..10, ..]));
        Loss::CrossEntropy.scores(probabilities.view_mut());
        let theirs: Array2<T> = matrix(&file, &name("probabilities"));
        let distance = (&probabilities - &theirs).iter().fold(0f64, |most, d| most.max(d.double().abs()));
        worst = worst.max(distance);
    }
    worst
}

#[test]
fn nine_steps_agree_with_pytorch() {
    let exact = distance_to_pytorch::<f64>("f64", &[]);
    assert!(exact < 1e-9, "f64: {exact:e}");
    // The bias before a batch norm has gradient zero but for rounding, which Adam's normalisation blows up to the size of
    // the rate: in f32 it is noise on both sides (and only the running mean sees it).
    let single = distance_to_pytorch::<f32>("f32", &["0.bias", "1.running_mean"]);
    assert!(single < 1e-5, "f32: {single:e}");
    println!("largest distance to PyTorch over nine steps: f64 {exact:.1e}, f32 {single:.1e}");
}

pub(super) fn dataset(rows: ArrayView2<'_, f32>, targets: Array2<f32>) -> Dataset {
    Dataset {
        ids: (0..rows.nrows()).map(|i| format!("clip{i}")).collect(),
        groups: vec![None; rows.nrows()],
        offsets: (0..=rows.nrows()).collect(),
        rows: rows.to_owned(),
        classes: (0..targets.ncols()).map(|c| format!("class{c}")).collect(),
        targets,
    }
}

fn fit(kind: ClassifierKind, settings: &Classify, train: &Dataset, valid: &Dataset, threads: usize) -> Fitted {
    build(settings, kind).fit(train, valid, &mut Fitting { seed: 3, threads, progress: &mut |_| {} }).unwrap()
}

fn baselines() -> (SafeTensors<'static>, Dataset, Dataset) {
    let file = SafeTensors::deserialize(BASELINES).unwrap();
    let features: Array2<f32> = matrix(&file, "features");
    let targets = one_hot(&values(&file, "classes").1, 4);
    let part = |from, to| dataset(features.slice(s![from..to, ..]), targets.slice(s![from..to, ..]).to_owned());
    let (train, test) = (part(0, 60), part(60, 80));
    (file, train, test)
}

#[test]
fn baselines_agree_with_scikit_learn() {
    let (file, train, test) = baselines();
    let standardiser = Standardiser::fit(train.rows.view());
    for (ours, name) in [(&standardiser.mean, "mean"), (&standardiser.deviation, "deviation")] {
        let theirs = values(&file, name).1;
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-6 * b.abs().max(1.0)), "{name}");
    }
    for (kind, tolerance) in [
        (ClassifierKind::Logistic, 1e-4),
        (ClassifierKind::Bayes, 1e-5),
        (ClassifierKind::Knn, 1e-7),
        (ClassifierKind::Constant, 1e-7),
    ] {
        let fitted = fit(kind, &Classify::default(), &train, &test, 1);
        assert!(fitted.notes.is_empty(), "{:?}", fitted.notes);
        let scores = fitted.model.scores(&test).unwrap();
        let theirs: Array2<f64> = matrix(&file, &format!("{}.probabilities", name(kind)));
        let distance = (scores.mapv(f64::from) - &theirs).iter().fold(0f64, |most, d| most.max(d.abs()));
        assert!(distance < tolerance, "{}: {distance:e}", name(kind));
        println!("{}: within {distance:.1e} of scikit-learn", name(kind));
    }
}

#[test]
fn every_model_comes_back_from_its_file_bit_for_bit() {
    let (_, train, test) = baselines();
    let dir = tempfile::tempdir().unwrap();
    for standardise in [true, false] {
        for kind in [
            ClassifierKind::Mlp,
            ClassifierKind::Logistic,
            ClassifierKind::Bayes,
            ClassifierKind::Knn,
            ClassifierKind::Constant,
        ] {
            let mlp = recipe::Mlp { hidden: 9, batch: 8, epochs: 3, ..recipe::Mlp::default() };
            let settings = Classify { standardise, mlp, ..Classify::default() };
            let model = fit(kind, &settings, &train, &test, 1).model;
            let before = model.scores(&test).unwrap();
            for row in before.rows() {
                assert!((row.sum() - 1.0).abs() < 1e-5 && row.iter().all(|p| (0.0..=1.0).contains(p)));
            }
            let about = About {
                task: Default::default(),
                classifier: kind,
                classes: train.classes.clone(),
                dim: train.dim(),
                pooling: recipe::Pooling::Mean,
                method: "golden".into(),
                model_sha256: String::new(),
                untrained: false,
                seed: 3,
                tool_version: String::new(),
            };
            SavedModel { about: about.clone(), model }.save(dir.path()).unwrap();
            let loaded = SavedModel::load(dir.path()).unwrap();
            assert_eq!(loaded.about, about);
            assert_eq!(loaded.model.scores(&test).unwrap(), before, "{kind:?}");
            let fewer = dataset(test.rows.slice(s![.., ..5]), test.targets.clone());
            assert!(loaded.model.scores(&fewer).is_err() || kind == ClassifierKind::Constant && !standardise);
        }
    }
}

#[test]
fn a_seed_gives_the_same_network_whatever_the_threads() {
    let (_, train, test) = baselines();
    // Wide enough for the products and the optimiser to be shared out.
    let wide = |of: &Dataset| {
        let rows = Array2::from_shape_fn((of.len(), 600), |(i, d)| of.rows[(i, d % 5)] * ((d / 5) as f32 * 0.1).cos());
        of.with_rows(rows)
    };
    let (train, test) = (wide(&train), wide(&test));
    let mlp = recipe::Mlp { hidden: 300, batch: 32, epochs: 4, ..recipe::Mlp::default() };
    let settings = Classify { mlp, ..Classify::default() };
    let scores = |threads| fit(ClassifierKind::Mlp, &settings, &train, &test, threads).model.scores(&test).unwrap();
    let one = scores(1);
    for threads in [1, 2, 3] {
        assert_eq!(scores(threads), one, "{threads} threads");
    }
}

/// Every model's ONNX, run by ONNX Runtime, against its own scores.
#[cfg(feature = "onnx")]
#[test]
fn onnx_runtime_computes_the_same_scores() {
    use crate::models::runtime::{self, Device};
    let (_, train, test) = baselines();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    for standardise in [true, false] {
        for kind in [
            ClassifierKind::Mlp,
            ClassifierKind::Logistic,
            ClassifierKind::Bayes,
            ClassifierKind::Knn,
            ClassifierKind::Constant,
        ] {
            let mlp = recipe::Mlp { hidden: 9, batch: 8, epochs: 5, ..recipe::Mlp::default() };
            let settings = Classify { standardise, mlp, ..Classify::default() };
            let model = fit(kind, &settings, &train, &test, 1).model;
            std::fs::write(&path, Exporter::export(model.as_ref(), 6, 4)).unwrap();
            let item = runtime::Settings { item: vec![6], dim: 4, batch: test.len(), threads: 1, output: None };
            let mut network = runtime::Network::load(&path, Device::Cpu, item).unwrap();
            let theirs = network.run(test.rows.as_slice().unwrap()).unwrap();
            let ours = model.scores(&test).unwrap();
            let distance = (&ours - &theirs).iter().fold(0f32, |most, d| most.max(d.abs()));
            assert!(distance < 1e-5, "{kind:?}: {distance:e}");
            println!("{kind:?}, standardised {standardise}: ONNX Runtime within {distance:.1e}");
        }
    }
}
