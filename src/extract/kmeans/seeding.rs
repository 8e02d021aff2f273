//! Initial centers by greedy k-means++.

use ndarray::{Array2, CowArray, Ix2};
use pulp::Arch;
use rand::Rng;
use rayon::prelude::*;

use super::distance::Number;
use super::rows::{rows_of, slice_rows};

/// Greedy k-means++ (Arthur and Vassilvitskii, "k-means++: The advantages of careful seeding", 2007). The first center is a
/// random row. Each further center is the best of 2 + ⌊ln k⌋ rows, which are drawn with probabilities proportional to the squared
/// distance to the nearest center so far.
pub(super) fn plus_plus<T: Number>(data: &CowArray<'_, T, Ix2>, clusters: usize, rng: &mut impl Rng) -> Array2<f32> {
    let (rows, columns) = data.dim();
    let trials = 2 + (clusters as f64).ln() as usize;
    let slice_rows = slice_rows(rows);
    let arch = Arch::new();
    let norm = |row: &[T]| row.iter().map(|&value| value.into() * value.into()).sum::<f32>();
    let norms: Vec<f32> = (0..rows).into_par_iter().map(|row| norm(rows_of(data, row, 1))).collect();
    let mut centroids = Array2::zeros((clusters, columns));
    let mut nearest = vec![f32::INFINITY; rows];
    // The distances of row i to the candidates start at index i · trials.
    let mut distances = vec![0f32; rows * trials];
    let mut candidates = vec![rng.gen_range(0..rows)];
    for mut center in centroids.rows_mut() {
        let chosen: Vec<Vec<T>> = candidates.iter().map(|&row| rows_of(data, row, 1).to_vec()).collect();
        let chosen_norms: Vec<f32> = candidates.iter().map(|&row| norms[row]).collect();
        // For each slice, the squared distances of its rows to the nearest center if a candidate is added, and their sums.
        let potentials: Vec<Vec<f64>> = distances
            .par_chunks_mut(slice_rows * trials)
            .zip(nearest.par_chunks(slice_rows))
            .zip(norms.par_chunks(slice_rows))
            .enumerate()
            .map(|(slice, ((distances, nearest), norms))| {
                let values = rows_of(data, slice * slice_rows, nearest.len()).chunks_exact(columns);
                let current = nearest.iter().zip(norms);
                let mut sums = vec![0f64; chosen.len()];
                arch.dispatch(
                    #[inline(always)]
                    || {
                        for ((row, (&nearest, own)), distances) in
                            values.zip(current).zip(distances.chunks_exact_mut(trials))
                        {
                            T::dots(row, &chosen, distances);
                            for ((distance, norm), sum) in distances.iter_mut().zip(&chosen_norms).zip(&mut sums) {
                                *distance = (norm + own - 2.0 * *distance).max(0.0).min(nearest);
                                *sum += f64::from(*distance);
                            }
                        }
                    },
                );
                sums
            })
            .collect();
        let total = |candidate: usize| potentials.iter().map(|sums| sums[candidate]).sum::<f64>();
        let totals: Vec<f64> = (0..chosen.len()).map(total).collect();
        // The first candidate in case of ties.
        let best = (1..chosen.len()).fold(0, |best, other| if totals[other] < totals[best] { other } else { best });
        center.iter_mut().zip(&chosen[best]).for_each(|(out, &value)| *out = value.into());
        nearest.par_chunks_mut(slice_rows).zip(distances.par_chunks(slice_rows * trials)).for_each(
            |(nearest, distances)| {
                let of_best = distances.iter().skip(best).step_by(trials);
                nearest.iter_mut().zip(of_best).for_each(|(nearest, distance)| *nearest = *distance);
            },
        );
        let slices: Vec<f64> = potentials.iter().map(|sums| sums[best]).collect();
        candidates = (0..trials).map(|_| draw(&nearest, slice_rows, &slices, rng)).collect();
    }
    centroids
}

/// Draws a row with a probability proportional to its weight. `slices` has the sums of the weights of each slice.
fn draw(weights: &[f32], slice_rows: usize, slices: &[f64], rng: &mut impl Rng) -> usize {
    let mut remaining = rng.gen_range(0.0..1.0) * slices.iter().sum::<f64>();
    let mut slice = 0;
    while slice + 1 < slices.len() && remaining >= slices[slice] {
        remaining -= slices[slice];
        slice += 1;
    }
    let first = slice * slice_rows;
    let last = (first + slice_rows).min(weights.len()) - 1;
    for (row, &weight) in (first..=last).zip(&weights[first..=last]) {
        remaining -= f64::from(weight);
        if remaining < 0.0 {
            return row;
        }
    }
    // Rounding errors or zero weights: the last row with a positive weight.
    (first..=last).rev().find(|&row| weights[row] > 0.0).unwrap_or(last)
}
