//! MovieNet: one JSON metadata file per title, and a directory of keyframes per title.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json;
use super::title::{Title, TitleList};
use crate::error::{Error, Result};
use crate::manifest::problems::Problems;
use crate::manifest::table::read_text;

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

/// Reads `meta/tt0123456.json` below `source`, or `tt0123456.json` in it. The labels are the list `genres`; the year is
/// `year`, or the number in parentheses at the end of `title`.
///
/// # Errors
/// Returns an error if a file cannot be read or is not valid JSON.
pub(super) fn read(source: &Path, problems: &mut Problems) -> Result<TitleList> {
    let files = if source.is_file() {
        vec![source.to_path_buf()]
    } else {
        let files = metadata_files(&source.join("meta"))?;
        if files.is_empty() { metadata_files(source)? } else { files }
    };
    if files.is_empty() {
        problems.add(
            None,
            "no metadata: expected a directory `meta` with files such as tt0123456.json; pass its parent directory, and the directory of the keyframes as --clips",
        );
    }
    let mut result = TitleList::default();
    for file in files {
        let value = json::parse(&read_text(&file)?, &file)?;
        let id = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let labels = match value.get("genres") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(genres) => json::string_list(genres),
        };
        let Some(labels) = labels else {
            problems.add(None, format!("{}: `genres` is not a list of strings", file.display()));
            continue;
        };
        result.titles.push(Title { id, labels, year: release_year(&value), ..Title::default() });
    }
    Ok(result)
}

/// Lists the JSON files of a directory that are named after a title (`tt` and digits), sorted; empty if there is no such
/// directory.
fn metadata_files(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let number = stem.strip_prefix("tt").unwrap_or_default();
        let is_title = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_title && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn release_year(value: &Value) -> Option<i32> {
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
