//! Tensors in checkpoint files: location, element type and strides, and reading their data.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};

/// Element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

/// A tensor whose data is in a file.
#[derive(Debug, Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    strides: Vec<usize>,
    dtype: Dtype,
    /// Position of the first element in the file, in bytes.
    position: u64,
    /// Number of elements from the first to the last in memory order, inclusive.
    span: usize,
    source: Arc<Source>,
}

/// The file that tensors are read from. It is not memory-mapped: access to a mapped file that another process truncates
/// crashes, and mapping requires unsafe code.
#[derive(Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    file: Mutex<File>,
    /// Length in bytes.
    pub len: u64,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::Weights { path: path.into(), message: "not a regular file".into() });
        }
        Ok(Self { path: path.into(), file: Mutex::new(file), len: metadata.len() })
    }

    /// Reads `len` bytes at `position`. The range is checked before memory is allocated.
    pub fn read(&self, position: u64, len: u64) -> Result<Vec<u8>, String> {
        if position.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(format!("truncated file: {len} bytes at position {position} exceed its {} bytes", self.len));
        }
        let mut file = self.file.lock().map_err(|_| "an earlier read panicked".to_owned())?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|e| e.to_string())?];
        file.seek(SeekFrom::Start(position)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}

impl Tensor {
    /// Creates a tensor after checking that it lies within its storage and has no more elements than its storage.
    /// `storage` is the position in bytes and the number of elements; `offset` and `strides` are in elements.
    pub(super) fn new(
        source: &Arc<Source>,
        dtype: Dtype,
        storage: (u64, u64),
        offset: u64,
        shape: &[u64],
        strides: &[u64],
    ) -> Result<Self, String> {
        let (position, elements) = storage;
        let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).ok_or("the size exceeds 64 bits")?;
        if count > elements {
            return Err(format!(
                "{count} elements in a storage of {elements} (if it is an expanded view, save a clone of it)"
            ));
        }
        let last =
            shape.iter().zip(strides).try_fold(0u64, |last, (d, s)| last.checked_add((d.max(&1) - 1).checked_mul(*s)?));
        let span = if count == 0 { Some(0) } else { last.and_then(|last| last.checked_add(1)) };
        let span = span.filter(|span| offset.checked_add(*span).is_some_and(|end| end <= elements));
        let span = span.ok_or("exceeds its storage")?;
        let size = dtype.size() as u64;
        let end = elements.checked_mul(size).and_then(|bytes| bytes.checked_add(position));
        if end.is_none_or(|end| end > source.len) {
            return Err("exceeds the file, which is truncated".into());
        }
        let to_usize = |values: &[u64]| values.iter().map(|v| usize::try_from(*v)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            shape: to_usize(shape).map_err(|e| e.to_string())?,
            strides: to_usize(strides).map_err(|e| e.to_string())?,
            dtype,
            position: position + offset * size,
            span: usize::try_from(span).map_err(|e| e.to_string())?,
            source: source.clone(),
        })
    }

    /// Returns the shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Reads the elements in row-major order as f32. f64 and integers are rounded to nearest; half precision is exact.
    ///
    /// # Errors
    /// Returns an error if the file can no longer be read.
    pub fn read(&self) -> Result<Vec<f32>> {
        if self.span == 0 {
            return Ok(Vec::new());
        }
        let size = self.dtype.size();
        let bytes = self
            .source
            .read(self.position, (self.span * size) as u64)
            .map_err(|message| Error::Weights { path: self.source.path.clone(), message })?;
        if self.is_contiguous() {
            return Ok(bytes.chunks_exact(size).map(|b| self.dtype.to_f32(b)).collect());
        }
        let count: usize = self.shape.iter().product();
        let mut index = vec![0; self.shape.len()];
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            let element: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            values.push(self.dtype.to_f32(&bytes[element * size..(element + 1) * size]));
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(values)
    }

    /// Returns `true` if the elements are in row-major order without gaps. The tensor must not be empty.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&d, &s)| {
            let matches = d <= 1 || s == expected;
            expected *= d;
            matches
        })
    }
}

impl Dtype {
    /// Returns the number of bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Converts one element from its little-endian bytes, [`Dtype::size`] of them.
    fn to_f32(self, bytes: &[u8]) -> f32 {
        let wide = |n: usize| {
            let mut wide = [0; 8];
            wide[..n].copy_from_slice(&bytes[..n]);
            u64::from_le_bytes(wide)
        };
        match self {
            Dtype::F64 => f64::from_bits(wide(8)) as f32,
            Dtype::F32 => f32::from_bits(wide(4) as u32),
            Dtype::F16 => half_to_f32(wide(2) as u16),
            Dtype::Bf16 => f32::from_bits((wide(2) as u32) << 16),
            Dtype::I64 => wide(8) as i64 as f32,
            Dtype::I32 => wide(4) as u32 as i32 as f32,
            Dtype::I16 => f32::from(wide(2) as u16 as i16),
            Dtype::I8 => f32::from(bytes[0] as i8),
            Dtype::U8 => f32::from(bytes[0]),
            Dtype::Bool => f32::from(u8::from(bytes[0] != 0)),
        }
    }
}

/// Converts IEEE 754 binary16 to binary32, exactly.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10) & 0x1f, u32::from(bits) & 0x3ff);
    match exponent {
        0 => f32::from_bits(sign | 0x3f80_0000) * fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}
