//! Convolutions with kernel size 3 and stride 1, computed with Winograd's minimal filtering algorithm (Winograd 1980;
//! for neural networks: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016).
//!
//! F(4, 3) computes four outputs from a tile d of six inputs and a kernel g of three taps: y = Aᵀ[(G·g) ⊙ (Bᵀ·d)]. This
//! takes 6 multiplications instead of 12; in two dimensions, with transforms along both axes, 36 instead of 144 for 16
//! outputs. The elements of a transformed tile are called points. The sum over input channels makes ⊙ a matrix product
//! per point, (tiles, input channels) × (input channels, output channels). Weights are transformed when the network is
//! loaded.
//!
//! F(2, 3), with 4 (16) points for 2 (4) outputs, is used for axes too short for F(4, 3), and for images with so few
//! tiles that reading the weights of 36 points would dominate.
//!
//! In f32 the result differs from the direct sum by about 1e-6 relative to its magnitude.

mod transforms;

use ndarray::ArrayView3;
use pulp::{Simd, WithSimd};

use super::activation::{Activation, accumulate_with_bias, add_bias};
use super::kernel::{Epilogue, ScratchBuffers};
use super::packed::{PackedWeights, Target};
use super::shape::TensorShape;
use transforms::{InputF2, InputF4, KERNEL_TRANSFORM_F2, KERNEL_TRANSFORM_F4, OutputF2, OutputF4, Transform};

/// Number of tiles transformed per block, so that the transformed tiles stay in the L2 cache.
const BLOCK_TILES: usize = 72;
/// Number of positions per block of the temporal convolution.
const BLOCK_POSITIONS: usize = 120;

/// Applies the transform `T` across `I` rows, element by element: computes `outputs[..][i]` from `inputs[..][i]`. All
/// rows have the same length, a multiple of 16.
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

/// Returns the first `N` chunks of `length` floats, mutably.
#[inline(always)]
fn chunks_mut<const N: usize>(buffer: &mut [f32], length: usize) -> [&mut [f32]; N] {
    let mut chunks = buffer.chunks_exact_mut(length);
    std::array::from_fn(|_| chunks.next().expect("the buffer holds N chunks"))
}

/// Returns the first `N` chunks of `length` floats.
#[inline(always)]
fn chunks<const N: usize>(buffer: &[f32], length: usize) -> [&[f32]; N] {
    std::array::from_fn(|k| &buffer[k * length..(k + 1) * length])
}

/// 1 × 3 × 3 convolution, stride 1, padding 1: F(4 × 4, 3 × 3) or F(2 × 2, 3 × 3).
#[derive(Debug)]
pub(super) struct SpatialWinograd {
    /// Transformed weights: one matrix (input channels, output channels) for each of the 36 or 16 points, row-major.
    weights: PackedWeights,
    /// Number of outputs per tile along each axis: 4 or 2.
    tile_size: usize,
}

impl SpatialWinograd {
    /// Transforms `weight` (9 taps, input channels, output channels), zero-padded to `padded` (input, output) channels.
    /// `tiles` is the number of 4 × 4 tiles per item; if it is small, F(2 × 2, 3 × 3) is used, because it reads fewer
    /// weights.
    pub fn new(weight: ArrayView3<'_, f32>, padded: (usize, usize), tiles: usize, target: Target) -> Self {
        let (tile_size, transform) =
            if tiles > BLOCK_TILES { (4, &KERNEL_TRANSFORM_F4[..]) } else { (2, &KERNEL_TRANSFORM_F2[..]) };
        let axis_points = transform.len();
        // The two-dimensional transform is the outer product of the one-dimensional ones.
        let point = |(i, j): (usize, usize)| std::array::from_fn(|tap| transform[i][tap / 3] * transform[j][tap % 3]);
        let coefficients: Vec<[f64; 9]> =
            (0..axis_points).flat_map(|i| (0..axis_points).map(move |j| (i, j))).map(point).collect();
        Self { weights: PackedWeights::combine(weight, padded, &coefficients, target), tile_size }
    }

    /// Returns the kernel size and the number of outputs per tile along each axis.
    pub fn describe(&self) -> String {
        format!("3x3 F({})", self.tile_size)
    }

    /// Returns the number of output channels, including padding.
    fn output_channels(&self) -> usize {
        self.weights.dim().1
    }

