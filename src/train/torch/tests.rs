//! Execution, initialization and export of networks.

use std::path::{Path, PathBuf};

use kinoprobe::models::graph::{Conv, Graph, Mode};
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::nets::head::Head;
use kinoprobe::models::runtime::{self, Session, SessionOptions};
use kinoprobe::models::seeded::{SeededParameters, integers};
use kinoprobe::models::{Card, onnx};
use tch::{Device, Kind, Tensor, no_grad};

use super::{SEEDING, TorchGraph, TorchParameters, load, save, torch, values_of};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn card(architecture: Architecture) -> Card {
    Card::load(&root().join("models"), architecture.name()).unwrap()
}

/// The integers of the stream `input`, scaled to [−2, 2).
fn input(shape: &[usize]) -> Tensor {
    let values: Vec<f32> =
        integers("input", 0, shape.iter().product()).into_iter().map(|u| u as f32 / 16384.0).collect();
    Tensor::from_slice(&values).reshape(super::shape(shape))
}

fn initialized(architecture: Architecture) -> TorchParameters {
    let mut parameters = TorchParameters::new(Device::Cpu);
    parameters.initialize(Some(architecture), &architecture.parameters(&card(architecture).input), 7).unwrap();
    parameters
}

#[test]
fn networks_match_pytorch_in_eval_mode() {
    for architecture in Architecture::ALL.into_iter().filter(|architecture| *architecture != Architecture::TransNetV2) {
        let card = card(architecture);
        let mut parameters = TorchParameters::new(Device::Cpu);
        let seeded = SeededParameters { architecture, seed: 0 };
        parameters.read(&architecture.parameters(&card.input), &seeded).unwrap();
        let file: PathBuf = root().join(format!("fixtures/networks/{}-seeded.npy", architecture.name()));
        let expected = Tensor::read_npy(file).unwrap();
        let x = input(&card.input.shape(2));
        let mut graph = TorchGraph::new(&parameters, Mode::Eval);
        let found = no_grad(|| architecture.build(&mut graph, &x, &card.input)).unwrap();
        let rms = f64::try_from(expected.square().mean(Kind::Float).sqrt()).unwrap();
        let worst = f64::try_from((found - expected).abs().max()).unwrap();
        assert!(worst <= 1e-4 * rms, "{}: off by {worst}, rms {rms}", architecture.name());
    }
}

#[test]
fn convolutions_along_time_equal_3d_convolutions() {
    let parameters = initialized(Architecture::R2Plus1D18);
    let weight = parameters.get("stem.3.weight").unwrap();
    for (stride, padding) in [(1, 1), (2, 1), (1, 0), (3, 2)] {
        let conv = Conv {
            name: "stem.3",
            inputs: 45,
            outputs: 64,
            kernel: &[3, 1, 1],
            stride: &[stride, 1, 1],
            padding: &[(padding, padding), (0, 0), (0, 0)],
            dilation: &[1, 1, 1],
            groups: 1,
            bias: false,
        };
        let x = input(&[2, 45, 8, 5, 7]).set_requires_grad(true);
        let y = TorchGraph::new(&parameters, Mode::Train).convolution(&x, &conv).unwrap();
        let (steps, pad) = ([stride as i64, 1, 1], [padding as i64, 0, 0]);
        let expected = x.conv3d(weight, None::<Tensor>, steps, pad, [1, 1, 1], 1);
        assert_eq!(y.size(), expected.size());
        let gradients = |y: &Tensor| Tensor::run_backward(&[y.square().sum(Kind::Float)], &[&x, weight], false, false);
        let (found, reference) = (gradients(&y), gradients(&expected));
        for (found, reference) in [(&y, &expected), (&found[0], &reference[0]), (&found[1], &reference[1])] {
            let worst = f64::try_from((found - reference).abs().max() / reference.abs().max()).unwrap();
            assert!(worst <= 1e-5, "stride {stride}, padding {padding}: off by {worst}");
        }
    }
}

