//! Products of two groups of 16 rows with two panels of 16 outputs on Intel AMX tiles, for 8-bit integers and bfloat16. A panel consists
//! of tiles, one per 64 bytes of a row.
#![allow(unsafe_code)]

use std::ops::Range;

use super::amx::{self, TILE_ROWS, TILE_SUMS, TileConfig};

/// Bytes of a row that one tile product sums over.
pub(super) const BLOCK_BYTES: usize = 64;

/// Sums of two groups and two panels: (group, panel, row, output).
#[repr(C, align(64))]
pub(super) struct TilePairSums<T>(pub [T; 4 * TILE_SUMS]);

/// Operands of a product of two groups with two panels.
pub(super) struct TilePairs {
    /// The first row of each group.
    pub rows: [*const u8; 2],
    /// Bytes from row to row, a multiple of [`BLOCK_BYTES`].
    pub row_bytes: usize,
    pub panels: [*const u8; 2],
}

/// Defines an unsafe function that computes the [`TilePairSums`] of [`TilePairs`] with a tile instruction. AMX must be available, the tiles
/// [configured](TileConfig) for the height of the groups, and the groups and panels must exist.
macro_rules! multiply_pairs {
    ($name:ident, $instruction:literal, $sum:ty) => {
        unsafe fn $name(pairs: TilePairs, sums: &mut TilePairSums<$sum>) {
            let TilePairs { rows: [rows0, rows1], row_bytes, panels: [panel0, panel1] } = pairs;
            // SAFETY: a group has `row_bytes` per row and a panel a tile per block; `sums` has four tiles. All tiles are declared as
            // clobbered; flags and memory are clobbered by default. Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{rows0} + {row_stride}]",
                    "tileloadd tmm6, [{panel0} + {stride}]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{panel1} + {stride}]",
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    "tileloadd tmm5, [{rows1} + {row_stride}]",
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
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
                    blocks = inout(reg) row_bytes / 64 => _,
                    row_stride = in(reg) row_bytes,
                    stride = in(reg) 64usize,
                    sums = in(reg) sums,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}
pub(super) use multiply_pairs;

/// Divides a product of `rows` rows with the columns of `blocks` into pairs of groups and panels of 16 columns. Calls `compute` with the
/// height of the groups, which the tiles are configured for, and the first rows and columns. Without a second group or panel, both are equal.
///
/// # Panics
/// Panics if AMX is not available.
pub(super) fn for_each_pair<B: Iterator<Item = Range<usize>>>(
    rows: usize,
    blocks: impl Fn() -> B,
    mut compute: impl FnMut(usize, [usize; 2], [usize; 2]),
) {
    assert!(amx::is_available());
    let whole = rows / TILE_ROWS * TILE_ROWS;
    // Whole groups of rows, then the remaining rows.
    for (range, height) in [(0..whole, TILE_ROWS), (whole..rows, rows - whole)] {
        if range.is_empty() {
            continue;
        }
        let _config = TileConfig::new(height);
        for columns in blocks() {
            for row in range.clone().step_by(2 * height) {
                for first in columns.clone().step_by(2 * TILE_ROWS) {
                    let second =
                        |first: usize, step: usize, end: usize| if first + step < end { first + step } else { first };
                    let rows = [row, second(row, height, range.end)];
                    compute(height, rows, [first, second(first, TILE_ROWS, columns.end)]);
                }
            }
        }
    }
}
