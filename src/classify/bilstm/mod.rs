//! The bidirectional LSTM over sequences of rows: its classifier and its model.

pub mod lstm;
pub mod network;
pub mod sequences;

use ndarray::{Array2, ArrayViewMut2, Axis, s};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::layers::{Dropout, LayerNorm, Linear, Parameter};
use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::training::{Learner, Streams, Trainer, measure};
use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::matrix::default_threads;
use crate::recipe::{self, Compat, SequenceSample};
use lstm::Direction;
use network::{Network, Pool, in_order_of_clips};
use sequences::{Packed, Window};

/// A bidirectional LSTM, the maximum over a clip's own time steps, dropout and a linear layer; softmax for one label a clip,
/// the sigmoid for several. With [`Compat::MovienetPrediction`], the network of that name. Trained as [`Trainer`] says.
pub struct BidirectionalLstm {
    /// The network.
    pub settings: recipe::Bilstm,
    /// Its training.
    pub trainer: Trainer,
}

/// What the settings come to.
struct Plan {
    window: Window,
    hidden: usize,
    norm: bool,
    pool: Pool,
}

impl Plan {
    fn of(settings: &recipe::Bilstm) -> Self {
        match settings.compat {
            None => Self {
                window: Window { length: settings.length, sample: settings.sample, pad: false },
                hidden: settings.hidden,
                norm: false,
                pool: Pool::MaxOverTime,
            },
            Some(Compat::MovienetPrediction) => Self {
                window: Window { length: 256, sample: SequenceSample::RandomWindow, pad: true },
                hidden: 128,
                norm: true,
                pool: Pool::LastStep,
            },
        }
    }
}

impl Classifier for BidirectionalLstm {
    fn fit(&self, data: &Dataset, valid: &Dataset, fitting: &mut Fitting<'_>) -> Result<Fitted> {
        if data.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        for part in [data, valid] {
            if let Some(clip) = part.offsets.windows(2).position(|pair| pair[0] == pair[1]) {
                return Err(Error::Data(format!("clip {} has no row of features; extract it anew", part.ids[clip])));
            }
        }
        let Plan { window, hidden, norm, pool } = Plan::of(&self.settings);
        let Streams { mut weights, dropout, windows, .. } = Streams::new(fitting.seed);
        let sizes = (data.dim(), hidden, data.classes.len());
        let learner = Pupil {
            model: BilstmModel {
                network: Network::new(sizes, norm, pool, &mut weights, fitting.threads),
                window,
                task: fitting.task,
            },
            dropout: Dropout::new(self.settings.dropout, dropout),
            windows,
        };
        let trained = self.trainer.train(learner, data, valid, fitting)?;
        Ok(Fitted {
            model: Box::new(trained.network.model),
            curves: trained.curves,
            measure: measure(fitting.task),
            kept_epoch: Some(trained.kept),
            notes: trained.notes,
        })
    }
}

/// The model in training.
struct Pupil {
    model: BilstmModel,
    dropout: Dropout,
    windows: Xoshiro256PlusPlus,
}

impl Learner for Pupil {
    fn learn(&mut self, data: &Dataset, chosen: &[usize], loss: &Loss, logits: ArrayViewMut2<'_, f32>) -> f64 {
        let batch = Packed::new(data, chosen, self.model.window, Some(&mut self.windows));
        let clips: Vec<usize> = batch.order.iter().map(|&place| chosen[place]).collect();
        let targets = data.targets.select(Axis(0), &clips);
        let mut outputs = Array2::zeros(logits.dim());
        let value = self.model.network.learn(&batch, targets.view(), loss, &mut self.dropout, outputs.view_mut());
        in_order_of_clips(outputs.view(), &batch.order, logits);
        value
    }

    fn logits(&self, data: &Dataset) -> Array2<f32> {
        self.model.logits(data)
    }

    fn parameters(&mut self) -> Vec<Parameter<'_, f32>> {
        self.model.network.parameters()
    }

    fn state(&mut self) -> Vec<&mut [f32]> {
        self.parameters().into_iter().map(|parameter| parameter.values).collect()
    }
}

/// See [`BidirectionalLstm`]. Its tensors have the names of a PyTorch module with an LSTM `lstm`, a linear layer `linear`
/// and, where there is one, a LayerNorm `norm`.
#[derive(Debug, Clone)]
pub struct BilstmModel {
    network: Network<f32>,
    window: Window,
    task: Task,
}

/// The parameters of `torch.nn.LSTM` for each direction.
const NAMES: [[&str; 4]; 2] = [
    ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"],
    ["lstm.weight_ih_l0_reverse", "lstm.weight_hh_l0_reverse", "lstm.bias_ih_l0_reverse", "lstm.bias_hh_l0_reverse"],
];
/// Length, sampling (its place in [`SAMPLES`]), and whether shorter clips are padded: how sequences are made.
const WINDOW: &str = "bilstm.window";
const SAMPLES: [SequenceSample; 3] = [SequenceSample::Truncate, SequenceSample::RandomWindow, SequenceSample::Even];

