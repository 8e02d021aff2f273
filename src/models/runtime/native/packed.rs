//! Weight matrices packed once, in the order in which the matrix product reads them.

use std::sync::Arc;

use ndarray::{ArrayView3, Axis};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::aligned::AlignedBuffer;
use super::amx;
use super::bf16;
use super::int8::QuantizedMatrix;
use super::isa::Isa;
use super::kernel::PANEL;
use super::probe::Probe;

/// One or several matrices (input channels, output channels) of the same size, divided into panels of output channels.
/// Panels follow each other; within a panel its part of every matrix.
#[derive(Debug)]
pub(super) struct PackedWeights {
    matrices: usize,
    inputs: usize,
    unpadded_inputs: usize,
    outputs: usize,
    target: Target,
    layout: PackedLayout,
    /// Observes the products during calibration.
    probe: Option<Arc<Probe>>,
}

/// Instruction set and number format that matrices are packed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub isa: Isa,
    /// Rounds both factors of products to bfloat16.
    pub bf16: bool,
}

impl From<Isa> for Target {
    /// Products in f32.
    fn from(isa: Isa) -> Self {
        Self { isa, bf16: false }
    }
}

/// Values in the order in which the instruction set reads them.
#[derive(Debug)]
pub(super) enum PackedLayout {
    /// f32 panels as wide as [`PanelShape`] says, (inputs, vectors).
    Vectors(AlignedBuffer),
    /// [AMX](amx) panels one tile wide.
    Amx {
        /// Values as 8-bit slices.
        slices: AlignedBuffer<i8>,
        /// Scale per column, (matrices, outputs).
        scales: Vec<f32>,
    },
    /// [bfloat16](bf16) panels of 16 outputs.
    Bf16 { pairs: AlignedBuffer<u32>, kernel: bf16::Kernel },
    /// A matrix of 8-bit integers, whose input is quantized.
    Int8(Box<QuantizedMatrix>),
}

/// Matrices (inputs, outputs) divided into panels of output channels, in the order of [`PackedWeights`].
#[derive(Clone, Copy)]
pub(super) struct VectorPanels<'a> {
    pub values: &'a [f32],
    pub matrices: usize,
    /// Rows per matrix.
    pub inputs: usize,
    /// Columns per matrix, a multiple of the vector length.
    pub outputs: usize,
}

impl<'a> VectorPanels<'a> {
    /// Returns the panels of one matrix: their width in vectors and their values.
    #[inline(always)]
    pub fn of_matrix(self, matrix: usize, shape: PanelShape) -> impl Iterator<Item = (usize, &'a [f32])> {
        let mut remaining = self.values;
        shape.widths(self.outputs).map(move |vectors| {
            let length = self.inputs * vectors * shape.lanes;
            let (panel, rest) = remaining.split_at(self.matrices * length);
            remaining = rest;
            (vectors, &panel[matrix * length..][..length])
        })
    }
}

/// Packs one matrix (inputs, outputs) into panels. `fill(first, width, panel)` writes `width` columns from `first` on,
/// (inputs, width).
pub(super) fn pack_panels(
    panels: &mut [f32],
    (inputs, outputs): (usize, usize),
    shape: PanelShape,
    fill: impl Fn(usize, usize, &mut [f32]),
) {
    let (mut remaining, mut first) = (panels, 0);
    for vectors in shape.widths(outputs) {
        let width = vectors * shape.lanes;
        let (panel, rest) = remaining.split_at_mut(inputs * width);
        fill(first, width, panel);
        (remaining, first) = (rest, first + width);
    }
}

/// Division of output channels into panels of vectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct PanelShape {
    /// Elements per vector.
    pub lanes: usize,
    /// Greatest number of vectors per panel.
    max_vectors: usize,
}

impl PanelShape {
    /// Returns the shape for an instruction set.
    pub fn new(isa: Isa) -> Self {
        struct Shape;
        impl WithSimd for Shape {
            type Output = PanelShape;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> PanelShape {
                PanelShape::of::<S>()
            }
        }
        isa.dispatch(Shape)
    }

    /// Returns the shape for vectors of type `S`.
    #[inline(always)]
    pub fn of<S: Simd>() -> Self {
        // With 16 registers, three vectors of weights, the accumulators of four rows and a broadcast activation take all of them,
        // and the compiler keeps an accumulator in memory.
        Self { lanes: S::F32_LANES, max_vectors: if S::REGISTER_COUNT >= 32 { 3 } else { 2 } }
    }

    /// Divides `outputs` columns into panels and returns their widths in vectors. The last panels of three vectors are followed
    /// by two of two vectors rather than one of a single vector.
    #[inline(always)]
    fn widths(self, outputs: usize) -> impl Iterator<Item = usize> {
        let mut remaining = outputs / self.lanes;
        std::iter::from_fn(move || {
            let width = match remaining {
                0 => return None,
                1 => 1,
                2 | 4 => 2,
                _ => self.max_vectors,
            };
            remaining -= width;
            Some(width)
        })
    }
}

