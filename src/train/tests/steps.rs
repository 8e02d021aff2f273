//! Steps of training of whole networks, compared with PyTorch (tests/goldens/training_steps.py).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kinoprobe::cancel::CancellationToken;
use kinoprobe::classify::loss::Loss;
use kinoprobe::models::graph::{Mode, Parameter, Role};
use kinoprobe::models::seeded::{SeededParameters, integers};
use kinoprobe::progress::NoProgress;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::train::learner::Learner;
use crate::train::losses;
use crate::train::network::TrainNetwork;
use crate::train::torch::{SEEDING, values_of};
use crate::train::{Batch, TrainRecipe};

const CLASSES: usize = 5;
const STEPS: usize = 10;

/// Results of a mode; see the script.
#[derive(Deserialize)]
struct Golden {
    rate: f64,
    losses: Vec<f64>,
    gradients: BTreeMap<String, [f64; 3]>,
    statistics: BTreeMap<String, [f64; 3]>,
    logits: Vec<Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TrainingMode {
    /// Batch statistics; all parameters are trained.
    Train,
    /// Running statistics; all parameters but those of batch norms are trained.
    Eval,
    /// Some layers are frozen.
    Frozen,
}

/// A network, its recipe, which has the frozen layers of the mode `frozen`, and its batch.
struct Case {
    recipe: &'static str,
    /// Shape of a window.
    shape: &'static [usize],
    /// Number of windows of each clip.
    windows: &'static [usize],
    /// End of the names of the scales at the end of residual branches, which are reduced.
    end_of_block: &'static str,
}

const R2PLUS1D: Case = Case {
    recipe: r#"
        method = "r2plus1d"
        sampling = { kind = "spread", length = 4 }
        input = { size = [32, 32], resize = { size = [32, 32] } }
        network = { card = "r2plus1d_18", weights = "none", frozen = ["stem", "layer1", "layer2.0"] }
        optimizer = { kind = "sgd", momentum = 0.8, weight_decay = 0.005 }
        schedule = { kind = "constant" }
    "#,
    shape: &[3, 4, 32, 32],
    windows: &[1, 1, 1],
    end_of_block: "conv2.1.weight",
};

const RESNET50: Case = Case {
    recipe: r#"
        method = "resnet50"
        sampling = { kind = "even", frames = 3 }
        input = { size = [48, 48], resize = { size = [48, 48] } }
        network = { card = "resnet50", weights = "none", trainable = ["layer4.2"], head = { hidden = 32 } }
        optimizer = { kind = "adam", weight_decay = 0.0 }
        schedule = { kind = "constant" }
    "#,
    shape: &[3, 48, 48],
    windows: &[2, 1, 1, 2],
    end_of_block: "bn3.weight",
};

#[test]
fn steps_of_r2plus1d_match_pytorch() {
    let loss = |_| Loss::BinaryCrossEntropy { positive: None };
    compare("r2plus1d_18", &R2PLUS1D, &loss);
}

#[test]
fn steps_of_resnet50_match_pytorch() {
    let loss = |mode| match mode {
        TrainingMode::Frozen => Loss::Asymmetric { gamma_positive: 0.0, gamma_negative: 4.0, margin: 0.05 },
        _ => Loss::CrossEntropy { weights: None },
    };
    compare("resnet50", &RESNET50, &loss);
}

fn compare(name: &str, case: &Case, loss: &dyn Fn(TrainingMode) -> Loss) {
    let _seeding = SEEDING.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/train/steps.json");
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for mode in [TrainingMode::Train, TrainingMode::Eval, TrainingMode::Frozen] {
        let golden = &document[name][format!("{mode:?}").to_lowercase()];
        let golden = Golden::deserialize(golden).unwrap();
        compare_mode(&format!("{name}, {mode:?}"), case, mode, &loss(mode), &golden);
    }
}

fn compare_mode(name: &str, case: &Case, mode: TrainingMode, loss: &Loss, golden: &Golden) {
    let mut recipe: TrainRecipe = toml::from_str(case.recipe).unwrap();
    if mode != TrainingMode::Frozen {
        recipe.network.trainable.clear();
        recipe.network.frozen.clear();
    }
    recipe.optimizer.learning_rate = golden.rate;
    let batch = batch(case, loss);
    compare_gradients(name, &recipe, case, mode, (loss, &batch), golden);

    let mut network = network(&recipe, case);
    if mode == TrainingMode::Eval {
        freeze_norms(&mut network);
    }
    let initial: BTreeMap<String, Vec<f32>> =
        network.parameters.iter().map(|e| (e.parameter.name.clone(), values_of(&e.tensor).unwrap())).collect();
    let mut learner = Learner::new(&recipe, network, Some(loss.clone())).unwrap();
    assert_eq!(golden.losses.len(), STEPS);
    for (step, expected) in golden.losses.iter().enumerate() {
        let found = learner.step(&Batch { step, ..batch.clone() }, 0, STEPS).unwrap().loss;
        assert!((found / expected - 1.0).abs() < 1e-4, "{name}: loss {found} in step {step}, expected {expected}");
    }
    let parameters = &learner.network.parameters;
    for (statistic, expected) in &golden.statistics {
        let difference = difference(parameters.get(statistic).unwrap(), expected);
        assert!(difference < 1e-3, "{name}: {statistic} differs by {difference}");
    }
    // Frozen parameters, and the statistics of frozen norms, are those of before; everything else has changed.
    for entry in parameters.iter() {
        let Parameter { name: parameter, role, .. } = &entry.parameter;
        let is_statistic = matches!(role, Role::RunningMean | Role::RunningVariance);
        let trained = if is_statistic {
            let (norm, _) = parameter.rsplit_once('.').unwrap();
            parameters.is_trainable(&format!("{norm}.weight")).unwrap()
        } else {
            entry.trainable
        };
        let changed = values_of(&entry.tensor).unwrap() != initial[parameter];
        assert_eq!(changed, trained, "{name}: {parameter} has changed: {changed}");
    }
    let logits = learner.logits(&batch).unwrap();
    let expected = golden.logits.concat();
    assert_eq!(logits.len(), expected.len());
    let rms = (expected.iter().map(|logit| logit * logit).sum::<f64>() / expected.len() as f64).sqrt();
    for (found, expected) in logits.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-3 * rms, "{name}: logit {found}, expected {expected}");
    }
}

