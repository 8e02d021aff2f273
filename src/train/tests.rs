//! Losses and optimizers, compared with the f64 ones of `classify`.

mod steps;

use kinoprobe::classify::layers::Parameter as Layer;
use kinoprobe::classify::loss::Loss;
use kinoprobe::classify::{OptimizerKind, OptimizerSettings};
use kinoprobe::models::graph::{Parameter, Role};
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::parameters::MemoryTensors;
use kinoprobe::models::seeded::integers;
use ndarray::Array2;
use tch::{Device, Kind, Tensor};

use super::losses::{loss, nt_xent};
use super::optimizer::Optimizer;
use super::torch::{TorchParameters, load, save, values_of};

/// Reproducible values in [−1, 1).
fn numbers(name: &str, count: usize) -> Vec<f64> {
    integers(name, 0, count).into_iter().map(|u| f64::from(u) / 32768.0).collect()
}

fn matrix(values: &[f64], columns: usize) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float).reshape([-1, columns as i64])
}

/// Checks a value and its gradient with respect to `x` against a function of f64, whose derivative is computed by central
/// differences.
#[track_caller]
fn assert_matches(
    name: &str,
    x: &[f64],
    columns: usize,
    ours: &dyn Fn(&Tensor) -> Tensor,
    reference: &dyn Fn(&[f64]) -> f64,
) {
    let input = matrix(x, columns).set_requires_grad(true);
    let value = ours(&input);
    value.backward();
    let (value, expected) = (f64::try_from(value).unwrap(), reference(x));
    assert!((value - expected).abs() < 2e-6 * expected.abs().max(0.1), "{name}: {value}, expected {expected}");
    for (index, slope) in values_of(&input.grad()).unwrap().into_iter().enumerate() {
        let at = |delta: f64| {
            let mut x = x.to_vec();
            x[index] += delta;
            reference(&x)
        };
        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((f64::from(slope) - expected).abs() < 2e-6, "{name}: gradient {index} {slope}, expected {expected}");
    }
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let sum: f64 = z.iter().map(|z| z.exp()).sum();
    z.iter().map(|z| z.exp() / sum).collect()
}

const CLASSES: usize = 4;
const ROWS: usize = 6;
const WEIGHTS: [f64; CLASSES] = [0.5, 1.0, 3.0, 1.5];

#[test]
fn cross_entropy_matches_the_formula_with_weights_smoothing_and_mixed_targets() {
    let logits: Vec<f64> = numbers("logits", ROWS * CLASSES).iter().map(|z| 5.0 * z).collect();
    let hard: Vec<f64> =
        (0..ROWS * CLASSES).map(|i| f64::from(u8::from(i % CLASSES == (i / CLASSES * 3) % CLASSES))).collect();
    let mixed: Vec<f64> = hard.iter().zip(hard.iter().cycle().skip(CLASSES)).map(|(a, b)| 0.7 * a + 0.3 * b).collect();
    for (targets, kind) in [(&hard, "hard"), (&mixed, "mixed")] {
        for weights in [None, Some(WEIGHTS.to_vec())] {
            for smoothing in [0.0, 0.1] {
                let name = format!("{kind} {weights:?} {smoothing}");
                let w = weights.clone().unwrap_or(vec![1.0; CLASSES]);
                let reference = |z: &[f64]| {
                    let (mut sum, mut total) = (0.0, 0.0);
                    for (z, t) in z.chunks(CLASSES).zip(targets.chunks(CLASSES)) {
                        for (class, p) in softmax(z).into_iter().enumerate() {
                            sum -= w[class] * ((1.0 - smoothing) * t[class] + smoothing / CLASSES as f64) * p.ln();
                            total += w[class] * t[class];
                        }
                    }
                    sum / total
                };
                let settings = Loss::CrossEntropy { weights: weights.clone() };
                let ours = |z: &Tensor| loss(&settings, z, &matrix(targets, CLASSES), smoothing).unwrap();
                assert_matches(&name, &logits, CLASSES, &ours, &reference);
            }
        }
    }
    // The loss of torch.nn.CrossEntropyLoss on class indices.
    let z = matrix(&logits, CLASSES);
    let classes = Tensor::from_slice(&[0i64, 3, 2, 1, 0, 3]);
    let weights = Tensor::from_slice(&WEIGHTS).to_kind(Kind::Float);
    let theirs = z.cross_entropy_loss(&classes, Some(&weights), tch::Reduction::Mean, -100, 0.1);
    let settings = Loss::CrossEntropy { weights: Some(WEIGHTS.to_vec()) };
    let ours = loss(&settings, &z, &matrix(&hard, CLASSES), 0.1).unwrap();
    assert!(f64::try_from((ours - theirs).abs()).unwrap() < 1e-6);
}

