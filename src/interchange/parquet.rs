//! Parquet files with a list column of features, or one numeric column per feature, and ids.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ndarray::{Array2, ArrayD};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::elements::{check_memory, from_row_major};
use super::table::{ID_NAMES, feature_columns};
use super::{File, Kind, Variable};

/// Number of rows that are decoded at once.
const BATCH_ROWS: usize = 4096;
/// Maximum length in bytes of all ids. Rows can refer to one string many times.
const MAX_TEXT_LEN: usize = 1 << 28;

/// A Parquet file.
pub(super) struct ParquetFile {
    reader: SerializedFileReader<std::fs::File>,
    rows: usize,
    variables: Vec<Variable>,
    columns: Vec<Columns>,
}

/// The leaf columns of a variable.
enum Columns {
    /// One list of numbers per row.
    List(usize),
    Numbers(Vec<usize>),
    Text(usize),
    Other,
}

impl ParquetFile {
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let reader = SerializedFileReader::new(file).map_err(|error| describe_error(&error))?;
        let metadata = reader.metadata().clone();
        let schema = metadata.file_metadata().schema_descr();
        let rows = usize::try_from(metadata.file_metadata().num_rows()).map_err(|_| "damaged: a negative size")?;
        let mut file = Self { reader, rows, variables: Vec::new(), columns: Vec::new() };
        let mut numeric = Vec::new();
        for (leaf, column) in schema.columns().iter().enumerate() {
            let name = column.path().parts()[0].clone();
            match (column.max_rep_level(), is_numeric(column), column.path().parts().len()) {
                (0, true, 1) if ID_NAMES.contains(&name.as_str()) && is_integer(column) => {
                    file.add(name, Kind::Texts(rows), Columns::Text(leaf));
                }
                (0, true, 1) => numeric.push((leaf, name)),
                (0, false, 1) if column.physical_type() == PhysicalType::BYTE_ARRAY => {
                    file.add(name, Kind::Texts(rows), Columns::Text(leaf));
                }
                (1, true, _) => {
                    let values: i64 = metadata.row_groups().iter().map(|group| group.column(leaf).num_values()).sum();
                    let dim = usize::try_from(values).unwrap_or(0) / rows.max(1);
                    file.add(name, Kind::Numbers(vec![rows, dim]), Columns::List(leaf));
                }
                _ => {
                    let reason = "a nested or unsupported type: write lists of float32".into();
                    file.add(name, Kind::Other(reason), Columns::Other);
                }
            }
        }
        let numeric: Vec<(usize, &str)> = numeric.iter().map(|(leaf, name)| (*leaf, name.as_str())).collect();
        let has_list = file.columns.iter().any(|columns| matches!(columns, Columns::List(_)));
        // Beside a list of features, numeric columns describe the clips.
        for group in feature_columns(&numeric).into_iter().filter(|_| !has_list) {
            file.add(group.name, Kind::Numbers(vec![rows, group.columns.len()]), Columns::Numbers(group.columns));
        }
        Ok(file)
    }

    fn add(&mut self, name: String, kind: Kind, columns: Columns) {
        self.variables.push(Variable { name, kind });
        self.columns.push(columns);
    }

    /// Reads all values of a column. `visit` receives the repetition levels, which are empty for columns without lists, and the values.
    fn read<T>(
        &self,
        leaf: usize,
        mut read: impl FnMut(ColumnReader, &ColumnDescriptor, &mut Vec<T>, &mut Vec<i16>) -> Result<(), String>,
    ) -> Result<(Vec<T>, Vec<i16>), String> {
        let descriptor = self.reader.metadata().file_metadata().schema_descr().column(leaf);
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        for group in 0..self.reader.num_row_groups() {
            let column = self.reader.get_row_group(group).and_then(|group| group.get_column_reader(leaf));
            // The crate panics on some damaged files, such as on a dictionary without values.
            let mut read = |column| {
                let read = || read(column, &descriptor, &mut values, &mut levels);
                catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("damaged: it cannot be decoded".into()))
            };
            column
                .map_err(|error| describe_error(&error))
                .and_then(&mut read)
                .map_err(|error| format!("column `{}`: {error}", descriptor.path().parts()[0]))?;
        }
        Ok((values, levels))
    }

    /// Reads a numeric column: its values and, for a list, the repetition levels.
    fn read_numbers(&self, leaf: usize) -> Result<(Vec<f32>, Vec<i16>), String> {
        self.read(leaf, |reader, descriptor, values, levels| match reader {
            ColumnReader::BoolColumnReader(reader) => {
                read_values(reader, descriptor, levels, |&value| values.push(f32::from(u8::from(value))))
            }
            ColumnReader::Int32ColumnReader(reader) if is_unsigned(descriptor) => {
                read_values(reader, descriptor, levels, |&value| values.push(value as u32 as f32))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                read_values(reader, descriptor, levels, |&value| values.push(value as f32))
            }
            ColumnReader::Int64ColumnReader(reader) if is_unsigned(descriptor) => {
                read_values(reader, descriptor, levels, |&value| values.push(value as u64 as f32))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                read_values(reader, descriptor, levels, |&value| values.push(value as f32))
            }
            ColumnReader::FloatColumnReader(reader) => {
                read_values(reader, descriptor, levels, |&value| values.push(value))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                read_values(reader, descriptor, levels, |&value| values.push(value as f32))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => read_values(reader, descriptor, levels, |value| {
                let bytes: [u8; 2] = value.data().try_into().unwrap_or_default();
                values.push(half::f16::from_le_bytes(bytes).to_f32());
            }),
            _ => Err("no numbers".into()),
        })
    }
}