/// Compares the gradients of the first step, in f64: in f32, rounding decides whether some of the millions of ReLUs are active, and one
/// of the last layers changes gradients by up to a percent.
fn compare_gradients(
    name: &str,
    recipe: &TrainRecipe,
    case: &Case,
    mode: TrainingMode,
    (loss, batch): (&Loss, &Batch),
    golden: &Golden,
) {
    let compare = |network: &TrainNetwork| {
        for entry in network.parameters.trainable() {
            let parameter = &entry.parameter.name;
            assert_eq!(entry.tensor.grad().kind(), Kind::Double);
            let difference = difference(&entry.tensor.grad(), &golden.gradients[parameter]);
            assert!(difference < 1e-3, "{name}: the gradient of {parameter} differs by {difference}");
        }
    };
    let mut network = network(recipe, case);
    for entry in network.parameters.iter() {
        entry.tensor.shallow_clone().set_data(&entry.tensor.to_kind(Kind::Double));
    }
    let trained: BTreeSet<&String> = network.parameters.trainable().map(|entry| &entry.parameter.name).collect();
    assert!(trained.into_iter().eq(golden.gradients.keys()), "{name}: other parameters are trained than in PyTorch");
    if mode == TrainingMode::Eval {
        eval_loss(&network, batch, loss).backward();
        compare(&network);
        freeze_norms(&mut network);
    }
    let mut learner = Learner::new(recipe, network, Some(loss.clone())).unwrap();
    let (found, expected) = (learner.step(batch, 0, STEPS).unwrap().loss, golden.losses[0]);
    assert!((found / expected - 1.0).abs() < 1e-6, "{name}: loss {found}, expected {expected}");
    compare(&learner.network);
}

