//! Optimizers on tensors, with a state that can be saved.

use std::collections::BTreeMap;

use kinoprobe::classify::optimizer::{BETA, EPSILON, UpdateRule};
use kinoprobe::classify::{OptimizerKind, OptimizerSettings};
use kinoprobe::error::{Error, Result};
use tch::{Device, Kind, Tensor, no_grad};

use super::torch::{TorchParameters, torch};
use super::update::update;

/// Name of the number of steps in the state.
const STEP: &str = "step";

/// SGD, Adam or AdamW. The update rules are those of [`kinoprobe::classify::optimizer::Optimizer`], which are PyTorch's.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    step: u32,
    parameters: Vec<Updated>,
}

/// A parameter that is updated, and its state.
#[derive(Debug)]
struct Updated {
    name: String,
    /// Shares its values with the network.
    tensor: Tensor,
    /// Factor on the learning rate.
    factor: f64,
    /// State by PyTorch's names: `momentum_buffer` of SGD after the first step, `exp_avg` and `exp_avg_sq` of Adam.
    moments: Vec<Tensor>,
}

impl Optimizer {
    /// Creates an optimizer of the trainable parameters. `factors` are factors on the learning rate by prefix of the
    /// parameter's name; see [`TorchParameters::rate_factors`]. The learning rate of `settings` is ignored; the schedule
    /// provides it at each step.
    ///
    /// # Errors
    /// Returns an error if no parameter is trainable, or none is below a prefix.
    pub fn new(settings: &OptimizerSettings, parameters: &TorchParameters, factors: &[(String, f64)]) -> Result<Self> {
        let factors = parameters.rate_factors(factors)?;
        let parameters: Vec<Updated> = parameters
            .trainable()
            .zip(factors)
            .map(|(entry, factor)| Updated {
                name: entry.parameter.name.clone(),
                tensor: entry.tensor.shallow_clone(),
                factor,
                moments: Vec::new(),
            })
            .collect();
        if parameters.is_empty() {
            return Err(Error::Data("all parameters are frozen: freeze fewer layers".into()));
        }
        Ok(Self { settings: settings.clone(), step: 0, parameters })
    }

    /// Keeps only the parameters whose name satisfies `condition`, so that several optimizers can share a network.
    #[must_use]
    pub fn only(mut self, condition: impl Fn(&str) -> bool) -> Self {
        self.parameters.retain(|updated| condition(&updated.name));
        self
    }

    /// Updates the parameters by their gradients, with the learning rate `rate`. Parameters without a gradient, which the
    /// loss did not depend on, are not changed.
    ///
    /// # Errors
    /// Returns an error if libtorch runs out of memory.
    pub fn step(&mut self, rate: f64) -> Result<()> {
        self.step += 1;
        let (settings, step) = (&self.settings, self.step);
        no_grad(|| {
            self.parameters.iter_mut().try_for_each(|updated| {
                let gradient = updated.tensor.grad();
                if !gradient.defined() {
                    return Ok(());
                }
                torch(updated.step(settings, gradient, rate * updated.factor, step))
            })
        })
    }

    /// Returns the gradients of the parameters that the last loss depends on. They are shared, not copied.
    pub fn gradients(&self) -> impl Iterator<Item = Tensor> {
        self.parameters.iter().map(|updated| updated.tensor.grad()).filter(Tensor::defined)
    }

    /// Scales the gradients so that their joint norm is at most `limit`, as `torch.nn.utils.clip_grad_norm_`, and returns the
    /// norm before. The gradients are unchanged if the norm is not finite.
    ///
    /// # Errors
    /// Returns an error if libtorch runs out of memory.
    pub fn clip_gradients(&self, limit: f64) -> Result<f64> {
        let gradients: Vec<Tensor> = self.gradients().collect();
        torch(no_grad(|| {
            let norms =
                gradients.iter().map(|gradient| gradient.f_norm()).collect::<std::result::Result<Vec<_>, _>>()?;
            let norm = f64::try_from(Tensor::f_stack(&norms, 0)?.f_norm()?)?;
            let factor = limit / (norm + 1e-6);
            if factor < 1.0 {
                for gradient in gradients {
                    let _ = gradient.shallow_clone().f_mul_scalar_(factor)?;
                }
            }
            Ok(norm)
        }))
    }

