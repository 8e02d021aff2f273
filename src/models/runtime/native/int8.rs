//! Matrix product of 8-bit integers: activations are quantized row by row to u8, weights once to i8 per output channel.
//!
//! With x ≈ sₓ·(q − z) and w ≈ s_w·p, the product is sₓ·s_w·(Σ q·p − z·Σ p): the sum over integers is exact, and the second term is known
//! in advance (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
//! q is in 0..=255 and p in −64..=64, as in the `reduce_range` of ONNX Runtime: AVX2 adds two products in 16 bits with saturation, and
//! 2·255·64 is the largest sum that cannot saturate. Every instruction set therefore computes the same sums.
//!
//! One layout of the weights serves all instruction sets: panels of 16 outputs, in which the weights of four consecutive inputs of an
//! output are adjacent, as the dot products of AVX2, VNNI and AMX read them.

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod x86;

use ndarray::ArrayView3;

use super::activation::{Activation, ApplyActivation};
use super::aligned::AlignedBuffer;
use super::isa::{Isa, PerIsa};
use super::kernel::PANEL;

/// Inputs that one instruction multiplies and adds per output.
const GROUP: usize = 4;

/// Largest magnitude of a quantized weight.
pub(crate) const MAX_WEIGHT: i8 = 64;

/// Largest number of inputs whose sum cannot overflow: 255·64 per input, and as much for the zero point.
const MAX_INPUTS: usize = i32::MAX as usize / (2 * 255 * MAX_WEIGHT as usize);

/// Bytes per block of quantized rows, and of their outputs if an activation function reads them again. The weights are read once per
/// block, the rows once per few panels.
const BLOCK_BYTES: usize = 1 << 21;

/// Rows per block are a multiple of this, which every kernel's number of rows divides, unless there is only one block.
const ROW_MULTIPLE: usize = 48;

/// Quantization of a layer's input: x ≈ scale · (q − `zero_point`), with q in 0..=255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct InputQuantization {
    /// Positive and finite.
    pub scale: f32,
    /// The integer that represents 0.
    pub zero_point: u8,
}

impl InputQuantization {
    /// Quantizes one value as QuantizeLinear of ONNX does, except that it multiplies by the inverse of the scale. NaN becomes an
    /// arbitrary integer.
    fn quantize(self, inverse: f32, value: f32) -> u8 {
        let integer = (value * inverse).round_ties_even() as i32;
        integer.saturating_add(i32::from(self.zero_point)).clamp(0, 255) as u8
    }
}

/// Instructions that multiply integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// Plain Rust.
    Portable,
    /// VPMADDUBSW and VPMADDWD on 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// VPDPBUSD on 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// VPDPBUSD on 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// TDPBUSD on tiles.
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
    Amx,
}

impl Kernel {
    /// Returns the fastest kernel of an instruction set that the processor supports and that computes correctly.
    fn of(isa: Isa) -> Self {
        static SELECTED: PerIsa<Kernel> = PerIsa::new();
        *SELECTED.get_or_init(isa, || {
            let mut fastest_first = Self::candidates(isa).iter().copied();
            fastest_first.find(|kernel| kernel.is_available() && kernel.is_correct()).unwrap_or(Kernel::Portable)
        })
    }

