//! Convolutions: the direct ways, and which way suits.

use std::ops::Range;

use ndarray::ArrayView3;

use super::layers::{Activation, Shape, filled};
use super::separable::{Pointwise, Separable};
use super::team::Team;
use super::tiles;
use super::weights::{Packed, Unit};
use super::winograd::{End, Factorized, Spatial, Temporal};

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

    /// The rows of a picture of this height that some rows of the output look at.
    pub fn rows(&self, output: &Range<usize>, height: usize) -> Range<usize> {
        let first = (output.start * self.stride[1]).saturating_sub(self.before[1]);
        let last = ((output.end - 1) * self.stride[1] + self.kernel[1]).saturating_sub(self.before[1]);
        first.min(height)..last.min(height)
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
    Factorized(Box<Factorized>),
    /// The inputs of each position side by side, times (taps · channels in, channels out).
    Gathered(Geometry, Packed),
    /// A filter a channel, and the pointwise layers around it.
    Separable(Box<Separable>),
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
    pub fn dense(geometry: Geometry, weight: &[f32], input: Shape, output: Shape, unit: Unit) -> Self {
        let taps: usize = geometry.kernel.iter().product();
        let weight = ArrayView3::from_shape((output.channels, input.channels, taps), weight).expect("it has its shape");
        let weight = weight.permuted_axes([2, 1, 0]);
        let stored = (input.stored, output.stored);
        let whole = input.stored == filled(input.channels);
        // Beyond some weights a position the transformed ones cost more to read than they save.
        let tiles = input.frames() * input.height.div_ceil(4) * input.width.div_ceil(4);
        if geometry.is([1, 1, 1], 1, [0; 3]) {
            Way::Pointwise(Packed::whole(weight, stored, unit))
        } else if geometry.is([1, 3, 3], 1, [0, 1, 1]) && whole && tiles >= 16 {
            Way::Spatial(Spatial::new(weight, stored, tiles, unit))
        } else if geometry.is([3, 1, 1], 1, [1, 0, 0]) && whole && input.depth > 1 {
            Way::Temporal(Temporal::new(weight, stored, input.depth, unit))
        } else {
            Way::Gathered(geometry, Packed::whole(weight, stored, unit))
        }
    }
}

impl Convolution {
    /// Whether `next` can be computed together with this, whose output only it reads.
    pub fn joins(&self, next: &Convolution) -> bool {
        match (&self.way, &next.way) {
            (Way::Spatial(_), Way::Temporal(_)) | (Way::Pointwise(_), Way::Separable(_)) => true,
            (Way::Separable(layers), Way::Pointwise(_)) => layers.is_open(),
            _ => false,
        }
    }

    /// Whether it can be [added](Convolution::adds) to what its output holds.
    pub fn can_add(&self) -> bool {
        self.activation == Activation::None
            && match &self.way {
                Way::Temporal(_) | Way::Factorized(_) => true,
                Way::Separable(layers) => !layers.is_open(),
                _ => false,
            }
    }

    /// This and `next` as one, where they [join](Convolution::joins).
    pub fn join(self, next: Convolution) -> Option<Convolution> {
        let Convolution { bias, activation, .. } = self;
        let way = match (self.way, next.way) {
            (Way::Spatial(spatial), Way::Temporal(temporal)) => {
                Way::Factorized(Box::new(Factorized { spatial, bias, activation, temporal }))
            }
            (Way::Pointwise(weight), Way::Separable(layers)) => {
                Way::Separable(Box::new(layers.after(Pointwise { weight, bias, activation })))
            }
            (Way::Separable(layers), Way::Pointwise(weight)) => {
                Way::Separable(Box::new(layers.before(bias, activation, weight)))
            }
            _ => return None,
        };
        Some(Convolution { way, ..next })
    }

