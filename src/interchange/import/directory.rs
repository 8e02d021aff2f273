//! Sources with one file per clip.

use std::path::{Path, PathBuf};

use super::{ImportOptions, Item, Items, Place};
use crate::error::{Error, Result};
use crate::interchange::{EXTENSIONS, is_supported};

/// Number of directory levels below the source that are searched.
const SEARCH_DEPTH: usize = 8;

/// Finds the files that match the pattern; without a pattern, all files of a supported format, with their path as id.
pub(super) fn collect(options: &ImportOptions) -> Result<Items> {
    let mut files = Vec::new();
    find(&options.source, SEARCH_DEPTH, &mut files)?;
    let mut items = Vec::new();
    let mut others = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&options.source).unwrap_or(&file);
        let name = match &options.files {
            Some(pattern) if pattern.by_stem => relative.file_name().map(Path::new).unwrap_or(relative),
            _ => relative,
        };
        // A name that is not UTF-8 cannot be an id.
        let Some(name) = name.to_str() else { continue };
        let id = match &options.files {
            Some(pattern) => pattern.id(name).filter(|_| is_supported(&file)).map(str::to_string),
            None => is_supported(&file).then(|| name.rsplit_once('.').map_or(name, |(id, _)| id).to_string()),
        };
        match id {
            Some(id) => items.push(Item { id, place: Place::File(file) }),
            None => others.push(name.to_string()),
        }
    }
    items.sort_by(|a, b| natord::compare(&a.id, &b.id).then_with(|| a.id.cmp(&b.id)));
    if items.is_empty() {
        let example = others.iter().min().map(|name| format!(", but files such as {name}")).unwrap_or_default();
        let message = match &options.files {
            Some(pattern) => format!("contains no {EXTENSIONS} file that matches {pattern}{example}"),
            None => format!("contains no file with features ({EXTENSIONS}){example}"),
        };
        return Err(Error::Import { path: options.source.clone(), message });
    }
    let by_stem = options.files.as_ref().is_some_and(|pattern| pattern.by_stem);
    let origin = format!("{} files of {}", items.len(), options.source.display());
    Ok(Items { items, by_stem, matrix: None, file: None, origin })
}

/// Lists the visible files below a directory.
fn find(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if !path.is_dir() {
            found.push(path);
        } else if depth > 0 {
            find(&path, depth - 1, found)?;
        }
    }
    Ok(())
}
