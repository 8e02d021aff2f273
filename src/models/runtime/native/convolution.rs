//! Convolutions: the direct ways, and which way suits.

use ndarray::{Array2, ArrayView3, s};
use pulp::{Arch, Simd, WithSimd};

use super::layers::{Activation, Shape, activate, filled};
use super::weights::Packed;
use super::winograd::{End, Factorised, Scratch, Spatial, Temporal};

/// Positions whose inputs are gathered at a time.
const ROWS: usize = 240;

/// Along depth, height and width.
pub(super) type Axes = [usize; 3];

/// Where a convolution looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Taps.
    pub kernel: Axes,
    /// Steps.
    pub stride: Axes,
    /// Zeros before.
    pub before: Axes,
    /// Zeros after.
    pub after: Axes,
}

impl Geometry {
    /// Shape of the output; `None` where the input is smaller than the kernel.
    pub fn output(&self, input: Shape, channels: usize) -> Option<Shape> {
        let axis = |i: usize, length: usize| -> Option<usize> {
            Some((length + self.before[i] + self.after[i]).checked_sub(self.kernel[i])? / self.stride[i] + 1)
        };
        let (depth, height, width) = (axis(0, input.depth)?, axis(1, input.height)?, axis(2, input.width)?);
        Some(Shape { depth, height, width, ..input }.with_channels(channels))
    }

    fn is(&self, kernel: Axes, stride: usize, padding: Axes) -> bool {
        self.kernel == kernel && self.stride == [stride; 3] && self.before == padding && self.after == padding
    }
}

/// The weights of a convolution, prepared for the way it is computed.
#[derive(Debug)]
pub(super) enum Way {
    /// One tap: a product over channels, (channels in, channels out).
    Pointwise(Packed),
    /// Minimal filtering over height and width.
    Spatial(Spatial),
    /// Minimal filtering over depth.
    Temporal(Temporal),
    /// Minimal filtering over height and width, then over depth.
    Factorised(Box<Factorised>),
    /// The inputs of each position side by side, times (taps · channels in, channels out).
    Gathered(Geometry, Packed),
    /// A filter a channel, (taps, channels).
    Depthwise(Geometry, Array2<f32>),
}

/// A convolution with what follows it.
#[derive(Debug)]
pub(super) struct Convolution {
    /// How.
    pub way: Way,
    /// (stored channels out).
    pub bias: Vec<f32>,
    /// Whether it is added to what its output holds already.
    pub adds: bool,
    /// What follows.
    pub activation: Activation,
}

impl Way {
    /// The way that suits a dense convolution of `weight`, (channels out, channels in, taps), to `output` from `input`.
    pub fn dense(geometry: Geometry, weight: &[f32], input: Shape, output: Shape) -> Self {
        let taps: usize = geometry.kernel.iter().product();
        let weight = ArrayView3::from_shape((output.channels, input.channels, taps), weight).expect("it has its shape");
        let weight = weight.permuted_axes([2, 1, 0]);
        let stored = (input.stored, output.stored);
        let whole = input.stored == filled(input.channels);
        // Beyond some weights a position the transformed ones cost more to read than they save.
        let tiles = input.frames() * input.height.div_ceil(4) * input.width.div_ceil(4);
        if geometry.is([1, 1, 1], 1, [0; 3]) {
            Way::Pointwise(Packed::whole(weight, stored))
        } else if geometry.is([1, 3, 3], 1, [0, 1, 1]) && whole && tiles >= 16 {
            Way::Spatial(Spatial::new(weight, stored, tiles))
        } else if geometry.is([3, 1, 1], 1, [1, 0, 0]) && whole && input.depth > 1 {
            Way::Temporal(Temporal::new(weight, stored, input.depth))
        } else {
            Way::Gathered(geometry, Packed::whole(weight, stored))
        }
    }

    /// One filter a channel: `weight` (channels, 1, taps).
    pub fn depthwise(geometry: Geometry, weight: &[f32], shape: Shape) -> Self {
        let taps: usize = geometry.kernel.iter().product();
        let mut matrix = Array2::zeros((taps, shape.stored));
        for ((t, channel), value) in matrix.slice_mut(s![.., ..shape.channels]).indexed_iter_mut() {
            *value = weight[channel * taps + t];
        }
        Way::Depthwise(geometry, matrix)
    }
}

impl Convolution {
    /// Whether `next` can be computed together with this, whose output only it reads.
    pub fn joins(&self, next: &Convolution) -> bool {
        matches!((&self.way, &next.way), (Way::Spatial(_), Way::Temporal(_)))
    }

    /// Whether it can be [added](Convolution::adds) to what its output holds.
    pub fn can_add(&self) -> bool {
        self.activation == Activation::None && matches!(self.way, Way::Temporal(_) | Way::Factorised(_))
    }

    /// This and `next` as one, where they [join](Convolution::joins).
    pub fn join(self, next: Convolution) -> Option<Convolution> {
        let (Way::Spatial(spatial), Way::Temporal(temporal)) = (self.way, next.way) else { return None };
        let layers = Factorised { spatial, bias: self.bias, activation: self.activation, temporal };
        Some(Convolution { way: Way::Factorised(Box::new(layers)), ..next })
    }

