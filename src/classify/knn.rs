//! k nearest neighbors.

use ndarray::{ArcArray2, Array1, Array2, ArrayView2, Axis, aview1, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::definition::positive;
use super::standardize::check_dim;
use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, Tensor, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::matrix::{Accumulate, multiply};
use crate::value_parsers;

/// Settings of k nearest neighbors; the table `[classify.knn]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct KnnSettings {
    /// Number of neighbors, k.
    #[arg(long, value_name = "K", value_parser = value_parsers::at_least(1_usize))]
    pub neighbors: usize,
    /// Distance.
    #[arg(long, value_name = "METRIC")]
    pub metric: Metric,
}

/// Distances of k nearest neighbors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// ‖q − t‖.
    #[default]
    Euclidean,
    /// 1 − q·t/(‖q‖·‖t‖); 1 if a vector is zero.
    Cosine,
}

impl Default for KnnSettings {
    fn default() -> Self {
        Self { neighbors: 5, metric: Metric::Euclidean }
    }
}

impl ClassifierDefinition for KnnSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };
    const SEARCH: &'static [(&'static str, &'static str)] =
        &[("neighbors", "1,3,5,10,20,50"), ("metric", "euclidean,cosine")];

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

/// Scores a clip with the share of each class among its k nearest training clips (exact search, distances in double precision). At equal distance the clip with the lower class index is nearer, then the earlier clip of the training split.
pub struct NearestNeighbors(pub KnnSettings);

impl Classifier for NearestNeighbors {
    fn fit(&self, train: &Dataset, _: &Dataset, _: &mut FitContext<'_>) -> Result<FitOutput> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
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
        let mut features = train.select(&order).vectors()?.into_owned();
        if self.0.metric == Metric::Cosine {
            let lengths = squared_lengths(features.view()).mapv(f64::sqrt);
            for (mut row, &length) in features.rows_mut().into_iter().zip(&lengths).filter(|(_, length)| **length > 0.0)
            {
                row.mapv_inplace(|value| (f64::from(value) / length) as f32);
            }
        }
        let targets = train.targets.select(Axis(0), &order);
        let model = KnnModel { features: features.into_shared(), targets, neighbors, metric: self.0.metric };
        Ok(FitOutput::without_epochs(model, notes))
    }
}

/// The fitted model of [`NearestNeighbors`].
#[derive(Debug, Clone, PartialEq)]
pub struct KnnModel {
    /// Features of the training clips, sorted by first class, (N, D); of unit length for the cosine distance.
    /// Shared with the tensors of its files.
    features: ArcArray2<f32>,
    /// Multi-hot targets, (N, C).
    targets: Array2<f32>,
    neighbors: usize,
    metric: Metric,
}

impl KnnModel {
    /// Restores the model from its saved tensors.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let (features, targets) = (tensors.shared_matrix("knn.features")?, tensors.matrix("knn.targets")?);
        let neighbors = tensors.vector_of("knn.neighbors", 1)?[0] as usize;
        if targets.nrows() != features.nrows() || neighbors == 0 || neighbors > features.nrows() {
            return Err(tensors.error("knn.features, knn.targets and knn.neighbors do not match".into()));
        }
        let metric = if tensors.contains(COSINE) { Metric::Cosine } else { Metric::Euclidean };
        Ok(Self { features, targets, neighbors, metric })
    }

    /// Returns ‖t‖² of the training clips, or 0 for the cosine distance.
    fn lengths(&self) -> Array1<f64> {
        match self.metric {
            Metric::Euclidean => squared_lengths(self.features.view()),
            Metric::Cosine => Array1::zeros(self.features.nrows()),
        }
    }
}

/// Marks models of the cosine distance.
const COSINE: &str = "knn.cosine";
/// Queries and training clips in a block of distances.
const QUERIES: usize = 128;
const CLIPS: usize = 2048;

/// Exact search for the nearest training clips. The order of ‖t‖² − 2·q·t is that of the distances ‖q − t‖ of a query q.
///
/// Products in single precision select candidates: all clips that may be among the nearest, given the bound of the rounding errors. Their
/// distances are then computed in double precision.
struct Search<'a> {
    features: ArrayView2<'a, f32>,
    neighbors: usize,
    lengths: Array1<f64>,
    single_lengths: Array1<f32>,
    /// max ‖t‖.
    largest: f64,
}

impl<'a> Search<'a> {
    fn new(model: &'a KnnModel) -> Self {
        let lengths = model.lengths();
        let largest = squared_lengths(model.features.view()).iter().fold(0f64, |most, length| most.max(*length)).sqrt();
        let single_lengths = lengths.mapv(|length| length as f32);
        Self { features: model.features.view(), neighbors: model.neighbors, lengths, single_lengths, largest }
    }

