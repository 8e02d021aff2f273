//! The constant predictor: what knowing nothing but the training labels gets.

use ndarray::{Array1, Array2};

use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// Scores every clip with the share of training clips that carry each class (scikit-learn's `DummyClassifier` of strategy
/// `prior`); so it predicts the commonest class, of several the first.
pub struct Constant;

impl Classifier for Constant {
    fn fit(&self, train: &Dataset, _: &Dataset, _: &mut Fitting<'_>) -> Result<Fitted> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        let counts =
            train.targets.columns().into_iter().map(|column| column.iter().map(|t| f64::from(*t)).sum::<f64>());
        let frequencies = counts.map(|count| (count / train.len() as f64) as f32).collect();
        Ok(Fitted::at_once(ConstantModel { frequencies, dim: train.dim() }, vec![]))
    }
}

/// See [`Constant`].
#[derive(Debug, Clone, PartialEq)]
pub struct ConstantModel {
    /// (C).
    frequencies: Array1<f32>,
    dim: usize,
}

impl ConstantModel {
    /// The model of saved tensors.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let weight = tensors.matrix("constant.weight")?;
        Ok(Self { frequencies: tensors.vector_of("constant.frequencies", weight.nrows())?, dim: weight.ncols() })
    }

    /// A matrix of zeros, (C, D): makes the constant a linear layer, which carries the batch size through ONNX.
    fn weight(&self) -> Tensor {
        Tensor::matrix("constant.weight", Array2::zeros((self.frequencies.len(), self.dim)).view())
    }
}

impl Model for ConstantModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        Ok(self.frequencies.broadcast((data.len(), self.frequencies.len())).expect("a row repeats").to_owned())
    }

    fn tensors(&self) -> Vec<Tensor> {
        vec![self.weight(), Tensor::vector("constant.frequencies", self.frequencies.view())]
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let weight = graph.constant(self.weight());
        let frequencies = graph.constant(Tensor::vector("constant.frequencies", self.frequencies.view()));
        graph.linear(features, &weight, &frequencies)
    }
}
