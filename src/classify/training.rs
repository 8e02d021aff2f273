//! The training loop of trained classifiers: shuffled batches, optimizer, schedule and early stopping.

use ndarray::{Array2, ArrayViewMut2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::definition::positive;
use super::early_stopping::{Decision, EarlyStopping};
use super::layers::Parameter;
use super::loss::{Loss, LossSettings, binary_accuracy, score};
use super::optimizer::{Optimizer, OptimizerSettings};
use super::schedule::{Schedule, ScheduleSettings};
use super::{FitContext, FitOutput, Model, Task};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::{Epoch, unix_time};
use crate::value_parsers;

/// Settings of the training loop; the table `[classify.training]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSettings {
    /// Batch size, in clips.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(2_usize))]
    pub batch: usize,
    /// Maximum number of epochs.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub epochs: usize,
    /// Epochs without improvement before training stops.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub patience: usize,
    /// Validation metric for early stopping.
    #[arg(long, value_name = "METRIC")]
    pub watch: ValidationMetric,
    /// Validation metric that selects the epoch to keep [default: as --watch].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "METRIC")]
    pub keep: Option<ValidationMetric>,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self { batch: 64, epochs: 100, patience: 15, watch: ValidationMetric::Score, keep: None }
    }
}

impl TrainingSettings {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> std::result::Result<(), String> {
        positive("classify.training.epochs", self.epochs)?;
        positive("classify.training.patience", self.patience)?;
        if self.batch < 2 {
            return Err("classify.training.batch must be at least 2: batch normalization needs two clips".into());
        }
        Ok(())
    }
}

/// A metric of the validation split by which epochs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ValidationMetric {
    /// Accuracy (one label per clip) or mAP (several), higher is better; ties: lower loss.
    Score,
    /// Loss, lower is better.
    Loss,
    /// Share of correct (clip, label) pairs at a threshold of 0.5, higher is better; ties: lower loss. For several labels per
    /// clip. With sparse labels, predicting no label scores high.
    BinaryAccuracy,
}

/// Measurements of a network on the validation split after an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    /// Loss.
    pub loss: f64,
    /// Accuracy or mAP, in [0, 1].
    pub score: f64,
    /// Share of (clip, label) pairs that are classified correctly; see [`binary_accuracy`].
    pub binary_accuracy: f64,
}

impl Validation {
    /// Measures logits (N, C) against targets (N, C).
    pub fn new(task: Task, loss: &Loss, logits: &Array2<f32>, targets: &Array2<f32>) -> Self {
        Self {
            loss: loss.value(logits.view(), targets.view()),
            score: score(task, logits, targets),
            binary_accuracy: binary_accuracy(logits, targets),
        }
    }

    fn value(self, metric: ValidationMetric) -> f64 {
        match metric {
            ValidationMetric::Score => self.score,
            ValidationMetric::Loss => -self.loss,
            ValidationMetric::BinaryAccuracy => self.binary_accuracy,
        }
    }
}

/// What to do after an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Keep the parameters of this epoch.
    pub keep: bool,
    /// Stop training.
    pub stop: bool,
}

/// Selects the epoch to keep, and decides when to stop. Without validation clips, the last epoch is kept.
#[derive(Debug, Clone)]
pub struct EpochSelection {
    watch: ValidationMetric,
    keep: ValidationMetric,
    stopping: EarlyStopping,
    /// The kept epoch is selected by the same rule, without a patience limit.
    selection: EarlyStopping,
    epochs: usize,
    kept_epoch: usize,
}

impl EpochSelection {
    /// Creates the selection before the first epoch.
    ///
    /// # Errors
    /// Returns an error if a metric does not apply to the task.
    pub fn new(settings: &TrainingSettings, task: Task) -> Result<Self> {
        let (watch, keep) = (settings.watch, settings.keep.unwrap_or(settings.watch));
        if task == Task::SingleLabel && [watch, keep].contains(&ValidationMetric::BinaryAccuracy) {
            return Err(Error::Data(
                "classify.training: binary-accuracy applies to multi-label tasks; set watch and keep to score or loss"
                    .into(),
            ));
        }
        let stopping = EarlyStopping::new(settings.patience);
        Ok(Self { watch, keep, stopping, selection: EarlyStopping::new(usize::MAX), epochs: 0, kept_epoch: 0 })
    }

