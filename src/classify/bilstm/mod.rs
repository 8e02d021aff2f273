//! Bidirectional LSTM over sequences of rows: settings, classifier and model.

pub mod lstm;
pub mod network;
pub mod sequences;

use ndarray::{Array2, ArrayViewMut2, Axis, s};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::clip_rows::{check_sequences, logits_in_blocks};
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
use lstm::LstmDirection;
use network::{BilstmNetwork, SequencePooling, restore_clip_order};
use sequences::{PackedBatch, SequenceWindow};

/// Settings of the bidirectional LSTM; the table `[classify.bilstm]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct BilstmSettings {
    /// Hidden units per direction.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub hidden: usize,
    /// Maximum number of rows per clip.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub length: usize,
    /// Selection of the rows of longer clips.
    #[arg(long)]
    pub sample: SequenceSample,
    /// Dropout probability.
    #[arg(long, value_name = "P", value_parser = value_parsers::below_one::<f32>)]
    pub dropout: f32,
    /// Use a published architecture instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "NAME")]
    pub compat: Option<Compat>,
}

impl Default for BilstmSettings {
    fn default() -> Self {
        Self { hidden: 256, length: 128, sample: SequenceSample::Even, dropout: 0.5, compat: None }
    }
}

/// Selects the rows of a clip that has more rows than a sequence holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SequenceSample {
    /// The first rows.
    Truncate,
    /// A random window in training, the middle window in evaluation.
    RandomWindow,
    /// Evenly spaced rows: the center of each of `length` equal segments.
    Even,
}

impl SequenceSample {
    const ALL: [Self; 3] = [Self::Truncate, Self::RandomWindow, Self::Even];

    /// Returns the number by which saved models name it.
    pub(super) fn code(self) -> f32 {
        f32::from(self as u8)
    }

    /// Returns the selection with a [`Self::code`].
    pub(super) fn from_code(code: f32) -> Option<Self> {
        Self::ALL.into_iter().find(|sample| sample.code() == code)
    }
}

/// Published architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// A random window of 256 rows with zeros to the left of shorter clips, LayerNorm, a BiLSTM with 128 units, the last
    /// step, MaxPool1d(4) over its features, linear. Replaces `hidden`, `length` and `sample`.
    MovienetPrediction,
}

impl ClassifierDefinition for BilstmSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: true, trained: true };
    const SEARCH: &'static [(&'static str, &'static str)] = &[
        ("hidden", "64,128,256"),
        ("dropout", "0..0.7"),
        ("learning-rate", "log:1e-4..1e-2"),
        ("weight-decay", "log:1e-5..1e-1"),
    ];

    fn validate(&self) -> std::result::Result<(), String> {
        positive("classify.bilstm.hidden", self.hidden)?;
        positive("classify.bilstm.length", self.length)?;
        dropout_probability("classify.bilstm.dropout", self.dropout)
    }

    fn unused_flags(&self) -> (&'static [&'static str], String) {
        match self.compat {
            None => (&[], String::new()),
            Some(Compat::MovienetPrediction) => (&["hidden", "length", "sample"], "compat movienet-prediction".into()),
        }
    }

    fn build(&self, trainer: &Trainer) -> Box<dyn Classifier> {
        Box::new(BidirectionalLstm { settings: self.clone(), trainer: trainer.clone() })
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(BilstmModel::restore(tensors, task)?))
    }
}

/// Bidirectional LSTM → maximum over the time steps of a clip → dropout → linear, with softmax for one label per clip and
/// sigmoid for several; or the architecture of [`BilstmSettings::compat`]. Trained by [`Trainer`].
pub struct BidirectionalLstm {
    /// The network.
    pub settings: BilstmSettings,
    /// The training loop.
    pub trainer: Trainer,
}

/// The architecture of a network.
struct Architecture {
    window: SequenceWindow,
    hidden: usize,
    norm: bool,
    pooling: SequencePooling,
}

impl Architecture {
    fn new(settings: &BilstmSettings) -> Self {
        match settings.compat {
            None => Self {
                window: SequenceWindow { length: settings.length, sample: settings.sample, pad: false },
                hidden: settings.hidden,
                norm: false,
                pooling: SequencePooling::MaxOverTime,
            },
            Some(Compat::MovienetPrediction) => Self {
                window: SequenceWindow { length: 256, sample: SequenceSample::RandomWindow, pad: true },
                hidden: 128,
                norm: true,
                pooling: SequencePooling::LastStep,
            },
        }
    }
}

