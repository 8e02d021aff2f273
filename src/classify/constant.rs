//! The constant predictor: a baseline that uses the training labels only.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, Tensor, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};

/// Settings of the constant predictor: none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ConstantSettings {}

impl ClassifierDefinition for ConstantSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };

    fn validate(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    fn unused_flags(&self) -> (&'static [&'static str], String) {
        (&["pooling", "standardize"], "classifier constant, which does not read the features".into())
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(Constant)
    }

    fn restore(tensors: &Tensors, _: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(ConstantModel::restore(tensors)?))
    }
}

/// Scores every clip with the share of training clips of each class (scikit-learn's `DummyClassifier` with strategy
/// `prior`). The predicted class is the most frequent one; the first one if several are equally frequent.
pub struct Constant;

impl Classifier for Constant {
    fn fit(&self, train: &Dataset, _: &Dataset, _: &mut FitContext<'_>) -> Result<FitOutput> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        let counts =
            train.targets.columns().into_iter().map(|column| column.iter().map(|t| f64::from(*t)).sum::<f64>());
        let frequencies = counts.map(|count| (count / train.len() as f64) as f32).collect();
        Ok(FitOutput::without_epochs(ConstantModel { frequencies, dim: train.dim() }, vec![]))
    }
}

/// The fitted model of [`Constant`].
#[derive(Debug, Clone, PartialEq)]
pub struct ConstantModel {
    /// Class frequencies, (C).
    frequencies: Array1<f32>,
    /// Number of features per clip, D.
    dim: usize,
}

impl ConstantModel {
    /// Restores the model from its saved tensors.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let weight = tensors.matrix("constant.weight")?;
        Ok(Self { frequencies: tensors.vector_of("constant.frequencies", weight.nrows())?, dim: weight.ncols() })
    }

    /// Returns a zero matrix (C, D). It makes the model a linear layer, so that the ONNX output has the batch size of the
    /// input.
    fn weight(&self) -> Tensor {
        Tensor::matrix("constant.weight", Array2::zeros((self.frequencies.len(), self.dim)).view())
    }
}

impl Model for ConstantModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        let shape = (data.len(), self.frequencies.len());
        Ok(self.frequencies.broadcast(shape).expect("a vector broadcasts over rows").to_owned())
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
