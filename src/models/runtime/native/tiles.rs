//! The matrix product on a processor's tile unit (Intel AMX): many times the multiplications of its vectors, but of integers
//! of eight bits.
//!
//! Every row of activations and every column of weights is therefore written with one scale and three such digits a number,
//! x = s·(2¹⁶·d₁ + 2⁸·d₂ + d₃), which is 24 bits, as many as an f32 has, of the largest of the row. The tiles multiply digits
//! with digits and add them up without any error, and of the nine products of two numbers those six that matter in 24 bits
//! are made: d₁·d₁, d₁·d₂ + d₂·d₁ and d₁·d₃ + d₂·d₂ + d₃·d₁ (Ozaki, Ogita, Oishi & Rump, "Error-free transformations of
//! matrix multiplication by using fast routines of matrix multiplication and its applications", 2012; on integer units:
//! Ootomo, Ozaki & Yokota, "DGEMM on Integer Matrix Multiplication Unit", 2024). The result is as near to the true sum as
//! that of f32.
//!
//! All that is unsafe of it is here.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use super::aligned::Aligned;
use super::layers::{Activation, apply};

/// Rows of a tile, and f32 in a row of one.
pub(super) const SIDE: usize = 16;

/// Digits in a row of a tile: inputs that are multiplied at a time.
const DEPTH: usize = 64;

/// Digits in a tile.
const TILE: usize = SIDE * DEPTH;

/// Digits of a number.
const DIGITS: usize = 3;

/// What the largest number of a row or column is written as.
const LARGEST: f32 = 127.0 * 65536.0;

/// Smaller than this a row's largest number is 0: its scale could not be inverted.
const SMALLEST: f32 = 1e-30;

/// Inputs of a row that tiles are made for. Of fewer what is done before and after takes longer than the product does in
/// vectors; of more the sums, of three products of up to 2¹⁴ an input, could pass 2³¹.
pub(super) const WORTH: Range<usize> = 48..1 << 15;

/// Bytes of digits of activations that are made at a time: they should stay in the second-level cache.
const BLOCK: usize = 1 << 19;

/// Bytes of them that stay in the first-level cache while all weights pass by. Longer rows pass by the weights.
const NEAR: usize = 20 << 10;

/// Whether this processor has tiles of integers and the system lets them be used. Asked of the system once, for all
/// threads.
pub(super) fn available() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // Bits of leaf 7: AMX-TILE and AMX-INT8.
        let tiles = || __cpuid_count(7, 0).edx & (3 << 24) == 3 << 24;
        is_x86_feature_detected!("avx512bw") && tiles() && permitted()
    })
}

/// Asks Linux for the tiles' state, which a process does not have by itself.
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // Safety: it takes two numbers and touches no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// The digits of rows, and the scale of each.
#[derive(Debug, Default)]
pub(super) struct Rows {
    digits: Aligned<i8>,
    scales: Aligned<f32>,
}

/// Digits of a panel of weights of so many inputs, and of as many rows as a tile has.
pub(super) fn panel_length(inputs: usize) -> usize {
    inputs.div_ceil(DEPTH) * DIGITS * TILE
}

/// Lays out a panel of weights (inputs, 16 outputs), and gives the scales of its columns: block of inputs after block, of it
/// the tile of first digits, then the second and the third; a row of a tile holds of every output the inputs of four
/// [positions](position).
pub(super) fn lay_out(panel: &[f32], digits: &mut [i8], scales: &mut [f32]) {
    scales.fill(0.0);
    for row in panel.chunks_exact(SIDE) {
        for (largest, value) in scales.iter_mut().zip(row) {
            // What is no number stays.
            *largest = if value.abs() > *largest || value.is_nan() { value.abs() } else { *largest };
        }
    }
    let inverses: Vec<f32> = scales.iter().map(|&largest| inverse(largest)).collect();
    for (block, rows) in digits.chunks_exact_mut(DIGITS * TILE).zip(panel.chunks(DEPTH * SIDE)) {
        for (input, row) in rows.chunks_exact(SIDE).enumerate() {
            let position = position(input);
            for (output, (value, inverse)) in row.iter().zip(&inverses).enumerate() {
                let at = position / 4 * DEPTH + output * 4 + position % 4;
                // Rounded digits: what is left is between -128 and 127.
                let whole = rounded(value * inverse) + 0x0080_8080;
                for digit in 0..DIGITS {
                    block[at + digit * TILE] = ((whole >> (16 - 8 * digit)) as u8 ^ 0x80) as i8;
                }
            }
        }
    }
    scales.iter_mut().for_each(|largest| *largest = scale(*largest));
}

