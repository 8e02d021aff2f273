//! Attentive probe over sequences of rows: settings, classifier and model.

pub mod network;

use ndarray::{Array2, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

use super::attention;
use super::clip_rows::{ClipRows, check_sequences, logits_in_blocks};
use super::definition::{dropout_probability, positive};
use super::layers::{Dropout, LayerNorm, Linear, Parameter};
use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::training::{RandomStreams, Trainable};
use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, Tensor, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::Result;
use crate::matrix::default_threads;
use crate::value_parsers;
use network::AttentiveNetwork;

/// Settings of the attentive probe; the table `[classify.attentive]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct AttentiveSettings {
    /// Attention heads.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub heads: usize,
    /// Units of the attention, a multiple of the heads [default: one per feature].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub dim: Option<usize>,
    /// Dropout probability.
    #[arg(long, value_name = "P", value_parser = value_parsers::below_one::<f32>)]
    pub dropout: f32,
}

impl Default for AttentiveSettings {
    fn default() -> Self {
        Self { heads: 8, dim: None, dropout: 0.0 }
    }
}

impl ClassifierDefinition for AttentiveSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: true, trained: true };
    const SEARCH: &'static [(&'static str, &'static str)] =
        &[("dropout", "0..0.5"), ("learning-rate", "log:1e-4..1e-2"), ("weight-decay", "log:1e-5..1e-1")];

    fn validate(&self) -> std::result::Result<(), String> {
        positive("classify.attentive.heads", self.heads)?;
        attention::validate_dim("classify.attentive.dim", self.heads, self.dim)?;
        dropout_probability("classify.attentive.dropout", self.dropout)
    }

    fn build(&self, trainer: &Trainer) -> Box<dyn Classifier> {
        Box::new(AttentiveProbe { settings: self.clone(), trainer: trainer.clone() })
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(AttentiveModel::restore(tensors, task)?))
    }
}

/// An attentive probe: one learned query → multi-head cross-attention over the rows of a clip → LayerNorm → dropout → linear, with
/// softmax for one label per clip and sigmoid for several. Trained by [`Trainer`].
///
/// It is the attentive pooling of V-JEPA (Bardes et al. 2024, section 4 and `AttentivePooler` in its code) without the complete block:
/// no residual connection, no MLP, and the LayerNorm is behind the attention, not in front of it. The attention reads all rows of
/// a clip, in any order: it has no position embeddings.
pub struct AttentiveProbe {
    /// The network.
    pub settings: AttentiveSettings,
    /// The training loop.
    pub trainer: Trainer,
}

impl Classifier for AttentiveProbe {
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        check_sequences(train, valid)?;
        let AttentiveSettings { heads, dim, dropout: probability } = self.settings;
        let width = attention::width("attentive", heads, dim, train.dim())?;
        let RandomStreams { mut weights, dropout, .. } = RandomStreams::new(context.seed);
        let sizes = (train.dim(), width, train.classes.len());
        let network = AttentiveNetwork::new(sizes, heads, &mut weights, context.threads);
        let model = AttentiveModel { network, task: context.task };
        let state = TrainingState { model, dropout: Dropout::new(probability, dropout) };
        let trained = self.trainer.train(state, train, valid, context)?;
        Ok(trained.output(context.task, |state| state.model))
    }
}

/// The model during training.
struct TrainingState {
    model: AttentiveModel,
    dropout: Dropout,
}

impl Trainable for TrainingState {
    fn train_step(
        &mut self,
        data: &Dataset,
        batch: &[usize],
        loss: &Loss,
        logits: ArrayViewMut2<'_, f32>,
    ) -> Result<f64> {
        let targets = data.targets.select(Axis(0), batch);
        let batch = ClipRows::new(data, batch)?;
        Ok(self.model.network.train_step(&batch, targets.view(), loss, &mut self.dropout, logits))
    }

    fn logits(&self, data: &Dataset) -> Result<Array2<f32>> {
        self.model.logits(data)
    }

    fn parameters(&mut self) -> Vec<Parameter<'_, f32>> {
        self.model.network.parameters()
    }
}

/// The fitted model of [`AttentiveProbe`]. Tensor names are those of a PyTorch module with a parameter `query`, a
/// `MultiheadAttention` `attention` with `kdim` and `vdim`, a LayerNorm `norm` and a linear layer `linear`.
#[derive(Debug, Clone)]
pub struct AttentiveModel {
    network: AttentiveNetwork<f32>,
    task: Task,
}

const PREFIX: &str = "attention.";

impl AttentiveModel {
    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let attention = attention::restore(tensors, PREFIX)?;
        let width = attention.width();
        let query = tensors.vector_of("query", width)?.insert_axis(Axis(0));
        let norm = LayerNorm::from_parameters(
            tensors.vector_of("norm.weight", width)?,
            tensors.vector_of("norm.bias", width)?,
        );
        let weight = tensors.matrix_of("linear.weight", width)?;
        let bias = tensors.vector_of("linear.bias", weight.nrows())?;
        let linear = Linear::from_parameters(weight, bias);
        Ok(Self { network: AttentiveNetwork::from_layers(query, attention, norm, linear, default_threads()), task })
    }

    /// Computes the logits (N, C) in blocks of clips.
    fn logits(&self, data: &Dataset) -> Result<Array2<f32>> {
        let outputs = self.network.linear.bias.len();
        logits_in_blocks(data, outputs, AttentiveNetwork::<f32>::BLOCK, |clips, mut logits| {
            logits.assign(&self.network.logits(&ClipRows::new(data, clips)?));
            Ok(())
        })
    }
}

impl Model for AttentiveModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.network.attention.inputs())?;
        let mut scores = self.logits(data)?;
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn reads_all_rows(&self) -> bool {
        true
    }

    fn tensors(&self) -> Vec<Tensor> {
        let AttentiveNetwork { query, attention, norm, linear, .. } = &self.network;
        let mut tensors = vec![Tensor::vector("query", query.row(0))];
        tensors.extend(attention::tensors(attention, PREFIX));
        tensors.extend([
            Tensor::vector("norm.weight", norm.weight.view()),
            Tensor::vector("norm.bias", norm.bias.view()),
            Tensor::matrix("linear.weight", linear.weight.view()),
            Tensor::vector("linear.bias", linear.bias.view()),
        ]);
        tensors
    }

    fn reads_sequences(&self) -> bool {
        true
    }

    /// Exports a graph that reads (N, time, D): sequences of equal length.
    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let AttentiveNetwork { query, attention, norm, linear, .. } = &self.network;
        let attended = attention::export_pool(graph, attention, PREFIX, query.view(), features);
        let weight = graph.constant(Tensor::vector("norm.weight", norm.weight.view()));
        let bias = graph.constant(Tensor::vector("norm.bias", norm.bias.view()));
        let normalized = graph.layer_norm(&attended, &weight, &bias, LayerNorm::<f32>::EPSILON);
        let weight = graph.constant(Tensor::matrix("linear.weight", linear.weight.view()));
        let bias = graph.constant(Tensor::vector("linear.bias", linear.bias.view()));
        let logits = graph.linear(&normalized, &weight, &bias);
        graph.scores(&logits, self.task)
    }
}
