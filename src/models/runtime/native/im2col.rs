//! Dense convolutions as matrix products: the inputs of each output position are gathered into a row (im2col).
//!
//! Products of 8-bit integers quantize the input before it is gathered: each value once, and a quarter of the bytes are copied. If the
//! output is only read by another quantized convolution, it is quantized while it is in the cache ([`QuantizedPair`]).

use std::sync::atomic::{AtomicBool, Ordering};

use super::activation::Activation;
use super::aligned::AlignedBuffer;
use super::int8::QuantizedMatrix;
use super::packed::PackedWeights;
use super::shape::{ConvGeometry, TensorShape};
use super::thread_pool::Workers;

/// Positions whose inputs are gathered per block of the product.
const ROWS: usize = 240;

/// A convolution as the product of rows (taps, channel stride), one per output position, with weights (taps · input channels, output
/// channels).
pub(super) struct Im2col<'a> {
    pub geometry: &'a ConvGeometry,
    /// Shape of the input.
    pub from: TensorShape,
    /// Shape of the output.
    pub to: TensorShape,
    pub bias: &'a [f32],
    /// Applied last.
    pub activation: Activation,
}

impl Im2col<'_> {
    /// Computes `output` from `input`. The result does not depend on the number of workers.
    pub fn run(&self, input: &[f32], weights: &PackedWeights, output: &mut [f32], workers: &mut Workers<'_>) {
        match weights.int8() {
            // Otherwise, most of the input is not read.
            Some(matrix) if self.to.positions() * self.geometry.taps() >= self.from.positions() => {
                let mut values = std::mem::take(&mut workers.own_scratch().quantized_input);
                match quantize(matrix, input, &mut values, workers) {
                    true => self.run_quantized(&values, matrix, output, workers),
                    false => self.run_unquantized(input, weights, output, workers),
                }
                workers.own_scratch().quantized_input = values;
            }
            _ => self.run_unquantized(input, weights, output, workers),
        }
    }

    /// Gathers the input as it is.
    fn run_unquantized(&self, input: &[f32], weights: &PackedWeights, output: &mut [f32], workers: &mut Workers<'_>) {
        let ((inputs, _), outputs) = (weights.dim(), self.to.channel_stride);
        let job_rows = self.job_rows(workers);
        workers.for_each(output.chunks_mut(job_rows * outputs), |job, output, scratch| {
            scratch.input.grow_to(ROWS * inputs);
            for (block, output) in output.chunks_mut(ROWS * outputs).enumerate() {
                let (first, rows) = (job * job_rows + block * ROWS, output.len() / outputs);
                self.gather(input, 0.0, first, rows, &mut scratch.input, inputs);
                let patches = &scratch.input[..rows * inputs];
                weights.matmul(patches, output, self.bias, self.activation, &mut scratch.quantized);
            }
        });
    }

    /// Computes `output` from the quantized input.
    fn run_quantized(&self, values: &[u8], matrix: &QuantizedMatrix, output: &mut [f32], workers: &mut Workers<'_>) {
        let outputs = self.to.channel_stride;
        let job_rows = self.job_rows(workers);
        workers.for_each(output.chunks_mut(job_rows * outputs), |job, output, scratch| {
            for (block, output) in output.chunks_mut(ROWS * outputs).enumerate() {
                self.multiply_block(values, matrix, job * job_rows + block * ROWS, output, &mut scratch.quantized.int8);
            }
        });
    }

    /// Computes the output from the quantized input, and quantizes it as the input of `next`. Returns `false` if it contains NaN.
    fn run_requantized(
        &self,
        values: &[u8],
        matrix: &QuantizedMatrix,
        next: &QuantizedMatrix,
        output: &mut AlignedBuffer<u8>,
        workers: &mut Workers<'_>,
    ) -> bool {
        let outputs = self.to.channel_stride;
        let job_rows = self.job_rows(workers);
        output.grow_to(self.to.len());
        let nan = AtomicBool::new(false);
        workers.for_each(output[..self.to.len()].chunks_mut(job_rows * outputs), |job, output, scratch| {
            scratch.output.grow_to(ROWS * outputs);
            for (block, output) in output.chunks_mut(ROWS * outputs).enumerate() {
                let floats = &mut scratch.output[..output.len()];
                self.multiply_block(values, matrix, job * job_rows + block * ROWS, floats, &mut scratch.quantized.int8);
                if next.quantize_values(floats, output) {
                    nan.store(true, Ordering::Relaxed);
                }
            }
        });
        !nan.into_inner()
    }

    /// Computes the positions of `output`, at most [`ROWS`], from `first` on. `patches` receives their rows.
    fn multiply_block(
        &self,
        values: &[u8],
        matrix: &QuantizedMatrix,
        first: usize,
        output: &mut [f32],
        patches: &mut AlignedBuffer<u8>,
    ) {
        let (rows, row_len) = (output.len() / self.to.channel_stride, matrix.row_len());
        patches.grow_to(ROWS * row_len);
        self.gather(values, matrix.zero_point(), first, rows, patches, row_len);
        matrix.multiply(&patches[..rows * row_len], output, self.bias, self.activation);
    }

    /// Returns the number of positions per worker.
    fn job_rows(&self, workers: &Workers<'_>) -> usize {
        self.to.positions().div_ceil(workers.count()).next_multiple_of(ROWS)
    }

    /// Gathers the inputs of `count` positions from `first` on into rows that start `row_len` elements apart, with `zero` in place of
    /// padding. Shorter rows lack padding channels of the last tap; the rest of longer rows is not written.
    fn gather<T: Copy>(&self, input: &[T], zero: T, first: usize, count: usize, rows: &mut [T], row_len: usize) {
        let Self { geometry, from, to, .. } = *self;
        let [kernel_depth, kernel_height, kernel_width] = geometry.kernel;
        let start =
            |axis: usize, output: usize| (output * geometry.stride[axis]) as isize - geometry.pad_before[axis] as isize;
        let copied = kernel_width * from.channel_stride;
        let mut done = 0;
        while done < count {
            // Positions of one row of the output.
            let (x, rest) = ((first + done) % to.width, (first + done) / to.width);
            let (y, rest) = (rest % to.height, rest / to.height);
            let (t, item) = (rest % to.depth, rest / to.depth);
            let width = (to.width - x).min(count - done);
            let segment = &mut rows[done * row_len..];
            for tap in 0..kernel_depth * kernel_height {
                let (t, y) =
                    (start(0, t) + (tap / kernel_height) as isize, start(1, y) + (tap % kernel_height) as isize);
                let is_inside = (0..from.depth as isize).contains(&t) && (0..from.height as isize).contains(&y);
                let source = is_inside.then(|| {
                    let row = (item * from.depth + t as usize) * from.height + y as usize;
                    &input[row * from.width * from.channel_stride..][..from.width * from.channel_stride]
                });
                // The last one without padding channels that the rows lack.
                let len = copied.min(row_len - tap * copied);
                for i in 0..width {
                    let target = &mut segment[i * row_len + tap * copied..][..len];
                    let left = start(2, x + i);
                    match source {
                        Some(source) if left >= 0 && left as usize + kernel_width <= from.width => {
                            copy(target, &source[left as usize * from.channel_stride..][..len]);
                        }
                        Some(source) => {
                            // The columns of the window that lie within the image.
                            let begin = (-left).clamp(0, kernel_width as isize);
                            let end = (from.width as isize - left).clamp(begin, kernel_width as isize);
                            let element = |column: isize| column as usize * from.channel_stride;
                            target.fill(zero);
                            if begin < end {
                                let inside = element(begin)..element(end).min(len);
                                let source = &source[element(left + begin)..][..inside.len()];
                                target[inside].copy_from_slice(source);
                            }
                        }
                        None => target.fill(zero),
                    }
                }
            }
            done += width;
        }
    }
}

