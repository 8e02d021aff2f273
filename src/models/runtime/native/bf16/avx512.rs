//! Product of bfloat16 values with AVX512-BF16.
//!
//! The pointers stay within the slices of a [`Product`], whose lengths [`Product::check`] has compared.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::kernel::{Tile, column_blocks, for_each_tile};
use super::{Kernel, PANEL, Product};

/// Returns `true` on processors of Intel.
pub(super) fn is_intel() -> bool {
    // CPUID leaf 0: the vendor, "GenuineIntel".
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

pub(super) fn multiply(product: Product<'_>) {
    product.check();
    assert!(Kernel::Avx512.is_available());
    // SAFETY: the processor has the instructions, and the lengths of the operands have been checked.
    unsafe { multiply_all(product) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_all(mut product: Product<'_>) {
    let rows = product.rows.len() / product.row_pairs;
    let blocks = column_blocks(product.bias.len(), size_of::<u32>() * PANEL * product.row_pairs);
    for_each_tile(rows, blocks, &[12, 4, 1], 2, |Tile { row, height, first, panels }| {
        // SAFETY: the processor has the instructions, and the rows and columns exist.
        unsafe {
            match (panels, height) {
                (2, 12) => multiply_tile::<12, 2>(&mut product, row, first),
                (2, 4) => multiply_tile::<4, 2>(&mut product, row, first),
                (2, _) => multiply_tile::<1, 2>(&mut product, row, first),
                (_, 12) => multiply_tile::<12, 1>(&mut product, row, first),
                (_, 4) => multiply_tile::<4, 1>(&mut product, row, first),
                _ => multiply_tile::<1, 1>(&mut product, row, first),
            }
        }
    });
}

/// Computes `R` rows from `row` on and 16 · `P` columns from `first` on, which must exist.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn multiply_tile<const R: usize, const P: usize>(product: &mut Product<'_>, row: usize, first: usize) {
    let (row_pairs, outputs) = (product.row_pairs, product.bias.len());
    // SAFETY: `R` rows of pairs, `P` panels, 16 · `P` elements of the bias and `R` rows of the output exist. Vectors of 16 u32 and of
    // 32 bfloat16 have the same size.
    unsafe {
        let bf16 = |pairs: __m512i| std::mem::transmute::<__m512i, __m512bh>(pairs);
        let rows = product.rows.as_ptr().add(row * row_pairs);
        let panel = |p: usize| product.panels.pairs.as_ptr().add((first / PANEL + p) * product.panels.stride);
        let mut sums = [[_mm512_setzero_ps(); P]; R];
        for pair in 0..row_pairs {
            let weights: [__m512bh; P] =
                std::array::from_fn(|p| bf16(_mm512_loadu_si512(panel(p).add(pair * PANEL).cast())));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = bf16(_mm512_set1_epi32(rows.add(r * row_pairs + pair).read() as i32));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbf16_ps(*sum, x, weights);
                }
            }
        }
        let (low, high) = (_mm512_set1_ps(product.bounds.0), _mm512_set1_ps(product.bounds.1));
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                let column = first + p * PANEL;
                let value = _mm512_add_ps(sum, _mm512_loadu_ps(product.bias.as_ptr().add(column)));
                // NaN propagates: `max` and `min` return their second operand if either is NaN.
                let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                _mm512_storeu_ps(product.output.as_mut_ptr().add((row + r) * outputs + column), value);
            }
        }
    }
}