    /// Computes `output` (positions, output channels) from `input` (positions, input channels). The positions are those
    /// of `shape` for both.
    pub fn run(
        &self,
        shape: TensorShape,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        let region = Region { frames: (0, shape.frames()), tile_rows: (0, shape.height.div_ceil(self.tile_size)) };
        self.run_region(shape, region, input, output, epilogue, scratch);
    }

    /// Computes the tile rows of `region`; `output` holds only these.
    fn run_region(
        &self,
        shape: TensorShape,
        region: Region,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        self.weights.isa().dispatch(SpatialKernel { layer: self, shape, region, input, output, epilogue, scratch });
    }
}

/// Part of the output: ranges (start, end) of frames, and of tile rows in each of these frames.
#[derive(Clone, Copy)]
struct Region {
    frames: (usize, usize),
    tile_rows: (usize, usize),
}

/// SIMD kernel of [`SpatialWinograd`].
struct SpatialKernel<'a> {
    layer: &'a SpatialWinograd,
    shape: TensorShape,
    region: Region,
    input: &'a [f32],
    output: &'a mut [f32],
    epilogue: Epilogue<'a>,
    scratch: &'a mut ScratchBuffers,
}

impl WithSimd for SpatialKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layer.tile_size {
            4 => self.compute::<S, InputF4, OutputF4, 6, 4>(simd),
            _ => self.compute::<S, InputF2, OutputF2, 4, 2>(simd),
        }
    }
}

impl SpatialKernel<'_> {
    /// Computes tiles of `O × O` outputs from `P × P` points, block by block: input transform, matrix products, output
    /// transform.
    #[inline(always)]
    fn compute<S: Simd, TI: Transform<P, P>, TO: Transform<P, O>, const P: usize, const O: usize>(self, simd: S) {
        let Self { layer, shape, region, input, output, epilogue, scratch } = self;
        let (input_channels, output_channels) = layer.weights.dim();
        let (height, width) = (shape.height, shape.width);
        let tiles_per_row = width.div_ceil(O);
        let (padded_row_len, output_row_len) =
            ((O * tiles_per_row + 2) * input_channels, O * tiles_per_row * output_channels);
        let tile_rows_per_frame = region.tile_rows.1 - region.tile_rows.0;
        // First row of the image in each frame of `output`, and number of rows.
        let first_row = O * region.tile_rows.0;
        let rows_per_frame = height.min(O * region.tile_rows.1) - first_row;
        let total_tile_rows = (region.frames.1 - region.frames.0) * tile_rows_per_frame;
        let block_tile_rows = BLOCK_TILES.div_ceil(tiles_per_row).min(total_tile_rows);
        let block_tiles = block_tile_rows * tiles_per_row;
        scratch.input.grow_to(P * P * block_tiles * input_channels);
        scratch.output.grow_to(P * P * block_tiles * output_channels);
        scratch.rows.grow_to((P * padded_row_len).max((P + O) * output_row_len));
        scratch.zeros.grow_to((width * input_channels).max(output_channels));
        for first_tile_row in (0..total_tile_rows).step_by(block_tile_rows) {
            let count = block_tile_rows.min(total_tile_rows - first_tile_row);
            let tiles = count * tiles_per_row;
            for tile_row in 0..count {
                let frame = region.frames.0 + (first_tile_row + tile_row) / tile_rows_per_frame;
                let top = first_row + (first_tile_row + tile_row) % tile_rows_per_frame * O;
                // Bᵀ along the height, with zeros to the left and right of the image.
                let image = &input[frame * height * width * input_channels..][..height * width * input_channels];
                let image_rows: [&[f32]; P] = std::array::from_fn(|k| match (top + k).checked_sub(1) {
                    Some(y) if y < height => &image[y * width * input_channels..][..width * input_channels],
                    _ => &scratch.zeros[..width * input_channels],
                });
                let rows = &mut scratch.rows[..P * padded_row_len];
                for row in rows.chunks_exact_mut(padded_row_len) {
                    row[..input_channels].fill(0.0);
                    row[(1 + width) * input_channels..].fill(0.0);
                }
                let interior = chunks_mut::<P>(rows, padded_row_len)
                    .map(|row| &mut row[input_channels..(1 + width) * input_channels]);
                transform_rows::<S, TI, P, P>(simd, image_rows, interior);
                // Bᵀ along the width of each tile: point (i, j) of all tiles is contiguous.
                for (i, row) in rows.chunks_exact(padded_row_len).enumerate() {
                    let point_len = tiles * input_channels;
                    for tile in 0..tiles_per_row {
                        let pixels = chunks::<P>(&row[O * tile * input_channels..], input_channels);
                        let start = (tile_row * tiles_per_row + tile) * input_channels;
                        let points = chunks_mut::<P>(&mut scratch.input[P * i * point_len..], point_len);
                        let points = points.map(|point| &mut point[start..start + input_channels]);
                        transform_rows::<S, TI, P, P>(simd, pixels, points);
                    }
                }
            }
            let (transformed, products) = (&scratch.input, &mut scratch.output);
            layer.weights.batched_matmul(tiles, transformed, products, &scratch.zeros, &mut scratch.quantized);
            for tile_row in 0..count {
                let (frame, top) = (
                    (first_tile_row + tile_row) / tile_rows_per_frame,
                    (first_tile_row + tile_row) % tile_rows_per_frame * O,
                );
                // Aᵀ along the width of each tile, then along the height.
                let (rows, discarded) = scratch.rows[..(P + O) * output_row_len].split_at_mut(P * output_row_len);
                for (i, row) in rows.chunks_exact_mut(output_row_len).enumerate() {
                    let point_len = tiles * output_channels;
                    for tile in 0..tiles_per_row {
                        let start = (tile_row * tiles_per_row + tile) * output_channels;
                        let points = chunks::<P>(&scratch.output[P * i * point_len..], point_len);
                        let pixels = chunks_mut::<O>(&mut row[O * tile * output_channels..], output_channels);
                        let points = points.map(|point| &point[start..start + output_channels]);
                        transform_rows::<S, TO, P, O>(simd, points, pixels);
                    }
                }
                let row_len = width * output_channels;
                let rows = chunks::<P>(rows, output_row_len).map(|row| &row[..row_len]);
                let visible_rows = (rows_per_frame - top).min(O);
                let image = &mut output[(frame * rows_per_frame + top) * row_len..][..visible_rows * row_len];
                // The last tile row may extend below the image; those rows are discarded.
                let mut image_rows = image.chunks_exact_mut(row_len).chain(discarded.chunks_exact_mut(output_row_len));
                let image_rows: [&mut [f32]; O] =
                    std::array::from_fn(|_| &mut image_rows.next().expect("there are O rows")[..row_len]);
                transform_rows::<S, TO, P, O>(simd, rows, image_rows);
                add_bias(simd, image, epilogue.bias, epilogue.activation);
            }
        }
    }
}

