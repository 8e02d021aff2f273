//! k-means: Lloyd's algorithm with assignment by matrix products, initialized by greedy k-means++.
//!
//! ‖x − c‖² = ‖x‖² + ‖c‖² − 2·x·c, and ‖x‖² does not depend on the center, so one matrix product scores a block of rows
//! against all centers ([`scoring`]). u8 data are converted to f32 block by block. Rows are skipped if their nearest center
//! cannot have changed, because the centers moved less than the difference between the distances to the nearest and the second
//! nearest center (Hamerly, "Making k-means even faster", 2010; [`slice`]). The result equals Lloyd's algorithm, and late
//! iterations, in which few labels change, are fast.
//!
//! As in scikit-learn's `KMeans(algorithm="lloyd")`, iteration stops when no label changes or when the sum of the squared
//! movements of the centers is at most `tolerance` times the mean variance; an empty cluster gets the row that is farthest from
//! its center. Initialization is scikit-learn's greedy k-means++ ([`seeding`]).
//!
//! The rows are divided into slices whose number does not depend on the number of threads, and sums have a fixed order, so the
//! result is bit-identical for any number of threads.

mod distance;
mod rows;
mod scoring;
mod seeding;
mod slice;
#[cfg(test)]
mod tests;

use ndarray::{Array2, ArrayView2, CowArray, Ix2};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use crate::error::{Error, Result};
use distance::squared_distance;
use rows::{BLOCK_ROWS, center_of, rows_of, slice_rows};
use scoring::{Scorer, Scratch};
use slice::{Drift, Slice};

pub use distance::Number;

/// Settings of k-means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeans {
    /// Number of clusters, k.
    pub clusters: usize,
    /// Maximum number of iterations.
    pub max_iterations: usize,
    /// Threshold on the movement of the centers, relative to the mean variance of the data; see the module.
    pub tolerance: f64,
    /// Seed of k-means++.
    pub seed: u64,
}

/// Result of k-means.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// The centers, (k, D).
    pub centroids: Array2<f32>,
    /// The nearest center of each row; the first one in case of ties.
    pub labels: Vec<u32>,
    /// Sum of the squared distances of the rows to their centers.
    pub inertia: f64,
    /// Number of iterations.
    pub iterations: usize,
}

impl KMeans {
    /// Clusters the rows of `data`, (N, D), from initial centers by k-means++.
    ///
    /// # Errors
    /// Returns an error if there are fewer rows than clusters, no clusters, no columns, or a value that is not finite.
    pub fn fit<T: Number>(&self, data: ArrayView2<'_, T>) -> Result<Clusters> {
        let data = data.as_standard_layout();
        self.check(&data)?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let start = seeding::plus_plus(&data, self.clusters, &mut rng);
        Ok(self.lloyd(&data, start))
    }

    /// Clusters the rows of `data`, (N, D), from the initial centers `start`, (k, D).
    ///
    /// # Errors
    /// Returns an error under the conditions of [`KMeans::fit`], or if `start` has another shape.
    pub fn fit_from<T: Number>(&self, data: ArrayView2<'_, T>, start: Array2<f32>) -> Result<Clusters> {
        let data = data.as_standard_layout();
        self.check(&data)?;
        if start.dim() != (self.clusters, data.ncols()) {
            let expected = (self.clusters, data.ncols());
            return Err(Error::Data(format!("the initial centers have shape {:?}, not {expected:?}", start.dim())));
        }
        Ok(self.lloyd(&data, start.as_standard_layout().into_owned()))
    }

    fn check<T: Number>(&self, data: &CowArray<'_, T, Ix2>) -> Result<()> {
        if self.clusters == 0 || data.ncols() == 0 {
            return Err(Error::Data("k-means needs at least one cluster and one column".into()));
        }
        if data.nrows() < self.clusters {
            return Err(Error::Data(format!(
                "{} rows are too few for {} clusters: use more data or fewer clusters",
                data.nrows(),
                self.clusters
            )));
        }
        if !data.iter().all(|&value| value.into().is_finite()) {
            return Err(Error::Data("the input of k-means contains a value that is not finite".into()));
        }
        Ok(())
    }

    fn lloyd<T: Number>(&self, data: &CowArray<'_, T, Ix2>, start: Array2<f32>) -> Clusters {
        let rows = data.nrows();
        let (mean, variance) = mean_and_variance(data);
        let threshold = self.tolerance * variance;
        let mut centroids = start;
        let mut labels = vec![u32::MAX; rows];
        let slice_rows = slice_rows(rows);
        let mut slices: Vec<Slice> =
            labels.chunks(slice_rows).map(|labels| Slice::new(labels.len(), centroids.dim())).collect();
        let mut drift = Drift::unknown(self.clusters);
        let mut iterations = 0;
        let mut converged = false;
        while iterations < self.max_iterations {
            iterations += 1;
            let scorer = Scorer::new(&centroids, &mean);
            labels.par_chunks_mut(slice_rows).zip(&mut slices).enumerate().for_each(|(index, (labels, slice))| {
                slice.relabel(data, index * slice_rows, labels, &centroids, &scorer, &drift);
            });
            if slices.iter().all(|slice| slice.changed() == 0) {
                converged = true;
            }
            drift = self.update(data, &labels, &slices, &mut centroids);
            if converged || drift.total <= threshold {
                break;
            }
        }
        // The labels belong to the centers before the last update.
        if !converged {
            labels = assign_rows(data, &centroids);
        }
        let inertia = inertia(data, &labels, &centroids);
        Clusters { centroids, labels, inertia, iterations }
    }

