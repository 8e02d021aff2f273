//! Convolutions of three taps and stride one by minimal filtering (Winograd 1980; for networks: Lavin & Gray, "Fast
//! Algorithms for Convolutional Neural Networks", CVPR 2016).
//!
//! F(4, 3) makes four outputs of six inputs with 6 multiplications in place of 12, over two axes 16 outputs with 36 in
//! place of 144: y = Aᵀ[(G·g) ⊙ (Bᵀ·d)]. The products over channels stay matrix products, one for each of the 6 (36)
//! points; the transforms are sums over whole rows of pixels. F(2, 3), with 4 (16) points for 2 (4) outputs, serves axes too
//! short for F(4, 3), and pictures of so few tiles that reading the weights of 36 points would take the time.
//!
//! In f32 the result differs from the direct sum by some 1e-6 of its size.

use ndarray::ArrayView3;
use pulp::{Arch, Simd, WithSimd};

use super::aligned::Aligned;
use super::layers::{Activation, Shape, finish, finish_sum};
use super::tiles::Rows;
use super::weights::{Packed, Unit};

/// Tiles (of four outputs, or of four by four) worked on at a time: their transforms should stay in the second-level cache.
const TILES: usize = 72;
/// Positions worked on at a time by the filter over time.
const POSITIONS: usize = 120;

/// A transform of I values to O, the same for every lane of a vector. A type and no function: whatever is passed as a
/// function is compiled by itself, without the vector instructions of its caller.
trait Transform<const I: usize, const O: usize> {
    fn apply<S: Simd>(s: S, values: [S::f32s; I]) -> [S::f32s; O];
}

/// Bᵀ of F(4, 3).
struct Input4;
/// Aᵀ of F(4, 3).
struct Output4;
/// Bᵀ of F(2, 3).
struct Input2;
/// Aᵀ of F(2, 3).
struct Output2;

impl Transform<6, 6> for Input4 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        let [d0, d1, d2, d3, d4, d5] = d;
        let (two, four, five) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(5.0));
        let even = s.negate_mul_add_f32s(four, d2, d4); // d4 − 4·d2
        let odd = s.negate_mul_add_f32s(four, d1, d3); // d3 − 4·d1
        let near = s.sub_f32s(d4, d2);
        let far = s.mul_f32s(two, s.sub_f32s(d3, d1));
        [
            s.add_f32s(s.mul_f32s(four, d0), s.negate_mul_add_f32s(five, d2, d4)),
            s.add_f32s(even, odd),
            s.sub_f32s(even, odd),
            s.add_f32s(near, far),
            s.sub_f32s(near, far),
            s.add_f32s(s.mul_f32s(four, d1), s.negate_mul_add_f32s(five, d3, d5)),
        ]
    }
}

impl Transform<6, 4> for Output4 {
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

/// G of F(4, 3): three taps at six points.
const TAPS4: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// G of F(2, 3): at four.
const TAPS2: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

impl Transform<4, 4> for Input2 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
        let [d0, d1, d2, d3] = d;
        [s.sub_f32s(d0, d2), s.add_f32s(d1, d2), s.sub_f32s(d2, d1), s.sub_f32s(d1, d3)]
    }
}

impl Transform<4, 2> for Output2 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
        let [m0, m1, m2, m3] = m;
        [s.add_f32s(s.add_f32s(m0, m1), m2), s.sub_f32s(s.sub_f32s(m1, m2), m3)]
    }
}

/// A transform along whole vectors: `outputs[k][i]` from all `inputs[..][i]`. Lengths are multiples of 16 and the same.
#[inline(always)]
fn along<S: Simd, T: Transform<I, O>, const I: usize, const O: usize>(
    simd: S,
    inputs: [&[f32]; I],
    outputs: [&mut [f32]; O],
) {
    let count = S::as_simd_f32s(inputs[0]).0.len();
    let from = inputs.map(|input| &S::as_simd_f32s(input).0[..count]);
    let to = outputs.map(|output| &mut S::as_mut_simd_f32s(output).0[..count]);
    for i in 0..count {
        let mut values = [simd.splat_f32s(0.0); I];
        for k in 0..I {
            values[k] = from[k][i];
        }
        let values = T::apply(simd, values);
        for k in 0..O {
            to[k][i] = values[k];
        }
    }
}

/// The first N parts of `length` of a buffer.
#[inline(always)]
fn parts_mut<const N: usize>(buffer: &mut [f32], length: usize) -> [&mut [f32]; N] {
    let mut parts = buffer.chunks_exact_mut(length);
    std::array::from_fn(|_| parts.next().expect("the buffer holds N parts"))
}

