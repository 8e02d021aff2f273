//! Trailers with 85 labels: one JSON file with splits and labels, and a directory of PNG frames per title.

use std::path::Path;

use serde_json::Value;

use super::json;
use super::title::{Title, TitleList};
use crate::error::{Error, Result};
use crate::manifest::clip::Split;
use crate::manifest::problems::Problems;
use crate::manifest::table::read_text;

/// Minimum and maximum number of frames per title in the published data set.
const FRAME_RANGE: (usize, usize) = (3, 80);

/// Reads `{"train": {"tt0123456": ["crime", "action"]}, "test": {…}}`.
///
/// # Errors
/// Returns an error if the file cannot be read or is not a JSON object.
pub(super) fn read(list: &Path, problems: &mut Problems) -> Result<TitleList> {
    let text = read_text(list)?;
    let value = json::parse(&text, list)?;
    let splits = value.as_object().ok_or_else(|| Error::Manifest {
        path: list.to_path_buf(),
        line: None,
        message: "expected {\"train\": {\"ID\": [\"LABEL\"]}, \"test\": {…}}".into(),
    })?;
    let mut result = TitleList { frame_range: Some(FRAME_RANGE), ..TitleList::default() };
    for (name, titles) in splits {
        let Some(split) = Split::parse(name) else {
            problems.add(None, Split::unknown(name));
            continue;
        };
        let Some(titles) = titles.as_object() else {
            problems.add(None, format!("expected an object of ids and labels in `{name}`"));
            continue;
        };
        for (id, labels) in titles {
            let line = line_of(&text, name, id);
            match json::string_list(labels) {
                Some(labels) if !labels.iter().any(String::is_empty) => {
                    result.titles.push(Title { id: id.clone(), labels, split: Some(split), line, ..Title::default() })
                }
                _ => problems.add(line, format!("labels of `{id}` ({name}) are not a list of nonempty strings")),
            }
        }
    }
    Ok(result)
}

/// Returns the 1-based line of the first occurrence of a key after the key of its split; parsed JSON has no lines.
fn line_of(text: &str, split: &str, id: &str) -> Option<u64> {
    let quoted = |key: &str| Value::from(key).to_string();
    let start = text.find(&quoted(split))?;
    let position = start + text[start..].find(&quoted(id))?;
    Some(1 + text[..position].bytes().filter(|&byte| byte == b'\n').count() as u64)
}
