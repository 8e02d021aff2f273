//! Tests of the kernels against references computed in f64, on every instruction set that the processor supports.
//!
//! To run them for a processor without AVX-512 and AMX, use QEMU's user-mode emulation (Debian package `qemu-user`):
//!
//! ```sh
//! cargo test --lib --no-run   # prints the path of the test program
//! qemu-x86_64 -cpu Haswell target/debug/deps/kinoprobe-HASH models::runtime::native
//! ```

mod attention;
mod convolution;
mod elementwise;
mod malformed;
mod models;
mod pooling;
mod profile;

use super::activation::{Activation, QUICK_GELU_FACTOR};
use super::convolution::Convolution;
use super::isa::Isa;
use super::kernel::ScratchBuffers;
use super::shape::{ConvGeometry, Dhw, TensorShape, padded_channels};
use super::thread_pool::Workers;
use crate::numeric::Real;

pub(super) const ACTIVATIONS: [Activation; 5] =
    [Activation::None, Activation::Relu, Activation::Relu6, Activation::Gelu, Activation::QuickGelu];

/// Returns the available instruction sets; prints the others.
pub(super) fn instruction_sets() -> Vec<Isa> {
    let (available, skipped): (Vec<_>, Vec<_>) = Isa::ALL.into_iter().partition(|isa| isa.is_available());
    let skipped: Vec<_> = skipped.into_iter().map(Isa::name).collect();
    eprintln!("skipped instruction sets: {}", skipped.join(", "));
    available
}

/// Returns `count` pseudo-random values in [-1, 1).
pub(super) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| draw()).collect()
}

/// Returns a pseudo-random activation with zeros in the padding channels.
pub(super) fn random_activation(shape: TensorShape, seed: u64) -> Vec<f32> {
    let mut values = noise(shape.len(), seed);
    values.chunks_exact_mut(shape.channel_stride).for_each(|position| position[shape.channels..].fill(0.0));
    values
}

/// Returns one pseudo-random value per channel, padded with zeros.
pub(super) fn random_channels(channels: usize, seed: u64) -> Vec<f32> {
    random_activation(shape(1, [1; 3], channels), seed)
}

pub(super) fn shape(batch: usize, [depth, height, width]: Dhw, channels: usize) -> TensorShape {
    TensorShape { batch, depth, height, width, channels, channel_stride: padded_channels(channels) }
}

pub(super) fn geometry(kernel: Dhw, stride: Dhw, pad_before: Dhw, pad_after: Dhw) -> ConvGeometry {
    ConvGeometry { kernel, stride, pad_before, pad_after }
}

/// Computes an activation in f64.
pub(super) fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::QuickGelu => x / (1.0 + (-x * f64::from(QUICK_GELU_FACTOR)).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + Real::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    }
}

/// Computes a convolution by its definition. `weight` is (output channels, input channels, taps), or (channels, 1, taps) if
/// `depthwise`.
pub(super) fn reference_convolution(
    g: &ConvGeometry,
    from: TensorShape,
    input: &[f64],
    to: TensorShape,
    weight: &[f32],
    bias: &[f32],
    depthwise: bool,
) -> Vec<f64> {
    let inputs = if depthwise { 1 } else { from.channels };
    let taps = g.taps();
    let mut output = vec![0.0; to.len()];
    for position in 0..to.positions() {
        let (x, rest) = (position % to.width, position / to.width);
        let (y, rest) = (rest % to.height, rest / to.height);
        let (t, item) = (rest % to.depth, rest / to.depth);
        for o in 0..to.channels {
            let mut sum = f64::from(bias[o]);
            for tap in 0..taps {
                let index =
                    |at: usize, axis: usize, tap: usize| (at * g.stride[axis] + tap).checked_sub(g.pad_before[axis]);
                let (dx, rest) = (tap % g.kernel[2], tap / g.kernel[2]);
                let (Some(t), Some(y), Some(x)) =
                    (index(t, 0, rest / g.kernel[1]), index(y, 1, rest % g.kernel[1]), index(x, 2, dx))
                else {
                    continue;
                };
                if t >= from.depth || y >= from.height || x >= from.width {
                    continue;
                }
                let pixel = (((item * from.depth + t) * from.height + y) * from.width + x) * from.channel_stride;
                for i in 0..inputs {
                    let channel = if depthwise { o } else { i };
                    sum += input[pixel + channel] * f64::from(weight[(o * inputs + i) * taps + tap]);
                }
            }
            output[position * to.channel_stride + o] = sum;
        }
    }
    output
}

pub(super) fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// Runs `compute(output, workers)` with three workers and with one; the results must be identical. The previous content of
/// the output is `previous`.
pub(super) fn run_with_workers(previous: &[f32], compute: impl Fn(&mut [f32], &mut Workers<'_>)) -> Vec<f32> {
    let mut scratch: Vec<ScratchBuffers> = (0..3).map(|_| ScratchBuffers::default()).collect();
    let (mut shared, mut single) = (previous.to_vec(), previous.to_vec());
    compute(&mut shared, &mut Workers::single_threaded(&mut scratch));
    compute(&mut single, &mut Workers::single_threaded(&mut scratch[..1]));
    let identical = shared.iter().zip(&single).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(identical, "the result depends on the number of workers");
    single
}

/// Runs a convolution with [`run_with_workers`].
pub(super) fn run(layer: &Convolution, from: TensorShape, input: &[f32], to: TensorShape) -> Vec<f32> {
    // The previous content must not matter.
    run_onto(layer, from, input, to, &vec![f32::NAN; to.len()])
}

/// As [`run`], with the given previous content of the output.
pub(super) fn run_onto(
    layer: &Convolution,
    from: TensorShape,
    input: &[f32],
    to: TensorShape,
    previous: &[f32],
) -> Vec<f32> {
    run_with_workers(previous, |output, workers| layer.run(from, input, to, output, workers))
}

/// Compares with the largest error relative to the root mean square of `expected`.
pub(super) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    assert_within(found, expected, tolerance * rms, what);
}

/// Compares with the largest absolute error.
pub(super) fn assert_within(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= tolerance, "{what}: {found} instead of {expected} at {i}, tolerance {tolerance}");
    }
}