#[test]
fn weights_of_2d_convolutions_have_channels_last() {
    let stride = |architecture, name: &str| initialized(architecture).get(name).unwrap().stride();
    assert_eq!(stride(Architecture::ResNet18, "layer1.0.conv1.weight"), [64 * 9, 1, 3 * 64, 64]);
    assert_eq!(stride(Architecture::R2Plus1D18, "stem.0.weight"), [3 * 49, 49, 49, 7, 1]);
}

#[test]
fn transnet_cannot_be_trained() {
    let architecture = Architecture::TransNetV2;
    let parameters = architecture.parameters(&card(architecture).input);
    let error = TorchParameters::new(Device::Cpu).initialize(Some(architecture), &parameters, 0).unwrap_err();
    assert!(error.to_string().contains("cannot be trained"), "{error}");
}

#[test]
fn initial_values_have_the_distributions_of_pytorch() {
    let statistics = |parameters: &TorchParameters, name: &str| {
        let tensor = parameters.get(name).unwrap().detach();
        let number = |tensor: Tensor| f64::try_from(tensor).unwrap();
        [number(tensor.mean(Kind::Float)), number(tensor.std(true)), number(tensor.abs().max())]
    };
    // fan_out of a 3×3 convolution with 512 filters, and of a temporal convolution with 64.
    let resnet = initialized(Architecture::ResNet50);
    let [mean, deviation, _] = statistics(&resnet, "layer4.2.conv2.weight");
    let expected = (2.0 / (512.0 * 9.0f64)).sqrt();
    assert!(mean.abs() < expected * 0.01 && (deviation / expected - 1.0).abs() < 0.01, "{mean} {deviation}");
    let r2plus1d = initialized(Architecture::R2Plus1D18);
    let [_, deviation, _] = statistics(&r2plus1d, "stem.3.weight");
    assert!((deviation / (2.0 / (64.0 * 3.0f64)).sqrt() - 1.0).abs() < 0.05, "{deviation}");
    assert_eq!(statistics(&r2plus1d, "layer1.0.conv1.1.weight"), [1.0, 0.0, 1.0]);
    assert_eq!(statistics(&r2plus1d, "layer1.0.conv1.1.running_mean"), [0.0, 0.0, 0.0]);
    // A head: uniform with bound 1 / √2048 for weight and bias.
    let head = Head { name: "fc".into(), inputs: 2048, hidden: None, dropout: 0.0, outputs: 100 };
    let mut parameters = TorchParameters::new(Device::Cpu);
    parameters.initialize(None, &head.parameters(), 7).unwrap();
    let bound = 1.0 / 2048f64.sqrt();
    for name in ["fc.weight", "fc.bias"] {
        let [_, deviation, largest] = statistics(&parameters, name);
        assert!((deviation * 3f64.sqrt() / bound - 1.0).abs() < 0.15, "{name}: {deviation}");
        assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest}");
    }
    // The values are the same on every machine and for every version of libtorch.
    let first = values_of(parameters.get("fc.weight").unwrap()).unwrap();
    assert_eq!(first[..3], EXPECTED_HEAD);
    let first = values_of(resnet.get("conv1.weight").unwrap()).unwrap();
    assert_eq!(first[..3], EXPECTED_CONVOLUTION);
}

/// Computed from the description of the generator in Python.
const EXPECTED_HEAD: [f32; 3] = [0.013319794, 0.018820556, -0.0074397805];
const EXPECTED_CONVOLUTION: [f32; 3] = [0.05080474, -0.020113818, 0.017470565];