/// Copies `source` to `target`, of the same length, in blocks of a constant length: a call of memcpy takes longer than most copies.
#[inline(always)]
fn copy<T: Copy>(target: &mut [T], source: &[T]) {
    match source.len() {
        16.. => copy_blocks::<T, 16>(target, source),
        8.. => copy_blocks::<T, 8>(target, source),
        _ => target.copy_from_slice(source),
    }
}

/// As [`copy`]; the last of the blocks may overlap the one before.
#[inline(always)]
fn copy_blocks<T: Copy, const LEN: usize>(target: &mut [T], source: &[T]) {
    for (target, source) in target.as_chunks_mut::<LEN>().0.iter_mut().zip(source.as_chunks::<LEN>().0) {
        *target = *source;
    }
    if let (Some(target), Some(source)) = (target.last_chunk_mut::<LEN>(), source.last_chunk::<LEN>()) {
        *target = *source;
    }
}

/// Quantizes `input`; returns `false` if it contains NaN.
fn quantize(
    matrix: &QuantizedMatrix,
    input: &[f32],
    values: &mut AlignedBuffer<u8>,
    workers: &mut Workers<'_>,
) -> bool {
    values.grow_to(input.len());
    let job_len = input.len().div_ceil(workers.count()).next_multiple_of(1 << 10);
    let nan = AtomicBool::new(false);
    let jobs = input.chunks(job_len).zip(values[..input.len()].chunks_mut(job_len));
    workers.for_each(jobs, |_, (input, values), _| {
        if matrix.quantize_values(input, values) {
            nan.store(true, Ordering::Relaxed);
        }
    });
    !nan.into_inner()
}

