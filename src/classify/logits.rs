//! The model of networks that are trained end to end: their output are logits.

use ndarray::Array2;

use super::{Exporter, Model, Tensor, loss};
use crate::dataset::{Dataset, Task};
use crate::error::Result;

/// Scores clips whose features are the logits of the classes: softmax or sigmoid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitsModel {
    /// The task that the network was trained for.
    pub task: Task,
}

impl Model for LogitsModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        let mut scores = data.vectors()?.into_owned();
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        Vec::new()
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        graph.scores(features, self.task)
    }
}
