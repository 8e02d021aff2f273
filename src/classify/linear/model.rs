//! The model of linear classifiers.

use ndarray::{Array1, Array2, ArrayView2};

use crate::classify::standardize::check_dim;
use crate::classify::{Exporter, Model, Tensor, Tensors, loss};
use crate::dataset::{Dataset, Task};
use crate::error::Result;

/// Scores a clip with the softmax (single-label) or the logistic function (multi-label) of W·x + b.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearModel {
    /// W, (C, D).
    pub weight: Array2<f32>,
    /// b, (C).
    pub bias: Array1<f32>,
    /// The task it was fitted to.
    pub task: Task,
}

impl LinearModel {
    /// Computes the logits (N, C) of vectors (N, D).
    pub(crate) fn logits(&self, vectors: ArrayView2<'_, f32>) -> Array2<f32> {
        vectors.dot(&self.weight.t()) + &self.bias
    }

    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let weight = tensors.matrix("0.weight")?;
        Ok(Self { bias: tensors.vector_of("0.bias", weight.nrows())?, weight, task })
    }
}

impl Model for LinearModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.weight.ncols())?;
        let mut scores = self.logits(data.vectors()?.view());
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn output_layer(&self, data: &Dataset) -> Result<Option<(Array2<f32>, LinearModel)>> {
        check_dim(data.dim(), self.weight.ncols())?;
        Ok(Some((data.vectors()?.into_owned(), self.clone())))
    }

    fn with_output_layer(&self, layer: LinearModel) -> Option<Box<dyn Model>> {
        Some(Box::new(layer))
    }

    fn tensors(&self) -> Vec<Tensor> {
        vec![Tensor::matrix("0.weight", self.weight.view()), Tensor::vector("0.bias", self.bias.view())]
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let [weight, bias] = ["0.weight", "0.bias"];
        graph.constant(Tensor::matrix(weight, self.weight.view()));
        graph.constant(Tensor::vector(bias, self.bias.view()));
        let logits = graph.linear(features, weight, bias);
        graph.scores(&logits, self.task)
    }
}
