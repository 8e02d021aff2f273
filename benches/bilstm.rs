//! Benchmark of one training step of the BiLSTM: batch 32, 128 time steps, 512 inputs, 2 × 256 hidden units, 21 labels, binary
//! cross-entropy, AdamW. `benches/peer/bilstm.py` is the same step in PyTorch.
//!
//! `cargo bench --bench bilstm -- [--threads N] [--steps N]` prints one line of JSON (`common::measure_steps`).

use kinoprobe::classify::bilstm::network::{BilstmNetwork, SequencePooling};
use kinoprobe::classify::bilstm::sequences::{PackedBatch, SequenceWindow};
use kinoprobe::classify::layers::Dropout;
use kinoprobe::classify::loss::Loss;
use kinoprobe::classify::optimizer::Optimizer;
use kinoprobe::classify::{OptimizerSettings, SequenceSample};
use ndarray::Array2;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

mod common;
use common::{CLIPS, INPUTS, LABELS, LENGTH, measure_steps, sequences, threads};

const HIDDEN: usize = 256;

fn main() {
    let threads = threads();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let data = sequences(&mut rng);
    let window = SequenceWindow { length: LENGTH, sample: SequenceSample::Truncate, pad: false };
    let clips: Vec<usize> = (0..CLIPS).collect();
    let mut network = BilstmNetwork::<f32>::new(
        (INPUTS, HIDDEN, LABELS),
        false,
        SequencePooling::MaxOverTime,
        &mut rng.clone(),
        threads,
    );
    let mut optimizer = Optimizer::new(&OptimizerSettings::default());
    let mut dropout = Dropout::new(0.5, rng);
    let loss = Loss::BinaryCrossEntropy { positive: None };
    let mut logits = Array2::zeros((CLIPS, LABELS));
    measure_steps(|| {
        let batch = PackedBatch::new(&data, &clips, window, None).expect("features in memory");
        let value = network.train_step(&batch, data.targets.view(), &loss, &mut dropout, logits.view_mut());
        optimizer.step(&mut network.parameters(), 1e-3, threads);
        value
    });
}
