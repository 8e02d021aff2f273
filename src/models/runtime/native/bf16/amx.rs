//! Kernel for AMX-BF16: one tile product per 16 rows, 16 outputs and 32 inputs. The layout of the weights is that of tiles.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::amx::{self, TILE_SUMS};
use super::super::isa::Isa;
use super::super::kernel::column_blocks;
use super::super::tiles::{TilePairSums, TilePairs, for_each_pair, multiply_pairs};
use super::{PANEL, Product};

multiply_pairs!(multiply_bf16, "tdpbf16ps", f32);

/// Returns `true` if the processor has AMX-BF16 and the operating system permits its use.
pub(super) fn is_available() -> bool {
    // CPUID leaf 7: AMX-BF16 (bit 22).
    amx::is_available() && Isa::Avx512.is_available() && __cpuid_count(7, 0).edx & 1 << 22 != 0
}

/// Multiplies all rows with all panels.
pub(super) fn multiply(mut product: Product<'_>) {
    product.check();
    assert!(is_available());
    let (row_pairs, outputs) = (product.row_pairs, product.bias.len());
    let mut sums = TilePairSums([0.0; 4 * TILE_SUMS]);
    for_each_pair(
        product.rows.len() / row_pairs,
        || column_blocks(outputs, size_of::<u32>() * PANEL * row_pairs),
        |height, rows, columns| {
            let panel = |first: usize| product.panels.pairs[first / PANEL * product.panels.stride..].as_ptr().cast();
            let pairs = TilePairs {
                rows: rows.map(|row| product.rows[row * row_pairs..].as_ptr().cast()),
                row_bytes: size_of::<u32>() * row_pairs,
                panels: columns.map(panel),
            };
            // SAFETY: AMX is available, the tiles are configured, and the rows and panels exist, as `Product::check` has compared.
            unsafe { multiply_bf16(pairs, &mut sums) };
            for (tile, sums) in sums.0.as_chunks::<TILE_SUMS>().0.iter().enumerate() {
                let (row, first) = (rows[tile / 2], columns[tile % 2]);
                // SAFETY: the processor has AVX-512.
                unsafe { store(&mut product, sums, row..row + height, first) };
            }
        },
    );
}

/// Adds the bias to a tile of sums, and stores it at rows of the output and at the columns from `first` on.
#[target_feature(enable = "avx512f")]
fn store(product: &mut Product<'_>, sums: &[f32; TILE_SUMS], rows: Range<usize>, first: usize) {
    let outputs = product.bias.len();
    let (bias, (low, high)) = (&product.bias[first..first + PANEL], product.bounds);
    // SAFETY: the slice has 16 elements.
    let bias = unsafe { _mm512_loadu_ps(bias.as_ptr()) };
    let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
    for (row, sums) in rows.zip(sums.as_chunks::<PANEL>().0) {
        let values = &mut product.output[row * outputs + first..][..PANEL];
        // SAFETY: both arrays have 16 elements.
        unsafe {
            let value = _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), bias);
            // NaN propagates: `max` and `min` return their second operand if either is NaN.
            _mm512_storeu_ps(values.as_mut_ptr(), _mm512_min_ps(high, _mm512_max_ps(low, value)));
        }
    }
}
