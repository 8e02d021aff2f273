//! Reader of id lists: CSV files with the header `Id,Category` or `Id`. The clip of an id is searched by file name.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::MediaFiles;
use super::clip::Clip;
use super::directory::{clip_from_path, file_name, find_by_id, select_candidates, split_in_name};
use super::parsed::{ParsedClip, ParsedManifest};
use super::problems::{Problems, count_of};
use super::table::Table;
use crate::error::Result;

/// Number of missing ids that are printed.
const MAX_SHOWN: usize = 5;

/// Returns `true` if the header is that of an id list: `Id,Category`, or `Id` alone.
pub(super) fn is_id_list(header: &[String]) -> bool {
    let names: Vec<String> = header.iter().map(|name| name.to_lowercase()).collect();
    names.iter().any(|name| name == "id") && names.iter().all(|name| name == "id" || name == "category")
}

/// Reads id lists and finds their clips below the root (see [`find_by_id`] and [`select_candidates`]).
///
/// If several lists have labels, the names of the lists determine the splits. With [`MediaFiles::Optional`], a clip without a
/// file has its id as path.
///
/// # Errors
/// Returns an error if a directory cannot be read.
pub(super) fn read(
    lists: &[(&Path, Table)],
    root: &Path,
    media: MediaFiles,
    problems: &mut Problems,
) -> Result<ParsedManifest> {
    let ids = lists.iter().flat_map(|(_, table)| {
        let column = id_column(table);
        table.rows.iter().filter_map(move |(_, fields)| fields.get(column)).map(String::as_str)
    });
    let candidates = match media {
        MediaFiles::Optional if !root.is_dir() => Default::default(),
        _ => find_by_id(root, &ids.collect::<HashSet<&str>>())?,
    };
    let several_labeled = lists.iter().filter(|(_, table)| has_labels(table)).count() > 1;
    let mut parsed = ParsedManifest::default();
    for (source, table) in lists {
        let id_column = id_column(table);
        let category = column(table, "category").filter(|_| has_labels(table));
        let list_split = split_in_name(&file_name(source));
        let mut missing: Vec<String> = Vec::new();
        for (line, fields) in &table.rows {
            // The problems of several lists are reported together: the line needs its file.
            let mut report = |message: String| match lists.len() {
                1 => problems.add(Some(*line), message),
                _ => problems.add(None, format!("{}:{line}: {message}", source.display())),
            };
            let id = fields.get(id_column).map(String::as_str).unwrap_or_default();
            let label = category.map(|category| fields.get(category).map(String::as_str).unwrap_or_default());
            if id.is_empty() {
                report("empty id".into());
                continue;
            }
            if label == Some("") {
                report(format!("empty category of `{id}`; fill it in"));
                continue;
            }
            let files: Vec<PathBuf> =
                candidates.get(id).map(|files| select_candidates(files, list_split)).unwrap_or_default();
            let file = match files.as_slice() {
                [] if media == MediaFiles::Optional => root.join(id),
                [] => {
                    missing.push(format!("`{id}` (line {line})"));
                    continue;
                }
                [file] => file.clone(),
                [first, second, ..] => {
                    report(format!(
                        "several files for `{id}`: {} and {}; write a manifest with the header id,path,label",
                        first.display(),
                        second.display()
                    ));
                    continue;
                }
            };
            let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            let split = list_split.filter(|_| several_labeled && label.is_some());
            let clip = Clip { id: id.to_string(), file, ..clip_from_path(root, path, label, split) };
            parsed.clips.push(ParsedClip { clip, line: (lists.len() == 1).then_some(*line) });
        }
        if !missing.is_empty() {
            problems.add(
                None,
                format!(
                    "{}: no file or directory for {} below {}: {}{}; set the directory of the clips with --root",
                    source.display(),
                    count_of(missing.len(), "id"),
                    root.display(),
                    missing[..missing.len().min(MAX_SHOWN)].join(", "),
                    if missing.len() > MAX_SHOWN { ", …" } else { "" }
                ),
            );
        }
    }
    Ok(parsed)
}

fn column(table: &Table, name: &str) -> Option<usize> {
    table.header.iter().position(|column| column.eq_ignore_ascii_case(name))
}

fn id_column(table: &Table) -> usize {
    column(table, "id").expect("is_id_list checked the header")
}

/// Returns `true` if a row has a category.
fn has_labels(table: &Table) -> bool {
    let category = column(table, "category");
    category.is_some_and(|c| table.rows.iter().any(|(_, f)| f.get(c).is_some_and(|label| !label.is_empty())))
}
