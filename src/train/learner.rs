//! Training steps: forward pass, loss, backward pass and update.

use std::collections::BTreeMap;

use kinoprobe::classify::loss::Loss;
use kinoprobe::classify::schedule::Schedule;
use kinoprobe::error::{Error, Result};
use kinoprobe::models::graph::Mode;
use kinoprobe::models::nets::head::Head;
use kinoprobe::store::Pooling;
use ndarray::Array2;
use rand::Rng;
use tch::{Device, Kind, Reduction, Tensor};

use super::Batch;
use super::losses;
use super::network::{TrainNetwork, is_of};
use super::optimizer::Optimizer;
use super::precision::{LossScale, autocast};
use super::random::{Purpose, generator};
use super::recipe::{MixedPrecision, TrainRecipe};
use super::torch::torch;

/// Number of windows per forward pass in evaluation, which bounds its memory.
const EVALUATION_WINDOWS: i64 = 64;

/// A network with the state of its training: optimizers and loss scale.
pub struct Learner<'a> {
    recipe: &'a TrainRecipe,
    /// The network.
    pub network: TrainNetwork,
    /// The supervised loss; `None` in contrastive pre-training.
    loss: Option<Loss>,
    /// The optimizer of the main loss, and that of the rotation task.
    optimizers: Vec<(Optimizer, Schedule)>,
    scale: LossScale,
}

/// Result of a training step.
pub struct StepResult {
    /// Main loss.
    pub loss: f64,
    /// Loss of the rotation task, if any, before weighting.
    pub rotation_loss: Option<f64>,
    /// Pooled logits of the clips, (N, C); no columns in contrastive pre-training.
    pub logits: Array2<f32>,
}

impl<'a> Learner<'a> {
    /// Creates the state of training before the first step. `loss` is `None` in contrastive pre-training.
    ///
    /// # Errors
    /// Returns an error if nothing is trained, or a prefix of the learning rates matches no parameter.
    pub fn new(recipe: &'a TrainRecipe, network: TrainNetwork, loss: Option<Loss>) -> Result<Self> {
        let factors: Vec<(String, f64)> =
            recipe.network.rates.iter().map(|(prefix, &factor)| (prefix.clone(), factor)).collect();
        let schedule = |rate: f64| Schedule::new(&recipe.schedule, rate, recipe.training.epochs);
        let main = Optimizer::new(&recipe.optimizer, &network.parameters, &factors)?;
        let optimizers = match (&recipe.rotations, &network.auxiliary, &network.classifier) {
            (Some(rotations), Some(head), Some(classifier)) => {
                let second = Optimizer::new(&rotations.optimizer, &network.parameters, &factors)?;
                vec![
                    (main.only(|name| !is_of(&head.name, name)), schedule(recipe.optimizer.learning_rate)),
                    (second.only(|name| !is_of(&classifier.name, name)), schedule(rotations.optimizer.learning_rate)),
                ]
            }
            _ => vec![(main, schedule(recipe.optimizer.learning_rate))],
        };
        let scale = LossScale::new(recipe.precision == MixedPrecision::F16 && network.parameters.device().is_cuda());
        Ok(Self { recipe, network, loss, optimizers, scale })
    }

    /// Returns the supervised loss; `None` in contrastive pre-training.
    pub fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// Returns the learning rate of a step, of `steps` in the epoch; epoch and step count from 0.
    pub fn rate(&self, epoch: usize, step: usize, steps: usize) -> f64 {
        self.optimizers[0].1.rate(epoch, step, steps)
    }

