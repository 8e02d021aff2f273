//! Against PyTorch and scikit-learn, on the numbers of tests/goldens/{mlp,baselines}.py.

mod training;

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::layers::{BatchNorm, Dropout, Linear};
use super::loss::{self, Loss};
use super::mlp::network::Network;
use super::numeric::Real;
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use super::*;
use crate::recipe;
use crate::store::Pooling;

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

    let mut optimizer = Optimizer::new(&recipe::Optimizer::default());
    let restarts = recipe::Schedule { restart_every: 1, restart_factor: 2, ..recipe::Schedule::default() };
    let schedule = Schedule::new(&restarts, 0.01, 3);
    let loss = Loss::CrossEntropy { weights: None };
    let mut logits = Array2::zeros((10, 5));
    let mut dropout = Dropout::new(0.0, Xoshiro256PlusPlus::seed_from_u64(0));
    let mut worst = 0f64;
    for step in 0..9 {
        let x = features.slice(s![10 * step..10 * (step + 1), ..]);
        let targets = one_hot(&classes[10 * step..10 * (step + 1)], 5);
        let value = network.learn(x, targets.view(), &loss, &mut dropout, logits.view_mut());
        let rate = schedule.rate(step / 3, step % 3, 3);
        assert!((value - losses[step]).abs() < 1e-5 && (rate - rates[step]).abs() < 1e-9, "step {step}");
        optimizer.step(&mut network.parameters(), rate, 1);
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
        loss::scores(Task::SingleLabel, probabilities.view_mut());
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
    // The bias before a batch norm has gradient zero but for rounding, which Adam's normalization blows up to the size of
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
    let task = settings.task.unwrap_or_default();
    build(settings, kind).fit(train, valid, &mut Fitting { seed: 3, task, threads, progress: &mut |_| {} }).unwrap()
}

/// The same rows as sequences of one to four rows, and targets of any number of labels.
fn sequences(of: &Dataset) -> Dataset {
    let mut offsets = vec![0];
    while offsets[offsets.len() - 1] < of.len() {
        offsets.push((offsets[offsets.len() - 1] + 1 + offsets.len() % 4).min(of.len()));
    }
    let clips: Vec<usize> = offsets[..offsets.len() - 1].to_vec();
    Dataset {
        ids: clips.iter().map(|clip| format!("clip{clip}")).collect(),
        groups: vec![None; clips.len()],
        rows: of.rows.clone(),
        targets: of.targets.select(ndarray::Axis(0), &clips),
        classes: of.classes.clone(),
        offsets,
    }
}

/// Every clip has the next class too.
fn several_labels(of: &Dataset) -> Dataset {
    let classes = of.classes.len();
    let targets = Array2::from_shape_fn(of.targets.dim(), |(i, c)| {
        of.targets[(i, c)].max(of.targets[(i, (c + classes - 1) % classes)])
    });
    Dataset { targets, ..of.clone() }
}

/// Small networks, quickly trained.
fn quick(task: Task, standardize: bool) -> Classify {
    Classify {
        task: Some(task),
        standardize,
        mlp: recipe::Mlp { hidden: 9, ..recipe::Mlp::default() },
        bilstm: recipe::Bilstm { hidden: 6, length: 3, ..recipe::Bilstm::default() },
        training: recipe::Training { batch: 8, epochs: 4, ..recipe::Training::default() },
        ..Classify::default()
    }
}

/// Every classifier with every task that it takes.
fn all() -> Vec<(ClassifierKind, Task)> {
    use ClassifierKind::*;
    let kinds = [Mlp, Bilstm, Logistic, Bayes, Knn, Constant];
    let tasks = |kind| [(kind, Task::SingleLabel), (kind, Task::MultiLabel)];
    kinds.into_iter().flat_map(tasks).collect()
}

