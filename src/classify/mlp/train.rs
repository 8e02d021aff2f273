//! The training loop: shuffled batches, AdamW under warm restarts, early stopping.

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::network::{Network, count_correct};
use crate::classify::early_stopping::{EarlyStopping, Verdict};
use crate::classify::layers::Dropout;
use crate::classify::loss::Loss;
use crate::classify::optimiser::AdamW;
use crate::classify::schedule::CosineWarmRestarts;
use crate::evaluate::Epoch;
use crate::recipe;

/// Features (N, D) with multi-hot targets (N, C).
#[derive(Clone, Copy)]
pub struct Examples<'a> {
    /// (N, D), standardised.
    pub features: ArrayView2<'a, f32>,
    /// (N, C).
    pub targets: ArrayView2<'a, f32>,
}

/// What training gave.
pub struct Trained {
    /// The network of the best epoch; of the last one, where there was no validation clip.
    pub network: Network<f32>,
    /// Every epoch, in order.
    pub curves: Vec<Epoch>,
    /// The epoch (counted from 1) whose network was kept.
    pub kept: usize,
}

/// Trains a network of `settings` on `train` (N ≥ 2), watching `valid`, which may be empty: then every epoch is trained and
/// the last one kept.
///
/// Each epoch shuffles the clips and goes through as many whole batches as there are (the rest is left out, as
/// `drop_last=True`; fewer clips than a batch are one batch). The schedule moves on after each step to
/// epoch + step / steps, as PyTorch's documentation has it. Weights, shuffling and dropout are three streams of one
/// generator (xoshiro256++), so a seed gives the same network on one machine, however many threads.
pub fn train(
    settings: &recipe::Mlp,
    train: Examples<'_>,
    valid: Examples<'_>,
    seed: u64,
    threads: usize,
    progress: &mut dyn FnMut(&Epoch),
) -> Trained {
    let mut streams = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut weights = streams.clone();
    streams.jump();
    let mut shuffle = streams.clone();
    streams.jump();
    let mut dropout = Dropout::new(settings.dropout, streams);

    let (count, inputs) = train.features.dim();
    let classes = train.targets.ncols();
    let loss = Loss::CrossEntropy;
    let mut network = Network::new(inputs, settings.hidden, classes, &mut weights, threads);
    let mut best = network.clone();
    let mut optimiser = AdamW::new(settings.weight_decay);
    let schedule = CosineWarmRestarts {
        peak: settings.learning_rate,
        restart_every: settings.restart_every,
        restart_factor: settings.restart_factor,
    };
    let mut stopping = EarlyStopping::new(settings.patience);

    let size = settings.batch.min(count);
    let steps = count / size;
    let mut order: Vec<usize> = (0..count).collect();
    let mut batch = Array2::zeros((size, inputs));
    let mut targets = Array2::zeros((size, classes));
    let mut rate = schedule.rate(0.0);
    let mut curves = Vec::new();
    let mut kept = 0;
    for epoch in 0..settings.epochs {
        order.shuffle(&mut shuffle);
        let (mut loss_sum, mut correct, mut last_rate) = (0.0, 0, rate);
        for (step, chosen) in order.chunks_exact(size).enumerate() {
            for (row, &clip) in chosen.iter().enumerate() {
                batch.row_mut(row).assign(&train.features.row(clip));
                targets.row_mut(row).assign(&train.targets.row(clip));
            }
            let (value, right) = network.learn(batch.view(), targets.view(), loss, &mut dropout);
            optimiser.step(&mut network.parameters(), rate, threads);
            loss_sum += value;
            correct += right;
            last_rate = rate;
            rate = schedule.rate(epoch as f64 + step as f64 / steps as f64);
        }
        let (val_loss, val_accuracy) = if valid.features.nrows() == 0 {
            (f64::NAN, f64::NAN)
        } else {
            let logits = network.logits(valid.features);
            let right = count_correct(logits.view(), valid.targets);
            (loss.value(logits.view(), valid.targets), right as f64 / valid.features.nrows() as f64)
        };
        let point = Epoch {
            epoch: epoch + 1,
            train_loss: loss_sum / steps as f64,
            train_accuracy: correct as f64 / (steps * size) as f64,
            val_loss,
            val_accuracy,
            learning_rate: last_rate,
        };
        progress(&point);
        curves.push(point);
        let verdict =
            if valid.features.nrows() == 0 { Verdict::Better } else { stopping.observe(val_accuracy, val_loss) };
        match verdict {
            Verdict::Better => {
                network.copy_state(&mut best);
                kept = epoch + 1;
            }
            Verdict::Wait => {}
            Verdict::Stop => break,
        }
    }
    Trained { network: best, curves, kept }
}