    /// Records the next epoch; `None` without validation clips.
    pub fn observe(&mut self, validation: Option<Validation>) -> Verdict {
        self.epochs += 1;
        let verdict = match validation {
            None => Verdict { keep: true, stop: false },
            Some(validation) => Verdict {
                keep: self.selection.observe(validation.value(self.keep), validation.loss) == Decision::Improved,
                stop: self.stopping.observe(validation.value(self.watch), validation.loss) == Decision::Stop,
            },
        };
        if verdict.keep {
            self.kept_epoch = self.epochs;
        }
        verdict
    }

    /// Returns the number of the epoch to keep, counted from 1; 0 before the first one.
    pub fn kept_epoch(&self) -> usize {
        self.kept_epoch
    }
}

/// A network that [`Trainer`] can train.
pub trait Trainable {
    /// Runs the forward and backward passes over the clips `batch` of `data`: stores the gradient of every parameter in its
    /// layer, writes the logits (batch, C) and returns the loss.
    ///
    /// # Errors
    /// Returns an error if the features cannot be read.
    fn train_step(
        &mut self,
        data: &Dataset,
        batch: &[usize],
        loss: &Loss,
        logits: ArrayViewMut2<'_, f32>,
    ) -> Result<f64>;

    /// Computes the logits (N, C) of all clips in evaluation mode.
    ///
    /// # Errors
    /// Returns an error if the features cannot be read.
    fn logits(&self, data: &Dataset) -> Result<Array2<f32>>;

    /// Returns the parameters and their gradients, always in the same order.
    fn parameters(&mut self) -> Vec<Parameter<'_, f32>>;

    /// Returns everything that predictions depend on, saved to keep the best epoch: the parameters, and running averages of networks that
    /// have them.
    fn state(&mut self) -> Vec<&mut [f32]> {
        self.parameters().into_iter().map(|parameter| parameter.values).collect()
    }
}

/// Independent random number generators, all derived from one seed.
pub struct RandomStreams {
    /// Initializes the weights.
    pub weights: Xoshiro256PlusPlus,
    /// Shuffles the clips.
    pub order: Xoshiro256PlusPlus,
    /// Draws dropout masks.
    pub dropout: Xoshiro256PlusPlus,
    /// Draws windows of sequences.
    pub windows: Xoshiro256PlusPlus,
}

impl RandomStreams {
    /// Creates the generators of `seed`: xoshiro256++ streams, each 2¹²⁸ numbers after the previous one.
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

/// The training loop: the settings of trained classifiers that do not depend on the network.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trainer {
    /// Loss.
    pub loss: LossSettings,
    /// Batch size, epochs and early stopping.
    pub training: TrainingSettings,
    /// Optimizer.
    pub optimizer: OptimizerSettings,
    /// Learning-rate schedule.
    pub schedule: ScheduleSettings,
}

/// The result of training.
pub struct Trained<N> {
    /// The network with the parameters of the kept epoch: the best one, or the last one without validation clips.
    pub network: N,
    /// All epochs, in order.
    pub curves: Vec<Epoch>,
    /// The epoch (counted from 1) whose parameters were kept.
    pub kept_epoch: usize,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl<N> Trained<N> {
    /// Returns the output of a fit for `task`, with the model of the network.
    pub fn output<M: Model + 'static>(self, task: Task, model: impl FnOnce(N) -> M) -> FitOutput {
        FitOutput {
            model: Box::new(model(self.network)),
            curves: self.curves,
            score_name: score_name(task),
            kept_epoch: Some(self.kept_epoch),
            notes: self.notes,
        }
    }
}

