//! Matrix product on Intel AMX tiles: f32 accuracy from 8-bit integer products (Ozaki scheme).
//!
//! Every row of activations and every column of weights has one scale s; each of its values is split into three signed
//! 8-bit slices, x = s·(2¹⁶·x₁ + 2⁸·x₂ + x₃): 24 bits relative to the largest magnitude of the row or column, the precision
//! of f32. Tile products of slices are exact. Of the nine products of slices, only the six that are significant in 24
//! bits are computed. They are summed by order of magnitude: x₁·w₁, then x₁·w₂ + x₂·w₁, then x₁·w₃ + x₂·w₂ + x₃·w₁
//! (Ozaki, Ogita, Oishi & Rump, "Error-free transformations of matrix multiplication by using fast routines of matrix
//! multiplication and its applications", 2012; on integer units: Ootomo, Ozaki & Yokota, "DGEMM on Integer Matrix
//! Multiplication Unit", 2024). The error is comparable to that of an f32 sum.
//!
//! All `unsafe` code of the native kernels is in this file, in `tiles.rs`, and in `bf16/` and `int8/`.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use super::activation::{Activation, ApplyActivation};
use super::aligned::AlignedBuffer;

/// Number of rows of a tile, and of 32-bit elements per row.
pub(super) const TILE_ROWS: usize = 16;

/// Bytes per row of a tile: the number of inputs (inner dimension) that one tile product sums over.
const TILE_ROW_BYTES: usize = 64;

/// Bytes per tile.
const TILE_BYTES: usize = TILE_ROWS * TILE_ROW_BYTES;

/// Number of slices per value.
const SLICES: usize = 3;

/// Integer that the largest magnitude of a row or column is scaled to: 127 in the first slice.
const QUANTIZED_MAX: f32 = 127.0 * 65536.0;

/// Rows whose largest magnitude is smaller are treated as zero: the scale would have no finite inverse.
const MIN_MAGNITUDE: f32 = 1e-30;

/// Inner dimensions for which AMX is used. For smaller ones, quantization and the epilogue take longer than the product
/// on the vector units; for larger ones, the i32 sums of three products of up to 2¹⁴ per input could overflow.
pub(super) const K_RANGE: Range<usize> = 48..1 << 15;

/// Bytes of quantized activations per block, chosen so that a block stays in the L2 cache.
const L2_BYTES: usize = 1 << 19;

/// Bytes of quantized activations that stay in the L1 cache while the weights are streamed. If a single group of rows
/// is larger, a panel of weights stays in the cache and the rows are streamed.
const L1_BYTES: usize = 20 << 10;

/// Returns `true` if the processor has AMX-INT8 and the operating system permits its use. The permission is requested once
/// for the whole process.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        // CPUID leaf 7: AMX-TILE (bit 24) and AMX-INT8 (bit 25).
        let amx = || __cpuid_count(7, 0).edx & (3 << 24) == 3 << 24;
        is_x86_feature_detected!("avx512bw") && amx() && request_permission()
    })
}

/// Asks Linux for permission to use the tile state, which a process does not have by default.
fn request_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two integers and accesses no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Quantized activations: the slices of all rows, in the layout of [`quantize_rows`], and one scale per row.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    slices: AlignedBuffer<i8>,
    scales: AlignedBuffer<f32>,
}

/// Returns the size in bytes of a quantized panel of weights (inputs, 16 outputs) or group of activations (16 rows,
/// inputs).
pub(super) fn panel_len(inputs: usize) -> usize {
    inputs.div_ceil(TILE_ROW_BYTES) * SLICES * TILE_BYTES
}

