//! Benchmark of one epoch of the MLP: 6000 × 1024 features, 512 hidden units, 15 classes, batch 256, and validation on 1500 clips.
//! `benches/peer/mlp.py` is the same epoch in PyTorch.
//!
//! `cargo bench --bench mlp -- [--threads N] [--epochs N] [--batch N]` prints one line of JSON: `epoch_wall` (median over the
//! epochs) and `epoch_cpu` (mean), both in seconds, and `val_accuracy` (maximum). `epoch_cpu` is `null` without /proc.

use std::time::Instant;

use kinoprobe::classify::{ClassifierSettings, FitContext, FitSettings, MlpSettings, Trainer, TrainingSettings, build};
use kinoprobe::dataset::{Dataset, Task};
use kinoprobe::evaluate::Epoch;
use ndarray::{Array2, s};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

mod common;
use common::{argument, cpu_seconds, median};

const CLIPS: usize = 6000;
const VALID: usize = 1500;
const INPUTS: usize = 1024;
const CLASSES: usize = 15;

fn main() {
    let argument = |name, default: usize| argument(name).unwrap_or(default);
    let (threads, epochs, batch) = (argument("--threads", 1), argument("--epochs", 12), argument("--batch", 256));

    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    // The sum of four uniform variables approximates a normal distribution.
    let mut normal = || (0..4).map(|_| rng.gen_range(-0.5f32..0.5)).sum::<f32>() * 1.732;
    let centers = Array2::from_shape_simple_fn((CLASSES, INPUTS), || normal() * 0.12);
    let classes: Vec<usize> = (0..CLIPS + VALID).map(|i| i * 7 % CLASSES).collect();
    let features = Array2::from_shape_fn((CLIPS + VALID, INPUTS), |(i, d)| centers[(classes[i], d)] + normal());
    let targets = Array2::from_shape_fn((CLIPS + VALID, CLASSES), |(i, c)| f32::from(classes[i] == c));
    let part = |from, to| Dataset {
        ids: (from..to).map(|i: usize| i.to_string()).collect(),
        groups: vec![None; to - from],
        rows: features.slice(s![from..to, ..]).to_owned().into(),
        offsets: (0..=to - from).collect(),
        targets: targets.slice(s![from..to, ..]).to_owned(),
        classes: (0..CLASSES).map(|c| c.to_string()).collect(),
    };

    let training = TrainingSettings { batch, epochs, patience: epochs, ..TrainingSettings::default() };
    let settings = FitSettings {
        standardize: false,
        trainer: Trainer { training, ..Trainer::default() },
        ..FitSettings::new(ClassifierSettings::Mlp(MlpSettings::default()))
    };
    let (train, valid) = (part(0, CLIPS), part(CLIPS, CLIPS + VALID));
    let mut wall = Vec::new();
    let (mut last, cpu) = (Instant::now(), cpu_seconds());
    let mut progress = |_: &Epoch| {
        wall.push(last.elapsed().as_secs_f64());
        last = Instant::now();
    };
    let mut context = FitContext::new(0, Task::SingleLabel, threads, &mut progress);
    let fitted = build(&settings).fit(&train, &valid, &mut context).expect("training succeeds");
    let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| (after - before) / epochs as f64);
    let best = fitted.curves.iter().map(|epoch| epoch.val_score).fold(0.0, f64::max);
    println!(
        "{}",
        serde_json::json!({ "epoch_wall": median(wall), "epoch_cpu": cpu, "val_accuracy": best, "threads": threads })
    );
}
