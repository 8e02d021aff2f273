//! The training loop that all trained networks share: shuffled batches, optimizer, schedule, early stopping.

use ndarray::{Array2, ArrayViewMut2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::early_stopping::{EarlyStopping, Verdict};
use super::layers::Parameter;
use super::loss::{Loss, binary_accuracy, score};
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use super::{Fitting, Task};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::Epoch;
use crate::recipe::{self, Watch};

/// A network that learns a batch at a time.
pub trait Learner {
    /// Forward and backward over the clips `chosen` of `data`: leaves the gradient of every parameter in its layer, writes
    /// the logits, (chosen, C), and gives the loss.
    fn learn(&mut self, data: &Dataset, chosen: &[usize], loss: &Loss, logits: ArrayViewMut2<'_, f32>) -> f64;

    /// Logits (N, C) of all clips, as for prediction.
    fn logits(&self, data: &Dataset) -> Array2<f32>;

    /// The parameters with their gradients, always in the same order.
    fn parameters(&mut self) -> Vec<Parameter<'_, f32>>;

    /// Everything a prediction needs, to keep the best epoch: the parameters, and averages that training leaves.
    fn state(&mut self) -> Vec<&mut [f32]>;
}

/// Independent streams of random numbers, all decided by one seed.
pub struct Streams {
    /// For drawing the weights.
    pub weights: Xoshiro256PlusPlus,
    /// For the order of the clips.
    pub order: Xoshiro256PlusPlus,
    /// For dropout.
    pub dropout: Xoshiro256PlusPlus,
    /// For windows of sequences.
    pub windows: Xoshiro256PlusPlus,
}

impl Streams {
    /// The streams of `seed`: one generator (xoshiro256++), each 2¹²⁸ numbers after the other.
    pub fn new(seed: u64) -> Self {
        let mut next = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut stream = || {
            let stream = next.clone();
            next.jump();
            stream
        };
        Self { weights: stream(), order: stream(), dropout: stream(), windows: stream() }
    }
}

/// How networks are trained: the parts of `[classify]` that do not depend on the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Trainer {
    /// What is minimized.
    pub loss: recipe::Loss,
    /// Batches, epochs, patience.
    pub training: recipe::Training,
    /// How gradients become steps.
    pub optimizer: recipe::Optimizer,
    /// The learning rate over time.
    pub schedule: recipe::Schedule,
}

/// What training gave.
pub struct Trained<L> {
    /// The network of the best epoch; of the last one, where there was no validation clip.
    pub network: L,
    /// Every epoch, in order.
    pub curves: Vec<Epoch>,
    /// The epoch (counted from 1) whose network was kept.
    pub kept: usize,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Trainer {
    /// The trainer of a recipe.
    pub fn of(settings: &recipe::Classify) -> Self {
        Self {
            loss: settings.loss.clone(),
            training: settings.training.clone(),
            optimizer: settings.optimizer.clone(),
            schedule: settings.schedule.clone(),
        }
    }

    /// Trains `network` on `train`, watching `valid`, which may be empty: then every epoch is trained and the last one kept.
    ///
    /// Each epoch shuffles the clips and goes through as many whole batches as there are (the rest is left out, as
    /// `drop_last=True`; fewer clips than a batch are one batch). A seed gives the same network on one machine, however
    /// many threads.
    ///
    /// # Errors
    /// A clip does not have the labels of the task; the loss does not suit it; the loss became infinite.
    pub fn train<L: Learner>(
        &self,
        mut network: L,
        train: &Dataset,
        valid: &Dataset,
        fitting: &mut Fitting<'_>,
    ) -> Result<Trained<L>> {
        let task = fitting.task;
        let keep = self.training.keep.unwrap_or(self.training.watch);
        if task == Task::SingleLabel && [self.training.watch, keep].contains(&Watch::BinaryAccuracy) {
            return Err(Error::Data(
                "classify.training: binary-accuracy is of several labels a clip; watch and keep score or loss".into(),
            ));
        }
        if task == Task::SingleLabel {
            train.single_labels()?;
            valid.single_labels()?;
        }
        let loss = Loss::new(&self.loss, task, train.targets.view())?;
        let mut optimizer = Optimizer::new(&self.optimizer);
        let schedule = Schedule::new(&self.schedule, self.optimizer.learning_rate, self.training.epochs);
        let mut stopping = EarlyStopping::new(self.training.patience);
        // The same rule chooses the epoch that is kept; it never stops.
        let mut keeping = EarlyStopping::new(usize::MAX);
        let mut shuffle = Streams::new(fitting.seed).order;

        let size = self.training.batch.min(train.len());
        let steps = train.len() / size;
        let mut order: Vec<usize> = (0..train.len()).collect();
        let mut logits = Array2::zeros((steps * size, train.targets.ncols()));
        let mut curves = Vec::new();
        let (mut best, mut kept) = (Vec::new(), 0);
        for epoch in 0..self.training.epochs {
            order.shuffle(&mut shuffle);
            let (mut loss_sum, mut rate) = (0.0, 0.0);
            let batches = order.chunks_exact(size).zip(logits.axis_chunks_iter_mut(Axis(0), size));
            for (step, (chosen, logits)) in batches.enumerate() {
                loss_sum += network.learn(train, chosen, &loss, logits);
                rate = schedule.rate(epoch, step, steps);
                optimizer.step(&mut network.parameters(), rate, fitting.threads);
            }
            let (val_loss, val_score, val_binary) = if valid.is_empty() {
                (f64::NAN, f64::NAN, f64::NAN)
            } else {
                let logits = network.logits(valid);
                (
                    loss.value(logits.view(), valid.targets.view()),
                    score(task, &logits, &valid.targets),
                    binary_accuracy(&logits, &valid.targets),
                )
            };
            let point = Epoch {
                epoch: epoch + 1,
                train_loss: loss_sum / steps as f64,
                train_score: score(task, &logits, &train.targets.select(Axis(0), &order[..steps * size])),
                val_loss,
                val_score,
                learning_rate: rate,
            };
            if !point.train_loss.is_finite() {
                return Err(Error::Data("training diverged: the loss is not finite; lower the learning rate".into()));
            }
            (fitting.progress)(&point);
            curves.push(point);
            let watched = |watch: Watch| match watch {
                Watch::Score => val_score,
                Watch::Loss => -val_loss,
                Watch::BinaryAccuracy => val_binary,
            };
            if valid.is_empty() || keeping.observe(watched(keep), val_loss) == Verdict::Better {
                kept = epoch + 1;
                copy(network.state(), &mut best);
            }
            if !valid.is_empty() && stopping.observe(watched(self.training.watch), val_loss) == Verdict::Stop {
                break;
            }
        }
        for (values, best) in network.state().into_iter().zip(&best) {
            values.copy_from_slice(best);
        }
        let mut notes = Vec::new();
        if valid.is_empty() {
            notes.push("no validation clip: trained for all epochs, and the last one is kept".into());
        }
        Ok(Trained { network, curves, kept, notes })
    }
}

fn copy(from: Vec<&mut [f32]>, to: &mut Vec<Vec<f32>>) {
    to.resize(from.len(), Vec::new());
    for (to, from) in to.iter_mut().zip(from) {
        to.clear();
        to.extend_from_slice(from);
    }
}

/// The word for what is watched.
pub fn measure(task: Task) -> &'static str {
    match task {
        Task::SingleLabel => "accuracy",
        Task::MultiLabel => "mAP",
    }
}