/// Two quantized convolutions of which the second is the only one to read the output of the first. It is quantized block by block.
#[derive(Debug)]
pub(super) struct QuantizedPair {
    /// Geometry and quantized weights of the first convolution.
    pub first: (ConvGeometry, PackedWeights),
    /// Bias and activation of the first convolution.
    pub epilogue: (Vec<f32>, Activation),
    /// Geometry and quantized weights of the second convolution.
    pub second: (ConvGeometry, PackedWeights),
}

impl QuantizedPair {
    /// Computes `output` of shape `to` from `input` of shape `from`, with the bias and the activation of the second convolution. The bits
    /// are those of the two convolutions one after the other.
    pub fn run(
        &self,
        (from, to): (TensorShape, TensorShape),
        input: &[f32],
        output: &mut [f32],
        (bias, activation): (&[f32], Activation),
        workers: &mut Workers<'_>,
    ) {
        let Self { first: (first_geometry, first_weights), epilogue, second: (second_geometry, second_weights) } = self;
        let [first_matrix, second_matrix] =
            [first_weights, second_weights].map(|weights| weights.int8().expect("both convolutions are quantized"));
        let between = first_geometry.output_shape(from, first_matrix.dim().1).expect("the plan has checked the sizes");
        let (first_bias, first_activation) = (&epilogue.0[..], epilogue.1);
        let first =
            Im2col { geometry: first_geometry, from, to: between, bias: first_bias, activation: first_activation };
        let second = Im2col { geometry: second_geometry, from: between, to, bias, activation };
        let mut values = std::mem::take(&mut workers.own_scratch().quantized_input);
        let mut intermediate = std::mem::take(&mut workers.own_scratch().quantized_intermediate);
        if quantize(first_matrix, input, &mut values, workers)
            && first.run_requantized(&values, first_matrix, second_matrix, &mut intermediate, workers)
        {
            second.run_quantized(&intermediate, second_matrix, output, workers);
        } else {
            let mut floats = vec![0.0; between.len()];
            first.run_unquantized(input, first_weights, &mut floats, workers);
            second.run_unquantized(&floats, second_weights, output, workers);
        }
        let scratch = workers.own_scratch();
        (scratch.quantized_input, scratch.quantized_intermediate) = (values, intermediate);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView3;

    use super::super::int8::InputQuantization;
    use super::super::isa::Isa;
    use super::super::kernel::ScratchBuffers;
    use super::super::tests::{instruction_sets, noise};
    use super::*;

    const GEOMETRIES: [ConvGeometry; 3] = [
        ConvGeometry { kernel: [1, 3, 3], stride: [1, 1, 1], pad_before: [0, 1, 1], pad_after: [0, 1, 1] },
        ConvGeometry { kernel: [3, 1, 1], stride: [2, 1, 1], pad_before: [1, 0, 0], pad_after: [1, 0, 0] },
        ConvGeometry { kernel: [3, 3, 2], stride: [1, 2, 2], pad_before: [2, 0, 1], pad_after: [0, 1, 0] },
    ];

    /// Returns the matrix of a convolution from `channels` to 24 channels.
    fn quantized(geometry: &ConvGeometry, from: TensorShape, isa: Isa) -> PackedWeights {
        let taps = geometry.taps();
        let weight: Vec<i8> = noise(taps * from.channels * 24, 1).iter().map(|x| (60.0 * x) as i8).collect();
        let view = ArrayView3::from_shape((taps, from.channels, 24), &weight).unwrap();
        let scales: Vec<f32> = noise(24, 2).iter().map(|x| 0.01 + x.abs()).collect();
        let input = InputQuantization { scale: 0.011, zero_point: 101 };
        PackedWeights::quantized(QuantizedMatrix::new(view, (from.channel_stride, 32), &scales, input, isa).unwrap())
    }

    /// Gathers in f32, then quantizes the rows.
    fn reference(im2col: &Im2col<'_>, input: &[f32], weights: &PackedWeights) -> Vec<f32> {
        let (matrix, rows) = (weights.int8().unwrap(), im2col.to.positions());
        let row_len = im2col.geometry.taps() * im2col.from.channel_stride;
        let mut gathered = vec![0.0; rows * row_len];
        im2col.gather(input, 0.0, 0, rows, &mut gathered, row_len);
        let mut output = vec![0.0; im2col.to.len()];
        matrix.matmul(&gathered, &mut output, im2col.bias, im2col.activation, &mut Default::default());
        output
    }

    /// Calls `run` with one and with three workers.
    fn with_workers(mut run: impl FnMut(&mut Workers<'_>)) {
        for count in [1, 3] {
            let mut scratch: Vec<ScratchBuffers> = (0..count).map(|_| ScratchBuffers::default()).collect();
            run(&mut Workers::single_threaded(&mut scratch));
        }
    }

    fn input_shape(channels: usize) -> TensorShape {
        let shape = TensorShape { batch: 2, depth: 4, height: 19, width: 7, channels, channel_stride: channels };
        // The network's input is not padded.
        if channels == 3 { shape } else { shape.with_channels(channels) }
    }

    fn input(shape: TensorShape) -> Vec<f32> {
        let mut values = noise(shape.len(), 3);
        values.chunks_exact_mut(shape.channel_stride).for_each(|position| position[shape.channels..].fill(0.0));
        values
    }

    #[test]
    fn quantizing_before_and_after_gathering_give_the_same_bits() {
        for (geometry, channels) in GEOMETRIES.iter().zip([20, 16, 3]) {
            let from = input_shape(channels);
            let to = geometry.output_shape(from, 24).unwrap();
            let (input, bias) = (input(from), noise(32, 4));
            let im2col = Im2col { geometry, from, to, bias: &bias, activation: Activation::Relu };
            for isa in instruction_sets() {
                let weights = quantized(geometry, from, isa);
                let expected = reference(&im2col, &input, &weights);
                assert!(expected.iter().any(|&value| value > 1.0));
                with_workers(|workers| {
                    let mut output = vec![0.0; to.len()];
                    im2col.run(&input, &weights, &mut output, workers);
                    assert_eq!(output, expected, "{} {geometry:?}", isa.name());
                    assert!(workers.own_scratch().input.is_empty(), "gathered in f32");
                });
            }
        }
    }

    #[test]
    fn pairs_give_the_bits_of_their_convolutions() {
        let [first_geometry, second_geometry, _] = &GEOMETRIES;
        let from = input_shape(20);
        let between = first_geometry.output_shape(from, 24).unwrap();
        let to = second_geometry.output_shape(between, 24).unwrap();
        let bias = noise(32, 4);
        for isa in instruction_sets() {
            for nan in [false, true] {
                let mut input = input(from);
                let (first, second) = (quantized(first_geometry, from, isa), quantized(second_geometry, between, isa));
                if nan {
                    input[5] = f32::NAN;
                }
                let activations = [Activation::Relu6, Activation::None];
                let one =
                    Im2col { geometry: first_geometry, from, to: between, bias: &bias, activation: activations[0] };
                let two =
                    Im2col { geometry: second_geometry, from: between, to, bias: &bias, activation: activations[1] };
                let expected = reference(&two, &reference(&one, &input, &first), &second);
                assert_eq!(expected.iter().any(|value| value.is_nan()), nan);
                let pair = QuantizedPair {
                    first: (*first_geometry, first),
                    epilogue: (bias.clone(), activations[0]),
                    second: (*second_geometry, second),
                };
                with_workers(|workers| {
                    let mut output = vec![0.0; to.len()];
                    pair.run((from, to), &input, &mut output, (&bias, activations[1]), workers);
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&output), bits(&expected), "{} {nan}", isa.name());
                });
            }
        }
    }

