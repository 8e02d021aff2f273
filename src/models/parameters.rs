//! Parameters of networks: which ones a definition has, and where their values come from.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::{Checkpoint, abbreviate};
use super::graph::{
    BatchNorm, Conv, Graph, LayerNorm, Linear, MaxPool, Parameter, TokenEmbedding, layer_scale_parameter,
};
use crate::error::{Error, Result};

/// A source of parameter values: a checkpoint file, seeded values, or tensors in memory. Every backend reads from one.
pub trait ParameterSource {
    /// Checks that the source has all `parameters` of `network` with the right shapes, and no other tensors except those
    /// for which `is_unused` returns `true`.
    ///
    /// # Errors
    /// Returns an error that names all missing, unexpected and misshapen tensors.
    fn check(&self, network: &str, parameters: &[Parameter], is_unused: &dyn Fn(&str) -> bool) -> Result<()>;

    /// Reads the values of a parameter in row-major order.
    ///
    /// # Errors
    /// Returns an error if the source has no such tensor or it cannot be read.
    fn read(&self, parameter: &Parameter) -> Result<Vec<f32>>;
}

impl ParameterSource for Checkpoint {
    fn check(&self, network: &str, parameters: &[Parameter], is_unused: &dyn Fn(&str) -> bool) -> Result<()> {
        let shapes = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()));
        check_shapes(shapes.collect(), network, parameters, is_unused).map_err(|message| {
            let message = format!("{message}; keys of the file: {}", abbreviate(&self.keys));
            Error::Weights { path: self.path.clone(), message }
        })
    }

    fn read(&self, parameter: &Parameter) -> Result<Vec<f32>> {
        match self.tensors.get(&parameter.name).filter(|tensor| tensor.shape() == parameter.shape) {
            Some(tensor) => tensor.read(),
            None => Err(Error::Weights { path: self.path.clone(), message: no_such_tensor(parameter) }),
        }
    }
}

/// Tensors in memory, such as those of a trained network.
#[derive(Debug, Clone, Default)]
pub struct MemoryTensors {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl MemoryTensors {
    /// Adds a tensor, or replaces that of the same name. `values` are in row-major order.
    ///
    /// # Errors
    /// Returns an error if the number of values does not match the shape.
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<()> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::Data(format!("tensor {name}: shape {shape:?} does not match {} values", values.len())));
        }
        self.tensors.insert(name.to_owned(), (shape.to_vec(), values));
        Ok(())
    }
}

impl ParameterSource for MemoryTensors {
    fn check(&self, network: &str, parameters: &[Parameter], is_unused: &dyn Fn(&str) -> bool) -> Result<()> {
        let shapes = self.tensors.iter().map(|(name, (shape, _))| (name.as_str(), shape.as_slice()));
        check_shapes(shapes.collect(), network, parameters, is_unused)
            .map_err(|message| Error::Data(format!("parameters in memory: {message}")))
    }

    fn read(&self, parameter: &Parameter) -> Result<Vec<f32>> {
        match self.tensors.get(&parameter.name) {
            Some((shape, values)) if *shape == parameter.shape => Ok(values.clone()),
            _ => Err(Error::Data(format!("parameters in memory: {}", no_such_tensor(parameter)))),
        }
    }
}

fn no_such_tensor(parameter: &Parameter) -> String {
    format!("no tensor {} of shape {:?}", parameter.name, parameter.shape)
}

/// Compares the tensors of a source with the parameters of a network; see [`ParameterSource::check`].
///
/// # Errors
/// Returns an error if a tensor is missing or has another shape.
pub fn check_shapes(
    tensors: BTreeMap<&str, &[usize]>,
    network: &str,
    parameters: &[Parameter],
    is_unused: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for Parameter { name, shape, .. } in parameters {
        match tensors.get(name.as_str()) {
            None => missing.push(name.clone()),
            Some(found) if *found != shape => misshapen.push(format!("{name} is {found:?}, expected {shape:?}")),
            Some(_) => {}
        }
    }
    let known: BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let unexpected: Vec<String> =
        tensors.keys().filter(|name| !known.contains(*name) && !is_unused(name)).map(|name| name.to_string()).collect();
    let problems: Vec<String> = [("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(problem, names)| format!("{problem}: {}", abbreviate(&names)))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(format!("does not match {network}; {}", problems.join("; "))) }
}

/// A backend that lists the parameters of a network in the order in which its layers read them.
#[derive(Debug, Default)]
pub struct ParameterList(Vec<Parameter>);

impl ParameterList {
    /// Returns the parameters of a definition.
    ///
    /// # Errors
    /// Returns the error of the definition. The backend itself never fails.
    pub fn of(definition: impl FnOnce(&mut Self) -> Result<()>) -> Result<Vec<Parameter>> {
        let mut list = Self::default();
        definition(&mut list)?;
        Ok(list.0)
    }

    fn push(&mut self, parameters: impl IntoIterator<Item = Parameter>) -> Result<()> {
        self.0.extend(parameters);
        Ok(())
    }
}

impl Graph for ParameterList {
    type Value = ();

    fn convolution(&mut self, _: &(), conv: &Conv) -> Result<()> {
        let (weight, bias) = conv.parameters();
        self.push([weight].into_iter().chain(bias))
    }
    fn batch_norm(&mut self, _: &(), norm: &BatchNorm) -> Result<()> {
        self.push(norm.parameters())
    }
    fn layer_norm(&mut self, _: &(), norm: &LayerNorm) -> Result<()> {
        self.push(norm.parameters())
    }
    fn linear(&mut self, _: &(), linear: &Linear) -> Result<()> {
        let (weight, bias) = linear.parameters();
        self.push([weight].into_iter().chain(bias))
    }
    fn layer_scale(&mut self, _: &(), name: &str, shape: &[usize]) -> Result<()> {
        self.push([layer_scale_parameter(name, shape)])
    }
    fn token_embedding(&mut self, _: &(), embedding: &TokenEmbedding) -> Result<()> {
        self.push(embedding.parameters())
    }
    fn relu(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn relu6(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn gelu(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn quick_gelu(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn first_token(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn attention(&mut self, _: [&(); 3], _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    fn add(&mut self, _: &(), _: &()) -> Result<()> {
        Ok(())
    }
    fn permute(&mut self, _: &(), _: &[usize]) -> Result<()> {
        Ok(())
    }
    fn global_average(&mut self, _: &()) -> Result<()> {
        Ok(())
    }
    fn mean(&mut self, _: &(), _: &[usize]) -> Result<()> {
        Ok(())
    }
    fn average_pool(&mut self, _: &(), _: &[usize]) -> Result<()> {
        Ok(())
    }
    fn max_pool(&mut self, _: &(), _: &MaxPool) -> Result<()> {
        Ok(())
    }
    fn flatten(&mut self, _: &(), _: usize) -> Result<()> {
        Ok(())
    }
    fn concatenate(&mut self, _: &[&()], _: usize) -> Result<()> {
        Ok(())
    }
    fn neighbor_similarity(&mut self, _: &(), _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    fn color_histogram(&mut self, _: &(), _: usize) -> Result<()> {
        Ok(())
    }
}
