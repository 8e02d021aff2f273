//! A training session: epochs, validation, checkpoints and early stopping.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use kinoprobe::cancel::CancellationToken;
use kinoprobe::classify::loss::score;
use kinoprobe::classify::training::{EpochSelection, Validation};
use kinoprobe::classify::{ScheduleKind, TrainingSettings};
use kinoprobe::dataset::Task;
use kinoprobe::error::{Error, Result};
use kinoprobe::evaluate::{Epoch, unix_time};
use ndarray::{Array2, Axis, concatenate};

use super::checkpoint::{self, CheckpointHeader, EpochRecord, NETWORK_FILE};
use super::learner::Learner;
use super::recipe::{TrainRecipe, own_key};
use super::torch::{load, save};
use super::{FrameCache, Loader, Samples};

/// The clips of a session, by position in the frame cache.
pub struct SessionData {
    /// Single-label or multi-label.
    pub task: Task,
    /// Training clips; without targets in contrastive pre-training.
    pub train: Samples,
    /// Validation clips, if any.
    pub val: Option<Samples>,
    /// Clips of the self-supervised task.
    pub pool: Vec<usize>,
}

/// Files and resources of a session.
pub struct SessionOptions<'a> {
    /// Directory of the run.
    pub out: &'a Path,
    /// Continue after the last complete epoch of an interrupted session.
    pub resume: bool,
    /// What else must be the same when training continues; see [`CheckpointHeader`].
    pub inputs: BTreeMap<String, String>,
    /// Number of threads that prepare batches; the results do not depend on it.
    pub workers: usize,
}

/// Receives the progress of a session.
pub trait Observer {
    /// Called after each step, counted from 0, with its loss.
    fn step(&self, epoch: usize, step: usize, steps: usize, loss: f64);
    /// Called after the checkpoint of each epoch has been written, with all complete epochs.
    ///
    /// # Errors
    /// An error ends training.
    fn epoch(&self, history: &[EpochRecord]) -> Result<()>;
}

/// A network that is trained on cached frames.
pub struct Session<'a> {
    recipe: &'a TrainRecipe,
    cache: &'a FrameCache,
    data: SessionData,
    options: SessionOptions<'a>,
    learner: Learner<'a>,
    selection: EpochSelection,
    history: Vec<EpochRecord>,
    /// `true` if training has ended early.
    stopped: bool,
}

impl<'a> Session<'a> {
    /// Creates a session, or continues one.
    ///
    /// # Errors
    /// Returns an error if the directory has a checkpoint and `resume` is not set, or one of other settings.
    pub fn new(
        recipe: &'a TrainRecipe,
        cache: &'a FrameCache,
        data: SessionData,
        learner: Learner<'a>,
        options: SessionOptions<'a>,
    ) -> Result<Self> {
        let selection = EpochSelection::new(&recipe.training, data.task);
        let selection = selection.map_err(|error| Error::Data(own_key(error.to_string())))?;
        let mut session =
            Self { recipe, cache, data, options, learner, selection, history: Vec::new(), stopped: false };
        if let Some(header) = checkpoint::read_header(session.options.out)? {
            session.resume(header)?;
        }
        Ok(session)
    }

    fn resume(&mut self, header: CheckpointHeader) -> Result<()> {
        let SessionOptions { out, resume, inputs, .. } = &self.options;
        let path = checkpoint::path(out);
        if !resume {
            let epochs = header.history.len();
            return Err(Error::Config {
                path,
                message: format!(
                    "the directory has a network that was trained for {epochs} epochs: --resume continues its training, or choose \
                     another --out"
                ),
            });
        }
        header.check(&path, &fixed_settings(self.recipe), inputs)?;
        self.learner.restore(checkpoint::read_state(out, self.learner.network.parameters.device())?)?;
        for record in &header.history {
            self.stopped = self.selection.observe(record.validation).stop;
        }
        self.history = header.history;
        Ok(())
    }

    /// Trains the remaining epochs. The network of the best epoch is in `network.safetensors` afterwards.
    ///
    /// # Errors
    /// Returns an error if training diverges, a file cannot be read or written, libtorch fails, or the session is cancelled. The
    /// checkpoint of the last complete epoch remains.
    pub fn train(&mut self, observer: &dyn Observer, cancel: &CancellationToken) -> Result<()> {
        let (recipe, cache, workers) = (self.recipe, self.cache, self.options.workers);
        let loader = Loader::new(cache, recipe, self.data.train.clone(), self.data.pool.clone(), workers)?;
        let val = self.data.val.clone().map(|val| Loader::new(cache, recipe, val, vec![], workers)).transpose()?;
        for epoch in self.history.len()..recipe.training.epochs {
            if self.stopped {
                break;
            }
            let start = Instant::now();
            let mut record = self.train_epoch(&loader, epoch, observer, cancel)?;
            if let (Some(val), Some(loss)) = (&val, self.learner.loss()) {
                let logits = self.logits(val, cancel)?;
                let validation = Validation::new(self.data.task, loss, &logits, &val.samples().targets);
                (record.epoch.val_loss, record.epoch.val_score) = (validation.loss, validation.score);
                record.validation = Some(validation);
            }
            record.seconds = start.elapsed().as_secs_f64();
            record.epoch.time = unix_time();
            let verdict = self.selection.observe(record.validation);
            self.stopped = verdict.stop;
            self.history.push(record);
            if verdict.keep {
                save(&self.options.out.join(NETWORK_FILE), &self.learner.network.tensors(), &Default::default())?;
            }
            // The network first: if only this file is missing after an interruption, the epoch is repeated and writes both.
            let header = CheckpointHeader {
                recipe: fixed_settings(recipe),
                inputs: self.options.inputs.clone(),
                history: self.history.clone(),
            };
            checkpoint::write(self.options.out, &header, &self.learner.state())?;
            observer.epoch(&self.history)?;
        }
        Ok(())
    }

