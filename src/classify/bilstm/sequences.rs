//! Packed batches of sequences of different lengths.

use ndarray::Array2;
use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::classify::SequenceSample;
use crate::classify::numeric::Real;
use crate::dataset::Dataset;
use crate::error::Result;

/// Selects the rows of a clip that form its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceWindow {
    /// Maximum number of rows, at least 1.
    pub length: usize,
    /// Selection of the rows of longer clips.
    pub sample: SequenceSample,
    /// `true` if shorter clips are padded to `length` with rows of zeros at the front. Padding is not masked.
    pub pad: bool,
}

impl SequenceWindow {
    /// Returns the selected rows of a clip with `count` rows in ascending order; `None` is a row of zeros. Random windows are
    /// drawn from `random`; without it they are centered.
    pub fn rows(&self, count: usize, random: Option<&mut Xoshiro256PlusPlus>) -> Vec<Option<usize>> {
        let length = self.length;
        if count <= length {
            let padding = if self.pad { length - count } else { 0 };
            return std::iter::repeat_n(None, padding).chain((0..count).map(Some)).collect();
        }
        let first = match (self.sample, random) {
            (SequenceSample::Even, _) => {
                return (0..length).map(|i| Some((2 * i + 1) * count / (2 * length))).collect();
            }
            (SequenceSample::Truncate, _) => 0,
            (SequenceSample::RandomWindow, Some(random)) => random.gen_range(0..=count - length),
            (SequenceSample::RandomWindow, None) => (count - length) / 2,
        };
        (first..first + length).map(Some).collect()
    }
}

/// A batch of sequences in the layout of PyTorch's `PackedSequence`: the rows of all clips at step 0, then those at step 1 of
/// the clips that are long enough, and so on, longest clip first. There are no padding rows to process.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedBatch<T> {
    /// Rows of all steps, step by step, (R, D).
    pub rows: Array2<T>,
    /// Number of clips at each of the T steps, non-increasing.
    pub counts: Vec<usize>,
    /// First row of each step, T + 1 values.
    pub offsets: Vec<usize>,
    /// Positions of the clips in the list that was packed, longest clip first.
    pub order: Vec<usize>,
}

impl<T: Real> PackedBatch<T> {
    /// Packs the clips `clips` of `data`, which are read one after the other.
    ///
    /// # Errors
    /// Returns an error if the features cannot be read.
    pub fn new(
        data: &Dataset,
        clips: &[usize],
        window: SequenceWindow,
        mut random: Option<&mut Xoshiro256PlusPlus>,
    ) -> Result<Self> {
        let sequences: Vec<Vec<Option<usize>>> = clips
            .iter()
            .map(|&clip| window.rows(data.offsets[clip + 1] - data.offsets[clip], random.as_deref_mut()))
            .collect();
        let mut order: Vec<usize> = (0..clips.len()).collect();
        order.sort_by_key(|&position| std::cmp::Reverse(sequences[position].len()));
        let steps = order.first().map_or(0, |&position| sequences[position].len());
        let counts: Vec<usize> = (0..steps)
            .map(|step| order.iter().take_while(|&&position| sequences[position].len() > step).count())
            .collect();
        let mut offsets = vec![0];
        offsets.extend(counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }));
        let mut rows = Array2::zeros((offsets[steps], data.dim()));
        for (offset, &position) in order.iter().enumerate() {
            let features = data.clip(clips[position])?;
            for (step, row) in sequences[position].iter().enumerate() {
                if let Some(row) = *row {
                    rows.row_mut(offsets[step] + offset).zip_mut_with(&features.row(row), |to, &from| {
                        *to = T::of(f64::from(from));
                    });
                }
            }
        }
        Ok(Self { rows, counts, offsets, order })
    }

    /// Returns the number of clips.
    pub fn clips(&self) -> usize {
        self.order.len()
    }

    /// Returns the rows of step `step`.
    pub fn step(&self, step: usize) -> std::ops::Range<usize> {
        self.offsets[step]..self.offsets[step + 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn windows_select_the_expected_rows() {
        let window = |sample, pad| SequenceWindow { length: 4, sample, pad };
        let some = |rows: &[usize]| rows.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(window(SequenceSample::Truncate, false).rows(9, None), some(&[0, 1, 2, 3]));
        assert_eq!(window(SequenceSample::RandomWindow, false).rows(9, None), some(&[2, 3, 4, 5]));
        assert_eq!(window(SequenceSample::Even, false).rows(8, None), some(&[1, 3, 5, 7]));
        assert_eq!(window(SequenceSample::Even, false).rows(9, None), some(&[1, 3, 5, 7]));
        assert_eq!(window(SequenceSample::Even, false).rows(2, None), some(&[0, 1]));
        assert_eq!(window(SequenceSample::Even, true).rows(3, None), [None, Some(0), Some(1), Some(2)]);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let rows = window(SequenceSample::RandomWindow, false).rows(9, Some(&mut random));
            assert!(rows.windows(2).all(|pair| pair[1].unwrap() == pair[0].unwrap() + 1));
            seen.insert(rows[0].unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn packing_orders_rows_by_step() {
        let rows = Array2::from_shape_fn((7, 2), |(row, column)| (10 * row + column) as f32);
        let data = Dataset {
            ids: vec!["a".into(), "b".into(), "c".into()],
            groups: vec![None; 3],
            rows: rows.into(),
            offsets: vec![0, 2, 6, 7],
            targets: Array2::zeros((3, 2)),
            classes: vec!["x".into(), "y".into()],
        };
        let window = SequenceWindow { length: 3, sample: SequenceSample::Truncate, pad: false };
        let packed = PackedBatch::<f64>::new(&data, &[2, 0, 1], window, None).unwrap();
        assert_eq!((packed.order, packed.counts, packed.offsets), (vec![2, 1, 0], vec![3, 2, 1], vec![0, 3, 5, 6]));
        assert_eq!(packed.rows.column(0).to_vec(), [20.0, 0.0, 60.0, 30.0, 10.0, 40.0]);
    }
}
