//! Access to rows, and their division into slices.

use ndarray::{Array2, CowArray, Ix2};

use super::distance::Number;

/// Number of rows that are scored at once. With 128 columns and centers, a block and its scores have 256 KiB, which fits the
/// second-level cache.
pub(super) const BLOCK_ROWS: usize = 256;
/// Maximum number of slices: enough to keep all threads busy, few enough to keep their sums small.
const MAX_SLICES: usize = 64;
/// Minimum number of rows per slice.
const MIN_SLICE_ROWS: usize = 2048;

/// Returns the number of rows per slice for a number of rows. It does not depend on the number of threads.
pub(super) fn slice_rows(rows: usize) -> usize {
    rows.div_ceil(MAX_SLICES).max(MIN_SLICE_ROWS).next_multiple_of(BLOCK_ROWS)
}

/// Returns the values of consecutive rows.
pub(super) fn rows_of<'a, T: Number>(data: &'a CowArray<'_, T, Ix2>, first: usize, count: usize) -> &'a [T] {
    let columns = data.ncols();
    &data.as_slice().expect("the data have standard layout")[first * columns..(first + count) * columns]
}

/// Returns the values of a center.
pub(super) fn center_of(centroids: &Array2<f32>, label: u32) -> &[f32] {
    let columns = centroids.ncols();
    let first = label as usize * columns;
    &centroids.as_slice().expect("the centroids have standard layout")[first..first + columns]
}
