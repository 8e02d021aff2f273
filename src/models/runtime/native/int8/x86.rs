//! Integer kernels of x86-64.
//!
//! The pointers stay within the slices of a [`Product`], whose lengths [`Product::check`] has
//! compared.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::kernel::{Tile, column_blocks, for_each_tile};
use super::{GROUP, InputQuantization, Kernel, PANEL, Product};

/// Defines a function that multiplies all rows with all panels on 256-bit vectors, `rows` at a time, with the given instructions for
/// `accumulator + dot products of four u8 and four i8`.
macro_rules! multiply_256 {
    ($run:ident, $product:ident, $tile:ident, $kernel:ident, $features:literal, $rows:literal, $dot:expr) => {
        pub(super) fn $run(product: Product<'_>) {
            product.check();
            assert!(Kernel::$kernel.is_available());
            // SAFETY: the processor has the instructions, and the lengths of the operands have been checked.
            unsafe { $product(product) }
        }

        #[target_feature(enable = $features)]
        unsafe fn $product(mut product: Product<'_>) {
            let rows = product.rows.len() / product.inputs;
            let blocks = column_blocks(product.offsets.len(), PANEL * product.inputs);
            for_each_tile(rows, blocks, &[$rows, 2, 1], 1, |Tile { row, height, first, .. }| {
                // SAFETY: the processor has the instructions, and the rows and columns exist.
                unsafe {
                    match height {
                        $rows => $tile::<$rows>(&mut product, row, first),
                        2 => $tile::<2>(&mut product, row, first),
                        _ => $tile::<1>(&mut product, row, first),
                    }
                }
            });
        }

        /// Computes `R` rows from `row` on and 16 columns from `first` on, which must exist.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn $tile<const R: usize>(product: &mut Product<'_>, row: usize, first: usize) {
            let (inputs, outputs) = (product.inputs, product.offsets.len());
            // SAFETY: `R` rows of `inputs` bytes, a panel of 16 · `inputs` bytes, 16 elements of each vector and `R` rows of the output exist.
            unsafe {
                let rows = product.rows.as_ptr().add(row * inputs);
                let panel = product.panels.as_ptr().add(first * inputs);
                let load = |vector: usize| _mm256_loadu_si256(product.offsets.as_ptr().add(first + 8 * vector).cast());
                let mut sums = [[load(0), load(1)]; R];
                for group in 0..inputs / GROUP {
                    let weights = panel.add(group * GROUP * PANEL);
                    let weights = [_mm256_loadu_si256(weights.cast()), _mm256_loadu_si256(weights.add(32).cast())];
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = rows.add(r * inputs + group * GROUP).cast::<i32>().read_unaligned();
                        let x = _mm256_set1_epi32(x);
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            *sum = $dot(*sum, x, weights);
                        }
                    }
                }
                let (low, high) = (_mm256_set1_ps(product.bounds.0), _mm256_set1_ps(product.bounds.1));
                for (r, sums) in sums.into_iter().enumerate() {
                    for (vector, sum) in sums.into_iter().enumerate() {
                        let column = first + 8 * vector;
                        let scale = _mm256_loadu_ps(product.scales.as_ptr().add(column));
                        let bias = _mm256_loadu_ps(product.bias.as_ptr().add(column));
                        let value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, bias);
                        // NaN propagates: `max` and `min` return their second operand if either is NaN.
                        let value = _mm256_min_ps(high, _mm256_max_ps(low, value));
                        _mm256_storeu_ps(product.output.as_mut_ptr().add((row + r) * outputs + column), value);
                    }
                }
            }
        }
    };
}

multiply_256!(multiply_avx2, product_avx2, tile_avx2, Avx2, "avx2,fma", 4, |sum, x, weights| {
    // Pairs of products do not saturate, see the module's documentation.
    let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(x, weights), _mm256_set1_epi16(1));
    _mm256_add_epi32(sum, pairs)
});

multiply_256!(multiply_avx_vnni, product_avx_vnni, tile_avx_vnni, AvxVnni, "avx2,fma,avxvnni", 6, |sum, x, weights| {
    _mm256_dpbusd_avx_epi32(sum, x, weights)
});

pub(super) fn multiply_avx512_vnni(product: Product<'_>) {
    product.check();
    assert!(Kernel::Avx512Vnni.is_available());
    // SAFETY: the processor has the instructions, and the lengths of the operands have been checked.
    unsafe { product_avx512_vnni(product) }
}

#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn product_avx512_vnni(mut product: Product<'_>) {
    let rows = product.rows.len() / product.inputs;
    let blocks = column_blocks(product.offsets.len(), PANEL * product.inputs);
    for_each_tile(rows, blocks, &[12, 4, 1], 2, |Tile { row, height, first, panels }| {
        // SAFETY: the processor has the instructions, and the rows and columns exist.
        unsafe {
            match (panels, height) {
                (2, 12) => tile_avx512_vnni::<12, 2>(&mut product, row, first),
                (2, 4) => tile_avx512_vnni::<4, 2>(&mut product, row, first),
                (2, _) => tile_avx512_vnni::<1, 2>(&mut product, row, first),
                (_, 12) => tile_avx512_vnni::<12, 1>(&mut product, row, first),
                (_, 4) => tile_avx512_vnni::<4, 1>(&mut product, row, first),
                _ => tile_avx512_vnni::<1, 1>(&mut product, row, first),
            }
        }
    });
}

