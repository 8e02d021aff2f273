//! Depthwise convolutions over height and width, vectorized over channels.

use ndarray::{Array2, s};
use pulp::{Simd, WithSimd};

use super::activation::{Activation, activate_columns};
use super::isa::Isa;
use super::shape::{ConvGeometry, TensorShape};

/// A depthwise convolution: one filter per channel.
#[derive(Debug)]
pub(super) struct DepthwiseConv {
    /// Kernel, stride and padding; the kernel has depth 1.
    pub geometry: ConvGeometry,
    /// Shape of the input.
    pub input_shape: TensorShape,
    /// Shape of the output.
    pub output_shape: TensorShape,
    /// Filters, (taps, channel stride).
    weight: Array2<f32>,
    isa: Isa,
}

impl DepthwiseConv {
    /// Creates the layer from `weight` (channels, 1, taps).
    pub fn new(
        geometry: ConvGeometry,
        weight: &[f32],
        input_shape: TensorShape,
        output_shape: TensorShape,
        isa: Isa,
    ) -> Self {
        let taps = geometry.taps();
        let mut matrix = Array2::zeros((taps, input_shape.channel_stride));
        for ((tap, channel), value) in matrix.slice_mut(s![.., ..input_shape.channels]).indexed_iter_mut() {
            *value = weight[channel * taps + tap];
        }
        Self { geometry, input_shape, output_shape, weight: matrix, isa }
    }

    /// Computes consecutive output rows of one frame, from `first_output_row` until `output` is full. `rows` holds the
    /// input rows of the frame from `first_input_row` on.
    pub fn run_rows(
        &self,
        rows: &[f32],
        first_input_row: usize,
        first_output_row: usize,
        output: &mut [f32],
        bias: &[f32],
        activation: Activation,
    ) {
        let layer = self;
        self.isa.dispatch(RowsKernel { layer, rows, first_input_row, first_output_row, output, bias, activation });
    }
}

/// SIMD kernel of [`DepthwiseConv::run_rows`].
struct RowsKernel<'a> {
    layer: &'a DepthwiseConv,
    rows: &'a [f32],
    first_input_row: usize,
    first_output_row: usize,
    output: &'a mut [f32],
    bias: &'a [f32],
    activation: Activation,
}

impl WithSimd for RowsKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ConvGeometry { kernel, stride, .. } = self.layer.geometry;
        match (kernel[2], stride[2]) {
            (3, 1) => self.compute::<S, 3, 1>(simd),
            (5, 1) => self.compute::<S, 5, 1>(simd),
            (7, 1) => self.compute::<S, 7, 1>(simd),
            (3, 2) => self.compute::<S, 3, 2>(simd),
            (5, 2) => self.compute::<S, 5, 2>(simd),
            _ => self.compute::<S, 0, 0>(simd),
        }
    }
}

impl RowsKernel<'_> {
    /// Computes the rows for kernel width `K` and horizontal stride `STRIDE`, or for any width and stride if both are
    /// 0.
    #[inline(always)]
    fn compute<S: Simd, const K: usize, const STRIDE: usize>(self, simd: S) {
        let Self { layer, rows, first_input_row, first_output_row, output, bias, activation } = self;
        let bias = S::as_simd_f32s(bias).0;
        let vectors = bias.len();
        let filter = RowFilter::<S, K, STRIDE> {
            simd,
            geometry: &layer.geometry,
            vectors,
            weight: S::as_simd_f32s(layer.weight.as_slice().expect("the matrix is contiguous")).0,
            bias,
            rows: S::as_simd_f32s(rows).0,
            first_input_row,
            input_shape: layer.input_shape,
        };
        // All rows of some vectors of channels, then the next: input rows shared by output rows stay in the L1 cache. With 16
        // registers, six sums of one vector and the taps of a kernel row fit, but not those of two.
        let step = if S::REGISTER_COUNT >= 32 { 2 } else { 1 };
        let TensorShape { width, channel_stride, .. } = layer.output_shape;
        for first_vector in (0..vectors).step_by(step) {
            let count = step.min(vectors - first_vector);
            let columns = first_vector * S::F32_LANES..(first_vector + count) * S::F32_LANES;
            for (row, output) in output.chunks_exact_mut(width * channel_stride).enumerate() {
                let values = S::as_mut_simd_f32s(output).0;
                match count {
                    1 => filter.run_row::<1>(first_output_row + row, first_vector, values),
                    _ => filter.run_row::<2>(first_output_row + row, first_vector, values),
                }
                activate_columns(simd, output, channel_stride, columns.clone(), activation);
            }
        }
    }
}

/// Operands as SIMD vectors, for kernel width `K` and horizontal stride `STRIDE`, or for any if both are 0.
struct RowFilter<'a, S: Simd, const K: usize, const STRIDE: usize> {
    simd: S,
    geometry: &'a ConvGeometry,
    /// Number of vectors of channels per position.
    vectors: usize,
    /// Filters, (taps, vectors).
    weight: &'a [S::f32s],
    bias: &'a [S::f32s],
    /// Input rows from `first_input_row` on, (rows, columns, vectors).
    rows: &'a [S::f32s],
    first_input_row: usize,
    /// Shape of the complete input.
    input_shape: TensorShape,
}