    /// Returns the kernels of an instruction set, the fastest first.
    fn candidates(isa: Isa) -> &'static [Self] {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &[Kernel::AvxVnni, Kernel::Avx2],
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Isa::Amx => &[Kernel::Amx, Kernel::Avx512Vnni, Kernel::AvxVnni, Kernel::Avx2],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &[Kernel::Avx512Vnni, Kernel::AvxVnni, Kernel::Avx2],
            _ => &[],
        }
    }

    /// Returns `true` if direct convolutions are faster than Winograd's algorithm in f32. For R(2+1)D-18 on Emerald Rapids, they take
    /// 160 ms instead of 300 with AVX512-VNNI, 275 instead of 440 with AVX-VNNI, and 540 instead of 475 with AVX2 alone.
    fn outpaces_winograd(self) -> bool {
        match self {
            Kernel::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => false,
            #[cfg(target_arch = "x86_64")]
            _ => true,
        }
    }

    fn is_available(self) -> bool {
        match self {
            Kernel::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Kernel::AvxVnni => Kernel::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => {
                Kernel::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Kernel::Amx => super::amx::is_available() && is_x86_feature_detected!("avx512f"),
        }
    }

    /// Returns the number that the number of inputs is rounded up to a multiple of.
    fn input_multiple(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Kernel::Amx => amx::BLOCK,
            _ => GROUP,
        }
    }

    /// Compares a small product with that of the portable kernel. Few machines have every instruction set, so a mistake in a kernel
    /// might not be seen in tests; here it costs speed only.
    fn is_correct(self) -> bool {
        // Blocks of every height of the kernels.
        const ROWS: usize = 55;
        const INPUTS: usize = 192;
        const OUTPUTS: usize = 3 * PANEL;
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16
        };
        // Extreme values are frequent.
        let rows: Vec<u8> =
            (0..ROWS * INPUTS).map(|_| if random().is_multiple_of(3) { 255 } else { random() as u8 }).collect();
        let weight = |value: u16| {
            if value.is_multiple_of(3) { MAX_WEIGHT } else { (i32::from(value % 129) - i32::from(MAX_WEIGHT)) as i8 }
        };
        let panels: Vec<i8> = (0..INPUTS * OUTPUTS).map(|_| weight(random())).collect();
        let offsets: Vec<i32> = (0..OUTPUTS).map(|_| i32::from(random())).collect();
        let scales: Vec<f32> = (0..OUTPUTS).map(|_| f32::from(random()) / 1e5).collect();
        let bias: Vec<f32> = (0..OUTPUTS).map(|_| f32::from(random()) - 30_000.0).collect();
        let product = |kernel: Kernel| {
            let mut output = vec![0.0; ROWS * OUTPUTS];
            let (rows, panels, bounds) = (&rows, &panels, (-1e6, 1e4));
            let (offsets, scales, bias) = (&offsets, &scales, &bias);
            let product = Product { rows, inputs: INPUTS, panels, offsets, scales, bias, bounds, output: &mut output };
            kernel.multiply(product);
            output
        };
        let values: Vec<f32> =
            (0..77).map(|_| f32::from(random()) - 3e4).chain([1e30, -1e30, 0.5, 1.5, -0.5]).collect();
        let quantize = |kernel: Kernel| {
            let mut quantized = vec![0; values.len()];
            kernel.quantize(InputQuantization { scale: 173.0, zero_point: 119 }, &values, &mut quantized);
            quantized
        };
        product(self) == product(Kernel::Portable) && quantize(self) == quantize(Kernel::Portable)
    }

    fn multiply(self, product: Product<'_>) {
        product.check();
        match self {
            Kernel::Portable => product.portable(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => x86::multiply_avx2(product),
            #[cfg(target_arch = "x86_64")]
            Kernel::AvxVnni => x86::multiply_avx_vnni(product),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => x86::multiply_avx512_vnni(product),
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
            Kernel::Amx => amx::multiply(product),
        }
    }

    /// Quantizes values; returns `true` if one of them is NaN.
    fn quantize(self, quantization: InputQuantization, values: &[f32], quantized: &mut [u8]) -> bool {
        match self {
            Kernel::Portable => quantize(quantization, values, quantized),
            #[cfg(target_arch = "x86_64")]
            _ => x86::quantize(quantization, values, quantized),
        }
    }
}

/// Returns `true` if convolutions in 8-bit integers are faster than with Winograd's algorithm in f32.
pub(super) fn outpaces_winograd(isa: Isa) -> bool {
    Kernel::of(isa).outpaces_winograd()
}

/// As [`Kernel::quantize`].
fn quantize(quantization: InputQuantization, values: &[f32], quantized: &mut [u8]) -> bool {
    let (inverse, mut nan) = (quantization.scale.recip(), false);
    for (quantized, &value) in quantized.iter_mut().zip(values) {
        nan |= value.is_nan();
        *quantized = quantization.quantize(inverse, value);
    }
    nan
}

