//! Benchmark of one training step of the transformer encoder: batch 32, 128 rows per clip, 512 features and units, 8 heads, 1024 hidden
//! units, 21 labels, binary cross-entropy, AdamW. `benches/peer/transformer.py` is the same step in PyTorch.
//!
//! `cargo bench --bench transformer -- [--threads N] [--steps N]` prints one line of JSON: `step_wall` (median over the steps) and
//! `step_cpu` (mean), both in seconds. `step_cpu` is `null` without /proc.

use std::time::Instant;

use kinoprobe::classify::OptimizerSettings;
use kinoprobe::classify::clip_rows::ClipRows;
use kinoprobe::classify::layers::Dropout;
use kinoprobe::classify::loss::Loss;
use kinoprobe::classify::optimizer::Optimizer;
use kinoprobe::classify::transformer::network::{TransformerNetwork, TransformerSizes};
use kinoprobe::dataset::Dataset;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

mod common;
use common::{argument, cpu_seconds, median};

const CLIPS: usize = 32;
const LENGTH: usize = 128;
const INPUTS: usize = 512;
const HEADS: usize = 8;
const HIDDEN: usize = 1024;
const LABELS: usize = 21;

fn main() {
    let argument = |name, default: usize| argument(name).unwrap_or(default);
    let (threads, steps) = (argument("--threads", 1), argument("--steps", 20));

    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let data = Dataset {
        ids: (0..CLIPS).map(|i| i.to_string()).collect(),
        groups: vec![None; CLIPS],
        rows: Array2::from_shape_simple_fn((CLIPS * LENGTH, INPUTS), || rng.gen_range(-1.7f32..1.7)).into(),
        offsets: (0..=CLIPS).map(|i| i * LENGTH).collect(),
        targets: Array2::from_shape_fn((CLIPS, LABELS), |(i, c)| f32::from((i * 7 + c * 3) % 5 == 0)),
        classes: (0..LABELS).map(|c| c.to_string()).collect(),
    };
    let clips: Vec<usize> = (0..CLIPS).collect();
    let sizes = TransformerSizes {
        inputs: INPUTS,
        width: INPUTS,
        heads: HEADS,
        hidden: HIDDEN,
        length: LENGTH,
        outputs: LABELS,
    };
    let mut network = TransformerNetwork::<f32>::new(sizes, false, &mut rng.clone(), threads);
    let mut optimizer = Optimizer::new(&OptimizerSettings::default());
    let mut dropout = Dropout::new(0.1, rng);
    let loss = Loss::BinaryCrossEntropy { positive: None };
    let mut logits = Array2::zeros((CLIPS, LABELS));
    let mut step = || {
        let batch = ClipRows::new(&data, &clips).expect("features in memory");
        let value = network.train_step(&batch, data.targets.view(), &loss, &mut dropout, logits.view_mut());
        optimizer.step(&mut network.parameters(), 1e-3, threads);
        value
    };
    for _ in 0..3 {
        step();
    }
    let (mut wall, cpu, mut value) = (Vec::new(), cpu_seconds(), 0.0);
    for _ in 0..steps {
        let start = Instant::now();
        value = step();
        wall.push(start.elapsed().as_secs_f64());
    }
    let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| (after - before) / steps as f64);
    println!(
        "{}",
        serde_json::json!({ "step_wall": median(wall), "step_cpu": cpu, "loss": value, "threads": threads })
    );
}
