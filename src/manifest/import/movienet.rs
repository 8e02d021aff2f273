//! MovieNet: metadata of one JSON file a title, keyframes of each shot in a folder a title.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Listed, Title};
use crate::error::{Error, Result};
use crate::manifest::csv::read_text;
use crate::manifest::problems::Problems;

/// The 21 genres of MovieNet's genre classification.
///
/// Source: Huang, Xiong, Rao, Wang, Lin, "MovieNet: A Holistic Dataset for Movie Understanding" (2020).
pub const GENRES: [&str; 21] = [
    "Action",
    "Adventure",
    "Animation",
    "Biography",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Family",
    "Fantasy",
    "History",
    "Horror",
    "Music",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Sport",
    "Thriller",
    "War",
    "Western",
];

/// The titles of `meta/tt0123456.json` below `source`, or of `tt0123456.json` in it: `genres` is their list of labels; the
/// year is `year`, or what stands in brackets at the end of `title`.
pub(super) fn read(source: &Path, problems: &mut Problems) -> Result<Listed> {
    let files = match source {
        file if file.is_file() => vec![file.to_path_buf()],
        folder => {
            let within = metadata(&folder.join("meta"))?;
            if within.is_empty() { metadata(folder)? } else { within }
        }
    };
    if files.is_empty() {
        problems.add(
            None,
            "no metadata: wanted is a folder `meta` with files such as tt0123456.json; name the folder that holds it, and the keyframes with --clips",
        );
    }
    let mut listed = Listed::default();
    for file in files {
        let text = read_text(&file)?;
        let value: Value = serde_json::from_str(&text).map_err(|error| malformed(&file, &error))?;
        let id = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let labels = match value.get("genres") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(genres) => strings(genres),
        };
        let Some(labels) = labels else {
            problems.add(None, format!("{}: `genres` is not a list of words", file.display()));
            continue;
        };
        listed.titles.push(Title { id, labels, year: year(&value), ..Title::default() });
    }
    Ok(listed)
}

/// A JSON file that cannot be parsed, with its line.
pub(super) fn malformed(file: &Path, error: &serde_json::Error) -> Error {
    let message = format!("not readable as JSON: {error}");
    Error::Manifest { path: file.to_path_buf(), line: Some(error.line() as u64), message }
}

/// A JSON list of strings.
pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(|text| text.trim().to_string())).collect()
}

/// The files named like a title (`tt` and digits) in a folder, sorted.
fn metadata(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for child in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = child.map_err(Error::io(folder))?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let number = stem.strip_prefix("tt").unwrap_or_default();
        let titled = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if titled && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn year(value: &Value) -> Option<i32> {
    let plausible = |year: &i32| (1850..2200).contains(year);
    let stated = value.get("year").and_then(|year| match year {
        Value::Number(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
        other => other.as_str()?.trim().parse().ok(),
    });
    stated.filter(plausible).or_else(|| {
        let title = value.get("title")?.as_str()?.trim_end();
        title.strip_suffix(')')?.rsplit_once('(')?.1.parse().ok().filter(plausible)
    })
}
