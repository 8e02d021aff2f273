//! Tables of titles: Trailers12k, posters, and other CSV files with a column of labels or one 0/1 column per label.

use std::path::Path;

use super::title::{Title, TitleList};
use crate::error::Result;
use crate::manifest::clip::Split;
use crate::manifest::csv::{parse_split, parse_year};
use crate::manifest::problems::Problems;
use crate::manifest::table::{Table, read_text};
use crate::suggest::did_you_mean;

/// The columns of a format. Names are lowercase and match regardless of case; of several names, the first that occurs.
pub(super) struct Schema {
    id: &'static [&'static str],
    path: &'static [&'static str],
    /// Column with all labels of a title, separated by `separator` or written as a Python list.
    labels: &'static [&'static str],
    separator: char,
    /// If both exist: read the 0/1 columns, not the column of labels.
    prefer_indicators: bool,
    split: String,
    /// Splits are written as 0 (train), 1 (val) and 2 (test).
    numbered_splits: bool,
}

impl Schema {
    /// Trailers12k: `id`, a 0/1 column per genre, and `split0` to `split2`, of which one is read.
    pub(super) fn trailers12k(split: u8) -> Schema {
        let split = format!("split{split}");
        Schema { id: &["id", "mid"], labels: &[], split, numbered_splits: true, ..Schema::csv(None) }
    }

    /// Posters: `Id,Genre,Action,Adventure,…`.
    pub(super) fn posters() -> Schema {
        Schema { id: &["id"], path: &[], labels: &["genre", "genres"], prefer_indicators: true, ..Schema::csv(None) }
    }

    /// Any CSV: `id` or `path` (or both), `labels` or 0/1 columns, `split`, `group`, `year`.
    pub(super) fn csv(separator: Option<char>) -> Schema {
        Schema {
            id: &["id", "imdb_id", "imdbid", "name"],
            path: &["path", "file", "filename"],
            labels: &["labels", "label", "genres", "genre"],
            separator: separator.unwrap_or('|'),
            prefer_indicators: false,
            split: "split".into(),
            numbered_splits: false,
        }
    }
}

/// Indices of the columns of one table.
struct Columns {
    id: Option<usize>,
    path: Option<usize>,
    labels: Option<usize>,
    split: Option<usize>,
    group: Option<usize>,
    year: Option<usize>,
    /// The 0/1 columns.
    indicators: Vec<usize>,
}

/// Reads a table. A column with an unknown name is the 0/1 column of a label if more than half of its values are 0 or 1;
/// its other values are then problems.
///
/// # Errors
/// Returns an error if the file cannot be read or is not valid CSV.
pub(super) fn read(list: &Path, schema: Schema, problems: &mut Problems) -> Result<TitleList> {
    let table = Table::parse(&read_text(list)?, list)?;
    let mut result = TitleList::default();
    let columns = find_columns(&table, &schema, &mut result.warnings);
    check_columns(&table, &schema, &columns, problems);
    if !problems.is_empty() {
        return Ok(result);
    }
    let read_indicators = columns.labels.is_none() || (schema.prefer_indicators && !columns.indicators.is_empty());
    let mut inconsistent_lines: Vec<u64> = Vec::new();
    for (line, fields) in &table.rows {
        let line = *line;
        if let Some(problem) = table.field_count_problem(fields) {
            problems.add(Some(line), problem);
            continue;
        }
        let field = |column: Option<usize>| column.map_or("", |column| fields[column].trim());
        let path = field(columns.path);
        let id = match field(columns.id) {
            "" if !path.is_empty() => without_extension(path),
            id => id.to_string(),
        };
        if id.is_empty() {
            problems.add(Some(line), "empty id");
            continue;
        }
        let listed_labels = columns.labels.and_then(|column| {
            let labels = split_labels(&fields[column], schema.separator);
            if labels.is_none() {
                problems.add(
                    Some(line),
                    format!("invalid list `{}`; expected ['Comedy', 'Drama'] or similar", fields[column]),
                );
            }
            labels
        });
        let mut indicated_labels: Vec<String> = Vec::new();
        for &column in &columns.indicators {
            let (name, value) = (&table.header[column], &fields[column]);
            match parse_indicator(value) {
                Some(true) => indicated_labels.push(name.clone()),
                Some(false) => {}
                None => {
                    problems.add(Some(line), format!("invalid value `{value}` in column `{name}`; expected 0 or 1"))
                }
            }
        }
        let labels = if read_indicators {
            let is_consistent = |listed: Vec<String>| {
                listed.len() == indicated_labels.len() && listed.iter().all(|l| indicated_labels.contains(l))
            };
            if listed_labels.is_some_and(|listed| !is_consistent(listed)) {
                inconsistent_lines.push(line);
            }
            indicated_labels
        } else {
            listed_labels.unwrap_or_default()
        };
        let split = field(columns.split);
        result.titles.push(Title {
            id,
            path: (!path.is_empty()).then(|| path.to_string()),
            labels,
            split: if schema.numbered_splits {
                parse_numbered_split(split, line, problems)
            } else {
                parse_split(split, line, problems)
            },
            group: Some(field(columns.group).to_string()).filter(|group| !group.is_empty()),
            // Tables that were processed as floats have years such as 1997.0.
            year: parse_year(field(columns.year).trim_end_matches(".0"), line, problems),
            line: Some(line),
        });
    }
    if let Some(first) = inconsistent_lines.first() {
        let name = columns.labels.map_or("", |column| &table.header[column]);
        result.warnings.push(format!(
            "`{name}` contradicts the 0/1 columns in {} of {} rows (first on line {first}); using the 0/1 columns",
            inconsistent_lines.len(),
            table.rows.len()
        ));
    }
    Ok(result)
}