impl<S: Simd, const K: usize, const STRIDE: usize> RowFilter<'_, S, K, STRIDE> {
    /// Computes `V` vectors of channels, from `first_vector` on, of output row `y`, six or three positions at a time.
    /// If the width is not a multiple of that, some positions are computed twice.
    #[inline(always)]
    fn run_row<const V: usize>(&self, y: usize, first_vector: usize, output_row: &mut [S::f32s]) {
        let width = output_row.len() / self.vectors;
        let mut x = 0;
        while x < width {
            if K > 0 && width - x > 3 && width >= 6 {
                self.run_positions::<V, 6>(y, x.min(width - 6), first_vector, output_row);
                x += 6;
            } else if K > 0 && width >= 3 {
                self.run_positions::<V, 3>(y, x.min(width - 3), first_vector, output_row);
                x += 3;
            } else {
                self.run_position::<V>(y, x, first_vector, output_row);
                x += 1;
            }
        }
    }

    /// Returns the input rows that output row `y` depends on, each with the weights of its kernel row and those after
    /// it.
    #[inline(always)]
    fn input_rows(&self, y: usize) -> impl Iterator<Item = (&[S::f32s], &[S::f32s])> {
        let Self { geometry, input_shape, vectors, .. } = *self;
        geometry.input_rows(&(y..y + 1), input_shape.height).map(move |row| {
            let kernel_row = row + geometry.pad_before[1] - y * geometry.stride[1];
            let row_len = input_shape.width * vectors;
            let values = &self.rows[(row - self.first_input_row) * row_len..][..row_len];
            (values, &self.weight[kernel_row * geometry.kernel[2] * vectors..])
        })
    }

    /// Computes `X` adjacent positions from column `x` on. Each input value is loaded once per kernel row.
    #[inline(always)]
    fn run_positions<const V: usize, const X: usize>(
        &self,
        y: usize,
        x: usize,
        first_vector: usize,
        output_row: &mut [S::f32s],
    ) {
        let Self { simd, vectors, .. } = *self;
        let left = (x * STRIDE) as isize - self.geometry.pad_before[2] as isize;
        let mut sums = [[simd.splat_f32s(0.0); V]; X];
        for (input, weight) in self.input_rows(y) {
            let mut taps = [[simd.splat_f32s(0.0); V]; K];
            for (dx, taps) in taps.iter_mut().enumerate() {
                taps.copy_from_slice(&weight[dx * vectors + first_vector..][..V]);
            }
            // The windows of all positions span up to 15 input columns. Unrolled by a macro, because the compiler does
            // not unroll the loop.
            const { assert!((X - 1) * STRIDE + K <= 15) };
            macro_rules! columns { ($($column:literal)*) => { $(
                if $column < (X - 1) * STRIDE + K {
                    let input_column = (left + $column) as usize; // negative columns wrap to large values
                    if input_column < self.input_shape.width {
                        self.add_column($column, &input[input_column * vectors + first_vector..][..V], &taps, &mut sums);
                    }
                }
            )* } }
            columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            self.store(sums, first_vector, &mut output_row[(x + i) * vectors..]);
        }
    }

    /// Adds the products with input column `column`, counted from the first window's left edge, to the sums of all
    /// positions whose window contains it.
    #[inline(always)]
    fn add_column<const V: usize, const X: usize>(
        &self,
        column: usize,
        pixel: &[S::f32s],
        taps: &[[S::f32s; V]; K],
        sums: &mut [[S::f32s; V]; X],
    ) {
        for (i, sums) in sums.iter_mut().enumerate() {
            if i * STRIDE <= column && column < i * STRIDE + K {
                let taps = &taps[column - i * STRIDE];
                for v in 0..V {
                    sums[v] = self.simd.mul_add_f32s(pixel[v], taps[v], sums[v]);
                }
            }
        }
    }

    /// Computes one position for any kernel width and stride.
    #[inline(always)]
    fn run_position<const V: usize>(&self, y: usize, x: usize, first_vector: usize, output_row: &mut [S::f32s]) {
        let Self { simd, vectors, geometry, .. } = *self;
        let left = (x * geometry.stride[2]) as isize - geometry.pad_before[2] as isize;
        let mut sums = [simd.splat_f32s(0.0); V];
        for (input, weight) in self.input_rows(y) {
            for (dx, taps) in weight.chunks_exact(vectors).enumerate().take(geometry.kernel[2]) {
                let input_column = (left + dx as isize) as usize; // negative columns wrap to large values
                if input_column < self.input_shape.width {
                    let pixel = &input[input_column * vectors + first_vector..][..V];
                    for v in 0..V {
                        sums[v] = simd.mul_add_f32s(pixel[v], taps[first_vector + v], sums[v]);
                    }
                }
            }
        }
        self.store(sums, first_vector, &mut output_row[x * vectors..]);
    }

    /// Adds the bias to the sums of one position and stores the result.
    #[inline(always)]
    fn store<const V: usize>(&self, sums: [S::f32s; V], first_vector: usize, position: &mut [S::f32s]) {
        let values = position[first_vector..][..V].iter_mut().zip(&self.bias[first_vector..]);
        for ((value, &bias), sum) in values.zip(sums) {
            *value = self.simd.add_f32s(sum, bias);
        }
    }
}
