//! Export as a Parquet file with a list column of features.

use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::clips::ClipTable;
use super::{BLOCK_ROWS, Features, create};
use crate::error::{Error, Result};

/// Writes one row per vector. A group of rows is in memory at once.
pub(super) fn write(path: &Path, clips: &ClipTable<'_>, features: &Features<'_>) -> Result<()> {
    let file = create(path)?;
    let parquet_error = |error: ParquetError| Error::Config { path: path.to_path_buf(), message: error.to_string() };
    let schema = Arc::new(parse_message_type(&schema(clips)).expect("the schema is valid"));
    // Features hardly repeat, so that a dictionary of their values would be larger than the values.
    let column = ColumnPath::from(["features", "list", "element"].map(String::from).to_vec());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_column_dictionary_enabled(column, false)
        .set_created_by(format!("kinoprobe {}", env!("CARGO_PKG_VERSION")))
        .build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(parquet_error)?;
    let owners: Vec<usize> = clips.owners().collect();
    for (start, block) in (0..).step_by(BLOCK_ROWS).zip(features.blocks()) {
        let block = block?;
        let owners = &owners[start..start + block.nrows()];
        let mut group = writer.next_row_group().map_err(parquet_error)?;
        write_group(&mut group, clips, owners, start, &block).map_err(parquet_error)?;
        group.close().map_err(parquet_error)?;
    }
    writer.close().map_err(parquet_error)?;
    Ok(())
}

fn schema(clips: &ClipTable<'_>) -> String {
    let mut fields = vec!["required binary id (STRING);", "required binary path (STRING);"];
    fields.extend(clips.label_column.map(|column| match column {
        "labels" => "required group labels (LIST) { repeated group list { required binary element (STRING); } }",
        _ => "optional binary label (STRING);",
    }));
    fields.extend(clips.label_column.map(|_| "optional binary split (STRING);"));
    fields.extend(clips.has_groups.then_some("optional binary group (STRING);"));
    if clips.rows.is_some() {
        fields.extend(["required int64 row;", "required int64 start_frame;"]);
        fields.extend(["required double start_seconds;", "required double end_seconds;"]);
    }
    fields.push("required group features (LIST) { repeated group list { required float element; } }");
    format!("message features {{ {} }}", fields.join(" "))
}

/// Writes the columns in the order of the schema. `owners` are the clips of the rows, and `start` is the index of the first row.
fn write_group<W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    clips: &ClipTable<'_>,
    owners: &[usize],
    start: usize,
    block: &Array2<f32>,
) -> std::result::Result<(), ParquetError> {
    let ids: Vec<ByteArray> = owners.iter().map(|&clip| clips.stored(clip).id.as_str().into()).collect();
    write_column::<ByteArrayType, _>(group, &ids, None, None)?;
    let paths: Vec<ByteArray> = owners.iter().map(|&clip| clips.stored(clip).path.as_str().into()).collect();
    write_column::<ByteArrayType, _>(group, &paths, None, None)?;
    match clips.label_column {
        Some("labels") => {
            let lists: Vec<&[String]> = owners.iter().map(|&clip| clips.labels(clip)).collect();
            let values: Vec<ByteArray> =
                lists.iter().flat_map(|labels| labels.iter().map(|label| label.as_str().into())).collect();
            // An empty list has one level without a value.
            let definitions: Vec<i16> = lists
                .iter()
                .flat_map(|labels| std::iter::repeat_n(i16::from(!labels.is_empty()), labels.len().max(1)))
                .collect();
            let levels = repetitions(lists.iter().map(|list| list.len()));
            write_column::<ByteArrayType, _>(group, &values, Some(&definitions), Some(&levels))?;
        }
        Some(_) => write_optional(group, owners.iter().map(|&clip| clips.labels(clip).first().map(String::as_str)))?,
        None => {}
    }
    if clips.label_column.is_some() {
        write_optional(group, owners.iter().map(|&clip| clips.split(clip)))?;
    }
    if clips.has_groups {
        write_optional(group, owners.iter().map(|&clip| clips.group(clip)))?;
    }
    if let Some(rows) = &clips.rows {
        let sources = &rows[start..start + owners.len()];
        let index = |(i, clip): (usize, &usize)| (start + i - clips.stored(*clip).offset) as i64;
        let indices: Vec<i64> = owners.iter().enumerate().map(index).collect();
        write_column::<Int64Type, _>(group, &indices, None, None)?;
        let frames: Vec<i64> = sources.iter().map(|source| source.start_frame as i64).collect();
        write_column::<Int64Type, _>(group, &frames, None, None)?;
        let seconds: Vec<f64> = sources.iter().map(|source| source.start_seconds).collect();
        write_column::<DoubleType, _>(group, &seconds, None, None)?;
        let seconds: Vec<f64> = sources.iter().map(|source| source.end_seconds).collect();
        write_column::<DoubleType, _>(group, &seconds, None, None)?;
    }
    let values: Vec<f32> = block.iter().copied().collect();
    let levels = repetitions(std::iter::repeat_n(block.ncols(), block.nrows()));
    write_column::<FloatType, _>(group, &values, Some(&vec![1; values.len()]), Some(&levels))
}

/// Writes a column whose values may be missing.
fn write_optional<'a, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: impl Iterator<Item = Option<&'a str>>,
) -> std::result::Result<(), ParquetError> {
    let values: Vec<Option<&str>> = values.collect();
    let definitions: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<ByteArray> = values.into_iter().flatten().map(ByteArray::from).collect();
    write_column::<ByteArrayType, _>(group, &values, Some(&definitions), None)
}

fn write_column<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    definitions: Option<&[i16]>,
    repetitions: Option<&[i16]>,
) -> std::result::Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("as many columns as in the schema");
    column.typed::<T>().write_batch(values, definitions, repetitions)?;
    column.close()
}

/// Returns the repetition levels of lists: 0 for the first value of each, 1 for the others. An empty list has one level.
fn repetitions(lengths: impl Iterator<Item = usize>) -> Vec<i16> {
    lengths.flat_map(|length| std::iter::once(0).chain(std::iter::repeat_n(1, length.saturating_sub(1)))).collect()
}
