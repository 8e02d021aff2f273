//! Stride-1 convolutions with three taps per axis by Winograd's minimal filtering (Winograd 1980; for networks: Lavin &
//! Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016).
//!
//! F(4, 3) computes four outputs from six inputs with 6 multiplications instead of 12, and in two dimensions 16 outputs with
//! 36 instead of 144: y = Aᵀ[(G·g) ⊙ (Bᵀ·d)]. The products over channels are one matrix product for each of the 6 (36)
//! points; transforms operate on rows of pixels. F(2, 3), with 4 (16) points for 2 (4) outputs, is used for axes too short
//! for F(4, 3) and for images with so few tiles that reading the weights of 36 points would dominate.
//!
//! In f32 the result differs from the direct sum by about 1e-6 relative to its magnitude.

use ndarray::ArrayView3;
use pulp::{Simd, WithSimd};

use super::activation::{Activation, accumulate_with_bias, add_bias};
use super::isa::Isa;
use super::kernel::{Epilogue, ScratchBuffers};
use super::packed::PackedWeights;
use super::shape::TensorShape;

/// Tiles (4 × 4 outputs) per block, so that their transforms stay in the L2 cache.
const BLOCK_TILES: usize = 72;
/// Positions per block of the temporal convolution.
const BLOCK_POSITIONS: usize = 120;

/// A linear transform of I values to O, element-wise over vectors. It is a type instead of a function argument because
/// functions passed as values are compiled without the target features of their caller.
trait Transform<const I: usize, const O: usize> {
    fn apply<S: Simd>(s: S, values: [S::f32s; I]) -> [S::f32s; O];
}

/// Bᵀ of F(4, 3).
struct InputF4;
/// Aᵀ of F(4, 3).
struct OutputF4;
/// Bᵀ of F(2, 3).
struct InputF2;
/// Aᵀ of F(2, 3).
struct OutputF2;

impl Transform<6, 6> for InputF4 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        let [d0, d1, d2, d3, d4, d5] = d;
        let (two, four, five) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(5.0));
        let even = s.negate_mul_add_f32s(four, d2, d4); // d4 − 4·d2
        let odd = s.negate_mul_add_f32s(four, d1, d3); // d3 − 4·d1
        let even2 = s.sub_f32s(d4, d2);
        let odd2 = s.mul_f32s(two, s.sub_f32s(d3, d1));
        [
            s.add_f32s(s.mul_f32s(four, d0), s.negate_mul_add_f32s(five, d2, d4)),
            s.add_f32s(even, odd),
            s.sub_f32s(even, odd),
            s.add_f32s(even2, odd2),
            s.sub_f32s(even2, odd2),
            s.add_f32s(s.mul_f32s(four, d1), s.negate_mul_add_f32s(five, d3, d5)),
        ]
    }
}

impl Transform<6, 4> for OutputF4 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let [m0, m1, m2, m3, m4, m5] = m;
        let (two, four, eight) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(8.0));
        let (sum, difference) = (s.add_f32s(m1, m2), s.sub_f32s(m1, m2));
        let (sum2, difference2) = (s.add_f32s(m3, m4), s.sub_f32s(m3, m4));
        [
            s.add_f32s(m0, s.add_f32s(sum, sum2)),
            s.mul_add_f32s(two, difference2, difference),
            s.mul_add_f32s(four, sum2, sum),
            s.add_f32s(s.mul_add_f32s(eight, difference2, difference), m5),
        ]
    }
}

/// G of F(4, 3): coefficients of three taps at six points.
const KERNEL_F4: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// G of F(2, 3): coefficients of three taps at four points.
const KERNEL_F2: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

impl Transform<4, 4> for InputF2 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
        let [d0, d1, d2, d3] = d;
        [s.sub_f32s(d0, d2), s.add_f32s(d1, d2), s.sub_f32s(d2, d1), s.sub_f32s(d1, d3)]
    }
}

