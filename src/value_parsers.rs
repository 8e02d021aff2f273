//! Value parsers of numeric command-line flags. A value out of range is a usage error that names the flag.

use std::fmt::Display;
use std::str::FromStr;

/// Maximum number of threads of one kind, far above the cores of any machine.
pub const MAX_THREADS: usize = 1024;

/// Returns a parser of integers of at least `min`.
pub fn at_least<T>(min: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr<Err: Display> + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text: &str| {
        let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
        if value >= min { Ok(value) } else { Err(format!("must be at least {min}")) }
    }
}

/// Returns a parser of integers from `min` to `max`, both inclusive.
pub fn between<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr<Err: Display> + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    let lower = at_least(min);
    move |text: &str| match lower(text)? {
        value if value <= max => Ok(value),
        _ => Err(format!("must be at most {max}")),
    }
}

/// Parses a finite number ≥ 0.
///
/// # Errors
/// Returns a message if `text` is anything else.
pub fn non_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value.is_finite() && value >= 0.0, "must be a finite number ≥ 0")
}

/// Parses a finite number > 0.
///
/// # Errors
/// Returns a message if `text` is anything else.
pub fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value.is_finite() && value > 0.0, "must be a finite number > 0")
}

/// Parses a number in [0, 1].
///
/// # Errors
/// Returns a message if `text` is anything else.
pub fn probability<T: FromStr<Err: Display> + Copy + Into<f64>>(text: &str) -> Result<T, String> {
    number(text, |value| (0.0..=1.0).contains(&value), "must be in [0, 1]")
}

/// Parses a number in [0, 1).
///
/// # Errors
/// Returns a message if `text` is anything else.
pub fn below_one<T: FromStr<Err: Display> + Copy + Into<f64>>(text: &str) -> Result<T, String> {
    number(text, |value| (0.0..1.0).contains(&value), "must be in [0, 1)")
}

/// Parses a number of bytes ≥ 1, such as `512M`, `8G` or `1.5GiB`. K, M, G and T are powers of 1024.
///
/// # Errors
/// Returns a message if `text` is anything else.
pub fn bytes(text: &str) -> Result<u64, String> {
    let expected = || "must be a number of bytes, such as 512M or 8G".to_string();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let power = match unit.to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(expected()),
    };
    let bytes = number.trim().parse::<f64>().map_err(|_| expected())? * 1024_f64.powi(power);
    if (1.0..u64::MAX as f64).contains(&bytes) { Ok(bytes as u64) } else { Err(expected()) }
}

fn number<T>(text: &str, is_valid: impl Fn(f64) -> bool, expected: &str) -> Result<T, String>
where
    T: FromStr<Err: Display> + Copy + Into<f64>,
{
    let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
    if is_valid(value.into()) { Ok(value) } else { Err(expected.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_their_bounds_as_documented() {
        assert_eq!(at_least(1_usize)("1"), Ok(1));
        assert_eq!(at_least(1_i32)("-1"), Err("must be at least 1".into()));
        assert_eq!(between(1, 512)("512"), Ok(512));
        assert_eq!(between(1, 512)("513"), Err("must be at most 512".into()));
        assert!(between(1, 512)("0").is_err() && at_least(1_usize)("-1").is_err() && at_least(1)("one").is_err());
        assert_eq!((non_negative("0"), positive("1e-9")), (Ok(0.0), Ok(1e-9)));
        assert_eq!((probability("1"), below_one("0.5")), (Ok(1.0), Ok(0.5_f32)));
        for text in ["-1e-9", "nan", "inf", "", "x"] {
            assert!(non_negative(text).is_err() && positive(text).is_err(), "{text}");
            assert!(probability::<f64>(text).is_err() && below_one::<f32>(text).is_err(), "{text}");
        }
        assert_eq!(
            (bytes("8G"), bytes("1.5 MiB"), bytes("100"), bytes("2kb")),
            (Ok(8 << 30), Ok(3 << 19), Ok(100), Ok(2048))
        );
        for text in ["", "G", "-1G", "0", "0.1", "1e30", "8X", "8GG", "nan", "inf"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(positive("0").is_err() && below_one::<f32>("1").is_err() && probability::<f32>("1.1").is_err());
    }
}
