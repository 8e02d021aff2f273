//! Matrix product of bfloat16 values (the upper 16 bits of an f32) with sums in f32.
//!
//! Processors with AMX, and AMD's with AVX512-BF16, multiply pairs of inputs. Weights are packed once in panels of 16 outputs in which
//! the weights of two consecutive inputs of an output are adjacent; activations are rounded row by row. Other processors multiply the
//! rounded values as f32: the products are exact there too, and only the order and the rounding of the sums differ.

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;

use pulp::{Simd, WithSimd};

use super::activation::{Activation, ApplyActivation};
use super::aligned::AlignedBuffer;
use super::isa::{Isa, PerIsa};
use super::kernel::PANEL;

/// Inputs are padded with zeros to a multiple of this: the inputs that one product of AMX tiles sums over.
const BLOCK: usize = 32;

/// Pairs of rounded activations per block, chosen so that a block stays in the L2 cache.
const L2_PAIRS: usize = 1 << 16;

/// Rows per block are a multiple of this, which every kernel's number of rows divides.
const ROW_MULTIPLE: usize = 96;

/// Instructions that multiply pairs of bfloat16 values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Plain Rust, for tests.
    #[cfg(test)]
    Portable,
    /// VDPBF16PS on 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// TDPBF16PS on tiles.
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
    Amx,
}

impl Kernel {
    /// Returns the fastest kernel of an instruction set that the processor supports, that is faster than f32 there and that computes
    /// correctly. `None`: products are computed in f32.
    pub fn of(isa: Isa) -> Option<Self> {
        static SELECTED: PerIsa<Option<Kernel>> = PerIsa::new();
        *SELECTED.get_or_init(isa, || {
            let mut fastest_first = Self::candidates(isa).iter().copied();
            fastest_first.find(|kernel| kernel.is_available() && kernel.outpaces_f32() && kernel.is_correct())
        })
    }

    /// Returns the kernels of an instruction set, the fastest first.
    fn candidates(isa: Isa) -> &'static [Self] {
        match isa {
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Isa::Amx => &[Kernel::Amx, Kernel::Avx512],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &[Kernel::Avx512],
            _ => &[],
        }
    }

    fn is_available(self) -> bool {
        match self {
            #[cfg(test)]
            Kernel::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Kernel::Amx => amx::is_available(),
        }
    }

    /// Returns `false` if products in f32 are faster on this processor. On Intel's, VDPBF16PS has half the throughput of VFMADD231PS
    /// (Emerald Rapids: 44 and 89 billion multiply-accumulates per second on 512-bit vectors). Others report twice the throughput for
    /// AMD's since Zen 4.
    fn outpaces_f32(self) -> bool {
        match self {
            #[cfg(test)]
            Kernel::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => !avx512::is_intel(),
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Kernel::Amx => true,
        }
    }

    /// Compares a small product with one in f64. Few machines have every instruction set, so a mistake in a kernel might not be seen
    /// in tests; here it costs speed only.
    fn is_correct(self) -> bool {
        // Blocks of every height of the kernels.
        const ROWS: usize = 55;
        const INPUTS: usize = 96;
        const OUTPUTS: usize = 3 * PANEL;
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Exact in bfloat16.
            ((state >> 24) as i32 - 128) as f32 / 128.0
        };
        let input: Vec<f32> = (0..ROWS * INPUTS).map(|_| random()).collect();
        let weight: Vec<f32> = (0..INPUTS * OUTPUTS).map(|_| random()).collect();
        let bias: Vec<f32> = (0..OUTPUTS).map(|_| random()).collect();
        let mut panels = vec![0; OUTPUTS / PANEL * panel_len(INPUTS)];
        for (index, panel) in panels.chunks_exact_mut(panel_len(INPUTS)).enumerate() {
            let columns: Vec<f32> =
                weight.chunks_exact(OUTPUTS).flat_map(|row| row[index * PANEL..][..PANEL].iter().copied()).collect();
            pack_panel(&columns, panel);
        }
        let (mut output, mut workspace) = (vec![0.0; ROWS * OUTPUTS], AlignedBuffer::default());
        let panels = Panels { pairs: &panels, stride: panel_len(INPUTS) };
        let product =
            Matmul { inputs: INPUTS, input: &input, output: &mut output, bias: &bias, activation: Activation::Relu };
        product.run(self, Isa::Scalar, panels, &mut workspace);
        output.iter().enumerate().all(|(index, &found)| {
            let (row, column) = (&input[index / OUTPUTS * INPUTS..][..INPUTS], index % OUTPUTS);
            let products = row.iter().zip(weight[column..].iter().step_by(OUTPUTS));
            let sum: f64 = products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            (f64::from(found) - (sum + f64::from(bias[column])).max(0.0)).abs() < 1e-4
        })
    }

    fn multiply(self, product: Product<'_>) {
        product.check();
        match self {
            #[cfg(test)]
            Kernel::Portable => product.portable(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => avx512::multiply(product),
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Kernel::Amx => amx::multiply(product),
        }
    }
}

