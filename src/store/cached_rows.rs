//! Rows of a store, read when they are needed and kept in memory up to a budget.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array2, s};

use super::attributes::store_error;
use crate::error::{Error, Result};

/// The rows of the clips of a feature store. Rows are read clip by clip and kept until the budget is used up; the rows of further
/// clips are read again each time. (Training reads all clips once per epoch in random order, so that replacing rows would not
/// make more reads hit.)
pub struct CachedRows {
    path: PathBuf,
    features: hdf5::Dataset,
    dim: usize,
    /// Offset and id of the clips of the store, in ascending order.
    clips: Vec<(usize, String)>,
    cache: Mutex<Cache>,
}

/// Rows in memory by the row of the store at which they start.
#[derive(Default)]
struct Cache {
    rows: HashMap<usize, Arc<Array2<f32>>>,
    /// Bytes that may still be used.
    available: u64,
}

impl std::fmt::Debug for CachedRows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CachedRows").field("path", &self.path).field("dim", &self.dim).finish_non_exhaustive()
    }
}

impl CachedRows {
    /// Creates an empty cache for `features`, (R, D), with a budget of `budget` bytes. `clips` are the offsets and ids of the
    /// store's clips in ascending order.
    pub(super) fn new(path: PathBuf, features: hdf5::Dataset, clips: Vec<(usize, String)>, budget: u64) -> Self {
        let dim = features.shape().get(1).copied().unwrap_or(0);
        Self { path, features, dim, clips, cache: Mutex::new(Cache { available: budget, ..Cache::default() }) }
    }

    /// Returns the number of features per row, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the rows `range` of the store, (rows, D).
    ///
    /// # Errors
    /// Returns an error if the rows cannot be read, or a feature is not finite.
    pub fn read(&self, range: Range<usize>) -> Result<Arc<Array2<f32>>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = lock().rows.get(&range.start).filter(|rows| rows.nrows() == range.len()) {
            return Ok(rows.clone());
        }
        let start = range.start;
        let rows = self.features.read_slice_2d::<f32, _>(s![range, ..]).map_err(store_error(&self.path))?;
        if let Some(((row, column), value)) = rows.indexed_iter().find(|(_, value)| !value.is_finite()) {
            let clip = self.clips.partition_point(|(offset, _)| *offset <= start + row) - 1;
            let (offset, id) = &self.clips[clip];
            return Err(Error::Store {
                path: self.path.clone(),
                message: format!(
                    "feature {column} of row {} of clip {id} is {value}; extract the clip again",
                    start + row - offset
                ),
            });
        }
        let rows = Arc::new(rows);
        let bytes = size_of_val(rows.as_slice().unwrap_or_default()) as u64;
        let mut cache = lock();
        if bytes <= cache.available && cache.rows.insert(start, rows.clone()).is_none() {
            cache.available -= bytes;
        }
        Ok(rows)
    }
}
