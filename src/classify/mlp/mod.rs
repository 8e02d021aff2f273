//! Multi-layer perceptron: settings, classifier and model.

pub mod network;

use ndarray::{Array2, ArrayViewMut2, s};
use serde::{Deserialize, Serialize};

use super::definition::{dropout_probability, positive};
use super::layers::{BatchNorm, Dropout, Linear, Parameter};
use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::training::{RandomStreams, Trainable};
use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, LinearModel, Model, Tensor,
    Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::matrix::default_threads;
use crate::value_parsers;
use network::{HiddenLayer, MlpNetwork};

/// Settings of the multi-layer perceptron; the table `[classify.mlp]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct MlpSettings {
    /// Hidden units, of each layer if there are several: 512,256.
    #[serde(with = "hidden_layers")]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = value_parsers::at_least(1_usize))]
    pub hidden: Vec<usize>,
    /// Dropout probability.
    #[arg(long, value_name = "P", value_parser = value_parsers::below_one::<f32>)]
    pub dropout: f32,
}

impl Default for MlpSettings {
    fn default() -> Self {
        Self { hidden: vec![512], dropout: 0.5 }
    }
}

/// Numbers of hidden units in recipes: a number for one layer, a list for several.
mod hidden_layers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "expected a number of hidden units, or a list of numbers, one per layer")]
    enum Hidden {
        One(usize),
        Several(Vec<usize>),
    }

    pub fn serialize<S: Serializer>(hidden: &[usize], serializer: S) -> Result<S::Ok, S::Error> {
        match hidden {
            [units] => Hidden::One(*units).serialize(serializer),
            _ => Hidden::Several(hidden.to_vec()).serialize(serializer),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
        Ok(match Hidden::deserialize(deserializer)? {
            Hidden::One(units) => vec![units],
            Hidden::Several(units) => units,
        })
    }
}

impl ClassifierDefinition for MlpSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: true };
    const POOLS: bool = true;
    const SEARCH: &'static [(&'static str, &'static str)] = &[
        ("hidden", "128,256,512,1024"),
        ("dropout", "0..0.7"),
        ("learning-rate", "log:1e-4..1e-2"),
        ("weight-decay", "log:1e-5..1e-1"),
    ];

    fn validate(&self) -> std::result::Result<(), String> {
        if self.hidden.is_empty() {
            return Err("classify.mlp.hidden must have at least one layer".into());
        }
        self.hidden.iter().try_for_each(|&units| positive("classify.mlp.hidden", units))?;
        dropout_probability("classify.mlp.dropout", self.dropout)
    }

    fn build(&self, trainer: &Trainer) -> Box<dyn Classifier> {
        Box::new(Perceptron { settings: self.clone(), trainer: trainer.clone() })
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(MlpModel::restore(tensors, task)?))
    }
}

/// One or several times Linear → BatchNorm1d → GELU → Dropout, then Linear, with softmax for one label per clip and sigmoid for several;
/// trained by [`Trainer`].
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
        train.check_vectors()?;
        valid.check_vectors()?;
        let RandomStreams { mut weights, dropout, .. } = RandomStreams::new(context.seed);
        let (inputs, outputs) = (train.dim(), train.classes.len());
        let state = TrainingState {
            network: MlpNetwork::new(inputs, &self.settings.hidden, outputs, &mut weights, context.threads),
            dropout: Dropout::new(self.settings.dropout, dropout),
            batch: Array2::zeros((0, inputs)),
            targets: Array2::zeros((0, outputs)),
        };
        let trained = self.trainer.train(state, train, valid, context)?;
        let task = context.task;
        Ok(trained.output(task, |state| MlpModel { network: state.network, task }))
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
    fn train_step(
        &mut self,
        data: &Dataset,
        batch: &[usize],
        loss: &Loss,
        logits: ArrayViewMut2<'_, f32>,
    ) -> Result<f64> {
        if self.batch.nrows() != batch.len() {
            self.batch = Array2::zeros((batch.len(), data.dim()));
            self.targets = Array2::zeros((batch.len(), data.classes.len()));
        }
        for (row, &clip) in batch.iter().enumerate() {
            data.copy_clip(clip, self.batch.slice_mut(s![row..=row, ..]))?;
            self.targets.row_mut(row).assign(&data.targets.row(clip));
        }
        Ok(self.network.train_step(self.batch.view(), self.targets.view(), loss, &mut self.dropout, logits))
    }

    fn logits(&self, data: &Dataset) -> Result<Array2<f32>> {
        Ok(self.network.logits(data.vectors()?.view()))
    }

    fn parameters(&mut self) -> Vec<Parameter<'_, f32>> {
        self.network.parameters()
    }

    fn state(&mut self) -> Vec<&mut [f32]> {
        self.network.state()
    }
}