/// Product of quantized rows with quantized weights: output = clamp(scales · (rows · W + offsets) + bias).
struct Product<'a> {
    /// (rows, inputs).
    rows: &'a [u8],
    /// A positive multiple of [`GROUP`].
    inputs: usize,
    /// W, (outputs / 16, inputs / 4, 16, 4); not greater than [`MAX_WEIGHT`].
    panels: &'a [i8],
    /// (outputs).
    offsets: &'a [i32],
    /// (outputs).
    scales: &'a [f32],
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
        let (inputs, outputs) = (self.inputs, self.offsets.len());
        assert!(inputs > 0 && inputs.is_multiple_of(GROUP) && outputs > 0 && outputs.is_multiple_of(PANEL));
        assert!(self.scales.len() == outputs && self.bias.len() == outputs && self.panels.len() == inputs * outputs);
        assert!(self.rows.len().is_multiple_of(inputs) && self.output.len() == self.rows.len() / inputs * outputs);
    }

    fn portable(self) {
        let Self { rows, inputs, panels, offsets, scales, bias, bounds: (low, high), output } = self;
        let outputs = offsets.len();
        for (row, output) in rows.chunks_exact(inputs).zip(output.chunks_exact_mut(outputs)) {
            for (panel, first) in panels.chunks_exact(inputs * PANEL).zip((0..outputs).step_by(PANEL)) {
                let mut sums: [i32; PANEL] = std::array::from_fn(|i| offsets[first + i]);
                for (x, weights) in row.chunks_exact(GROUP).zip(panel.chunks_exact(GROUP * PANEL)) {
                    for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(GROUP)) {
                        *sum += x.iter().zip(weights).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
                    }
                }
                for (i, sum) in sums.into_iter().enumerate() {
                    let value = (sum as f32).mul_add(scales[first + i], bias[first + i]);
                    // Unlike `clamp`, also defined for NaN bounds, and NaN propagates.
                    let value = if value < low { low } else { value };
                    output[first + i] = if value > high { high } else { value };
                }
            }
        }
    }
}

/// Quantized weights (inputs, outputs) of a layer, with the quantization of its input.
#[derive(Debug)]
pub(super) struct QuantizedMatrix {
    /// Floats per input row.
    stride: usize,
    /// Inputs without the padding channels at the end.
    unpadded: usize,
    /// Inputs that are multiplied: those without padding, rounded up to whole groups.
    inputs: usize,
    outputs: usize,
    input: InputQuantization,
    isa: Isa,
    kernel: Kernel,
    panels: AlignedBuffer<i8>,
    /// −zero point · Σ weights, per output.
    offsets: Vec<i32>,
    /// Scale of the input times that of the weights, per output.
    scales: Vec<f32>,
}

impl QuantizedMatrix {
    /// Packs `weight` (taps, input channels, output channels), of magnitudes up to [`MAX_WEIGHT`], as one matrix (taps · padded input
    /// channels, padded output channels). `scales` are those of the weights, per output channel. Returns `None` if there are too many inputs.
    pub fn new(
        weight: ArrayView3<'_, i8>,
        (padded_inputs, padded_outputs): (usize, usize),
        scales: &[f32],
        input: InputQuantization,
        isa: Isa,
    ) -> Option<Self> {
        let (taps, channels, filters) = weight.dim();
        let stride = taps * padded_inputs;
        let kernel = Kernel::of(isa);
        let unpadded = stride - (padded_inputs - channels);
        let inputs = unpadded.next_multiple_of(kernel.input_multiple());
        if inputs > MAX_INPUTS {
            return None;
        }
        let mut panels = AlignedBuffer::zeros(inputs * padded_outputs);
        let mut offsets = vec![0; padded_outputs];
        for output in 0..filters {
            let panel = &mut panels[output / PANEL * inputs * PANEL..];
            for tap in 0..taps {
                for channel in 0..channels {
                    let (row, value) = (tap * padded_inputs + channel, weight[(tap, channel, output)]);
                    panel[(row / GROUP * PANEL + output % PANEL) * GROUP + row % GROUP] = value;
                    offsets[output] -= i32::from(input.zero_point) * i32::from(value);
                }
            }
        }
        let mut scales: Vec<f32> = scales.iter().map(|scale| scale * input.scale).collect();
        scales.resize(padded_outputs, 0.0);
        Some(Self { stride, unpadded, inputs, outputs: padded_outputs, input, isa, kernel, panels, offsets, scales })
    }

