//! Times of the steps of a plan, and the peak that they are compared with.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pulp::{Simd, WithSimd};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::isa::Isa;
use super::plan::{Item, Plan, Workspace};
use super::shape::TensorShape;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::models::runtime::profile::{LayerProfile, Profile};
use crate::models::seeded;

/// Independent sums of the multiply-adds that measure the peak: two instructions per cycle with a latency of up to five cycles need
/// ten, and with both factors they fit into 16 registers.
const CHAINS: usize = 12;

/// Multiply-adds per sum and block: the time of a block is far above the resolution of the clock, and far below a time slice.
const BLOCK: usize = 1 << 14;

/// Time for which the peak is measured, before and after the runs.
const PEAK_TIME: Duration = Duration::from_millis(100);

/// Runs a plan once without and `runs` times with measuring, on pseudo-random input and `threads` threads. Returns medians.
///
/// # Errors
/// Returns an error if threads cannot be started, or if the token is cancelled.
pub(super) fn measure(
    plan: &Plan,
    isa: Isa,
    threads: usize,
    runs: usize,
    cancel: &CancellationToken,
) -> Result<Profile> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("profile-{i}")).build();
    let pool = pool.map_err(|error| Error::Runtime(format!("cannot start {threads} threads: {error}")))?;
    let input = plan.input();
    let count = input.positions() * input.channels;
    // In [−2, 2), the range of normalized images.
    let items: Vec<f32> = seeded::integers("input", 0, count).into_iter().map(|value| value as f32 / 16384.0).collect();
    let mut workspace = Workspace::default();
    let mut times = vec![Vec::with_capacity(runs); plan.steps().len() + 1];
    plan.run(Item::Floats(&items), threads, Some(&pool), &mut workspace);
    let mut peak = peak(isa, &pool);
    for _ in 0..runs {
        cancel.check()?;
        let mut instants = Vec::with_capacity(times.len() + 1);
        plan.run_observed(Item::Floats(&items), threads, Some(&pool), &mut workspace, || instants.push(Instant::now()));
        for (times, pair) in times.iter_mut().zip(instants.windows(2)) {
            times.push((pair[1] - pair[0]).as_secs_f64());
        }
    }
    // The clock rate may have changed.
    peak = peak.max(self::peak(isa, &pool));
    let layer = |kernel: String, name: &str, shape: TensorShape, multiply_accumulates: u64, times: Vec<f64>| {
        let (name, output, seconds) = (name.into(), output_axes(shape), median(times));
        LayerProfile { kernel, name, output, seconds, multiply_accumulates }
    };
    let mut times = times.into_iter();
    let mut next_times = || times.next().expect("there are times for the input and each step");
    let mut layers = vec![layer("to channels last".into(), "input", input, 0, next_times())];
    for step in plan.steps() {
        let work = step.multiply_accumulates();
        layers.push(layer(step.describe(), &step.name, step.output_shape, work, next_times()));
    }
    Ok(Profile { provider: format!("native-{}", isa.name()), threads, peak, layers })
}

/// Returns the axes of an item, channels last, without leading axes of length 1.
fn output_axes(shape: TensorShape) -> Vec<usize> {
    let axes = [shape.depth, shape.height, shape.width, shape.channels];
    let first = axes[..3].iter().position(|&axis| axis > 1).unwrap_or(3);
    axes[first..].to_vec()
}

/// Returns the median of at least one value; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

/// Returns the peak of [`Profile::peak`]: for each thread, the operations per second in the fastest block.
fn peak(isa: Isa, pool: &ThreadPool) -> f64 {
    let fastest_block = || {
        let (start, mut fastest) = (Instant::now(), f64::INFINITY);
        let mut lanes = 0;
        while start.elapsed() < PEAK_TIME {
            let block_start = Instant::now();
            lanes = isa.dispatch(MultiplyAdds { factor: black_box(0.5) });
            fastest = fastest.min(block_start.elapsed().as_secs_f64());
        }
        2.0 * (CHAINS * BLOCK * lanes) as f64 / fastest
    };
    pool.broadcast(|_| fastest_block()).into_iter().sum()
}

/// Kernel that computes a block of multiply-adds on registers and returns the number of lanes of a vector.
struct MultiplyAdds {
    factor: f32,
}

impl WithSimd for MultiplyAdds {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let factor = simd.splat_f32s(self.factor);
        // Different values that the compiler does not know, so that it does not merge the sums.
        let mut sums: [S::f32s; CHAINS] = std::array::from_fn(|i| simd.splat_f32s(black_box(i as f32)));
        for _ in 0..BLOCK {
            for sum in &mut sums {
                // Converges to 1: neither overflows nor becomes denormal.
                *sum = simd.mul_add_f32s(*sum, factor, factor);
            }
        }
        let mut total = factor;
        for sum in sums {
            total = simd.add_f32s(total, sum);
        }
        black_box(simd.reduce_sum_f32s(total));
        S::F32_LANES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers_of_values() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }

    #[test]
    fn the_peak_is_measured_on_every_instruction_set() {
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for isa in Isa::available() {
            let peak = peak(isa, &pool);
            assert!(peak.is_finite() && peak > 0.0, "{}: {peak}", isa.name());
        }
    }
}
