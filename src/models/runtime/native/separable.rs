//! Depthwise convolutions, with the pointwise ones before and after them where there are any: the inverted bottleneck of
//! MobileNetV2 (Sandler et al., CVPR 2018) and EfficientNet.
//!
//! Between them a bottleneck has some six times the channels of its ends. They are computed some rows at a time, so that
//! what lies between stays in the cache and needs no memory.

use ndarray::{Array2, s};
use pulp::{Arch, Simd, WithSimd};

use super::convolution::Geometry;
use super::layers::{Activation, Shape, activate, add};
use super::team::Team;
use super::weights::Packed;
use super::winograd::{End, Scratch};

/// Numbers of the rows worked on at a time, those between the layers: they should stay in the second-level cache.
const BAND: usize = 1 << 17;

/// A convolution with one tap, bias and activation.
#[derive(Debug)]
pub(super) struct Pointwise {
    /// (channels in, channels out).
    pub weight: Packed,
    /// (stored channels out).
    pub bias: Vec<f32>,
    /// What follows.
    pub activation: Activation,
}

/// A filter a channel, over height and width.
#[derive(Debug)]
pub(super) struct Depthwise {
    geometry: Geometry,
    /// (taps, channels).
    weight: Array2<f32>,
    from: Shape,
    to: Shape,
}

/// A depthwise convolution and what was joined to it.
#[derive(Debug)]
pub(super) struct Separable {
    /// Before it.
    expand: Option<Pointwise>,
    filter: Depthwise,
    /// After it.
    project: Option<Projection>,
}

/// What follows a filter.
#[derive(Debug)]
struct Projection {
    /// Of the filter, (stored channels).
    bias: Vec<f32>,
    /// Of the filter.
    activation: Activation,
    /// (channels in, channels out).
    weight: Packed,
}

impl Separable {
    /// One filter a channel: `weight` (channels, 1, taps).
    pub fn new(geometry: Geometry, weight: &[f32], from: Shape, to: Shape) -> Self {
        let taps: usize = geometry.kernel.iter().product();
        let mut matrix = Array2::zeros((taps, from.stored));
        for ((t, channel), value) in matrix.slice_mut(s![.., ..from.channels]).indexed_iter_mut() {
            *value = weight[channel * taps + t];
        }
        let filter = Depthwise { geometry, weight: matrix, from, to };
        Self { expand: None, filter, project: None }
    }

    /// The same after `expand`.
    pub fn after(self, expand: Pointwise) -> Self {
        Self { expand: Some(expand), ..self }
    }

    /// Whether nothing follows the filter yet.
    pub fn is_open(&self) -> bool {
        self.project.is_none()
    }

    /// The same, with bias and activation, before `project`.
    pub fn before(self, bias: Vec<f32>, activation: Activation, weight: Packed) -> Self {
        Self { project: Some(Projection { bias, activation, weight }), ..self }
    }

    /// Numbers of a row of the input.
    fn taken(&self) -> usize {
        let Depthwise { from, .. } = &self.filter;
        from.width * self.expand.as_ref().map_or(from.stored, |expand| expand.weight.dim().0)
    }

    /// Numbers of a row of the output.
    fn given(&self) -> usize {
        let Depthwise { to, .. } = &self.filter;
        to.width * self.project.as_ref().map_or(to.stored, |project| project.weight.dim().1)
    }

    /// `output` of `input`, some rows at a time; `end` is that of the last layer. A picture's rows are shared out to
    /// the team.
    pub fn run(&self, input: &[f32], output: &mut [f32], end: End<'_>, team: &mut Team<'_>) {
        let Depthwise { from, to, .. } = &self.filter;
        let (taken, given) = (self.taken(), self.given());
        let share = to.height.div_ceil(team.scratches.len());
        let pictures = input.chunks_exact(from.height * taken).zip(output.chunks_exact_mut(to.height * given));
        for (picture, output) in pictures {
            team.share(output.chunks_mut(share * given), |i, output, scratch| {
                self.rows(picture, i * share, output, end, scratch);
            });
        }
    }

