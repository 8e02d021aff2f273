//! Logarithms of scores before any model: the model of a learned fusion reads the scores of other models.

use ndarray::{Array2, ArrayView2};

use super::{Exporter, Model, Tensor, Tensors};
use crate::dataset::{Dataset, Task};
use crate::error::Result;

const MARGIN: &str = "log_scores.margin";

/// A model whose features are the logarithms of scores in [0, 1], for several labels per clip their log odds.
pub struct LogScores {
    /// Single-label: logarithms; multi-label: log odds.
    pub task: Task,
    /// Scores are clipped to this distance from 0 (multi-label: and from 1) before their logarithm is computed.
    pub margin: f32,
    /// The model that was fitted to logarithms.
    pub model: Box<dyn Model>,
}

impl LogScores {
    /// Reads the margin of a saved model; `None` if it does not read scores.
    ///
    /// # Errors
    /// Returns an error if the tensor has a wrong shape.
    pub(super) fn restore_margin(tensors: &Tensors) -> Result<Option<f32>> {
        Ok(if tensors.contains(MARGIN) { Some(tensors.vector_of(MARGIN, 1)?[0]) } else { None })
    }

    /// Replaces the features of `data`, which are scores, by their logarithms or log odds, computed in f64.
    ///
    /// # Errors
    /// Returns an error if the features of a clip are a sequence, or cannot be read.
    pub fn transform(data: &Dataset, task: Task, margin: f32) -> Result<Dataset> {
        let scores = data.vectors()?;
        let rows = logarithms(scores.view(), task, margin);
        Ok(Dataset { rows: rows.into(), offsets: (0..=data.len()).collect(), ..data.clone() })
    }
}

fn logarithms(scores: ArrayView2<'_, f32>, task: Task, margin: f32) -> Array2<f32> {
    let margin = f64::from(margin);
    let transform = |score: &f32| -> f32 {
        let score = f64::from(*score);
        let transformed = match task {
            Task::SingleLabel => score.clamp(margin, 1.0).ln(),
            Task::MultiLabel => {
                let score = score.clamp(margin, 1.0 - margin);
                score.ln() - (-score).ln_1p()
            }
        };
        transformed as f32
    };
    scores.map(transform)
}

impl Model for LogScores {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        self.model.scores(&Self::transform(data, self.task, self.margin)?)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = self.model.tensors();
        tensors.push(Tensor { name: MARGIN.into(), shape: vec![1], values: vec![self.margin].into() });
        tensors
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let margin = f64::from(self.margin);
        let highest = if self.task == Task::MultiLabel { 1.0 - margin } else { 1.0 };
        let (lowest, highest) =
            (graph.constant_f64(MARGIN, &[margin]), graph.constant_f64("log_scores.highest", &[highest]));
        let scores = graph.double(features);
        let scores = graph.node("Max", &[&scores, &lowest]);
        let scores = graph.node("Min", &[&scores, &highest]);
        let mut logarithms = graph.node("Log", &[&scores]);
        if self.task == Task::MultiLabel {
            let one = graph.constant_f64("log_scores.one", &[1.0]);
            let rest = graph.node("Sub", &[&one, &scores]);
            let of_rest = graph.node("Log", &[&rest]);
            logarithms = graph.node("Sub", &[&logarithms, &of_rest]);
        }
        let logarithms = graph.single(&logarithms);
        self.model.export(graph, &logarithms)
    }
}
