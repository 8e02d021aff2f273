//! CSV files with numeric columns and, optionally, a column of ids.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use ndarray::ArrayD;

use super::elements::{check_memory, from_row_major};
use super::table::{FeatureColumns, feature_columns};
use super::{File, Kind, Variable};

/// A CSV file, of which no values are in memory.
pub(super) struct TextTable {
    path: PathBuf,
    has_header: bool,
    rows: usize,
    variables: Vec<Variable>,
    /// The columns of each variable.
    columns: Vec<Columns>,
}

enum Columns {
    Numbers(FeatureColumns),
    Text(usize),
}

impl TextTable {
    pub fn open(path: &Path) -> Result<Self, String> {
        let mut reader = reader(path)?;
        let mut records = reader.records();
        let Some(header) = records.next().transpose().map_err(|error| describe_error(&error))? else {
            return Err("empty".into());
        };
        let has_header = !is_data(&header);
        let mut first = (!has_header).then(|| header.clone());
        let mut rows = usize::from(!has_header);
        for record in records {
            let record = record.map_err(|error| describe_error(&error))?;
            first.get_or_insert(record);
            rows += 1;
        }
        let Some(first) = first else { return Err("has a header, but no rows".into()) };
        let mut table = Self { path: path.to_path_buf(), has_header, rows, variables: Vec::new(), columns: Vec::new() };
        // Without a header, columns of numbers have their index as name.
        let numbers: Vec<String> = (0..first.len()).map(|column| column.to_string()).collect();
        let name = |column: usize| if has_header { header[column].trim() } else { numbers[column].as_str() };
        let (mut numeric, mut texts): (Vec<usize>, Vec<usize>) = (0..first.len()).partition(|&i| is_number(&first[i]));
        // Ids may be numbers; they are read as text.
        let ids = numeric.extract_if(.., |&mut i| has_header && super::table::ID_NAMES.contains(&name(i)));
        texts.extend(ids);
        let named: Vec<(usize, &str)> = numeric.iter().map(|&column| (column, name(column))).collect();
        let groups = match has_header {
            true => feature_columns(&named),
            false => vec![FeatureColumns { name: String::new(), columns: numeric }],
        };
        for group in groups.into_iter().filter(|group| !group.columns.is_empty()) {
            let kind = Kind::Numbers(vec![rows, group.columns.len()]);
            table.add(group.name.clone(), kind, Columns::Numbers(group));
        }
        for &column in &texts {
            let name = if has_header || texts.len() > 1 { name(column) } else { "id" };
            table.add(name.to_string(), Kind::Texts(rows), Columns::Text(column));
        }
        Ok(table)
    }

    fn add(&mut self, name: String, kind: Kind, columns: Columns) {
        self.variables.push(Variable { name, kind });
        self.columns.push(columns);
    }

    /// Calls `read` with each record after the header.
    fn records(&self, mut read: impl FnMut(&StringRecord) -> Result<(), String>) -> Result<(), String> {
        let mut reader = reader(&self.path)?;
        for record in reader.records().skip(usize::from(self.has_header)) {
            read(&record.map_err(|error| describe_error(&error))?)?;
        }
        Ok(())
    }
}

impl File for TextTable {
    fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn numbers(&mut self, index: usize) -> Result<ArrayD<f32>, String> {
        let Columns::Numbers(FeatureColumns { columns, .. }) = &self.columns[index] else {
            return Err("not numeric columns".into());
        };
        let count = self.rows.checked_mul(columns.len()).ok_or("too large")?;
        check_memory(count)?;
        let mut values = Vec::with_capacity(count);
        self.records(|record| {
            for &column in columns {
                let text = record[column].trim();
                let value = text.parse::<f32>().map_err(|_| {
                    let line = record.position().map_or(0, csv::Position::line);
                    format!("line {line}, column {}: `{text}` is not a number", column + 1)
                })?;
                values.push(value);
            }
            Ok(())
        })?;
        from_row_major(&[values.len() / columns.len(), columns.len()], values)
    }

    fn texts(&mut self, index: usize) -> Result<Vec<String>, String> {
        let Columns::Text(column) = self.columns[index] else { return Err("no column of text".into()) };
        let mut texts = Vec::new();
        self.records(|record| {
            texts.push(record[column].trim().to_string());
            Ok(())
        })?;
        Ok(texts)
    }
}

fn reader(path: &Path) -> Result<csv::Reader<std::fs::File>, String> {
    csv::ReaderBuilder::new().has_headers(false).from_path(path).map_err(|error| describe_error(&error))
}

/// Returns `true` if the first record is a row: it has numbers, but not 0, 1, 2, … as pandas names columns.
fn is_data(record: &StringRecord) -> bool {
    let numbers = || record.iter().map(str::trim).filter(|field| is_number(field));
    let are_names = [0, 1].into_iter().any(|first| numbers().zip(first..).all(|(field, i)| field == i.to_string()));
    numbers().next().is_some() && !are_names
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<f32>().is_ok()
}

/// Describes an error of the CSV reader with its line.
pub(super) fn describe_error(error: &csv::Error) -> String {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("line {line} has {len} fields instead of {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => format!("line {line} is not UTF-8"),
        _ => error.to_string(),
    }
}
