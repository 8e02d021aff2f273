//! In place of [`super::tiles`] on processors and systems that have none.

use std::ops::Range;

use super::layers::Activation;

pub(super) const SIDE: usize = 16;
pub(super) const WORTH: Range<usize> = 0..0;

const NONE: &str = "there are no tiles here, as `available` says";

pub(super) fn available() -> bool {
    false
}

#[derive(Debug, Default)]
pub(super) struct Rows;

pub(super) fn panel_length(_: usize) -> usize {
    unreachable!("{NONE}")
}

pub(super) fn lay_out(_: &[f32], _: &mut [i8], _: &mut [f32]) {
    unreachable!("{NONE}")
}

#[allow(dead_code)]
pub(super) struct Product<'a> {
    pub inputs: usize,
    pub input: &'a [f32],
    pub outputs: usize,
    pub output: &'a mut [f32],
    pub bias: &'a [f32],
    pub activation: Activation,
}

impl Product<'_> {
    pub fn run<'w>(self, _: impl Iterator<Item = &'w [i8]> + Clone, _: &[f32], _: &mut Rows) {
        unreachable!("{NONE}")
    }
}
