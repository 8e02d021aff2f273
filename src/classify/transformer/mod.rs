//! Transformer encoder over sequences of rows: settings, classifier and model.

pub mod network;

use ndarray::{Array2, ArrayViewMut2, Axis};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::attention;
use super::bilstm::sequences::SequenceWindow;
use super::clip_rows::{ClipRows, check_sequences, logits_in_blocks};
use super::definition::{dropout_probability, positive};
use super::layers::{Dropout, LayerNorm, Linear, Parameter};
use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::training::{RandomStreams, Trainable};
use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, SequenceSample, Tensor,
    Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::Result;
use crate::matrix::default_threads;
use crate::value_parsers;
use network::{TransformerLayers, TransformerNetwork, TransformerSizes};

/// Settings of the transformer encoder; the table `[classify.transformer]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerSettings {
    /// Attention heads.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub heads: usize,
    /// Units per row, a multiple of the heads; another number than that of the features adds a linear layer [default: one per feature].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub dim: Option<usize>,
    /// Hidden units of the feed-forward network.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub hidden: usize,
    /// Maximum number of rows per clip.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub length: usize,
    /// Selection of the rows of longer clips.
    #[arg(long)]
    pub sample: SequenceSample,
    /// The output that is classified.
    #[arg(long)]
    pub readout: Readout,
    /// Dropout probability.
    #[arg(long, value_name = "P", value_parser = value_parsers::below_one::<f32>)]
    pub dropout: f32,
}

impl Default for TransformerSettings {
    fn default() -> Self {
        Self {
            heads: 8,
            dim: None,
            hidden: 1024,
            length: 128,
            sample: SequenceSample::Even,
            readout: Readout::Mean,
            dropout: 0.1,
        }
    }
}

/// The output of a transformer that is classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Readout {
    /// The mean of the outputs of all rows.
    Mean,
    /// The output of a learned first row, the classification token of BERT.
    Cls,
}

impl ClassifierDefinition for TransformerSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: true, trained: true };
    const SEARCH: &'static [(&'static str, &'static str)] = &[
        ("hidden", "256,512,1024"),
        ("dropout", "0..0.5"),
        ("learning-rate", "log:1e-4..1e-2"),
        ("weight-decay", "log:1e-5..1e-1"),
    ];

    fn validate(&self) -> std::result::Result<(), String> {
        positive("classify.transformer.heads", self.heads)?;
        positive("classify.transformer.hidden", self.hidden)?;
        positive("classify.transformer.length", self.length)?;
        attention::validate_dim("classify.transformer.dim", self.heads, self.dim)?;
        dropout_probability("classify.transformer.dropout", self.dropout)
    }

    fn build(&self, trainer: &Trainer) -> Box<dyn Classifier> {
        Box::new(Transformer { settings: self.clone(), trainer: trainer.clone() })
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(TransformerModel::restore(tensors, task)?))
    }
}

/// Learned positions are added to the rows of a clip (projected, if [`TransformerSettings::dim`] differs from the features) → one layer
/// of a transformer encoder (Vaswani et al. 2017: LayerNorm behind the residual connections) → mean of the rows, or a learned first
/// row → linear, with softmax for one label per clip and sigmoid for several. Trained by [`Trainer`]. A clip has at most
/// [`TransformerSettings::length`] rows; those of longer clips are selected, and their positions are those among the selected rows.
pub struct Transformer {
    /// The network.
    pub settings: TransformerSettings,
    /// The training loop.
    pub trainer: Trainer,
}

impl Classifier for Transformer {
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        check_sequences(train, valid)?;
        let TransformerSettings { heads, dim, hidden, length, sample, readout, dropout: probability } = self.settings;
        let width = attention::width("transformer", heads, dim, train.dim())?;
        let RandomStreams { mut weights, dropout, windows, .. } = RandomStreams::new(context.seed);
        let sizes =
            TransformerSizes { inputs: train.dim(), width, heads, hidden, length, outputs: train.classes.len() };
        let network = TransformerNetwork::new(sizes, readout == Readout::Cls, &mut weights, context.threads);
        let model = TransformerModel { network, sample, task: context.task };
        let state = TrainingState { model, dropout: Dropout::new(probability, dropout), windows };
        let trained = self.trainer.train(state, train, valid, context)?;
        Ok(trained.output(context.task, |state| state.model))
    }
}