    /// `output` of `input`, of these shapes.
    pub fn run(
        &self,
        from: Shape,
        input: &[f32],
        to: Shape,
        output: &mut [f32],
        scratch: &mut Scratch,
        patches: &mut Vec<f32>,
    ) {
        let (bias, activation) = (&self.bias[..], self.activation);
        let end = End { bias, adds: self.adds, activation };
        match &self.way {
            Way::Spatial(layer) => layer.run(from, input, output, end, scratch),
            Way::Temporal(layer) => layer.run(from, input, output, end, scratch),
            Way::Factorised(layers) => layers.run(from, input, output, end, scratch),
            Way::Pointwise(weight) => weight.multiply(input, output, bias, activation),
            Way::Gathered(geometry, weight) => {
                let (taken, _) = weight.dim();
                patches.resize(patches.len().max(ROWS * taken), 0.0);
                for (block, output) in output.chunks_mut(ROWS * to.stored).enumerate() {
                    let rows = output.len() / to.stored;
                    let patches = &mut patches[..rows * taken];
                    for (i, patch) in patches.chunks_exact_mut(taken).enumerate() {
                        gather(geometry, from, input, to, block * ROWS + i, patch);
                    }
                    weight.multiply(patches, output, bias, activation);
                }
            }
            Way::Depthwise(geometry, weight) => {
                Arch::new().dispatch(Depthwise { geometry, weight, from, input, to, output, bias, activation });
            }
        }
    }
}

/// What the output at `position` looks at, tap after tap, zeros beyond the edges.
fn gather(geometry: &Geometry, from: Shape, input: &[f32], to: Shape, position: usize, patch: &mut [f32]) {
    let (x, rest) = (position % to.width, position / to.width);
    let (y, rest) = (rest % to.height, rest / to.height);
    let (t, item) = (rest % to.depth, rest / to.depth);
    let corner = |i: usize, at: usize| (at * geometry.stride[i]) as isize - geometry.before[i] as isize;
    let (left, line) = (corner(2, x), geometry.kernel[2] * from.stored);
    // The part of a line of taps that lies within the picture.
    let begin = (-left).clamp(0, geometry.kernel[2] as isize) as usize;
    let end = (from.width as isize - left).clamp(begin as isize, geometry.kernel[2] as isize) as usize;
    let mut lines = patch.chunks_exact_mut(line);
    for dt in 0..geometry.kernel[0] as isize {
        for dy in 0..geometry.kernel[1] as isize {
            let taps = lines.next().expect("one line a row of taps");
            let (t, y) = (corner(0, t) + dt, corner(1, y) + dy);
            if t < 0 || y < 0 || t >= from.depth as isize || y >= from.height as isize {
                taps.fill(0.0);
                continue;
            }
            let row = ((item * from.depth + t as usize) * from.height + y as usize) * from.width;
            let source = (row as isize + left + begin as isize) as usize * from.stored;
            taps[..begin * from.stored].fill(0.0);
            taps[begin * from.stored..end * from.stored]
                .copy_from_slice(&input[source..][..(end - begin) * from.stored]);
            taps[end * from.stored..].fill(0.0);
        }
    }
}

struct Depthwise<'a> {
    geometry: &'a Geometry,
    weight: &'a Array2<f32>,
    from: Shape,
    input: &'a [f32],
    to: Shape,
    output: &'a mut [f32],
    bias: &'a [f32],
    activation: Activation,
}

impl WithSimd for Depthwise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { geometry, weight, from, input, to, output, bias, activation } = self;
        let bias = S::as_simd_f32s(bias).0;
        let vectors = bias.len();
        let filter = Filter::<S> {
            simd,
            geometry,
            vectors,
            weight: S::as_simd_f32s(weight.as_slice().expect("row-major")).0,
            bias,
            activation,
        };
        let input = S::as_simd_f32s(input).0;
        let picture = from.height * from.width * vectors;
        for (row, line) in output.chunks_exact_mut(to.width * to.stored).enumerate() {
            let (frame, y) = (row / to.height, row % to.height);
            let picture = &input[frame * picture..][..picture];
            let line = S::as_mut_simd_f32s(line).0;
            // Some channels of a whole line at a time: what neighbours share is still in the first-level cache, and their
            // sums and taps in registers.
            let mut channel = 0;
            while channel + 4 <= vectors {
                match S::REGISTER_COUNT >= 32 {
                    true => filter.line::<4, 4>(from, picture, to, y, channel, line),
                    false => filter.line::<4, 2>(from, picture, to, y, channel, line),
                }
                channel += 4;
            }
            while channel + 2 <= vectors {
                filter.line::<2, 4>(from, picture, to, y, channel, line);
                channel += 2;
            }
            while channel < vectors {
                filter.line::<1, 4>(from, picture, to, y, channel, line);
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

    /// `V` vectors of channels, from `channel` on, of the line `y`: `X` positions at a time where all their taps lie
    /// within the picture, else one.
    #[inline(always)]
    fn line<const V: usize, const X: usize>(
        &self,
        from: Shape,
        picture: &[S::f32s],
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
                self.positions::<V, X>(from.width, picture, down, across, channel, &mut line[x * self.vectors..]);
                x += X;
            } else {
                self.positions::<V, 1>(from.width, picture, down, across, channel, &mut line[x * self.vectors..]);
                x += 1;
            }
        }
    }

    #[inline(always)]
    fn positions<const V: usize, const X: usize>(
        &self,
        width: usize,
        picture: &[S::f32s],
        down: Reach,
        across: Reach,
        channel: usize,
        output: &mut [S::f32s],
    ) {
        let (simd, vectors, [_, _, wide]) = (self.simd, self.vectors, self.geometry.kernel);
        let step = self.geometry.stride[2] * vectors;
        let mut sums = [[simd.splat_f32s(0.0); V]; X];
        for dy in down.begin..down.end {
            let row = &picture[(down.corner + dy as isize) as usize * width * vectors..][..width * vectors];
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
