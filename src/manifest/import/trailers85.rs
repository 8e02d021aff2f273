//! The trailers with 85 labels: one JSON file with the splits and the labels, and a folder of PNG frames a title.

use std::path::Path;

use serde_json::Value;

use super::movienet::{malformed, strings};
use super::{Listed, Title};
use crate::error::{Error, Result};
use crate::manifest::Split;
use crate::manifest::csv::read_text;
use crate::manifest::problems::Problems;

/// Frames a title is published with, least and most.
const FRAMES: (usize, usize) = (3, 80);

/// Reads `{"train": {"tt0123456": ["crime", "action"]}, "test": {…}}`.
pub(super) fn read(list: &Path, problems: &mut Problems) -> Result<Listed> {
    let text = read_text(list)?;
    let value: Value = serde_json::from_str(&text).map_err(|error| malformed(list, &error))?;
    let wrong = |message: &str| Error::Manifest { path: list.to_path_buf(), line: None, message: message.into() };
    let splits =
        value.as_object().ok_or_else(|| wrong("wanted is {\"train\": {\"ID\": [\"LABEL\"]}, \"test\": {…}}"))?;
    let mut listed = Listed { frames: Some(FRAMES), ..Listed::default() };
    for (name, titles) in splits {
        let Some(split) = Split::parse(name) else {
            problems.add(None, format!("unknown split `{name}`; known are train, val and test"));
            continue;
        };
        let Some(titles) = titles.as_object() else {
            problems.add(None, format!("`{name}` is not an object of ids with their labels"));
            continue;
        };
        for (id, labels) in titles {
            // The line is that on which the id is written first, as a key, in its split.
            let line = line_of(&text, name, id);
            match strings(labels) {
                Some(labels) if !labels.iter().any(String::is_empty) => {
                    listed.titles.push(Title { id: id.clone(), labels, split: Some(split), line, ..Title::default() })
                }
                _ => problems.add(line, format!("the labels of `{id}` ({name}) are not a list of words")),
            }
        }
    }
    Ok(listed)
}

/// The 1-based line of a key after that of its split; JSON's values have lost theirs.
fn line_of(text: &str, split: &str, id: &str) -> Option<u64> {
    let quoted = |key: &str| Value::from(key).to_string();
    let from = text.find(&quoted(split))?;
    let at = from + text[from..].find(&quoted(id))?;
    Some(1 + text[..at].bytes().filter(|&byte| byte == b'\n').count() as u64)
}
