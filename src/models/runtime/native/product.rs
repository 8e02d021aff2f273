//! The matrix product that nearly all the time goes into: activations (rows, channels in) times weights that are laid out
//! for it once, with bias and activation applied while the sums are still in registers.
//!
//! The way of Goto & van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008), less its first step:
//! weights do not change, so nothing is packed when it runs.

use pulp::{Arch, Simd, WithSimd};

use super::layers::{Activation, activate};
use super::tiles::{self, Rows};
use super::weights::{Layout, Packed};

/// Numbers of the activations worked on at a time: they should stay in the second-level cache.
const BLOCK: usize = 1 << 18;

impl Packed {
    /// `output` (rows, channels out) = activation(`input` (rows, channels in) · the only matrix + `bias`). `rows` is room.
    pub fn multiply(&self, input: &[f32], output: &mut [f32], bias: &[f32], activation: Activation, rows: &mut Rows) {
        self.product(0, input, output, bias, activation, rows);
    }

    /// Every matrix times its `count` rows: `input` (matrices, rows, channels in), `output` (matrices, rows, channels out).
    /// `zeros` are as many as there are outputs.
    pub fn multiply_each(&self, count: usize, input: &[f32], output: &mut [f32], zeros: &[f32], rows: &mut Rows) {
        let (inputs, outputs) = self.dim();
        let parts = input.chunks_exact(count * inputs).zip(output.chunks_exact_mut(count * outputs));
        for (matrix, (input, output)) in (0..self.matrices()).zip(parts) {
            self.product(matrix, input, output, &zeros[..outputs], Activation::None, rows);
        }
    }

    fn product(
        &self,
        matrix: usize,
        input: &[f32],
        output: &mut [f32],
        bias: &[f32],
        activation: Activation,
        rows: &mut Rows,
    ) {
        match self.layout() {
            Layout::Vectors(values) => {
                Arch::new().dispatch(Multiply { weight: self, values, matrix, input, output, bias, activation });
            }
            Layout::Tiles(digits, scales) => {
                let (inputs, outputs) = self.dim();
                let product = tiles::Product { inputs, input, outputs, output, bias, activation };
                product.run(self.tiles(matrix, digits), &scales[matrix * outputs..][..outputs], rows);
            }
        }
    }
}

struct Multiply<'a> {
    weight: &'a Packed,
    values: &'a [f32],
    matrix: usize,
    input: &'a [f32],
    output: &'a mut [f32],
    bias: &'a [f32],
    activation: Activation,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weight, values, matrix, input, output, bias, activation } = self;
        let (inputs, outputs) = weight.dim();
        let bias = S::as_simd_f32s(bias).0;
        // Whole numbers of every height of tile.
        let together = (BLOCK / inputs).clamp(48, 480) / 24 * 24;
        for (input, output) in input.chunks(together * inputs).zip(output.chunks_mut(together * outputs)) {
            let mut first = 0;
            for (width, panel) in weight.vectors(matrix, S::F32_LANES, values) {
                let place = Place { inputs, used: weight.used(), outputs, first: first * S::F32_LANES, activation };
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
    /// Inputs that are not only there to fill up.
    used: usize,
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
    let Place { inputs, used, outputs, first, activation } = place;
    let mut lines: [&[f32]; R] = [&[]; R];
    for (r, line) in lines.iter_mut().enumerate() {
        *line = &input[r * inputs..][..used];
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for (k, weights) in panel.chunks_exact(V).enumerate().take(used) {
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
