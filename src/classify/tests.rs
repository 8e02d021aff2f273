//! Classifiers compared with PyTorch and scikit-learn, on the values of tests/goldens/{mlp,baselines}.py.

mod attention;
mod log_scores;
mod stored;
mod training;

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::layers::{BatchNorm, Dropout, Linear, Parameter};
use super::loss::{self, Loss};
use super::mlp::network::{HiddenLayer, MlpNetwork};
use super::numeric::Real;
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use super::*;
use crate::store::Pooling;

const MLP: &[u8] = include_bytes!("../../fixtures/mlp.safetensors");
const MLP_LAYERS: &[u8] = include_bytes!("../../fixtures/mlp_layers.safetensors");
const BASELINES: &[u8] = include_bytes!("../../fixtures/baselines.safetensors");

pub(super) fn values(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
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

pub(super) fn matrix<T: Real>(file: &SafeTensors<'_>, name: &str) -> Array2<T> {
    let (shape, values) = values(file, name);
    let columns = *shape.last().unwrap();
    let values: Vec<T> = values.into_iter().map(T::of).collect();
    Array2::from_shape_vec((values.len() / columns, columns), values).unwrap()
}

pub(super) fn one_hot(classes: &[f64], count: usize) -> Array2<f32> {
    Array2::from_shape_fn((classes.len(), count), |(i, c)| f32::from(classes[i] as usize == c))
}

/// Computes the largest difference from PyTorch's state after each of nine steps of a network with `layers` hidden layers, over all
/// tensors except `excluded`.
fn mlp_distance_to_pytorch<T: Real>(file: &[u8], layers: usize, precision: &str, excluded: &[&str]) -> f64 {
    let file = SafeTensors::deserialize(file).unwrap();
    let name = |key: &str| format!("{precision}.{key}");
    let initial = |key: &str| name(&format!("0.{key}"));
    let linear = |i: usize| {
        let [weight, bias] = ["weight", "bias"].map(|key| initial(&format!("{}.{key}", 4 * i)));
        Linear::from_parameters(matrix(&file, &weight), vector(&file, &bias))
    };
    let hidden = (0..layers).map(|i| {
        let linear = linear(i);
        let mut norm = BatchNorm::new(linear.bias.len());
        norm.weight = vector(&file, &initial(&format!("{}.weight", 4 * i + 1)));
        norm.bias = vector(&file, &initial(&format!("{}.bias", 4 * i + 1)));
        HiddenLayer::new(linear, norm)
    });
    let mut network = MlpNetwork::<T>::from_layers(hidden.collect(), linear(layers), 1);
    let features: Array2<T> = matrix(&file, &name("features"));
    let classes = values(&file, &name("classes")).1;
    let (losses, rates) = (values(&file, &name("losses")).1, values(&file, &name("rates")).1);
    // The names of `MlpNetwork::state`.
    let mut keys = Vec::new();
    for i in 0..layers {
        keys.extend(["weight", "bias"].map(|key| format!("{}.{key}", 4 * i)));
        keys.extend(["weight", "bias", "running_mean", "running_var"].map(|key| format!("{}.{key}", 4 * i + 1)));
    }
    keys.extend(["weight", "bias"].map(|key| format!("{}.{key}", 4 * layers)));

    let mut optimizer = Optimizer::new(&OptimizerSettings::default());
    let restarts = ScheduleSettings { restart_every: 1, restart_factor: 2, ..ScheduleSettings::default() };
    let schedule = Schedule::new(&restarts, 0.01, 3);
    let loss = Loss::CrossEntropy { weights: None };
    let mut logits = Array2::zeros((10, 5));
    let mut dropout = Dropout::new(0.0, Xoshiro256PlusPlus::seed_from_u64(0));
    let mut worst = 0f64;
    for step in 0..9 {
        let x = features.slice(s![10 * step..10 * (step + 1), ..]);
        let targets = one_hot(&classes[10 * step..10 * (step + 1)], 5);
        let value = network.train_step(x, targets.view(), &loss, &mut dropout, logits.view_mut());
        let rate = schedule.rate(step / 3, step % 3, 3);
        assert!((value - losses[step]).abs() < 1e-5 && (rate - rates[step]).abs() < 1e-9, "step {step}");
        optimizer.step(&mut network.parameters(), rate, 1);
        let state = network.state();
        assert_eq!(state.len(), keys.len());
        for (ours, key) in state.into_iter().zip(&keys).filter(|(_, key)| !excluded.contains(&key.as_str())) {
            let theirs = values(&file, &name(&format!("{}.{key}", step + 1))).1;
            assert_eq!(ours.len(), theirs.len());
            let distance = ours.iter().zip(&theirs).fold(0f64, |max, (a, b)| max.max((a.double() - b).abs()));
            worst = worst.max(distance);
        }
    }
    if excluded.is_empty() {
        let mut probabilities = network.logits(features.slice(s![..10, ..]));
        loss::scores(Task::SingleLabel, probabilities.view_mut());
        let theirs: Array2<T> = matrix(&file, &name("probabilities"));
        let distance = (&probabilities - &theirs).iter().fold(0f64, |max, d| max.max(d.double().abs()));
        worst = worst.max(distance);
    }
    worst
}

#[test]
fn nine_training_steps_match_pytorch() {
    for (file, layers) in [(MLP, 1), (MLP_LAYERS, 2)] {
        let exact = mlp_distance_to_pytorch::<f64>(file, layers, "f64", &[]);
        assert!(exact < 1e-9, "{layers} layers, f64: {exact:e}");
        // The exact gradient of a bias before batch normalization is zero. Adam normalizes the rounding errors to the size of the
        // learning rate, so in f32 this bias (and the running mean, which includes it) is noise in both implementations.
        let excluded = ["0.bias", "1.running_mean", "4.bias", "5.running_mean"];
        let single = mlp_distance_to_pytorch::<f32>(file, layers, "f32", &excluded[..2 * layers]);
        assert!(single < 1e-5, "{layers} layers, f32: {single:e}");
        println!("{layers} layers: largest difference from PyTorch over nine steps: f64 {exact:.1e}, f32 {single:.1e}");
    }
}

pub(super) fn dataset(rows: ArrayView2<'_, f32>, targets: Array2<f32>) -> Dataset {
    Dataset {
        ids: (0..rows.nrows()).map(|i| format!("clip{i}")).collect(),
        groups: vec![None; rows.nrows()],
        offsets: (0..=rows.nrows()).collect(),
        rows: rows.to_owned().into(),
        classes: (0..targets.ncols()).map(|c| format!("class{c}")).collect(),
        targets,
    }
}

fn fit(settings: &FitSettings, task: Task, train: &Dataset, valid: &Dataset, threads: usize) -> FitOutput {
    build(settings).fit(train, valid, &mut FitContext::new(3, task, threads, &mut |_| {})).unwrap()
}

/// Returns a generator of pseudo-random numbers, uniform in [-1, 1).
pub(super) fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    }
}