/// Quantizes a panel of weights (inputs, 16 outputs) to `slices` and the `scales` of its columns. The layout is: per block
/// of 64 inputs, the tiles of the first, second and third slices; a tile row holds, for each output, the inputs of four
/// consecutive [positions](tile_position).
pub(super) fn quantize_panel(panel: &[f32], slices: &mut [i8], scales: &mut [f32]) {
    // Until the end, `scales` holds the largest magnitude of each column.
    scales.fill(0.0);
    for row in panel.chunks_exact(TILE_ROWS) {
        for (max, value) in scales.iter_mut().zip(row) {
            // NaN propagates.
            *max = if value.abs() > *max || value.is_nan() { value.abs() } else { *max };
        }
    }
    let inverses: Vec<f32> = scales.iter().map(|&max| inverse_scale(max)).collect();
    let blocks = slices.chunks_exact_mut(SLICES * TILE_BYTES).zip(panel.chunks(TILE_ROW_BYTES * TILE_ROWS));
    for (block, rows) in blocks {
        for (input, row) in rows.chunks_exact(TILE_ROWS).enumerate() {
            let position = tile_position(input);
            for (output, (value, inverse)) in row.iter().zip(&inverses).enumerate() {
                let offset = position / 4 * TILE_ROW_BYTES + output * 4 + position % 4;
                // Digits in base 256 from -128 to 127: adding 0x80 to each byte carries into the next one, and flipping
                // the sign bit subtracts it again.
                let integer = round_to_i32(value * inverse) + 0x0080_8080;
                for slice in 0..SLICES {
                    block[offset + slice * TILE_BYTES] = ((integer >> (16 - 8 * slice)) as u8 ^ 0x80) as i8;
                }
            }
        }
    }
    scales.iter_mut().for_each(|max| *max = first_slice_scale(*max));
}

/// Returns the factor that scales the largest magnitude `max` to [`QUANTIZED_MAX`], or 0 if `max` is below
/// [`MIN_MAGNITUDE`]. NaN propagates.
fn inverse_scale(max: f32) -> f32 {
    if max < MIN_MAGNITUDE { 0.0 } else { QUANTIZED_MAX / max }
}

/// Rounds to the nearest integer, ties to even: adding 1.5·2⁵² leaves it in the low bits of the f64.
fn round_to_i32(value: f32) -> i32 {
    const SHIFT: f64 = 1.5 * (1u64 << 52) as f64;
    (f64::from(value) + SHIFT).to_bits() as i32
}

/// Returns the scale of the first slice, 2¹⁶·s, of a row or column whose largest magnitude is `max`.
fn first_slice_scale(max: f32) -> f32 {
    if max < MIN_MAGNITUDE { 0.0 } else { max / QUANTIZED_MAX * 65536.0 }
}

/// Operands of a matrix product.
pub(super) struct Matmul<'a> {
    /// Inner dimension, in [`K_RANGE`].
    pub inputs: usize,
    /// (rows, inputs).
    pub input: &'a [f32],
    /// Columns, a multiple of 16.
    pub outputs: usize,
    /// (rows, outputs).
    pub output: &'a mut [f32],
    /// (outputs).
    pub bias: &'a [f32],
    /// Applied last.
    pub activation: Activation,
}

impl Matmul<'_> {
    /// Computes `output = activation(input · W + bias)` with the [quantized](quantize_panel) panels of W and the
    /// `weight_scales` of its columns. `workspace` receives the quantized input.
    pub fn run<'w>(
        self,
        panels: impl Iterator<Item = &'w [i8]> + Clone,
        weight_scales: &[f32],
        workspace: &mut QuantizedRows,
    ) {
        let Self { inputs, input, outputs, output, bias, activation } = self;
        assert!(is_available() && inputs < K_RANGE.end && outputs.is_multiple_of(TILE_ROWS));
        assert!(
            bias.len() == outputs && weight_scales.len() == outputs && input.len() / inputs == output.len() / outputs
        );
        let group_len = panel_len(inputs);
        let block_rows = (L2_BYTES / group_len).max(4) * TILE_ROWS;
        let l1_group_count = if group_len <= L1_BYTES { L1_BYTES / group_len } else { usize::MAX };
        let (mut current, mut previous) = (&mut TileSums::default(), &mut TileSums::default());
        for (input, output) in input.chunks(block_rows * inputs).zip(output.chunks_mut(block_rows * outputs)) {
            let rows = output.len() / outputs;
            let groups = rows.div_ceil(TILE_ROWS);
            workspace.slices.grow_to(groups * group_len);
            workspace.scales.grow_to(groups * TILE_ROWS);
            // SAFETY: `is_available` has checked for AVX-512.
            unsafe { quantize_rows(input, inputs, &mut workspace.slices[..groups * group_len], &mut workspace.scales) };
            // Full groups of 16 rows, then the remaining rows.
            for (range, height) in [(0..rows / TILE_ROWS, TILE_ROWS), (rows / TILE_ROWS..groups, rows % TILE_ROWS)] {
                if range.is_empty() {
                    continue;
                }
                let _config = TileConfig::new(height);
                let mut store = |sums: &TileSums, (group, column): (usize, usize)| {
                    let columns = column..column + TILE_ROWS;
                    let (column_scales, bias) = (&weight_scales[columns.clone()], &bias[columns]);
                    let row_scales = &workspace.scales[group * TILE_ROWS..][..height];
                    let dequantize = Dequantize { row_scales, column_scales, bias, activation };
                    // SAFETY: `is_available` has checked for AVX-512.
                    unsafe { dequantize.store(sums, &mut output[group * TILE_ROWS * outputs + column..], outputs) };
                };
                // The vector units store the previous sums while the tile unit computes the current ones.
                let mut pending = None;
                for first in range.clone().step_by(l1_group_count) {
                    for (panel, weights) in panels.clone().enumerate() {
                        for group in first..range.end.min(first.saturating_add(l1_group_count)) {
                            // SAFETY: AMX is available and the tiles are configured.
                            unsafe { multiply(&workspace.slices[group * group_len..][..group_len], weights, current) };
                            if let Some(position) = pending.replace((group, panel * TILE_ROWS)) {
                                store(previous, position);
                            }
                            std::mem::swap(&mut current, &mut previous);
                        }
                    }
                }
                pending.into_iter().for_each(|position| store(previous, position));
            }
            if matches!(activation, Activation::Gelu | Activation::QuickGelu) {
                pulp::Arch::new().dispatch(ApplyActivation { values: output, activation });
            }
        }
    }
}

