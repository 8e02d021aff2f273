//! NumPy array files.
//!
//! Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays", and `numpy.lib.format`.

use std::io::{BufReader, Read, Write};
use std::path::Path;

use ndarray::{Array2, ArrayD};

use super::elements::{ElementType, NumberKind, element_count, from_column_major, from_row_major, read_error};
use super::{File, Kind, Variable};
use crate::error::{Error, Result};

/// Maximum length of a header, far above that of any array of numbers.
const MAX_HEADER_LEN: usize = 1 << 16;

/// The header of an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub elements: Elements,
    pub column_major: bool,
    pub shape: Vec<usize>,
    /// Number of bytes before the data.
    pub len: u64,
}

/// Type of the elements of an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Elements {
    Numbers(ElementType),
    /// Strings of this many bytes.
    Ascii(usize),
    /// Strings of this many UTF-32 characters.
    Unicode {
        len: usize,
        big_endian: bool,
    },
    /// Another type, with the reason why it cannot be imported.
    Other(String),
}

impl Header {
    /// Reads the header of an array.
    pub fn read(input: &mut impl Read) -> Result<Header, String> {
        let mut preamble = [0; 8];
        input.read_exact(&mut preamble).map_err(|_| "not a NumPy file: it is too short")?;
        let [magic @ .., major, _] = preamble;
        if &magic != b"\x93NUMPY" {
            return Err("not a NumPy file: write it with numpy.save".into());
        }
        let (len, len_size) = match major {
            1 => {
                let mut len = [0; 2];
                input.read_exact(&mut len).map_err(|error| read_error(&error))?;
                (u16::from_le_bytes(len) as usize, 2)
            }
            2 | 3 => {
                let mut len = [0; 4];
                input.read_exact(&mut len).map_err(|error| read_error(&error))?;
                (u32::from_le_bytes(len) as usize, 4)
            }
            _ => return Err(format!("version {major} of the NumPy format is not supported")),
        };
        if len > MAX_HEADER_LEN {
            return Err(format!("damaged: its header has {len} bytes"));
        }
        let mut text = vec![0; len];
        input.read_exact(&mut text).map_err(|_| "truncated in its header")?;
        let text = std::str::from_utf8(&text).map_err(|_| "damaged: its header is not text")?;
        let mut header = parse_header(text).ok_or_else(|| format!("damaged header: {}", text.trim()))?;
        header.len = (preamble.len() + len_size + len) as u64;
        Ok(header)
    }

    /// Returns what the array contains.
    pub fn kind(&self) -> Kind {
        match &self.elements {
            Elements::Numbers(_) => Kind::Numbers(self.shape.clone()),
            Elements::Ascii(_) | Elements::Unicode { .. } => {
                Kind::Texts(self.shape.iter().fold(1, |count: usize, &n| count.saturating_mul(n)))
            }
            Elements::Other(reason) => Kind::Other(reason.clone()),
        }
    }

    /// Reads the numbers that follow the header. `bytes` is the size of the data in bytes.
    pub fn read_numbers(&self, input: &mut impl Read, bytes: u64) -> Result<ArrayD<f32>, String> {
        let Elements::Numbers(element) = self.elements else { return Err("contains no numbers".into()) };
        let count = element_count(&self.shape, element.size(), bytes)?;
        let values = element.read(input, count)?;
        if self.column_major { from_column_major(&self.shape, values) } else { from_row_major(&self.shape, values) }
    }

    /// Reads the strings that follow the header. `bytes` is the size of the data in bytes.
    pub fn read_texts(&self, input: &mut impl Read, bytes: u64) -> Result<Vec<String>, String> {
        let (size, big_endian) = match self.elements {
            Elements::Ascii(len) => (len, None),
            Elements::Unicode { len, big_endian } => (len.saturating_mul(4), Some(big_endian)),
            _ => return Err("contains no strings".into()),
        };
        if size == 0 {
            return Err("damaged: its strings have no characters".into());
        }
        let count = element_count(&self.shape, size, bytes)?;
        let mut text = vec![0; size];
        (0..count)
            .map(|_| {
                input.read_exact(&mut text).map_err(|error| read_error(&error))?;
                let text = match big_endian {
                    None => String::from_utf8(text.clone()).ok(),
                    Some(big_endian) => text
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .map(|&c| {
                            char::from_u32(if big_endian { u32::from_be_bytes(c) } else { u32::from_le_bytes(c) })
                        })
                        .collect(),
                };
                let text = text.ok_or("damaged: a string is not Unicode")?;
                Ok(text.trim_end_matches('\0').to_string())
            })
            .collect()
    }
}

