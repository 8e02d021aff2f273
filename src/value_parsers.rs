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
        assert!(positive("0").is_err() && below_one::<f32>("1").is_err() && probability::<f32>("1.1").is_err());
    }
}
