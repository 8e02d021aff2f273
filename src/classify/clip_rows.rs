//! Batches of clips with different numbers of rows.

use ndarray::{Array2, ArrayViewMut2, Axis};

use super::numeric::Real;
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// The rows of a batch of clips, one clip after the other. There are no padding rows, so that no mask is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipRows<T> {
    /// Rows of all clips, (R, D).
    pub rows: Array2<T>,
    /// First row of each clip, and R.
    pub offsets: Vec<usize>,
}

impl<T: Real> ClipRows<T> {
    /// Copies all rows of the clips `clips` of `data`.
    ///
    /// # Errors
    /// Returns an error if the features cannot be read.
    pub fn new(data: &Dataset, clips: &[usize]) -> Result<Self> {
        Self::select(data, clips, |count| (0..count).collect())
    }

    /// Copies those rows of the clips `clips` of `data` that `select` returns for a number of rows.
    ///
    /// # Errors
    /// Returns an error if the features cannot be read.
    pub fn select(data: &Dataset, clips: &[usize], mut select: impl FnMut(usize) -> Vec<usize>) -> Result<Self> {
        let count = |clip: usize| data.offsets[clip + 1] - data.offsets[clip];
        let selected: Vec<Vec<usize>> = clips.iter().map(|&clip| select(count(clip))).collect();
        let mut offsets = vec![0];
        offsets.extend(selected.iter().scan(0, |sum, rows| {
            *sum += rows.len();
            Some(*sum)
        }));
        let mut rows = Array2::zeros((offsets[clips.len()], data.dim()));
        let mut to = rows.rows_mut().into_iter();
        for (&clip, selected) in clips.iter().zip(selected) {
            let clip = data.clip(clip)?;
            for (from, mut to) in selected.into_iter().zip(&mut to) {
                to.zip_mut_with(&clip.row(from), |to, &from| *to = T::of(f64::from(from)));
            }
        }
        Ok(Self { rows, offsets })
    }

    /// Returns the number of clips.
    pub fn clips(&self) -> usize {
        self.offsets.len() - 1
    }
}

/// Computes the logits (N, `outputs`) of all clips of `data`; `logits` computes those of `block` clips at a time.
///
/// # Errors
/// Returns the error of `logits`.
pub fn logits_in_blocks(
    data: &Dataset,
    outputs: usize,
    block: usize,
    mut logits: impl FnMut(&[usize], ArrayViewMut2<'_, f32>) -> Result<()>,
) -> Result<Array2<f32>> {
    let mut all = Array2::zeros((data.len(), outputs));
    let clips: Vec<usize> = (0..data.len()).collect();
    for (clips, of_clips) in clips.chunks(block).zip(all.axis_chunks_iter_mut(Axis(0), block)) {
        logits(clips, of_clips)?;
    }
    Ok(all)
}

/// Checks that there is a training clip, and that every clip has a row.
///
/// # Errors
/// Returns an error that names the first clip without rows.
pub fn check_sequences(train: &Dataset, valid: &Dataset) -> Result<()> {
    if train.is_empty() {
        return Err(Error::Data("there is no training clip".into()));
    }
    for part in [train, valid] {
        if let Some(clip) = part.offsets.windows(2).position(|pair| pair[0] == pair[1]) {
            return Err(Error::Data(format!("clip {} has no feature rows; extract it again", part.ids[clip])));
        }
    }
    Ok(())
}
