//! Parameters of a network in training.

use std::collections::{BTreeMap, HashMap};

use kinoprobe::error::{Error, Result};
use kinoprobe::models::graph::{Parameter, Role};
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::parameters::{ParameterSource, check_shapes};
use tch::{Device, Kind, Tensor};

use super::{file, initialize, preferred_format, shape, torch};

/// A parameter and its values.
#[derive(Debug)]
pub struct TorchParameter {
    /// Name, shape and role.
    pub parameter: Parameter,
    /// Values. Training changes them in place.
    pub tensor: Tensor,
    /// `false` for running statistics and for frozen parameters.
    pub trainable: bool,
}

/// The parameters of a network, and of the heads on it, in the order in which layers read them.
#[derive(Debug)]
pub struct TorchParameters {
    device: Device,
    parameters: Vec<TorchParameter>,
    positions: HashMap<String, usize>,
}

impl TorchParameters {
    /// Creates an empty set on a device.
    pub fn new(device: Device) -> Self {
        Self { device, parameters: Vec::new(), positions: HashMap::new() }
    }

    /// Returns the device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the element type.
    pub fn kind(&self) -> Kind {
        self.parameters.first().map_or(Kind::Float, |entry| entry.tensor.kind())
    }

    /// Adds `parameters` with the values of `source`. The source is checked by its own
    /// [`check`](ParameterSource::check), which the caller calls.
    ///
    /// # Errors
    /// Returns an error if a value cannot be read or a name exists already.
    pub fn read(&mut self, parameters: &[Parameter], source: &dyn ParameterSource) -> Result<()> {
        parameters.iter().try_for_each(|parameter| self.push(parameter, &source.read(parameter)?))
    }

    /// Adds `parameters` with the initial values of an architecture, or of a classifier head (`None`), as PyTorch's
    /// constructors initialize them. The random values depend on the seed and the names only.
    ///
    /// # Errors
    /// Returns an error for architectures that cannot be trained, or if a name exists already.
    pub fn initialize(
        &mut self,
        architecture: Option<Architecture>,
        parameters: &[Parameter],
        seed: u64,
    ) -> Result<()> {
        let values = initialize::values(architecture, parameters, seed)?;
        parameters.iter().zip(values).try_for_each(|(parameter, values)| self.push(parameter, &values))
    }

    fn push(&mut self, parameter: &Parameter, values: &[f32]) -> Result<()> {
        if self.positions.insert(parameter.name.clone(), self.parameters.len()).is_some() {
            return Err(Error::Data(format!("two parameters are named {}", parameter.name)));
        }
        let trainable = !matches!(parameter.role, Role::RunningMean | Role::RunningVariance);
        let tensor = torch(Tensor::f_from_slice(values).and_then(|values| values.f_reshape(shape(&parameter.shape))))?;
        let tensor = preferred_format(torch(tensor.f_to_device(self.device))?)?;
        let tensor = torch(tensor.f_set_requires_grad(trainable))?;
        self.parameters.push(TorchParameter { parameter: parameter.clone(), tensor, trainable });
        Ok(())
    }