/// The losses of several labels, with exponents below 1, which have infinite derivatives at the margin.
fn multi_label() -> Vec<Loss> {
    let asymmetric =
        |gamma_positive, gamma_negative, margin| Loss::Asymmetric { gamma_positive, gamma_negative, margin };
    vec![
        Loss::BinaryCrossEntropy { positive: None },
        Loss::BinaryCrossEntropy { positive: Some(WEIGHTS.to_vec()) },
        asymmetric(0.0, 4.0, 0.05),
        asymmetric(1.0, 2.5, 0.2),
        asymmetric(0.5, 0.5, 0.1),
        asymmetric(2.0, 0.0, 0.0),
        Loss::Focal { gamma: 2.0, alpha: 0.25 },
        Loss::Focal { gamma: 0.5, alpha: 0.7 },
    ]
}

#[test]
fn multi_label_losses_match_those_of_classify() {
    let logits: Vec<f64> = numbers("logits", ROWS * CLASSES).iter().map(|z| 5.0 * z).collect();
    let targets: Vec<f64> = numbers("targets", ROWS * CLASSES).iter().map(|t| f64::from(u8::from(*t > 0.2))).collect();
    for settings in multi_label() {
        let mut expected = Array2::from_shape_vec((ROWS, CLASSES), logits.clone()).unwrap();
        let hot = Array2::from_shape_vec((ROWS, CLASSES), targets.clone()).unwrap().mapv(|t| t as f32);
        let value = settings.gradient(expected.view_mut(), hot.view());
        let z = matrix(&logits, CLASSES).set_requires_grad(true);
        let ours = loss(&settings, &z, &matrix(&targets, CLASSES), 0.0).unwrap();
        ours.backward();
        let ours = f64::try_from(ours).unwrap();
        assert!((ours - value).abs() < 1e-6 * value.max(0.1), "{settings:?}: {ours}, expected {value}");
        let gradient = values_of(&z.grad()).unwrap();
        let worst = gradient.iter().zip(&expected).fold(0f64, |worst, (a, b)| worst.max((f64::from(*a) - b).abs()));
        assert!(worst < 1e-6, "{settings:?}: gradient off by {worst:e}");
    }
}

#[test]
fn multi_label_losses_are_linear_in_the_targets_and_finite_at_extreme_logits() {
    let extreme = [-200.0, -90.0, -1e-9, 0.0, 1e-9, 90.0, 200.0, 1.0];
    for settings in multi_label() {
        let value = |target: f64| {
            let z = matrix(&extreme, CLASSES).set_requires_grad(true);
            let targets = Tensor::full([2, CLASSES as i64], target, (Kind::Float, Device::Cpu));
            let value = loss(&settings, &z, &targets, 0.0).unwrap();
            value.backward();
            assert!(values_of(&z.grad()).unwrap().iter().all(|slope| slope.is_finite()), "{settings:?} {target}");
            f64::try_from(value).unwrap()
        };
        let (negative, positive, mixed) = (value(0.0), value(1.0), value(0.3));
        assert!((0.7 * negative + 0.3 * positive - mixed).abs() < 1e-5 * mixed, "{settings:?}");
    }
}

