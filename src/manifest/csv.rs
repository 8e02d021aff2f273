//! Text files: CSV manifests, homework lists, lists of paths.

use std::path::Path;

use super::columns::{Columns, KNOWN, resembles};
use super::lists;
use super::problems::Problems;
use super::{Clip, Draft, Entry, Split, is_media};
use crate::error::{Error, Result};

/// A table read into memory: the header and the rows, each with its line.
pub(super) struct Table {
    pub header: Vec<String>,
    pub header_line: u64,
    pub rows: Vec<(u64, Vec<String>)>,
}

/// Reads a text file of any of the accepted formats.
pub(super) fn file(source: &Path, root: &Path, problems: &mut Problems) -> Result<Draft> {
    if is_media(source) {
        problems.add(None, "a clip, not a manifest; write its path into a text file, or name the folder it is in");
        return Ok(Draft::default());
    }
    let text = read_text(source)?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if first.is_empty() {
        problems.add(None, "it is empty; begin with the header id,path,label and one clip a line");
        return Ok(Draft::default());
    }
    if is_list_of_paths(source, first, root) {
        return Ok(lists::paths(&text, root));
    }
    let table = Table::parse(&text, source)?;
    if lists::is_homework(&table.header) {
        return lists::homework(&[(source, table)], root, problems);
    }
    Ok(manifest(&table, root, problems))
}

/// A CSV manifest.
fn manifest(table: &Table, root: &Path, problems: &mut Problems) -> Draft {
    let mut draft = Draft::default();
    let columns = Columns::read(&table.header, table.header_line, problems, &mut draft.warnings);
    let (Some(id), Some(path)) = (columns.id, columns.path) else { return draft };
    for (line, fields) in &table.rows {
        let line = *line;
        if fields.len() != table.header.len() {
            problems.add(
                Some(line),
                format!(
                    "{} fields where the header has {}; a value with a comma in it wants double quotes",
                    fields.len(),
                    table.header.len()
                ),
            );
            continue;
        }
        let field = |column: Option<usize>| column.map_or("", |column| fields[column].as_str());
        if let Some(broken) = fields.iter().find(|value| value.contains('\n')) {
            let shown: String = broken.chars().take_while(|&c| c != '\n').take(40).collect();
            problems
                .add(Some(line), format!("a value runs over the end of the line (`{shown}…`); is a quote not closed?"));
            continue;
        }
        for (name, value) in [("id", &fields[id]), ("path", &fields[path])] {
            if value.is_empty() {
                problems.add(Some(line), format!("the {name} is empty"));
            }
        }
        if fields[id].is_empty() || fields[path].is_empty() {
            continue;
        }
        let split = read_split(field(columns.split), line, problems);
        let labels = match (columns.label, columns.labels) {
            (Some(label), _) => vec![fields[label].clone()],
            (None, Some(labels)) => fields[labels].split('|').map(|label| label.trim().to_string()).collect(),
            (None, None) => Vec::new(),
        };
        let unlabeled = labels.iter().all(String::is_empty);
        let labels = if unlabeled && split == Some(Split::Test) { Vec::new() } else { labels };
        if labels.iter().any(String::is_empty) {
            let remedy = if unlabeled { ", or say split test to have the clip predicted only" } else { "" };
            problems.add(Some(line), format!("clip `{}` has an empty label; fill it in{remedy}", fields[id]));
        }
        let (start, end) = read_range(field(columns.start), field(columns.end), line, problems);
        let year = read_year(field(columns.year), line, problems);
        let mut distinct: Vec<String> = Vec::new();
        for label in labels {
            if !distinct.contains(&label) {
                distinct.push(label);
            }
        }
        let group = field(columns.group);
        draft.entries.push(Entry {
            clip: Clip {
                id: fields[id].clone(),
                path: fields[path].clone(),
                file: lists::resolve(root, &fields[path]),
                labels: distinct,
                group: (!group.is_empty()).then(|| group.to_string()),
                split,
                start,
                end,
                year,
            },
            line: Some(line),
        });
    }
    draft
}

pub(super) fn read_split(value: &str, line: u64, problems: &mut Problems) -> Option<Split> {
    if value.is_empty() {
        return None;
    }
    let split = Split::parse(value);
    if split.is_none() {
        problems.add(Some(line), format!("unknown split `{value}`; write train, val or test, or leave it empty"));
    }
    split
}