/// Parses the header, a dictionary in Python's notation with the keys descr, fortran_order and shape; `None` if it is malformed.
fn parse_header(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?;
    let (mut elements, mut column_major, mut shape) = (None, None, None);
    loop {
        rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix('}') {
            return end.is_empty().then_some(Header {
                elements: elements?,
                column_major: column_major?,
                shape: shape?,
                len: 0,
            });
        }
        let (key, after) = quoted(rest)?;
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        match key {
            "descr" if rest.starts_with('[') => {
                // A list of fields contains brackets in pairs, and names, which may contain any character except quotes.
                elements = Some(Elements::Other("a structured array: save one of its fields".into()));
                rest = &rest[rest.find("'fortran_order'")?..];
                continue;
            }
            "descr" => {
                let (descr, after) = quoted(rest)?;
                (elements, rest) = (Some(parse_type(descr)), after);
            }
            "fortran_order" => {
                (column_major, rest) = match rest.strip_prefix("True") {
                    Some(after) => (Some(true), after),
                    None => (Some(false), rest.strip_prefix("False")?),
                };
            }
            "shape" => {
                let (axes, after) = rest.strip_prefix('(')?.split_once(')')?;
                let axes = axes.split(',').map(str::trim).filter(|axis| !axis.is_empty());
                // Python 2 wrote long integers with the suffix L.
                shape = Some(axes.map(|axis| axis.trim_end_matches('L').parse().ok()).collect::<Option<Vec<usize>>>()?);
                rest = after;
            }
            _ => return None,
        }
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// Returns the contents of the quoted string at the start of `text`, and the text after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|&c| c == '\'' || c == '"')?;
    text[1..].split_once(quote)
}

/// Parses the type of the elements, such as `<f4`.
fn parse_type(descr: &str) -> Elements {
    let unsupported = |what: &str| {
        Elements::Other(format!("{what} (dtype {descr}): convert it with array.astype('float32') before numpy.save"))
    };
    let Some((order @ ('<' | '>' | '|' | '='), name)) = descr.chars().next().map(|c| (c, &descr[c.len_utf8()..]))
    else {
        return unsupported("unknown elements");
    };
    let big_endian = order == '>';
    let kind = match name {
        "f2" => NumberKind::F16,
        "f4" => NumberKind::F32,
        "f8" => NumberKind::F64,
        "i1" => NumberKind::I8,
        "i2" => NumberKind::I16,
        "i4" => NumberKind::I32,
        "i8" => NumberKind::I64,
        "u1" => NumberKind::U8,
        "u2" => NumberKind::U16,
        "u4" => NumberKind::U32,
        "u8" => NumberKind::U64,
        "b1" => NumberKind::Bool,
        _ => {
            return match (name.as_bytes().first(), name.get(1..).and_then(|len| len.parse().ok())) {
                (Some(b'S'), Some(len)) => Elements::Ascii(len),
                (Some(b'U'), Some(len)) => Elements::Unicode { len, big_endian },
                (Some(b'O'), _) => unsupported("pickled Python objects, which are not executed"),
                (Some(b'c'), _) => unsupported("complex numbers"),
                _ => unsupported("no numbers"),
            };
        }
    };
    Elements::Numbers(ElementType { kind, big_endian })
}

/// An .npy file: one array without a name.
pub(super) struct NpyFile {
    input: BufReader<std::fs::File>,
    header: Header,
    /// Size of the data in bytes.
    bytes: u64,
    variables: [Variable; 1],
}

impl NpyFile {
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let len = file.metadata().map_err(|error| error.to_string())?.len();
        let mut input = BufReader::new(file);
        let header = Header::read(&mut input)?;
        let variables = [Variable { name: String::new(), kind: header.kind() }];
        Ok(Self { input, bytes: len.saturating_sub(header.len), header, variables })
    }
}

impl File for NpyFile {
    fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn numbers(&mut self, _: usize) -> Result<ArrayD<f32>, String> {
        self.header.read_numbers(&mut self.input, self.bytes)
    }

    fn texts(&mut self, _: usize) -> Result<Vec<String>, String> {
        self.header.read_texts(&mut self.input, self.bytes)
    }
}

/// Writes the header of an f32 array in C order, format version 1.0.
///
/// # Errors
/// Returns an error if the output cannot be written.
pub(super) fn write_header(output: &mut impl Write, shape: &[usize]) -> std::io::Result<()> {
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    // A tuple of one element ends with a comma.
    let axes = if shape.len() == 1 { axes.trim_end() } else { axes.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    // The data starts at a multiple of 64 bytes, after a 10-byte preamble and the header, which ends with a line feed.
    let padding = 63 - (10 + header.len()) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("the header is short").to_le_bytes();
    output.write_all(b"\x93NUMPY\x01\x00")?;
    output.write_all(&length)?;
    output.write_all(header.as_bytes())
}

/// Writes values after the header.
///
/// # Errors
/// Returns an error if the output cannot be written.
pub(super) fn write_values<'a>(
    output: &mut impl Write,
    values: impl IntoIterator<Item = &'a f32>,
) -> std::io::Result<()> {
    values.into_iter().try_for_each(|value| output.write_all(&value.to_le_bytes()))
}

/// Writes an f32 matrix as .npy block by block, so that the matrix need not fit into memory. Errors name the file `path`.
///
/// # Errors
/// Returns an error if the file cannot be written or a block is an error.
///
/// # Panics
/// Panics if the blocks do not add up to `shape`.
pub fn write_npy(
    mut output: impl Write,
    path: &Path,
    shape: (usize, usize),
    blocks: impl IntoIterator<Item = Result<Array2<f32>>>,
) -> Result<()> {
    write_header(&mut output, &[shape.0, shape.1]).map_err(Error::io(path))?;
    let mut rows = 0;
    for block in blocks {
        let block = block?;
        assert_eq!(block.ncols(), shape.1, "blocks have as many columns as the shape");
        rows += block.nrows();
        write_values(&mut output, &block).map_err(Error::io(path))?;
    }
    assert_eq!(rows, shape.0, "blocks have as many rows as the shape");
    output.flush().map_err(Error::io(path))
}
