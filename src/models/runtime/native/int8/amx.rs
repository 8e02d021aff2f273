//! Integer kernel for Intel AMX: one tile product per 16 rows, 16 outputs and 64 inputs. The layout of the weights is that of tiles.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::amx::TILE_SUMS;
use super::super::kernel::column_blocks;
use super::super::tiles::{BLOCK_BYTES, TilePairSums, TilePairs, for_each_pair, multiply_pairs};
use super::{Kernel, PANEL, Product};

/// Inputs that one tile product sums over.
pub(super) const BLOCK: usize = BLOCK_BYTES;

multiply_pairs!(multiply_int8, "tdpbusd", i32);

/// Multiplies all rows with all panels. The number of inputs is a multiple of [`BLOCK`].
pub(super) fn multiply(mut product: Product<'_>) {
    product.check();
    assert!(Kernel::Amx.is_available() && product.inputs.is_multiple_of(BLOCK));
    let (inputs, outputs) = (product.inputs, product.offsets.len());
    let mut sums = TilePairSums([0; 4 * TILE_SUMS]);
    for_each_pair(
        product.rows.len() / inputs,
        || column_blocks(outputs, PANEL * inputs),
        |height, rows, columns| {
            let pairs = TilePairs {
                rows: rows.map(|row| product.rows[row * inputs..].as_ptr()),
                row_bytes: inputs,
                panels: columns.map(|first| product.panels[first * inputs..].as_ptr().cast()),
            };
            // SAFETY: AMX is available, the tiles are configured, and the rows and panels exist, as `Product::check` has compared.
            unsafe { multiply_int8(pairs, &mut sums) };
            for (tile, sums) in sums.0.as_chunks::<TILE_SUMS>().0.iter().enumerate() {
                let (row, first) = (rows[tile / 2], columns[tile % 2]);
                // SAFETY: the processor has AVX-512.
                unsafe { store(&mut product, sums, row..row + height, first) };
            }
        },
    );
}

/// Converts a tile of sums to f32, and stores it at rows of the output and at the columns from `first` on.
#[target_feature(enable = "avx512f")]
fn store(product: &mut Product<'_>, sums: &[i32; TILE_SUMS], rows: std::ops::Range<usize>, first: usize) {
    let outputs = product.offsets.len();
    let columns = first..first + PANEL;
    let (offsets, scales) = (&product.offsets[columns.clone()], &product.scales[columns.clone()]);
    let (bias, (low, high)) = (&product.bias[columns], product.bounds);
    // SAFETY: the slices have 16 elements.
    let (offsets, scales, bias) = unsafe {
        (_mm512_loadu_si512(offsets.as_ptr().cast()), _mm512_loadu_ps(scales.as_ptr()), _mm512_loadu_ps(bias.as_ptr()))
    };
    let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
    for (row, sums) in rows.zip(sums.as_chunks::<PANEL>().0) {
        let values = &mut product.output[row * outputs + first..][..PANEL];
        // SAFETY: both arrays have 16 elements.
        unsafe {
            let sum = _mm512_add_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), offsets);
            let value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scales, bias);
            // NaN propagates: `max` and `min` return their second operand if either is NaN.
            _mm512_storeu_ps(values.as_mut_ptr(), _mm512_min_ps(high, _mm512_max_ps(low, value)));
        }
    }
}