impl Trainer {
    /// Trains `network` on `train` with early stopping on `valid`. If `valid` is empty, all epochs are trained and the last
    /// one is kept.
    ///
    /// Each epoch shuffles the clips and drops the last incomplete batch (`drop_last=True` in PyTorch); fewer clips than a
    /// batch form one batch. For a given seed and machine the result does not depend on the number of threads.
    ///
    /// # Errors
    /// Returns an error if the labels or the loss do not suit the task, the features cannot be read, or the loss is not finite.
    pub fn train<N: Trainable>(
        &self,
        mut network: N,
        train: &Dataset,
        valid: &Dataset,
        context: &mut FitContext<'_>,
    ) -> Result<Trained<N>> {
        let task = context.task;
        let mut selection = EpochSelection::new(&self.training, task)?;
        if task == Task::SingleLabel {
            train.single_labels()?;
            valid.single_labels()?;
        }
        let loss = Loss::new(&self.loss, task, train.targets.view())?;
        let mut optimizer = Optimizer::new(&self.optimizer);
        let schedule = Schedule::new(&self.schedule, self.optimizer.learning_rate, self.training.epochs);
        let mut shuffle = RandomStreams::new(context.seed).order;

        let size = self.training.batch.min(train.len());
        let steps = train.len() / size;
        let mut order: Vec<usize> = (0..train.len()).collect();
        let mut logits = Array2::zeros((steps * size, train.targets.ncols()));
        let mut curves = Vec::new();
        let mut best_state = Vec::new();
        for epoch in 0..context.last_epoch.unwrap_or(self.training.epochs).min(self.training.epochs) {
            order.shuffle(&mut shuffle);
            let (mut loss_sum, mut rate) = (0.0, 0.0);
            let batches = order.chunks_exact(size).zip(logits.axis_chunks_iter_mut(Axis(0), size));
            for (step, (batch, logits)) in batches.enumerate() {
                loss_sum += network.train_step(train, batch, &loss, logits)?;
                rate = schedule.rate(epoch, step, steps);
                optimizer.step(&mut network.parameters(), rate, context.threads);
            }
            let validation = match valid.is_empty() {
                true => None,
                false => Some(Validation::new(task, &loss, &network.logits(valid)?, &valid.targets)),
            };
            let point = Epoch {
                epoch: epoch + 1,
                train_loss: loss_sum / steps as f64,
                train_score: score(task, &logits, &train.targets.select(Axis(0), &order[..steps * size])),
                val_loss: validation.map_or(f64::NAN, |validation| validation.loss),
                val_score: validation.map_or(f64::NAN, |validation| validation.score),
                learning_rate: rate,
                time: unix_time(),
            };
            if !point.train_loss.is_finite() {
                return Err(Error::Data("training diverged: the loss is not finite; lower the learning rate".into()));
            }
            (context.progress)(&point);
            curves.push(point);
            let verdict = selection.observe(validation);
            if verdict.keep {
                save_state(network.state(), &mut best_state);
            }
            if verdict.stop {
                break;
            }
        }
        for (values, best) in network.state().into_iter().zip(&best_state) {
            values.copy_from_slice(best);
        }
        let mut notes = Vec::new();
        if valid.is_empty() && context.last_epoch.is_none() {
            notes.push("no validation clips: trained for all epochs and kept the last one".into());
        }
        Ok(Trained { network, curves, kept_epoch: selection.kept_epoch(), notes })
    }
}

fn save_state(state: Vec<&mut [f32]>, saved: &mut Vec<Vec<f32>>) {
    saved.resize(state.len(), Vec::new());
    for (saved, values) in saved.iter_mut().zip(state) {
        saved.clear();
        saved.extend_from_slice(values);
    }
}

/// Returns the name of the score in learning curves.
pub fn score_name(task: Task) -> &'static str {
    match task {
        Task::SingleLabel => "accuracy",
        Task::MultiLabel => "mAP",
    }
}