/// Guard of the current thread's tile configuration, which is released when the guard is dropped.
pub(super) struct TileConfig;

impl TileConfig {
    /// Configures tiles 0 to 5 (sums and activations) with `height` rows, tiles 6 and 7 (weights) with 16.
    pub fn new(height: usize) -> Self {
        #[repr(C, align(64))]
        struct ConfigBytes([u8; 64]);
        // Operand of LDTILECFG: byte 0 is the palette, bytes 16 to 31 the lengths of tile rows (u16, in bytes), bytes
        // 48 to 55 the numbers of rows.
        let mut config = ConfigBytes([0; 64]);
        config.0[0] = 1;
        for tile in 0..8 {
            config.0[16 + 2 * tile] = TILE_ROW_BYTES as u8;
            config.0[48 + tile] = if tile >= 6 { TILE_ROWS } else { height } as u8;
        }
        // SAFETY: the operand is a valid configuration of 64 bytes, and AMX is available. The instruction zeroes all
        // tiles.
        unsafe {
            asm!(
                "ldtilecfg [{}]", in(reg) &config,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self
    }
}

impl Drop for TileConfig {
    fn drop(&mut self) {
        // Returns the tiles to their initial state, so that context switches do not save them.
        // SAFETY: AMX is available, since `new` has configured the tiles; no tile is in use.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

/// Number of elements of a tile of sums.
pub(super) const TILE_SUMS: usize = TILE_ROWS * TILE_ROWS;

/// Sums of the products of first, second and third order for one output tile, (order, row, column).
#[repr(C, align(64))]
struct TileSums([i32; 3 * TILE_SUMS]);

impl Default for TileSums {
    fn default() -> Self {
        Self([0; 3 * TILE_SUMS])
    }
}

/// Multiplies a group of rows by a panel of weights. Tiles 0 to 2 hold the sums by order, 3 to 5 the slices of the
/// rows, 6 and 7 slices of the weights.
///
/// # Safety
/// AMX must be [available](is_available) and the tiles [configured](TileConfig) for the height of the group.
unsafe fn multiply(rows: &[i8], weights: &[i8], sums: &mut TileSums) {
    assert!(rows.len() == weights.len() && !rows.is_empty() && rows.len().is_multiple_of(SLICES * TILE_BYTES));
    // SAFETY: both operands consist of the same number of blocks of three tiles, as asserted, and `sums` has three
    // tiles. All tiles are declared as clobbered; flags and memory are clobbered by default.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "2:",
            "tileloadd tmm5, [{rows} + {stride} + 2048]",
            "tileloadd tmm6, [{weights} + {stride}]",
            "tdpbssd tmm2, tmm5, tmm6", // x3·w1
            "tileloadd tmm3, [{rows} + {stride}]",
            "tdpbssd tmm0, tmm3, tmm6", // x1·w1
            "tileloadd tmm4, [{rows} + {stride} + 1024]",
            "tdpbssd tmm1, tmm4, tmm6", // x2·w1
            "tileloadd tmm7, [{weights} + {stride} + 1024]",
            "tdpbssd tmm2, tmm4, tmm7", // x2·w2
            "tdpbssd tmm1, tmm3, tmm7", // x1·w2
            "tileloadd tmm6, [{weights} + {stride} + 2048]",
            "tdpbssd tmm2, tmm3, tmm6", // x1·w3
            "add {rows}, 3072",
            "add {weights}, 3072",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {stride}], tmm0",
            "tilestored [{sums} + {stride} + 1024], tmm1",
            "tilestored [{sums} + {stride} + 2048], tmm2",
            rows = inout(reg) rows.as_ptr() => _,
            weights = inout(reg) weights.as_ptr() => _,
            blocks = inout(reg) rows.len() / (SLICES * TILE_BYTES) => _,
            sums = in(reg) sums,
            stride = in(reg) TILE_ROW_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Epilogue of an output tile: converts its sums to f32 and applies scales, bias and activation.
struct Dequantize<'a> {
    /// Scale per row of activations.
    row_scales: &'a [f32],
    /// Scale per column of weights.
    column_scales: &'a [f32],
    /// Bias per column.
    bias: &'a [f32],
    /// Applied last, except for both forms of GELU, which the caller applies.
    activation: Activation,
}

impl Dequantize<'_> {
    /// Adds the sums of all orders and stores one row of `output`, `stride` elements apart, per row scale.
    #[target_feature(enable = "avx512f")]
    fn store(self, sums: &TileSums, output: &mut [f32], stride: usize) {
        let Self { row_scales, column_scales, bias, activation } = self;
        let (second_order, third_order) = (_mm512_set1_ps(1.0 / 256.0), _mm512_set1_ps(1.0 / 65536.0));
        let (low, high) = match activation {
            Activation::None | Activation::Gelu | Activation::QuickGelu => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Relu6 => (0.0, 6.0),
        };
        let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
        assert!(column_scales.len() == TILE_ROWS && bias.len() == TILE_ROWS);
        // SAFETY: both slices have 16 elements.
        let (scales, bias) = unsafe { (_mm512_loadu_ps(column_scales.as_ptr()), _mm512_loadu_ps(bias.as_ptr())) };
        let (sum_rows, _) = sums.0.as_chunks::<TILE_ROWS>();
        for (row, scale) in row_scales.iter().enumerate() {
            let values = &mut output[row * stride..][..TILE_ROWS];
            // SAFETY: a row of sums has 16 elements and is aligned to 64 bytes; `values` has 16 elements.
            unsafe {
                let sum = |order: usize| {
                    _mm512_cvtepi32_ps(_mm512_load_si512(sum_rows[order * TILE_ROWS + row].as_ptr().cast()))
                };
                let total = _mm512_fmadd_ps(sum(1), second_order, sum(0));
                let total = _mm512_fmadd_ps(sum(2), third_order, total);
                let scale = _mm512_mul_ps(_mm512_set1_ps(*scale), scales);
                let value = _mm512_fmadd_ps(total, scale, bias);
                // NaN propagates: `max` and `min` return their second operand if either is NaN.
                _mm512_storeu_ps(values.as_mut_ptr(), _mm512_min_ps(high, _mm512_max_ps(low, value)));
            }
        }
    }
}

/// Quantizes rows of activations (rows, inputs) to `slices` and one scale per row. The layout is: per group of 16 rows
/// and block of 64 inputs, the tiles of the first, second and third slices. If the last group has fewer rows, the rest
/// of its tiles is left unchanged.
#[target_feature(enable = "avx512f,avx512bw")]
fn quantize_rows(input: &[f32], inputs: usize, slices: &mut [i8], scales: &mut [f32]) {
    let blocks = inputs.div_ceil(TILE_ROW_BYTES);
    let groups = input.chunks(TILE_ROWS * inputs).zip(slices.chunks_exact_mut(blocks * SLICES * TILE_BYTES));
    for ((rows, slices), scales) in groups.zip(scales.chunks_exact_mut(TILE_ROWS)) {
        let mut maxima = [_mm512_setzero_si512(); TILE_ROWS];
        for (row, max) in rows.chunks_exact(inputs).zip(&mut maxima) {
            // Without the sign bit, f32 bit patterns compare like magnitudes, and NaN compares largest.
            let mut update = |values| {
                let bits = _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(i32::MAX));
                *max = _mm512_max_epu32(*max, bits);
            };
            let (vectors, remainder) = row.as_chunks::<TILE_ROWS>();
            for values in vectors {
                // SAFETY: the array has 16 elements.
                update(unsafe { _mm512_loadu_ps(values.as_ptr()) });
            }
            update(load_partial(remainder));
        }
        let mut row_maxima = [0.0f32; TILE_ROWS];
        // SAFETY: the array has 16 elements.
        unsafe { _mm512_storeu_si512(row_maxima.as_mut_ptr().cast(), reduce_max_each(maxima)) };
        for (scale, max) in scales.iter_mut().zip(row_maxima) {
            *scale = first_slice_scale(max);
        }
        let inverses = row_maxima.map(inverse_scale);
        for ((index, row), inverse) in rows.chunks_exact(inputs).enumerate().zip(inverses) {
            let inverse = _mm512_set1_ps(inverse);
            let (blocks, remainder) = row.as_chunks::<TILE_ROW_BYTES>();
            let mut tiles = slices.chunks_exact_mut(SLICES * TILE_BYTES);
            for (values, tiles) in blocks.iter().zip(&mut tiles) {
                // SAFETY: the array has 4·16 elements.
                let values = [0, 1, 2, 3].map(|i| unsafe { _mm512_loadu_ps(values.as_ptr().add(i * TILE_ROWS)) });
                quantize_block(values, inverse, tiles, index);
            }
            if let Some(tiles) = tiles.next() {
                let values = [0, 1, 2, 3].map(|i| load_partial(&remainder[remainder.len().min(i * TILE_ROWS)..]));
                quantize_block(values, inverse, tiles, index);
            }
        }
    }
}

/// Returns the unsigned maximum of each of 16 vectors.
#[target_feature(enable = "avx512f")]
fn reduce_max_each(vectors: [__m512i; TILE_ROWS]) -> __m512i {
    // Each step reduces two vectors to half their elements and stores both halves in one vector.
    let halves: [__m512i; 8] = std::array::from_fn(|i| {
        let (a, b) = (vectors[i], vectors[i + 8]);
        _mm512_max_epu32(_mm512_shuffle_i64x2::<0b01_00_01_00>(a, b), _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b))
    });
    let quarters: [__m512i; 4] = std::array::from_fn(|i| {
        let (a, b) = (halves[i], halves[i + 4]);
        _mm512_max_epu32(_mm512_shuffle_i64x2::<0b10_00_10_00>(a, b), _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b))
    });
    let eighths: [__m512i; 2] = std::array::from_fn(|i| {
        let (a, b) = (quarters[i], quarters[i + 2]);
        _mm512_max_epu32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    });
    let [a, b] = eighths.map(|vector| _mm512_castsi512_ps(vector));
    let (even, odd) = (_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b));
    let shuffled = _mm512_max_epu32(_mm512_castps_si512(even), _mm512_castps_si512(odd));
    // The steps leave the maxima in a permuted order.
    let order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    _mm512_permutexvar_epi32(order, shuffled)
}