    /// Returns (inputs, outputs), including padding.
    pub fn dim(&self) -> (usize, usize) {
        (self.stride, self.outputs)
    }

    /// Returns the instruction set that the matrix is packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Returns the number of bytes of a quantized row: the inputs without the padding channels at the end, rounded up.
    pub fn row_len(&self) -> usize {
        self.inputs
    }

    /// Returns the integer that represents 0.
    pub fn zero_point(&self) -> u8 {
        self.input.zero_point
    }

    /// Computes `output = activation(input · W + bias)` with `input` (rows, inputs), `output` (rows, outputs) and `bias` (outputs).
    /// `workspace` receives the quantized input. A row that contains NaN becomes NaN.
    pub fn matmul(
        &self,
        input: &[f32],
        output: &mut [f32],
        bias: &[f32],
        activation: Activation,
        workspace: &mut AlignedBuffer<u8>,
    ) {
        let Self { stride, inputs, outputs, .. } = *self;
        let block_rows = self.block_rows(output.len() / outputs, activation);
        workspace.grow_to(block_rows * inputs);
        for (input, output) in input.chunks(block_rows * stride).zip(output.chunks_mut(block_rows * outputs)) {
            let quantized = &mut workspace[..output.len() / outputs * inputs];
            let nan = self.quantize_rows(input, quantized);
            self.multiply_block(quantized, output, bias, activation);
            if nan {
                for (row, output) in input.chunks_exact(stride).zip(output.chunks_exact_mut(outputs)) {
                    if row.iter().any(|value| value.is_nan()) {
                        output.fill(f32::NAN);
                    }
                }
            }
        }
    }

    /// Computes `output = activation(rows · W + bias)` with quantized rows (rows, [`Self::row_len`]).
    pub fn multiply(&self, rows: &[u8], output: &mut [f32], bias: &[f32], activation: Activation) {
        let block_rows = self.block_rows(output.len() / self.outputs, activation);
        for (rows, output) in rows.chunks(block_rows * self.inputs).zip(output.chunks_mut(block_rows * self.outputs)) {
            self.multiply_block(rows, output, bias, activation);
        }
    }

    /// Quantizes values; returns `true` if one of them is NaN.
    pub fn quantize_values(&self, values: &[f32], quantized: &mut [u8]) -> bool {
        self.kernel.quantize(self.input, values, quantized)
    }

    /// Returns the number of rows per block of a product of `rows` rows.
    fn block_rows(&self, rows: usize, activation: Activation) -> usize {
        let output_bytes = if activation.is_clamp() { 0 } else { size_of::<f32>() * self.outputs };
        let max = (BLOCK_BYTES / (self.inputs + output_bytes)).max(ROW_MULTIPLE);
        if rows <= max { rows } else { max / ROW_MULTIPLE * ROW_MULTIPLE }
    }

    fn multiply_block(&self, rows: &[u8], output: &mut [f32], bias: &[f32], activation: Activation) {
        let (inputs, bounds) = (self.inputs, activation.bounds());
        let (offsets, scales, panels) = (&self.offsets, &self.scales, &self.panels[..inputs * self.outputs]);
        self.kernel.multiply(Product { rows, inputs, panels, offsets, scales, bias, bounds, output });
        if !activation.is_clamp() {
            self.isa.dispatch(ApplyActivation { values: output, activation });
        }
    }

    /// Quantizes rows; returns `true` if one of them contains NaN.
    fn quantize_rows(&self, input: &[f32], quantized: &mut [u8]) -> bool {
        if self.inputs == self.stride {
            return self.quantize_values(input, quantized);
        }
        let mut nan = false;
        // The weights of the rest of a row are zero.
        for (row, quantized) in input.chunks_exact(self.stride).zip(quantized.chunks_exact_mut(self.inputs)) {
            nan |= self.quantize_values(&row[..self.unpadded], quantized);
        }
        nan
    }
}

#[cfg(test)]
mod tests;
