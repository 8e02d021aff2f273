//! Batches of sequences of any length, packed without padding between them.

use ndarray::Array2;
use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::classify::numeric::Real;
use crate::dataset::Dataset;
use crate::recipe::SequenceSample;

/// Which rows of a clip make its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Rows at the most; at least 1.
    pub length: usize,
    /// Which rows of a longer clip.
    pub sample: SequenceSample,
    /// Whether a shorter clip is brought to `length` by rows of zeros in front, which then count as any other row.
    pub pad: bool,
}

impl Window {
    /// The rows of a clip of `count`, in rising order; `None` is a row of zeros. Random windows are drawn from `random`, or
    /// lie in the middle where there is none.
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

/// A batch of sequences: their rows step by step, at each step those of the clips that last so long, the longest clip
/// first (as PyTorch's `PackedSequence`). So no step works on rows that are not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed<T> {
    /// The rows of all steps, one step after the other, (R, D).
    pub rows: Array2<T>,
    /// How many clips have a row at each step, T of them, falling.
    pub counts: Vec<usize>,
    /// The first row of each step, T + 1 of them.
    pub offsets: Vec<usize>,
    /// The clips (places in what was packed), the longest first.
    pub order: Vec<usize>,
}

impl<T: Real> Packed<T> {
    /// Packs the clips `chosen` of `data`.
    pub fn new(data: &Dataset, chosen: &[usize], window: Window, mut random: Option<&mut Xoshiro256PlusPlus>) -> Self {
        let sequences: Vec<Vec<Option<usize>>> = chosen
            .iter()
            .map(|&clip| {
                let rows = window.rows(data.offsets[clip + 1] - data.offsets[clip], random.as_deref_mut());
                rows.into_iter().map(|row| row.map(|row| data.offsets[clip] + row)).collect()
            })
            .collect();
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|&place| std::cmp::Reverse(sequences[place].len()));
        let steps = order.first().map_or(0, |&place| sequences[place].len());
        let counts: Vec<usize> =
            (0..steps).map(|step| order.iter().take_while(|&&place| sequences[place].len() > step).count()).collect();
        let mut offsets = vec![0];
        offsets.extend(counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }));
        let mut rows = Array2::zeros((offsets[steps], data.dim()));
        for step in 0..steps {
            for (place, &clip) in order[..counts[step]].iter().enumerate() {
                if let Some(row) = sequences[clip][step] {
                    rows.row_mut(offsets[step] + place).zip_mut_with(&data.rows.row(row), |to, &from| {
                        *to = T::of(f64::from(from));
                    });
                }
            }
        }
        Self { rows, counts, offsets, order }
    }

    /// Number of clips.
    pub fn clips(&self) -> usize {
        self.order.len()
    }

    /// The rows of step `step`.
    pub fn step(&self, step: usize) -> std::ops::Range<usize> {
        self.offsets[step]..self.offsets[step + 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_window_has_the_asked_for_rows() {
        let window = |sample, pad| Window { length: 4, sample, pad };
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
    fn packing_keeps_every_row_at_its_step() {
        let rows = Array2::from_shape_fn((7, 2), |(row, column)| (10 * row + column) as f32);
        let data = Dataset {
            ids: vec!["a".into(), "b".into(), "c".into()],
            groups: vec![None; 3],
            rows,
            offsets: vec![0, 2, 6, 7],
            targets: Array2::zeros((3, 2)),
            classes: vec!["x".into(), "y".into()],
        };
        let window = Window { length: 3, sample: SequenceSample::Truncate, pad: false };
        let packed = Packed::<f64>::new(&data, &[2, 0, 1], window, None);
        assert_eq!((packed.order, packed.counts, packed.offsets), (vec![2, 1, 0], vec![3, 2, 1], vec![0, 3, 5, 6]));
        assert_eq!(packed.rows.column(0).to_vec(), [20.0, 0.0, 60.0, 30.0, 10.0, 40.0]);
    }
}
