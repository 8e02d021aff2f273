//! Matrix product of activations (rows, input channels) with [packed weights](PackedWeights), where most of the run time
//! is spent. The bias is added while sums are in registers, the activation is applied while they are in the cache.
//!
//! Blocking follows Goto & van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008); weights are packed
//! when the network is loaded and activations are not packed at all. This module does not use the `gemm` crate, which
//! serves the classifiers ([`crate::matrix`]), detects the processor by itself and ignores `KINOPROBE_SIMD`.

use pulp::{Simd, WithSimd};

use super::activation::{Activation, activate_columns};
use super::aligned::AlignedBuffer;
use super::amx;
use super::bf16;
use super::isa::Isa;
use super::kernel::QuantizedRows;
use super::packed::{PackedLayout, PackedWeights, PanelShape, VectorPanels};

/// Floats of the activations processed per block, to stay in the L2 cache.
const L2_FLOATS: usize = 1 << 18;

impl PackedWeights {
    /// Computes `output = activation(input · W + bias)` for weights of one matrix, with `input` (rows, inputs), `output`
    /// (rows, outputs) and `bias` (outputs). `workspace` receives the input in the form that the product
    /// reads.
    pub fn matmul(
        &self,
        input: &[f32],
        output: &mut [f32],
        bias: &[f32],
        activation: Activation,
        workspace: &mut QuantizedRows,
    ) {
        self.matmul_with(0, input, output, bias, activation, workspace);
    }

    /// Computes `output[i] = input[i] · W[i]` for every matrix, with `input` (matrices, rows, inputs) and `output`
    /// (matrices, rows, outputs). `zeros` holds at least as many zeros as there are outputs.
    pub fn batched_matmul(
        &self,
        rows: usize,
        input: &[f32],
        output: &mut [f32],
        zeros: &[f32],
        workspace: &mut QuantizedRows,
    ) {
        let (inputs, outputs) = self.dim();
        let parts = input.chunks_exact(rows * inputs).zip(output.chunks_exact_mut(rows * outputs));
        for (matrix, (input, output)) in (0..self.matrices()).zip(parts) {
            self.matmul_with(matrix, input, output, &zeros[..outputs], Activation::None, workspace);
        }
    }

    fn matmul_with(
        &self,
        matrix: usize,
        input: &[f32],
        output: &mut [f32],
        bias: &[f32],
        activation: Activation,
        workspace: &mut QuantizedRows,
    ) {
        let replaced = self.probe().is_some_and(|probe| {
            probe.observe(input, |matrix, correction| {
                let bias: Vec<f32> = bias.iter().zip(correction).map(|(bias, correction)| bias + correction).collect();
                matrix.matmul(input, output, &bias, activation, &mut workspace.int8);
            })
        });
        if replaced {
            return;
        }
        match self.layout() {
            PackedLayout::Vectors(values) => {
                let (panels, (inputs, _)) = (self.vector_panels(values), self.dim());
                let input = match self.rounds_input() {
                    true => round(self.isa(), input, &mut workspace.rounded),
                    false => input,
                };
                let input = InputRows { values: input, stride: inputs, inputs: self.unpadded_inputs() };
                self.isa().dispatch(Matmul { panels, matrix, input, output, bias, activation });
            }
            PackedLayout::Amx { slices, scales } => {
                let (inputs, outputs) = self.dim();
                let product = amx::Matmul { inputs, input, outputs, output, bias, activation };
                product.run(
                    self.amx_panels(matrix, slices),
                    &scales[matrix * outputs..][..outputs],
                    &mut workspace.amx,
                );
            }
            PackedLayout::Bf16 { pairs, kernel } => {
                let (inputs, _) = self.dim();
                let product = bf16::Matmul { inputs, input, output, bias, activation };
                product.run(*kernel, self.isa(), self.bf16_panels(matrix, pairs), &mut workspace.bf16);
            }
            PackedLayout::Int8(matrix) => matrix.matmul(input, output, bias, activation, &mut workspace.int8),
        }
    }
}

/// Rounds values to bfloat16 in `workspace`.
fn round<'w>(isa: Isa, values: &[f32], workspace: &'w mut AlignedBuffer) -> &'w [f32] {
    workspace.grow_to(values.len());
    let output = &mut workspace[..values.len()];
    isa.dispatch(bf16::Round { input: values, output });
    output
}

/// Left operand of a product: rows of `inputs` elements that start `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct InputRows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub inputs: usize,
}

/// Computes `output = input · B + bias` for one matrix B that has been packed at run time, with `output` (rows, outputs) and
/// `bias` (outputs).
pub(super) fn multiply(isa: Isa, input: InputRows<'_>, panels: VectorPanels<'_>, output: &mut [f32], bias: &[f32]) {
    isa.dispatch(Matmul { panels, matrix: 0, input, output, bias, activation: Activation::None });
}

