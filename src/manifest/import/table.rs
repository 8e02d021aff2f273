//! Tables of titles: Trailers12k, posters, and any CSV with labels in a column or as 0/1 columns.

use std::path::Path;

use super::{Listed, Title};
use crate::error::Result;
use crate::manifest::Split;
use crate::manifest::csv::{Table, read_split, read_text, read_year};
use crate::manifest::problems::Problems;

/// Where a table says what. Names of columns are lower case; capitals do not matter.
pub(super) struct Layout {
    id: &'static [&'static str],
    path: &'static [&'static str],
    /// The column with all labels of a title, between `separator` or as a Python list.
    labels: &'static [&'static str],
    separator: char,
    /// Whether 0/1 columns are read before a column of labels, where there are both.
    indicators_first: bool,
    split: String,
    /// Whether splits are written 0, 1 and 2 for train, val and test.
    numbered: bool,
}

impl Layout {
    /// Trailers12k: `id`, a 0/1 column a genre, and `split0` to `split2`, of which one is read.
    pub(super) fn trailers12k(split: u8) -> Layout {
        let split = format!("split{split}");
        Layout { id: &["id", "mid"], labels: &[], split, numbered: true, ..Layout::any(None) }
    }

    /// Posters: `Id,Genre,Action,Adventure,…`.
    pub(super) fn posters() -> Layout {
        Layout { id: &["id"], path: &[], labels: &["genre", "genres"], indicators_first: true, ..Layout::any(None) }
    }

    /// Any CSV: `id` or `path` (or both), `labels` or 0/1 columns, `split`, `group`, `year`.
    pub(super) fn any(separator: Option<char>) -> Layout {
        Layout {
            id: &["id", "imdb_id", "imdbid", "name"],
            path: &["path", "file", "filename"],
            labels: &["labels", "label", "genres", "genre"],
            separator: separator.unwrap_or('|'),
            indicators_first: false,
            split: "split".into(),
            numbered: false,
        }
    }
}

/// Where things stand in one table.
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

/// Reads a table. A column of unknown name counts as the 0/1 column of a label where most of its values are 0 or 1; then
/// all of them must be.
pub(super) fn read(list: &Path, layout: Layout, problems: &mut Problems) -> Result<Listed> {
    let table = Table::parse(&read_text(list)?, list)?;
    let mut listed = Listed::default();
    let columns = columns(&table, &layout, &mut listed.warnings);
    let header = || table.header.join(",");
    if columns.id.is_none() && columns.path.is_none() {
        problems.add(Some(table.header_line), format!("no column `{}` in the header ({})", layout.id[0], header()));
    }
    if layout.numbered && columns.split.is_none() {
        problems.add(Some(table.header_line), format!("no column `{}` in the header ({})", layout.split, header()));
    }
    if columns.labels.is_none() && columns.indicators.is_empty() {
        let wanted = layout.labels.first().map(|name| format!("a column `{name}` or ")).unwrap_or_default();
        problems
            .add(Some(table.header_line), format!("no labels: wanted are {wanted}columns of 0 and 1 ({})", header()));
    }
    if !problems.is_empty() {
        return Ok(listed);
    }
    let from_indicators = columns.labels.is_none() || (layout.indicators_first && !columns.indicators.is_empty());
    let mut differing: Vec<u64> = Vec::new();
    for (line, fields) in &table.rows {
        let line = *line;
        if fields.len() != table.header.len() {
            let (found, wanted) = (fields.len(), table.header.len());
            problems.add(
                Some(line),
                format!("{found} fields where the header has {wanted}; a value with a comma in it wants double quotes"),
            );
            continue;
        }
        let field = |column: Option<usize>| column.map_or("", |column| fields[column].trim());
        let path = field(columns.path);
        let id = match field(columns.id) {
            "" if !path.is_empty() => stem(path),
            id => id.to_string(),
        };
        if id.is_empty() {
            problems.add(Some(line), "the id is empty");
            continue;
        }
        let written = columns.labels.and_then(|column| {
            let labels = split_labels(&fields[column], layout.separator);
            if labels.is_none() {
                problems.add(Some(line), format!("`{}` is not a list such as ['Comedy', 'Drama']", fields[column]));
            }
            labels
        });
        let indicated: Vec<String> = columns
            .indicators
            .iter()
            .filter(|&&column| match indicator(&fields[column]) {
                Some(on) => on,
                None => {
                    let (name, value) = (&table.header[column], &fields[column]);
                    problems.add(Some(line), format!("`{name}` is `{value}` where others are 0 or 1; correct it"));
                    false
                }
            })
            .map(|&column| table.header[column].clone())
            .collect();
        let labels = if from_indicators {
            let same = |written: Vec<String>| {
                written.len() == indicated.len() && written.iter().all(|l| indicated.contains(l))
            };
            if written.is_some_and(|written| !same(written)) {
                differing.push(line);
            }
            indicated
        } else {
            written.unwrap_or_default()
        };
        listed.titles.push(Title {
            id,
            path: (!path.is_empty()).then(|| path.to_string()),
            labels,
            split: read_part(field(columns.split), layout.numbered, line, problems),
            group: Some(field(columns.group).to_string()).filter(|group| !group.is_empty()),
            // A table that went through floats says 1997.0.
            year: read_year(field(columns.year).trim_end_matches(".0"), line, problems),
            line: Some(line),
        });
    }
    if let Some(first) = differing.first() {
        let name = columns.labels.map_or("", |column| &table.header[column]);
        listed.warnings.push(format!(
            "`{name}` says other than the 0/1 columns in {} of {} rows, the first on line {first}: the columns are read",
            differing.len(),
            table.rows.len()
        ));
    }
    Ok(listed)
}