/// Freezes the batch norms, so that they use their running statistics.
fn freeze_norms(network: &mut TrainNetwork) {
    let norms = network.parameters.iter().filter(|entry| entry.parameter.role == Role::NormScale);
    let norms: Vec<String> = norms.map(|entry| entry.parameter.name.strip_suffix(".weight").unwrap().into()).collect();
    network.parameters.freeze(&norms).unwrap();
}

/// The network with the values of the script.
fn network(recipe: &TrainRecipe, case: &Case) -> TrainNetwork {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let cancel = CancellationToken::default();
    let mut network = TrainNetwork::new(recipe, &models, CLASSES, Device::Cpu, &NoProgress, &cancel).unwrap();
    let seeded = SeededParameters { architecture: network.architecture, seed: 0 };
    let values = |parameter: &Parameter| -> Vec<f32> {
        let Parameter { name, shape, role } = parameter;
        if *role == Role::Weight {
            let bound = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            let values = integers(name, 0, shape.iter().product()).into_iter();
            return values.map(|u| (f64::from(u) / 32768.0 * bound) as f32).collect();
        }
        let mut values = seeded.values(parameter);
        if name.ends_with(case.end_of_block) {
            values.iter_mut().for_each(|scale| *scale *= 0.2);
        }
        values
    };
    let tensors = network.parameters.iter().map(|entry| {
        let values = Tensor::from_slice(&values(&entry.parameter)).reshape(entry.tensor.size());
        (entry.parameter.name.clone(), values)
    });
    network.parameters.restore(tensors.collect()).unwrap();
    network
}

fn batch(case: &Case, loss: &Loss) -> Batch {
    let shape = [&[case.windows.iter().sum()], case.shape].concat();
    let inputs = integers("input", 0, shape.iter().product()).into_iter().map(|u| u as f32 / 16384.0);
    let clips = case.windows.len();
    let mut targets = vec![0.0; clips * CLASSES];
    for clip in 0..clips {
        targets[clip * CLASSES + clip % CLASSES] = 1.0;
        if !matches!(loss, Loss::CrossEntropy { .. }) {
            targets[clip * CLASSES + (2 * clip + 2) % CLASSES] = 1.0;
        }
    }
    Batch {
        inputs: inputs.collect(),
        shape,
        targets,
        clips: (0..clips).collect(),
        windows: case.windows.to_vec(),
        ..Batch::default()
    }
}

/// The loss in evaluation mode, with gradients.
fn eval_loss(network: &TrainNetwork, batch: &Batch, loss: &Loss) -> Tensor {
    let shape: Vec<i64> = batch.shape.iter().map(|&length| length as i64).collect();
    let embedding = network.embedding(&Tensor::from_slice(&batch.inputs).reshape(shape), Mode::Eval).unwrap();
    let logits = network.apply(network.classifier.as_ref().unwrap(), embedding, Mode::Eval).unwrap();
    let windows: Vec<i64> = batch.windows.iter().map(|&count| count as i64).collect();
    let clips: Vec<Tensor> =
        logits.split_with_sizes(windows, 0).iter().map(|clip| clip.mean_dim(0, false, Kind::Float)).collect();
    let targets = Tensor::from_slice(&batch.targets).reshape([-1, CLASSES as i64]);
    losses::loss(loss, &Tensor::stack(&clips, 0), &targets, 0.0).unwrap()
}

/// The largest difference of a tensor from its norm and two products with signs, relative to the norm; see `digest` in the script.
/// The expected square of the difference of a product is that of the tensors' distance.
fn difference(tensor: &Tensor, expected: &[f64; 3]) -> f64 {
    let flat = tensor.detach().to_kind(Kind::Double).reshape([-1]);
    let squares = Tensor::arange_start(1, flat.size()[0] + 1, (Kind::Int64, Device::Cpu)).square();
    let product = |factor: i64| {
        let signs = (&squares * factor).remainder(65537).lt(32768).to_kind(Kind::Double) * 2.0 - 1.0;
        f64::try_from((&flat * signs).sum(Kind::Double)).unwrap()
    };
    let found = [f64::try_from(flat.norm()).unwrap(), product(12345), product(54321)];
    let norm = expected[0];
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs() / norm).fold(0.0, f64::max)
}
