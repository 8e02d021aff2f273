//! Reading of descriptor stores.

use std::ops::{Deref, Range};
use std::path::Path;

use ndarray::Array2;

use super::provenance::Payload;
use super::reader::Store;
use crate::error::Result;

/// A store of local descriptors.
#[derive(Debug)]
pub struct DescriptorStore(Store);

impl DescriptorStore {
    /// Opens a descriptor store.
    ///
    /// # Errors
    /// Returns an error under the conditions of [`Store::open`], or if the file is a feature store.
    pub fn open(path: &Path) -> Result<Self> {
        let store = Store::open(path)?;
        match store.payload() {
            Payload::Descriptors { .. } => Ok(Self(store)),
            Payload::Features { .. } => Err(store.error("a feature store, not a descriptor store".into())),
        }
    }

    /// Reads the number of descriptors of each of the R rows.
    ///
    /// # Errors
    /// Returns an error if the dataset cannot be read, or the numbers do not add up to the number of descriptors.
    pub fn descriptor_counts(&self) -> Result<Vec<u32>> {
        let counts: Vec<u32> = self.vector("rows/descriptors", 0..self.row_count())?;
        let (total, stored) = (counts.iter().map(|&count| u64::from(count)).sum::<u64>(), self.len_of("descriptors")?);
        if total != stored as u64 {
            return Err(self.error(format!("damaged: the rows have {total} descriptors, but the store has {stored}")));
        }
        Ok(counts)
    }

    /// Reads a range of descriptors, (descriptors, D).
    ///
    /// # Errors
    /// Returns an error if the range exceeds the dataset, or it cannot be read.
    pub fn descriptors(&self, range: Range<usize>) -> Result<Array2<u8>> {
        self.matrix("descriptors", range)
    }
}

impl Deref for DescriptorStore {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.0
    }
}