impl PackedWeights {
    /// Packs linear combinations of the taps of `weight` (taps, input channels, output channels): one matrix per row of
    /// `coefficients`, which holds one coefficient per tap. Channels are padded with zeros to `padded` (inputs,
    /// outputs); outputs must be a multiple of 16. Sums are computed in f64, panels in parallel.
    pub fn combine<const TAPS: usize>(
        weight: ArrayView3<'_, f32>,
        padded: (usize, usize),
        coefficients: &[[f64; TAPS]],
        target: Target,
    ) -> Self {
        let coefficients: Vec<&[f64]> = coefficients.iter().map(|row| &row[..]).collect();
        Self::new(weight, padded, &coefficients, coefficients.len(), target)
    }

    /// Packs one matrix (taps · input channels, output channels) from `weight` (taps, input channels, output channels),
    /// padded as in [`PackedWeights::combine`].
    pub fn concatenate(weight: ArrayView3<'_, f32>, padded: (usize, usize), target: Target) -> Self {
        let taps = weight.len_of(Axis(0));
        let unit = |tap: usize| (0..taps).map(|other| f64::from(u8::from(other == tap))).collect();
        let identity: Vec<Vec<f64>> = (0..taps).map(unit).collect();
        let identity: Vec<&[f64]> = identity.iter().map(Vec::as_slice).collect();
        Self::new(weight, padded, &identity, 1, target)
    }

    /// The blocks given by the rows of `coefficients`, stacked, make up `matrices` matrices.
    fn new(
        weight: ArrayView3<'_, f32>,
        (channels, outputs): (usize, usize),
        coefficients: &[&[f64]],
        matrices: usize,
        target: Target,
    ) -> Self {
        let inputs = channels * coefficients.len() / matrices;
        let fill_panel = |first: usize, width: usize, panel: &mut [f32]| {
            let taps = transpose_panel(weight, channels, first, width);
            let taps: Vec<&[f32]> = taps.chunks_exact(channels * width).collect();
            for (output, coefficients) in panel.chunks_exact_mut(channels * width).zip(coefficients) {
                target.isa.dispatch(LinearCombination { taps: &taps, coefficients, output });
            }
        };
        let bf16_kernel = if target.bf16 { bf16::Kernel::of(target.isa) } else { None };
        let layout = if let Some(kernel) = bf16_kernel {
            let length = bf16::panel_len(inputs);
            let mut pairs = AlignedBuffer::zeros(outputs / PANEL * matrices * length);
            let jobs = pairs[..outputs / PANEL * matrices * length].par_chunks_mut(matrices * length);
            jobs.enumerate().for_each(|(index, pairs)| {
                let mut panel = vec![0.0; matrices * inputs * PANEL];
                fill_panel(index * PANEL, PANEL, &mut panel);
                for (matrix, pairs) in panel.chunks_exact(inputs * PANEL).zip(pairs.chunks_exact_mut(length)) {
                    bf16::pack_panel(matrix, pairs);
                }
            });
            PackedLayout::Bf16 { pairs, kernel }
        } else if target == Target::from(Isa::Amx) && amx::K_RANGE.contains(&inputs) {
            let length = amx::panel_len(inputs);
            let mut slices = AlignedBuffer::zeros(outputs / amx::TILE_ROWS * matrices * length);
            let mut scales = vec![0.0; matrices * outputs];
            // In the order of the panels: (outputs / 16, matrices, 16).
            let mut panel_scales = scales.clone();
            let jobs =
                slices.par_chunks_mut(matrices * length).zip(panel_scales.par_chunks_mut(matrices * amx::TILE_ROWS));
            jobs.enumerate().for_each(|(index, (slices, scales))| {
                let mut panel = vec![0.0; matrices * inputs * amx::TILE_ROWS];
                fill_panel(index * amx::TILE_ROWS, amx::TILE_ROWS, &mut panel);
                let parts = slices.chunks_exact_mut(length).zip(scales.chunks_exact_mut(amx::TILE_ROWS));
                for (matrix, (slices, scales)) in panel.chunks_exact(inputs * amx::TILE_ROWS).zip(parts) {
                    amx::quantize_panel(matrix, slices, scales);
                }
            });
            for (i, panel) in panel_scales.chunks_exact(amx::TILE_ROWS).enumerate() {
                let start = i % matrices * outputs + i / matrices * amx::TILE_ROWS;
                scales[start..][..amx::TILE_ROWS].copy_from_slice(panel);
            }
            PackedLayout::Amx { slices, scales }
        } else {
            let shape = PanelShape::new(target.isa);
            let mut values = AlignedBuffer::zeros(matrices * inputs * outputs);
            let (mut jobs, mut remaining, mut first) = (Vec::new(), &mut values[..], 0);
            for vectors in shape.widths(outputs) {
                let width = vectors * shape.lanes;
                let (panel, rest) = remaining.split_at_mut(matrices * inputs * width);
                jobs.push((first, width, panel));
                (remaining, first) = (rest, first + width);
            }
            jobs.into_par_iter().for_each(|(first, width, panel)| {
                fill_panel(first, width, panel);
                if target.bf16 {
                    bf16::round_all(panel);
                }
            });
            PackedLayout::Vectors(values)
        };
        let unpadded_inputs = inputs - (channels - weight.len_of(Axis(1)));
        Self { matrices, inputs, unpadded_inputs, outputs, target, layout, probe: None }
    }

