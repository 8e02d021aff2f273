//! External data of ONNX files: tensors that are stored in other files, as torch ≥ 2.9 writes them (`x.onnx.data` beside
//! `x.onnx`). Source: the ONNX specification, `onnx.proto3` and "External data".

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::fetch;
use super::onnx::fields::{Field, FieldReader};
use crate::error::{Error, Result};

/// Maximum depth of nested subgraphs and attributes.
const MAX_DEPTH: usize = 64;

/// Returns the SHA-256 of an ONNX model, 64 hex digits: that of the file or, if tensors are stored in other files, that of a
/// list of the hashes of all files.
///
/// # Errors
/// Returns an error if the file or its external data cannot be read, or external data is missing or outside of the directory of
/// the model.
pub fn model_sha256(onnx: &Path) -> Result<String> {
    let sha256 = fetch::sha256_file(onnx)?;
    let files = external_files(onnx)?;
    if files.is_empty() {
        return Ok(sha256);
    }
    let mut list = format!("{sha256}\n");
    for location in files {
        let file = resolve(onnx, &location)?;
        writeln!(list, "{location}\n{}", fetch::sha256_file(&file)?).expect("writing to a string cannot fail");
    }
    Ok(fetch::sha256(list.as_bytes()))
}

/// Returns the path of a file of external data.
fn resolve(onnx: &Path, location: &str) -> Result<PathBuf> {
    let invalid = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    if !Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(invalid(format!("its external data {location:?} is outside of the directory of the model")));
    }
    let file = onnx.parent().unwrap_or(Path::new("")).join(location);
    if !file.is_file() {
        return Err(invalid(format!("its external data is missing: put {location} into the same directory")));
    }
    Ok(file)
}

/// Returns the locations of all external tensors of an ONNX file, sorted. A file that is not an ONNX model has none; the runtime
/// reports it when it loads the file.
///
/// # Errors
/// Returns an error if the file cannot be read.
fn external_files(onnx: &Path) -> Result<BTreeSet<String>> {
    let reader = File::open(onnx).and_then(FieldReader::new).map_err(Error::io(onnx))?;
    let mut search = Search { reader, locations: BTreeSet::new() };
    let result = search.read(Message::Model, u64::MAX, 0);
    match result {
        Ok(()) => Ok(search.locations),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => Ok(search.locations),
        Err(error) => Err(Error::io(onnx)(error)),
    }
}

/// The messages that contain tensors.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// Returns the type of a field, if it contains tensors.
    fn field(self, number: u64) -> Option<Message> {
        Some(match (self, number) {
            (Message::Model, 7) => Message::Graph,
            (Message::Model, 25) => Message::Function,
            (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::SparseTensor, 1 | 2) => Message::Tensor,
            (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::SparseTensor,
            (Message::Node, 5) => Message::Attribute,
            (Message::Attribute, 6 | 11) => Message::Graph,
            _ => return None,
        })
    }
}

struct Search {
    reader: FieldReader,
    locations: BTreeSet<String>,
}

impl Search {
    /// Reads a message up to the position `end`.
    fn read(&mut self, message: Message, end: u64, depth: usize) -> std::io::Result<()> {
        if depth > MAX_DEPTH {
            // Not InvalidData: a runtime may load such a file, whose deepest tensors were not checked.
            return Err(std::io::Error::new(ErrorKind::Unsupported, "graphs are nested too deeply"));
        }
        let (mut location, mut is_external) = (None, false);
        while self.reader.position < end {
            let field = match self.reader.next_field()? {
                Some(field) => field,
                None if message == Message::Model => break,
                None => return Err(ErrorKind::UnexpectedEof.into()),
            };
            match field {
                Field::Bytes(number, length) if message.field(number).is_some() => {
                    let inner = message.field(number).expect("the guard checked it");
                    let end = self.reader.end_of(length)?;
                    self.read(inner, end, depth + 1)?;
                    self.reader.expect_end(end)?;
                }
                // TensorProto: 13 is an entry of external_data, 14 the data_location (1: external).
                Field::Bytes(13, length) if message == Message::Tensor => {
                    let entry = self.reader.read_message::<StringEntry>(length)?;
                    location = if entry.key == "location" { Some(entry.value) } else { location };
                }
                Field::Integer(14, value) if message == Message::Tensor => is_external = value == 1,
                Field::Bytes(_, length) => self.reader.skip(length)?,
                Field::Integer(..) | Field::Skipped => {}
            }
        }
        if is_external {
            let missing = || std::io::Error::new(ErrorKind::InvalidData, "external data without a location");
            self.locations.insert(location.ok_or_else(missing)?);
        }
        Ok(())
    }
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct StringEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a message, whose content is preceded by its length.
    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for mut value in [number << 3 | 2, content.len() as u64] {
            while value > 0x7f {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
        }
        [bytes, content.to_vec()].concat()
    }

    /// A model with an external tensor in this number of nested graphs.
    fn nested(graphs: usize) -> Vec<u8> {
        let entry = field(13, &[field(1, b"location"), field(2, b"../secret")].concat());
        let tensor = [entry, vec![14 << 3, 1]].concat();
        let mut graph = field(5, &tensor);
        for _ in 1..graphs {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        field(7, &graph)
    }

    #[test]
    fn external_data_in_any_graph_are_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (graphs, expected) in [(1, "outside of"), (5, "outside of"), (100, "nested too deeply")] {
            std::fs::write(file.path(), nested(graphs)).unwrap();
            let error = model_sha256(file.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{graphs} graphs: {error}");
        }
    }
}
