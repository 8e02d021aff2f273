//! Batch size of a network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number of items (frames or windows) per run of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BatchSizeValue", into = "BatchSizeValue")]
pub enum BatchSize {
    /// 1 on a CPU; on a GPU the size from which on larger batches are not faster.
    #[default]
    Auto,
    /// This number, from 1 to [`BatchSize::MAX`].
    Items(usize),
}

impl BatchSize {
    /// Maximum batch size. Larger batches only need memory.
    pub const MAX: usize = 1024;
}

/// A batch size in recipes: a number or `"auto"`.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "extractor.batch must be a number from 1 to 1024, or \"auto\"")]
enum BatchSizeValue {
    Items(usize),
    Name(String),
}

impl TryFrom<BatchSizeValue> for BatchSize {
    type Error = String;

    fn try_from(value: BatchSizeValue) -> Result<Self, String> {
        match value {
            BatchSizeValue::Items(items) if (1..=BatchSize::MAX).contains(&items) => Ok(BatchSize::Items(items)),
            BatchSizeValue::Name(name) if name == "auto" => Ok(BatchSize::Auto),
            _ => Err(format!("extractor.batch must be a number from 1 to {}, or \"auto\"", BatchSize::MAX)),
        }
    }
}

impl From<BatchSize> for BatchSizeValue {
    fn from(batch: BatchSize) -> Self {
        match batch {
            BatchSize::Auto => BatchSizeValue::Name("auto".into()),
            BatchSize::Items(items) => BatchSizeValue::Items(items),
        }
    }
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(items) if (1..=BatchSize::MAX).contains(&items) => Ok(BatchSize::Items(items)),
            _ if text == "auto" => Ok(BatchSize::Auto),
            _ => Err(format!("expected auto, or a number from 1 to {}", BatchSize::MAX)),
        }
    }
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchSize::Auto => f.write_str("auto"),
            BatchSize::Items(items) => items.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_numbers_or_auto() {
        for (text, batch) in
            [("\"auto\"", BatchSize::Auto), ("1", BatchSize::Items(1)), ("1024", BatchSize::Items(1024))]
        {
            assert_eq!(serde_json::from_str::<BatchSize>(text).unwrap(), batch);
            assert_eq!(serde_json::to_string(&batch).unwrap(), text);
            assert_eq!(text.trim_matches('"').parse(), Ok(batch));
            assert_eq!(batch.to_string(), text.trim_matches('"'));
        }
        for text in ["0", "1025", "\"8\"", "-1", "1.5"] {
            let error = serde_json::from_str::<BatchSize>(text).unwrap_err().to_string();
            assert!(error.contains("extractor.batch must be a number from 1 to 1024, or \"auto\""), "{error}");
        }
        assert!("0".parse::<BatchSize>().is_err() && "x".parse::<BatchSize>().is_err());
    }
}