/// A year, of at most five digits so that no number of another kind passes for one.
pub(super) fn read_year(value: &str, line: u64, problems: &mut Problems) -> Option<i32> {
    if value.is_empty() {
        return None;
    }
    let year = value.parse::<i32>().ok().filter(|year| year.abs() < 100_000);
    if year.is_none() {
        problems.add(
            Some(line),
            format!("year is `{value}`, not a whole number such as 1997; correct it, or leave it empty"),
        );
    }
    year
}

fn read_range(start: &str, end: &str, line: u64, problems: &mut Problems) -> (Option<f64>, Option<f64>) {
    let mut seconds = |name: &str, value: &str| -> Option<f64> {
        if value.is_empty() {
            return None;
        }
        let number = value.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            problems.add(Some(line), format!("{name} is `{value}`, not a number of seconds from 0, such as 12.5"));
        }
        number
    };
    let (start, end) = (seconds("start", start), seconds("end", end));
    if end.is_some_and(|end| end <= start.unwrap_or(0.0)) {
        let shown = |value: Option<f64>| value.map_or("0".to_string(), |value| value.to_string());
        problems.add(Some(line), format!("end ({}) is not after start ({}); swap them?", shown(end), shown(start)));
    }
    (start, end)
}

/// Whether a text file is one path a line: no header, or a first line that is there as a file.
fn is_list_of_paths(source: &Path, first: &str, root: &Path) -> bool {
    if lists::resolve(root, first).exists() {
        return true;
    }
    let cells: Vec<String> =
        first.split([',', ';', '\t']).map(|cell| cell.trim_matches(['"', ' ']).to_lowercase()).collect();
    let known = |cell: &String| cell == "category" || KNOWN.iter().any(|known| resembles(cell, known) || cell == known);
    let comma_separated =
        source.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv") || e.eq_ignore_ascii_case("tsv"));
    // A path has an extension or a folder; the names of columns have neither.
    let looks_like_path =
        first.starts_with('#') || is_media(Path::new(first)) || (cells.len() == 1 && first.contains('/'));
    !cells.iter().any(known) && (looks_like_path || !comma_separated)
}

/// The whole file as text, without its byte order mark.
pub(super) fn read_text(source: &Path) -> Result<String> {
    let bytes = std::fs::read(source).map_err(Error::io(source))?;
    let wrong = |line, message: &str| Error::Manifest { path: source.to_path_buf(), line, message: message.into() };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(wrong(None, "it is UTF-16, not UTF-8; save it as UTF-8 (\"CSV UTF-8\" in spreadsheets)"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64;
        wrong(Some(line), "not UTF-8; save the file as UTF-8 (\"CSV UTF-8\" in spreadsheets)")
    })
}

impl Table {
    /// Parses CSV; the separator is the first of comma, tab and semicolon that the header has.
    ///
    /// # Errors
    /// The text is no CSV.
    pub(super) fn parse(text: &str, source: &Path) -> Result<Table> {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let separator = [b',', b'\t', b';'].into_iter().find(|&s| first.as_bytes().contains(&s)).unwrap_or(b',');
        let mut reader = ::csv::ReaderBuilder::new()
            .delimiter(separator)
            .has_headers(false)
            .flexible(true)
            .trim(::csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut table = Table { header: Vec::new(), header_line: 1, rows: Vec::new() };
        let mut lines = LineCounter { text: text.as_bytes(), at: 0, line: 1 };
        for record in reader.records() {
            let record = record.map_err(|error| Error::Manifest {
                path: source.to_path_buf(),
                line: error.position().map(::csv::Position::line),
                message: format!("not readable as CSV: {error}"),
            })?;
            let line = lines.line_of(record.position().map_or(0, ::csv::Position::byte) as usize);
            let fields: Vec<String> = record.iter().map(str::to_string).collect();
            if fields.iter().all(String::is_empty) {
                continue;
            }
            if table.header.is_empty() {
                (table.header, table.header_line) = (fields, line);
            } else {
                table.rows.push((line, fields));
            }
        }
        Ok(table)
    }
}

/// Counts lines up to a byte. The reader's own position of a record is that of the blank lines before it.
struct LineCounter<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    fn line_of(&mut self, byte: usize) -> u64 {
        while self.at < self.text.len() && (self.at < byte || matches!(self.text[self.at], b'\n' | b'\r')) {
            self.line += u64::from(self.text[self.at] == b'\n');
            self.at += 1;
        }
        self.line
    }
}
