//! k nearest neighbors.

use ndarray::{Array1, Array2, Axis, aview1};

use super::standardize::check_dim;
use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::matrix::{Into, default_threads, multiply};
use crate::recipe;

/// Scores a clip with the share of its k nearest training clips (Euclidean distance, exact, in double precision) that carry
/// each class. Nearer clips come first, of equally near ones those of the lower class index, then those that stand earlier
/// in the training split. Equal shares are for whoever picks the highest score to decide (the lower class index).
pub struct NearestNeighbors(pub recipe::Knn);

impl Classifier for NearestNeighbors {
    fn fit(&self, train: &Dataset, _: &Dataset, _: &mut Fitting<'_>) -> Result<Fitted> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        let vectors = train.vectors()?;
        // In the order of their (first) classes, so that equal distances fall to the lower class.
        let first_class = |i: usize| train.targets.row(i).iter().position(|t| *t > 0.0).unwrap_or(usize::MAX);
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.sort_by_key(|&i| first_class(i));
        let neighbors = self.0.neighbors.min(train.len());
        let notes = if neighbors < self.0.neighbors {
            vec![format!("only {neighbors} training clips, so as many neighbors vote, not {}", self.0.neighbors)]
        } else {
            vec![]
        };
        let model = KnnModel::new(vectors.select(Axis(0), &order), train.targets.select(Axis(0), &order), neighbors);
        Ok(Fitted::at_once(model, notes))
    }
}

/// See [`NearestNeighbors`].
#[derive(Debug, Clone, PartialEq)]
pub struct KnnModel {
    /// Training clips in the order of their classes, (N, D).
    features: Array2<f32>,
    /// (N, C), multi-hot.
    targets: Array2<f32>,
    neighbors: usize,
}

impl KnnModel {
    fn new(features: Array2<f32>, targets: Array2<f32>, neighbors: usize) -> Self {
        Self { features, targets, neighbors }
    }

    /// The model of saved tensors.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let (features, targets) = (tensors.matrix("knn.features")?, tensors.matrix("knn.targets")?);
        let neighbors = tensors.vector_of("knn.neighbors", 1)?[0] as usize;
        if targets.nrows() != features.nrows() || neighbors == 0 || neighbors > features.nrows() {
            return Err(tensors.wrong("the tensors of the neighbors do not fit each other".into()));
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
            // ‖t‖² − 2·q·t orders training clips t as the distance does.
            let queries = queries.mapv(|q| -2.0 * f64::from(q));
            let mut distances = lengths.broadcast((queries.nrows(), train.nrows())).expect("a row repeats").to_owned();
            multiply(queries.view(), train.t(), distances.view_mut(), Into::Add, default_threads());
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
    fn equally_near_clips_fall_to_the_lower_class() {
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
        let mut fitting =
            Fitting { seed: 0, task: crate::dataset::Task::SingleLabel, threads: 1, progress: &mut ignore };
        let fit = |k, fitting: &mut Fitting<'_>| {
            NearestNeighbors(recipe::Knn { neighbors: k }).fit(&train, &train, fitting).unwrap()
        };
        assert_eq!(fit(1, &mut fitting).model.scores(&query).unwrap(), array![[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(fit(2, &mut fitting).model.scores(&query).unwrap(), array![[0.5, 0.5], [0.0, 1.0]]);
        assert_eq!(fit(7, &mut fitting).notes.len(), 1);
    }
}