    /// Runs one training step. Everything random in it is a function of the seed, the epoch and the step.
    ///
    /// # Errors
    /// Returns an error if the loss is not finite, or libtorch fails, such as for too little memory.
    pub fn step(&mut self, batch: &Batch, epoch: usize, steps: usize) -> Result<StepResult> {
        let counters = [epoch, batch.step].map(|counter| counter as u64);
        tch::manual_seed(generator(self.recipe.seed, Purpose::Dropout, &counters).r#gen());
        let (loss, logits) = match (self.recipe.contrastive.as_ref(), &self.loss) {
            (Some(contrastive), _) => (self.contrastive_loss(batch, contrastive.temperature)?, None),
            (None, Some(loss)) => {
                let (value, logits) = self.supervised_loss(batch, loss)?;
                (value, Some(logits))
            }
            (None, None) => return Err(Error::Data("a recipe without labels needs [contrastive]".into())),
        };
        let value = self.update(0, &loss, epoch, batch.step, steps)?;
        let rotation_loss = match (&self.recipe.rotations, batch.rotation_labels.is_empty()) {
            (Some(rotations), false) => {
                let loss = self.rotation_loss(batch)?;
                let weighted = torch(loss.f_mul_scalar(rotations.weight_in(epoch)))?;
                self.update(1, &weighted, epoch, batch.step, steps)?;
                Some(scalar(&loss)?)
            }
            _ => None,
        };
        let logits = match logits {
            Some(logits) => to_array(&logits)?,
            None => Array2::zeros((batch.clips.len(), 0)),
        };
        Ok(StepResult { loss: value, rotation_loss, logits })
    }

    /// Computes the pooled logits of the clips of a batch in evaluation mode, (N, C).
    ///
    /// # Errors
    /// Returns the error of libtorch, such as too little memory.
    pub fn logits(&self, batch: &Batch) -> Result<Array2<f32>> {
        let classifier = self.classifier()?;
        let windows = self.tensor(&batch.inputs, &batch.shape, Device::Cpu)?;
        let logits = tch::no_grad(|| {
            let parts = torch(windows.f_split(EVALUATION_WINDOWS, 0))?;
            let parts = parts.into_iter().map(|part| {
                let part = torch(part.f_to_device(self.device()))?;
                autocast(self.precision(), || {
                    let embedding = self.network.embedding(&part, Mode::Eval)?;
                    self.network.apply(classifier, embedding, Mode::Eval)
                })
            });
            let parts = parts.collect::<Result<Vec<_>>>()?;
            self.pooled(&torch(Tensor::f_cat(&parts, 0))?, &batch.windows)
        })?;
        to_array(&logits)
    }

    fn supervised_loss(&self, batch: &Batch, loss: &Loss) -> Result<(Tensor, Tensor)> {
        let windows = self.tensor(&batch.inputs, &batch.shape, self.device())?;
        let classifier = self.classifier()?;
        let logits = autocast(self.precision(), || {
            let embedding = self.network.embedding(&windows, Mode::Train)?;
            self.network.apply(classifier, embedding, Mode::Train)
        })?;
        let logits = self.pooled(&logits, &batch.windows)?;
        let clips = batch.clips.len();
        let targets = self.tensor(&batch.targets, &[clips, batch.targets.len() / clips], self.device())?;
        Ok((losses::loss(loss, &logits, &targets, self.recipe.label_smoothing)?, logits))
    }

    fn contrastive_loss(&self, batch: &Batch, temperature: f64) -> Result<Tensor> {
        let views = [&batch.inputs, &batch.second_views].map(|view| self.tensor(view, &batch.shape, self.device()));
        let [first, second] = views;
        let views = torch(Tensor::f_cat(&[first?, second?], 0))?;
        let projected = autocast(self.precision(), || self.auxiliary_output(&views))?;
        let parts = torch(projected.f_chunk(2, 0))?;
        losses::nt_xent(&parts[0], &parts[1], temperature)
    }

    fn rotation_loss(&self, batch: &Batch) -> Result<Tensor> {
        let mut shape = batch.shape.clone();
        shape[0] = batch.rotation_labels.len();
        let frames = self.tensor(&batch.rotated, &shape, self.device())?;
        let labels = torch(Tensor::f_from_slice(&batch.rotation_labels).and_then(|t| t.f_to_device(self.device())))?;
        let logits = autocast(self.precision(), || self.auxiliary_output(&frames))?;
        torch(
            logits
                .f_to_kind(Kind::Float)
                .and_then(|logits| logits.f_cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)),
        )
    }

    fn auxiliary_output(&self, windows: &Tensor) -> Result<Tensor> {
        let head =
            self.network.auxiliary.as_ref().ok_or_else(|| Error::Data("the network has no second head".into()))?;
        let embedding = self.network.embedding(windows, Mode::Train)?;
        self.network.apply(head, embedding, Mode::Train)
    }

    fn classifier(&self) -> Result<&Head> {
        self.network.classifier.as_ref().ok_or_else(|| Error::Data("the network has no classifier".into()))
    }