/// Train and test parts as the classifier takes them.
fn parts(kind: ClassifierKind, task: Task) -> (Dataset, Dataset) {
    let (_, train, test) = baselines();
    let of = |part: &Dataset| {
        let part = if kind == ClassifierKind::Bilstm { sequences(part) } else { part.clone() };
        if task == Task::MultiLabel { several_labels(&part) } else { part }
    };
    (of(&train), of(&test))
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
    let standardizer = Standardizer::fit(train.rows.view());
    for (ours, name) in [(&standardizer.mean, "mean"), (&standardizer.deviation, "deviation")] {
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
fn baselines_of_several_labels_agree_with_scikit_learn() {
    let (file, train, test) = baselines();
    for (kind, tolerance) in
        [(ClassifierKind::Logistic, 1e-4), (ClassifierKind::Bayes, 1e-5), (ClassifierKind::Knn, 1e-7)]
    {
        let settings = Classify { task: Some(Task::MultiLabel), ..Classify::default() };
        let fitted = fit(kind, &settings, &several_labels(&train), &several_labels(&test), 1);
        assert!(fitted.notes.is_empty(), "{:?}", fitted.notes);
        let scores = fitted.model.scores(&test).unwrap();
        let theirs: Array2<f64> = matrix(&file, &format!("several.{}.probabilities", name(kind)));
        let distance = (scores.mapv(f64::from) - &theirs).iter().fold(0f64, |most, d| most.max(d.abs()));
        assert!(distance < tolerance, "{}: {distance:e}", name(kind));
    }
}

#[test]
fn every_model_comes_back_from_its_file_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    for standardize in [true, false] {
        for (kind, task) in all() {
            let (train, test) = parts(kind, task);
            let model = fit(kind, &quick(task, standardize), &train, &test, 1).model;
            let before = model.scores(&test).unwrap();
            for row in before.rows() {
                assert!((row.sum() - 1.0).abs() < 1e-5 || task == Task::MultiLabel);
                assert!(row.iter().all(|p| (0.0..=1.0).contains(p)));
            }
            let about = About {
                classifier: kind,
                task,
                classes: train.classes.clone(),
                dim: train.dim(),
                pooling: kind.pooling(Pooling::Mean),
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
            let fewer = Dataset { rows: test.rows.slice(s![.., ..5]).to_owned(), ..test.clone() };
            assert!(loaded.model.scores(&fewer).is_err() || kind == ClassifierKind::Constant && !standardize);
        }
    }
}

#[test]
fn a_seed_gives_the_same_network_whatever_the_threads() {
    for kind in [ClassifierKind::Mlp, ClassifierKind::Bilstm] {
        let (train, test) = parts(kind, Task::MultiLabel);
        // Wide enough for the products and the optimizer to be shared out.
        let wide = |of: &Dataset| {
            let of_row = |(i, d): (usize, usize)| of.rows[(i, d % 5)] * ((d / 5) as f32 * 0.1).cos();
            of.with_rows(Array2::from_shape_fn((of.rows.nrows(), 600), of_row))
        };
        let (train, test) = (wide(&train), wide(&test));
        let settings = Classify {
            mlp: recipe::Mlp { hidden: 300, ..recipe::Mlp::default() },
            bilstm: recipe::Bilstm {
                hidden: 60,
                sample: recipe::SequenceSample::RandomWindow,
                length: 2,
                ..recipe::Bilstm::default()
            },
            training: recipe::Training { batch: 16, epochs: 4, ..recipe::Training::default() },
            ..quick(Task::MultiLabel, true)
        };
        let scores = |threads| fit(kind, &settings, &train, &test, threads).model.scores(&test).unwrap();
        let one = scores(1);
        for threads in [1, 2, 3] {
            assert_eq!(scores(threads), one, "{kind:?}, {threads} threads");
        }
    }
}

/// Every model's ONNX, run by ONNX Runtime, against its own scores.
#[cfg(feature = "onnx")]
#[test]
fn onnx_runtime_computes_the_same_scores() {
    use crate::models::runtime::{self, Device};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let mut kinds: Vec<_> = all().into_iter().map(|(kind, task)| (kind, task, None)).collect();
    kinds.push((ClassifierKind::Bilstm, Task::MultiLabel, Some(recipe::Compat::MovienetPrediction)));
    for standardize in [true, false] {
        for &(kind, task, compat) in &kinds {
            let (train, test) = parts(kind, task);
            let mut settings = quick(task, standardize);
            settings.bilstm.compat = compat;
            settings.training.epochs = 2;
            let model = fit(kind, &settings, &train, &test, 1).model;
            std::fs::write(&path, Exporter::export(model.as_ref(), 6, 4)).unwrap();
            // The clips of two rows, or all.
            let chosen: Vec<usize> = (0..test.len())
                .filter(|&i| kind != ClassifierKind::Bilstm || test.offsets[i + 1] - test.offsets[i] == 2)
                .collect();
            let rows: Vec<f32> =
                chosen.iter().flat_map(|&i| test.clip(i).iter().copied().collect::<Vec<_>>()).collect();
            let item = if kind == ClassifierKind::Bilstm { vec![2, 6] } else { vec![6] };
            let item = runtime::Settings { item, dim: 4, batch: chosen.len(), threads: 1, output: None };
            let mut network = runtime::Network::load(&path, Device::Cpu, item).unwrap();
            let theirs = network.run(&rows).unwrap();
            let ours = model.scores(&test).unwrap().select(ndarray::Axis(0), &chosen);
            let distance = (&ours - &theirs).iter().fold(0f32, |most, d| most.max(d.abs()));
            assert!(distance < 1e-5 && !chosen.is_empty(), "{kind:?}: {distance:e}");
            println!("{kind:?}, {task:?}, standardized {standardize}: ONNX Runtime within {distance:.1e}");
        }
    }
}
