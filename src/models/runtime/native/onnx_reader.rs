//! Reader of ONNX files: nodes are decoded, tensors only located. Each tensor is read when its layer is created, so that
//! weights are never in memory twice.
//!
//! Files are untrusted: every length is checked against the size of the file before memory is allocated.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::models::onnx::fields::{Field, FieldReader};
use crate::models::onnx::proto::{self, NodeProto, ValueInfo};

/// Location of a tensor in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Initializer {
    /// Lengths of its axes, all positive; empty for a scalar.
    pub shape: Vec<usize>,
    /// Offset of the first byte.
    offset: u64,
    element_type: ElementType,
}

impl Initializer {
    /// Returns `true` if the elements are i8.
    pub fn is_i8(&self) -> bool {
        self.element_type == ElementType::Byte { signed: true }
    }

    /// Returns the number of elements. It cannot overflow: the reader has compared it with the size of the file.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Graph of an ONNX model.
#[derive(Debug)]
pub(super) struct OnnxGraph {
    path: PathBuf,
    file: File,
    /// Nodes in topological order.
    pub nodes: Vec<NodeProto>,
    /// f32 constants by name.
    pub initializers: HashMap<String, Initializer>,
    /// i64 constants by name: shapes, axes and indices.
    pub integers: HashMap<String, Initializer>,
    /// i8 and u8 constants by name: quantized weights and zero points.
    pub bytes: HashMap<String, Initializer>,
    /// Inputs that are not initializers, with the lengths of their axes; -1 for a dynamic axis.
    pub inputs: Vec<(String, Vec<i64>)>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

impl OnnxGraph {
    /// Opens a file. Initializers that are empty, of types other than f32, i64, i8 and u8, or not stored as raw bytes are ignored: a node that
    /// needs one is unsupported.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not an ONNX model.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut graph = Self {
            path: path.into(),
            file: file.try_clone().map_err(Error::io(path))?,
            nodes: Vec::new(),
            initializers: HashMap::new(),
            integers: HashMap::new(),
            bytes: HashMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let mut reader = FieldReader::new(file).map_err(Error::io(path))?;
        let invalid = |message: String| Error::Weights { path: path.to_path_buf(), message };
        reader.read_model(&mut graph).map_err(|error| match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => invalid(format!("not an ONNX model: {error}")),
            _ => Error::io(path)(error),
        })?;
        if graph.nodes.is_empty() {
            return Err(invalid("not an ONNX model: it has no nodes".into()));
        }
        let constants = [&graph.initializers, &graph.integers, &graph.bytes];
        let is_constant = |name: &str| constants.iter().any(|tensors| tensors.contains_key(name));
        graph.inputs.retain(|(name, _)| !is_constant(name));
        Ok(graph)
    }

    /// Reads the elements of an f32 tensor, row-major.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn read(&self, tensor: &Initializer) -> Result<Vec<f32>> {
        self.read_elements(tensor, f32::from_le_bytes)
    }

    /// As [`Self::read`], for an i64 tensor.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn read_integers(&self, tensor: &Initializer) -> Result<Vec<i64>> {
        self.read_elements(tensor, i64::from_le_bytes)
    }

    /// As [`Self::read`], for an i8 or u8 tensor, as the bytes of the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn read_bytes(&self, tensor: &Initializer) -> Result<Vec<u8>> {
        self.read_elements(tensor, u8::from_le_bytes)
    }

    fn read_elements<T, const BYTES: usize>(
        &self,
        tensor: &Initializer,
        from_bytes: impl Fn([u8; BYTES]) -> T,
    ) -> Result<Vec<T>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(tensor.offset)).map_err(Error::io(&self.path))?;
        let mut input = BufReader::with_capacity(1 << 16, file);
        let mut values = Vec::with_capacity(tensor.len());
        let mut buffer = [0; 4096];
        while values.len() < tensor.len() {
            let bytes = &mut buffer[..(BYTES * (tensor.len() - values.len())).min(4096)];
            input.read_exact(bytes).map_err(Error::io(&self.path))?;
            let (words, _) = bytes.as_chunks();
            values.extend(words.iter().map(|word| from_bytes(*word)));
        }
        Ok(values)
    }
}

