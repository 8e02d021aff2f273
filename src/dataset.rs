//! Feature store ⨝ manifest → rows, targets and splits.

use ndarray::{Array2, ArrayView2, s};

/// Clips ready for a classifier.
///
/// Clip `i` owns the rows `offsets[i]..offsets[i + 1]` of `rows`: one row for pooled features, several for a sequence.
/// Targets are multi-hot, so that single-label and multi-label data take one path.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Clip ids, N of them.
    pub ids: Vec<String>,
    /// Clip groups; bootstrap intervals draw whole groups.
    pub groups: Vec<Option<String>>,
    /// Features, (rows, D).
    pub rows: Array2<f32>,
    /// N + 1 row offsets.
    pub offsets: Vec<usize>,
    /// Targets, (N, C), 0 or 1; a row of zeros is an unlabelled clip.
    pub targets: Array2<f32>,
    /// Class names, sorted, C of them.
    pub classes: Vec<String>,
}

impl Dataset {
    /// Number of clips.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no clip.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The rows of clip `i`, (length, D).
    pub fn clip(&self, i: usize) -> ArrayView2<'_, f32> {
        self.rows.slice(s![self.offsets[i]..self.offsets[i + 1], ..])
    }
}