impl BilstmModel {
    /// The model of saved tensors, for the task it was fitted to.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let direction = |names: [&str; 4], reverse: bool| -> Result<Direction<f32>> {
            let [weight_input, weight_hidden, bias_input, bias_hidden] = names;
            let (weight_input, weight_hidden) = (tensors.matrix(weight_input)?, tensors.matrix(weight_hidden)?);
            let gates = weight_hidden.nrows();
            if gates != 4 * weight_hidden.ncols() || weight_input.nrows() != gates {
                return Err(tensors.wrong("the weights of the LSTM do not fit each other".into()));
            }
            let biases = (tensors.vector_of(bias_input, gates)?, tensors.vector_of(bias_hidden, gates)?);
            Ok(Direction::from_parameters(weight_input, weight_hidden, biases.0, biases.1, reverse))
        };
        let lstm = [direction(NAMES[0], false)?, direction(NAMES[1], true)?];
        let (inputs, hidden) = (lstm[0].weight_input.ncols(), lstm[0].hidden());
        if lstm[1].weight_input.dim() != lstm[0].weight_input.dim() {
            return Err(tensors.wrong("the two directions of the LSTM differ in shape".into()));
        }
        let norm = match tensors.has("norm.weight") {
            true => Some(LayerNorm::from_parameters(
                tensors.vector_of("norm.weight", inputs)?,
                tensors.vector_of("norm.bias", inputs)?,
            )),
            false => None,
        };
        let pool = if norm.is_some() { Pool::LastStep } else { Pool::MaxOverTime };
        let weight = tensors.matrix_of("linear.weight", pool.values(hidden))?;
        let linear = Linear::from_parameters(weight.clone(), tensors.vector_of("linear.bias", weight.nrows())?);
        let window = tensors.vector_of(WINDOW, 3)?;
        let sample = SAMPLES.get(window[1] as usize).ok_or_else(|| tensors.wrong("unknown sampling".into()))?;
        let window = Window { length: (window[0] as usize).max(1), sample: *sample, pad: window[2] != 0.0 };
        Ok(Self { network: Network::from_layers(norm, lstm, pool, linear, default_threads()), window, task })
    }

    /// Logits (N, C), some clips at a time.
    fn logits(&self, data: &Dataset) -> Array2<f32> {
        const BLOCK: usize = 32;
        let mut logits = Array2::zeros((data.len(), self.network.linear.bias.len()));
        let clips: Vec<usize> = (0..data.len()).collect();
        for (clips, mut logits) in clips.chunks(BLOCK).zip(logits.axis_chunks_iter_mut(Axis(0), BLOCK)) {
            let batch = Packed::new(data, clips, self.window, None);
            in_order_of_clips(self.network.logits(&batch).view(), &batch.order, logits.view_mut());
        }
        logits
    }
}

impl Model for BilstmModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.network.lstm[0].weight_input.ncols())?;
        let mut scores = self.logits(data);
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let Network { norm, lstm, linear, .. } = &self.network;
        let mut tensors = Vec::new();
        if let Some(norm) = norm {
            tensors.push(Tensor::vector("norm.weight", norm.weight.view()));
            tensors.push(Tensor::vector("norm.bias", norm.bias.view()));
        }
        for (direction, names) in lstm.iter().zip(NAMES) {
            tensors.push(Tensor::matrix(names[0], direction.weight_input.view()));
            tensors.push(Tensor::matrix(names[1], direction.weight_hidden.view()));
            tensors.push(Tensor::vector(names[2], direction.bias_input.view()));
            tensors.push(Tensor::vector(names[3], direction.bias_hidden.view()));
        }
        tensors.push(Tensor::matrix("linear.weight", linear.weight.view()));
        tensors.push(Tensor::vector("linear.bias", linear.bias.view()));
        let sample = SAMPLES.iter().position(|sample| *sample == self.window.sample).expect("all are listed");
        let window = [self.window.length as f32, sample as f32, f32::from(self.window.pad)];
        tensors.push(Tensor::vector(WINDOW, ndarray::aview1(&window)));
        tensors
    }

    fn reads_sequences(&self) -> bool {
        true
    }

    /// Reads (N, time, D), sequences of one length, which must be one that the model would make itself.
    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let Network { norm, lstm, linear, pool, .. } = &self.network;
        let (hidden, inputs) = (lstm[0].hidden(), lstm[0].weight_input.ncols());
        // PyTorch's gates are i, f, g, o; ONNX has i, o, f, g.
        let gates = |values: &[f32]| -> Vec<f32> {
            let each = values.len() / 4;
            [0, 3, 1, 2].iter().flat_map(|&gate| values[gate * each..(gate + 1) * each].to_vec()).collect()
        };
        let whole = |matrix: &Array2<f32>| gates(matrix.as_slice().expect("parameters are contiguous"));
        let (mut input, mut recurrent, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        for direction in lstm {
            input.extend(whole(&direction.weight_input));
            recurrent.extend(whole(&direction.weight_hidden));
            for values in [&direction.bias_input, &direction.bias_hidden] {
                bias.extend(gates(values.as_slice().expect("parameters are contiguous")));
            }
        }
        let mut constant = |name: &str, shape: &[usize], values: Vec<f32>| {
            graph.constant(Tensor { name: name.into(), shape: shape.to_vec(), values })
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
        let pooled = match pool {
            Pool::MaxOverTime => {
                let most = graph.reduce("ReduceMax", &states, 0);
                let clips = graph.transpose(&most, &[1, 0, 2]);
                graph.reshape(&clips, &[0, 2 * hidden as i64])
            }
            Pool::LastStep => {
                let last = graph.integers(&[-1]);
                let last = graph.node("Gather", &[&states, &last]);
                let clips = graph.transpose(&last, &[2, 0, 1, 3]);
                let fours = graph.reshape(&clips, &[0, hidden as i64 / 2, 4]);
                graph.reduce("ReduceMax", &fours, 2)
            }
        };
        let weight = graph.constant(Tensor::matrix("linear.weight", linear.weight.slice(s![.., ..])));
        let bias = graph.constant(Tensor::vector("linear.bias", linear.bias.view()));
        let logits = graph.linear(&pooled, &weight, &bias);
        graph.scores(&logits, self.task)
    }
}