/// The first N parts of `length` of a buffer.
#[inline(always)]
fn parts<const N: usize>(buffer: &[f32], length: usize) -> [&[f32]; N] {
    std::array::from_fn(|k| &buffer[k * length..(k + 1) * length])
}

/// Buffers of one lane.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Of the layer, or what is made of it first.
    pub input: Aligned,
    pub output: Aligned,
    pub rows: Aligned,
    zeros: Aligned,
    middle: Aligned,
    /// For products.
    pub digits: Rows,
}

/// 1 × 3 × 3, stride 1, one zero around: F(4 × 4, 3 × 3), or F(2 × 2, 3 × 3).
#[derive(Debug)]
pub(super) struct Spatial {
    /// 36, or 16, matrices (channels in, channels out): point (i, j) of rows and columns at 6·i + j, or 4·i + j.
    points: Packed,
    /// Outputs of a tile along each axis: 4 or 2.
    side: usize,
}

impl Spatial {
    /// From `weight` (9 taps, channels in, channels out), filled up to `stored` channels, for pictures of `tiles` tiles of
    /// four by four. Where these are few F(2 × 2, 3 × 3) is as fast, for it has less than half as many weights to read.
    pub fn new(weight: ArrayView3<'_, f32>, stored: (usize, usize), tiles: usize, unit: Unit) -> Self {
        let (side, taps) = if tiles > TILES { (4, &TAPS4[..]) } else { (2, &TAPS2[..]) };
        let point = |(i, j): (usize, usize)| std::array::from_fn(|tap| taps[i][tap / 3] * taps[j][tap % 3]);
        let points: Vec<[f64; 9]> =
            (0..taps.len()).flat_map(|i| (0..taps.len()).map(move |j| (i, j))).map(point).collect();
        Self { points: Packed::mixed(weight, stored, &points, unit), side }
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.points.dim().1
    }

    /// `output` (positions, channels out) of `input` (positions, channels in), both of `shape`'s positions.
    pub fn run(&self, shape: Shape, input: &[f32], output: &mut [f32], end: End<'_>, scratch: &mut Scratch) {
        let all = Bands { frames: (0, shape.frames()), rows: (0, shape.height.div_ceil(self.side)) };
        self.run_bands(shape, all, input, output, end, scratch);
    }

    /// The same for some frames and some of their rows of tiles: `output` holds these alone.
    fn run_bands(
        &self,
        shape: Shape,
        bands: Bands,
        input: &[f32],
        output: &mut [f32],
        end: End<'_>,
        scratch: &mut Scratch,
    ) {
        Arch::new().dispatch(SpatialRun { layer: self, shape, bands, input, output, end, scratch });
    }
}

/// What follows a convolution.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    /// (stored channels out).
    pub bias: &'a [f32],
    /// Whether the result is added to what the output holds; the filters over height and width alone do not.
    pub adds: bool,
    /// After bias and sum.
    pub activation: Activation,
}

/// Frames, and rows of tiles in each: from, to.
#[derive(Clone, Copy)]
struct Bands {
    frames: (usize, usize),
    rows: (usize, usize),
}

struct SpatialRun<'a> {
    layer: &'a Spatial,
    shape: Shape,
    bands: Bands,
    input: &'a [f32],
    output: &'a mut [f32],
    end: End<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for SpatialRun<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layer.side {
            4 => self.tiles::<S, Input4, Output4, 6, 4>(simd),
            _ => self.tiles::<S, Input2, Output2, 4, 2>(simd),
        }
    }
}