/// Of the largest number, what it is multiplied with to be written; 0 where it is none.
fn inverse(largest: f32) -> f32 {
    if largest < SMALLEST { 0.0 } else { LARGEST / largest }
}

/// The nearest integer, which stands in the last bits of a sum that has no place for less.
fn rounded(value: f32) -> i32 {
    const NO_LESS: f64 = 1.5 * (1u64 << 52) as f64;
    (f64::from(value) + NO_LESS).to_bits() as i32
}

/// Of the largest number, what its first digit is worth.
fn scale(largest: f32) -> f32 {
    if largest < SMALLEST { 0.0 } else { largest / LARGEST * 65536.0 }
}

/// What a product reads and writes.
pub(super) struct Product<'a> {
    /// Channels in of a row.
    pub inputs: usize,
    /// (rows, inputs).
    pub input: &'a [f32],
    /// Channels out of a row.
    pub outputs: usize,
    /// (rows, outputs).
    pub output: &'a mut [f32],
    /// (outputs).
    pub bias: &'a [f32],
    /// What follows.
    pub activation: Activation,
}

impl Product<'_> {
    /// Rows times weights that were [laid out](lay_out), given panel after panel, and the `scales` of their columns. `rows` is
    /// room for the digits of the input.
    pub fn run<'w>(self, panels: impl Iterator<Item = &'w [i8]> + Clone, scales: &[f32], rows: &mut Rows) {
        let Self { inputs, input, outputs, output, bias, activation } = self;
        assert!(available() && inputs < WORTH.end && outputs.is_multiple_of(SIDE));
        assert!(bias.len() == outputs && scales.len() == outputs && input.len() / inputs == output.len() / outputs);
        let length = panel_length(inputs);
        let (together, near) =
            ((BLOCK / length).max(4) * SIDE, if length <= NEAR { NEAR / length } else { usize::MAX });
        let (mut now, mut then) = (&mut Sums::default(), &mut Sums::default());
        for (input, output) in input.chunks(together * inputs).zip(output.chunks_mut(together * outputs)) {
            let count = output.len() / outputs;
            let groups = count.div_ceil(SIDE);
            rows.digits.at_least(groups * length);
            rows.scales.at_least(groups * SIDE);
            // Safety: `available` says that the processor has these vectors.
            unsafe { cut(input, inputs, &mut rows.digits[..groups * length], &mut rows.scales) };
            // Groups of whole tiles, then the rows that are left.
            for (some, height) in [(0..count / SIDE, SIDE), (count / SIDE..groups, count % SIDE)] {
                if some.is_empty() {
                    continue;
                }
                let _configured = Configured::new(height);
                let mut end = |sums: &Sums, (group, column): (usize, usize)| {
                    let columns = column..column + SIDE;
                    let (scales, bias) = (&scales[columns.clone()], &bias[columns]);
                    let end = End { rows: &rows.scales[group * SIDE..][..height], scales, bias, activation };
                    // Safety: `available` says that the processor has these vectors.
                    unsafe { end.add_up(sums, &mut output[group * SIDE * outputs + column..], outputs) };
                };
                // What a product gave is added up while the tiles are at the next.
                let mut before = None;
                for first in some.clone().step_by(near) {
                    for (panel, weights) in panels.clone().enumerate() {
                        for group in first..some.end.min(first.saturating_add(near)) {
                            // Safety: tiles are available and set.
                            unsafe { multiply(&rows.digits[group * length..][..length], weights, now) };
                            if let Some(place) = before.replace((group, panel * SIDE)) {
                                end(then, place);
                            }
                            std::mem::swap(&mut now, &mut then);
                        }
                    }
                }
                before.into_iter().for_each(|place| end(then, place));
            }
            if activation == Activation::Gelu {
                apply(output, activation);
            }
        }
    }
}

/// The tiles, set to a number of rows as long as this lives.
struct Configured;

