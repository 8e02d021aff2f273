//! The matrix product that nearly all the time goes into: activations (rows, channels in) times weights that are laid out
//! for it once, with bias and activation applied while the sums are still in registers.
//!
//! The way of Goto & van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008), less its first step:
//! weights do not change, so nothing is packed when it runs.

use ndarray::ArrayView2;
use pulp::{Arch, Simd, WithSimd};

use super::layers::{Activation, activate};

/// Numbers of the activations worked on at a time: they should stay in the second-level cache.
const BLOCK: usize = 1 << 18;

/// Weights (channels in, channels out) in panels of one to three vectors of outputs, each panel input after input.
#[derive(Debug)]
pub(super) struct Packed {
    inputs: usize,
    outputs: usize,
    values: Vec<f32>,
}

/// Vectors in the panels that `vectors` are cut into: threes, and twos at the end rather than a one.
fn panels(vectors: usize) -> impl Iterator<Item = usize> {
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

impl Packed {
    /// Lays out weights whose outputs are a multiple of 16.
    pub fn new(weight: ArrayView2<'_, f32>) -> Self {
        struct Lanes;
        impl WithSimd for Lanes {
            type Output = usize;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> usize {
                S::F32_LANES
            }
        }
        let lanes = Arch::new().dispatch(Lanes);
        let (inputs, outputs) = weight.dim();
        let mut values = Vec::with_capacity(inputs * outputs);
        let mut first = 0;
        for width in panels(outputs / lanes) {
            let columns = first..first + width * lanes;
            for row in weight.rows() {
                match row.to_slice() {
                    Some(row) => values.extend_from_slice(&row[columns.clone()]),
                    None => values.extend(columns.clone().map(|column| row[column])),
                }
            }
            first = columns.end;
        }
        Self { inputs, outputs, values }
    }

    /// (channels in, channels out).
    pub fn dim(&self) -> (usize, usize) {
        (self.inputs, self.outputs)
    }

    /// `output` (rows, channels out) = activation(`input` (rows, channels in) · weights + `bias`).
    pub fn multiply(&self, input: &[f32], output: &mut [f32], bias: &[f32], activation: Activation) {
        Arch::new().dispatch(Multiply { weight: self, input, output, bias, activation });
    }
}

struct Multiply<'a> {
    weight: &'a Packed,
    input: &'a [f32],
    output: &'a mut [f32],
    bias: &'a [f32],
    activation: Activation,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weight, input, output, bias, activation } = self;
        let &Packed { inputs, outputs, ref values } = weight;
        let bias = S::as_simd_f32s(bias).0;
        // Whole numbers of every height of tile.
        let together = (BLOCK / inputs).clamp(48, 480) / 24 * 24;
        for (input, output) in input.chunks(together * inputs).zip(output.chunks_mut(together * outputs)) {
            let mut first = 0;
            let mut panels_left = &values[..];
            for width in panels(outputs / S::F32_LANES) {
                let (panel, rest) = panels_left.split_at(inputs * width * S::F32_LANES);
                panels_left = rest;
                let place = Place { inputs, outputs, first: first * S::F32_LANES, activation };
                let panel = S::as_simd_f32s(panel).0;
                let bias = &bias[first..first + width];
                // Sums, a row of weights and an activation fill the registers.
                match (width, S::REGISTER_COUNT >= 32) {
                    (3, true) => rows::<S, 3, 8>(simd, input, output, panel, bias, place),
                    (3, false) => rows::<S, 3, 4>(simd, input, output, panel, bias, place),
                    (2, true) => rows::<S, 2, 12>(simd, input, output, panel, bias, place),
                    (2, false) => rows::<S, 2, 6>(simd, input, output, panel, bias, place),
                    _ => rows::<S, 1, 12>(simd, input, output, panel, bias, place),
                }
                first += width;
            }
        }
    }
}

/// Where a panel's outputs belong.
#[derive(Clone, Copy)]
struct Place {
    inputs: usize,
    outputs: usize,
    first: usize,
    activation: Activation,
}

/// All rows times one panel, `R` rows at a time, then four, then one.
#[inline(always)]
fn rows<S: Simd, const V: usize, const R: usize>(
    simd: S,
    input: &[f32],
    output: &mut [f32],
    panel: &[S::f32s],
    bias: &[S::f32s],
    place: Place,
) {
    let Place { inputs, outputs, .. } = place;
    let count = output.len() / outputs;
    let mut row = 0;
    while row + R <= count {
        tile::<S, V, R>(simd, &input[row * inputs..], &mut output[row * outputs..], panel, bias, place);
        row += R;
    }
    while row + 4 <= count {
        tile::<S, V, 4>(simd, &input[row * inputs..], &mut output[row * outputs..], panel, bias, place);
        row += 4;
    }
    while row < count {
        tile::<S, V, 1>(simd, &input[row * inputs..], &mut output[row * outputs..], panel, bias, place);
        row += 1;
    }
}

/// `R` rows times one panel of `V` vectors.
#[inline(always)]
fn tile<S: Simd, const V: usize, const R: usize>(
    simd: S,
    input: &[f32],
    output: &mut [f32],
    panel: &[S::f32s],
    bias: &[S::f32s],
    place: Place,
) {
    let Place { inputs, outputs, first, activation } = place;
    let mut lines: [&[f32]; R] = [&[]; R];
    for (r, line) in lines.iter_mut().enumerate() {
        *line = &input[r * inputs..][..inputs];
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for (k, weights) in panel.chunks_exact(V).enumerate().take(inputs) {
        for r in 0..R {
            let x = simd.splat_f32s(lines[r][k]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_f32s(x, weights[v], sums[r][v]);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let to = S::as_mut_simd_f32s(&mut output[r * outputs + first..][..V * S::F32_LANES]).0;
        for v in 0..V {
            to[v] = activate(simd, simd.add_f32s(sums[v], bias[v]), activation);
        }
    }
}