impl SpatialRun<'_> {
    /// P points make O outputs, along rows and columns.
    #[inline(always)]
    fn tiles<S: Simd, F: Transform<P, P>, B: Transform<P, O>, const P: usize, const O: usize>(self, simd: S) {
        let Self { layer, shape, bands, input, output, end, scratch } = self;
        let (inputs, outputs) = layer.points.dim();
        let (height, width) = (shape.height, shape.width);
        let across = width.div_ceil(O);
        let (padded, covered) = ((O * across + 2) * inputs, O * across * outputs);
        let down = bands.rows.1 - bands.rows.0;
        // Rows of pixels that are made here, of each frame.
        let (above, made) = (O * bands.rows.0, height.min(O * bands.rows.1) - O * bands.rows.0);
        let all = (bands.frames.1 - bands.frames.0) * down;
        let together = TILES.div_ceil(across).min(all);
        let most = together * across;
        scratch.input.at_least(P * P * most * inputs);
        scratch.output.at_least(P * P * most * outputs);
        scratch.rows.at_least((P * padded).max((P + O) * covered));
        scratch.zeros.at_least((width * inputs).max(outputs));
        for first in (0..all).step_by(together) {
            let count = together.min(all - first);
            let tiles = count * across;
            for band in 0..count {
                let frame = bands.frames.0 + (first + band) / down;
                let top = above + (first + band) % down * O;
                let picture = &input[frame * height * width * inputs..][..height * width * inputs];
                let lines: [&[f32]; P] = std::array::from_fn(|k| match (top + k).checked_sub(1) {
                    Some(y) if y < height => &picture[y * width * inputs..][..width * inputs],
                    _ => &scratch.zeros[..width * inputs],
                });
                let rows = &mut scratch.rows[..P * padded];
                for row in rows.chunks_exact_mut(padded) {
                    row[..inputs].fill(0.0);
                    row[(1 + width) * inputs..].fill(0.0);
                }
                let inner = parts_mut::<P>(rows, padded).map(|row| &mut row[inputs..(1 + width) * inputs]);
                along::<S, F, P, P>(simd, lines, inner);
                for (i, row) in rows.chunks_exact(padded).enumerate() {
                    let plane = tiles * inputs;
                    for tile in 0..across {
                        let pixels = parts::<P>(&row[O * tile * inputs..], inputs);
                        let at = (band * across + tile) * inputs;
                        let points = parts_mut::<P>(&mut scratch.input[P * i * plane..], plane);
                        along::<S, F, P, P>(simd, pixels, points.map(|point| &mut point[at..at + inputs]));
                    }
                }
            }
            layer.points.multiply_each(tiles, &scratch.input, &mut scratch.output, &scratch.zeros, &mut scratch.digits);
            for band in 0..count {
                let (frame, top) = ((first + band) / down, (first + band) % down * O);
                let (rows, unseen) = scratch.rows[..(P + O) * covered].split_at_mut(P * covered);
                for (i, row) in rows.chunks_exact_mut(covered).enumerate() {
                    let plane = tiles * outputs;
                    for tile in 0..across {
                        let at = (band * across + tile) * outputs;
                        let points = parts::<P>(&scratch.output[P * i * plane..], plane);
                        let pixels = parts_mut::<O>(&mut row[O * tile * outputs..], outputs);
                        along::<S, B, P, O>(simd, points.map(|point| &point[at..at + outputs]), pixels);
                    }
                }
                let line = width * outputs;
                let rows = parts::<P>(rows, covered).map(|row| &row[..line]);
                let seen = (made - top).min(O);
                let picture = &mut output[(frame * made + top) * line..][..seen * line];
                let mut lines = picture.chunks_exact_mut(line).chain(unseen.chunks_exact_mut(covered));
                let lines: [&mut [f32]; O] = std::array::from_fn(|_| &mut lines.next().expect("a row each")[..line]);
                along::<S, B, P, O>(simd, rows, lines);
                finish(simd, picture, end.bias, end.activation);
            }
        }
    }
}

/// 3 × 1 × 1, stride 1, a frame of zeros before and after: F(4, 3), or F(2, 3) for two frames or fewer.
#[derive(Debug)]
pub(super) struct Temporal {
    /// Six, or four, matrices (channels in, channels out).
    points: Packed,
}

impl Temporal {
    /// From `weight` (3 taps, channels in, channels out), filled up to `stored` channels, for clips of `depth` frames.
    pub fn new(weight: ArrayView3<'_, f32>, stored: (usize, usize), depth: usize, unit: Unit) -> Self {
        let taps = if depth > 2 { &TAPS4[..] } else { &TAPS2 };
        Self { points: Packed::mixed(weight, stored, taps, unit) }
    }

    /// As [`Spatial::run`].
    pub fn run(&self, shape: Shape, input: &[f32], output: &mut [f32], end: End<'_>, scratch: &mut Scratch) {
        let area = shape.height * shape.width;
        let (inputs, outputs) = self.points.dim();
        let clips = output.chunks_exact_mut(shape.depth * area * outputs);
        for (input, output) in input.chunks_exact(shape.depth * area * inputs).zip(clips) {
            self.run_part(shape.depth, Part { area, stride: area, offset: 0 }, input, output, end, scratch);
        }
    }

    /// One clip of `depth` frames, and some positions of each.
    fn run_part(
        &self,
        depth: usize,
        part: Part,
        input: &[f32],
        output: &mut [f32],
        end: End<'_>,
        scratch: &mut Scratch,
    ) {
        Arch::new().dispatch(TemporalRun { layer: self, depth, part, input, output, end, scratch });
    }
}

