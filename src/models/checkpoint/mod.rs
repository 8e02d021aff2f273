//! Checkpoints → named tensors: `.pth` in both of torch's formats and `.safetensors`.
//!
//! Files are not trusted. Nothing in them is run, sizes are checked against the file before memory is taken, and
//! every fault is an [`Error::Weights`] that names the file. Tensor data stays in the file until it is asked for.

mod pickle;
mod safetensors;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use pickle::Dtype;

/// A checkpoint: tensors by the names the network's authors gave them.
#[derive(Debug)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Name → tensor. Wrappers such as `{"state_dict": …}` are opened and a `module.` before every name is dropped.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A tensor whose data is still in its file.
#[derive(Debug, Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    strides: Vec<usize>,
    dtype: Dtype,
    /// Where the tensor's first element is in the file, in bytes.
    position: u64,
    /// Elements from the first to the last, both included: what is read.
    span: usize,
    source: Arc<Source>,
}

/// The file behind the tensors. Read by position and not memory-mapped: a map of a file that another process
/// shortens ends this one, and would be the crate's only unsafe code.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: Mutex<File>,
    len: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::Weights { path: path.into(), message: "is no file".into() });
        }
        Ok(Self { path: path.into(), file: Mutex::new(file), len: metadata.len() })
    }

    /// `len` bytes from `position` on. Nothing is reserved that the file cannot hold.
    fn read(&self, position: u64, len: u64) -> Result<Vec<u8>, String> {
        if position.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(format!("is cut short: {len} bytes are missing at {position} of {}", self.len));
        }
        let mut file = self.file.lock().map_err(|_| "an earlier read failed".to_owned())?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|e| e.to_string())?];
        file.seek(SeekFrom::Start(position)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}

impl Checkpoint {
    /// Opens a checkpoint and reads its table of contents. The format is told by its first bytes, not by its name.
    ///
    /// # Errors
    /// The file cannot be read, is of no known format, is damaged, holds no tensors, or refers to Python code.
    pub fn open(path: &Path) -> Result<Self> {
        let source = Arc::new(Source::open(path)?);
        let wrong = |message: String| Error::Weights { path: path.into(), message };
        let start = source.read(0, source.len.min(16)).map_err(wrong)?;
        let tensors = match start.as_slice() {
            [b'P', b'K', ..] => torch::read_zip(&source),
            [0x80, 1..=5, ..] => torch::read_legacy(&source),
            [_, _, _, _, _, _, _, _, b'{', ..] => safetensors::read(&source),
            _ => Err("is neither a torch checkpoint (.pth) nor .safetensors".into()),
        };
        let tensors = strip_prefixes(tensors.map_err(wrong)?);
        if tensors.is_empty() {
            return Err(wrong("holds no tensors".into()));
        }
        Ok(Self { path: path.into(), tensors })
    }
}

impl Tensor {
    /// Checks that a described tensor lies within its storage, and that it claims no more elements than that has.
    fn new(
        source: &Arc<Source>,
        dtype: Dtype,
        storage: (u64, u64), // position in bytes, elements
        offset: u64,
        shape: &[u64],
        strides: &[u64],
    ) -> Result<Self, String> {
        let (position, elements) = storage;
        let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).ok_or("has a shape beyond 64 bits")?;
        if count > elements {
            return Err(format!(
                "claims {count} elements of a storage of {elements} (an expanded view? save a clone of it)"
            ));
        }
        let last =
            shape.iter().zip(strides).try_fold(0u64, |last, (d, s)| last.checked_add((d.max(&1) - 1).checked_mul(*s)?));
        let span = if count == 0 { Some(0) } else { last.and_then(|last| last.checked_add(1)) };
        let span = span.filter(|span| offset.checked_add(*span).is_some_and(|end| end <= elements));
        let span = span.ok_or("reaches beyond its storage")?;
        let size = dtype.size() as u64;
        let end = elements.checked_mul(size).and_then(|bytes| bytes.checked_add(position));
        if end.is_none_or(|end| end > source.len) {
            return Err("reaches beyond the end of the file, which is cut short".into());
        }
        let narrow = |values: &[u64]| values.iter().map(|v| usize::try_from(*v)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            shape: narrow(shape).map_err(|e| e.to_string())?,
            strides: narrow(strides).map_err(|e| e.to_string())?,
            dtype,
            position: position + offset * size,
            span: usize::try_from(span).map_err(|e| e.to_string())?,
            source: source.clone(),
        })
    }

    /// The tensor's shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order, as f32 (f64 and integers rounded to nearest, half formats exactly).
    ///
    /// # Errors
    /// The file can no longer be read, or became shorter.
    pub fn read(&self) -> Result<Vec<f32>> {
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
            let at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            values.push(self.dtype.to_f32(&bytes[at * size..(at + 1) * size]));
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

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&d, &s)| {
            let fits = d <= 1 || s == expected;
            expected *= d;
            fits
        })
    }
}

impl Dtype {
    fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// One element from its little-endian bytes, of which there are [`Dtype::size`].
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

/// IEEE 754 binary16 → binary32, exactly.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10) & 0x1f, u32::from(bits) & 0x3ff);
    match exponent {
        0 => f32::from_bits(sign | 0x3f80_0000) * fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Drops what wrappers put before every name: `module.` (DataParallel) and `_orig_mod.` (torch.compile).
fn strip_prefixes(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    while let Some(prefix) = ["module.", "_orig_mod."]
        .into_iter()
        .find(|p| !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(p)))
    {
        tensors = tensors.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
    }
    tensors
}

#[cfg(test)]
mod tests;
