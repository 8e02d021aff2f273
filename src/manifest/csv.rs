//! Reader of CSV manifests.

use std::path::Path;

use super::clip::{Clip, Split};
use super::columns::Columns;
use super::parsed::{ParsedClip, ParsedManifest};
use super::problems::Problems;
use super::table::Table;

/// Reads a CSV manifest with the columns of [`super::Manifest::load`].
pub(super) fn read(table: &Table, root: &Path, problems: &mut Problems) -> ParsedManifest {
    let mut parsed = ParsedManifest::default();
    let columns = Columns::parse(&table.header, table.header_line, problems, &mut parsed.warnings);
    let (Some(id), Some(path)) = (columns.id, columns.path) else { return parsed };
    for (line, fields) in &table.rows {
        let line = *line;
        if let Some(problem) = table.field_count_problem(fields) {
            problems.add(Some(line), problem);
            continue;
        }
        let field = |column: Option<usize>| column.map_or("", |column| fields[column].as_str());
        if let Some(multiline) = fields.iter().find(|value| value.contains('\n')) {
            let start: String = multiline.chars().take_while(|&c| c != '\n').take(40).collect();
            problems.add(Some(line), format!("line break in a value (`{start}…`); check for an unclosed quote"));
            continue;
        }
        for (name, value) in [("id", &fields[id]), ("path", &fields[path])] {
            if value.is_empty() {
                problems.add(Some(line), format!("empty {name}"));
            }
        }
        if fields[id].is_empty() || fields[path].is_empty() {
            continue;
        }
        let split = parse_split(field(columns.split), line, problems);
        let labels = match (columns.label, columns.labels) {
            (Some(label), _) => vec![fields[label].clone()],
            (None, Some(labels)) => fields[labels].split('|').map(|label| label.trim().to_string()).collect(),
            (None, None) => Vec::new(),
        };
        let unlabeled = labels.iter().all(String::is_empty);
        let labels = if unlabeled && split == Some(Split::Test) { Vec::new() } else { labels };
        if labels.iter().any(String::is_empty) {
            let remedy = if unlabeled { "fill it in, or set the split to test" } else { "fill it in" };
            problems.add(Some(line), format!("empty label of clip `{}`; {remedy}", fields[id]));
        }
        let (start, end) = parse_range(field(columns.start), field(columns.end), line, problems);
        let year = parse_year(field(columns.year), line, problems);
        let mut distinct: Vec<String> = Vec::new();
        for label in labels {
            if !distinct.contains(&label) {
                distinct.push(label);
            }
        }
        let group = field(columns.group);
        let located = match Clip::at(root, &fields[path]) {
            Ok(located) => located,
            Err(problem) => {
                problems.add(Some(line), problem);
                continue;
            }
        };
        parsed.clips.push(ParsedClip {
            clip: Clip {
                id: fields[id].clone(),
                labels: distinct,
                group: (!group.is_empty()).then(|| group.to_string()),
                split,
                start,
                end,
                year,
                ..located
            },
            line: Some(line),
        });
    }
    parsed
}

/// Parses the name of a split; `None` if the field is empty.
pub(super) fn parse_split(value: &str, line: u64, problems: &mut Problems) -> Option<Split> {
    if value.is_empty() {
        return None;
    }
    let split = Split::parse(value);
    if split.is_none() {
        problems.add(Some(line), Split::unknown(value));
    }
    split
}

/// Parses a year of at most five digits; `None` if the field is empty.
pub(super) fn parse_year(value: &str, line: u64, problems: &mut Problems) -> Option<i32> {
    if value.is_empty() {
        return None;
    }
    let year = value.parse::<i32>().ok().filter(|year| year.abs() < 100_000);
    if year.is_none() {
        problems
            .add(Some(line), format!("invalid year `{value}`; expected an integer such as 1997, or an empty field"));
    }
    year
}

/// Parses the start and end of a clip in seconds; `None` if the field is empty.
fn parse_range(start: &str, end: &str, line: u64, problems: &mut Problems) -> (Option<f64>, Option<f64>) {
    let mut seconds = |name: &str, value: &str| -> Option<f64> {
        if value.is_empty() {
            return None;
        }
        let number = value.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            problems.add(Some(line), format!("invalid {name} `{value}`; expected seconds >= 0, such as 12.5"));
        }
        number
    };
    let (start, end) = (seconds("start", start), seconds("end", end));
    if end.is_some_and(|end| end <= start.unwrap_or(0.0)) {
        let shown = |value: Option<f64>| value.map_or("0".to_string(), |value| value.to_string());
        problems.add(Some(line), format!("end ({}) is not after start ({})", shown(end), shown(start)));
    }
    (start, end)
}
