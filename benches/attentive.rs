//! Benchmark of one training step of the attentive probe: batch 32, 128 rows per clip, 512 features, 8 heads, 21 labels, binary
//! cross-entropy, AdamW. `benches/peer/attentive.py` is the same step in PyTorch.
//!
//! `cargo bench --bench attentive -- [--threads N] [--steps N]` prints one line of JSON (`common::measure_steps`).

use kinoprobe::classify::OptimizerSettings;
use kinoprobe::classify::attentive::network::AttentiveNetwork;
use kinoprobe::classify::clip_rows::ClipRows;
use kinoprobe::classify::layers::Dropout;
use kinoprobe::classify::loss::Loss;
use kinoprobe::classify::optimizer::Optimizer;
use ndarray::Array2;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

mod common;
use common::{CLIPS, INPUTS, LABELS, measure_steps, sequences, threads};

const HEADS: usize = 8;

fn main() {
    let threads = threads();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let data = sequences(&mut rng);
    let clips: Vec<usize> = (0..CLIPS).collect();
    let sizes = (INPUTS, INPUTS, LABELS);
    let mut network = AttentiveNetwork::<f32>::new(sizes, HEADS, &mut rng.clone(), threads);
    let mut optimizer = Optimizer::new(&OptimizerSettings::default());
    let mut dropout = Dropout::new(0.5, rng);
    let loss = Loss::BinaryCrossEntropy { positive: None };
    let mut logits = Array2::zeros((CLIPS, LABELS));
    measure_steps(|| {
        let batch = ClipRows::new(&data, &clips).expect("features in memory");
        let value = network.train_step(&batch, data.targets.view(), &loss, &mut dropout, logits.view_mut());
        optimizer.step(&mut network.parameters(), 1e-3, threads);
        value
    });
}
