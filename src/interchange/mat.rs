//! MATLAB files: version 5 (`save -v6` and `-v7`), which this module reads, and version 7.3, an HDF5 file.
//!
//! Source: "MAT-File Format", The MathWorks.

use std::fs::File as OsFile;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::ZlibDecoder;
use ndarray::ArrayD;

use super::elements::{
    ElementType, MAX_DEFLATE_RATIO, NumberKind, check_memory, element_count, from_column_major, read_error,
};
use super::{File, Kind, Variable};
use crate::error::{Error, Result as LibraryResult};
use crate::store::MatlabFile;

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Maximum number of axes, and length in bytes of a name or string.
const MAX_AXES: u64 = 16;
const MAX_TEXT_LEN: u64 = 1 << 16;
/// Maximum number of variables and of cells.
const MAX_CELLS: usize = 1 << 24;

/// A file of version 5. Variables are found by their headers; their data is read on demand.
pub(super) struct Version5 {
    file: OsFile,
    big_endian: bool,
    variables: Vec<Variable>,
    /// Position and length in bytes of each variable, and whether it is compressed.
    elements: Vec<(u64, u64, bool)>,
}

/// The header of a matrix.
struct Matrix {
    class: u8,
    complex: bool,
    shape: Vec<usize>,
    name: String,
}

/// Type and length in bytes of a data element. Small elements have up to four bytes, which are part of the tag.
struct Tag {
    kind: u32,
    len: u64,
    small: Option<[u8; 4]>,
}

impl Version5 {
    pub fn open(path: &Path) -> Result<Self, String> {
        let mut file = OsFile::open(path).map_err(|error| error.to_string())?;
        let file_len = file.metadata().map_err(|error| error.to_string())?.len();
        let mut header = [0; 128];
        file.read_exact(&mut header).map_err(|_| "truncated, or not a MATLAB file")?;
        let big_endian = match &header[126..] {
            b"IM" => false,
            b"MI" => true,
            _ => {
                return Err(
                    "not a MATLAB file of version 5 or 7.3: write it with save('-v7') or scipy.io.savemat".into()
                );
            }
        };
        let mut found = Self { file, big_endian, variables: Vec::new(), elements: Vec::new() };
        let mut position = header.len() as u64;
        while position < file_len {
            found.file.seek(SeekFrom::Start(position)).map_err(|error| error.to_string())?;
            let tag = Tag::read(&mut found.file, big_endian)?;
            position += 8;
            if tag.len > file_len - position {
                return Err(format!("truncated: a variable of {} bytes exceeds the file", tag.len));
            }
            if matches!(tag.kind, MATRIX | COMPRESSED) {
                let element = (position, tag.len, tag.kind == COMPRESSED);
                let matrix = found.read(element, |input, _| Matrix::read(input, big_endian))?;
                // The result of a function handle or object is stored without a name.
                if !matrix.name.is_empty() {
                    found.variables.push(Variable { kind: matrix.variable_kind(), name: matrix.name });
                    found.elements.push(element);
                }
            }
            position += tag.len;
        }
        Ok(found)
    }

    /// Calls `read` with the contents of a matrix and the largest number of bytes that it can have.
    fn read<T>(
        &mut self,
        (position, len, compressed): (u64, u64, bool),
        read: impl FnOnce(&mut dyn Read, u64) -> Result<T, String>,
    ) -> Result<T, String> {
        self.file.seek(SeekFrom::Start(position)).map_err(|error| error.to_string())?;
        let mut input = BufReader::new(&mut self.file).take(len);
        if !compressed {
            return read(&mut input, len);
        }
        let mut input = ZlibDecoder::new(input);
        let tag = Tag::read(&mut input, self.big_endian)?;
        if tag.kind != MATRIX || tag.len > len.saturating_mul(MAX_DEFLATE_RATIO) {
            return Err("damaged: a compressed variable is not a matrix".into());
        }
        read(&mut input.take(tag.len), tag.len)
    }
}

impl Tag {
    fn read(input: &mut (impl Read + ?Sized), big_endian: bool) -> Result<Tag, String> {
        let first = read_u32(input, big_endian)?;
        let second = read_bytes::<4>(input)?;
        let small_len = first >> 16;
        if small_len == 0 {
            let len = if big_endian { u32::from_be_bytes(second) } else { u32::from_le_bytes(second) };
            return Ok(Tag { kind: first, len: len.into(), small: None });
        }
        if small_len > 4 {
            return Err("damaged: a small element has more than four bytes".into());
        }
        Ok(Tag { kind: first & 0xffff, len: small_len.into(), small: Some(second) })
    }