    /// Rows of a picture's output from `first` on.
    fn rows(&self, picture: &[f32], first: usize, output: &mut [f32], end: End<'_>, scratch: &mut Scratch) {
        let (taken, given) = (self.taken(), self.given());
        let Depthwise { from, to, geometry, .. } = &self.filter;
        let (line, made) = (from.width * from.stored, to.width * to.stored);
        let (step, overlap) = (geometry.stride[1], geometry.kernel[1]);
        let together = (BAND / line.max(made) / step).clamp(1, to.height);
        let Scratch { input: expanded, output: filtered, rows: added, digits, .. } = scratch;
        expanded.at_least(if self.expand.is_some() { (step * together + overlap) * line } else { 0 });
        filtered.at_least(if self.project.is_some() { together * made } else { 0 });
        // The rows that are in `expanded`.
        let mut there = 0..0;
        for (band, output) in output.chunks_mut(together * given).enumerate() {
            let lines = first + band * together..first + band * together + output.len() / given;
            let seen = geometry.rows(&lines, from.height);
            let (rows, top) = match &self.expand {
                None => (picture, 0),
                Some(expand) => {
                    // Of the rows before, those that are seen again.
                    let kept = if seen.start < there.end { seen.start..there.end } else { seen.start..seen.start };
                    expanded.copy_within((there.len() - kept.len()) * line..there.len() * line, 0);
                    let (new, last) = (kept.end, seen.end.max(kept.end));
                    let made = &mut expanded[kept.len() * line..][..(last - new) * line];
                    expand.weight.multiply(
                        &picture[new * taken..last * taken],
                        made,
                        &expand.bias,
                        expand.activation,
                        digits,
                    );
                    there = kept.start..last;
                    (&expanded[..there.len() * line], there.start)
                }
            };
            match &self.project {
                Some(Projection { bias, activation, weight }) => {
                    let filtered = &mut filtered[..lines.len() * made];
                    self.filter.run(rows, top, lines.start, filtered, bias, *activation);
                    if end.adds {
                        added.at_least(output.len());
                        let added = &mut added[..output.len()];
                        weight.multiply(filtered, added, end.bias, Activation::None, digits);
                        add(output, added, end.activation);
                    } else {
                        weight.multiply(filtered, output, end.bias, end.activation, digits);
                    }
                }
                None => self.filter.run(rows, top, lines.start, output, end.bias, end.activation),
            }
        }
    }
}

impl Depthwise {
    /// Lines of one picture's output, from `first` on, of its `rows` from `top` on.
    fn run(&self, rows: &[f32], top: usize, first: usize, output: &mut [f32], bias: &[f32], activation: Activation) {
        Arch::new().dispatch(Lines { layer: self, rows, top, first, output, bias, activation });
    }
}

struct Lines<'a> {
    layer: &'a Depthwise,
    rows: &'a [f32],
    top: usize,
    first: usize,
    output: &'a mut [f32],
    bias: &'a [f32],
    activation: Activation,
}

impl WithSimd for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Geometry { kernel, stride, .. } = self.layer.geometry;
        match (kernel[2], stride[2]) {
            (3, 1) => self.lines::<S, 3, 1>(simd),
            (5, 1) => self.lines::<S, 5, 1>(simd),
            (7, 1) => self.lines::<S, 7, 1>(simd),
            (3, 2) => self.lines::<S, 3, 2>(simd),
            (5, 2) => self.lines::<S, 5, 2>(simd),
            _ => self.lines::<S, 0, 0>(simd),
        }
    }
}

impl Lines<'_> {
    /// With `K` taps across and a stride of `STEP`, or any where they are 0.
    #[inline(always)]
    fn lines<S: Simd, const K: usize, const STEP: usize>(self, simd: S) {
        let Self { layer, rows, top, first, output, bias, activation } = self;
        let Depthwise { geometry, weight, from, to } = layer;
        let bias = S::as_simd_f32s(bias).0;
        let vectors = bias.len();
        let filter = Filter::<S, K, STEP> {
            simd,
            geometry,
            vectors,
            weight: S::as_simd_f32s(weight.as_slice().expect("row-major")).0,
            bias,
            activation,
            rows: S::as_simd_f32s(rows).0,
            top,
            from: *from,
        };
        // Some channels of all lines at a time: what lines share is still in the first-level cache.
        for channel in (0..vectors).step_by(2) {
            for (row, line) in output.chunks_exact_mut(to.width * to.stored).enumerate() {
                let line = S::as_mut_simd_f32s(line).0;
                match vectors - channel {
                    1 => filter.line::<1>(first + row, channel, line),
                    _ => filter.line::<2>(first + row, channel, line),
                }
            }
        }
    }
}

/// Filters a channel, as vectors: of `K` taps across and a stride of `STEP`, or of any where they are 0.
struct Filter<'a, S: Simd, const K: usize, const STEP: usize> {
    simd: S,
    geometry: &'a Geometry,
    /// Vectors of a position.
    vectors: usize,
    /// (taps, vectors).
    weight: &'a [S::f32s],
    bias: &'a [S::f32s],
    activation: Activation,
    /// Rows of the picture from `top` on, (rows, columns, vectors).
    rows: &'a [S::f32s],
    top: usize,
    /// The whole picture.
    from: Shape,
}

