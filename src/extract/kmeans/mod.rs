//! Lloyd's k-means whose assignment is a matrix product, seeded by greedy k-means++.
//!
//! ‖x − c‖² = ‖x‖² + ‖c‖² − 2·x·c, and ‖x‖² does not decide which center is nearest: a block of rows is scored against
//! all centers by one product ([`scoring`]). u8 data is widened block by block, so it is never in memory as f32. Rows
//! whose nearest center cannot have changed, because the centers moved less than its lead over the second nearest, are
//! passed over (Hamerly, "Making k-means even faster", 2010; [`slice`]): the result is that of Lloyd's algorithm, and
//! late iterations, in which few labels change, cost little.
//!
//! Rules as in scikit-learn's `KMeans(algorithm="lloyd")`: stop when no label changes or the centers move less than
//! `tolerance` times the mean variance, squared and summed; an empty cluster is given the row farthest from its center.
//! Seeding is its greedy k-means++ ([`seeding`]).
//!
//! The rows are cut into slices whose number does not depend on the threads, each summed in its own order and the
//! slices one after the other: the result is the same, bit for bit, for any number of threads.

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
use scoring::{BLOCK_ROWS, Scorer, Scratch, squared_distance};
use slice::{Drift, Slice};

/// Slices at the most; enough for every thread to stay busy, few enough for their sums to stay small.
const SLICES: usize = 64;
/// Rows of a slice at the least.
const SLICE_ROWS: usize = 2048;

/// What can be clustered: numbers that widen to f32 without loss.
pub trait Number: Copy + Send + Sync + Into<f32> + 'static {
    /// The dot products of `row` with each of `others`, which have its length, written to `out`.
    #[doc(hidden)]
    fn dots(row: &[Self], others: &[Vec<Self>], out: &mut [f32]);
}

impl Number for u8 {
    #[inline(always)]
    fn dots(row: &[u8], others: &[Vec<u8>], out: &mut [f32]) {
        for (other, out) in others.iter().zip(out) {
            // Sixteen-bit products summed in pairs are one instruction; exact, whatever the order.
            let products = row.iter().zip(other).map(|(&a, &b)| i32::from(i16::from(a)) * i32::from(i16::from(b)));
            *out = products.sum::<i32>() as f32;
        }
    }
}

impl Number for f32 {
    #[inline(always)]
    fn dots(row: &[f32], others: &[Vec<f32>], out: &mut [f32]) {
        for (other, out) in others.iter().zip(out) {
            *out = scoring::dot(row, other);
        }
    }
}

/// How to cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeans {
    /// Number of centers, k.
    pub clusters: usize,
    /// Iterations at the most.
    pub max_iterations: usize,
    /// Share of the data's mean variance; see the module.
    pub tolerance: f64,
    /// Seed of k-means++.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// The centers, (k, D).
    pub centroids: Array2<f32>,
    /// The nearest center of each row; the first of equally near ones.
    pub labels: Vec<u32>,
    /// Sum of the squared distances of the rows to their centers.
    pub inertia: f64,
    /// Iterations done.
    pub iterations: usize,
}

impl KMeans {
    /// Clusters the rows of `data`, (N, D), from centers drawn by k-means++.
    ///
    /// # Errors
    /// Fewer rows than centers, no centers or columns, or a value that is not finite.
    pub fn fit<T: Number>(&self, data: ArrayView2<'_, T>) -> Result<Clusters> {
        let data = data.as_standard_layout();
        self.check(&data)?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let start = seeding::plus_plus(&data, self.clusters, &mut rng);
        Ok(self.lloyd(&data, start))
    }

    /// Clusters the rows of `data`, (N, D), from the centers `start`, (k, D).
    ///
    /// # Errors
    /// As [`KMeans::fit`]; or `start` has another shape.
    pub fn fit_from<T: Number>(&self, data: ArrayView2<'_, T>, start: Array2<f32>) -> Result<Clusters> {
        let data = data.as_standard_layout();
        self.check(&data)?;
        if start.dim() != (self.clusters, data.ncols()) {
            let wanted = (self.clusters, data.ncols());
            return Err(Error::Data(format!("the starting centers are {:?}, not {wanted:?}", start.dim())));
        }
        Ok(self.lloyd(&data, start.as_standard_layout().into_owned()))
    }

    fn check<T: Number>(&self, data: &CowArray<'_, T, Ix2>) -> Result<()> {
        if self.clusters == 0 || data.ncols() == 0 {
            return Err(Error::Data("k-means needs at least one center and one column".into()));
        }
        if data.nrows() < self.clusters {
            return Err(Error::Data(format!(
                "{} rows cannot make {} clusters; give more data, or ask for fewer",
                data.nrows(),
                self.clusters
            )));
        }
        if !data.iter().all(|&value| value.into().is_finite()) {
            return Err(Error::Data("k-means data has a value that is not finite".into()));
        }
        Ok(())
    }

