//! Multi-head attention (Vaswani et al., "Attention Is All You Need", 2017, section 3.2).
//!
//! Heads are computed one after the other, so that keys, values and scores of a head stay in the cache. Keys and values are
//! packed at run time. Both products use the vector kernels of [`gemm`](super::gemm): they are small compared with the
//! linear layers around them, and quantizing their operands for AMX would take longer than the products.

use pulp::{Simd, WithSimd};

use super::activation::exp_nonpositive;
use super::gemm::{InputRows, multiply};
use super::isa::Isa;
use super::kernel::ScratchBuffers;
use super::packed::{PanelShape, VectorPanels, pack_panels};
use super::shape::{TensorShape, padded_channels};
use super::thread_pool::Workers;

/// Target number of scores per block of queries: 32 KiB of f32.
const SCORES_LEN: usize = 1 << 13;

/// Minimum number of queries per block, so that packed keys and values are reused even for long sequences.
const MIN_BLOCK_ROWS: usize = 8;

/// Multi-head attention: computes softmax(scale · q·kᵀ)·v in each head.
#[derive(Debug)]
pub(super) struct Attention {
    heads: usize,
    head_channels: usize,
    /// Scale of the scores, usually 1/√`head_channels`.
    scale: f32,
    /// Bias of the scores of a query, (padded tokens): 0 for tokens, −∞ for padding.
    mask: Vec<f32>,
    /// Bias of the second product: zeros, (padded head channels).
    zeros: Vec<f32>,
}

impl Attention {
    /// Creates a layer for sequences of `tokens` tokens with `heads · head_channels` channels.
    pub fn new(tokens: usize, heads: usize, head_channels: usize, scale: f32) -> Self {
        let mut mask = vec![0.0; tokens];
        mask.resize(padded_channels(tokens), f32::NEG_INFINITY);
        Self { heads, head_channels, scale, mask, zeros: vec![0.0; padded_channels(head_channels)] }
    }

    /// Returns the number of heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Computes `output` from queries, keys and values, all of shape `shape`, (batch, tokens, channels). NaN propagates
    /// within a head: from a query to its token, from a key to all tokens, from a value to its channel in all tokens.
    /// The result does not depend on the number of workers.
    pub fn run(
        &self,
        isa: Isa,
        shape: TensorShape,
        [queries, keys, values]: [&[f32]; 3],
        output: &mut [f32],
        workers: &mut Workers<'_>,
    ) {
        let TensorShape { width: tokens, channel_stride: stride, .. } = shape;
        let item_len = tokens * stride;
        let job_len = tokens.div_ceil(workers.count()) * stride;
        let items = queries.chunks_exact(item_len).zip(keys.chunks_exact(item_len)).zip(values.chunks_exact(item_len));
        for (((queries, keys), values), output) in items.zip(output.chunks_exact_mut(item_len)) {
            // Each job packs all keys and values itself, since sharing them would require synchronization, which takes
            // longer.
            let jobs = queries.chunks(job_len).zip(output.chunks_mut(job_len));
            workers.for_each(jobs, |_, (queries, output), scratch| {
                for head in 0..self.heads {
                    self.run_head(isa, head, stride, [queries, keys, values], output, scratch);
                }
                for position in output.chunks_exact_mut(stride) {
                    position[self.heads * self.head_channels..].fill(0.0);
                }
            });
        }
    }