#[test]
fn nt_xent_matches_the_formula() {
    const DIM: usize = 3;
    const N: usize = 4;
    let views = numbers("views", 2 * N * DIM);
    let temperature = 0.3;
    let reference = |x: &[f64]| {
        let unit: Vec<Vec<f64>> = x
            .chunks(DIM)
            .map(|row| {
                let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
                row.iter().map(|v| v / norm).collect()
            })
            .collect();
        let similarity =
            |a: usize, b: usize| (unit[a].iter().zip(&unit[b]).map(|(a, b)| a * b).sum::<f64>() / temperature).exp();
        let term = |i: usize| {
            let others: f64 = (0..2 * N).filter(|k| *k != i).map(|k| similarity(i, k)).sum();
            -(similarity(i, (i + N) % (2 * N)) / others).ln()
        };
        (0..2 * N).map(term).sum::<f64>() / (2 * N) as f64
    };
    let n = N as i64;
    let ours = |x: &Tensor| nt_xent(&x.narrow(0, 0, n), &x.narrow(0, n, n), temperature).unwrap();
    assert_matches("nt-xent", &views, DIM, &ours, &reference);
}

/// Two parameters, the second of which learns at half the rate.
fn small_network() -> TorchParameters {
    let mut source = MemoryTensors::default();
    // The first is so large that several threads update it, and has channels last in memory.
    let parameters = [("a.weight", vec![30, 25, 10, 10], Role::Weight), ("b.bias", vec![5], Role::Bias)];
    let parameters = parameters.map(|(name, shape, role)| Parameter { name: name.into(), shape, role });
    for Parameter { name, shape, .. } in &parameters {
        let values = numbers(name, shape.iter().product()).into_iter().map(|v| v as f32).collect();
        source.insert(name, shape, values).unwrap();
    }
    let mut network = TorchParameters::new(Device::Cpu);
    network.read(&parameters, &source).unwrap();
    network
}

/// Sets the gradients of `step` and returns them.
fn set_gradients(network: &TorchParameters, step: usize) -> Vec<Vec<f64>> {
    network.zero_gradients();
    let gradients = network.trainable().map(|entry| {
        let values = numbers(&format!("{} {step}", entry.parameter.name), entry.tensor.numel());
        (&entry.tensor * matrix(&values, values.len()).reshape(entry.tensor.size())).sum(Kind::Float).backward();
        values.into_iter().map(|value| f64::from(value as f32)).collect()
    });
    gradients.collect()
}

fn optimizers() -> Vec<OptimizerSettings> {
    let settings = |kind, momentum, nesterov, weight_decay| OptimizerSettings {
        kind,
        learning_rate: 0.05,
        weight_decay,
        momentum,
        nesterov,
    };
    vec![
        settings(OptimizerKind::Adamw, 0.9, false, 0.1),
        settings(OptimizerKind::Adam, 0.9, false, 0.1),
        settings(OptimizerKind::Adam, 0.9, false, 0.0),
        settings(OptimizerKind::Sgd, 0.0, false, 0.1),
        settings(OptimizerKind::Sgd, 0.9, false, 0.0),
        settings(OptimizerKind::Sgd, 0.9, false, 0.1),
        settings(OptimizerKind::Sgd, 0.9, true, 0.1),
    ]
}

