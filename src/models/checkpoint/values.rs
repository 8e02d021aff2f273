//! Values that were saved with `torch.save` outside of a state_dict: a tensor, or a dictionary of tensors and lists of strings.

use std::path::Path;
use std::sync::Arc;

use super::pickle::{Machine, Value};
use super::tensor::{Source, Tensor};
use super::torch::{self, Locate};
use crate::error::Error;

/// Maximum length in bytes of all strings. Lists in a pickle can refer to one string many times.
const MAX_TEXT_LEN: usize = 1 << 28;

/// Tensors and strings in a file of `torch.save`.
#[derive(Debug)]
pub struct SavedValues {
    /// Names and values in the order of the dictionary; the name of a tensor without a dictionary is empty.
    pub values: Vec<(String, SavedValue)>,
}

/// A value in a file of `torch.save`.
#[derive(Debug)]
pub enum SavedValue {
    /// A tensor, whose data is read on demand.
    Tensor(Tensor),
    /// A list or tuple of strings.
    Texts(Vec<String>),
    /// Another value, such as a number or a list of tensors.
    Other,
}

impl SavedValues {
    /// Opens a file and reads the names, types and shapes of its tensors.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is malformed, refers to Python code, or contains neither a tensor nor a dictionary.
    pub fn open(path: &Path) -> crate::Result<Self> {
        let source = Arc::new(Source::open(path)?);
        let values = torch::read(&source, |machine, root, locate| values(&source, machine, root, locate));
        let invalid = |message: String| Error::Weights { path: path.into(), message };
        match values.map_err(invalid)? {
            Some(values) => Ok(Self { values }),
            None => Err(invalid("not a file of torch.save".into())),
        }
    }
}

/// Returns the values of the saved object.
fn values(
    source: &Arc<Source>,
    machine: &Machine,
    root: &Value,
    locate: Locate<'_>,
) -> Result<Vec<(String, SavedValue)>, String> {
    if let Value::Tensor(reference) = root {
        return Ok(vec![(String::new(), SavedValue::Tensor(torch::tensor(source, reference, locate)?))]);
    }
    let entries = machine.entries(root).ok_or("the saved object is neither a tensor nor a dict: save one of these")?;
    let mut values = Vec::new();
    let mut text_len = 0;
    for (key, value) in entries {
        let name = match key {
            Value::Text(name) => name.to_string(),
            Value::Int(number) => number.to_string(),
            _ => continue,
        };
        let value = match value {
            Value::Tensor(reference) => SavedValue::Tensor(
                torch::tensor(source, reference, locate).map_err(|error| format!("tensor {name}: {error}"))?,
            ),
            value => match machine.items(value) {
                Some(items) if items.iter().all(|item| matches!(item, Value::Text(_))) => {
                    SavedValue::Texts(texts(items, &mut text_len)?)
                }
                _ => SavedValue::Other,
            },
        };
        values.push((name, value));
    }
    Ok(values)
}

/// Returns the items that are strings, and adds their lengths to `len`.
fn texts(items: &[Value], len: &mut usize) -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    for item in items {
        let Value::Text(text) = item else { continue };
        *len += text.len();
        if *len > MAX_TEXT_LEN {
            return Err("its strings are too long".into());
        }
        texts.push(text.to_string());
    }
    Ok(texts)
}