impl Classifier for BidirectionalLstm {
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        check_sequences(train, valid)?;
        let Architecture { window, hidden, norm, pooling } = Architecture::new(&self.settings);
        let RandomStreams { mut weights, dropout, windows, .. } = RandomStreams::new(context.seed);
        let sizes = (train.dim(), hidden, train.classes.len());
        let state = TrainingState {
            model: BilstmModel {
                network: BilstmNetwork::new(sizes, norm, pooling, &mut weights, context.threads),
                window,
                task: context.task,
            },
            dropout: Dropout::new(self.settings.dropout, dropout),
            windows,
        };
        let trained = self.trainer.train(state, train, valid, context)?;
        Ok(trained.output(context.task, |state| state.model))
    }
}

/// The model during training.
struct TrainingState {
    model: BilstmModel,
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
        let packed = PackedBatch::new(data, batch, self.model.window, Some(&mut self.windows))?;
        let clips: Vec<usize> = packed.order.iter().map(|&position| batch[position]).collect();
        let targets = data.targets.select(Axis(0), &clips);
        let mut outputs = Array2::zeros(logits.dim());
        let value = self.model.network.train_step(&packed, targets.view(), loss, &mut self.dropout, outputs.view_mut());
        restore_clip_order(outputs.view(), &packed.order, logits);
        Ok(value)
    }

    fn logits(&self, data: &Dataset) -> Result<Array2<f32>> {
        self.model.logits(data)
    }

    fn parameters(&mut self) -> Vec<Parameter<'_, f32>> {
        self.model.network.parameters()
    }
}

/// The fitted model of [`BidirectionalLstm`]. Tensor names are those of a PyTorch module with an LSTM `lstm`, a linear layer
/// `linear` and an optional LayerNorm `norm`.
#[derive(Debug, Clone)]
pub struct BilstmModel {
    network: BilstmNetwork<f32>,
    window: SequenceWindow,
    task: Task,
}

/// Names of the parameters of `torch.nn.LSTM` for each direction.
const LSTM_NAMES: [[&str; 4]; 2] = [
    ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"],
    ["lstm.weight_ih_l0_reverse", "lstm.weight_hh_l0_reverse", "lstm.bias_ih_l0_reverse", "lstm.bias_hh_l0_reverse"],
];
/// Name of the tensor that describes the sequences: length, [`SequenceSample::code`], and 1 if shorter clips are padded.
const WINDOW: &str = "bilstm.window";

impl BilstmModel {
    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let direction = |names: [&str; 4], reverse: bool| -> Result<LstmDirection<f32>> {
            let [weight_input, weight_hidden, bias_input, bias_hidden] = names;
            let (weight_input, weight_hidden) = (tensors.matrix(weight_input)?, tensors.matrix(weight_hidden)?);
            let gates = weight_hidden.nrows();
            if gates != 4 * weight_hidden.ncols() || weight_input.nrows() != gates {
                return Err(tensors.error("the shapes of the LSTM weights do not match".into()));
            }
            let biases = (tensors.vector_of(bias_input, gates)?, tensors.vector_of(bias_hidden, gates)?);
            Ok(LstmDirection::from_parameters(weight_input, weight_hidden, biases.0, biases.1, reverse))
        };
        let lstm = [direction(LSTM_NAMES[0], false)?, direction(LSTM_NAMES[1], true)?];
        let (inputs, hidden) = (lstm[0].weight_input.ncols(), lstm[0].hidden());
        if lstm[1].weight_input.dim() != lstm[0].weight_input.dim() {
            return Err(tensors.error("the shapes of the two LSTM directions differ".into()));
        }
        let norm = match tensors.contains("norm.weight") {
            true => Some(LayerNorm::from_parameters(
                tensors.vector_of("norm.weight", inputs)?,
                tensors.vector_of("norm.bias", inputs)?,
            )),
            false => None,
        };
        let pooling = if norm.is_some() { SequencePooling::LastStep } else { SequencePooling::MaxOverTime };
        let weight = tensors.matrix_of("linear.weight", pooling.output_len(hidden))?;
        let linear = Linear::from_parameters(weight.clone(), tensors.vector_of("linear.bias", weight.nrows())?);
        let window = tensors.vector_of(WINDOW, 3)?;
        let sample =
            SequenceSample::from_code(window[1]).ok_or_else(|| tensors.error(format!("{WINDOW}: unknown sampling")))?;
        let window = SequenceWindow { length: (window[0] as usize).max(1), sample, pad: window[2] != 0.0 };
        Ok(Self { network: BilstmNetwork::from_layers(norm, lstm, pooling, linear, default_threads()), window, task })
    }

    /// Computes the logits (N, C) in blocks of clips.
    fn logits(&self, data: &Dataset) -> Result<Array2<f32>> {
        const BLOCK: usize = 32;
        logits_in_blocks(data, self.network.linear.bias.len(), BLOCK, |clips, logits| {
            let batch = PackedBatch::new(data, clips, self.window, None)?;
            restore_clip_order(self.network.logits(&batch).view(), &batch.order, logits);
            Ok(())
        })
    }
}