    /// Wraps a quantized matrix.
    pub fn quantized(matrix: QuantizedMatrix) -> Self {
        let (inputs, outputs) = matrix.dim();
        let (target, layout) = (matrix.isa().into(), PackedLayout::Int8(Box::new(matrix)));
        Self { matrices: 1, inputs, unpadded_inputs: inputs, outputs, target, layout, probe: None }
    }

    /// Lets a probe observe the products.
    pub fn with_probe(self, probe: Arc<Probe>) -> Self {
        Self { probe: Some(probe), ..self }
    }

    /// Returns the probe that observes the products.
    pub fn probe(&self) -> Option<&Probe> {
        self.probe.as_deref()
    }

    /// Returns (inputs, outputs) of each matrix, including padding.
    pub fn dim(&self) -> (usize, usize) {
        (self.inputs, self.outputs)
    }

    /// Returns the number of inputs without the padding channels at the end.
    pub fn unpadded_inputs(&self) -> usize {
        self.unpadded_inputs
    }

    /// Returns the number of matrices.
    pub fn matrices(&self) -> usize {
        self.matrices
    }

    /// Returns the instruction set that the weights are packed for.
    pub fn isa(&self) -> Isa {
        self.target.isa
    }

    /// Returns `true` if the input is to be rounded to bfloat16 before it is multiplied as f32.
    pub fn rounds_input(&self) -> bool {
        self.target.bf16 && matches!(self.layout, PackedLayout::Vectors(_))
    }

    /// Returns the matrix of 8-bit integers; `None` for other layouts.
    pub fn int8(&self) -> Option<&QuantizedMatrix> {
        match &self.layout {
            PackedLayout::Int8(matrix) => Some(matrix),
            _ => None,
        }
    }

    /// Returns the packed values.
    pub fn layout(&self) -> &PackedLayout {
        &self.layout
    }

    /// Returns the panels of the `Vectors` layout.
    pub fn vector_panels<'a>(&self, values: &'a [f32]) -> VectorPanels<'a> {
        VectorPanels { values, matrices: self.matrices, inputs: self.inputs, outputs: self.outputs }
    }

    /// Returns the panels of one matrix in the `Bf16` layout.
    pub fn bf16_panels<'a>(&self, matrix: usize, pairs: &'a [u32]) -> bf16::Panels<'a> {
        let length = bf16::panel_len(self.inputs);
        bf16::Panels { pairs: &pairs[matrix * length..], stride: self.matrices * length }
    }

    /// Returns the panels of one matrix in the `Amx` layout.
    pub fn amx_panels<'a>(&self, matrix: usize, slices: &'a [i8]) -> impl Iterator<Item = &'a [i8]> + Clone {
        slices.chunks_exact(amx::panel_len(self.inputs)).skip(matrix).step_by(self.matrices)
    }
}

/// Copies `width` output channels from `first` on to (taps, inputs, width), zero-padded.
fn transpose_panel(weight: ArrayView3<'_, f32>, inputs: usize, first: usize, width: usize) -> Vec<f32> {
    let (taps, channels, filters) = weight.dim();
    let mut panel = vec![0.0; taps * inputs * width];
    for (lane, filter) in (first..filters.min(first + width)).enumerate() {
        let filter = weight.index_axis(Axis(2), filter);
        // In the memory order of ONNX files: taps vary fastest.
        for channel in 0..channels {
            for tap in 0..taps {
                panel[(tap * inputs + channel) * width + lane] = filter[(tap, channel)];
            }
        }
    }
    panel
}

/// Kernel that computes `output = Σ coefficients[tap]·taps[tap]` in f64.
struct LinearCombination<'a> {
    taps: &'a [&'a [f32]],
    coefficients: &'a [f64],
    output: &'a mut [f32],
}

impl WithSimd for LinearCombination<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const BLOCK: usize = 64;
        let Self { taps, coefficients, output } = self;
        for (block, output) in output.chunks_mut(BLOCK).enumerate() {
            let mut sums = [0.0f64; BLOCK];
            for (tap, &coefficient) in taps.iter().zip(coefficients).filter(|(_, coefficient)| **coefficient != 0.0) {
                for (sum, value) in sums.iter_mut().zip(&tap[block * BLOCK..][..output.len()]) {
                    *sum += coefficient * f64::from(*value);
                }
            }
            for (value, sum) in output.iter_mut().zip(sums) {
                *value = sum as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::CHANNEL_ALIGNMENT;
    use super::*;

    #[test]
    fn panels_cover_every_number_of_padded_channels() {
        for shape in Isa::available().map(PanelShape::new) {
            for outputs in (CHANNEL_ALIGNMENT..600).step_by(CHANNEL_ALIGNMENT) {
                let vectors: usize = shape.widths(outputs).sum();
                assert_eq!(vectors * shape.lanes, outputs, "{shape:?}");
            }
        }
    }
}