/// The positions of a frame that the input holds, and where they belong in the output.
#[derive(Clone, Copy)]
struct Part {
    /// Positions a frame of the input.
    area: usize,
    /// Positions a frame of the output.
    stride: usize,
    /// The first of them that is made.
    offset: usize,
}

struct TemporalRun<'a> {
    layer: &'a Temporal,
    depth: usize,
    part: Part,
    input: &'a [f32],
    output: &'a mut [f32],
    end: End<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for TemporalRun<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layer.points.matrices() {
            6 => self.tiles::<S, Input4, Output4, 6, 4>(simd),
            _ => self.tiles::<S, Input2, Output2, 4, 2>(simd),
        }
    }
}

impl TemporalRun<'_> {
    #[inline(always)]
    fn tiles<S: Simd, F: Transform<P, P>, B: Transform<P, O>, const P: usize, const O: usize>(self, simd: S) {
        let Self { layer, depth, part, input, output, end, scratch } = self;
        let (inputs, outputs) = layer.points.dim();
        let Part { area, stride, offset } = part;
        let together = POSITIONS.min(area);
        scratch.input.at_least(P * together * inputs);
        scratch.output.at_least(P * together * outputs);
        scratch.zeros.at_least((together * inputs).max(outputs));
        scratch.rows.at_least(O * together * outputs);
        for start in (0..depth).step_by(O) {
            for first in (0..area).step_by(together) {
                let rows = together.min(area - first);
                let frames: [&[f32]; P] = std::array::from_fn(|k| match (start + k).checked_sub(1) {
                    Some(t) if t < depth => &input[(t * area + first) * inputs..][..rows * inputs],
                    _ => &scratch.zeros[..rows * inputs],
                });
                let points = parts_mut::<P>(&mut scratch.input, rows * inputs);
                along::<S, F, P, P>(simd, frames, points);
                layer.points.multiply_each(
                    rows,
                    &scratch.input,
                    &mut scratch.output,
                    &scratch.zeros,
                    &mut scratch.digits,
                );
                let points = parts::<P>(&scratch.output, rows * outputs);
                let made = &mut scratch.rows[..O * rows * outputs];
                along::<S, B, P, O>(simd, points, parts_mut::<O>(made, rows * outputs));
                let frames = output[start * stride * outputs..].chunks_exact_mut(stride * outputs);
                for (made, frame) in made.chunks_exact(rows * outputs).zip(frames) {
                    let values = &mut frame[(offset + first) * outputs..][..rows * outputs];
                    if end.adds {
                        finish_sum(simd, made, values, end.bias, end.activation);
                    } else {
                        values.copy_from_slice(made);
                        finish(simd, values, end.bias, end.activation);
                    }
                }
            }
        }
    }
}

/// A [`Spatial`] layer and the [`Temporal`] one after it, some rows of all frames at a time: what lies between them stays
/// small, and in the cache.
#[derive(Debug)]
pub(super) struct Factorized {
    /// First over height and width,
    pub spatial: Spatial,
    /// with its bias,
    pub bias: Vec<f32>,
    /// and activation,
    pub activation: Activation,
    /// then over depth.
    pub temporal: Temporal,
}

impl Factorized {
    /// As [`Spatial::run`].
    pub fn run(&self, shape: Shape, input: &[f32], output: &mut [f32], end: End<'_>, scratch: &mut Scratch) {
        let outputs = self.temporal.points.dim().1;
        let stride = shape.height * shape.width;
        let between = End { bias: &self.bias, adds: false, activation: self.activation };
        let side = self.spatial.side;
        let down = shape.height.div_ceil(side);
        // Enough for whole products, where a row of all frames is less.
        let together = TILES.div_ceil(shape.depth * shape.width.div_ceil(side));
        let mut middle = std::mem::take(&mut scratch.middle);
        for (clip, output) in output.chunks_exact_mut(shape.depth * stride * outputs).enumerate() {
            let frames = (clip * shape.depth, (clip + 1) * shape.depth);
            for row in (0..down).step_by(together) {
                let rows = (row, down.min(row + together));
                let area = (shape.height.min(side * rows.1) - side * row) * shape.width;
                let length = shape.depth * area * self.spatial.outputs();
                middle.at_least(length);
                let bands = Bands { frames, rows };
                self.spatial.run_bands(shape, bands, input, &mut middle[..length], between, scratch);
                let part = Part { area, stride, offset: side * row * shape.width };
                self.temporal.run_part(shape.depth, part, &middle[..length], output, end, scratch);
            }
        }
        scratch.middle = middle;
    }
}
