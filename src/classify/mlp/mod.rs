//! Multi-layer perceptron: settings, classifier and model.

pub mod network;

use ndarray::{Array2, ArrayViewMut2};
use serde::{Deserialize, Serialize};

use super::definition::{dropout_probability, positive};
use super::layers::{BatchNorm, Dropout, Linear, Parameter};
use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::training::{RandomStreams, Trainable, score_name};
use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, Tensor, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::matrix::default_threads;
use crate::value_parsers;
use network::MlpNetwork;

/// Settings of the multi-layer perceptron; the table `[classify.mlp]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct MlpSettings {
    /// Hidden units.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub hidden: usize,
    /// Dropout probability.
    #[arg(long, value_name = "P", value_parser = value_parsers::below_one::<f32>)]
    pub dropout: f32,
}

impl Default for MlpSettings {
    fn default() -> Self {
        Self { hidden: 512, dropout: 0.5 }
    }
}

impl ClassifierDefinition for MlpSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: true };
    const SEARCH: &'static [(&'static str, &'static str)] = &[
        ("hidden", "128,256,512,1024"),
        ("dropout", "0..0.7"),
        ("learning-rate", "log:1e-4..1e-2"),
        ("weight-decay", "log:1e-5..1e-1"),
    ];

    fn validate(&self) -> std::result::Result<(), String> {
        positive("classify.mlp.hidden", self.hidden)?;
        dropout_probability("classify.mlp.dropout", self.dropout)
    }

    fn build(&self, trainer: &Trainer) -> Box<dyn Classifier> {
        Box::new(Perceptron { settings: self.clone(), trainer: trainer.clone() })
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(MlpModel::restore(tensors, task)?))
    }
}

/// Linear → BatchNorm1d → GELU → Dropout → Linear, with softmax for one label per clip and sigmoid for several; trained by
/// [`Trainer`].
pub struct Perceptron {
    /// The network.
    pub settings: MlpSettings,
    /// The training loop.
    pub trainer: Trainer,
}

impl Classifier for Perceptron {
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        if train.len() < 2 {
            return Err(Error::Data(format!(
                "batch normalization needs at least two training clips, but there is {}",
                if train.is_empty() { "none" } else { "only one" }
            )));
        }
        train.vectors()?;
        valid.vectors()?;
        let RandomStreams { mut weights, dropout, .. } = RandomStreams::new(context.seed);
        let (inputs, outputs) = (train.dim(), train.classes.len());
        let state = TrainingState {
            network: MlpNetwork::new(inputs, self.settings.hidden, outputs, &mut weights, context.threads),
            dropout: Dropout::new(self.settings.dropout, dropout),
            batch: Array2::zeros((0, inputs)),
            targets: Array2::zeros((0, outputs)),
        };
        let trained = self.trainer.train(state, train, valid, context)?;
        Ok(FitOutput {
            model: Box::new(MlpModel { network: trained.network.network, task: context.task }),
            curves: trained.curves,
            score_name: score_name(context.task),
            kept_epoch: Some(trained.kept_epoch),
            notes: trained.notes,
        })
    }
}

/// The network during training, with the buffers of a batch.
struct TrainingState {
    network: MlpNetwork<f32>,
    dropout: Dropout,
    batch: Array2<f32>,
    targets: Array2<f32>,
}

impl Trainable for TrainingState {
    fn train_step(&mut self, data: &Dataset, batch: &[usize], loss: &Loss, logits: ArrayViewMut2<'_, f32>) -> f64 {
        if self.batch.nrows() != batch.len() {
            self.batch = Array2::zeros((batch.len(), data.dim()));
            self.targets = Array2::zeros((batch.len(), data.classes.len()));
        }
        for (row, &clip) in batch.iter().enumerate() {
            self.batch.row_mut(row).assign(&data.rows.row(clip));
            self.targets.row_mut(row).assign(&data.targets.row(clip));
        }
        self.network.train_step(self.batch.view(), self.targets.view(), loss, &mut self.dropout, logits)
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

/// The fitted model of [`Perceptron`]. Tensor names are those of `torch.nn.Sequential(Linear, BatchNorm1d, GELU, Dropout,
/// Linear)`.
#[derive(Debug, Clone)]
pub struct MlpModel {
    network: MlpNetwork<f32>,
    task: Task,
}

impl MlpModel {
    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
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
        Ok(Self { network: MlpNetwork::from_layers(first, norm, second, default_threads()), task })
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
        let MlpNetwork { first, norm, second, .. } = &self.network;
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
        let sqrt_2 = graph.scalar(std::f32::consts::SQRT_2);
        let one = graph.scalar(1.0);
        let half = graph.scalar(0.5);
        let scaled = graph.node("Div", &[&hidden, &sqrt_2]);
        let erf = graph.node("Erf", &[&scaled]);
        let sum = graph.node("Add", &[&erf, &one]);
        let product = graph.node("Mul", &[&hidden, &sum]);
        let active = graph.node("Mul", &[&product, &half]);
        let logits = graph.linear(&active, "4.weight", "4.bias");
        graph.scores(&logits, self.task)
    }
}
