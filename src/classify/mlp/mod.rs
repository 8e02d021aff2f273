//! The multi-layer perceptron: its classifier, its model and its training.

pub mod network;
pub mod train;

use ndarray::Array2;

use super::layers::{BatchNorm, Linear};
use super::loss::Loss;
use super::standardise::check_dim;
use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::matrix::default_threads;
use crate::recipe;
use network::Network;
use train::{Examples, train};

/// Linear → BatchNorm1d → GELU → Dropout → Linear, trained by AdamW on cross-entropy, with cosine annealing, warm restarts
/// and early stopping; see [`train::train`].
pub struct Perceptron(pub recipe::Mlp);

impl Classifier for Perceptron {
    fn fit(&self, data: &Dataset, valid: &Dataset, fitting: &mut Fitting<'_>) -> Result<Fitted> {
        if data.len() < 2 {
            return Err(Error::Data(format!(
                "{} training clip{}, and batch normalisation needs at least two",
                data.len(),
                if data.len() == 1 { "" } else { "s" }
            )));
        }
        data.single_labels()?;
        valid.single_labels()?;
        let examples = |of: &Dataset| -> Result<()> { of.vectors().map(|_| ()) };
        examples(data)?;
        examples(valid)?;
        let trained = train(
            &self.0,
            Examples { features: data.vectors()?, targets: data.targets.view() },
            Examples { features: valid.vectors()?, targets: valid.targets.view() },
            fitting.seed,
            fitting.threads,
            fitting.progress,
        );
        if trained.curves.iter().any(|epoch| !epoch.train_loss.is_finite()) {
            return Err(Error::Data("training diverged: the loss is not finite; lower the learning rate".into()));
        }
        let mut notes = Vec::new();
        if valid.is_empty() {
            notes.push("no validation clip: trained for all epochs, and the last one is kept".into());
        }
        Ok(Fitted {
            model: Box::new(MlpModel { network: trained.network }),
            curves: trained.curves,
            kept_epoch: Some(trained.kept),
            notes,
        })
    }
}

/// See [`Perceptron`]. Its tensors have the names of a `torch.nn.Sequential(Linear, BatchNorm1d, GELU, Dropout, Linear)`.
#[derive(Debug, Clone)]
pub struct MlpModel {
    network: Network<f32>,
}

impl MlpModel {
    /// The model of saved tensors.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let weight = tensors.matrix("0.weight")?;
        let hidden = weight.nrows();
        let first = Linear::from_parameters(weight, tensors.vector_of("0.bias", hidden)?);
        let mut norm = BatchNorm::new(hidden);
        norm.weight = tensors.vector_of("1.weight", hidden)?;
        norm.bias = tensors.vector_of("1.bias", hidden)?;
        norm.running_mean = tensors.vector_of("1.running_mean", hidden)?;
        norm.running_variance = tensors.vector_of("1.running_var", hidden)?;
        let weight = tensors.matrix_of("4.weight", hidden)?;
        let bias = tensors.vector_of("4.bias", weight.nrows())?;
        let second = Linear::from_parameters(weight, bias);
        Ok(Self { network: Network::from_layers(first, norm, second, default_threads()) })
    }
}

impl Model for MlpModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.network.first.weight.ncols())?;
        let mut scores = self.network.logits(data.vectors()?);
        Loss::CrossEntropy.scores(scores.view_mut());
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let Network { first, norm, second, .. } = &self.network;
        vec![
            Tensor::matrix("0.weight", first.weight.view()),
            Tensor::vector("0.bias", first.bias.view()),
            Tensor::vector("1.weight", norm.weight.view()),
            Tensor::vector("1.bias", norm.bias.view()),
            Tensor::vector("1.running_mean", norm.running_mean.view()),
            Tensor::vector("1.running_var", norm.running_variance.view()),
            Tensor::matrix("4.weight", second.weight.view()),
            Tensor::vector("4.bias", second.bias.view()),
        ]
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        for tensor in self.tensors() {
            graph.constant(tensor);
        }
        let hidden = graph.linear(features, "0.weight", "0.bias");
        let parameters = ["1.weight", "1.bias", "1.running_mean", "1.running_var"];
        let hidden = graph.batch_norm(&hidden, parameters, BatchNorm::<f32>::EPSILON);
        // GELU: x/2 · (1 + erf(x/√2)).
        let root = graph.scalar(std::f32::consts::SQRT_2);
        let one = graph.scalar(1.0);
        let half = graph.scalar(0.5);
        let scaled = graph.node("Div", &[&hidden, &root]);
        let error = graph.node("Erf", &[&scaled]);
        let below = graph.node("Add", &[&error, &one]);
        let product = graph.node("Mul", &[&hidden, &below]);
        let active = graph.node("Mul", &[&product, &half]);
        let logits = graph.linear(&active, "4.weight", "4.bias");
        graph.softmax(&logits)
    }
}