#[test]
fn batch_norms_update_their_statistics_unless_they_are_frozen() {
    let architecture = Architecture::ResNet18;
    let mut parameters = initialized(architecture);
    parameters.freeze(&["conv1".into(), "bn1".into(), "layer1".into()]).unwrap();
    let x = input(&[2, 3, 32, 32]);
    let read = |parameters: &TorchParameters, name: &str| values_of(parameters.get(name).unwrap()).unwrap();
    let names =
        ["bn1.running_mean", "layer1.1.bn2.running_var", "layer2.0.bn1.running_mean", "layer4.1.bn2.running_var"];
    let before = names.map(|name| read(&parameters, name));
    let forward = |mode| architecture.build(&mut TorchGraph::new(&parameters, mode), &x, &card(architecture).input);
    let _ = forward(Mode::Eval).unwrap();
    assert_eq!(names.map(|name| read(&parameters, name)), before);
    let output = forward(Mode::Train).unwrap();
    let after = names.map(|name| read(&parameters, name));
    assert!(after[..2] == before[..2] && after[2] != before[2] && after[3] != before[3]);
    output.sum(Kind::Float).backward();
    assert!(!parameters.get("layer1.0.conv1.weight").unwrap().grad().defined());
    assert!(parameters.get("layer2.0.conv1.weight").unwrap().grad().defined());
    assert!(!parameters.is_trainable("bn1.weight").unwrap() && parameters.is_trainable("layer2.0.bn1.weight").unwrap());
    assert!(parameters.trainable().all(|entry| !entry.parameter.name.contains("running")));
}

#[test]
fn too_little_memory_has_a_remedy() {
    // 4 PiB.
    let error = torch(Tensor::f_empty([1 << 50], (Kind::Float, Device::Cpu))).unwrap_err().to_string();
    assert!(error.contains("can't allocate memory") && error.contains("lower --batch"), "{error}");
    let cuda = tch::TchError::Torch("CUDA out of memory. Tried to allocate 20.00 GiB.\nframe #0: c10".into());
    let error = torch::<()>(Err(cuda)).unwrap_err().to_string();
    assert!(error.starts_with("libtorch: CUDA out of memory. Tried to allocate 20.00 GiB.: lower --batch"), "{error}");
}

#[test]
fn prefixes_end_at_dots_and_must_match() {
    let mut parameters = initialized(Architecture::ResNet18);
    let error = parameters.freeze(&["layer".into()]).unwrap_err().to_string();
    assert!(error.contains("no parameter is below layer") && error.contains("layer4"), "{error}");
    let factors = [("layer4".into(), 0.5), ("layer4.1.bn2".into(), 0.1)];
    let found = parameters.rate_factors(&factors).unwrap();
    for (entry, factor) in parameters.trainable().zip(found) {
        let name = &entry.parameter.name;
        let expected = if name.starts_with("layer4.1.bn2.") {
            0.1
        } else if name.starts_with("layer4.") {
            0.5
        } else {
            1.0
        };
        assert_eq!(factor, expected, "{name}");
    }
    assert!(parameters.rate_factors(&[("fc".into(), 2.0)]).is_err());
}

#[test]
fn dropout_and_stochastic_depth_keep_the_expectation() {
    let _seeding = SEEDING.lock();
    let parameters = TorchParameters::new(Device::Cpu);
    let ones = Tensor::ones([2000, 3, 5], (Kind::Float, Device::Cpu));
    let mut train = TorchGraph::new(&parameters, Mode::Train);
    tch::manual_seed(1);
    let dropped = train.dropout(ones.shallow_clone(), 0.25).unwrap();
    let branch = train.stochastic_depth(ones.shallow_clone(), 0.25).unwrap();
    for (name, tensor) in [("dropout", &dropped), ("stochastic depth", &branch)] {
        let values = values_of(tensor).unwrap();
        assert!(values.iter().all(|value| *value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6), "{name}");
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{name}: {mean}");
    }
    // All elements of an item share one factor.
    assert_eq!(f64::try_from(branch.std_dim(&[1, 2][..], false, false).max()).unwrap(), 0.0);
    tch::manual_seed(1);
    assert_eq!(train.dropout(ones.shallow_clone(), 0.25).unwrap(), dropped);
    let mut eval = TorchGraph::new(&parameters, Mode::Eval);
    assert_eq!(eval.dropout(ones.shallow_clone(), 0.25).unwrap(), ones);
    assert_eq!(eval.stochastic_depth(ones.shallow_clone(), 0.25).unwrap(), ones);
}

