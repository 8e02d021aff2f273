//! What the benchmarks share.
// Each benchmark uses a part.
#![allow(dead_code)]

use std::str::FromStr;
use std::time::Instant;

use kinoprobe::dataset::Dataset;
use ndarray::Array2;
use rand::Rng;

/// Sizes of the training step of a classifier of sequences.
pub const CLIPS: usize = 32;
pub const LENGTH: usize = 128;
pub const INPUTS: usize = 512;
pub const LABELS: usize = 21;

/// Returns random sequences with labels.
pub fn sequences(rng: &mut impl Rng) -> Dataset {
    Dataset {
        ids: (0..CLIPS).map(|i| i.to_string()).collect(),
        groups: vec![None; CLIPS],
        rows: Array2::from_shape_simple_fn((CLIPS * LENGTH, INPUTS), || rng.gen_range(-1.7f32..1.7)).into(),
        offsets: (0..=CLIPS).map(|i| i * LENGTH).collect(),
        targets: Array2::from_shape_fn((CLIPS, LABELS), |(i, c)| f32::from((i * 7 + c * 3) % 5 == 0)),
        classes: (0..LABELS).map(|c| c.to_string()).collect(),
    }
}

/// Returns the number of threads, `--threads`.
pub fn threads() -> usize {
    argument("--threads").unwrap_or(1)
}

/// Repeats a training step, which returns the loss, 3 times and then `--steps` times. Prints one line of JSON: `step_wall` (median over the
/// steps) and `step_cpu` (mean), both in seconds. `step_cpu` is `null` without /proc.
pub fn measure_steps(mut step: impl FnMut() -> f64) {
    let steps = argument("--steps").unwrap_or(20);
    for _ in 0..3 {
        step();
    }
    let (mut wall, cpu, mut value) = (Vec::new(), cpu_seconds(), 0.0);
    for _ in 0..steps {
        let start = Instant::now();
        value = step();
        wall.push(start.elapsed().as_secs_f64());
    }
    let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| (after - before) / steps as f64);
    let wall = median(wall);
    println!("{}", serde_json::json!({ "step_wall": wall, "step_cpu": cpu, "loss": value, "threads": threads() }));
}

/// Returns the value after the argument `name`, or `None` if there is none.
pub fn argument<T: FromStr>(name: &str) -> Option<T> {
    let mut values = std::env::args().skip_while(|argument| argument != name).skip(1);
    values.next().map(|value| value.parse().unwrap_or_else(|_| panic!("invalid value of {name}: {value}")))
}

/// Returns the user and system time of this process in seconds, or `None` without /proc.
pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0) // USER_HZ is 100 on Linux
}

/// Returns the median, the upper one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