    /// Calls `found` with each query's number and its k nearest clips, in no particular order.
    fn block(&self, queries: ArrayView2<'_, f32>, mut found: impl FnMut(usize, &[usize])) {
        let doubled = queries.mapv(|q| -2.0 * q);
        // |fl(x·y) − x·y| ≤ D·u·‖x‖·‖y‖ in every order of summation, and the rounding of the lengths (Higham 2002, section 3.1).
        let unit = f64::from(f32::EPSILON) / 2.0;
        let terms = self.features.ncols() as f64 + 4.0;
        let bounds: Vec<f32> = squared_lengths(queries)
            .iter()
            .map(|q| (unit * (terms * 2.0 * q.sqrt() * self.largest + 4.0 * self.largest.powi(2)) * 1.001) as f32)
            .collect();
        let mut candidates = vec![Candidates::new(self.neighbors); queries.nrows()];
        let mut distances = Array2::<f32>::zeros((queries.nrows(), CLIPS));
        for (block, clips) in self.features.axis_chunks_iter(Axis(0), CLIPS).enumerate() {
            let start = block * CLIPS;
            let mut distances = distances.slice_mut(s![.., ..clips.nrows()]);
            distances.assign(&self.single_lengths.slice(s![start..start + clips.nrows()]));
            multiply(doubled.view(), clips.t(), distances.view_mut(), Accumulate::Yes, 1);
            for ((row, candidates), &bound) in distances.rows().into_iter().zip(&mut candidates).zip(&bounds) {
                candidates.add(row.to_slice().expect("rows are contiguous"), start, bound);
            }
        }
        for (number, (query, candidates)) in queries.rows().into_iter().zip(candidates).enumerate() {
            let mut exact: Vec<(f64, usize)> = candidates
                .clips
                .into_iter()
                .map(|(_, i)| {
                    let clip = self.features.row(i);
                    let product: f64 = clip.iter().zip(query).map(|(&t, &q)| f64::from(t) * f64::from(q)).sum();
                    (self.lengths[i] - 2.0 * product, i)
                })
                .collect();
            if exact.len() > self.neighbors {
                exact.select_nth_unstable_by(self.neighbors - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            }
            let nearest: Vec<usize> = exact[..self.neighbors].iter().map(|(_, i)| *i).collect();
            found(number, &nearest);
        }
    }
}

/// The clips that may be among the k nearest of a query.
#[derive(Debug, Clone)]
struct Candidates {
    neighbors: usize,
    /// Approximate distances and clips.
    clips: Vec<(f32, usize)>,
    /// Clips above it are not among the nearest.
    threshold: f32,
}

impl Candidates {
    fn new(neighbors: usize) -> Self {
        Self { neighbors, clips: Vec::new(), threshold: f32::INFINITY }
    }

    /// Adds clips from number `start` on, whose distances have an error of at most `bound`.
    fn add(&mut self, distances: &[f32], start: usize, bound: f32) {
        for (chunk, number) in distances.chunks(64).zip((start..).step_by(64)) {
            if chunk.iter().all(|&distance| distance > self.threshold) {
                continue;
            }
            self.clips
                .extend((number..).zip(chunk).filter(|(_, d)| may_be_near(**d, self.threshold)).map(|(i, &d)| (d, i)));
            if self.clips.len() > 2 * self.neighbors + 64 {
                self.compact(bound);
            }
        }
    }

