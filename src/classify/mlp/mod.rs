//! The multi-layer perceptron: its classifier and its model.

pub mod network;

use ndarray::{Array2, ArrayViewMut2};

use super::layers::{BatchNorm, Dropout, Linear, Parameter};
use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::training::{Learner, Streams, Trainer, measure};
use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::matrix::default_threads;
use crate::recipe;
use network::Network;

/// Linear → BatchNorm1d → GELU → Dropout → Linear, and softmax for one label a clip, the sigmoid for several; trained as
/// [`Trainer`] says.
pub struct Perceptron {
    /// The network.
    pub settings: recipe::Mlp,
    /// Its training.
    pub trainer: Trainer,
}

impl Classifier for Perceptron {
    fn fit(&self, data: &Dataset, valid: &Dataset, fitting: &mut Fitting<'_>) -> Result<Fitted> {
        if data.len() < 2 {
            return Err(Error::Data(format!(
                "{} training clip{}, and batch normalization needs at least two",
                data.len(),
                if data.len() == 1 { "" } else { "s" }
            )));
        }
        data.vectors()?;
        valid.vectors()?;
        let Streams { mut weights, dropout, .. } = Streams::new(fitting.seed);
        let (inputs, outputs) = (data.dim(), data.classes.len());
        let learner = Pupil {
            network: Network::new(inputs, self.settings.hidden, outputs, &mut weights, fitting.threads),
            dropout: Dropout::new(self.settings.dropout, dropout),
            batch: Array2::zeros((0, inputs)),
            targets: Array2::zeros((0, outputs)),
        };
        let trained = self.trainer.train(learner, data, valid, fitting)?;
        Ok(Fitted {
            model: Box::new(MlpModel { network: trained.network.network, task: fitting.task }),
            curves: trained.curves,
            measure: measure(fitting.task),
            kept_epoch: Some(trained.kept),
            notes: trained.notes,
        })
    }
}

/// The network in training, with its batch.
struct Pupil {
    network: Network<f32>,
    dropout: Dropout,
    batch: Array2<f32>,
    targets: Array2<f32>,
}

impl Learner for Pupil {
    fn learn(&mut self, data: &Dataset, chosen: &[usize], loss: &Loss, logits: ArrayViewMut2<'_, f32>) -> f64 {
        if self.batch.nrows() != chosen.len() {
            self.batch = Array2::zeros((chosen.len(), data.dim()));
            self.targets = Array2::zeros((chosen.len(), data.classes.len()));
        }
        for (row, &clip) in chosen.iter().enumerate() {
            self.batch.row_mut(row).assign(&data.rows.row(clip));
            self.targets.row_mut(row).assign(&data.targets.row(clip));
        }
        self.network.learn(self.batch.view(), self.targets.view(), loss, &mut self.dropout, logits)
    }

    fn logits(&self, data: &Dataset) -> Array2<f32> {
        self.network.logits(data.rows.view())
    }

    fn parameters(&mut self) -> Vec<Parameter<'_, f32>> {
        self.network.parameters().into()
    }

    fn state(&mut self) -> Vec<&mut [f32]> {
        self.network.state().into()
    }
}

/// See [`Perceptron`]. Its tensors have the names of a `torch.nn.Sequential(Linear, BatchNorm1d, GELU, Dropout, Linear)`.
#[derive(Debug, Clone)]
pub struct MlpModel {
    network: Network<f32>,
    task: Task,
}

impl MlpModel {
    /// The model of saved tensors, for the task it was fitted to.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
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
        Ok(Self { network: Network::from_layers(first, norm, second, default_threads()), task })
    }
}

impl Model for MlpModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.network.first.weight.ncols())?;
        let mut scores = self.network.logits(data.vectors()?);
        loss::scores(self.task, scores.view_mut());
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
        graph.scores(&logits, self.task)
    }
}