    /// Returns the state as named tensors: `step`, and for each parameter NAME `NAME.momentum_buffer`, or `NAME.exp_avg` and
    /// `NAME.exp_avg_sq`. The values are shared, not copied.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let step = Tensor::from_slice(&[self.step as f32]);
        let names = moment_names(self.settings.kind);
        let moments = self.parameters.iter().flat_map(|updated| {
            let named = names.iter().zip(&updated.moments);
            named.map(|(moment, tensor)| (format!("{}.{moment}", updated.name), tensor.shallow_clone()))
        });
        std::iter::once((STEP.to_owned(), step)).chain(moments).collect()
    }

    /// Replaces the state by one that [`Optimizer::state`] returned.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unexpected or misshapen.
    pub fn restore(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<()> {
        let invalid = |message: String| Error::Data(format!("state of the optimizer: {message}"));
        let step = state.remove(STEP).ok_or_else(|| invalid(format!("no tensor {STEP}")))?;
        self.step = torch(f64::try_from(step))? as u32;
        let names = moment_names(self.settings.kind);
        for updated in &mut self.parameters {
            let found = names.iter().filter_map(|moment| state.remove(&format!("{}.{moment}", updated.name)));
            updated.moments = found.collect();
            let complete = updated.moments.is_empty() || updated.moments.len() == names.len();
            if !complete || updated.moments.iter().any(|moment| moment.size() != updated.tensor.size()) {
                return Err(invalid(format!("tensors of {} are missing or misshapen", updated.name)));
            }
            for moment in &mut updated.moments {
                // In the memory format and on the device of the parameter.
                let mut restored = torch(updated.tensor.f_zeros_like())?;
                torch(no_grad(|| restored.f_copy_(moment).map(|_| ())))?;
                *moment = restored;
            }
        }
        match state.into_keys().next() {
            Some(name) => Err(invalid(format!("unexpected tensor {name}"))),
            None => Ok(()),
        }
    }
}

fn moment_names(kind: OptimizerKind) -> &'static [&'static str] {
    match kind {
        OptimizerKind::Sgd => &["momentum_buffer"],
        OptimizerKind::Adam | OptimizerKind::Adamw => &["exp_avg", "exp_avg_sq"],
    }
}

impl Updated {
    fn step(&mut self, settings: &OptimizerSettings, gradient: Tensor, rate: f64, step: u32) -> tch::Result<()> {
        let has_state = settings.kind != OptimizerKind::Sgd || settings.momentum > 0.0;
        if has_state {
            if self.moments.is_empty() {
                let moments = moment_names(settings.kind).iter().map(|_| self.tensor.f_zeros_like());
                self.moments = moments.collect::<tch::Result<_>>()?;
            }
            let rule = UpdateRule::new(settings, step as i32, rate);
            if update(&rule, &self.tensor, &gradient, &self.moments)? {
                return Ok(());
            }
        }
        match settings.kind {
            OptimizerKind::Sgd => self.sgd(settings, gradient, rate),
            OptimizerKind::Adam | OptimizerKind::Adamw => self.adam(settings, gradient, rate, step),
        }
    }

    /// Returns a constant for products, which take a tensor.
    fn constant(&self, value: f64) -> tch::Result<Tensor> {
        Tensor::f_scalar_tensor(value, (Kind::Float, Device::Cpu))?.f_to_device(self.tensor.device())
    }

    /// Returns the gradient with the L2 penalty, in new memory.
    fn penalized(&self, gradient: &Tensor, decay: f64) -> tch::Result<Tensor> {
        if decay == 0.0 { gradient.f_detach_copy() } else { gradient.f_addcmul(&self.tensor, &self.constant(decay)?) }
    }

    fn sgd(&mut self, settings: &OptimizerSettings, gradient: Tensor, rate: f64) -> tch::Result<()> {
        let mut gradient = self.penalized(&gradient, settings.weight_decay)?;
        if settings.momentum == 0.0 {
            return self.subtract(&gradient, rate);
        }
        let momentum = self.constant(settings.momentum)?;
        let buffer = self.moments[0].f_mul_(&momentum)?.f_add_(&gradient)?;
        if settings.nesterov {
            self.subtract(&gradient.f_addcmul_(&buffer, &momentum)?, rate)
        } else {
            self.subtract(&buffer, rate)
        }
    }

    fn subtract(&mut self, direction: &Tensor, rate: f64) -> tch::Result<()> {
        let rate = self.constant(-rate)?;
        self.tensor.f_addcmul_(direction, &rate).map(|_| ())
    }

    fn adam(&mut self, settings: &OptimizerSettings, gradient: Tensor, rate: f64, step: u32) -> tch::Result<()> {
        let decay = settings.weight_decay;
        let decoupled = settings.kind == OptimizerKind::Adamw;
        let gradient = if decoupled || decay == 0.0 { gradient } else { self.penalized(&gradient, decay)? };
        let _ = self.moments[0].f_lerp_(&gradient, 1.0 - BETA.0)?;
        let _ = self.moments[1].f_lerp_(&gradient.f_square()?, 1.0 - BETA.1)?;
        if rate == 0.0 {
            return Ok(());
        }
        if decoupled && decay != 0.0 {
            let _ = self.tensor.f_mul_scalar_(1.0 - rate * decay)?;
        }
        // θ − η/(1 − β₁ᵗ)·m / (√v/√(1 − β₂ᵗ) + ε), with the factor in the denominator.
        let rate = -rate / (1.0 - BETA.0.powi(step as i32));
        let correction = (1.0 - BETA.1.powi(step as i32)).sqrt();
        let mut denominator = self.moments[1].f_sqrt()?;
        let _ = denominator.f_mul_scalar_(1.0 / (rate * correction))?.f_add_scalar_(EPSILON / rate)?;
        self.tensor.f_addcdiv_(&self.moments[0], &denominator).map(|_| ())
    }
}