    /// Checks that a parameter is below each of `prefixes`.
    ///
    /// # Errors
    /// Returns an error that names the first prefix without a parameter.
    pub fn check_prefixes<'p>(&self, prefixes: impl IntoIterator<Item = &'p String>) -> Result<()> {
        for prefix in prefixes {
            if !self.parameters.iter().any(|entry| is_below(&entry.parameter.name, prefix)) {
                return Err(self.no_such_prefix(prefix));
            }
        }
        Ok(())
    }

    /// Freezes the parameters below each of `prefixes`, such as `layer1` or `layer4.0.conv1`: they receive no gradients, and
    /// batch normalizations keep their statistics.
    ///
    /// # Errors
    /// Returns an error if no parameter is below a prefix.
    pub fn freeze(&mut self, prefixes: &[String]) -> Result<()> {
        for prefix in prefixes {
            let mut found = false;
            for parameter in self.parameters.iter_mut().filter(|entry| is_below(&entry.parameter.name, prefix)) {
                found = true;
                parameter.trainable = false;
                parameter.tensor = torch(parameter.tensor.f_set_requires_grad(false))?;
            }
            if !found {
                return Err(self.no_such_prefix(prefix));
            }
        }
        Ok(())
    }

    /// Returns the factor on the learning rate of each trainable parameter, in their order: that of the longest of the
    /// prefixes in `factors` that the parameter is below, or 1.
    ///
    /// # Errors
    /// Returns an error if no parameter is below a prefix.
    pub fn rate_factors(&self, factors: &[(String, f64)]) -> Result<Vec<f64>> {
        self.check_prefixes(factors.iter().map(|(prefix, _)| prefix))?;
        let factor = |entry: &TorchParameter| {
            let matching = factors.iter().filter(|(prefix, _)| is_below(&entry.parameter.name, prefix));
            matching.max_by_key(|(prefix, _)| prefix.len()).map_or(1.0, |(_, factor)| *factor)
        };
        Ok(self.trainable().map(factor).collect())
    }

    fn no_such_prefix(&self, prefix: &str) -> Error {
        let mut layers: Vec<&str> =
            self.parameters.iter().filter_map(|entry| entry.parameter.name.split('.').next()).collect();
        layers.dedup();
        Error::Data(format!("no parameter is below {prefix}: choose from {}, or longer names", layers.join(", ")))
    }

    /// Returns the values of a parameter.
    ///
    /// # Errors
    /// Returns an error if there is no parameter of this name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.entry(name).map(|entry| &entry.tensor)
    }

    /// Returns `true` if a parameter is trained.
    ///
    /// # Errors
    /// Returns an error if there is no parameter of this name.
    pub fn is_trainable(&self, name: &str) -> Result<bool> {
        self.entry(name).map(|entry| entry.trainable)
    }

    fn entry(&self, name: &str) -> Result<&TorchParameter> {
        let position = self.positions.get(name);
        position.map(|position| &self.parameters[*position]).ok_or_else(|| Error::Data(format!("no parameter {name}")))
    }

    /// Returns all parameters.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &TorchParameter> {
        self.parameters.iter()
    }

    /// Returns the parameters that are trained.
    pub fn trainable(&self) -> impl Iterator<Item = &TorchParameter> {
        self.parameters.iter().filter(|entry| entry.trainable)
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&self) {
        self.trainable().for_each(|entry| entry.tensor.shallow_clone().zero_grad());
    }

    /// Replaces the values of all parameters by tensors that [`TorchParameters::tensors`] returned.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unexpected or misshapen.
    pub fn restore(&mut self, mut tensors: BTreeMap<String, Tensor>) -> Result<()> {
        for entry in &self.parameters {
            let name = &entry.parameter.name;
            let saved = tensors.remove(name).filter(|saved| saved.size() == entry.tensor.size());
            let saved = saved.ok_or_else(|| Error::Data(format!("the tensor {name} is missing or misshapen")))?;
            torch(tch::no_grad(|| entry.tensor.shallow_clone().f_copy_(&saved)))?;
        }
        match tensors.into_keys().next() {
            Some(name) => Err(Error::Data(format!("unexpected tensor {name}"))),
            None => Ok(()),
        }
    }

    /// Returns the names and values of all parameters, for [`save`](super::save). The values are shared, not copied.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.parameters.iter().map(|entry| (entry.parameter.name.clone(), entry.tensor.shallow_clone())).collect()
    }
}

/// Returns `true` if a name equals a prefix, or continues it after a dot.
pub(crate) fn is_below(name: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('.');
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns the current values. Other parameters, such as those of heads, are ignored by
/// [`check`](ParameterSource::check).
impl ParameterSource for TorchParameters {
    fn check(&self, network: &str, parameters: &[Parameter], _: &dyn Fn(&str) -> bool) -> Result<()> {
        let shapes = self.parameters.iter().map(|entry| (entry.parameter.name.as_str(), &entry.parameter.shape[..]));
        check_shapes(shapes.collect(), network, parameters, &|_| true)
            .map_err(|message| Error::Data(format!("parameters in training: {message}")))
    }

    fn read(&self, parameter: &Parameter) -> Result<Vec<f32>> {
        file::values(self.get(&parameter.name)?)
    }
}