/// Reports required columns that are missing.
fn check_columns(table: &Table, schema: &Schema, columns: &Columns, problems: &mut Problems) {
    let header = table.header.join(",");
    let mut missing_column = |name: &str| {
        let hint = did_you_mean(name, table.header.iter().map(String::as_str));
        problems.add(Some(table.header_line), format!("missing column `{name}` in the header ({header}){hint}"));
    };
    if columns.id.is_none() && columns.path.is_none() {
        missing_column(schema.id[0]);
    }
    if schema.numbered_splits && columns.split.is_none() {
        missing_column(&schema.split);
    }
    if columns.labels.is_none() && columns.indicators.is_empty() {
        let expected = schema.labels.first().map(|name| format!("a column `{name}` or ")).unwrap_or_default();
        problems.add(
            Some(table.header_line),
            format!("no labels: expected {expected}columns of 0 and 1 (header: {header})"),
        );
    }
}

fn find_columns(table: &Table, schema: &Schema, warnings: &mut Vec<String>) -> Columns {
    let names: Vec<String> = table.header.iter().map(|name| name.to_lowercase()).collect();
    let find = |wanted: &[&str]| wanted.iter().find_map(|wanted| names.iter().position(|name| name == wanted));
    let mut columns = Columns {
        id: find(schema.id),
        path: find(schema.path),
        labels: find(schema.labels),
        split: find(&[schema.split.as_str()]),
        group: find(&["group"]),
        year: find(&["year"]),
        indicators: Vec::new(),
    };
    let known = [columns.id, columns.path, columns.labels, columns.split, columns.group, columns.year];
    let mut ignored = Vec::new();
    for (column, name) in names.iter().enumerate() {
        let other_split = name.strip_prefix("split").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        if known.contains(&Some(column)) || other_split || name.is_empty() {
            continue;
        }
        let values = || table.rows.iter().filter_map(|(_, fields)| fields.get(column));
        if 2 * values().filter(|value| parse_indicator(value).is_some()).count() > values().count() {
            columns.indicators.push(column);
        } else {
            ignored.push(format!("`{}`", table.header[column]));
        }
    }
    // Next to a column of labels, 0/1 columns may have another meaning.
    if columns.labels.is_some() && !schema.prefer_indicators {
        ignored.extend(columns.indicators.drain(..).map(|column| format!("`{}`", table.header[column])));
    }
    if !ignored.is_empty() {
        warnings.push(format!("ignored columns: {}", ignored.join(", ")));
    }
    columns
}

fn parse_indicator(value: &str) -> Option<bool> {
    match value.trim() {
        "1" | "1.0" | "True" | "true" => Some(true),
        "0" | "0.0" | "False" | "false" => Some(false),
        _ => None,
    }
}

fn parse_numbered_split(value: &str, line: u64, problems: &mut Problems) -> Option<Split> {
    match value {
        "0" => Some(Split::Train),
        "1" => Some(Split::Val),
        "2" => Some(Split::Test),
        other => {
            problems.add(Some(line), format!("unknown split `{other}`; expected 0 (train), 1 (val) or 2 (test)"));
            None
        }
    }
}

/// Parses labels with separators, or a Python list of strings; `None` if such a list is malformed.
fn split_labels(value: &str, separator: char) -> Option<Vec<String>> {
    let value = value.trim();
    let labels = match value.strip_prefix('[') {
        Some(rest) => parse_python_list(rest.strip_suffix(']')?)?,
        None => value.split(separator).map(|label| label.trim().to_string()).collect(),
    };
    Some(labels.into_iter().filter(|label| !label.is_empty()).collect())
}

/// Parses the items of a Python list of strings: single or double quotes, a backslash escapes the next character.
fn parse_python_list(text: &str) -> Option<Vec<String>> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    while let Some(quote) = rest.chars().next() {
        if quote != '\'' && quote != '"' {
            return None;
        }
        let mut item = String::new();
        let mut characters = rest[1..].char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => item.push(characters.next()?.1),
                (index, character) if character == quote => break index + 2,
                (_, character) => item.push(character),
            }
        };
        items.push(item);
        rest = rest[end..].trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(items)
}

fn without_extension(path: &str) -> String {
    Path::new(path).with_extension("").to_string_lossy().into_owned()
}