impl Model for BilstmModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.network.lstm[0].weight_input.ncols())?;
        let mut scores = self.logits(data)?;
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let BilstmNetwork { norm, lstm, linear, .. } = &self.network;
        let mut tensors = Vec::new();
        if let Some(norm) = norm {
            tensors.push(Tensor::vector("norm.weight", norm.weight.view()));
            tensors.push(Tensor::vector("norm.bias", norm.bias.view()));
        }
        for (direction, names) in lstm.iter().zip(LSTM_NAMES) {
            tensors.push(Tensor::matrix(names[0], direction.weight_input.view()));
            tensors.push(Tensor::matrix(names[1], direction.weight_hidden.view()));
            tensors.push(Tensor::vector(names[2], direction.bias_input.view()));
            tensors.push(Tensor::vector(names[3], direction.bias_hidden.view()));
        }
        tensors.push(Tensor::matrix("linear.weight", linear.weight.view()));
        tensors.push(Tensor::vector("linear.bias", linear.bias.view()));
        let window = [self.window.length as f32, self.window.sample.code(), f32::from(self.window.pad)];
        tensors.push(Tensor::vector(WINDOW, ndarray::aview1(&window)));
        tensors
    }

    fn reads_sequences(&self) -> bool {
        true
    }

    /// Exports a graph that reads (N, time, D): sequences of equal length, at most the length of the model's window.
    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let BilstmNetwork { norm, lstm, linear, pooling, .. } = &self.network;
        let (hidden, inputs) = (lstm[0].hidden(), lstm[0].weight_input.ncols());
        // PyTorch orders the gates i, f, g, o; ONNX orders them i, o, f, g.
        let reorder_gates = |values: &[f32]| -> Vec<f32> {
            let size = values.len() / 4;
            [0, 3, 1, 2].iter().flat_map(|&gate| values[gate * size..(gate + 1) * size].to_vec()).collect()
        };
        let reorder_rows = |matrix: &Array2<f32>| reorder_gates(matrix.as_slice().expect("parameters are contiguous"));
        let (mut input, mut recurrent, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        for direction in lstm {
            input.extend(reorder_rows(&direction.weight_input));
            recurrent.extend(reorder_rows(&direction.weight_hidden));
            for values in [&direction.bias_input, &direction.bias_hidden] {
                bias.extend(reorder_gates(values.as_slice().expect("parameters are contiguous")));
            }
        }
        let mut constant = |name: &str, shape: &[usize], values: Vec<f32>| {
            graph.constant(Tensor { name: name.into(), shape: shape.to_vec(), values: values.into() })
        };
        let weights = [
            constant("lstm.W", &[2, 4 * hidden, inputs], input),
            constant("lstm.R", &[2, 4 * hidden, hidden], recurrent),
            constant("lstm.B", &[2, 8 * hidden], bias),
        ];
        let mut rows = features.to_string();
        if self.window.pad {
            rows = graph.pad_steps_in_front(&rows, self.window.length);
        }
        if let Some(norm) = norm {
            let weight = graph.constant(Tensor::vector("norm.weight", norm.weight.view()));
            let bias = graph.constant(Tensor::vector("norm.bias", norm.bias.view()));
            rows = graph.layer_norm(&rows, &weight, &bias, LayerNorm::<f32>::EPSILON);
        }
        let steps = graph.transpose(&rows, &[1, 0, 2]);
        let states = graph.bidirectional_lstm(&steps, [&weights[0], &weights[1], &weights[2]], hidden);
        // (time, direction, N, H) → (N, 2H), pooled.
        let pooled = match pooling {
            SequencePooling::MaxOverTime => {
                let maximum = graph.reduce("ReduceMax", &states, 0);
                let clips = graph.transpose(&maximum, &[1, 0, 2]);
                graph.reshape(&clips, &[0, 2 * hidden as i64])
            }
            SequencePooling::LastStep => {
                let last = graph.integers(&[-1]);
                let last = graph.node("Gather", &[&states, &last]);
                let clips = graph.transpose(&last, &[2, 0, 1, 3]);
                let groups = graph.reshape(&clips, &[0, hidden as i64 / 2, 4]);
                graph.reduce("ReduceMax", &groups, 2)
            }
        };
        let weight = graph.constant(Tensor::matrix("linear.weight", linear.weight.slice(s![.., ..])));
        let bias = graph.constant(Tensor::vector("linear.bias", linear.bias.view()));
        let logits = graph.linear(&pooled, &weight, &bias);
        graph.scores(&logits, self.task)
    }
}