/// Compares the gradient of each parameter after `train_step` with central differences of the loss that it returns.
pub(super) fn check_gradients<N: Clone>(
    network: &N,
    parameters: fn(&mut N) -> Vec<Parameter<'_, f64>>,
    train_step: impl Fn(&mut N) -> f64,
    step: f64,
    tolerance: f64,
) {
    let mut network = network.clone();
    train_step(&mut network);
    for which in 0..parameters(&mut network).len() {
        for i in 0..parameters(&mut network)[which].values.len() {
            let shifted = |by: f64| {
                let mut other = network.clone();
                parameters(&mut other)[which].values[i] += by;
                train_step(&mut other)
            };
            let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
            let exact = parameters(&mut network)[which].gradient[i];
            assert!((numeric - exact).abs() < tolerance, "parameter {which}, element {i}: {exact} vs. {numeric}");
        }
    }
}

/// The default settings of a classifier.
fn defaults(kind: ClassifierKind) -> FitSettings {
    FitSettings::new(kind.default_settings())
}

/// Groups the rows of a data set into sequences of one to four rows.
fn sequences(data: &Dataset) -> Dataset {
    let mut offsets = vec![0];
    while offsets[offsets.len() - 1] < data.len() {
        offsets.push((offsets[offsets.len() - 1] + 1 + offsets.len() % 4).min(data.len()));
    }
    let clips: Vec<usize> = offsets[..offsets.len() - 1].to_vec();
    Dataset {
        ids: clips.iter().map(|clip| format!("clip{clip}")).collect(),
        groups: vec![None; clips.len()],
        rows: data.rows.clone(),
        targets: data.targets.select(ndarray::Axis(0), &clips),
        classes: data.classes.clone(),
        offsets,
    }
}

/// Returns the features of all clips, (R, D).
fn all_rows(data: &Dataset) -> Array2<f32> {
    let clips: Vec<_> = (0..data.len()).map(|i| data.clip(i).unwrap()).collect();
    ndarray::concatenate(ndarray::Axis(0), &clips.iter().map(|clip| clip.view()).collect::<Vec<_>>()).unwrap()
}