/// Returns the position of input `input` (0 to 63) of a block along the inner dimension of a tile. Activations and weights use the same
/// permutation of inputs, so it does not change the product; it is chosen so that [`quantize_block`] shuffles only
/// within 128-bit lanes.
fn tile_position(input: usize) -> usize {
    input % TILE_ROWS / 4 * TILE_ROWS + input / TILE_ROWS * 4 + input % 4
}

/// Quantizes 64 values, multiplied by `inverse`, to row `row` of the three tiles of a block.
#[target_feature(enable = "avx512f,avx512bw")]
fn quantize_block(values: [__m512; 4], inverse: __m512, tiles: &mut [i8], row: usize) {
    let offset = _mm512_set1_epi32(0x0080_8080);
    // Per 128-bit lane: the first slices of four values, then their second and third ones.
    let shuffle = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1));
    let [a, b, c, d] = values.map(|values| {
        let value = _mm512_cvtps_epi32(_mm512_mul_ps(values, inverse));
        // Digits from -128 to 127, as in `quantize_panel`.
        _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(value, offset), offset), shuffle)
    });
    let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let third = _mm512_unpacklo_epi64(_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    let slices = [_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high), third];
    for (slice, tile) in slices.into_iter().zip(tiles.chunks_exact_mut(TILE_BYTES)) {
        let tile_row = &mut tile[row * TILE_ROW_BYTES..][..TILE_ROW_BYTES];
        // SAFETY: a tile row has 64 bytes, the size of a vector.
        unsafe { _mm512_storeu_si512(tile_row.as_mut_ptr().cast(), slice) };
    }
}

/// Loads up to 16 values, followed by zeros.
#[target_feature(enable = "avx512f")]
fn load_partial(values: &[f32]) -> __m512 {
    let mask = ((1u32 << values.len().min(TILE_ROWS)) - 1) as u16;
    // SAFETY: only elements selected by the mask are read.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
}