    #[test]
    fn rows_may_be_shorter_or_longer_than_what_is_gathered() {
        for geometry in &GEOMETRIES {
            let from = input_shape(20);
            let to = geometry.output_shape(from, 24).unwrap();
            let im2col = Im2col { geometry, from, to, bias: &[], activation: Activation::None };
            let (input, width, first, rows) =
                (input(from), geometry.taps() * from.channel_stride, 3, to.positions() - 7);
            let gather = |row_len: usize| {
                let mut gathered = vec![f32::NAN; rows * row_len];
                im2col.gather(&input, 0.5, first, rows, &mut gathered, row_len);
                gathered
            };
            let expected = gather(width);
            for row_len in [width - 12, width + 32] {
                let (gathered, common) = (gather(row_len), width.min(row_len));
                for (row, expected) in gathered.chunks(row_len).zip(expected.chunks(width)).take(rows) {
                    assert_eq!(row[..common], expected[..common], "{geometry:?} {row_len}");
                }
            }
        }
    }

    #[test]
    fn nan_reaches_the_positions_that_read_it() {
        let geometry = &GEOMETRIES[0];
        let from = TensorShape { batch: 1, depth: 1, height: 5, width: 6, channels: 16, channel_stride: 16 };
        let to = geometry.output_shape(from, 24).unwrap();
        let mut input = input(from);
        // Row 2, column 3.
        input[(2 * 6 + 3) * 16 + 7] = f32::NAN;
        let im2col = Im2col { geometry, from, to, bias: &[0.0; 32], activation: Activation::None };
        for isa in instruction_sets() {
            let weights = quantized(geometry, from, isa);
            with_workers(|workers| {
                let mut output = vec![0.0; to.len()];
                im2col.run(&input, &weights, &mut output, workers);
                for (position, values) in output.chunks_exact(32).enumerate() {
                    let (y, x) = (position / 6, position % 6);
                    let reads = (1..=3).contains(&y) && (2..=4).contains(&x);
                    assert!(values[..24].iter().all(|value| value.is_nan() == reads), "{} {y} {x}", isa.name());
                }
            });
        }
    }
}
