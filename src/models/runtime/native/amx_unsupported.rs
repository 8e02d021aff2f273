//! Stub of `amx.rs` for builds without AMX: targets other than Linux on x86-64, or `no_amx`. Only [`is_available`] is
//! called at run time.

use std::ops::Range;

use super::activation::Activation;

pub(super) const TILE_ROWS: usize = 16;
pub(super) const K_RANGE: Range<usize> = 0..0;

const UNAVAILABLE: &str = "AMX is not available in this build";

pub(super) fn is_available() -> bool {
    false
}

#[derive(Debug, Default)]
pub(super) struct QuantizedRows;

pub(super) fn panel_len(_: usize) -> usize {
    unreachable!("{UNAVAILABLE}")
}

pub(super) fn quantize_panel(_: &[f32], _: &mut [i8], _: &mut [f32]) {
    unreachable!("{UNAVAILABLE}")
}

#[allow(dead_code)] // constructed by the code shared with `amx`
pub(super) struct Matmul<'a> {
    pub inputs: usize,
    pub input: &'a [f32],
    pub outputs: usize,
    pub output: &'a mut [f32],
    pub bias: &'a [f32],
    pub activation: Activation,
}

impl Matmul<'_> {
    pub fn run<'w>(self, _: impl Iterator<Item = &'w [i8]> + Clone, _: &[f32], _: &mut QuantizedRows) {
        unreachable!("{UNAVAILABLE}")
    }
}