    /// `output` of `input`, of these shapes; where it can, by the whole team. The result does not depend on how many
    /// they are.
    pub fn run(&self, from: Shape, input: &[f32], to: Shape, output: &mut [f32], team: &mut Team<'_>) {
        let (bias, activation) = (&self.bias[..], self.activation);
        let end = End { bias, adds: self.adds, activation };
        match &self.way {
            Way::Spatial(layer) => layer.run(from, input, output, end, team.scratch()),
            Way::Temporal(layer) => layer.run(from, input, output, end, team.scratch()),
            Way::Factorized(layers) => layers.run(from, input, output, end, team.scratch()),
            Way::Pointwise(weight) => {
                let (taken, _) = weight.dim();
                // Whole tiles.
                let rows = (output.len() / to.stored).div_ceil(team.scratches.len()).next_multiple_of(tiles::SIDE);
                let shares = input.chunks(rows * taken).zip(output.chunks_mut(rows * to.stored));
                team.share(shares, |_, (input, output), scratch| {
                    weight.multiply(input, output, bias, activation, &mut scratch.digits);
                });
            }
            Way::Gathered(geometry, weight) => {
                let (taken, _) = weight.dim();
                let blocks = (output.len() / to.stored).div_ceil(ROWS).div_ceil(team.scratches.len());
                team.share(output.chunks_mut(blocks * ROWS * to.stored), |job, output, scratch| {
                    scratch.input.at_least(ROWS * taken);
                    for (block, output) in output.chunks_mut(ROWS * to.stored).enumerate() {
                        let rows = output.len() / to.stored;
                        let patches = &mut scratch.input[..rows * taken];
                        gather(geometry, from, input, to, (job * blocks + block) * ROWS, patches);
                        weight.multiply(patches, output, bias, activation, &mut scratch.digits);
                    }
                });
            }
            Way::Separable(layers) => layers.run(input, output, end, team),
        }
    }
}

/// What the outputs look at, from the position `first` on, each tap after tap, zeros beyond the edges.
fn gather(geometry: &Geometry, from: Shape, input: &[f32], to: Shape, first: usize, patches: &mut [f32]) {
    /// Numbers that are copied at a time where a line has no more: what is too much is overwritten by the next.
    const SHORT: usize = 16;
    let [deep, high, wide] = geometry.kernel;
    let corner = |i: usize, at: usize| (at * geometry.stride[i]) as isize - geometry.before[i] as isize;
    let (mut x, rest) = (first % to.width, first / to.width);
    let (mut y, rest) = (rest % to.height, rest / to.height);
    let (mut t, mut item) = (rest % to.depth, rest / to.depth);
    let line = wide * from.stored;
    for patch in (0..patches.len()).step_by(deep * high * line) {
        let (front, top, left) = (corner(0, t), corner(1, y), corner(2, x));
        // The part of a line of taps that lies within the picture.
        let begin = (-left).clamp(0, wide as isize) as usize;
        let end = (from.width as isize - left).clamp(begin as isize, wide as isize) as usize;
        for tap in 0..deep * high {
            let (t, y) = (front + (tap / high) as isize, top + (tap % high) as isize);
            let taps = &mut patches[patch + tap * line..];
            if t < 0 || y < 0 || t >= from.depth as isize || y >= from.height as isize || begin == end {
                taps[..line].fill(0.0);
                continue;
            }
            let row = ((item * from.depth + t as usize) * from.height + y as usize) * from.width;
            let source = &input[(row as isize + left + begin as isize) as usize * from.stored..];
            match (taps.first_chunk_mut::<SHORT>(), source.first_chunk::<SHORT>()) {
                (Some(taps), Some(source)) if line <= SHORT && end - begin == wide => *taps = *source,
                _ => {
                    taps[..begin * from.stored].fill(0.0);
                    taps[begin * from.stored..end * from.stored]
                        .copy_from_slice(&source[..(end - begin) * from.stored]);
                    taps[end * from.stored..line].fill(0.0);
                }
            }
        }
        x += 1;
        if x == to.width {
            (x, y) = (0, y + 1);
        }
        if y == to.height {
            (y, t) = (0, t + 1);
        }
        if t == to.depth {
            (t, item) = (0, item + 1);
        }
    }
}
