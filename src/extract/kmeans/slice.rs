//! State of a slice of rows: sums and bounds of distances.

use ndarray::{Array2, CowArray, Ix2};
use pulp::Arch;

use super::distance::{Number, squared_distance};
use super::rows::{BLOCK_ROWS, center_of, rows_of};
use super::scoring::{Scorer, Scratch};

/// Movements of the centers in the last update.
pub(super) struct Drift {
    /// Distance for each center.
    each: Vec<f32>,
    /// The center with the largest movement.
    farthest: usize,
    /// The two largest movements.
    largest: (f32, f32),
    /// Sum of the squared movements.
    pub total: f64,
}

impl Drift {
    /// Returns infinite movements, for the first iteration, in which no row is skipped.
    pub fn unknown(clusters: usize) -> Self {
        let far = f32::INFINITY;
        Self { each: vec![far; clusters], farthest: 0, largest: (far, far), total: f64::INFINITY }
    }

    /// Computes the movements from their squares.
    pub fn of(moved: &[f64]) -> Self {
        // Rounded up, since these are bounds.
        let each: Vec<f32> = moved.iter().map(|square| square.sqrt() as f32 * ROUND_UP).collect();
        let farthest = (0..each.len()).fold(0, |best, other| if each[other] > each[best] { other } else { best });
        let others = each.iter().enumerate().filter(|(cluster, _)| *cluster != farthest).map(|(_, moved)| *moved);
        let largest = (each[farthest], others.fold(0.0, f32::max));
        Self { each, farthest, largest, total: moved.iter().sum() }
    }
}

/// Factor that rounds an upper bound up.
const ROUND_UP: f32 = 1.0 + 2.0 * f32::EPSILON;
/// Factor that rounds a lower bound down.
const ROUND_DOWN: f32 = 1.0 - 2.0 * f32::EPSILON;

/// A slice of the rows.
pub(super) struct Slice {
    arch: Arch,
    scratch: Scratch,
    /// Upper bound of the distance to the own center, for each row.
    upper: Vec<f32>,
    /// Lower bound of the distance to any other center, for each row.
    lower: Vec<f32>,
    /// Rows whose nearest center has to be computed.
    pending: Vec<usize>,
    /// Sums of the rows of each center, (k, D). They are updated when a label changes, which is exact for bytes.
    sums: Vec<f64>,
    counts: Vec<u64>,
    changed: usize,
}

impl Slice {
    pub fn new(rows: usize, (clusters, columns): (usize, usize)) -> Self {
        Self {
            arch: Arch::new(),
            scratch: Scratch::new((clusters, columns)),
            upper: vec![f32::INFINITY; rows],
            lower: vec![0.0; rows],
            pending: Vec::with_capacity(BLOCK_ROWS),
            sums: vec![0.0; clusters * columns],
            counts: vec![0; clusters],
            changed: 0,
        }
    }

    /// Returns the number of rows whose label changed.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// Adds the slice's sums and numbers of rows of each center to the totals.
    pub fn add_to(&self, sums: &mut [f64], counts: &mut [u64]) {
        sums.iter_mut().zip(&self.sums).for_each(|(total, sum)| *total += sum);
        counts.iter_mut().zip(&self.counts).for_each(|(total, count)| *total += count);
    }

    /// Assigns the rows, the first of which is `first`, to their nearest centers after the centers moved by `drift`.
    pub fn relabel<T: Number>(
        &mut self,
        data: &CowArray<'_, T, Ix2>,
        first: usize,
        labels: &mut [u32],
        centroids: &Array2<f32>,
        scorer: &Scorer,
        drift: &Drift,
    ) {
        self.changed = 0;
        for row in 0..labels.len() {
            let label = labels[row] as usize;
            if let Some(own) = drift.each.get(label) {
                let others = if label == drift.farthest { drift.largest.1 } else { drift.largest.0 };
                self.upper[row] = (self.upper[row] + own) * ROUND_UP;
                self.lower[row] = (self.lower[row] - others) * ROUND_DOWN;
                if self.upper[row] < self.lower[row] {
                    continue;
                }
                // Tighten the upper bound with the exact distance.
                let (values, center) = (rows_of(data, first + row, 1), center_of(centroids, labels[row]));
                let distance = self
                    .arch
                    .dispatch(
                        #[inline(always)]
                        || squared_distance(values, center),
                    )
                    .sqrt();
                self.upper[row] = distance * (1.0 + 1e-5);
                if self.upper[row] < self.lower[row] {
                    continue;
                }
            }
            self.pending.push(row);
            if self.pending.len() == BLOCK_ROWS {
                self.label_pending(data, first, labels, scorer);
            }
        }
        self.label_pending(data, first, labels, scorer);
    }

    /// Computes the nearest centers of the pending rows.
    fn label_pending<T: Number>(
        &mut self,
        data: &CowArray<'_, T, Ix2>,
        first: usize,
        labels: &mut [u32],
        scorer: &Scorer,
    ) {
        if self.pending.is_empty() {
            return;
        }
        for (slot, &row) in self.pending.iter().enumerate() {
            self.scratch.put(slot, rows_of(data, first + row, 1));
        }
        scorer.nearest(&mut self.scratch, self.pending.len());
        for (slot, &row) in self.pending.iter().enumerate() {
            (self.upper[row], self.lower[row]) = scorer.bounds(&self.scratch, slot);
            let (old, new) = (labels[row], self.scratch.nearest[slot]);
            if old != new {
                labels[row] = new;
                self.changed += 1;
                let values = self.scratch.row(slot);
                let columns = values.len();
                let (sums, counts) = (&mut self.sums, &mut self.counts);
                let mut add = |cluster: u32, sign: f64| {
                    let first = cluster as usize * columns;
                    let sums = sums[first..first + columns].iter_mut().zip(values);
                    sums.for_each(|(sum, &value)| *sum += sign * f64::from(value));
                };
                add(new, 1.0);
                counts[new as usize] += 1;
                if old != u32::MAX {
                    add(old, -1.0);
                    counts[old as usize] -= 1;
                }
            }
        }
        self.pending.clear();
    }
}
