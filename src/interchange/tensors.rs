//! Files of `torch.save`: a tensor, or a dictionary of tensors.

use std::path::Path;

use ndarray::ArrayD;

use super::elements::{check_memory, from_row_major};
use super::{File, Kind, Variable};
use crate::error::Result as LibraryResult;
use crate::models::checkpoint::{SavedValue, SavedValues};

/// A file of `torch.save`.
pub(super) struct TensorFile {
    values: Vec<SavedValue>,
    variables: Vec<Variable>,
}

impl TensorFile {
    pub fn open(path: &Path) -> LibraryResult<Self> {
        let (names, values): (Vec<_>, Vec<_>) = SavedValues::open(path)?.values.into_iter().unzip();
        let kinds = values.iter().map(|value| match value {
            SavedValue::Tensor(tensor) => Kind::Numbers(tensor.shape().to_vec()),
            SavedValue::Texts(texts) => Kind::Texts(texts.len()),
            SavedValue::Other => Kind::Other("neither a tensor nor a list of strings".into()),
        });
        let variables = names.into_iter().zip(kinds).map(|(name, kind)| Variable { name, kind }).collect();
        Ok(Self { values, variables })
    }
}

impl File for TensorFile {
    fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn numbers(&mut self, index: usize) -> Result<ArrayD<f32>, String> {
        let SavedValue::Tensor(tensor) = &self.values[index] else { return Err("not a tensor".into()) };
        // The shape was compared with the size of the file when the file was opened.
        check_memory(tensor.shape().iter().product())?;
        let values = tensor.read().map_err(|error| error.to_string())?;
        from_row_major(tensor.shape(), values)
    }

    fn texts(&mut self, index: usize) -> Result<Vec<String>, String> {
        match &self.values[index] {
            SavedValue::Texts(texts) => Ok(texts.clone()),
            _ => Err("not a list of strings".into()),
        }
    }
}
