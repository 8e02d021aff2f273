//! Pooling layers.

use pulp::{Simd, WithSimd};

use super::activation::max_or_nan;
use super::isa::Isa;
use super::shape::{ConvGeometry, TensorShape};
use super::thread_pool::Workers;

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

/// Max pooling. Padding counts as −∞, and every window must contain an element of the input, which holds if the padding is
/// smaller than the kernel. A window that contains NaN yields NaN, as in PyTorch; ONNX leaves this open.
#[derive(Debug)]
pub(super) struct MaxPool {
    pub geometry: ConvGeometry,
}

impl MaxPool {
    /// Computes `output` of shape `to` from `input` of shape `from`, whose channel strides are equal.
    pub fn run(
        &self,
        isa: Isa,
        (from, input): (TensorShape, &[f32]),
        (to, output): (TensorShape, &mut [f32]),
        workers: &mut Workers<'_>,
    ) {
        let job_rows = (to.frames() * to.height).div_ceil(workers.count());
        let jobs = output.chunks_mut(job_rows * to.width * to.channel_stride);
        workers.for_each(jobs, |job, output, _| {
            isa.dispatch(MaxPoolRows { geometry: &self.geometry, from, input, to, first_row: job * job_rows, output });
        });
    }
}

/// Kernel that computes consecutive rows of the output of a [`MaxPool`].
struct MaxPoolRows<'a> {
    geometry: &'a ConvGeometry,
    from: TensorShape,
    input: &'a [f32],
    to: TensorShape,
    /// Index of the first row among the rows of all frames.
    first_row: usize,
    output: &'a mut [f32],
}

impl WithSimd for MaxPoolRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { geometry, from, input, to, first_row, output } = self;
        let (input, output) = (S::as_simd_f32s(input).0, S::as_mut_simd_f32s(output).0);
        let vectors = to.channel_stride / S::F32_LANES;
        for (row, output) in (first_row..).zip(output.chunks_exact_mut(to.width * vectors)) {
            let (frame, y) = (row / to.height, row % to.height);
            let (item, t) = (frame / to.depth, frame % to.depth);
            let (frames, rows) = (geometry.window(0, t, from.depth), geometry.window(1, y, from.height));
            for (x, maxima) in output.chunks_exact_mut(vectors).enumerate() {
                let columns = geometry.window(2, x, from.width);
                maxima.fill(simd.splat_f32s(f32::NEG_INFINITY));
                for t in frames.clone() {
                    for y in rows.clone() {
                        let first = ((item * from.depth + t) * from.height + y) * from.width;
                        let window = &input[(first + columns.start) * vectors..(first + columns.end) * vectors];
                        for position in window.chunks_exact(vectors) {
                            for (max, &value) in maxima.iter_mut().zip(position) {
                                // `max_or_nan` keeps NaN of its second operand only.
                                let larger = max_or_nan(simd, *max, value);
                                *max = simd.select_f32s(simd.equal_f32s(*max, *max), larger, *max);
                            }
                        }
                    }
                }
            }
        }
    }
}
