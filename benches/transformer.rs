//! Benchmark of one training step of the transformer encoder: batch 32, 128 rows per clip, 512 features and units, 8 heads, 1024 hidden
//! units, 21 labels, binary cross-entropy, AdamW. `benches/peer/transformer.py` is the same step in PyTorch.
//!
//! `cargo bench --bench transformer -- [--threads N] [--steps N]` prints one line of JSON (`common::measure_steps`).

use kinoprobe::classify::OptimizerSettings;
use kinoprobe::classify::clip_rows::ClipRows;
use kinoprobe::classify::layers::Dropout;
use kinoprobe::classify::loss::Loss;
use kinoprobe::classify::optimizer::Optimizer;
use kinoprobe::classify::transformer::network::{TransformerNetwork, TransformerSizes};
use ndarray::Array2;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

mod common;
use common::{CLIPS, INPUTS, LABELS, LENGTH, measure_steps, sequences, threads};

const HEADS: usize = 8;
const HIDDEN: usize = 1024;

fn main() {
    let threads = threads();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let data = sequences(&mut rng);
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
    measure_steps(|| {
        let batch = ClipRows::new(&data, &clips).expect("features in memory");
        let value = network.train_step(&batch, data.targets.view(), &loss, &mut dropout, logits.view_mut());
        optimizer.step(&mut network.parameters(), 1e-3, threads);
        value
    });
}