/// Adds the next class to every clip.
fn several_labels(data: &Dataset) -> Dataset {
    let classes = data.classes.len();
    let targets = Array2::from_shape_fn(data.targets.dim(), |(i, c)| {
        data.targets[(i, c)].max(data.targets[(i, (c + classes - 1) % classes)])
    });
    Dataset { targets, ..data.clone() }
}

/// Settings for small networks and short training.
fn quick(kind: ClassifierKind, standardize: bool) -> FitSettings {
    let classifier = match kind.default_settings() {
        ClassifierSettings::Mlp(settings) => ClassifierSettings::Mlp(MlpSettings { hidden: vec![9, 7], ..settings }),
        ClassifierSettings::Bilstm(settings) => {
            ClassifierSettings::Bilstm(BilstmSettings { hidden: 6, length: 3, ..settings })
        }
        ClassifierSettings::Attentive(_) => {
            ClassifierSettings::Attentive(AttentiveSettings { heads: 3, dim: Some(9), dropout: 0.2 })
        }
        ClassifierSettings::Transformer(settings) => ClassifierSettings::Transformer(TransformerSettings {
            heads: 2,
            hidden: 7,
            length: 3,
            dropout: 0.2,
            ..settings
        }),
        settings => settings,
    };
    let training = TrainingSettings { batch: 8, epochs: 4, ..TrainingSettings::default() };
    FitSettings { classifier, standardize, trainer: Trainer { training, ..Trainer::default() }, ..defaults(kind) }
}

/// Every registered classifier with every task.
fn all() -> Vec<(ClassifierKind, Task)> {
    let tasks = |&kind| [(kind, Task::SingleLabel), (kind, Task::MultiLabel)];
    ClassifierKind::ALL.iter().flat_map(tasks).collect()
}

/// Training and test clips in the form that the classifier reads.
fn parts(kind: ClassifierKind, task: Task) -> (Dataset, Dataset) {
    let (_, train, test) = baselines();
    let convert = |part: &Dataset| {
        let part = if kind.capabilities().sequences { sequences(part) } else { part.clone() };
        if task == Task::MultiLabel { several_labels(&part) } else { part }
    };
    (convert(&train), convert(&test))
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
fn baselines_match_scikit_learn() {
    let (file, train, test) = baselines();
    let standardizer = Standardizer::fit(&train).unwrap();
    for (ours, name) in [(&standardizer.mean, "mean"), (&standardizer.deviation, "deviation")] {
        let theirs = values(&file, name).1;
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-6 * b.abs().max(1.0)), "{name}");
    }
    for (name, settings, tolerance) in baseline_settings() {
        let fitted = fit(&settings, Task::SingleLabel, &train, &test, 1);
        assert!(fitted.notes.is_empty(), "{name}: {:?}", fitted.notes);
        let scores = fitted.model.scores(&test).unwrap();
        let theirs: Array2<f64> = matrix(&file, &format!("{name}.probabilities"));
        let distance = (scores.mapv(f64::from) - &theirs).iter().fold(0f64, |max, d| max.max(d.abs()));
        assert!(distance < tolerance, "{name}: {distance:e}");
        println!("{name}: within {distance:.1e} of scikit-learn");
    }
}

/// Returns the names in the fixture, the settings, and the tolerance of the scores.
fn baseline_settings() -> Vec<(&'static str, FitSettings, f64)> {
    let with = |classifier: ClassifierSettings| FitSettings { classifier, ..defaults(ClassifierKind::Bayes) };
    let class_weight = ClassWeights::Balanced;
    vec![
        ("logistic", defaults(ClassifierKind::Logistic), 1e-5),
        (
            "logistic.balanced",
            with(ClassifierSettings::Logistic(LogisticSettings { class_weight, ..Default::default() })),
            1e-5,
        ),
        ("svm", defaults(ClassifierKind::Svm), 1e-5),
        ("svm.balanced", with(ClassifierSettings::Svm(SvmSettings { class_weight, ..Default::default() })), 1e-5),
        ("bayes", defaults(ClassifierKind::Bayes), 1e-5),
        ("bayes.balanced", with(ClassifierSettings::Bayes(BayesSettings { class_weight, ..Default::default() })), 1e-5),
        ("knn", defaults(ClassifierKind::Knn), 1e-7),
        (
            "knn.cosine",
            with(ClassifierSettings::Knn(KnnSettings { metric: Metric::Cosine, ..Default::default() })),
            1e-7,
        ),
        ("constant", defaults(ClassifierKind::Constant), 1e-7),
    ]
}