    fn train_epoch(
        &mut self,
        loader: &Loader<'_>,
        epoch: usize,
        observer: &dyn Observer,
        cancel: &CancellationToken,
    ) -> Result<EpochRecord> {
        let start = Instant::now();
        let (mut losses, mut rotation_losses, mut windows) = (Vec::new(), Vec::new(), 0);
        let (mut logits, mut clips) = (Vec::new(), Vec::new());
        let steps = loader.steps();
        let waited = std::thread::scope(|scope| -> Result<Duration> {
            let mut batches = loader.train(scope, epoch, 0);
            for batch in batches.by_ref() {
                cancel.check()?;
                let batch = batch?;
                let result = self.learner.step(&batch, epoch, steps)?;
                observer.step(epoch, batch.step, steps, result.loss);
                losses.push(result.loss);
                rotation_losses.extend(result.rotation_loss);
                logits.push(result.logits);
                clips.extend_from_slice(&batch.clips);
                windows += batch.windows.iter().sum::<usize>();
                loader.recycle(batch);
            }
            Ok(batches.waited())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let train_score = if self.learner.loss().is_some() {
            let targets = loader.samples().targets.select(Axis(0), &clips);
            score(self.data.task, &stacked(&logits), &targets)
        } else {
            f64::NAN
        };
        let epoch = Epoch {
            epoch: epoch + 1,
            train_loss: mean(&losses),
            train_score,
            val_loss: f64::NAN,
            val_score: f64::NAN,
            learning_rate: self.learner.rate(epoch, steps - 1, steps),
            time: 0.0,
        };
        Ok(EpochRecord {
            epoch,
            validation: None,
            rotation_loss: (!rotation_losses.is_empty()).then(|| mean(&rotation_losses)),
            windows_per_second: windows as f64 / seconds.max(1e-9),
            waiting: (waited.as_secs_f64() / seconds.max(1e-9)).min(1.0),
            seconds,
        })
    }

    /// Replaces the parameters by those of the best epoch.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or does not match.
    pub fn restore_best(&mut self) -> Result<()> {
        let path = self.options.out.join(NETWORK_FILE);
        let network = &mut self.learner.network;
        let mut tensors: BTreeMap<_, _> = network.parameters.tensors().into_iter().collect();
        tensors.extend(load(&path, network.parameters.device())?);
        network.parameters.restore(tensors)
    }

    /// Computes the pooled logits of clips in evaluation mode, (N, C).
    ///
    /// # Errors
    /// Returns an error if frames cannot be read, libtorch fails or the session is cancelled.
    pub fn predict(&self, samples: Samples, cancel: &CancellationToken) -> Result<Array2<f32>> {
        self.logits(&Loader::new(self.cache, self.recipe, samples, vec![], self.options.workers)?, cancel)
    }

    fn logits(&self, loader: &Loader<'_>, cancel: &CancellationToken) -> Result<Array2<f32>> {
        let mut logits = Vec::new();
        std::thread::scope(|scope| -> Result<()> {
            for batch in loader.evaluate(scope) {
                cancel.check()?;
                let batch = batch?;
                logits.push(self.learner.logits(&batch)?);
                loader.recycle(batch);
            }
            Ok(())
        })?;
        Ok(stacked(&logits))
    }

    /// Returns the complete epochs.
    pub fn history(&self) -> &[EpochRecord] {
        &self.history
    }

    /// Returns the epoch whose network is kept, counted from 1.
    pub fn kept_epoch(&self) -> usize {
        self.selection.kept_epoch()
    }

    /// Returns the learner.
    pub fn learner(&self) -> &Learner<'a> {
        &self.learner
    }
}

/// Returns the settings that must not change when training continues, as TOML: all but the patience and the number of epochs. The
/// latter may change unless the schedule depends on it.
fn fixed_settings(recipe: &TrainRecipe) -> String {
    let mut recipe = recipe.clone();
    let TrainingSettings { epochs, patience, .. } = TrainingSettings::default();
    recipe.training.patience = patience;
    if recipe.schedule.kind != ScheduleKind::Cosine {
        recipe.training.epochs = epochs;
    }
    toml::to_string(&recipe).expect("a recipe serializes to TOML")
}

fn stacked(logits: &[Array2<f32>]) -> Array2<f32> {
    let views: Vec<_> = logits.iter().map(|logits| logits.view()).collect();
    concatenate(Axis(0), &views).expect("all batches have the same classes")
}
