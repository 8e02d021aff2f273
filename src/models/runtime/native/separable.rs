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
        let Self { layer, rows, top, first, output, bias, activation } = self;
        let Depthwise { geometry, weight, from, to } = layer;
        let bias = S::as_simd_f32s(bias).0;
        let vectors = bias.len();
        let filter = Filter::<S> {
            simd,
            geometry,
            vectors,
            weight: S::as_simd_f32s(weight.as_slice().expect("row-major")).0,
            bias,
            activation,
            top,
        };
        let rows = S::as_simd_f32s(rows).0;
        for (row, line) in output.chunks_exact_mut(to.width * to.stored).enumerate() {
            let y = first + row;
            let line = S::as_mut_simd_f32s(line).0;
            // Some channels of a whole line at a time: what neighbours share is still in the first-level cache, and their
            // sums and taps in registers.
            let mut channel = 0;
            while channel + 4 <= vectors {
                match S::REGISTER_COUNT >= 32 {
                    true => filter.line::<4, 4>(*from, rows, *to, y, channel, line),
                    false => filter.line::<4, 2>(*from, rows, *to, y, channel, line),
                }
                channel += 4;
            }
            while channel + 2 <= vectors {
                filter.line::<2, 4>(*from, rows, *to, y, channel, line);
                channel += 2;
            }
            while channel < vectors {
                filter.line::<1, 4>(*from, rows, *to, y, channel, line);
                channel += 1;
            }
        }
    }
}

/// Filters a channel, as vectors.
struct Filter<'a, S: Simd> {
    simd: S,
    geometry: &'a Geometry,
    /// Vectors of a position.
    vectors: usize,
    /// (taps, vectors).
    weight: &'a [S::f32s],
    bias: &'a [S::f32s],
    activation: Activation,
    /// The row of the picture that the rows here begin with.
    top: usize,
}

/// Taps of one axis that lie within the picture, and where the first of all would lie.
#[derive(Clone, Copy)]
struct Reach {
    begin: usize,
    end: usize,
    corner: isize,
}

impl<S: Simd> Filter<'_, S> {
    fn reach(&self, axis: usize, at: usize, length: usize) -> Reach {
        let taps = self.geometry.kernel[axis];
        let corner = (at * self.geometry.stride[axis]) as isize - self.geometry.before[axis] as isize;
        let begin = (-corner).clamp(0, taps as isize) as usize;
        Reach { begin, end: (length as isize - corner).clamp(begin as isize, taps as isize) as usize, corner }
    }

    /// `V` vectors of channels, from `channel` on, of the line `y` of the output: `X` positions at a time where all their taps lie
    /// within the picture, else one.
    #[inline(always)]
    fn line<const V: usize, const X: usize>(
        &self,
        from: Shape,
        rows: &[S::f32s],
        to: Shape,
        y: usize,
        channel: usize,
        line: &mut [S::f32s],
    ) {
        let down = self.reach(1, y, from.height);
        let whole = |reach: Reach| reach.end - reach.begin == self.geometry.kernel[2];
        let mut x = 0;
        while x < to.width {
            let across = self.reach(2, x, from.width);
            if x + X <= to.width && whole(across) && whole(self.reach(2, x + X - 1, from.width)) {
                self.positions::<V, X>(from.width, rows, down, across, channel, &mut line[x * self.vectors..]);
                x += X;
            } else {
                self.positions::<V, 1>(from.width, rows, down, across, channel, &mut line[x * self.vectors..]);
                x += 1;
            }
        }
    }

    #[inline(always)]
    fn positions<const V: usize, const X: usize>(
        &self,
        width: usize,
        rows: &[S::f32s],
        down: Reach,
        across: Reach,
        channel: usize,
        output: &mut [S::f32s],
    ) {
        let (simd, vectors, [_, _, wide]) = (self.simd, self.vectors, self.geometry.kernel);
        let step = self.geometry.stride[2] * vectors;
        let mut sums = [[simd.splat_f32s(0.0); V]; X];
        for dy in down.begin..down.end {
            let row = (down.corner + dy as isize) as usize - self.top;
            let row = &rows[row * width * vectors..][..width * vectors];
            for dx in across.begin..across.end {
                let taps = &self.weight[(dy * wide + dx) * vectors + channel..][..V];
                let first = (across.corner + dx as isize) as usize * vectors + channel;
                for (i, sums) in sums.iter_mut().enumerate() {
                    let pixel = &row[first + i * step..][..V];
                    for v in 0..V {
                        sums[v] = simd.mul_add_f32s(pixel[v], taps[v], sums[v]);
                    }
                }
            }
        }
        for (sums, position) in sums.into_iter().zip(output.chunks_mut(vectors)) {
            let values = position[channel..][..V].iter_mut().zip(&self.bias[channel..]);
            for ((value, &bias), sum) in values.zip(sums) {
                *value = activate(simd, simd.add_f32s(sum, bias), self.activation);
            }
        }
    }
}