/// Returns the number of pairs in a panel of weights (inputs, 16 outputs).
pub(super) fn panel_len(inputs: usize) -> usize {
    pairs_per_row(inputs) * PANEL
}

/// Returns the number of pairs of a row of `inputs` values, with padding.
fn pairs_per_row(inputs: usize) -> usize {
    inputs.next_multiple_of(BLOCK) / 2
}

/// Rounds a panel of weights (inputs, 16 outputs) to `pairs`, which are zero: (inputs / 2, 16), with the even input in the lower bits.
pub(super) fn pack_panel(panel: &[f32], pairs: &mut [u32]) {
    for (rows, pairs) in panel.chunks(2 * PANEL).zip(pairs.chunks_exact_mut(PANEL)) {
        for (shift, row) in [0, 16].into_iter().zip(rows.chunks_exact(PANEL)) {
            for (pair, &value) in pairs.iter_mut().zip(row) {
                *pair |= rounded_bits(value) >> 16 << shift;
            }
        }
    }
}

/// Rounds values to bfloat16.
pub(super) fn round_all(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = round(*value));
}

/// Rounds one value to bfloat16, see [`rounded_bits`].
#[inline(always)]
fn round(value: f32) -> f32 {
    f32::from_bits(rounded_bits(value))
}

/// Returns the bits of an f32 rounded to bfloat16, ties to even; the lower 16 bits are zero. NaN stays NaN. Unlike
/// `half::bf16::from_f32`, without branches: loops are vectorized.
#[inline(always)]
fn rounded_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let quiet_nan = bits | 0x40_0000;
    (if value.is_nan() { quiet_nan } else { rounded }) & 0xffff_0000
}

/// Kernel that rounds `input` to `output`, of the same length.
pub(super) struct Round<'a> {
    pub input: &'a [f32],
    pub output: &'a mut [f32],
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (output, &value) in self.output.iter_mut().zip(self.input) {
            *output = round(value);
        }
    }
}

/// Kernel that rounds rows (rows, inputs) to `pairs` (rows, [`pairs_per_row`]).
struct RoundPairs<'a> {
    inputs: usize,
    rows: &'a [f32],
    pairs: &'a mut [u32],
}

impl WithSimd for RoundPairs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { inputs, rows, pairs } = self;
        for (row, pairs) in rows.chunks_exact(inputs).zip(pairs.chunks_exact_mut(pairs_per_row(inputs))) {
            let (whole, rest) = row.as_chunks::<2>();
            let (pairs, padding) = pairs.split_at_mut(whole.len());
            for (pair, &[even, odd]) in pairs.iter_mut().zip(whole) {
                *pair = rounded_bits(even) >> 16 | rounded_bits(odd);
            }
            padding.fill(0);
            if let ([last], [pair, ..]) = (rest, padding) {
                *pair = rounded_bits(*last) >> 16;
            }
        }
    }
}