/// 3 × 1 × 1 convolution, stride 1, padding 1: F(4, 3), or F(2, 3) for at most two frames.
#[derive(Debug)]
pub(super) struct TemporalWinograd {
    /// Transformed weights: one matrix (input channels, output channels) for each of the six or four points.
    weights: PackedWeights,
}

impl TemporalWinograd {
    /// Transforms `weight` (3 taps, input channels, output channels), zero-padded to `padded` (input, output)
    /// channels, for clips of `depth` frames.
    pub fn new(weight: ArrayView3<'_, f32>, padded: (usize, usize), depth: usize, target: Target) -> Self {
        let transform = if depth > 2 { &KERNEL_TRANSFORM_F4[..] } else { &KERNEL_TRANSFORM_F2 };
        Self { weights: PackedWeights::combine(weight, padded, transform, target) }
    }

    /// Returns the kernel size and the number of outputs per tile.
    pub fn describe(&self) -> String {
        // F(m, 3) has m + 2 points.
        format!("3x1x1 F({})", self.weights.matrices() - 2)
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
        let (input_channels, output_channels) = self.weights.dim();
        let clips = output.chunks_exact_mut(shape.depth * area * output_channels);
        for (input, output) in input.chunks_exact(shape.depth * area * input_channels).zip(clips) {
            let range = PositionRange { input_area: area, output_area: area, offset: 0 };
            self.run_range(shape.depth, range, input, output, epilogue, scratch);
        }
    }

    /// Computes the positions of `range` in every frame of one clip.
    fn run_range(
        &self,
        depth: usize,
        range: PositionRange,
        input: &[f32],
        output: &mut [f32],
        epilogue: Epilogue<'_>,
        scratch: &mut ScratchBuffers,
    ) {
        self.weights.isa().dispatch(TemporalKernel { layer: self, depth, range, input, output, epilogue, scratch });
    }
}