impl Transform<4, 2> for OutputF2 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
        let [m0, m1, m2, m3] = m;
        [s.add_f32s(s.add_f32s(m0, m1), m2), s.sub_f32s(s.sub_f32s(m1, m2), m3)]
    }
}

/// Computes `outputs[..][i]` from `inputs[..][i]` for every i. All slices have the same length, a multiple of 16.
#[inline(always)]
fn transform_rows<S: Simd, T: Transform<I, O>, const I: usize, const O: usize>(
    simd: S,
    inputs: [&[f32]; I],
    outputs: [&mut [f32]; O],
) {
    let count = S::as_simd_f32s(inputs[0]).0.len();
    let inputs = inputs.map(|input| &S::as_simd_f32s(input).0[..count]);
    let outputs = outputs.map(|output| &mut S::as_mut_simd_f32s(output).0[..count]);
    for i in 0..count {
        let mut values = [simd.splat_f32s(0.0); I];
        for k in 0..I {
            values[k] = inputs[k][i];
        }
        let values = T::apply(simd, values);
        for k in 0..O {
            outputs[k][i] = values[k];
        }
    }
}

/// Returns the first N chunks of `length` floats.
#[inline(always)]
fn chunks_mut<const N: usize>(buffer: &mut [f32], length: usize) -> [&mut [f32]; N] {
    let mut chunks = buffer.chunks_exact_mut(length);
    std::array::from_fn(|_| chunks.next().expect("the buffer holds N chunks"))
}

/// Returns the first N chunks of `length` floats.
#[inline(always)]
fn chunks<const N: usize>(buffer: &[f32], length: usize) -> [&[f32]; N] {
    std::array::from_fn(|k| &buffer[k * length..(k + 1) * length])
}

/// 1 × 3 × 3 convolution, stride 1, padding 1: F(4 × 4, 3 × 3) or F(2 × 2, 3 × 3).
#[derive(Debug)]
pub(super) struct SpatialWinograd {
    /// Transformed weights, one matrix (input channels, output channels) per point, row-major: 36 or 16.
    points: PackedWeights,
    /// Outputs per tile along each axis: 4 or 2.
    tile: usize,
}

impl SpatialWinograd {
    /// Transforms `weight` (9 taps, input channels, output channels), zero-padded to `padded` channels. `tiles` is the
    /// number of 4 × 4 tiles of an item; if there are few, F(2 × 2, 3 × 3) is faster, because it reads fewer weights.
    pub fn new(weight: ArrayView3<'_, f32>, padded: (usize, usize), tiles: usize, isa: Isa) -> Self {
        let (tile, kernel) = if tiles > BLOCK_TILES { (4, &KERNEL_F4[..]) } else { (2, &KERNEL_F2[..]) };
        let point = |(i, j): (usize, usize)| std::array::from_fn(|tap| kernel[i][tap / 3] * kernel[j][tap % 3]);
        let points: Vec<[f64; 9]> =
            (0..kernel.len()).flat_map(|i| (0..kernel.len()).map(move |j| (i, j))).map(point).collect();
        Self { points: PackedWeights::combine(weight, padded, &points, isa), tile }
    }

    /// Returns the number of output channels, including padding.
    fn outputs(&self) -> usize {
        self.points.dim().1
    }

    /// Computes `output` (positions, output channels) from `input` (positions, input channels); both have the positions of
    /// `shape`.
    pub fn run(
        &self,
        shape: TensorShape,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        let bands = Bands { frames: (0, shape.frames()), tile_rows: (0, shape.height.div_ceil(self.tile)) };
        self.run_bands(shape, bands, input, output, epilogue, scratch);
    }

    /// Computes only some tile rows of some frames; `output` holds nothing else.
    fn run_bands(
        &self,
        shape: TensorShape,
        bands: Bands,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        self.points.isa().dispatch(SpatialKernel { layer: self, shape, bands, input, output, epilogue, scratch });
    }
}

/// Ranges (start, end) of frames, and of tile rows in each of them.
#[derive(Clone, Copy)]
struct Bands {
    frames: (usize, usize),
    tile_rows: (usize, usize),
}

