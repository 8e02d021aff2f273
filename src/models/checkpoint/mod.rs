//! Readers of checkpoints: `.pth` in both formats of PyTorch, and `.safetensors`.
//!
//! Files are untrusted: no code in them is executed, sizes are checked against the file before memory is allocated, and
//! malformed files give an [`Error::Weights`] that names the file. Tensor data stays in the file until it is read.

mod pickle;
mod safetensors;
mod tensor;
mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use tensor::Source;
pub use tensor::Tensor;

/// A checkpoint: named tensors.
#[derive(Debug)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Tensors by name. Wrappers such as `{"state_dict": …}` and name prefixes such as `module.` are removed.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Opens a checkpoint and reads the names, types and shapes of its tensors. The format is detected by content.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, has an unknown format, is malformed, has no tensors, or refers to Python
    /// code.
    pub fn open(path: &Path) -> Result<Self> {
        let source = Arc::new(Source::open(path)?);
        let invalid = |message: String| Error::Weights { path: path.into(), message };
        let start = source.read(0, source.len.min(16)).map_err(invalid)?;
        let tensors = match start.as_slice() {
            [b'P', b'K', ..] => torch::read_zip(&source),
            [0x80, 1..=5, ..] => torch::read_legacy(&source),
            [_, _, _, _, _, _, _, _, b'{', ..] => safetensors::read(&source),
            _ => Err("neither a PyTorch checkpoint (.pth) nor a .safetensors file".into()),
        };
        let tensors = strip_prefixes(tensors.map_err(invalid)?);
        if tensors.is_empty() {
            return Err(invalid("no tensors in the checkpoint".into()));
        }
        Ok(Self { path: path.into(), tensors })
    }
}

/// Removes prefixes that wrappers add to all names: `module.` (DataParallel) and `_orig_mod.` (torch.compile).
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