#[test]
fn exported_networks_match_on_native_kernels() {
    for (architecture, hidden) in [
        (Architecture::R2Plus1D18, None),
        (Architecture::R2Plus1D18, Some(None)),
        (Architecture::ResNet50, None),
        (Architecture::ResNet50, Some(Some(64))),
    ] {
        let mut card = card(architecture);
        (card.input.frames, card.input.size) = (card.input.frames.map(|_| 8), [64, 64]);
        let mut parameters = initialized(architecture);
        let name = architecture.head().unwrap().to_owned();
        let head = hidden.map(|hidden| Head { name, inputs: architecture.dim(), hidden, dropout: 0.5, outputs: 9 });
        if let Some(head) = &head {
            parameters.initialize(None, &head.parameters(), 7).unwrap();
            card.output.dim = head.outputs;
        }
        let x = input(&card.input.shape(2));
        let run = |mode| {
            let mut graph = TorchGraph::new(&parameters, mode);
            let y = no_grad(|| architecture.build(&mut graph, &x, &card.input)).unwrap();
            head.as_ref()
                .map_or(y.shallow_clone(), |head| no_grad(|| head.build(&mut graph, y.shallow_clone())).unwrap())
        };
        // Statistics that are not the initial ones.
        for _ in 0..3 {
            let _ = run(Mode::Train);
        }
        let expected = values_of(&run(Mode::Eval)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        // Through a file, as a trained network is stored.
        let path = directory.path().join("network.safetensors");
        save(&path, &parameters.tensors(), &Default::default()).unwrap();
        let checkpoint = kinoprobe::models::checkpoint::Checkpoint::open(&path).unwrap();
        let bytes = onnx::write_with_head(&card, architecture, head.as_ref(), &checkpoint).unwrap();
        assert!(bytes == onnx::write_with_head(&card, architecture, head.as_ref(), &parameters).unwrap());
        let path = directory.path().join("network.onnx");
        std::fs::write(&path, bytes).unwrap();
        let (item, dim) = (card.input.shape(2)[1..].to_vec(), card.output.dim);
        let options = SessionOptions { threads: 2, ..SessionOptions::for_floats(item, dim, 2) };
        let mut session = Session::load(&path, runtime::Device::Native, options).unwrap();
        let found = session.run(&values_of(&x).unwrap()).unwrap();
        for (found, expected) in found.rows().into_iter().zip(expected.chunks(dim)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let found = found.to_vec();
            let cosine = dot(&found, expected) / (dot(&found, &found) * dot(expected, expected)).sqrt();
            assert!(cosine >= 0.99999, "{}: cosine {cosine}", architecture.name());
        }
    }
}

#[test]
fn files_restore_tensors_and_are_replaced_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.safetensors");
    let tensor = Tensor::from_slice(&[1.5f32, -2.0, 3.0, f32::MIN_POSITIVE, 0.0, -7.0]).reshape([2, 3]);
    save(&path, &[("a.b".into(), tensor.shallow_clone())], &Default::default()).unwrap();
    save(&path, &[("c".into(), tensor.transpose(0, 1))], &Default::default()).unwrap();
    let loaded = load(&path, Device::Cpu).unwrap();
    assert_eq!(loaded.keys().collect::<Vec<_>>(), ["c"]);
    assert_eq!(loaded["c"], tensor.transpose(0, 1));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let missing = directory.path().join("missing/state.safetensors");
    assert!(save(&missing, &[], &Default::default()).unwrap_err().to_string().contains("missing"));
}

#[test]
fn cuda_is_refused_with_a_remedy_where_its_libraries_are_missing() {
    assert_eq!(super::device("cpu").unwrap(), Device::Cpu);
    assert!(super::device("gpu").unwrap_err().to_string().contains("choose cpu or cuda"));
    if !root().join("third_party/libtorch-cuda").exists() {
        let error = super::device("cuda").unwrap_err().to_string();
        assert!(error.contains("make setup TRAIN=1 DEVICE=cuda"), "{error}");
    }
}
