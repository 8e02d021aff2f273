//! k nearest neighbors.

use ndarray::{Array1, Array2, Axis, aview1};
use serde::{Deserialize, Serialize};

use super::definition::positive;
use super::standardize::check_dim;
use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, Tensor, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::matrix::{Accumulate, default_threads, multiply};
use crate::value_parsers;

/// Settings of k nearest neighbors; the table `[classify.knn]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct KnnSettings {
    /// Number of neighbors, k.
    #[arg(long, value_name = "K", value_parser = value_parsers::at_least(1_usize))]
    pub neighbors: usize,
}

impl Default for KnnSettings {
    fn default() -> Self {
        Self { neighbors: 5 }
    }
}

impl ClassifierDefinition for KnnSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };

    fn validate(&self) -> std::result::Result<(), String> {
        positive("classify.knn.neighbors", self.neighbors)
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(NearestNeighbors(self.clone()))
    }

    fn restore(tensors: &Tensors, _: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(KnnModel::restore(tensors)?))
    }
}

/// Scores a clip with the share of each class among its k nearest training clips (Euclidean distance, exact search, double
/// precision). At equal distance the clip with the lower class index is nearer, then the earlier clip of the training split.
pub struct NearestNeighbors(pub KnnSettings);

impl Classifier for NearestNeighbors {
    fn fit(&self, train: &Dataset, _: &Dataset, _: &mut FitContext<'_>) -> Result<FitOutput> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        let vectors = train.vectors()?;
        // Sorted by first class, so that equal distances prefer the lower class index.
        let first_class = |i: usize| train.targets.row(i).iter().position(|t| *t > 0.0).unwrap_or(usize::MAX);
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.sort_by_key(|&i| first_class(i));
        let neighbors = self.0.neighbors.min(train.len());
        let notes = if neighbors < self.0.neighbors {
            vec![format!("only {neighbors} training clips: k is {neighbors} instead of {}", self.0.neighbors)]
        } else {
            vec![]
        };
        let model = KnnModel::new(vectors.select(Axis(0), &order), train.targets.select(Axis(0), &order), neighbors);
        Ok(FitOutput::without_epochs(model, notes))
    }
}

/// The fitted model of [`NearestNeighbors`].
#[derive(Debug, Clone, PartialEq)]
pub struct KnnModel {
    /// Features of the training clips, sorted by first class, (N, D).
    features: Array2<f32>,
    /// Multi-hot targets, (N, C).
    targets: Array2<f32>,
    neighbors: usize,
}

impl KnnModel {
    fn new(features: Array2<f32>, targets: Array2<f32>, neighbors: usize) -> Self {
        Self { features, targets, neighbors }
    }

    /// Restores the model from its saved tensors.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let (features, targets) = (tensors.matrix("knn.features")?, tensors.matrix("knn.targets")?);
        let neighbors = tensors.vector_of("knn.neighbors", 1)?[0] as usize;
        if targets.nrows() != features.nrows() || neighbors == 0 || neighbors > features.nrows() {
            return Err(tensors.error("knn.features, knn.targets and knn.neighbors do not match".into()));
        }
        Ok(Self::new(features, targets, neighbors))
    }
}

impl Model for KnnModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.features.ncols())?;
        let queries = data.vectors()?;
        let train = self.features.mapv(f64::from);
        let lengths: Array1<f64> = train.rows().into_iter().map(|row| row.dot(&row)).collect();
        let mut scores = Array2::zeros((data.len(), self.targets.ncols()));
        const BLOCK: usize = 256;
        for (queries, mut scores) in
            queries.axis_chunks_iter(Axis(0), BLOCK).zip(scores.axis_chunks_iter_mut(Axis(0), BLOCK))
        {
            // ‖t‖² − 2·q·t differs from ‖t − q‖² by a constant per query q.
            let queries = queries.mapv(|q| -2.0 * f64::from(q));
            let mut distances =
                lengths.broadcast((queries.nrows(), train.nrows())).expect("a vector broadcasts over rows").to_owned();
            multiply(queries.view(), train.t(), distances.view_mut(), Accumulate::Yes, default_threads());
            for (distances, mut scores) in distances.rows().into_iter().zip(scores.rows_mut()) {
                let mut order: Vec<usize> = (0..train.nrows()).collect();
                let nearer = |a: &usize, b: &usize| distances[*a].total_cmp(&distances[*b]).then(a.cmp(b));
                order.select_nth_unstable_by(self.neighbors - 1, nearer);
                for &i in &order[..self.neighbors] {
                    scores += &self.targets.row(i);
                }
                scores /= self.neighbors as f32;
            }
        }
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        vec![
            Tensor::matrix("knn.features", self.features.view()),
            Tensor::matrix("knn.targets", self.targets.view()),
            Tensor::vector("knn.neighbors", aview1(&[self.neighbors as f32])),
        ]
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let queries = graph.double(features);
        let train = graph.constant(Tensor::matrix("knn.features", self.features.view()));
        let train = graph.double(&train);
        let squares = graph.node("Mul", &[&train, &train]);
        let lengths = graph.reduce("ReduceSum", &squares, 1);
        let distances = graph.scaled_linear(&queries, &train, &lengths, -2.0);
        let nearest = graph.lowest(&distances, self.neighbors);
        let targets = graph.constant(Tensor::matrix("knn.targets", self.targets.view()));
        let votes = graph.node("Gather", &[&targets, &nearest]);
        graph.reduce("ReduceMean", &votes, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn equal_distances_prefer_the_lower_class() {
        let dataset = |rows: Array2<f32>, targets: Array2<f32>| Dataset {
            ids: (0..rows.nrows()).map(|i| i.to_string()).collect(),
            groups: vec![None; rows.nrows()],
            offsets: (0..=rows.nrows()).collect(),
            rows,
            targets,
            classes: vec!["a".into(), "b".into()],
        };
        let train = dataset(array![[2.0], [0.0], [9.0]], array![[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]);
        let query = dataset(array![[1.0], [8.0]], Array2::zeros((2, 2)));
        let mut ignore = |_: &crate::evaluate::Epoch| {};
        let mut context = FitContext { seed: 0, task: Task::SingleLabel, threads: 1, progress: &mut ignore };
        let fit = |k, context: &mut FitContext<'_>| {
            NearestNeighbors(KnnSettings { neighbors: k }).fit(&train, &train, context).unwrap()
        };
        assert_eq!(fit(1, &mut context).model.scores(&query).unwrap(), array![[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(fit(2, &mut context).model.scores(&query).unwrap(), array![[0.5, 0.5], [0.0, 1.0]]);
        assert_eq!(fit(7, &mut context).notes.len(), 1);
    }
}