fn columns(table: &Table, layout: &Layout, warnings: &mut Vec<String>) -> Columns {
    let names: Vec<String> = table.header.iter().map(|name| name.to_lowercase()).collect();
    let named = |wanted: &[&str]| wanted.iter().find_map(|wanted| names.iter().position(|name| name == wanted));
    let mut columns = Columns {
        id: named(layout.id),
        path: named(layout.path),
        labels: named(layout.labels),
        split: named(&[layout.split.as_str()]),
        group: named(&["group"]),
        year: named(&["year"]),
        indicators: Vec::new(),
    };
    let taken = [columns.id, columns.path, columns.labels, columns.split, columns.group, columns.year];
    let mut passed_over = Vec::new();
    for (column, name) in names.iter().enumerate() {
        let other_split = name.strip_prefix("split").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        if taken.contains(&Some(column)) || other_split || name.is_empty() {
            continue;
        }
        let values = || table.rows.iter().filter_map(|(_, fields)| fields.get(column));
        if 2 * values().filter(|value| indicator(value).is_some()).count() > values().count() {
            columns.indicators.push(column);
        } else {
            passed_over.push(format!("`{}`", table.header[column]));
        }
    }
    // A table with a column of labels may have 0/1 columns of another meaning.
    if columns.labels.is_some() && !layout.indicators_first {
        passed_over.extend(columns.indicators.drain(..).map(|column| format!("`{}`", table.header[column])));
    }
    if !passed_over.is_empty() {
        warnings.push(format!("columns passed over: {}", passed_over.join(", ")));
    }
    columns
}

fn indicator(value: &str) -> Option<bool> {
    match value.trim() {
        "1" | "1.0" | "True" | "true" => Some(true),
        "0" | "0.0" | "False" | "false" => Some(false),
        _ => None,
    }
}

fn read_part(value: &str, numbered: bool, line: u64, problems: &mut Problems) -> Option<Split> {
    if !numbered {
        return read_split(value, line, problems);
    }
    match value {
        "0" => Some(Split::Train),
        "1" => Some(Split::Val),
        "2" => Some(Split::Test),
        other => {
            problems.add(Some(line), format!("unknown split `{other}`; known are 0 (train), 1 (val) and 2 (test)"));
            None
        }
    }
}

/// Labels between separators, or a Python list of strings; `None` where such a list is malformed.
fn split_labels(value: &str, separator: char) -> Option<Vec<String>> {
    let value = value.trim();
    let labels = match value.strip_prefix('[') {
        Some(rest) => python_list(rest.strip_suffix(']')?)?,
        None => value.split(separator).map(|label| label.trim().to_string()).collect(),
    };
    Some(labels.into_iter().filter(|label| !label.is_empty()).collect())
}

/// The inside of a Python list of strings, in single or double quotes, a backslash before a quote.
fn python_list(text: &str) -> Option<Vec<String>> {
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
                (at, character) if character == quote => break at + 2,
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

fn stem(path: &str) -> String {
    Path::new(path).with_extension("").to_string_lossy().into_owned()
}
