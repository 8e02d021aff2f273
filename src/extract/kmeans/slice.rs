//! A slice of the rows: its labels, its sums, and what is known of its distances.

use ndarray::{Array2, CowArray, Ix2};
use pulp::Arch;

use super::scoring::{BLOCK_ROWS, Scorer, Scratch, squared_distance};
use super::{Number, center_of, rows_of};

/// How far the centers moved in the last update.
pub(super) struct Drift {
    /// Each, as a distance.
    each: Vec<f32>,
    /// The one that moved farthest.
    farthest: usize,
    /// How far it moved, and how far the next.
    largest: (f32, f32),
    /// The squares summed.
    pub total: f64,
}

impl Drift {
    /// Before the first iteration: as far as can be, so that every row is looked at.
    pub fn unknown(clusters: usize) -> Self {
        let far = f32::INFINITY;
        Self { each: vec![far; clusters], farthest: 0, largest: (far, far), total: f64::INFINITY }
    }

    /// From the squares.
    pub fn of(moved: &[f64]) -> Self {
        // Rounded up.
        let each: Vec<f32> = moved.iter().map(|square| square.sqrt() as f32 * UP).collect();
        let farthest = (0..each.len()).fold(0, |best, other| if each[other] > each[best] { other } else { best });
        let others = each.iter().enumerate().filter(|(cluster, _)| *cluster != farthest).map(|(_, moved)| *moved);
        let largest = (each[farthest], others.fold(0.0, f32::max));
        Self { each, farthest, largest, total: moved.iter().sum() }
    }
}

/// Just above and below one: a bound is rounded away from what it bounds.
const UP: f32 = 1.0 + 2.0 * f32::EPSILON;
const DOWN: f32 = 1.0 - 2.0 * f32::EPSILON;

pub(super) struct Slice {
    arch: Arch,
    scratch: Scratch,
    /// Distance to the own center at the most, and to any other at the least; one a row.
    upper: Vec<f32>,
    lower: Vec<f32>,
    /// Rows whose nearest center must be looked for.
    pending: Vec<usize>,
    /// Sums of the rows of each center, (k, D). Differences are added when a label changes, which is exact for bytes.
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

    /// Rows whose label changed.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// Adds the sums and numbers of rows of each center.
    pub fn add_to(&self, sums: &mut [f64], counts: &mut [u64]) {
        sums.iter_mut().zip(&self.sums).for_each(|(total, sum)| *total += sum);
        counts.iter_mut().zip(&self.counts).for_each(|(total, count)| *total += count);
    }

    /// Labels the rows from `first` on by the nearest center, after the centers moved by `drift`.
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
                self.upper[row] = (self.upper[row] + own) * UP;
                self.lower[row] = (self.lower[row] - others) * DOWN;
                if self.upper[row] < self.lower[row] {
                    continue;
                }
                // The bound may only have grown loose.
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
        for (place, &row) in self.pending.iter().enumerate() {
            self.scratch.put(place, rows_of(data, first + row, 1));
        }
        scorer.nearest(&mut self.scratch, self.pending.len());
        for (place, &row) in self.pending.iter().enumerate() {
            (self.upper[row], self.lower[row]) = scorer.bounds(&self.scratch, place);
            let (old, new) = (labels[row], self.scratch.nearest[place]);
            if old != new {
                labels[row] = new;
                self.changed += 1;
                let values = self.scratch.row(place);
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
