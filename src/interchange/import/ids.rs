//! Lists of ids.

use std::path::Path;

use csv::StringRecord;

use crate::error::{Error, Result};
use crate::interchange::table::ID_NAMES;
use crate::interchange::text_table::describe_error;
use crate::interchange::{Kind, extension, is_supported, open};

/// Reads the ids of the rows of a matrix, in order: the lines of a text file, the column `id` of a CSV file, such as a manifest, or the
/// strings of another file.
pub(super) fn read(path: &Path) -> Result<Vec<String>> {
    let invalid = |message: String| Error::Import { path: path.to_path_buf(), message };
    if extension(path) != "csv" && is_supported(path) {
        let mut file = open(path)?;
        let texts = file.variables().iter().position(|variable| matches!(variable.kind, Kind::Texts(_)));
        let index = texts.ok_or_else(|| invalid("contains no strings: write ids as strings".into()))?;
        return file.texts(index).map_err(invalid);
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_path(path)
        .map_err(|error| invalid(describe_error(&error)))?;
    let records: Vec<StringRecord> =
        reader.records().collect::<Result<_, _>>().map_err(|error| invalid(describe_error(&error)))?;
    let Some(first) = records.first() else { return Err(invalid("contains no ids".into())) };
    let is_id = |name: &str| ID_NAMES.contains(&name.trim().to_lowercase().as_str());
    let (column, header) = match (first.iter().position(is_id), first.len()) {
        (Some(column), _) => (column, 1),
        (None, 1) => (0, 0),
        (None, _) => return Err(invalid("has no column `id`".into())),
    };
    Ok(records.iter().skip(header).map(|record| record[column].trim().to_string()).collect())
}