struct SpatialKernel<'a> {
    layer: &'a SpatialWinograd,
    shape: TensorShape,
    bands: Bands,
    input: &'a [f32],
    output: &'a mut [f32],
    epilogue: Epilogue<'a>,
    scratch: &'a mut ScratchBuffers,
}

impl WithSimd for SpatialKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layer.tile {
            4 => self.compute::<S, InputF4, OutputF4, 6, 4>(simd),
            _ => self.compute::<S, InputF2, OutputF2, 4, 2>(simd),
        }
    }
}

impl SpatialKernel<'_> {
    /// Computes tiles of O × O outputs from P × P points.
    #[inline(always)]
    fn compute<S: Simd, TI: Transform<P, P>, TO: Transform<P, O>, const P: usize, const O: usize>(self, simd: S) {
        let Self { layer, shape, bands, input, output, epilogue, scratch } = self;
        let (inputs, outputs) = layer.points.dim();
        let (height, width) = (shape.height, shape.width);
        let row_tiles = width.div_ceil(O);
        let (padded_row, output_row) = ((O * row_tiles + 2) * inputs, O * row_tiles * outputs);
        let frame_bands = bands.tile_rows.1 - bands.tile_rows.0;
        // First row of pixels, and number of rows, of each frame in `output`.
        let first_row = O * bands.tile_rows.0;
        let frame_rows = height.min(O * bands.tile_rows.1) - first_row;
        let total_bands = (bands.frames.1 - bands.frames.0) * frame_bands;
        let block_bands = BLOCK_TILES.div_ceil(row_tiles).min(total_bands);
        let block_tiles = block_bands * row_tiles;
        scratch.input.grow_to(P * P * block_tiles * inputs);
        scratch.output.grow_to(P * P * block_tiles * outputs);
        scratch.rows.grow_to((P * padded_row).max((P + O) * output_row));
        scratch.zeros.grow_to((width * inputs).max(outputs));
        for first in (0..total_bands).step_by(block_bands) {
            let count = block_bands.min(total_bands - first);
            let tiles = count * row_tiles;
            for band in 0..count {
                let frame = bands.frames.0 + (first + band) / frame_bands;
                let top = first_row + (first + band) % frame_bands * O;
                let image = &input[frame * height * width * inputs..][..height * width * inputs];
                let lines: [&[f32]; P] = std::array::from_fn(|k| match (top + k).checked_sub(1) {
                    Some(y) if y < height => &image[y * width * inputs..][..width * inputs],
                    _ => &scratch.zeros[..width * inputs],
                });
                let rows = &mut scratch.rows[..P * padded_row];
                for row in rows.chunks_exact_mut(padded_row) {
                    row[..inputs].fill(0.0);
                    row[(1 + width) * inputs..].fill(0.0);
                }
                let interior = chunks_mut::<P>(rows, padded_row).map(|row| &mut row[inputs..(1 + width) * inputs]);
                transform_rows::<S, TI, P, P>(simd, lines, interior);
                for (i, row) in rows.chunks_exact(padded_row).enumerate() {
                    let plane = tiles * inputs;
                    for tile in 0..row_tiles {
                        let pixels = chunks::<P>(&row[O * tile * inputs..], inputs);
                        let start = (band * row_tiles + tile) * inputs;
                        let points = chunks_mut::<P>(&mut scratch.input[P * i * plane..], plane);
                        let points = points.map(|point| &mut point[start..start + inputs]);
                        transform_rows::<S, TI, P, P>(simd, pixels, points);
                    }
                }
            }
            let (points, products) = (&scratch.input, &mut scratch.output);
            layer.points.batched_matmul(tiles, points, products, &scratch.zeros, &mut scratch.quantized);
            for band in 0..count {
                let (frame, top) = ((first + band) / frame_bands, (first + band) % frame_bands * O);
                let (rows, discarded) = scratch.rows[..(P + O) * output_row].split_at_mut(P * output_row);
                for (i, row) in rows.chunks_exact_mut(output_row).enumerate() {
                    let plane = tiles * outputs;
                    for tile in 0..row_tiles {
                        let start = (band * row_tiles + tile) * outputs;
                        let points = chunks::<P>(&scratch.output[P * i * plane..], plane);
                        let pixels = chunks_mut::<O>(&mut row[O * tile * outputs..], outputs);
                        let points = points.map(|point| &point[start..start + outputs]);
                        transform_rows::<S, TO, P, O>(simd, points, pixels);
                    }
                }
                let line = width * outputs;
                let rows = chunks::<P>(rows, output_row).map(|row| &row[..line]);
                let visible_rows = (frame_rows - top).min(O);
                let image = &mut output[(frame * frame_rows + top) * line..][..visible_rows * line];
                // Rows below the image are computed and discarded.
                let mut lines = image.chunks_exact_mut(line).chain(discarded.chunks_exact_mut(output_row));
                let lines: [&mut [f32]; O] =
                    std::array::from_fn(|_| &mut lines.next().expect("there are O rows")[..line]);
                transform_rows::<S, TO, P, O>(simd, rows, lines);
                add_bias(simd, image, epilogue.bias, epilogue.activation);
            }
        }
    }
}

