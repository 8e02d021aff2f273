//! Integer kernel for Intel AMX: one tile product per 16 rows, 16 outputs and 64 inputs. The layout of the weights is that of tiles.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::amx::{self, TileConfig};
use super::{Kernel, PANEL, Product, column_blocks};

/// Inputs that one tile product sums over.
pub(super) const BLOCK: usize = 64;

/// Bytes per tile, and i32 per tile of sums.
const TILE_BYTES: usize = 1024;
const TILE_SUMS: usize = TILE_BYTES / 4;

/// Sums of two groups of 16 rows and two panels: (group, panel, row, output).
#[repr(C, align(64))]
struct Sums([i32; 4 * TILE_SUMS]);

/// Multiplies all rows with all panels. The number of inputs is a multiple of [`BLOCK`].
pub(super) fn multiply(mut product: Product<'_>) {
    product.check();
    assert!(Kernel::Amx.is_available() && product.inputs.is_multiple_of(BLOCK));
    let rows = product.rows.len() / product.inputs;
    let whole = rows / amx::TILE_ROWS * amx::TILE_ROWS;
    let mut sums = Sums([0; 4 * TILE_SUMS]);
    // Whole groups of rows, then the remaining rows.
    for (range, height) in [(0..whole, amx::TILE_ROWS), (whole..rows, rows - whole)] {
        if range.is_empty() {
            continue;
        }
        let _config = TileConfig::new(height);
        for columns in column_blocks(&product) {
            for row in range.clone().step_by(2 * height) {
                for first in columns.clone().step_by(2 * PANEL) {
                    // A group or panel without a second one is multiplied twice.
                    let row_pair = [row, if row + height < range.end { row + height } else { row }];
                    let panel_pair = [first, if first + PANEL < columns.end { first + PANEL } else { first }];
                    // SAFETY: AMX is available, the tiles are configured, and the rows and panels exist.
                    unsafe { multiply_pairs(&product, row_pair, panel_pair, &mut sums) };
                    for (tile, sums) in sums.0.as_chunks::<TILE_SUMS>().0.iter().enumerate() {
                        let (row, first) = (row_pair[tile / 2], panel_pair[tile % 2]);
                        // SAFETY: the processor has AVX-512.
                        unsafe { store(&mut product, sums, row..row + height, first) };
                    }
                }
            }
        }
    }
}

/// Multiplies two groups of rows by two panels. Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights.
///
/// # Safety
/// AMX must be available, the tiles [configured](TileConfig) for the height of the groups, and the rows and panels must exist.
unsafe fn multiply_pairs(product: &Product<'_>, rows: [usize; 2], panels: [usize; 2], sums: &mut Sums) {
    let inputs = product.inputs;
    let [rows0, rows1] = rows.map(|row| product.rows[row * inputs..].as_ptr());
    let [panel0, panel1] = panels.map(|first| product.panels[first * inputs..].as_ptr());
    // SAFETY: a group has `inputs` bytes per row and a panel a tile per block, as `Product::check` has compared; `sums` has four tiles.
    // All tiles are declared as clobbered; flags and memory are clobbered by default.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{rows0} + {row_stride}]",
            "tileloadd tmm6, [{panel0} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{panel1} + {stride}]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{rows1} + {row_stride}]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {rows0}, 64",
            "add {rows1}, 64",
            "add {panel0}, 1024",
            "add {panel1}, 1024",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {stride}], tmm0",
            "tilestored [{sums} + {stride} + 1024], tmm1",
            "tilestored [{sums} + {stride} + 2048], tmm2",
            "tilestored [{sums} + {stride} + 3072], tmm3",
            rows0 = inout(reg) rows0 => _,
            rows1 = inout(reg) rows1 => _,
            panel0 = inout(reg) panel0 => _,
            panel1 = inout(reg) panel1 => _,
            blocks = inout(reg) inputs / BLOCK => _,
            row_stride = in(reg) inputs,
            stride = in(reg) BLOCK,
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
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
