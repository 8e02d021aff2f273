//! Detects the format of a manifest and calls its reader.

use std::path::Path;

use super::clip::Clip;
use super::clip::is_media;
use super::columns::COLUMN_NAMES;
use super::directory::{Listing, strip_extensions};
use super::parsed::{ParsedClip, ParsedManifest};
use super::problems::Problems;
use super::resolve::resolve;
use super::table::{Table, read_text};
use super::{MediaFiles, class_directories, csv, id_lists, tar_shards};
use crate::archives::is_archive;
use crate::error::Result;
use crate::suggest::closest;

/// Reads the clips of a file or directory with the given root of its paths.
pub(super) type Reader = fn(&Path, &Path, MediaFiles, &mut Problems) -> Result<ParsedManifest>;

/// Reads a text file (a CSV manifest, an id list or a list of paths) or a tar archive of clips.
///
/// # Errors
/// Returns an error if the file cannot be read, is not UTF-8 or is not valid CSV.
pub(super) fn read_file(
    source: &Path,
    root: &Path,
    media: MediaFiles,
    problems: &mut Problems,
) -> Result<ParsedManifest> {
    if is_media(source) {
        problems.add(None, "a clip, not a manifest; list its path in a text file, or pass its directory");
        return Ok(ParsedManifest::default());
    }
    if is_archive(source) {
        return tar_shards::read(&[source.to_path_buf()], root, problems);
    }
    let text = read_text(source)?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if first.is_empty() {
        problems.add(None, "empty file; expected the header id,path,label and one clip per line");
        return Ok(ParsedManifest::default());
    }
    if is_path_list(source, first, root) {
        return Ok(read_path_list(&text, root, problems));
    }
    let table = Table::parse(&text, source)?;
    if id_lists::is_id_list(&table.header) {
        return id_lists::read(&[(source, table)], root, media, problems);
    }
    Ok(csv::read(&table, root, problems))
}

/// Reads a directory: all id lists in it, all tar archives, or one directory per class.
///
/// # Errors
/// Returns an error if a file or directory cannot be read.
pub(super) fn read_directory(
    source: &Path,
    root: &Path,
    media: MediaFiles,
    problems: &mut Problems,
) -> Result<ParsedManifest> {
    let listing = Listing::read(source)?;
    let mut lists = Vec::new();
    for file in listing.files.iter().filter(|file| file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))) {
        let table = Table::parse(&read_text(file)?, file)?;
        if id_lists::is_id_list(&table.header) {
            lists.push((file.as_path(), table));
        }
    }
    if !lists.is_empty() {
        return id_lists::read(&lists, root, media, problems);
    }
    let archives = tar_shards::archives(&listing)?;
    if !archives.is_empty() {
        return tar_shards::read(&archives, source, problems);
    }
    class_directories::read(source, &listing, problems)
}

/// Returns `true` if a text file lists one path per line: its first line exists as a file, or is not a header.
fn is_path_list(source: &Path, first: &str, root: &Path) -> bool {
    if resolve(root, first).exists() {
        return true;
    }
    let cells: Vec<String> =
        first.split([',', ';', '\t']).map(|cell| cell.trim_matches(['"', ' ']).to_lowercase()).collect();
    let is_column = |cell: &String| cell == "category" || closest(cell, COLUMN_NAMES).is_some();
    let is_table = source.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv") || e.eq_ignore_ascii_case("tsv"));
    // Column names have neither an extension nor a directory.
    let looks_like_path =
        first.starts_with('#') || is_media(Path::new(first)) || (cells.len() == 1 && first.contains('/'));
    !cells.iter().any(is_column) && (looks_like_path || !is_table)
}

/// Reads one path per line. The id is the path without its extension, or with it if the id would not be unique.
fn read_path_list(text: &str, root: &Path, problems: &mut Problems) -> ParsedManifest {
    let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
    let mut clips = Vec::new();
    for (path, line) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
        match Clip::at(root, path) {
            Ok(clip) => {
                let id = clip.path.replace('\\', "/");
                clips.push(ParsedClip { clip: Clip { id, ..clip }, line: Some(line) });
            }
            Err(problem) => problems.add(Some(line), problem),
        }
    }
    strip_extensions(&mut clips);
    ParsedManifest { clips, warnings: Vec::new() }
}