/// 3 × 1 × 1 convolution, stride 1, padding 1: F(4, 3), or F(2, 3) for at most two frames.
#[derive(Debug)]
pub(super) struct TemporalWinograd {
    /// Transformed weights, one matrix (input channels, output channels) per point: six or four.
    points: PackedWeights,
}

impl TemporalWinograd {
    /// Transforms `weight` (3 taps, input channels, output channels), zero-padded to `padded` channels, for clips of
    /// `depth` frames.
    pub fn new(weight: ArrayView3<'_, f32>, padded: (usize, usize), depth: usize, isa: Isa) -> Self {
        let kernel = if depth > 2 { &KERNEL_F4[..] } else { &KERNEL_F2 };
        Self { points: PackedWeights::combine(weight, padded, kernel, isa) }
    }

    /// Computes `output` from `input` as [`SpatialWinograd::run`] does.
    pub fn run(
        &self,
        shape: TensorShape,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        let area = shape.height * shape.width;
        let (inputs, outputs) = self.points.dim();
        let clips = output.chunks_exact_mut(shape.depth * area * outputs);
        for (input, output) in input.chunks_exact(shape.depth * area * inputs).zip(clips) {
            let window = PositionWindow { input_area: area, output_area: area, offset: 0 };
            self.run_window(shape.depth, window, input, output, epilogue, scratch);
        }
    }

    /// Computes some positions of every frame of one clip.
    fn run_window(
        &self,
        depth: usize,
        window: PositionWindow,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        self.points.isa().dispatch(TemporalKernel { layer: self, depth, window, input, output, epilogue, scratch });
    }
}

/// The positions of a frame that the input holds, and their location in the output.
#[derive(Clone, Copy)]
struct PositionWindow {
    /// Positions per frame of the input.
    input_area: usize,
    /// Positions per frame of the output.
    output_area: usize,
    /// First position in a frame of the output.
    offset: usize,
}

struct TemporalKernel<'a> {
    layer: &'a TemporalWinograd,
    depth: usize,
    window: PositionWindow,
    input: &'a [f32],
    output: &'a mut [f32],
    epilogue: Epilogue<'a>,
    scratch: &'a mut ScratchBuffers,
}

impl WithSimd for TemporalKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layer.points.matrices() {
            6 => self.compute::<S, InputF4, OutputF4, 6, 4>(simd),
            _ => self.compute::<S, InputF2, OutputF2, 4, 2>(simd),
        }
    }
}