/// Kernel of the `Vectors` layout.
struct Matmul<'a> {
    panels: VectorPanels<'a>,
    matrix: usize,
    input: InputRows<'a>,
    output: &'a mut [f32],
    bias: &'a [f32],
    activation: Activation,
}

impl WithSimd for Matmul<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { panels, matrix, input, output, bias, activation } = self;
        let InputRows { values: input, stride, inputs } = input;
        let outputs = panels.outputs;
        let bias = S::as_simd_f32s(bias).0;
        // A multiple of every micro-tile height below.
        let block_rows = (L2_FLOATS / stride).clamp(48, 480) / 24 * 24;
        for (input, output) in input.chunks(block_rows * stride).zip(output.chunks_mut(block_rows * outputs)) {
            let mut first = 0;
            for (width, panel) in panels.of_matrix(matrix, PanelShape::of::<S>()) {
                let columns = PanelColumns { stride, inputs, outputs, first: first * S::F32_LANES, activation };
                let panel = S::as_simd_f32s(panel).0;
                let bias = &bias[first..first + width];
                // Accumulators, one row of weights and one broadcast activation fit into the registers.
                match (width, S::REGISTER_COUNT >= 32) {
                    (3, true) => multiply_panel::<S, 3, 8>(simd, input, output, panel, bias, columns),
                    (2, true) => multiply_panel::<S, 2, 12>(simd, input, output, panel, bias, columns),
                    (2, false) => multiply_panel::<S, 2, 6>(simd, input, output, panel, bias, columns),
                    (1, _) => multiply_panel::<S, 1, 12>(simd, input, output, panel, bias, columns),
                    _ => unreachable!("panels of 16 registers have at most two vectors"),
                }
                first += width;
            }
        }
    }
}

/// The columns of the output that a panel of weights computes.
#[derive(Clone, Copy)]
struct PanelColumns {
    /// Input stride.
    stride: usize,
    /// Inputs without padding.
    inputs: usize,
    /// Output stride.
    outputs: usize,
    /// First column.
    first: usize,
    activation: Activation,
}

/// Multiplies all rows with one panel, `R` rows at a time, then four, two and one.
#[inline(always)]
fn multiply_panel<S: Simd, const V: usize, const R: usize>(
    simd: S,
    input: &[f32],
    output: &mut [f32],
    panel: &[S::f32s],
    bias: &[S::f32s],
    columns: PanelColumns,
) {
    let row = multiply_rows::<S, V, R>(simd, 0, input, output, panel, bias, columns);
    let row = multiply_rows::<S, V, 4>(simd, row, input, output, panel, bias, columns);
    let row = multiply_rows::<S, V, 2>(simd, row, input, output, panel, bias, columns);
    multiply_rows::<S, V, 1>(simd, row, input, output, panel, bias, columns);
    let PanelColumns { outputs, first, activation, .. } = columns;
    activate_columns(simd, output, outputs, first..first + V * S::F32_LANES, activation);
}

/// Multiplies rows from `row` on with one panel, `R` at a time, and returns the first remaining row.
#[inline(always)]
fn multiply_rows<S: Simd, const V: usize, const R: usize>(
    simd: S,
    mut row: usize,
    input: &[f32],
    output: &mut [f32],
    panel: &[S::f32s],
    bias: &[S::f32s],
    columns: PanelColumns,
) -> usize {
    let PanelColumns { stride, outputs, .. } = columns;
    while (row + R) * outputs <= output.len() {
        micro_tile::<S, V, R>(simd, &input[row * stride..], &mut output[row * outputs..], panel, bias, columns);
        row += R;
    }
    row
}

/// Multiplies `R` rows with one panel of `V` vectors.
#[inline(always)]
fn micro_tile<S: Simd, const V: usize, const R: usize>(
    simd: S,
    input: &[f32],
    output: &mut [f32],
    panel: &[S::f32s],
    bias: &[S::f32s],
    columns: PanelColumns,
) {
    let PanelColumns { stride, inputs, outputs, first, .. } = columns;
    let mut rows: [&[f32]; R] = [&[]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &input[r * stride..][..inputs];
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for (k, weights) in panel.chunks_exact(V).enumerate().take(inputs) {
        for r in 0..R {
            let x = simd.splat_f32s(rows[r][k]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_f32s(x, weights[v], sums[r][v]);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let row = S::as_mut_simd_f32s(&mut output[r * outputs + first..][..V * S::F32_LANES]).0;
        for v in 0..V {
            row[v] = simd.add_f32s(sums[v], bias[v]);
        }
    }
}