    /// Computes the channels of one head for some queries and all keys and values of an item.
    fn run_head(
        &self,
        isa: Isa,
        head: usize,
        stride: usize,
        [queries, keys, values]: [&[f32]; 3],
        output: &mut [f32],
        scratch: &mut ScratchBuffers,
    ) {
        let Self { head_channels, ref mask, ref zeros, .. } = *self;
        let first_channel = head * head_channels;
        let (tokens, padded_tokens) = (keys.len() / stride, mask.len());
        let block_rows = (SCORES_LEN / padded_tokens).max(MIN_BLOCK_ROWS);
        let ScratchBuffers { input, intermediate, rows, output: head_output, .. } = scratch;
        input.grow_to(head_channels * padded_tokens);
        intermediate.grow_to(tokens * zeros.len());
        rows.grow_to(block_rows * (padded_tokens + 1));
        head_output.grow_to(block_rows * zeros.len());

        let key_panels = &mut input[..head_channels * padded_tokens];
        self.pack_keys(isa, &keys[first_channel..], stride, key_panels);
        let key_panels =
            VectorPanels { values: key_panels, matrices: 1, inputs: head_channels, outputs: padded_tokens };
        let value_panels = &mut intermediate[..tokens * zeros.len()];
        self.pack_values(isa, &values[first_channel..], stride, value_panels);
        let value_panels = VectorPanels { values: value_panels, matrices: 1, inputs: tokens, outputs: zeros.len() };

        let (scores, sums) = rows.split_at_mut(block_rows * padded_tokens);
        for (queries, output) in queries.chunks(block_rows * stride).zip(output.chunks_mut(block_rows * stride)) {
            let rows = output.len() / stride;
            let scores = &mut scores[..rows * padded_tokens];
            let queries = InputRows { values: &queries[first_channel..], stride, inputs: head_channels };
            multiply(isa, queries, key_panels, scores, mask);
            isa.dispatch(ExpScores { scores, row_len: padded_tokens, sums: &mut sums[..rows] });
            let weights = InputRows { values: scores, stride: padded_tokens, inputs: tokens };
            let head_output = &mut head_output[..rows * zeros.len()];
            multiply(isa, weights, value_panels, head_output, zeros);
            // The softmax divides by the sum only here: with normalized weights, products could be subnormal and slow.
            for ((position, result), sum) in
                output.chunks_exact_mut(stride).zip(head_output.chunks(zeros.len())).zip(&*sums)
            {
                let factor = 1.0 / sum;
                for (value, result) in position[first_channel..][..head_channels].iter_mut().zip(result) {
                    *value = result * factor;
                }
            }
        }
    }

    /// Packs the scaled and transposed keys of a head, (head channels, padded tokens).
    fn pack_keys(&self, isa: Isa, keys: &[f32], stride: usize, panels: &mut [f32]) {
        let dim = (self.head_channels, self.mask.len());
        pack_panels(panels, dim, PanelShape::new(isa), |first, width, panel| {
            panel.fill(0.0);
            for (lane, key) in keys.chunks(stride).skip(first).take(width).enumerate() {
                for (row, value) in panel.chunks_exact_mut(width).zip(key) {
                    row[lane] = value * self.scale;
                }
            }
        });
    }

    /// Packs the values of a head, (tokens, padded head channels).
    fn pack_values(&self, isa: Isa, values: &[f32], stride: usize, panels: &mut [f32]) {
        let tokens = panels.len() / self.zeros.len();
        pack_panels(panels, (tokens, self.zeros.len()), PanelShape::new(isa), |first, width, panel| {
            let channels = self.head_channels.saturating_sub(first).min(width);
            for (row, value) in panel.chunks_exact_mut(width).zip(values.chunks(stride)) {
                row[..channels].copy_from_slice(&value[first.min(self.head_channels)..][..channels]);
                row[channels..].fill(0.0);
            }
        });
    }
}

/// Kernel that replaces each row x of scores by exp(x − max x) and stores its sum: the softmax without the division.
struct ExpScores<'a> {
    scores: &'a mut [f32],
    row_len: usize,
    sums: &'a mut [f32],
}

impl WithSimd for ExpScores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scores, row_len, sums } = self;
        for (row, sum) in scores.chunks_exact_mut(row_len).zip(sums) {
            let row = S::as_mut_simd_f32s(row).0;
            // The maximum may ignore a NaN score; its exponential makes the sum NaN in any case.
            let mut max = simd.splat_f32s(f32::NEG_INFINITY);
            for score in row.iter() {
                max = simd.max_f32s(max, *score);
            }
            let max = simd.splat_f32s(simd.reduce_max_f32s(max));
            let mut total = simd.splat_f32s(0.0);
            for score in row.iter_mut() {
                *score = exp_nonpositive(simd, simd.sub_f32s(*score, max));
                total = simd.add_f32s(total, *score);
            }
            *sum = simd.reduce_sum_f32s(total);
        }
    }
}