impl TemporalKernel<'_> {
    /// Computes O frames from P points at a time.
    #[inline(always)]
    fn compute<S: Simd, TI: Transform<P, P>, TO: Transform<P, O>, const P: usize, const O: usize>(self, simd: S) {
        let Self { layer, depth, window, input, output, epilogue, scratch } = self;
        let (inputs, outputs) = layer.points.dim();
        let PositionWindow { input_area, output_area, offset } = window;
        let block = BLOCK_POSITIONS.min(input_area);
        scratch.input.grow_to(P * block * inputs);
        scratch.output.grow_to(P * block * outputs);
        scratch.zeros.grow_to((block * inputs).max(outputs));
        scratch.rows.grow_to(O * block * outputs);
        for start in (0..depth).step_by(O) {
            for first in (0..input_area).step_by(block) {
                let rows = block.min(input_area - first);
                let frames: [&[f32]; P] = std::array::from_fn(|k| match (start + k).checked_sub(1) {
                    Some(t) if t < depth => &input[(t * input_area + first) * inputs..][..rows * inputs],
                    _ => &scratch.zeros[..rows * inputs],
                });
                let points = chunks_mut::<P>(&mut scratch.input, rows * inputs);
                transform_rows::<S, TI, P, P>(simd, frames, points);
                let (points, products) = (&scratch.input, &mut scratch.output);
                layer.points.batched_matmul(rows, points, products, &scratch.zeros, &mut scratch.quantized);
                let products = chunks::<P>(&scratch.output, rows * outputs);
                let sums = &mut scratch.rows[..O * rows * outputs];
                transform_rows::<S, TO, P, O>(simd, products, chunks_mut::<O>(sums, rows * outputs));
                let frames = output[start * output_area * outputs..].chunks_exact_mut(output_area * outputs);
                for (sums, frame) in sums.chunks_exact(rows * outputs).zip(frames) {
                    let values = &mut frame[(offset + first) * outputs..][..rows * outputs];
                    if epilogue.accumulate {
                        accumulate_with_bias(simd, sums, values, epilogue.bias, epilogue.activation);
                    } else {
                        values.copy_from_slice(sums);
                        add_bias(simd, values, epilogue.bias, epilogue.activation);
                    }
                }
            }
        }
    }
}

/// A (2+1)D convolution: a [`SpatialWinograd`] layer followed by a [`TemporalWinograd`] layer. They are computed together,
/// some rows of all frames at a time, so that the intermediate activation stays in the cache.
#[derive(Debug)]
pub(super) struct FactorizedWinograd {
    /// First layer.
    pub spatial: SpatialWinograd,
    /// Bias of the first layer.
    pub bias: Vec<f32>,
    /// Activation of the first layer.
    pub activation: Activation,
    /// Second layer.
    pub temporal: TemporalWinograd,
}

impl FactorizedWinograd {
    /// Computes `output` from `input` as [`SpatialWinograd::run`] does.
    pub fn run(
        &self,
        shape: TensorShape,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        let outputs = self.temporal.points.dim().1;
        let output_area = shape.height * shape.width;
        let spatial_epilogue = Epilogue { bias: &self.bias, accumulate: false, activation: self.activation };
        let tile = self.spatial.tile;
        let tile_rows = shape.height.div_ceil(tile);
        // Several tile rows if one row of all frames is too little for an efficient matrix product.
        let block_rows = BLOCK_TILES.div_ceil(shape.depth * shape.width.div_ceil(tile));
        let mut intermediate = std::mem::take(&mut scratch.intermediate);
        for (clip, output) in output.chunks_exact_mut(shape.depth * output_area * outputs).enumerate() {
            let frames = (clip * shape.depth, (clip + 1) * shape.depth);
            for row in (0..tile_rows).step_by(block_rows) {
                let end = tile_rows.min(row + block_rows);
                let input_area = (shape.height.min(tile * end) - tile * row) * shape.width;
                let length = shape.depth * input_area * self.spatial.outputs();
                intermediate.grow_to(length);
                let bands = Bands { frames, tile_rows: (row, end) };
                self.spatial.run_bands(shape, bands, input, &mut intermediate[..length], spatial_epilogue, scratch);
                let window = PositionWindow { input_area, output_area, offset: tile * row * shape.width };
                self.temporal.run_window(shape.depth, window, &intermediate[..length], output, epilogue, scratch);
            }
        }
        scratch.intermediate = intermediate;
    }
}