#[test]
fn optimizers_match_those_of_classify_and_resume_exactly() {
    const FACTOR: f64 = 0.5;
    let factors = [("b".to_owned(), FACTOR)];
    // A warm-up starts at 0.
    let rate = |step: usize| 0.02 * step as f64;
    // f64 is updated by libtorch's functions, as parameters on a GPU.
    for (settings, kind) in optimizers().into_iter().flat_map(|s| [(s.clone(), Kind::Float), (s, Kind::Double)]) {
        let network = small_network();
        for entry in network.trainable() {
            entry.tensor.shallow_clone().set_data(&entry.tensor.to_kind(kind));
        }
        let mut optimizer = Optimizer::new(&settings, &network, &factors).unwrap();
        let mut expected: Vec<Vec<f64>> =
            network.trainable().map(|e| values_of(&e.tensor).unwrap().into_iter().map(f64::from).collect()).collect();
        let mut references = [0, 1].map(|_| kinoprobe::classify::optimizer::Optimizer::<f64>::new(&settings));
        for step in 0..8 {
            let gradients = set_gradients(&network, step);
            optimizer.step(rate(step)).unwrap();
            for (index, reference) in references.iter_mut().enumerate() {
                let parameter = Layer { values: &mut expected[index], gradient: &gradients[index] };
                reference.step(&mut [parameter], rate(step) * [1.0, FACTOR][index], 1);
            }
            for (entry, expected) in network.trainable().zip(&expected) {
                for (ours, theirs) in values_of(&entry.tensor).unwrap().into_iter().zip(expected) {
                    assert!(
                        (f64::from(ours) - theirs).abs() < 2e-6,
                        "{settings:?}, {kind:?}, step {step}: {ours}, {theirs}"
                    );
                }
            }
            if step == 3 && kind == Kind::Float {
                // As after a restart: other objects, with the state of a file.
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("optimizer.safetensors");
                save(&path, &optimizer.state(), &Default::default()).unwrap();
                optimizer = Optimizer::new(&settings, &network, &factors).unwrap();
                optimizer.restore(load(&path, Device::Cpu).unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn restored_moments_have_the_memory_format_of_the_parameters() {
    let mut network = TorchParameters::new(Device::Cpu);
    let shape = [4, 3, 5, 5];
    let parameter = Parameter { name: "conv.weight".into(), shape: shape.to_vec(), role: Role::Weight };
    network.initialize(Some(Architecture::ResNet18), &[parameter], 0).unwrap();
    let entry = network.trainable().next().unwrap();
    entry.tensor.square().sum(Kind::Float).backward();
    let mut adam = Optimizer::new(&optimizers()[0], &network, &[]).unwrap();
    adam.step(0.1).unwrap();
    let contiguous = adam.state().into_iter().map(|(name, tensor)| (name, tensor.contiguous()));
    adam.restore(contiguous.collect()).unwrap();
    let moments = adam.state().into_iter().filter(|(name, _)| name.contains("exp_avg"));
    let strides: Vec<_> = moments.map(|(_, tensor)| tensor.stride()).collect();
    assert_eq!(strides, [[75, 1, 15, 3]; 2]);
}

#[test]
fn states_of_other_optimizers_are_refused() {
    let network = small_network();
    let settings = optimizers();
    let mut adam = Optimizer::new(&settings[0], &network, &[]).unwrap();
    set_gradients(&network, 0);
    adam.step(0.1).unwrap();
    let state: std::collections::BTreeMap<_, _> = adam.state().into_iter().collect();
    let mut sgd = Optimizer::new(&settings[5], &network, &[]).unwrap();
    assert!(sgd.restore(state.clone_tensors()).unwrap_err().to_string().contains("unexpected tensor a.weight.exp_avg"));
    let mut incomplete = state.clone_tensors();
    incomplete.remove("b.bias.exp_avg_sq");
    assert!(adam.restore(incomplete).unwrap_err().to_string().contains("b.bias"));
    let mut other = state.clone_tensors();
    other.remove("step");
    assert!(adam.restore(other).unwrap_err().to_string().contains("step"));
    adam.restore(state).unwrap();
}

trait CloneTensors {
    fn clone_tensors(&self) -> Self;
}

impl CloneTensors for std::collections::BTreeMap<String, Tensor> {
    fn clone_tensors(&self) -> Self {
        self.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }
}

#[test]
fn gradients_are_clipped_by_their_joint_norm() {
    let network = small_network();
    let optimizer = Optimizer::new(&optimizers()[0], &network, &[]).unwrap();
    let expected = set_gradients(&network, 0);
    let norm = expected.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
    let gradients = || network.trainable().flat_map(|e| values_of(&e.tensor.grad()).unwrap()).collect::<Vec<f32>>();
    let before = gradients();
    assert!((optimizer.clip_gradients(norm * 1.01).unwrap() / norm - 1.0).abs() < 1e-6);
    assert_eq!(gradients(), before);
    optimizer.clip_gradients(0.5).unwrap();
    for (clipped, gradient) in gradients().into_iter().zip(expected.iter().flatten()) {
        assert!((f64::from(clipped) * norm / 0.5 - gradient).abs() < 1e-5);
    }
    network.zero_gradients();
    assert!(gradients().iter().all(|gradient| *gradient == 0.0));
}
