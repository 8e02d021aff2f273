//! What the benchmarks share.
// Each benchmark uses a part.
#![allow(dead_code)]

use std::str::FromStr;

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
