//! An ONNX file → its nodes, and where its tensors lie: each is read when its layer is made, so that no weight is in memory
//! twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::error::{Error, Result};
use crate::models::onnx::proto::{NodeProto, ValueInfo};

/// An f32 constant of the network, in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    /// Lengths of its axes; none for a scalar.
    pub shape: Vec<usize>,
    /// Its first byte.
    offset: u64,
}

impl Tensor {
    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What an ONNX file holds.
#[derive(Debug)]
pub(super) struct Network {
    path: PathBuf,
    file: File,
    /// In an order in which they can run.
    pub nodes: Vec<NodeProto>,
    /// f32 constants by name.
    pub tensors: HashMap<String, Tensor>,
    /// Inputs that are no constants, with the lengths of their axes, -1 where one is not fixed.
    pub inputs: Vec<(String, Vec<i64>)>,
    /// Outputs.
    pub outputs: Vec<String>,
}

impl Network {
    /// Opens a file. Constants that are not f32, or not stored as raw bytes, are left out: a node that needs one is unknown to
    /// the plan.
    ///
    /// # Errors
    /// The file cannot be read or is no ONNX model.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let again = file.try_clone().map_err(Error::io(path))?;
        let (nodes, tensors) = (Vec::new(), HashMap::new());
        let (inputs, outputs) = (Vec::new(), Vec::new());
        let mut network = Self { path: path.into(), file: again, nodes, tensors, inputs, outputs };
        let mut fields = Fields { input: BufReader::with_capacity(1 << 16, file), at: 0 };
        let wrong = |message: String| Error::Weights { path: path.to_path_buf(), message };
        fields.model(&mut network).map_err(|error| match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => wrong(format!("is no ONNX model: {error}")),
            _ => Error::io(path)(error),
        })?;
        if network.nodes.is_empty() {
            return Err(wrong("is no ONNX model: it has no node".into()));
        }
        network.inputs.retain(|(name, _)| !network.tensors.contains_key(name));
        Ok(network)
    }

    /// The numbers of a tensor, row-major.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn values(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(tensor.offset)).map_err(Error::io(&self.path))?;
        let mut input = BufReader::with_capacity(1 << 16, file);
        let mut values = Vec::with_capacity(tensor.len());
        let mut bytes = [0; 4096];
        while values.len() < tensor.len() {
            let bytes = &mut bytes[..(4 * (tensor.len() - values.len())).min(4096)];
            input.read_exact(bytes).map_err(Error::io(&self.path))?;
            values.extend(bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))));
        }
        Ok(values)
    }
}

/// A protobuf message, field after field.
struct Fields {
    input: BufReader<File>,
    at: u64,
}

/// A field's number, and its content: of those with a length the length, of integers the value.
enum Field {
    Sized(u64, u64),
    Integer(u64, u64),
    Other,
}

impl Fields {
    /// The graph is field 7.
    fn model(&mut self, network: &mut Network) -> std::io::Result<()> {
        while let Some(field) = self.next()? {
            match field {
                Field::Sized(7, length) => self.graph(self.at + length, network)?,
                Field::Sized(_, length) => self.skip(length)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Nodes are fields 1, initializers 5, inputs 11, outputs 12.
    fn graph(&mut self, end: u64, network: &mut Network) -> std::io::Result<()> {
        while self.at < end {
            match self.next()?.ok_or(ErrorKind::UnexpectedEof)? {
                Field::Sized(1, length) => network.nodes.push(self.message(length)?),
                Field::Sized(5, length) => {
                    if let Some((name, tensor)) = self.tensor(self.at + length)? {
                        network.tensors.insert(name, tensor);
                    }
                }
                Field::Sized(11, length) => {
                    let input = self.message::<ValueInfo>(length)?;
                    let shape =
                        input.kind.and_then(|kind| kind.tensor?.shape).map_or_else(Vec::new, |shape| shape.dims);
                    let axes = shape.iter().map(|axis| axis.value.unwrap_or(-1)).collect();
                    network.inputs.push((input.name, axes));
                }
                Field::Sized(12, length) => network.outputs.push(self.message::<ValueInfo>(length)?.name),
                Field::Sized(_, length) => self.skip(length)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Lengths of the axes are fields 1 (one each, or all in one), the type 2 (1 is f32), the name 8, the bytes 9.
    fn tensor(&mut self, end: u64) -> std::io::Result<Option<(String, Tensor)>> {
        let (mut name, mut shape, mut kind, mut raw) = (String::new(), Vec::new(), 0, None);
        while self.at < end {
            match self.next()?.ok_or(ErrorKind::UnexpectedEof)? {
                Field::Integer(1, axis) => shape.push(axis as usize),
                Field::Sized(1, length) => {
                    let end = self.at + length;
                    while self.at < end {
                        shape.push(self.varint()?.ok_or(ErrorKind::UnexpectedEof)? as usize);
                    }
                }
                Field::Integer(2, value) => kind = value,
                Field::Sized(8, length) => name = String::from_utf8_lossy(&self.bytes(length)?).into_owned(),
                Field::Sized(9, length) => {
                    raw = Some((self.at, length));
                    self.skip(length)?;
                }
                Field::Sized(_, length) => self.skip(length)?,
                _ => {}
            }
        }
        let count = shape.iter().try_fold(4u64, |bytes, &axis| bytes.checked_mul(axis as u64));
        Ok(match raw {
            Some((offset, length)) if kind == 1 && count == Some(length) => Some((name, Tensor { shape, offset })),
            _ => None,
        })
    }

    fn next(&mut self) -> std::io::Result<Option<Field>> {
        let Some(key) = self.varint()? else { return Ok(None) };
        let number = key >> 3;
        let mut integer = || self.varint()?.ok_or(std::io::Error::from(ErrorKind::UnexpectedEof));
        Ok(Some(match key & 7 {
            0 => Field::Integer(number, integer()?),
            2 => Field::Sized(number, integer()?),
            1 => self.skip(8).map(|()| Field::Other)?,
            5 => self.skip(4).map(|()| Field::Other)?,
            kind => return Err(invalid(format!("unknown wire type {kind}"))),
        }))
    }

    /// `None` at the end of the file.
    fn varint(&mut self) -> std::io::Result<Option<u64>> {
        let mut value = 0u64;
        for place in 0..10 {
            let mut byte = [0u8];
            if self.input.read(&mut byte)? == 0 {
                return if place == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << (7 * place);
            if byte[0] < 0x80 {
                return Ok(Some(value));
            }
        }
        Err(invalid("a number of more than ten bytes".into()))
    }

    fn skip(&mut self, length: u64) -> std::io::Result<()> {
        self.input.seek_relative(i64::try_from(length).map_err(|_| ErrorKind::UnexpectedEof)?)?;
        self.at += length;
        Ok(())
    }

    fn bytes(&mut self, length: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(length).read_to_end(&mut bytes)? as u64;
        self.at += read;
        if read == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    fn message<M: Message + Default>(&mut self, length: u64) -> std::io::Result<M> {
        M::decode(self.bytes(length)?.as_slice()).map_err(|error| invalid(error.to_string()))
    }
}

fn invalid(message: String) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, message)
}