impl<S: Simd, const K: usize, const STEP: usize> Filter<'_, S, K, STEP> {
    /// `V` vectors of channels, from `channel` on, of the line `y` of the output, some positions at a time; where the line is no
    /// multiple of them, some positions twice.
    #[inline(always)]
    fn line<const V: usize>(&self, y: usize, channel: usize, line: &mut [S::f32s]) {
        let width = line.len() / self.vectors;
        let mut x = 0;
        while x < width {
            if K > 0 && width - x > 3 && width >= 6 {
                self.positions::<V, 6>(y, x.min(width - 6), channel, line);
                x += 6;
            } else if K > 0 && width >= 3 {
                self.positions::<V, 3>(y, x.min(width - 3), channel, line);
                x += 3;
            } else {
                self.position::<V>(y, x, channel, line);
                x += 1;
            }
        }
    }

    /// The rows of the picture that the line `y` looks at, each with the first of the taps that belong to it.
    #[inline(always)]
    fn seen(&self, y: usize) -> impl Iterator<Item = (&[S::f32s], &[S::f32s])> {
        let Self { geometry, from, vectors, .. } = *self;
        geometry.rows(&(y..y + 1), from.height).map(move |row| {
            let tap = row + geometry.before[1] - y * geometry.stride[1];
            let length = from.width * vectors;
            (&self.rows[(row - self.top) * length..][..length], &self.weight[tap * geometry.kernel[2] * vectors..])
        })
    }

    /// `X` positions of it, from `x` on. A number of the picture is read once for all taps of its row that see it.
    #[inline(always)]
    fn positions<const V: usize, const X: usize>(&self, y: usize, x: usize, channel: usize, line: &mut [S::f32s]) {
        let Self { simd, vectors, .. } = *self;
        let corner = (x * STEP) as isize - self.geometry.before[2] as isize;
        let mut sums = [[simd.splat_f32s(0.0); V]; X];
        for (row, weight) in self.seen(y) {
            let mut taps = [[simd.splat_f32s(0.0); V]; K];
            for (dx, taps) in taps.iter_mut().enumerate() {
                taps.copy_from_slice(&weight[dx * vectors + channel..][..V]);
            }
            // As many as the widest of them see; a loop over them would not be unrolled.
            const { assert!((X - 1) * STEP + K <= 15) };
            macro_rules! columns { ($($column:literal)*) => { $(
                if $column < (X - 1) * STEP + K {
                    let at = (corner + $column) as usize; // beyond the left edge it is very large
                    if at < self.from.width {
                        self.add_column($column, &row[at * vectors + channel..][..V], &taps, &mut sums);
                    }
                }
            )* } }
            columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            self.finish(sums, channel, &mut line[(x + i) * vectors..]);
        }
    }

    /// Adds what the positions see in one column to their sums.
    #[inline(always)]
    fn add_column<const V: usize, const X: usize>(
        &self,
        column: usize,
        pixel: &[S::f32s],
        taps: &[[S::f32s; V]; K],
        sums: &mut [[S::f32s; V]; X],
    ) {
        for (i, sums) in sums.iter_mut().enumerate() {
            if i * STEP <= column && column < i * STEP + K {
                let taps = &taps[column - i * STEP];
                for v in 0..V {
                    sums[v] = self.simd.mul_add_f32s(pixel[v], taps[v], sums[v]);
                }
            }
        }
    }

    /// One position of it, of any filter.
    #[inline(always)]
    fn position<const V: usize>(&self, y: usize, x: usize, channel: usize, line: &mut [S::f32s]) {
        let Self { simd, vectors, geometry, .. } = *self;
        let corner = (x * geometry.stride[2]) as isize - geometry.before[2] as isize;
        let mut sums = [simd.splat_f32s(0.0); V];
        for (row, weight) in self.seen(y) {
            for (dx, taps) in weight.chunks_exact(vectors).enumerate().take(geometry.kernel[2]) {
                let at = (corner + dx as isize) as usize; // beyond the left edge it is very large
                if at < self.from.width {
                    let pixel = &row[at * vectors + channel..][..V];
                    for v in 0..V {
                        sums[v] = simd.mul_add_f32s(pixel[v], taps[channel + v], sums[v]);
                    }
                }
            }
        }
        self.finish(sums, channel, &mut line[x * vectors..]);
    }

    /// The sums of a position with bias and activation.
    #[inline(always)]
    fn finish<const V: usize>(&self, sums: [S::f32s; V], channel: usize, position: &mut [S::f32s]) {
        let values = position[channel..][..V].iter_mut().zip(&self.bias[channel..]);
        for ((value, &bias), sum) in values.zip(sums) {
            *value = activate(self.simd, self.simd.add_f32s(sum, bias), self.activation);
        }
    }
}
