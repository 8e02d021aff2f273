//! NumPy's array file, version 1.0.

use std::io::{BufWriter, Write};
use std::path::Path;

use ndarray::Array2;

use crate::error::{Error, Result};

/// Writes an f32 matrix as .npy (little-endian, C order), block by block, so that no store need fit into memory.
///
/// Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
///
/// # Errors
/// The file cannot be written, or `blocks` fails.
///
/// # Panics
/// If the blocks do not make up `shape`.
pub fn write_npy(
    path: &Path,
    shape: (usize, usize),
    blocks: impl IntoIterator<Item = Result<Array2<f32>>>,
) -> Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path).map_err(Error::io(path))?);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", shape.0, shape.1);
    // The data begins at a multiple of 64: 10 bytes stand before the header, a line feed ends it.
    let padding = 63 - (10 + header.len()) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("two numbers make a short header").to_le_bytes();
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    put(b"\x93NUMPY\x01\x00")?;
    put(&length)?;
    put(header.as_bytes())?;
    let mut rows = 0;
    for block in blocks {
        let block = block?;
        assert_eq!(block.ncols(), shape.1, "blocks are as wide as the shape says");
        rows += block.nrows();
        for value in &block {
            put(&value.to_le_bytes())?;
        }
    }
    assert_eq!(rows, shape.0, "blocks are as many rows as the shape says");
    file.flush().map_err(Error::io(path))
}