/// The fitted model of [`Perceptron`]. Tensor names are those of `torch.nn.Sequential(Linear, BatchNorm1d, GELU, Dropout, …,
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
        // Each hidden layer has a batch normalization.
        let layers = (0..).take_while(|i| *i == 0 || tensors.contains(&format!("{}.weight", 4 * i + 1))).count();
        let linear = |i: usize, inputs: Option<usize>| -> Result<Linear<f32>> {
            let (weight, bias) = (format!("{}.weight", 4 * i), format!("{}.bias", 4 * i));
            let weight = inputs.map_or_else(|| tensors.matrix(&weight), |inputs| tensors.matrix_of(&weight, inputs))?;
            let bias = tensors.vector_of(&bias, weight.nrows())?;
            Ok(Linear::from_parameters(weight, bias))
        };
        let mut hidden: Vec<HiddenLayer<f32>> = Vec::new();
        for i in 0..layers {
            let linear = linear(i, hidden.last().map(HiddenLayer::units))?;
            let units = linear.bias.len();
            let vector = |key: &str| tensors.vector_of(&format!("{}.{key}", 4 * i + 1), units);
            let mut norm = BatchNorm::new(units);
            (norm.weight, norm.bias) = (vector("weight")?, vector("bias")?);
            (norm.running_mean, norm.running_variance) = (vector("running_mean")?, vector("running_var")?);
            hidden.push(HiddenLayer::new(linear, norm));
        }
        let output = linear(layers, hidden.last().map(HiddenLayer::units))?;
        Ok(Self { network: MlpNetwork::from_layers(hidden, output, default_threads()), task })
    }
}

impl Model for MlpModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.network.inputs())?;
        let mut scores = self.network.logits(data.vectors()?.view());
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn output_layer(&self, data: &Dataset) -> Result<Option<(Array2<f32>, LinearModel)>> {
        check_dim(data.dim(), self.network.inputs())?;
        let Linear { weight, bias, .. } = &self.network.output;
        let layer = LinearModel { weight: weight.clone(), bias: bias.clone(), task: self.task };
        Ok(Some((self.network.last_hidden(data.vectors()?.view()), layer)))
    }

    fn with_output_layer(&self, layer: LinearModel) -> Option<Box<dyn Model>> {
        let mut model = self.clone();
        model.network.output = Linear::from_parameters(layer.weight, layer.bias);
        Some(Box::new(model))
    }

    fn tensors(&self) -> Vec<Tensor> {
        let MlpNetwork { hidden, output, .. } = &self.network;
        let mut tensors = Vec::new();
        for (i, HiddenLayer { linear, norm, .. }) in hidden.iter().enumerate() {
            let name = |offset: usize, key: &str| format!("{}.{key}", 4 * i + offset);
            tensors.extend([
                Tensor::matrix(&name(0, "weight"), linear.weight.view()),
                Tensor::vector(&name(0, "bias"), linear.bias.view()),
                Tensor::vector(&name(1, "weight"), norm.weight.view()),
                Tensor::vector(&name(1, "bias"), norm.bias.view()),
                Tensor::vector(&name(1, "running_mean"), norm.running_mean.view()),
                Tensor::vector(&name(1, "running_var"), norm.running_variance.view()),
            ]);
        }
        let last = 4 * hidden.len();
        tensors.push(Tensor::matrix(&format!("{last}.weight"), output.weight.view()));
        tensors.push(Tensor::vector(&format!("{last}.bias"), output.bias.view()));
        tensors
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        for tensor in self.tensors() {
            graph.constant(tensor);
        }
        let mut rows = features.to_string();
        for i in 0..self.network.hidden.len() {
            let name = |offset: usize, key: &str| format!("{}.{key}", 4 * i + offset);
            let hidden = graph.linear(&rows, &name(0, "weight"), &name(0, "bias"));
            let parameters = ["weight", "bias", "running_mean", "running_var"].map(|key| name(1, key));
            let hidden =
                graph.batch_norm(&hidden, parameters.each_ref().map(String::as_str), BatchNorm::<f32>::EPSILON);
            rows = graph.gelu(&hidden);
        }
        let last = 4 * self.network.hidden.len();
        let logits = graph.linear(&rows, &format!("{last}.weight"), &format!("{last}.bias"));
        graph.scores(&logits, self.task)
    }
}