    /// Moves every center to the mean of its rows. Returns the movements.
    fn update<T: Number>(
        &self,
        data: &CowArray<'_, T, Ix2>,
        labels: &[u32],
        slices: &[Slice],
        centroids: &mut Array2<f32>,
    ) -> Drift {
        let columns = data.ncols();
        let mut sums = vec![0f64; self.clusters * columns];
        let mut counts = vec![0u64; self.clusters];
        for slice in slices {
            slice.add_to(&mut sums, &mut counts);
        }
        relocate_empty(data, labels, centroids, &mut sums, &mut counts);
        let mut moved = vec![0.0; self.clusters];
        for (cluster, (mut center, sum)) in centroids.rows_mut().into_iter().zip(sums.chunks(columns)).enumerate() {
            if counts[cluster] == 0 {
                continue; // all rows equal their centers, so the cluster stays empty
            }
            for (value, sum) in center.iter_mut().zip(sum) {
                let mean = (sum / counts[cluster] as f64) as f32;
                moved[cluster] += f64::from(mean - *value).powi(2);
                *value = mean;
            }
        }
        Drift::of(&moved)
    }
}

/// Returns the nearest of `centroids`, (k, D), for each row of `data`, (N, D); the first one in case of ties.
///
/// # Panics
/// Panics if the numbers of columns differ or there are no centroids.
pub fn assign<T: Number>(data: ArrayView2<'_, T>, centroids: &Array2<f32>) -> Vec<u32> {
    assert!(centroids.nrows() > 0, "there is at least one centroid");
    assign_rows(&data.as_standard_layout(), centroids)
}

fn assign_rows<T: Number>(data: &CowArray<'_, T, Ix2>, centroids: &Array2<f32>) -> Vec<u32> {
    let mean = centroids.mapv(f64::from).mean_axis(ndarray::Axis(0)).expect("there is at least one centroid").to_vec();
    let scorer = Scorer::new(centroids, &mean);
    let mut labels = vec![0; data.nrows()];
    let slice_rows = slice_rows(data.nrows());
    labels.par_chunks_mut(slice_rows).enumerate().for_each(|(index, labels)| {
        let mut scratch = Scratch::new(centroids.dim());
        for (block, labels) in labels.chunks_mut(BLOCK_ROWS).enumerate() {
            let first = index * slice_rows + block * BLOCK_ROWS;
            for (slot, row) in rows_of(data, first, labels.len()).chunks_exact(data.ncols()).enumerate() {
                scratch.put(slot, row);
            }
            scorer.nearest(&mut scratch, labels.len());
            labels.copy_from_slice(&scratch.nearest[..labels.len()]);
        }
    });
    labels
}

/// Moves the rows that are farthest from their centers to the empty clusters; the first rows in case of ties.
fn relocate_empty<T: Number>(
    data: &CowArray<'_, T, Ix2>,
    labels: &[u32],
    centroids: &Array2<f32>,
    sums: &mut [f64],
    counts: &mut [u64],
) {
    let empty: Vec<usize> = (0..counts.len()).filter(|&cluster| counts[cluster] == 0).collect();
    if empty.is_empty() {
        return;
    }
    let columns = data.ncols();
    let mut distances: Vec<(f32, usize)> = (0..labels.len())
        .into_par_iter()
        .map(|row| (squared_distance(rows_of(data, row, 1), center_of(centroids, labels[row])), row))
        .collect();
    let farther = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if empty.len() < distances.len() {
        distances.select_nth_unstable_by(empty.len() - 1, farther);
    }
    let mut farthest = distances[..empty.len()].to_vec();
    farthest.sort_by(farther);
    for (cluster, (distance, row)) in empty.into_iter().zip(farthest) {
        if distance == 0.0 {
            break;
        }
        let old = labels[row] as usize;
        for (column, &value) in rows_of(data, row, 1).iter().enumerate() {
            let value = f64::from(value.into());
            sums[old * columns + column] -= value;
            sums[cluster * columns + column] = value;
        }
        counts[cluster] = 1;
        counts[old] -= 1;
    }
}

/// Computes the sum of the squared distances of the rows to their centers.
fn inertia<T: Number>(data: &CowArray<'_, T, Ix2>, labels: &[u32], centroids: &Array2<f32>) -> f64 {
    let slice_rows = slice_rows(labels.len());
    let sums: Vec<f64> = labels
        .par_chunks(slice_rows)
        .enumerate()
        .map(|(index, labels)| {
            let rows = rows_of(data, index * slice_rows, labels.len()).chunks_exact(data.ncols());
            rows.zip(labels).map(|(row, &label)| f64::from(squared_distance(row, center_of(centroids, label)))).sum()
        })
        .collect();
    sums.into_iter().sum()
}

/// Computes the mean of each column, and the mean of the variances of the columns.
fn mean_and_variance<T: Number>(data: &CowArray<'_, T, Ix2>) -> (Vec<f64>, f64) {
    let (rows, columns) = data.dim();
    let column_means = |value_of: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
        let slices: Vec<Vec<f64>> = data
            .as_slice()
            .expect("the data have standard layout")
            .par_chunks(slice_rows(rows) * columns)
            .map(|slice| {
                let mut sums = vec![0.0; columns];
                for row in slice.chunks_exact(columns) {
                    for (column, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
                        *sum += value_of(column, f64::from(value.into()));
                    }
                }
                sums
            })
            .collect();
        let mut total = vec![0.0; columns];
        for sums in slices {
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum / rows as f64);
        }
        total
    };
    let means = column_means(&|_, value| value);
    let variances = column_means(&|column, value| (value - means[column]).powi(2));
    (means, variances.iter().sum::<f64>() / columns as f64)
}
