//! Named tensors, the storage format of models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{ArcArray1, ArcArray2, Array1, Array2, ArrayView1, ArrayView2};

use crate::error::{Error, Result};

/// A named f32 tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name; PyTorch's parameter name if there is one.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values in row-major order, contiguous in memory.
    pub values: ArcArray1<f32>,
}

impl Tensor {
    /// Creates a vector.
    pub fn vector(name: &str, values: ArrayView1<'_, f32>) -> Self {
        Self { name: name.into(), shape: vec![values.len()], values: values.to_shared() }
    }

    /// Creates a matrix.
    pub fn matrix(name: &str, values: ArrayView2<'_, f32>) -> Self {
        Self { name: name.into(), shape: values.shape().to_vec(), values: values.iter().copied().collect() }
    }

    /// Creates a matrix that shares `values`, which are in row-major order.
    pub fn shared_matrix(name: &str, values: ArcArray2<f32>) -> Self {
        let shape = values.shape().to_vec();
        let values = values.into_shape_with_order(shape.iter().product::<usize>()).expect("the values are contiguous");
        Self { name: name.into(), shape, values }
    }
}

/// The tensors of one file.
#[derive(Debug, Clone)]
pub struct Tensors {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Tensors {
    /// Collects the tensors that were read from `path`.
    pub fn new(path: &Path, tensors: impl IntoIterator<Item = Tensor>) -> Self {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Self { path: path.to_path_buf(), tensors }
    }

    /// `true` if the file has a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the vector `name`.
    ///
    /// # Errors
    /// Returns an error if it is missing or not a vector.
    pub fn vector(&self, name: &str) -> Result<Array1<f32>> {
        let tensor = self.get(name)?;
        match tensor.shape[..] {
            [_] => Ok(tensor.values.to_owned()),
            _ => Err(self.error(format!("tensor {name} must be a vector, but has shape {:?}", tensor.shape))),
        }
    }

    /// Returns the vector `name` of length `length`.
    ///
    /// # Errors
    /// Returns an error if it is missing or has another shape.
    pub fn vector_of(&self, name: &str, length: usize) -> Result<Array1<f32>> {
        let vector = self.vector(name)?;
        if vector.len() == length {
            return Ok(vector);
        }
        Err(self.error(format!("tensor {name} has length {}, expected {length}", vector.len())))
    }

    /// Returns the matrix `name`.
    ///
    /// # Errors
    /// Returns an error if it is missing or not a matrix.
    pub fn matrix(&self, name: &str) -> Result<Array2<f32>> {
        Ok(self.shared_matrix(name)?.into_owned())
    }

    /// Returns the matrix `name` without a copy of its values.
    ///
    /// # Errors
    /// Returns an error if it is missing or not a matrix.
    pub fn shared_matrix(&self, name: &str) -> Result<ArcArray2<f32>> {
        let tensor = self.get(name)?;
        let shape_error = || self.error(format!("tensor {name} must be a matrix, but has shape {:?}", tensor.shape));
        match tensor.shape[..] {
            [rows, columns] => tensor.values.clone().into_shape_with_order((rows, columns)).map_err(|_| shape_error()),
            _ => Err(shape_error()),
        }
    }

    /// Returns the matrix `name` with `columns` columns.
    ///
    /// # Errors
    /// Returns an error if it is missing or has another shape.
    pub fn matrix_of(&self, name: &str, columns: usize) -> Result<Array2<f32>> {
        let matrix = self.matrix(name)?;
        if matrix.ncols() == columns {
            return Ok(matrix);
        }
        Err(self.error(format!("tensor {name} has {} columns, expected {columns}", matrix.ncols())))
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| self.error(format!("tensor {name} is missing")))
    }

    /// Creates an error about the file.
    pub fn error(&self, message: String) -> Error {
        Error::Weights { path: self.path.clone(), message }
    }
}
