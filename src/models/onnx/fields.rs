//! Protobuf files of any size, read field by field.
//!
//! Files are untrusted: every length is checked against the size of the file before memory is allocated.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};

use prost::Message;

/// Reads a protobuf message field by field.
pub(crate) struct FieldReader {
    input: BufReader<File>,
    /// Position in the file, in bytes.
    pub position: u64,
    file_len: u64,
}

/// A field: its number, and its length or value.
pub(crate) enum Field {
    /// Length-delimited; the content follows.
    Bytes(u64, u64),
    Integer(u64, u64),
    /// A number of fixed size, which was skipped.
    Skipped,
}

impl FieldReader {
    /// Starts to read a file.
    pub fn new(file: File) -> std::io::Result<Self> {
        let file_len = file.metadata()?.len();
        Ok(Self { input: BufReader::with_capacity(1 << 16, file), position: 0, file_len })
    }

    /// Reads a field's key, and its value if it is an integer. Returns `None` at the end of the file.
    pub fn next_field(&mut self) -> std::io::Result<Option<Field>> {
        let Some(key) = self.read_varint()? else { return Ok(None) };
        let number = key >> 3;
        let mut integer = || self.read_varint()?.ok_or(std::io::Error::from(ErrorKind::UnexpectedEof));
        Ok(Some(match key & 7 {
            0 => Field::Integer(number, integer()?),
            2 => Field::Bytes(number, integer()?),
            1 => self.skip(8).map(|()| Field::Skipped)?,
            5 => self.skip(4).map(|()| Field::Skipped)?,
            wire_type => return Err(invalid_data(format!("unknown wire type {wire_type}"))),
        }))
    }

    /// Returns `None` at the end of the file.
    pub fn read_varint(&mut self) -> std::io::Result<Option<u64>> {
        let mut value = 0u64;
        for i in 0..10 {
            let mut byte = [0u8];
            if self.input.read(&mut byte)? == 0 {
                return if i == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f) << (7 * i);
            if byte[0] < 0x80 {
                return Ok(Some(value));
            }
        }
        Err(invalid_data("varint longer than ten bytes".into()))
    }

    /// Returns the position after the next `length` bytes; an error if the file is shorter.
    pub fn end_of(&self, length: u64) -> std::io::Result<u64> {
        let end = self.position.checked_add(length).filter(|&end| end <= self.file_len);
        end.ok_or_else(|| invalid_data(format!("a field of {length} bytes exceeds the file")))
    }

    pub fn expect_end(&self, end: u64) -> std::io::Result<()> {
        if self.position == end { Ok(()) } else { Err(invalid_data("a field exceeds its message".into())) }
    }

    pub fn skip(&mut self, length: u64) -> std::io::Result<()> {
        let end = self.end_of(length)?;
        self.input.seek_relative(i64::try_from(length).map_err(|_| ErrorKind::UnexpectedEof)?)?;
        self.position = end;
        Ok(())
    }

    pub fn read_bytes(&mut self, length: u64) -> std::io::Result<Vec<u8>> {
        let end = self.end_of(length)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| ErrorKind::UnexpectedEof)?];
        self.input.read_exact(&mut bytes)?;
        self.position = end;
        Ok(bytes)
    }

    pub fn read_message<M: Message + Default>(&mut self, length: u64) -> std::io::Result<M> {
        M::decode(self.read_bytes(length)?.as_slice()).map_err(|error| invalid_data(error.to_string()))
    }
}

fn invalid_data(message: String) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, message)
}