#[test]
fn multi_label_baselines_match_scikit_learn() {
    let (file, train, test) = baselines();
    for (name, settings, tolerance) in baseline_settings() {
        if ["knn.cosine", "constant"].contains(&name) {
            continue; // the same as for one label per clip
        }
        let fitted = fit(&settings, Task::MultiLabel, &several_labels(&train), &several_labels(&test), 1);
        assert!(fitted.notes.is_empty(), "{name}: {:?}", fitted.notes);
        let scores = fitted.model.scores(&test).unwrap();
        let theirs: Array2<f64> = matrix(&file, &format!("several.{name}.probabilities"));
        let distance = (scores.mapv(f64::from) - &theirs).iter().fold(0f64, |max, d| max.max(d.abs()));
        assert!(distance < tolerance, "{name}: {distance:e}");
    }
}

/// Class weights of the losses compared with `compute_class_weight("balanced")`.
#[test]
fn balanced_losses_have_the_class_weights_of_scikit_learn() {
    let (file, train, _) = baselines();
    let settings = LossSettings { weights: ClassWeights::Balanced, ..LossSettings::default() };
    let close =
        |ours: &[f64], theirs: &[f64]| ours.len() == 4 && ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-12);
    let Ok(Loss::CrossEntropy { weights: Some(weights) }) =
        Loss::new(&settings, Task::SingleLabel, train.targets.view())
    else {
        panic!("cross-entropy with weights")
    };
    assert!(close(&weights, &values(&file, "class_weight").1), "{weights:?}");
    let targets = several_labels(&train).targets;
    let Ok(Loss::BinaryCrossEntropy { positive: Some(positive) }) =
        Loss::new(&settings, Task::MultiLabel, targets.view())
    else {
        panic!("binary cross-entropy with weights")
    };
    // PyTorch's `pos_weight` is relative to negatives of weight 1: the same ratio of positives and negatives, on another scale.
    let theirs: Array2<f64> = matrix(&file, "several.class_weight");
    let ratio: Vec<f64> = theirs.rows().into_iter().map(|weights| weights[1] / weights[0]).collect();
    assert!(close(&positive, &ratio), "{positive:?}");
}

#[test]
fn saved_models_are_restored_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    for standardize in [true, false] {
        for (kind, task) in all() {
            let (train, test) = parts(kind, task);
            let model = fit(&quick(kind, standardize), task, &train, &test, 1).model;
            let before = model.scores(&test).unwrap();
            for row in before.rows() {
                assert!((row.sum() - 1.0).abs() < 1e-5 || task == Task::MultiLabel);
                assert!(row.iter().all(|p| (0.0..=1.0).contains(p)));
            }
            let metadata = ModelMetadata {
                identity: RunIdentity {
                    task,
                    classifier: kind.name().into(),
                    method: "golden".into(),
                    ..Default::default()
                },
                precision: "f32".into(),
                extraction: "{}".into(),
                classes: train.classes.clone(),
                dim: train.dim(),
                pooling: kind.pooling(Pooling::Mean),
                seed: 3,
                tool_version: String::new(),
                thresholds: (task == Task::MultiLabel).then(|| vec![0.1, 0.5, 0.25, 0.75]),
                members: Vec::new(),
                runs: Vec::new(),
            };
            SavedModel { metadata: metadata.clone(), model }.save(dir.path()).unwrap();
            let loaded = SavedModel::load(dir.path()).unwrap();
            assert_eq!(loaded.metadata, metadata);
            assert_eq!(ModelMetadata::read_onnx(&dir.path().join("model.onnx")).unwrap(), metadata);
            assert_eq!(loaded.model.scores(&test).unwrap(), before, "{kind:?}");
            let fewer = test.with_rows(all_rows(&test).slice(s![.., ..5]).to_owned());
            assert!(loaded.model.scores(&fewer).is_err() || kind == ClassifierKind::Constant && !standardize);
        }
    }
}

/// Returns the data with 600 features.
fn widen(data: &Dataset) -> Dataset {
    let rows = all_rows(data);
    let value = |(i, d): (usize, usize)| rows[(i, d % 5)] * ((d / 5) as f32 * 0.1).cos();
    data.with_rows(Array2::from_shape_fn((rows.nrows(), 600), value))
}