    /// Lowers the threshold to the k-th distance plus the errors of both distances.
    fn compact(&mut self, bound: f32) {
        let (_, kth, _) = self.clips.select_nth_unstable_by(self.neighbors - 1, |a, b| a.0.total_cmp(&b.0));
        let threshold = kth.0 + 2.0 * bound;
        if threshold < self.threshold {
            self.threshold = threshold.next_up();
        }
        let threshold = self.threshold;
        self.clips.retain(|(distance, _)| may_be_near(*distance, threshold));
    }
}

/// Returns `true` unless a distance is above the threshold. NaN, from overflow, may be near: the exact distance decides.
fn may_be_near(distance: f32, threshold: f32) -> bool {
    distance <= threshold || distance.is_nan()
}

/// Returns the squared lengths of rows.
fn squared_lengths(rows: ArrayView2<'_, f32>) -> Array1<f64> {
    rows.rows().into_iter().map(|row| row.iter().map(|&value| f64::from(value).powi(2)).sum()).collect()
}

impl Model for KnnModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.features.ncols())?;
        let queries = data.vectors()?;
        let search = Search::new(self);
        let mut scores = Array2::zeros((data.len(), self.targets.ncols()));
        let blocks = queries.axis_chunks_iter(Axis(0), QUERIES).zip(scores.axis_chunks_iter_mut(Axis(0), QUERIES));
        blocks.collect::<Vec<_>>().into_par_iter().for_each(|(queries, mut scores)| {
            search.block(queries, |number, nearest| {
                let mut scores = scores.row_mut(number);
                for &i in nearest {
                    scores += &self.targets.row(i);
                }
                scores /= nearest.len() as f32;
            });
        });
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = vec![
            Tensor::shared_matrix("knn.features", self.features.clone()),
            Tensor::matrix("knn.targets", self.targets.view()),
            Tensor::vector("knn.neighbors", aview1(&[self.neighbors as f32])),
        ];
        if self.metric == Metric::Cosine {
            tensors.push(Tensor::vector(COSINE, aview1(&[1.0])));
        }
        tensors
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let queries = graph.double(features);
        let train = graph.constant(Tensor::shared_matrix("knn.features", self.features.clone()));
        let train = graph.double(&train);
        let lengths = match self.metric {
            Metric::Euclidean => {
                let squares = graph.node("Mul", &[&train, &train]);
                graph.reduce("ReduceSum", &squares, 1)
            }
            // The clips have unit length; the length of the query does not change the order.
            Metric::Cosine => {
                let zero = graph.constant(Tensor::vector("knn.zero", aview1(&[0.0])));
                graph.double(&zero)
            }
        };
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
    use crate::classify::tests::noise;
    use ndarray::array;

    #[test]
    fn equal_distances_prefer_the_lower_class() {
        let dataset = |rows: Array2<f32>, targets: Array2<f32>| Dataset {
            ids: (0..rows.nrows()).map(|i| i.to_string()).collect(),
            groups: vec![None; rows.nrows()],
            offsets: (0..=rows.nrows()).collect(),
            rows: rows.into(),
            targets,
            classes: vec!["a".into(), "b".into()],
        };
        let train = dataset(array![[2.0], [0.0], [9.0]], array![[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]);
        let query = dataset(array![[1.0], [8.0]], Array2::zeros((2, 2)));
        let mut ignore = |_: &crate::evaluate::Epoch| {};
        let mut context = FitContext::new(0, Task::SingleLabel, 1, &mut ignore);
        let fit = |k, context: &mut FitContext<'_>| {
            NearestNeighbors(KnnSettings { neighbors: k, ..Default::default() }).fit(&train, &train, context).unwrap()
        };
        assert_eq!(fit(1, &mut context).model.scores(&query).unwrap(), array![[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(fit(2, &mut context).model.scores(&query).unwrap(), array![[0.5, 0.5], [0.0, 1.0]]);
        assert_eq!(fit(7, &mut context).notes.len(), 1);
    }

    #[test]
    fn finds_the_same_clips_as_a_search_over_all_distances() {
        let mut noise = noise(5);
        // More clips than a block, with duplicates, and a large common offset that f32 products resolve badly.
        for offset in [0.0, 1000.0] {
            let (count, dim) = (CLIPS + 300, 20);
            let mut features = Array2::from_shape_fn((count, dim), |_| offset + noise());
            for i in (0..count).step_by(7) {
                let copy = features.row(i / 2).to_owned();
                features.row_mut(i).assign(&copy);
            }
            let queries = Array2::from_shape_fn((QUERIES + 9, dim), |_| offset + noise());
            for (metric, neighbors) in [(Metric::Euclidean, 1), (Metric::Euclidean, 40), (Metric::Cosine, 5)] {
                let model =
                    KnnModel { features: features.to_shared(), targets: Array2::zeros((count, 2)), neighbors, metric };
                let search = Search::new(&model);
                search.block(queries.view(), |number, nearest| {
                    let distance = |i: usize| {
                        let dot: f64 = features
                            .row(i)
                            .iter()
                            .zip(queries.row(number))
                            .map(|(&t, &q)| f64::from(t) * f64::from(q))
                            .sum();
                        search.lengths[i] - 2.0 * dot
                    };
                    let mut all: Vec<(f64, usize)> = (0..count).map(|i| (distance(i), i)).collect();
                    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    let mut expected: Vec<usize> = all[..neighbors].iter().map(|(_, i)| *i).collect();
                    let mut nearest = nearest.to_vec();
                    expected.sort_unstable();
                    nearest.sort_unstable();
                    assert_eq!(nearest, expected);
                });
            }
        }
    }
}
