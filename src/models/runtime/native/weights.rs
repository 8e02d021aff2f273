//! Weights laid out once for the product that reads them.

use ndarray::{ArrayView3, Axis};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// One or several matrices (channels in, channels out), in panels of one to three vectors of outputs: panel after panel,
/// in it matrix after matrix, in that input after input.
#[derive(Debug)]
pub(super) struct Packed {
    matrices: usize,
    inputs: usize,
    outputs: usize,
    values: Vec<f32>,
}

/// Vectors in the panels that `vectors` are cut into: threes, and twos at the end rather than a one.
fn panels(vectors: usize) -> impl Iterator<Item = usize> {
    let mut left = vectors;
    std::iter::from_fn(move || {
        let width = match left {
            0 => return None,
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        left -= width;
        Some(width)
    })
}

/// Outputs in a vector.
fn lanes() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(Lanes)
}

impl Packed {
    /// Matrices that are each a mixture of the taps of `weight` (taps, channels in, channels out): `mixtures` hold a
    /// coefficient a tap. Channels are filled up with zeros to `stored` (in, out), a multiple of 16 out. The sums are
    /// made in f64; panels are made side by side.
    pub fn mixed<const TAPS: usize>(
        weight: ArrayView3<'_, f32>,
        stored: (usize, usize),
        mixtures: &[[f64; TAPS]],
    ) -> Self {
        let mixtures: Vec<&[f64]> = mixtures.iter().map(|mixture| &mixture[..]).collect();
        Self::new(weight, stored, &mixtures)
    }

    /// One matrix (taps · channels in, channels out) of `weight` (taps, channels in, channels out), filled up as in
    /// [`Packed::mixed`].
    pub fn whole(weight: ArrayView3<'_, f32>, stored: (usize, usize)) -> Self {
        let taps = weight.len_of(Axis(0));
        let unit = |tap: usize| (0..taps).map(|other| f64::from(u8::from(other == tap))).collect();
        let units: Vec<Vec<f64>> = (0..taps).map(unit).collect();
        let units: Vec<&[f64]> = units.iter().map(Vec::as_slice).collect();
        let packed = Self::new(weight, stored, &units);
        // Matrix after matrix of a panel is one of all their inputs.
        Self { matrices: 1, inputs: taps * packed.inputs, ..packed }
    }

    fn new(weight: ArrayView3<'_, f32>, (inputs, outputs): (usize, usize), mixtures: &[&[f64]]) -> Self {
        let (lanes, matrices) = (lanes(), mixtures.len());
        let mut values = vec![0.0; matrices * inputs * outputs];
        let (mut jobs, mut left, mut first) = (Vec::new(), &mut values[..], 0);
        for vectors in panels(outputs / lanes) {
            let width = vectors * lanes;
            let (panel, rest) = left.split_at_mut(matrices * inputs * width);
            jobs.push((first, width, panel));
            (left, first) = (rest, first + width);
        }
        jobs.into_par_iter().for_each(|(first, width, panel)| {
            let taps = panel_of(weight, inputs, first, width);
            let taps: Vec<&[f32]> = taps.chunks_exact(inputs * width).collect();
            for (matrix, mixture) in panel.chunks_exact_mut(inputs * width).zip(mixtures) {
                Arch::new().dispatch(Mix { taps: &taps, mixture, matrix });
            }
        });
        Self { matrices, inputs, outputs, values }
    }

    /// (channels in, channels out).
    pub fn dim(&self) -> (usize, usize) {
        (self.inputs, self.outputs)
    }

    /// How many matrices there are.
    pub fn matrices(&self) -> usize {
        self.matrices
    }

    /// The panels of one matrix: the vectors of outputs in each, and their values.
    #[inline(always)]
    pub fn panels(&self, matrix: usize, lanes: usize) -> impl Iterator<Item = (usize, &[f32])> {
        let mut left = &self.values[..];
        panels(self.outputs / lanes).map(move |vectors| {
            let length = self.inputs * vectors * lanes;
            let (panel, rest) = left.split_at(self.matrices * length);
            left = rest;
            (vectors, &panel[matrix * length..][..length])
        })
    }
}

/// `width` outputs of every tap (taps, inputs, width), from the output `first` on.
fn panel_of(weight: ArrayView3<'_, f32>, inputs: usize, first: usize, width: usize) -> Vec<f32> {
    let (taps, channels, filters) = weight.dim();
    let mut panel = vec![0.0; taps * inputs * width];
    for (lane, filter) in (first..filters.min(first + width)).enumerate() {
        let filter = weight.index_axis(Axis(2), filter);
        // As a file has them: taps run fastest.
        for channel in 0..channels {
            for tap in 0..taps {
                panel[(tap * inputs + channel) * width + lane] = filter[(tap, channel)];
            }
        }
    }
    panel
}

struct Mix<'a> {
    taps: &'a [&'a [f32]],
    mixture: &'a [f64],
    matrix: &'a mut [f32],
}

impl WithSimd for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const BLOCK: usize = 64;
        let Self { taps, mixture, matrix } = self;
        for (block, values) in matrix.chunks_mut(BLOCK).enumerate() {
            let mut sums = [0.0f64; BLOCK];
            for (tap, &coefficient) in taps.iter().zip(mixture).filter(|(_, coefficient)| **coefficient != 0.0) {
                for (sum, value) in sums.iter_mut().zip(&tap[block * BLOCK..][..values.len()]) {
                    *sum += coefficient * f64::from(*value);
                }
            }
            for (value, sum) in values.iter_mut().zip(sums) {
                *value = sum as f32;
            }
        }
    }
}
