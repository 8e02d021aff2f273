//! The feature rows of a data set.

use std::sync::Arc;

use ndarray::{Array2, ArrayViewMut2, Axis, CowArray, Ix2, concatenate, s};

use super::Standardizer;
use crate::error::Result;
use crate::store::CachedRows;

/// The R feature rows of a data set, each with D features: in memory, or in a store from which they are read when they are needed.
///
/// Data sets that select clips of another, or standardize its features, share its rows: rows are gathered and standardized where
/// they are read.
#[derive(Debug, Clone)]
pub struct Rows {
    source: Source,
    /// Row of the source at which each clip starts; `None` if the clips are all clips of the source, in its order.
    starts: Option<Vec<usize>>,
    standardizer: Option<Arc<Standardizer>>,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Arc<Array2<f32>>),
    Store(Arc<CachedRows>),
}

impl From<Array2<f32>> for Rows {
    fn from(rows: Array2<f32>) -> Self {
        Self { source: Source::Memory(Arc::new(rows)), starts: None, standardizer: None }
    }
}

impl Rows {
    /// Selects the clips that start at the rows `starts` of `rows`.
    pub(super) fn of_memory(rows: Arc<Array2<f32>>, starts: Vec<usize>) -> Self {
        Self { source: Source::Memory(rows), starts: Some(starts), standardizer: None }
    }

    /// Selects the clips that start at the rows `starts` of a store.
    pub(super) fn of_store(rows: Arc<CachedRows>, starts: Vec<usize>) -> Self {
        Self { source: Source::Store(rows), starts: Some(starts), standardizer: None }
    }

    /// Returns the number of features, D.
    pub fn dim(&self) -> usize {
        match &self.source {
            Source::Memory(rows) => rows.ncols(),
            Source::Store(rows) => rows.dim(),
        }
    }

    /// Selects clips of a data set with the row offsets `offsets`.
    pub(super) fn select(&self, offsets: &[usize], clips: &[usize]) -> Self {
        let starts = clips.iter().map(|&clip| self.start(offsets, clip)).collect();
        Self { starts: Some(starts), ..self.clone() }
    }

    /// Appends the clips of another data set.
    pub(super) fn append(&self, offsets: &[usize], other: &Self, other_offsets: &[usize]) -> Result<Self> {
        let shared = match (&self.source, &other.source) {
            (Source::Memory(ours), Source::Memory(theirs)) => Arc::ptr_eq(ours, theirs),
            (Source::Store(ours), Source::Store(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        if shared && self.standardizer == other.standardizer {
            let ours = (0..offsets.len() - 1).map(|clip| self.start(offsets, clip));
            let theirs = (0..other_offsets.len() - 1).map(|clip| other.start(other_offsets, clip));
            return Ok(Self { starts: Some(ours.chain(theirs).collect()), ..self.clone() });
        }
        Ok(concatenate![Axis(0), self.all(offsets)?, other.all(other_offsets)?].into())
    }

    /// Standardizes the rows where they are read. Rows are standardized at most once.
    pub(super) fn standardized(&self, standardizer: Arc<Standardizer>) -> Self {
        assert!(self.standardizer.is_none(), "the rows are standardized already");
        Self { standardizer: Some(standardizer), ..self.clone() }
    }

    fn start(&self, offsets: &[usize], clip: usize) -> usize {
        self.starts.as_ref().map_or(offsets[clip], |starts| starts[clip])
    }

    /// Returns the rows of a clip, (length, D).
    pub(super) fn clip(&self, offsets: &[usize], clip: usize) -> Result<CowArray<'_, f32, Ix2>> {
        let start = self.start(offsets, clip);
        let range = start..start + offsets[clip + 1] - offsets[clip];
        let mut rows = match &self.source {
            Source::Memory(rows) => CowArray::from(rows.slice(s![range, ..])),
            Source::Store(rows) => CowArray::from(Arc::unwrap_or_clone(rows.read(range)?)),
        };
        if let Some(standardizer) = &self.standardizer {
            standardizer.apply_in_place(rows.view_mut());
        }
        Ok(rows)
    }

    /// Copies the rows of a clip to `out`, (length, D).
    pub(super) fn copy_clip(&self, offsets: &[usize], clip: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        let start = self.start(offsets, clip);
        let range = start..start + offsets[clip + 1] - offsets[clip];
        match &self.source {
            Source::Memory(rows) => out.assign(&rows.slice(s![range, ..])),
            Source::Store(rows) => out.assign(&*rows.read(range)?),
        }
        if let Some(standardizer) = &self.standardizer {
            standardizer.apply_in_place(out);
        }
        Ok(())
    }

    /// Returns the rows of all clips, (R, D): a view if they are in memory as they are.
    pub(super) fn all(&self, offsets: &[usize]) -> Result<CowArray<'_, f32, Ix2>> {
        if let (Source::Memory(rows), None, None) = (&self.source, &self.starts, &self.standardizer) {
            return Ok(rows.view().into());
        }
        let clips = offsets.len() - 1;
        let mut all = Array2::zeros((offsets[clips], self.dim()));
        for clip in 0..clips {
            self.copy_clip(offsets, clip, all.slice_mut(s![offsets[clip]..offsets[clip + 1], ..]))?;
        }
        Ok(all.into())
    }
}