/// The model during training.
struct TrainingState {
    model: TransformerModel,
    dropout: Dropout,
    windows: Xoshiro256PlusPlus,
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
        let batch = self.model.batch(data, batch, Some(&mut self.windows))?;
        Ok(self.model.network.train_step(&batch, targets.view(), loss, &mut self.dropout, logits))
    }

    fn logits(&self, data: &Dataset) -> Result<Array2<f32>> {
        self.model.logits(data)
    }

    fn parameters(&mut self) -> Vec<Parameter<'_, f32>> {
        self.model.network.parameters()
    }
}

/// The fitted model of [`Transformer`]. Tensor names are those of a PyTorch module with an optional linear layer `projection`,
/// parameters `positions` and `cls` (optional), a `TransformerEncoderLayer` `layer` and a linear layer `linear`.
#[derive(Debug, Clone)]
pub struct TransformerModel {
    network: TransformerNetwork<f32>,
    sample: SequenceSample,
    task: Task,
}

/// Prefix of the tensors of the attention.
const ATTENTION: &str = "layer.self_attn.";
/// Name of the tensor with the [`SequenceSample::code`].
const SAMPLE: &str = "transformer.sample";

impl TransformerModel {
    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let attention = attention::restore(tensors, ATTENTION)?;
        let width = attention.width();
        if attention.inputs() != width {
            return Err(tensors.error(format!("the attention has {} inputs, expected {width}", attention.inputs())));
        }
        let linear = |name: &str, inputs: Option<usize>, outputs: Option<usize>| -> Result<Linear<f32>> {
            let key = format!("{name}.weight");
            let weight = inputs.map_or_else(|| tensors.matrix(&key), |inputs| tensors.matrix_of(&key, inputs))?;
            let bias = tensors.vector_of(&format!("{name}.bias"), outputs.unwrap_or(weight.nrows()))?;
            if bias.len() != weight.nrows() {
                return Err(tensors.error(format!(
                    "tensor {key} has {} rows, expected {}",
                    weight.nrows(),
                    bias.len()
                )));
            }
            Ok(Linear::from_parameters(weight, bias))
        };
        let norm = |name: &str| -> Result<LayerNorm<f32>> {
            let vector = |key: &str| tensors.vector_of(&format!("{name}.{key}"), width);
            Ok(LayerNorm::from_parameters(vector("weight")?, vector("bias")?))
        };
        let linear1 = linear("layer.linear1", Some(width), None)?;
        let positions = tensors.matrix_of("positions", width)?;
        if positions.is_empty() {
            return Err(tensors.error("tensor positions is empty".into()));
        }
        let cls = match tensors.contains("cls") {
            true => Some(tensors.vector_of("cls", width)?.insert_axis(Axis(0))),
            false => None,
        };
        let projection = match tensors.contains("projection.weight") {
            true => Some(linear("projection", None, Some(width))?),
            false => None,
        };
        let layers = TransformerLayers {
            projection,
            positions,
            cls,
            attention,
            norm1: norm("layer.norm1")?,
            linear2: linear("layer.linear2", Some(linear1.bias.len()), Some(width))?,
            linear1,
            norm2: norm("layer.norm2")?,
            linear: linear("linear", Some(width), None)?,
        };
        let sample = SequenceSample::from_code(tensors.vector_of(SAMPLE, 1)?[0])
            .ok_or_else(|| tensors.error(format!("{SAMPLE}: unknown sampling")))?;
        Ok(Self { network: TransformerNetwork::from_layers(layers, default_threads()), sample, task })
    }

    /// Copies the selected rows of clips. Random windows are drawn from `random`; without it they are centered.
    fn batch(
        &self,
        data: &Dataset,
        clips: &[usize],
        mut random: Option<&mut Xoshiro256PlusPlus>,
    ) -> Result<ClipRows<f32>> {
        let length = self.network.layers.positions.nrows();
        let window = SequenceWindow { length, sample: self.sample, pad: false };
        ClipRows::select(data, clips, |count| window.rows(count, random.as_deref_mut()).into_iter().flatten().collect())
    }

    /// Computes the logits (N, C) in blocks of clips.
    fn logits(&self, data: &Dataset) -> Result<Array2<f32>> {
        const BLOCK: usize = 32;
        logits_in_blocks(data, self.network.layers.linear.bias.len(), BLOCK, |clips, mut logits| {
            logits.assign(&self.network.logits(&self.batch(data, clips, None)?));
            Ok(())
        })
    }
}