#[test]
fn trained_networks_do_not_depend_on_the_number_of_threads() {
    for &kind in ClassifierKind::ALL.iter().filter(|kind| kind.capabilities().trained) {
        let (train, test) = parts(kind, Task::MultiLabel);
        // Large enough for products and optimizer steps to run on several threads.
        let (train, test) = (widen(&train), widen(&test));
        let mut settings = quick(kind, true);
        settings.trainer.training.batch = 16;
        match &mut settings.classifier {
            ClassifierSettings::Mlp(mlp) => mlp.hidden = vec![300],
            ClassifierSettings::Bilstm(bilstm) => {
                (bilstm.hidden, bilstm.length, bilstm.sample) = (60, 2, SequenceSample::RandomWindow);
            }
            ClassifierSettings::Attentive(attentive) => (attentive.heads, attentive.dim) = (6, None),
            ClassifierSettings::Transformer(transformer) => {
                (transformer.dim, transformer.hidden, transformer.length) = (Some(60), 100, 2);
            }
            _ => {}
        }
        let scores = |threads| fit(&settings, Task::MultiLabel, &train, &test, threads).model.scores(&test).unwrap();
        let one = scores(1);
        for threads in [1, 2, 3] {
            assert_eq!(scores(threads), one, "{kind:?}, {threads} threads");
        }
    }
}

#[test]
fn predictions_do_not_depend_on_the_other_clips() {
    for (kind, task) in all() {
        let (train, _) = parts(kind, task);
        // Products with few and with many features sum in different orders.
        for train in [widen(&train), train] {
            let model = fit(&quick(kind, true), task, &train, &train, 1).model;
            let scores = |data: &Dataset| predict(task, model.as_ref(), &train.classes, data).unwrap().scores.unwrap();
            let many: Vec<usize> = (0..600).map(|i| i % train.len()).collect();
            let expected = scores(&train.select(&many));
            for count in [1, 2, 5, 70, 257] {
                let few = scores(&train.select(&many[..count]));
                assert_eq!(few, expected.slice(s![..count, ..]), "{kind:?}, {count} clips of {} features", train.dim());
            }
        }
    }
}

/// Compares every exported model, run by ONNX Runtime, with the scores of the model itself.
#[cfg(feature = "onnx")]
#[test]
fn exported_models_match_in_onnx_runtime() {
    use crate::models::runtime::{self, Device};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let mut kinds: Vec<_> = all().into_iter().map(|(kind, task)| (kind, task, false)).collect();
    // Other architectures of the same classifier.
    kinds.extend([ClassifierKind::Bilstm, ClassifierKind::Transformer].map(|kind| (kind, Task::MultiLabel, true)));
    for standardize in [true, false] {
        for &(kind, task, other) in &kinds {
            let (train, test) = parts(kind, task);
            let mut settings = quick(kind, standardize);
            settings.trainer.training.epochs = 2;
            match &mut settings.classifier {
                ClassifierSettings::Bilstm(bilstm) if other => bilstm.compat = Some(Compat::MovienetPrediction),
                ClassifierSettings::Transformer(transformer) if other => {
                    (transformer.dim, transformer.readout) = (Some(4), Readout::Cls);
                }
                _ => {}
            }
            let model = fit(&settings, task, &train, &test, 1).model;
            Exporter::export(model.as_ref(), 6, 4, &mut std::fs::File::create(&path).unwrap()).unwrap();
            // ONNX Runtime reads sequences of equal length: the clips with two rows.
            let chosen: Vec<usize> = (0..test.len())
                .filter(|&i| !kind.capabilities().sequences || test.offsets[i + 1] - test.offsets[i] == 2)
                .collect();
            let rows: Vec<f32> =
                chosen.iter().flat_map(|&i| test.clip(i).unwrap().iter().copied().collect::<Vec<_>>()).collect();
            let item = if kind.capabilities().sequences { vec![2, 6] } else { vec![6] };
            let options = runtime::SessionOptions::for_floats(item, 4, chosen.len());
            let mut network = runtime::Session::load(&path, Device::Cpu, options).unwrap();
            let theirs = network.run(&rows).unwrap();
            let ours = model.scores(&test).unwrap().select(ndarray::Axis(0), &chosen);
            let distance = (&ours - &theirs).iter().fold(0f32, |max, d| max.max(d.abs()));
            assert!(distance < 1e-5 && !chosen.is_empty(), "{kind:?}: {distance:e}");
            println!("{kind:?}, {task:?}, standardized {standardize}: ONNX Runtime within {distance:.1e}");
        }
    }
}