/// Consecutive positions of every frame. The input holds only these, the output holds full frames.
#[derive(Clone, Copy)]
struct PositionRange {
    /// Positions per frame of the input: the length of the range.
    input_area: usize,
    /// Positions per frame of the output.
    output_area: usize,
    /// First position of the range in a frame of the output.
    offset: usize,
}

/// SIMD kernel of [`TemporalWinograd`].
struct TemporalKernel<'a> {
    layer: &'a TemporalWinograd,
    depth: usize,
    range: PositionRange,
    input: &'a [f32],
    output: &'a mut [f32],
    epilogue: Epilogue<'a>,
    scratch: &'a mut ScratchBuffers,
}

impl WithSimd for TemporalKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layer.weights.matrices() {
            6 => self.compute::<S, InputF4, OutputF4, 6, 4>(simd),
            _ => self.compute::<S, InputF2, OutputF2, 4, 2>(simd),
        }
    }
}

impl TemporalKernel<'_> {
    /// Computes `O` frames from `P` points at a time, for a block of positions.
    #[inline(always)]
    fn compute<S: Simd, TI: Transform<P, P>, TO: Transform<P, O>, const P: usize, const O: usize>(self, simd: S) {
        let Self { layer, depth, range, input, output, epilogue, scratch } = self;
        let (input_channels, output_channels) = layer.weights.dim();
        let PositionRange { input_area, output_area, offset } = range;
        let block = BLOCK_POSITIONS.min(input_area);
        scratch.input.grow_to(P * block * input_channels);
        scratch.output.grow_to(P * block * output_channels);
        scratch.zeros.grow_to((block * input_channels).max(output_channels));
        scratch.rows.grow_to(O * block * output_channels);
        for first_frame in (0..depth).step_by(O) {
            for first_position in (0..input_area).step_by(block) {
                let positions = block.min(input_area - first_position);
                let frames: [&[f32]; P] = std::array::from_fn(|k| match (first_frame + k).checked_sub(1) {
                    Some(t) if t < depth => {
                        &input[(t * input_area + first_position) * input_channels..][..positions * input_channels]
                    }
                    _ => &scratch.zeros[..positions * input_channels],
                });
                let points = chunks_mut::<P>(&mut scratch.input, positions * input_channels);
                transform_rows::<S, TI, P, P>(simd, frames, points);
                let (transformed, products) = (&scratch.input, &mut scratch.output);
                layer.weights.batched_matmul(positions, transformed, products, &scratch.zeros, &mut scratch.quantized);
                let products = chunks::<P>(&scratch.output, positions * output_channels);
                let sums = &mut scratch.rows[..O * positions * output_channels];
                transform_rows::<S, TO, P, O>(simd, products, chunks_mut::<O>(sums, positions * output_channels));
                let frames = output[first_frame * output_area * output_channels..]
                    .chunks_exact_mut(output_area * output_channels);
                for (sums, frame) in sums.chunks_exact(positions * output_channels).zip(frames) {
                    let values =
                        &mut frame[(offset + first_position) * output_channels..][..positions * output_channels];
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
        let output_channels = self.temporal.weights.dim().1;
        let output_area = shape.height * shape.width;
        let spatial_epilogue = Epilogue { bias: &self.bias, accumulate: false, activation: self.activation };
        let tile_size = self.spatial.tile_size;
        let tile_rows = shape.height.div_ceil(tile_size);
        // Several tile rows if one tile row of all frames has too few tiles for an efficient matrix product.
        let block_rows = BLOCK_TILES.div_ceil(shape.depth * shape.width.div_ceil(tile_size));
        let mut intermediate = std::mem::take(&mut scratch.intermediate);
        for (clip, output) in output.chunks_exact_mut(shape.depth * output_area * output_channels).enumerate() {
            let frames = (clip * shape.depth, (clip + 1) * shape.depth);
            for start in (0..tile_rows).step_by(block_rows) {
                let end = tile_rows.min(start + block_rows);
                let input_area = (shape.height.min(tile_size * end) - tile_size * start) * shape.width;
                let length = shape.depth * input_area * self.spatial.output_channels();
                intermediate.grow_to(length);
                let region = Region { frames, tile_rows: (start, end) };
                self.spatial.run_region(shape, region, input, &mut intermediate[..length], spatial_epilogue, scratch);
                let range = PositionRange { input_area, output_area, offset: tile_size * start * shape.width };
                self.temporal.run_range(shape.depth, range, &intermediate[..length], output, epilogue, scratch);
            }
        }
        scratch.intermediate = intermediate;
    }
}