impl Model for TransformerModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.network.inputs())?;
        let mut scores = self.logits(data)?;
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let layers = &self.network.layers;
        let linear = |name: &str, layer: &Linear<f32>| {
            [
                Tensor::matrix(&format!("{name}.weight"), layer.weight.view()),
                Tensor::vector(&format!("{name}.bias"), layer.bias.view()),
            ]
        };
        let norm = |name: &str, layer: &LayerNorm<f32>| {
            [
                Tensor::vector(&format!("{name}.weight"), layer.weight.view()),
                Tensor::vector(&format!("{name}.bias"), layer.bias.view()),
            ]
        };
        let mut tensors = Vec::new();
        tensors.extend(layers.projection.iter().flat_map(|projection| linear("projection", projection)));
        tensors.push(Tensor::matrix("positions", layers.positions.view()));
        tensors.extend(layers.cls.iter().map(|cls| Tensor::vector("cls", cls.row(0))));
        tensors.extend(attention::tensors(&layers.attention, ATTENTION));
        tensors.extend(norm("layer.norm1", &layers.norm1));
        tensors.extend(linear("layer.linear1", &layers.linear1));
        tensors.extend(linear("layer.linear2", &layers.linear2));
        tensors.extend(norm("layer.norm2", &layers.norm2));
        tensors.extend(linear("linear", &layers.linear));
        tensors.push(Tensor::vector(SAMPLE, ndarray::aview1(&[self.sample.code()])));
        tensors
    }

    fn reads_sequences(&self) -> bool {
        true
    }

    /// Exports a graph that reads (N, time, D): sequences of equal length, at most the number of positions.
    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let layers = &self.network.layers;
        let mut rows = features.to_string();
        if let Some(Linear { weight, bias, .. }) = &layers.projection {
            rows = graph.linear_steps(&rows, "projection", weight.view(), bias.view());
        }
        let positions = graph.constant(Tensor::matrix("positions", layers.positions.view()));
        let (zero, time) = (graph.integers(&[0]), graph.length(features, 1));
        let positions = graph.node("Slice", &[&positions, &zero, &time, &zero]);
        rows = graph.node("Add", &[&rows, &positions]);
        if let Some(cls) = &layers.cls {
            let width = cls.len();
            let cls =
                graph.constant(Tensor { name: "cls".into(), shape: vec![1, 1, width], values: cls.row(0).to_shared() });
            let (clips, rest) = (graph.length(features, 0), graph.integers(&[1, width as i64]));
            let shape = graph.concatenate(&[&clips, &rest], 0);
            let cls = graph.node("Expand", &[&cls, &shape]);
            rows = graph.concatenate(&[&cls, &rows], 1);
        }
        let norm = |graph: &mut Exporter, x: &str, name: &str, layer: &LayerNorm<f32>| {
            let weight = graph.constant(Tensor::vector(&format!("{name}.weight"), layer.weight.view()));
            let bias = graph.constant(Tensor::vector(&format!("{name}.bias"), layer.bias.view()));
            graph.layer_norm(x, &weight, &bias, LayerNorm::<f32>::EPSILON)
        };
        let attended = attention::export_attend(graph, &layers.attention, ATTENTION, &rows);
        let sum = graph.node("Add", &[&rows, &attended]);
        let normalized = norm(graph, &sum, "layer.norm1", &layers.norm1);
        let Linear { weight, bias, .. } = &layers.linear1;
        let hidden = graph.linear_steps(&normalized, "layer.linear1", weight.view(), bias.view());
        let hidden = graph.gelu(&hidden);
        let Linear { weight, bias, .. } = &layers.linear2;
        let output = graph.linear_steps(&hidden, "layer.linear2", weight.view(), bias.view());
        let sum = graph.node("Add", &[&normalized, &output]);
        let output = norm(graph, &sum, "layer.norm2", &layers.norm2);
        let pooled = match layers.cls {
            Some(_) => graph.first_step(&output),
            None => graph.reduce("ReduceMean", &output, 1),
        };
        let weight = graph.constant(Tensor::matrix("linear.weight", layers.linear.weight.view()));
        let bias = graph.constant(Tensor::vector("linear.bias", layers.linear.bias.view()));
        let logits = graph.linear(&pooled, &weight, &bias);
        graph.scores(&logits, self.task)
    }
}