impl Configured {
    /// Sums (0 to 2) and rows (3 to 5) of this height; weights (6, 7) are always whole.
    fn new(height: usize) -> Self {
        #[repr(C, align(64))]
        struct Palette([u8; 64]);
        let mut palette = Palette([0; 64]);
        palette.0[0] = 1;
        for tile in 0..8 {
            palette.0[16 + 2 * tile] = 64;
            palette.0[48 + tile] = if tile >= 6 { SIDE } else { height } as u8;
        }
        // Safety: the palette is 64 bytes of the form that the instruction asks for, and tiles are available.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack, readonly)) };
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // Safety: it only marks the tiles as empty, so that the system need not save them.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Sums of a tile.
const ORDER: usize = SIDE * SIDE;

/// Of a tile of outputs the sums of first order, of second and of third, (order, row, column).
#[repr(C, align(64))]
struct Sums([i32; 3 * ORDER]);

impl Default for Sums {
    fn default() -> Self {
        Self([0; 3 * ORDER])
    }
}

/// A group of rows times a panel of weights, as long as it is.
unsafe fn multiply(rows: &[i8], weights: &[i8], sums: &mut Sums) {
    assert!(rows.len() == weights.len() && !rows.is_empty() && rows.len().is_multiple_of(DIGITS * TILE));
    // Safety: as many blocks of three tiles are read of both; what is stored are the three tiles of the sums.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "2:",
            "tileloadd tmm5, [{rows} + {line} + 2048]",
            "tileloadd tmm6, [{weights} + {line}]",
            "tdpbssd tmm2, tmm5, tmm6", // third digits with first
            "tileloadd tmm3, [{rows} + {line}]",
            "tdpbssd tmm0, tmm3, tmm6", // first with first
            "tileloadd tmm4, [{rows} + {line} + 1024]",
            "tdpbssd tmm1, tmm4, tmm6", // second with first
            "tileloadd tmm7, [{weights} + {line} + 1024]",
            "tdpbssd tmm2, tmm4, tmm7", // second with second
            "tdpbssd tmm1, tmm3, tmm7", // first with second
            "tileloadd tmm6, [{weights} + {line} + 2048]",
            "tdpbssd tmm2, tmm3, tmm6", // first with third
            "add {rows}, 3072",
            "add {weights}, 3072",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            rows = inout(reg) rows.as_ptr() => _,
            weights = inout(reg) weights.as_ptr() => _,
            blocks = inout(reg) rows.len() / (DIGITS * TILE) => _,
            sums = in(reg) sums,
            line = in(reg) DEPTH,
            options(nostack),
        );
    }
}

/// What is made of the sums of a tile.
struct End<'a> {
    /// The scales of its rows.
    rows: &'a [f32],
    /// The scales of its columns.
    scales: &'a [f32],
    bias: &'a [f32],
    /// What follows; GELU is not among it.
    activation: Activation,
}

impl End<'_> {
    /// The sums of all orders, with scales and bias; as many rows of `output` as have a scale.
    #[target_feature(enable = "avx512f")]
    fn add_up(self, sums: &Sums, output: &mut [f32], stride: usize) {
        let Self { rows, scales, bias, activation } = self;
        let (second, third) = (_mm512_set1_ps(1.0 / 256.0), _mm512_set1_ps(1.0 / 65536.0));
        let (low, high) = match activation {
            Activation::None | Activation::Gelu => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Relu6 => (0.0, 6.0),
        };
        let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
        assert!(scales.len() == SIDE && bias.len() == SIDE);
        // Safety: both are 16 long.
        let (scales, bias) = unsafe { (_mm512_loadu_ps(scales.as_ptr()), _mm512_loadu_ps(bias.as_ptr())) };
        let (lines, _) = sums.0.as_chunks::<SIDE>();
        for (row, scale) in rows.iter().enumerate() {
            let values = &mut output[row * stride..][..SIDE];
            // Safety: a line of sums is 16 long and begins with a line of the cache, and the values are as long.
            unsafe {
                let sum =
                    |order: usize| _mm512_cvtepi32_ps(_mm512_load_si512(lines[order * SIDE + row].as_ptr().cast()));
                let digits = _mm512_fmadd_ps(sum(1), second, sum(0));
                let digits = _mm512_fmadd_ps(sum(2), third, digits);
                let scale = _mm512_mul_ps(_mm512_set1_ps(*scale), scales);
                let value = _mm512_fmadd_ps(digits, scale, bias);
                // What is no number stays, since it is the second.
                _mm512_storeu_ps(values.as_mut_ptr(), _mm512_min_ps(high, _mm512_max_ps(low, value)));
            }
        }
    }
}

