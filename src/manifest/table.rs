//! Text files and CSV tables with the line number of each row.

use std::path::Path;

use crate::error::{Error, Result};

/// A CSV table in memory: the header, and the rows with their 1-based lines. Rows may have any number of fields.
pub(super) struct Table {
    pub header: Vec<String>,
    pub header_line: u64,
    pub rows: Vec<(u64, Vec<String>)>,
}

impl Table {
    /// Parses CSV. The delimiter is the first of comma, tab and semicolon that occurs in the header. Fields are trimmed
    /// and blank rows are skipped.
    ///
    /// # Errors
    /// Returns an error if the text is not valid CSV.
    pub(super) fn parse(text: &str, source: &Path) -> Result<Table> {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let delimiter = [b',', b'\t', b';'].into_iter().find(|&d| first.as_bytes().contains(&d)).unwrap_or(b',');
        let mut reader = ::csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .trim(::csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut table = Table { header: Vec::new(), header_line: 1, rows: Vec::new() };
        let mut lines = LineCounter { text: text.as_bytes(), position: 0, line: 1 };
        for record in reader.records() {
            let record = record.map_err(|error| Error::Manifest {
                path: source.to_path_buf(),
                line: error.position().map(::csv::Position::line),
                message: format!("invalid CSV: {error}"),
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

    /// Describes a row whose number of fields differs from the header.
    pub(super) fn field_count_problem(&self, fields: &[String]) -> Option<String> {
        let (found, expected) = (fields.len(), self.header.len());
        (found != expected)
            .then(|| format!("{found} fields, but the header has {expected}; quote values that contain a comma"))
    }
}

/// Counts lines up to a byte offset. The reader's own position of a record is that of the blank lines before it.
struct LineCounter<'a> {
    text: &'a [u8],
    position: usize,
    line: u64,
}

impl LineCounter<'_> {
    fn line_of(&mut self, byte: usize) -> u64 {
        while self.position < self.text.len()
            && (self.position < byte || matches!(self.text[self.position], b'\n' | b'\r'))
        {
            self.line += u64::from(self.text[self.position] == b'\n');
            self.position += 1;
        }
        self.line
    }
}

/// Reads a file as UTF-8, without its byte order mark.
///
/// # Errors
/// Returns an error if the file cannot be read or is not UTF-8.
pub(super) fn read_text(source: &Path) -> Result<String> {
    let bytes = std::fs::read(source).map_err(Error::io(source))?;
    let error = |line, message: &str| Error::Manifest { path: source.to_path_buf(), line, message: message.into() };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(error(None, "encoded as UTF-16; save the file as UTF-8 (\"CSV UTF-8\" in spreadsheets)"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    String::from_utf8(bytes).map_err(|utf8| {
        let valid = &utf8.as_bytes()[..utf8.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count() as u64;
        error(Some(line), "not UTF-8; save the file as UTF-8 (\"CSV UTF-8\" in spreadsheets)")
    })
}