/// Computes `R` rows from `row` on and 16 · `P` columns from `first` on, which must exist.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn tile_avx512_vnni<const R: usize, const P: usize>(product: &mut Product<'_>, row: usize, first: usize) {
    let (inputs, outputs) = (product.inputs, product.offsets.len());
    // SAFETY: `R` rows of `inputs` bytes, `P` panels of 16 · `inputs` bytes, 16 · `P` elements of each vector and `R` rows of the output
    // exist.
    unsafe {
        let rows = product.rows.as_ptr().add(row * inputs);
        let panel = |p: usize| product.panels.as_ptr().add((first + p * PANEL) * inputs);
        let offsets = |p: usize| _mm512_loadu_si512(product.offsets.as_ptr().add(first + p * PANEL).cast());
        let mut sums: [[__m512i; P]; R] = [std::array::from_fn(offsets); R];
        for group in 0..inputs / GROUP {
            let weights: [__m512i; P] =
                std::array::from_fn(|p| _mm512_loadu_si512(panel(p).add(group * GROUP * PANEL).cast()));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(rows.add(r * inputs + group * GROUP).cast::<i32>().read_unaligned());
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, x, weights);
                }
            }
        }
        let (low, high) = (_mm512_set1_ps(product.bounds.0), _mm512_set1_ps(product.bounds.1));
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                let column = first + p * PANEL;
                let scale = _mm512_loadu_ps(product.scales.as_ptr().add(column));
                let bias = _mm512_loadu_ps(product.bias.as_ptr().add(column));
                let value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, bias);
                // NaN propagates: `max` and `min` return their second operand if either is NaN.
                let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                _mm512_storeu_ps(product.output.as_mut_ptr().add((row + r) * outputs + column), value);
            }
        }
    }
}

/// As [`Kernel::quantize`], on 256-bit vectors.
pub(super) fn quantize(quantization: InputQuantization, values: &[f32], quantized: &mut [u8]) -> bool {
    assert!(Kernel::Avx2.is_available());
    // SAFETY: the processor has AVX2.
    unsafe { quantize_avx2(quantization, values, quantized) }
}

#[target_feature(enable = "avx2")]
fn quantize_avx2(quantization: InputQuantization, values: &[f32], quantized: &mut [u8]) -> bool {
    let inverse = _mm256_set1_ps(quantization.scale.recip());
    // Larger values have no i32; smaller ones become `i32::MIN`.
    let limit = _mm256_set1_ps(1e6);
    let integers = |x: __m256| _mm256_cvtps_epi32(_mm256_min_ps(limit, _mm256_mul_ps(x, inverse)));
    let zero_point = i16::from(quantization.zero_point);
    let mut nan = _mm256_setzero_ps();
    let (blocks, rest) = values.as_chunks::<32>();
    let (quantized_blocks, quantized_rest) = quantized.split_at_mut(values.len() - rest.len());
    let (quantized_blocks, _) = quantized_blocks.as_chunks_mut::<32>();
    for (values, quantized) in blocks.iter().zip(quantized_blocks) {
        // SAFETY: the array has 4·8 elements.
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * i)) });
        nan = _mm256_or_ps(nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b));
        nan = _mm256_or_ps(nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(c, d));
        let shift = |x| _mm256_adds_epi16(x, _mm256_set1_epi16(zero_point));
        let low = shift(_mm256_packs_epi32(integers(a), integers(b)));
        let high = shift(_mm256_packs_epi32(integers(c), integers(d)));
        // Packing works within 128-bit lanes: a0 b0 c0 d0 a1 b1 c1 d1, in groups of four bytes.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let packed = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
        // SAFETY: the array has 32 bytes.
        unsafe { _mm256_storeu_si256(quantized.as_mut_ptr().cast(), packed) };
    }
    let (blocks, tail) = rest.as_chunks::<8>();
    let (quantized_blocks, quantized_tail) = quantized_rest.split_at_mut(rest.len() - tail.len());
    let (quantized_blocks, _) = quantized_blocks.as_chunks_mut::<8>();
    for (values, quantized) in blocks.iter().zip(quantized_blocks) {
        // SAFETY: the array has 8 elements.
        let x = unsafe { _mm256_loadu_ps(values.as_ptr()) };
        nan = _mm256_or_ps(nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        let x = integers(x);
        let words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        let words = _mm_adds_epi16(words, _mm_set1_epi16(zero_point));
        // SAFETY: the array has 8 bytes.
        unsafe { _mm_storel_epi64(quantized.as_mut_ptr().cast(), _mm_packus_epi16(words, words)) };
    }
    super::quantize(quantization, tail, quantized_tail) | (_mm256_movemask_ps(nan) != 0)
}