    /// Reads the bytes of an element with at most `limit` bytes, and the padding to a multiple of eight.
    fn bytes(&self, input: &mut (impl Read + ?Sized), limit: u64) -> Result<Vec<u8>, String> {
        if let Some(small) = self.small {
            return Ok(small[..self.len as usize].to_vec());
        }
        if self.len > limit {
            return Err(format!("damaged: an element has {} bytes", self.len));
        }
        let mut bytes = vec![0; self.len as usize];
        input.read_exact(&mut bytes).map_err(|error| read_error(&error))?;
        self.skip_padding(input)?;
        Ok(bytes)
    }

    fn skip_padding(&self, input: &mut (impl Read + ?Sized)) -> Result<(), String> {
        let padding = (8 - self.len % 8) % 8;
        if self.small.is_none() && padding > 0 {
            let mut bytes = [0; 8];
            // The last element of a file may lack it.
            let _ = input.read(&mut bytes[..padding as usize]).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Returns the type of the stored numbers, which may be smaller than that of the matrix.
    fn element(&self, big_endian: bool) -> Option<ElementType> {
        let kind = match self.kind {
            1 => NumberKind::I8,
            2 => NumberKind::U8,
            3 => NumberKind::I16,
            4 => NumberKind::U16,
            5 => NumberKind::I32,
            6 => NumberKind::U32,
            7 => NumberKind::F32,
            9 => NumberKind::F64,
            12 => NumberKind::I64,
            13 => NumberKind::U64,
            _ => return None,
        };
        Some(ElementType { kind, big_endian })
    }
}

fn read_bytes<const N: usize>(input: &mut (impl Read + ?Sized)) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(|error| read_error(&error))?;
    Ok(bytes)
}

fn read_u32(input: &mut (impl Read + ?Sized), big_endian: bool) -> Result<u32, String> {
    let bytes = read_bytes(input)?;
    Ok(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

impl Matrix {
    /// Reads flags, shape and name.
    fn read(input: &mut (impl Read + ?Sized), big_endian: bool) -> Result<Matrix, String> {
        let flags = Tag::read(input, big_endian)?.bytes(input, 8)?;
        let flags: [u8; 4] = flags.get(..4).and_then(|flags| flags.try_into().ok()).ok_or("damaged: no array flags")?;
        let flags = if big_endian { u32::from_be_bytes(flags) } else { u32::from_le_bytes(flags) };
        let class = flags as u8;
        // An object that MATLAB describes elsewhere in the file, such as a string or a table, has no shape.
        let axes = if class == 17 { Vec::new() } else { Tag::read(input, big_endian)?.bytes(input, 4 * MAX_AXES)? };
        let axes = axes.as_chunks::<4>().0.iter().map(|&axis| {
            let axis = if big_endian { i32::from_be_bytes(axis) } else { i32::from_le_bytes(axis) };
            usize::try_from(axis).map_err(|_| "damaged: a negative size".to_string())
        });
        let shape = axes.collect::<Result<_, _>>()?;
        let name = Tag::read(input, big_endian)?.bytes(input, MAX_TEXT_LEN)?;
        let name = String::from_utf8(name).map_err(|_| "damaged: the name of a variable is not text")?;
        Ok(Matrix { class, complex: flags & 0x0800 != 0, shape, name })
    }

    fn variable_kind(&self) -> Kind {
        let other = |what: &str| Kind::Other(format!("{what}: save a full numeric matrix"));
        match self.class {
            1 => Kind::Texts(self.shape.iter().fold(1, |count: usize, &n| count.saturating_mul(n))),
            4 => Kind::Texts(self.shape.first().copied().unwrap_or(0)),
            6..=15 if self.complex => other("complex numbers"),
            6..=15 => Kind::Numbers(self.shape.clone()),
            2 => other("a structure"),
            5 => other("a sparse matrix"),
            class => other(&format!("an object of class {class}")),
        }
    }

    /// Reads the numbers that follow. `bytes` is the largest number of bytes that they can have.
    fn numbers(&self, input: &mut dyn Read, bytes: u64, big_endian: bool) -> Result<ArrayD<f32>, String> {
        let tag = Tag::read(input, big_endian)?;
        let element = tag.element(big_endian).ok_or_else(|| format!("damaged: numbers of type {}", tag.kind))?;
        let count = element_count(&self.shape, element.size(), bytes.min(tag.len))?;
        if (count * element.size()) as u64 != tag.len {
            return Err(format!("damaged: {count} values of {} bytes in {} bytes", element.size(), tag.len));
        }
        let values = match tag.small {
            Some(small) => element.read(&mut &small[..], count)?,
            None => element.read(&mut &mut *input, count)?,
        };
        from_column_major(&self.shape, values)
    }

    /// Reads the rows of a character matrix, without the spaces that pad them.
    fn lines(&self, input: &mut dyn Read, bytes: u64, big_endian: bool) -> Result<Vec<String>, String> {
        let damaged = || "damaged: a string is not Unicode".to_string();
        let tag = Tag::read(input, big_endian)?;
        let text = tag.bytes(input, bytes)?;
        let characters: Vec<char> = match tag.kind {
            // Bytes, UTF-8.
            1 | 2 | 16 => String::from_utf8(text).map_err(|_| damaged())?.chars().collect(),
            // UTF-16.
            4 | 17 => {
                let units = text.as_chunks::<2>().0.iter();
                let units = units.map(|&u| if big_endian { u16::from_be_bytes(u) } else { u16::from_le_bytes(u) });
                char::decode_utf16(units).collect::<Result<_, _>>().map_err(|_| damaged())?
            }
            kind => return Err(format!("damaged: characters of type {kind}")),
        };
        let rows = self.shape.first().copied().unwrap_or(0);
        if rows == 0 || characters.is_empty() {
            return Ok(vec![String::new(); rows.min(1)]);
        }
        // The matrix is stored by columns. Characters that need several units make a single row shorter.
        let columns = characters.len() / rows;
        if rows > 1 && columns * rows != characters.len() {
            return Err(damaged());
        }
        let row = |row: usize| (0..columns).map(|column| characters[column * rows + row]).collect::<String>();
        Ok((0..rows).map(|i| row(i).trim_end_matches([' ', '\0']).to_string()).collect())
    }
}

impl File for Version5 {
    fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn numbers(&mut self, index: usize) -> Result<ArrayD<f32>, String> {
        let big_endian = self.big_endian;
        self.read(self.elements[index], |input, bytes| {
            Matrix::read(input, big_endian)?.numbers(input, bytes, big_endian)
        })
    }

    fn texts(&mut self, index: usize) -> Result<Vec<String>, String> {
        let big_endian = self.big_endian;
        self.read(self.elements[index], |input, bytes| {
            let matrix = Matrix::read(input, big_endian)?;
            if matrix.class == 4 {
                return matrix.lines(input, bytes, big_endian);
            }
            // A cell takes at least the eight bytes of its tag.
            let cells = element_count(&matrix.shape, 8, bytes)?.min(MAX_CELLS);
            (0..cells)
                .map(|_| {
                    let tag = Tag::read(input, big_endian)?;
                    let mut input = (&mut *input).take(tag.len);
                    let cell = Matrix::read(&mut input, big_endian)?;
                    if tag.kind != MATRIX || cell.class != 4 || cell.shape.first().is_some_and(|&rows| rows > 1) {
                        return Err("a cell does not contain one string".into());
                    }
                    let mut lines = cell.lines(&mut input, tag.len, big_endian)?;
                    std::io::copy(&mut input, &mut std::io::sink()).map_err(|error| error.to_string())?;
                    Ok(lines.pop().unwrap_or_default())
                })
                .collect()
        })
    }
}

/// A file of version 7.3.
pub(super) struct Version73 {
    file: MatlabFile,
    variables: Vec<Variable>,
}

impl Version73 {
    pub fn open(path: &Path) -> LibraryResult<Self> {
        let invalid = |message: String| Error::Import { path: path.to_path_buf(), message };
        let file = MatlabFile::open(path)?;
        let mut variables = Vec::new();
        for name in file.names()? {
            let kind = match file.class(&name)?.as_str() {
                "char" => Kind::Texts(1),
                "cell" => Kind::Texts(file.shape(&name)?.iter().product()),
                "single" | "double" | "logical" | "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16"
                | "uint32" | "uint64" => Kind::Numbers(file.shape(&name)?),
                class => Kind::Other(format!("a variable of class {class}: save a full numeric matrix")),
            };
            variables.push(Variable { name, kind });
        }
        if variables.is_empty() {
            return Err(invalid("contains no MATLAB variables".into()));
        }
        Ok(Self { file, variables })
    }
}

impl File for Version73 {
    fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn numbers(&mut self, index: usize) -> Result<ArrayD<f32>, String> {
        let Variable { name, kind: Kind::Numbers(shape) } = &self.variables[index] else {
            return Err("contains no numbers".into());
        };
        // Unlike other formats, HDF5 does not store chunks that contain only zeros: the file's size is no limit.
        let count = shape.iter().try_fold(1_usize, |count, &n| count.checked_mul(n));
        check_memory(count.ok_or("damaged: its size exceeds 64 bits")?)?;
        let values = self.file.numbers(name).map_err(|error| error.to_string())?;
        from_column_major(shape, values)
    }

    fn texts(&mut self, index: usize) -> Result<Vec<String>, String> {
        self.file.texts(&self.variables[index].name).map_err(|error| error.to_string())
    }
}
