//! Writer of NumPy array files, format version 1.0.

use std::io::{BufWriter, Write};
use std::path::Path;

use ndarray::Array2;

use crate::error::{Error, Result};

/// Writes an f32 matrix as .npy (little-endian, C order) block by block, so that the matrix need not fit into memory.
///
/// Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
///
/// # Errors
/// Returns an error if the file cannot be written or a block is an error.
///
/// # Panics
/// Panics if the blocks do not add up to `shape`.
pub fn write_npy(
    path: &Path,
    shape: (usize, usize),
    blocks: impl IntoIterator<Item = Result<Array2<f32>>>,
) -> Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path).map_err(Error::io(path))?);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", shape.0, shape.1);
    // The data starts at a multiple of 64 bytes, after a 10-byte preamble and the header, which ends with a line feed.
    let padding = 63 - (10 + header.len()) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("the header is short").to_le_bytes();
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    write(b"\x93NUMPY\x01\x00")?;
    write(&length)?;
    write(header.as_bytes())?;
    let mut rows = 0;
    for block in blocks {
        let block = block?;
        assert_eq!(block.ncols(), shape.1, "blocks have as many columns as the shape");
        rows += block.nrows();
        for value in &block {
            write(&value.to_le_bytes())?;
        }
    }
    assert_eq!(rows, shape.0, "blocks have as many rows as the shape");
    file.flush().map_err(Error::io(path))
}
