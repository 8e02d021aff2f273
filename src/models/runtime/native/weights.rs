//! Weights laid out once for the product that reads them.

use ndarray::{ArrayView3, Axis};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::aligned::Aligned;
use super::tiles;

/// One or several matrices (channels in, channels out), cut into panels of outputs: panel after panel, in it matrix after
/// matrix.
#[derive(Debug)]
pub(super) struct Packed {
    matrices: usize,
    inputs: usize,
    /// Of them, those up to the last that is not only there to fill up.
    used: usize,
    outputs: usize,
    layout: Layout,
}

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Vectors of f32.
    Vectors,
    /// [Tiles](super::tiles) of integers.
    Tiles,
}

impl Unit {
    /// The fastest that this processor has; `KINOPROBE_AMX=0` leaves the tiles alone.
    pub fn best() -> Self {
        let unwanted = std::env::var_os("KINOPROBE_AMX").is_some_and(|value| value == "0");
        if !unwanted && tiles::available() { Unit::Tiles } else { Unit::Vectors }
    }
}

/// Values in the order that the unit reads them in.
#[derive(Debug)]
pub(super) enum Layout {
    /// Vectors: panels one to three vectors wide, input after input.
    Vectors(Aligned),
    /// [Tiles](super::tiles): panels one tile wide, in digits, and the scales (matrices, outputs) of their columns.
    Tiles(Aligned<i8>, Vec<f32>),
}

/// Vectors in the panels that `vectors` are cut into: threes, and twos at the end rather than a one.
fn panels_of_vectors(vectors: usize) -> impl Iterator<Item = usize> {
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
        unit: Unit,
    ) -> Self {
        let mixtures: Vec<&[f64]> = mixtures.iter().map(|mixture| &mixture[..]).collect();
        Self::new(weight, stored, &mixtures, mixtures.len(), unit)
    }

    /// One matrix (taps · channels in, channels out) of `weight` (taps, channels in, channels out), filled up as in
    /// [`Packed::mixed`].
    pub fn whole(weight: ArrayView3<'_, f32>, stored: (usize, usize), unit: Unit) -> Self {
        let taps = weight.len_of(Axis(0));
        let only = |tap: usize| (0..taps).map(|other| f64::from(u8::from(other == tap))).collect();
        let each: Vec<Vec<f64>> = (0..taps).map(only).collect();
        let each: Vec<&[f64]> = each.iter().map(Vec::as_slice).collect();
        Self::new(weight, stored, &each, 1, unit)
    }

    /// The mixtures one after another make up `matrices`.
    fn new(
        weight: ArrayView3<'_, f32>,
        (channels, outputs): (usize, usize),
        mixtures: &[&[f64]],
        matrices: usize,
        unit: Unit,
    ) -> Self {
        let inputs = channels * mixtures.len() / matrices;
        let fill = |first: usize, width: usize, panel: &mut [f32]| {
            let taps = panel_of(weight, channels, first, width);
            let taps: Vec<&[f32]> = taps.chunks_exact(channels * width).collect();
            for (values, mixture) in panel.chunks_exact_mut(channels * width).zip(mixtures) {
                Arch::new().dispatch(Mix { taps: &taps, mixture, values });
            }
        };
        let layout = if unit == Unit::Tiles && tiles::WORTH.contains(&inputs) {
            let length = tiles::panel_length(inputs);
            let mut digits = Aligned::zeros(outputs / tiles::SIDE * matrices * length);
            let mut scales = vec![0.0; matrices * outputs];
            // In the order of the panels: (outputs / 16, matrices, 16).
            let mut made = scales.clone();
            let jobs = digits.par_chunks_mut(matrices * length).zip(made.par_chunks_mut(matrices * tiles::SIDE));
            jobs.enumerate().for_each(|(at, (digits, scales))| {
                let mut panel = vec![0.0; matrices * inputs * tiles::SIDE];
                fill(at * tiles::SIDE, tiles::SIDE, &mut panel);
                let each = digits.chunks_exact_mut(length).zip(scales.chunks_exact_mut(tiles::SIDE));
                for (matrix, (digits, scales)) in panel.chunks_exact(inputs * tiles::SIDE).zip(each) {
                    tiles::lay_out(matrix, digits, scales);
                }
            });
            for (i, made) in made.chunks_exact(tiles::SIDE).enumerate() {
                scales[i % matrices * outputs + i / matrices * tiles::SIDE..][..tiles::SIDE].copy_from_slice(made);
            }
            Layout::Tiles(digits, scales)
        } else {
            let lanes = lanes();
            let mut values = Aligned::zeros(matrices * inputs * outputs);
            let (mut jobs, mut left, mut first) = (Vec::new(), &mut values[..], 0);
            for vectors in panels_of_vectors(outputs / lanes) {
                let width = vectors * lanes;
                let (panel, rest) = left.split_at_mut(matrices * inputs * width);
                jobs.push((first, width, panel));
                (left, first) = (rest, first + width);
            }
            jobs.into_par_iter().for_each(|(first, width, panel)| fill(first, width, panel));
            Layout::Vectors(values)
        };
        let used = inputs - (channels - weight.len_of(Axis(1)));
        Self { matrices, inputs, used, outputs, layout }
    }

    /// (channels in, channels out).
    pub fn dim(&self) -> (usize, usize) {
        (self.inputs, self.outputs)
    }

    /// Channels in up to the last that is not only there to fill up.
    pub fn used(&self) -> usize {
        self.used
    }

    /// How many matrices there are.
    pub fn matrices(&self) -> usize {
        self.matrices
    }

    /// Its values, for the unit that multiplies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The panels of one matrix for vectors: the vectors of outputs in each, and their values.
    #[inline(always)]
    pub fn vectors<'a>(
        &self,
        matrix: usize,
        lanes: usize,
        values: &'a [f32],
    ) -> impl Iterator<Item = (usize, &'a [f32])> {
        let (mut left, matrices, inputs) = (values, self.matrices, self.inputs);
        panels_of_vectors(self.outputs / lanes).map(move |vectors| {
            let length = inputs * vectors * lanes;
            let (panel, rest) = left.split_at(matrices * length);
            left = rest;
            (vectors, &panel[matrix * length..][..length])
        })
    }

    /// The panels of one matrix for tiles.
    pub fn tiles<'a>(&self, matrix: usize, digits: &'a [i8]) -> impl Iterator<Item = &'a [i8]> + Clone {
        digits.chunks_exact(tiles::panel_length(self.inputs)).skip(matrix).step_by(self.matrices)
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
    values: &'a mut [f32],
}

impl WithSimd for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const BLOCK: usize = 64;
        let Self { taps, mixture, values } = self;
        for (block, values) in values.chunks_mut(BLOCK).enumerate() {
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
