//! Convolutions: the direct ways, and which way suits.

use ndarray::{Array2, ArrayView3, s};
use pulp::{Arch, Simd, WithSimd};

use super::layers::{Activation, Shape, filled, finish};
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
        let [_, tall, wide] = geometry.kernel;
        let weight = S::as_simd_f32s(weight.as_slice().expect("row-major")).0;
        let input = S::as_simd_f32s(input).0;
        let vectors = S::as_simd_f32s(bias).0.len();
        let reach = |i: usize, at: usize, length: usize, taps: usize| {
            let corner = (at * geometry.stride[i]) as isize - geometry.before[i] as isize;
            let begin = (-corner).clamp(0, taps as isize) as usize;
            let end = (length as isize - corner).clamp(begin as isize, taps as isize) as usize;
            (begin, end, corner)
        };
        let zero = simd.splat_f32s(0.0);
        let line = to.width * to.stored;
        for (row, line) in output.chunks_exact_mut(line).enumerate() {
            let (frame, y) = (row / to.height, row % to.height);
            let (top, bottom, above) = reach(1, y, from.height, tall);
            for (x, position) in S::as_mut_simd_f32s(line).0.chunks_exact_mut(vectors).enumerate() {
                let (begin, end, left) = reach(2, x, from.width, wide);
                let source = |dy: usize| (frame * from.height + (above + dy as isize) as usize) * from.width;
                // Four vectors of channels at a time: their sums stay in registers, and none waits for another.
                let mut blocks = position.chunks_exact_mut(4);
                let mut channel = 0;
                for block in &mut blocks {
                    let mut sums = [zero; 4];
                    for dy in top..bottom {
                        for dx in begin..end {
                            let pixel = &input[(source(dy) + (left + dx as isize) as usize) * vectors + channel..][..4];
                            let taps = &weight[(dy * wide + dx) * vectors + channel..][..4];
                            for v in 0..4 {
                                sums[v] = simd.mul_add_f32s(pixel[v], taps[v], sums[v]);
                            }
                        }
                    }
                    block.copy_from_slice(&sums);
                    channel += 4;
                }
                for sum in blocks.into_remainder() {
                    *sum = zero;
                    for dy in top..bottom {
                        for dx in begin..end {
                            let pixel = input[(source(dy) + (left + dx as isize) as usize) * vectors + channel];
                            *sum = simd.mul_add_f32s(pixel, weight[(dy * wide + dx) * vectors + channel], *sum);
                        }
                    }
                    channel += 1;
                }
            }
            finish(simd, line, bias, activation);
        }
    }
}
