//! Named tensors: what models are saved as.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use crate::error::{Error, Result};

/// A named f32 tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name; PyTorch's parameter name where there is one.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, in row-major order.
    pub values: Vec<f32>,
}

impl Tensor {
    /// A vector.
    pub fn vector(name: &str, values: ArrayView1<'_, f32>) -> Self {
        Self { name: name.into(), shape: vec![values.len()], values: values.to_vec() }
    }

    /// A matrix.
    pub fn matrix(name: &str, values: ArrayView2<'_, f32>) -> Self {
        Self { name: name.into(), shape: values.shape().to_vec(), values: values.iter().copied().collect() }
    }
}

/// The tensors of one file.
#[derive(Debug, Clone)]
pub struct Tensors {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Tensors {
    /// The tensors read from `path`.
    pub fn new(path: &Path, tensors: impl IntoIterator<Item = Tensor>) -> Self {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Self { path: path.to_path_buf(), tensors }
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The vector `name`.
    ///
    /// # Errors
    /// It is missing, or no vector.
    pub fn vector(&self, name: &str) -> Result<Array1<f32>> {
        let tensor = self.get(name)?;
        match tensor.shape[..] {
            [_] => Ok(Array1::from_vec(tensor.values.clone())),
            _ => Err(self.wrong(format!("tensor {name} has shape {:?} where a vector belongs", tensor.shape))),
        }
    }

    /// The vector `name`, of length `length`.
    ///
    /// # Errors
    /// It is missing, or of another shape.
    pub fn vector_of(&self, name: &str, length: usize) -> Result<Array1<f32>> {
        let vector = self.vector(name)?;
        if vector.len() == length {
            return Ok(vector);
        }
        Err(self.wrong(format!("tensor {name} has length {} where {length} fits the others", vector.len())))
    }

    /// The matrix `name`.
    ///
    /// # Errors
    /// It is missing, or no matrix.
    pub fn matrix(&self, name: &str) -> Result<Array2<f32>> {
        let tensor = self.get(name)?;
        let wrong = || self.wrong(format!("tensor {name} has shape {:?} where a matrix belongs", tensor.shape));
        match tensor.shape[..] {
            [rows, columns] => Array2::from_shape_vec((rows, columns), tensor.values.clone()).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    /// The matrix `name`, with `columns` columns.
    ///
    /// # Errors
    /// It is missing, or of another shape.
    pub fn matrix_of(&self, name: &str, columns: usize) -> Result<Array2<f32>> {
        let matrix = self.matrix(name)?;
        if matrix.ncols() == columns {
            return Ok(matrix);
        }
        Err(self.wrong(format!("tensor {name} has {} columns where {columns} fit the others", matrix.ncols())))
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| self.wrong(format!("has no tensor {name}")))
    }

    /// An error about the file.
    pub fn wrong(&self, message: String) -> Error {
        Error::Weights { path: self.path.clone(), message }
    }
}