/// Writes rows as digits: group after group of 16 rows, block after block of inputs, the first digits of all rows, the second
/// and the third. The rows that fill up the last group keep what was there.
#[target_feature(enable = "avx512f,avx512bw")]
fn cut(input: &[f32], inputs: usize, digits: &mut [i8], scales: &mut [f32]) {
    let blocks = inputs.div_ceil(DEPTH);
    let groups = input.chunks(SIDE * inputs).zip(digits.chunks_exact_mut(blocks * DIGITS * TILE));
    for ((rows, digits), scales) in groups.zip(scales.chunks_exact_mut(SIDE)) {
        let mut largest = [_mm512_setzero_si512(); SIDE];
        for (row, largest) in rows.chunks_exact(inputs).zip(&mut largest) {
            // Bits without their sign are in the order of the numbers, and those of no number are the largest.
            let mut see = |values| {
                let bits = _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(i32::MAX));
                *largest = _mm512_max_epu32(*largest, bits);
            };
            let (whole, rest) = row.as_chunks::<SIDE>();
            for values in whole {
                // Safety: it is 16 long.
                see(unsafe { _mm512_loadu_ps(values.as_ptr()) });
            }
            see(vector(rest));
        }
        let mut largests = [0.0f32; SIDE];
        // Safety: it is 16 long.
        unsafe { _mm512_storeu_si512(largests.as_mut_ptr().cast(), largest_of_each(largest)) };
        for (to, largest) in scales.iter_mut().zip(largests) {
            *to = scale(largest);
        }
        let inverses = largests.map(inverse);
        for ((at, row), inverse) in rows.chunks_exact(inputs).enumerate().zip(inverses) {
            let inverse = _mm512_set1_ps(inverse);
            let (whole, rest) = row.as_chunks::<DEPTH>();
            let mut tiles = digits.chunks_exact_mut(DIGITS * TILE);
            for (values, tiles) in whole.iter().zip(&mut tiles) {
                // Safety: it is four times 16 long.
                let values = [0, 1, 2, 3].map(|i| unsafe { _mm512_loadu_ps(values.as_ptr().add(i * SIDE)) });
                cut_block(values, inverse, tiles, at);
            }
            if let Some(tiles) = tiles.next() {
                let values = [0, 1, 2, 3].map(|i| vector(&rest[rest.len().min(i * SIDE)..]));
                cut_block(values, inverse, tiles, at);
            }
        }
    }
}

/// Of 16 vectors the largest number of each, without sign.
#[target_feature(enable = "avx512f")]
fn largest_of_each(vectors: [__m512i; SIDE]) -> __m512i {
    // Halves, quarters and so on of two vectors side by side, the larger numbers of them.
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
    let [a, b] = eighths.map(|both| _mm512_castsi512_ps(both));
    let (even, odd) = (_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b));
    let mixed = _mm512_max_epu32(_mm512_castps_si512(even), _mm512_castps_si512(odd));
    let order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    _mm512_permutexvar_epi32(order, mixed)
}

/// Where the tiles have one of 64 inputs: so that vectors need only be mixed within their quarters.
fn position(input: usize) -> usize {
    input % SIDE / 4 * SIDE + input / SIDE * 4 + input % 4
}

/// Writes 64 numbers as digits into row `at` of three tiles.
#[target_feature(enable = "avx512f,avx512bw")]
fn cut_block(values: [__m512; 4], inverse: __m512, tiles: &mut [i8], at: usize) {
    let offset = _mm512_set1_epi32(0x0080_8080);
    // Of four numbers the first digits, the second and the third.
    let digits = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1));
    let [a, b, c, d] = values.map(|values| {
        let value = _mm512_cvtps_epi32(_mm512_mul_ps(values, inverse));
        // Rounded digits: what is left is between -128 and 127.
        _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(value, offset), offset), digits)
    });
    let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let third = _mm512_unpacklo_epi64(_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    let three = [_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high), third];
    for (digits, tile) in three.into_iter().zip(tiles.chunks_exact_mut(TILE)) {
        // Safety: the row of a tile is as long as a vector.
        unsafe { _mm512_storeu_si512(tile[at * DEPTH..][..DEPTH].as_mut_ptr().cast(), digits) };
    }
}

/// Up to 16 numbers, zeros after them.
#[target_feature(enable = "avx512f")]
fn vector(values: &[f32]) -> __m512 {
    let mask = ((1u32 << values.len().min(SIDE)) - 1) as u16;
    // Safety: only what the mask names is read.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
}