    fn lloyd<T: Number>(&self, data: &CowArray<'_, T, Ix2>, start: Array2<f32>) -> Clusters {
        let rows = data.nrows();
        let (mean, variance) = mean_and_variance(data);
        let stop_below = self.tolerance * variance;
        let mut centroids = start;
        let mut labels = vec![u32::MAX; rows];
        let slice_rows = slice_rows(rows);
        let mut slices: Vec<Slice> =
            labels.chunks(slice_rows).map(|labels| Slice::new(labels.len(), centroids.dim())).collect();
        let mut drift = Drift::unknown(self.clusters);
        let mut iterations = 0;
        let mut settled = false;
        while iterations < self.max_iterations {
            iterations += 1;
            let scorer = Scorer::new(&centroids, &mean);
            labels.par_chunks_mut(slice_rows).zip(&mut slices).enumerate().for_each(|(index, (labels, slice))| {
                slice.relabel(data, index * slice_rows, labels, &centroids, &scorer, &drift);
            });
            if slices.iter().all(|slice| slice.changed() == 0) {
                settled = true;
            }
            drift = self.update(data, &labels, &slices, &mut centroids);
            if settled || drift.total <= stop_below {
                break;
            }
        }
        // The labels are those of the centers before the last update.
        if !settled {
            labels = assign_rows(data, &centroids);
        }
        let inertia = inertia(data, &labels, &centroids);
        Clusters { centroids, labels, inertia, iterations }
    }

    /// Moves every center to the mean of its rows.
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
                continue; // every row sits on its center: there is none to give away
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

/// The nearest of `centroids`, (k, D), for each row of `data`, (N, D); the first of equally near ones.
///
/// # Panics
/// The columns differ, or there is no center.
pub fn assign<T: Number>(data: ArrayView2<'_, T>, centroids: &Array2<f32>) -> Vec<u32> {
    assert!(centroids.nrows() > 0, "no center to assign to");
    assign_rows(&data.as_standard_layout(), centroids)
}

fn assign_rows<T: Number>(data: &CowArray<'_, T, Ix2>, centroids: &Array2<f32>) -> Vec<u32> {
    let mean = centroids.mapv(f64::from).mean_axis(ndarray::Axis(0)).expect("there is a center").to_vec();
    let scorer = Scorer::new(centroids, &mean);
    let mut labels = vec![0; data.nrows()];
    let slice_rows = slice_rows(data.nrows());
    labels.par_chunks_mut(slice_rows).enumerate().for_each(|(index, labels)| {
        let mut scratch = Scratch::new(centroids.dim());
        for (block, labels) in labels.chunks_mut(BLOCK_ROWS).enumerate() {
            let first = index * slice_rows + block * BLOCK_ROWS;
            for (place, row) in rows_of(data, first, labels.len()).chunks_exact(data.ncols()).enumerate() {
                scratch.put(place, row);
            }
            scorer.nearest(&mut scratch, labels.len());
            labels.copy_from_slice(&scratch.nearest[..labels.len()]);
        }
    });
    labels
}

/// Rows a slice of `rows` rows in all.
fn slice_rows(rows: usize) -> usize {
    rows.div_ceil(SLICES).max(SLICE_ROWS).next_multiple_of(BLOCK_ROWS)
}

fn rows_of<'a, T: Number>(data: &'a CowArray<'_, T, Ix2>, first: usize, count: usize) -> &'a [T] {
    let columns = data.ncols();
    &data.as_slice().expect("in standard layout")[first * columns..(first + count) * columns]
}

fn center_of(centroids: &Array2<f32>, label: u32) -> &[f32] {
    let columns = centroids.ncols();
    let first = label as usize * columns;
    &centroids.as_slice().expect("in standard layout")[first..first + columns]
}

/// Gives every empty cluster the row farthest from its center, the farthest first (the first of equally far ones).
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

/// Sum of the squared distances, slice by slice.
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

/// The mean of every column, and the mean over the columns of their variances.
fn mean_and_variance<T: Number>(data: &CowArray<'_, T, Ix2>) -> (Vec<f64>, f64) {
    let (rows, columns) = data.dim();
    let column_means = |of: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
        let slices: Vec<Vec<f64>> = data
            .as_slice()
            .expect("in standard layout")
            .par_chunks(slice_rows(rows) * columns)
            .map(|slice| {
                let mut sums = vec![0.0; columns];
                for row in slice.chunks_exact(columns) {
                    for (column, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
                        *sum += of(column, f64::from(value.into()));
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
