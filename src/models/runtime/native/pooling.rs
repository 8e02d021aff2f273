//! Pooling layers.

use super::shape::TensorShape;

/// Averages over the positions of each item: (batch, positions, channels) to (batch, channels).
pub(super) fn global_average_pool(shape: TensorShape, input: &[f32], output: &mut [f32]) {
    let positions = shape.depth * shape.height * shape.width;
    let items = input.chunks_exact(positions * shape.channel_stride);
    for (item, mean) in items.zip(output.chunks_exact_mut(shape.channel_stride)) {
        mean.fill(0.0);
        for position in item.chunks_exact(shape.channel_stride) {
            mean.iter_mut().zip(position).for_each(|(sum, x)| *sum += x);
        }
        mean.iter_mut().for_each(|sum| *sum /= positions as f32);
    }
}