/// Panels of the weights of one matrix, which start `stride` pairs apart.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub pairs: &'a [u32],
    pub stride: usize,
}

/// Operands of a matrix product.
pub(super) struct Matmul<'a> {
    /// Inner dimension.
    pub inputs: usize,
    /// (rows, inputs).
    pub input: &'a [f32],
    /// (rows, outputs).
    pub output: &'a mut [f32],
    /// (outputs), a multiple of 16.
    pub bias: &'a [f32],
    /// Applied last.
    pub activation: Activation,
}

impl Matmul<'_> {
    /// Computes `output = activation(input · W + bias)` with the `panels` of W. `workspace` receives the rounded input; `isa` rounds
    /// and applies the activation.
    pub fn run(self, kernel: Kernel, isa: Isa, panels: Panels<'_>, workspace: &mut AlignedBuffer<u32>) {
        let Self { inputs, input, output, bias, activation } = self;
        let bounds = activation.bounds();
        let (outputs, row_pairs) = (bias.len(), pairs_per_row(inputs));
        let block_rows = (L2_PAIRS / row_pairs / ROW_MULTIPLE).max(1) * ROW_MULTIPLE;
        for (input, output) in input.chunks(block_rows * inputs).zip(output.chunks_mut(block_rows * outputs)) {
            let rows = output.len() / outputs;
            workspace.grow_to(rows * row_pairs);
            let pairs = &mut workspace[..rows * row_pairs];
            isa.dispatch(RoundPairs { inputs, rows: input, pairs });
            kernel.multiply(Product { rows: pairs, row_pairs, panels, bias, bounds, output });
            if !activation.is_clamp() {
                isa.dispatch(ApplyActivation { values: output, activation });
            }
        }
    }
}

/// Product of rounded rows with rounded weights: output = clamp(rows · W + bias).
struct Product<'a> {
    /// (rows, pairs per row).
    rows: &'a [u32],
    /// A positive multiple of [`BLOCK`] / 2.
    row_pairs: usize,
    panels: Panels<'a>,
    /// (outputs).
    bias: &'a [f32],
    /// The smallest and the largest output.
    bounds: (f32, f32),
    /// (rows, outputs).
    output: &'a mut [f32],
}

impl Product<'_> {
    /// Checks the lengths of the operands.
    fn check(&self) {
        let (row_pairs, outputs) = (self.row_pairs, self.bias.len());
        assert!(row_pairs > 0 && row_pairs.is_multiple_of(BLOCK / 2) && outputs > 0 && outputs.is_multiple_of(PANEL));
        assert!(
            self.rows.len().is_multiple_of(row_pairs) && self.output.len() == self.rows.len() / row_pairs * outputs
        );
        let last = (outputs / PANEL - 1) * self.panels.stride;
        assert!(self.panels.pairs.len() >= last + row_pairs * PANEL);
    }

    #[cfg(test)]
    fn portable(self) {
        let Self { rows, row_pairs, panels, bias, bounds: (low, high), output } = self;
        for (row, output) in rows.chunks_exact(row_pairs).zip(output.chunks_exact_mut(bias.len())) {
            for (column, (output, bias)) in output.iter_mut().zip(bias).enumerate() {
                let weights = panels.pairs[column / PANEL * panels.stride + column % PANEL..].iter().step_by(PANEL);
                let values = |pair: u32| [pair << 16, pair & 0xffff_0000].map(|bits| f64::from(f32::from_bits(bits)));
                let products = row.iter().zip(weights).map(|(&x, &w)| {
                    let ([x0, x1], [w0, w1]) = (values(x), values(w));
                    x0 * w0 + x1 * w1
                });
                // Unlike `clamp`, NaN propagates.
                let value = products.sum::<f64>() as f32 + bias;
                let value = if value < low { low } else { value };
                *output = if value > high { high } else { value };
            }
        }
    }
}

#[cfg(test)]
mod tests;