impl File for ParquetFile {
    fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn numbers(&mut self, index: usize) -> Result<ArrayD<f32>, String> {
        if let Kind::Numbers(shape) = &self.variables[index].kind {
            check_memory(
                shape.iter().try_fold(1_usize, |count, &n| count.checked_mul(n)).ok_or("damaged: too large")?,
            )?;
        }
        match &self.columns[index] {
            Columns::List(leaf) => {
                let (values, levels) = self.read_numbers(*leaf)?;
                // A level of 0 starts a list.
                let starts: Vec<usize> =
                    levels.iter().enumerate().filter(|(_, level)| **level == 0).map(|(i, _)| i).collect();
                let ends = starts.iter().skip(1).copied().chain([values.len()]);
                let dim = ends.clone().next().unwrap_or(0);
                if let Some(row) = starts.iter().zip(ends).position(|(start, end)| end - start != dim) {
                    return Err(format!("the lists of `{}` differ in length (row {row})", self.variables[index].name));
                }
                from_row_major(&[starts.len(), dim], values)
            }
            Columns::Numbers(leaves) => {
                let columns: Vec<Vec<f32>> =
                    leaves.iter().map(|&leaf| Ok(self.read_numbers(leaf)?.0)).collect::<Result<_, String>>()?;
                if columns.iter().any(|column| column.len() != self.rows) {
                    return Err(format!("damaged: a column does not have {} rows", self.rows));
                }
                Ok(Array2::from_shape_fn((self.rows, columns.len()), |(row, column)| columns[column][row]).into_dyn())
            }
            Columns::Text(_) | Columns::Other => Err("no numeric column".into()),
        }
    }

    fn texts(&mut self, index: usize) -> Result<Vec<String>, String> {
        let Columns::Text(leaf) = self.columns[index] else { return Err("no column of text".into()) };
        let mut len = 0;
        let (texts, _) = self.read(leaf, |reader, descriptor, texts, levels| match reader {
            ColumnReader::ByteArrayColumnReader(reader) => read_values(reader, descriptor, levels, |value| {
                len += value.len();
                if len <= MAX_TEXT_LEN {
                    texts.push(String::from_utf8_lossy(value.data()).into_owned());
                }
            }),
            ColumnReader::Int32ColumnReader(reader) => {
                read_values(reader, descriptor, levels, |value| texts.push(value.to_string()))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                read_values(reader, descriptor, levels, |value| texts.push(value.to_string()))
            }
            _ => Err("no strings".into()),
        })?;
        if len > MAX_TEXT_LEN {
            return Err(format!("`{}` has {len} bytes, too many for ids", self.variables[index].name));
        }
        Ok(texts)
    }
}

/// Calls `visit` with each value, and appends the repetition levels.
fn read_values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    descriptor: &ColumnDescriptor,
    repetitions: &mut Vec<i16>,
    visit: impl FnMut(&T::T),
) -> Result<(), String> {
    let (mut values, mut definitions, mut levels) = (Vec::new(), Vec::new(), Vec::new());
    let mut visit = visit;
    loop {
        values.clear();
        definitions.clear();
        levels.clear();
        let (_, value_count, level_count) = reader
            .read_records(BATCH_ROWS, Some(&mut definitions), Some(&mut levels), &mut values)
            .map_err(|error| describe_error(&error))?;
        if level_count == 0 {
            return Ok(());
        }
        if value_count != level_count || definitions.iter().any(|&level| level != descriptor.max_def_level()) {
            return Err("has missing values (null), or empty lists: remove these rows".into());
        }
        values.iter().for_each(&mut visit);
        repetitions.extend_from_slice(&levels);
    }
}

fn is_numeric(column: &ColumnDescriptor) -> bool {
    match column.physical_type() {
        PhysicalType::FLOAT | PhysicalType::DOUBLE | PhysicalType::BOOLEAN => true,
        PhysicalType::INT32 | PhysicalType::INT64 => is_integer(column),
        PhysicalType::FIXED_LEN_BYTE_ARRAY => {
            matches!(column.logical_type_ref(), Some(LogicalType::Float16)) && column.type_length() == 2
        }
        _ => false,
    }
}

/// Returns `true` for integers, and `false` for the decimals, dates and times that are stored as integers.
fn is_integer(column: &ColumnDescriptor) -> bool {
    matches!(column.physical_type(), PhysicalType::INT32 | PhysicalType::INT64)
        && matches!(column.logical_type_ref(), None | Some(LogicalType::Integer(_)))
        && !matches!(
            column.converted_type(),
            ConvertedType::DECIMAL
                | ConvertedType::DATE
                | ConvertedType::TIME_MILLIS
                | ConvertedType::TIME_MICROS
                | ConvertedType::TIMESTAMP_MILLIS
                | ConvertedType::TIMESTAMP_MICROS
        )
}

fn is_unsigned(column: &ColumnDescriptor) -> bool {
    matches!(column.logical_type_ref(), Some(LogicalType::Integer(integer)) if !integer.is_signed)
}

fn describe_error(error: &ParquetError) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("Parquet error: ").unwrap_or(&text);
    match text {
        _ if text.contains("Invalid Parquet file") || text.contains("EOF") => {
            format!("truncated, or not a Parquet file ({text})")
        }
        _ if text.starts_with("Disabled feature") => {
            "its compression is not supported: write it with compression snappy, gzip, zstd or none".into()
        }
        _ => format!("damaged: {text}"),
    }
}
