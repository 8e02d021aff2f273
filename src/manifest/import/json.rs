//! JSON files of data sets.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Parses the text of a JSON file.
///
/// # Errors
/// Returns an error with the line if the text is not valid JSON.
pub(super) fn parse(text: &str, file: &Path) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::Manifest {
        path: file.to_path_buf(),
        line: Some(error.line() as u64),
        message: format!("invalid JSON: {error}"),
    })
}

/// Converts a JSON list of strings; `None` if `value` is anything else.
pub(super) fn string_list(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(|text| text.trim().to_string())).collect()
}