/// Element type of a usable tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ElementType {
    F32,
    I64,
    Byte { signed: bool },
}

impl FieldReader {
    /// Reads `ModelProto`: field 7 is the graph.
    fn read_model(&mut self, graph: &mut OnnxGraph) -> std::io::Result<()> {
        while let Some(field) = self.next_field()? {
            match field {
                Field::Bytes(7, length) => self.read_graph(length, graph)?,
                Field::Bytes(_, length) => self.skip(length)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads `GraphProto`: field 1 is a node, 5 an initializer, 11 an input, 12 an output.
    fn read_graph(&mut self, length: u64, graph: &mut OnnxGraph) -> std::io::Result<()> {
        let end = self.end_of(length)?;
        while self.position < end {
            match self.next_field()?.ok_or(ErrorKind::UnexpectedEof)? {
                Field::Bytes(1, length) => graph.nodes.push(self.read_message(length)?),
                Field::Bytes(5, length) => {
                    if let Some((name, tensor)) = self.read_tensor(length)? {
                        let tensors = match tensor.element_type {
                            ElementType::F32 => &mut graph.initializers,
                            ElementType::I64 => &mut graph.integers,
                            ElementType::Byte { .. } => &mut graph.bytes,
                        };
                        tensors.insert(name, tensor);
                    }
                }
                Field::Bytes(11, length) => {
                    let input = self.read_message::<ValueInfo>(length)?;
                    let shape =
                        input.kind.and_then(|kind| kind.tensor?.shape).map_or_else(Vec::new, |shape| shape.dims);
                    let axes = shape.iter().map(|axis| axis.value.unwrap_or(-1)).collect();
                    graph.inputs.push((input.name, axes));
                }
                Field::Bytes(12, length) => graph.outputs.push(self.read_message::<ValueInfo>(length)?.name),
                Field::Bytes(_, length) => self.skip(length)?,
                _ => {}
            }
        }
        self.expect_end(end)
    }

    /// Reads `TensorProto`: field 1 is one or several (packed) axis lengths, 2 the element type, 8 the name, 9 the raw bytes.
    /// Returns `None` for tensors that are not usable.
    fn read_tensor(&mut self, length: u64) -> std::io::Result<Option<(String, Initializer)>> {
        let end = self.end_of(length)?;
        let (mut name, mut shape, mut element_type, mut raw) = (String::new(), Vec::new(), 0, None);
        while self.position < end {
            match self.next_field()?.ok_or(ErrorKind::UnexpectedEof)? {
                Field::Integer(1, axis) => shape.push(axis),
                Field::Bytes(1, length) => {
                    let end = self.end_of(length)?;
                    while self.position < end {
                        shape.push(self.read_varint()?.ok_or(ErrorKind::UnexpectedEof)?);
                    }
                    self.expect_end(end)?;
                }
                Field::Integer(2, value) => element_type = value,
                Field::Bytes(8, length) => name = String::from_utf8_lossy(&self.read_bytes(length)?).into_owned(),
                Field::Bytes(9, length) => {
                    raw = Some((self.position, length));
                    self.skip(length)?;
                }
                Field::Bytes(_, length) => self.skip(length)?,
                _ => {}
            }
        }
        self.expect_end(end)?;
        let (element_type, element_len) = match i32::try_from(element_type) {
            Ok(proto::FLOAT) => (ElementType::F32, 4u64),
            Ok(proto::INT64) => (ElementType::I64, 8),
            Ok(proto::INT8) => (ElementType::Byte { signed: true }, 1),
            Ok(proto::UINT8) => (ElementType::Byte { signed: false }, 1),
            _ => return Ok(None),
        };
        let bytes = shape.iter().try_fold(element_len, |bytes, &axis| bytes.checked_mul(axis));
        Ok(match raw {
            // Axis lengths divide the number of bytes, which is at most the size of the file.
            Some((offset, length)) if length > 0 && bytes == Some(length) => Some((
                name,
                Initializer { shape: shape.into_iter().map(|axis| axis as usize).collect(), offset, element_type },
            )),
            _ => None,
        })
    }
}