    /// Computes the gradients of a loss and updates the parameters with one of the optimizers. Returns the loss.
    fn update(&mut self, optimizer: usize, loss: &Tensor, epoch: usize, step: usize, steps: usize) -> Result<f64> {
        let value = scalar(loss)?;
        if !value.is_finite() {
            return Err(Error::Data(format!(
                "epoch {}, step {}: the loss is {value}; lower the learning rate, or set clip_norm; the network of the best \
                 complete epoch is kept",
                epoch + 1,
                step + 1
            )));
        }
        self.network.parameters.zero_gradients();
        torch(self.scale.scaled(loss).and_then(|loss| loss.f_backward()))?;
        let (optimizer, schedule) = &mut self.optimizers[optimizer];
        let finite = torch(self.scale.unscale(optimizer.gradients()))?;
        if finite {
            if let Some(limit) = self.recipe.clip_norm {
                optimizer.clip_gradients(limit)?;
            }
            optimizer.step(schedule.rate(epoch, step, steps))?;
        }
        self.scale.update(finite);
        Ok(value)
    }

    /// Pools logits (M, C) over the windows of each clip: (N, C).
    fn pooled(&self, logits: &Tensor, windows: &[usize]) -> Result<Tensor> {
        let logits = torch(logits.f_to_kind(Kind::Float))?;
        if windows.iter().all(|&count| count == 1) {
            return Ok(logits);
        }
        let sizes: Vec<i64> = windows.iter().map(|&count| count as i64).collect();
        torch(logits.f_split_with_sizes(&sizes[..], 0).and_then(|clips| {
            let pooled = clips.iter().map(|clip| match self.recipe.pooling {
                Pooling::Max => clip.f_amax(0, false),
                _ => clip.f_mean_dim(0, false, Kind::Float),
            });
            Tensor::f_stack(&pooled.collect::<std::result::Result<Vec<_>, _>>()?, 0)
        }))
    }

    fn tensor(&self, values: &[f32], shape: &[usize], device: Device) -> Result<Tensor> {
        let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
        torch(Tensor::f_from_slice(values).and_then(|tensor| tensor.f_reshape(shape)?.f_to_device(device)))
    }

    fn device(&self) -> Device {
        self.network.parameters.device()
    }

    /// Returns the precision of the forward pass: mixed precision applies to CUDA only.
    fn precision(&self) -> MixedPrecision {
        if self.device().is_cuda() { self.recipe.precision } else { MixedPrecision::F32 }
    }

    /// Returns everything that further steps depend on, as named tensors: `network.NAME`, `optimizer0.NAME`, `optimizer1.NAME` and
    /// `loss_scale`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let network =
            self.network.parameters.tensors().into_iter().map(|(name, tensor)| (format!("network.{name}"), tensor));
        let optimizers = self.optimizers.iter().enumerate().flat_map(|(i, (optimizer, _))| {
            optimizer.state().into_iter().map(move |(name, tensor)| (format!("optimizer{i}.{name}"), tensor))
        });
        let scale = ("loss_scale".to_string(), Tensor::from_slice(&self.scale.state()));
        network.chain(optimizers).chain([scale]).collect()
    }

    /// Replaces the state by one that [`Learner::state`] returned.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unexpected or misshapen.
    pub fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()> {
        let mut parts: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        let mut scale = None;
        for (name, tensor) in state {
            match name.split_once('.') {
                Some((part, name)) => drop(parts.entry(part.into()).or_default().insert(name.into(), tensor)),
                None => scale = Some(tensor),
            }
        }
        self.network.parameters.restore(parts.remove("network").unwrap_or_default())?;
        for (i, (optimizer, _)) in self.optimizers.iter_mut().enumerate() {
            optimizer.restore(parts.remove(&format!("optimizer{i}")).unwrap_or_default())?;
        }
        let scale = scale.ok_or_else(|| Error::Data("the state of training has no loss scale".into()))?;
        self.scale.restore(&torch(Vec::<f32>::try_from(&scale))?);
        match parts.into_keys().next() {
            Some(part) => Err(Error::Data(format!("the state of training has an unexpected part, {part}"))),
            None => Ok(()),
        }
    }
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    torch(f64::try_from(tensor))
}

/// Copies a tensor (N, C).
fn to_array(tensor: &Tensor) -> Result<Array2<f32>> {
    let size = tensor.size();
    let flat = torch(tensor.f_detach().and_then(|t| t.f_to_device(Device::Cpu)?.f_contiguous()?.f_reshape([-1])))?;
    let values = torch(Vec::<f32>::try_from(&flat))?;
    let shape = (size[0] as usize, size[1] as usize);
    Ok(Array2::from_shape_vec(shape, values).expect("a tensor has as many values as its shape"))
}
