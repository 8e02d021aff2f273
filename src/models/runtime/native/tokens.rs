//! Class token and position embedding of vision transformers (Dosovitskiy et al. 2021).

use super::shape::TensorShape;

/// Prepends a class token and adds the position embedding.
#[derive(Debug)]
pub(super) struct TokenEmbedding {
    /// Position embedding with the class token added to its first row, (tokens, channel stride).
    pub table: Vec<f32>,
}

impl TokenEmbedding {
    /// Computes `output` (batch, tokens, channels) from `input` (batch, tokens − 1, channels) of shape `from`.
    pub fn run(&self, from: TensorShape, input: &[f32], output: &mut [f32]) {
        let items = input.chunks_exact(from.width * from.channel_stride);
        for (item, output) in items.zip(output.chunks_exact_mut(self.table.len())) {
            output.copy_from_slice(&self.table);
            output[from.channel_stride..].iter_mut().zip(item).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Copies the first token of each item: (batch, tokens, channels) of shape `from` to (batch, channels).
pub(super) fn first_token(from: TensorShape, input: &[f32], output: &mut [f32]) {
    let items = input.chunks_exact(from.width * from.channel_stride);
    for (item, output) in items.zip(output.chunks_exact_mut(from.channel_stride)) {
        output.copy_from_slice(&item[..from.channel_stride]);
    }
}
