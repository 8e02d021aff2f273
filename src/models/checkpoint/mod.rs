//! Readers of checkpoints: `.pth` in both formats of PyTorch, and `.safetensors`.
//!
//! Files are untrusted: no code in them is executed, sizes are checked against the file before memory is allocated, and
//! malformed files give an [`Error::Weights`] that names the file. Tensor data stays in the file until it is read.
//!
//! Training scripts save a state_dict at the top level, inside other dictionaries (`{"epoch": …, "state_dict": …}`), as an
//! exponential moving average (EMA) beside or instead of the trained weights, and with prefixes before all names. [`state`]
//! selects the dictionary and the prefix.

mod pickle;
mod safetensors;
mod state;
mod tensor;
mod torch;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::models::graph::Parameter;
use state::StateDicts;
pub(super) use state::abbreviate;
use tensor::Source;
pub use tensor::Tensor;
pub use values::{SavedValue, SavedValues};

/// A checkpoint: named tensors.
#[derive(Debug)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Tensors by name. Wrappers such as `{"state_dict": …}` and name prefixes such as `module.` are removed.
    pub tensors: BTreeMap<String, Tensor>,
    /// The top-level keys of the file, for messages.
    pub(super) keys: Vec<String>,
}

impl Checkpoint {
    /// Opens a checkpoint and reads the names, types and shapes of its tensors. The format is detected by content. Of several
    /// dictionaries of tensors, the first one that is not an EMA is selected.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, has an unknown format, is malformed, has no tensors, or refers to Python
    /// code.
    pub fn open(path: &Path) -> Result<Self> {
        Self::select(path, StateDicts::first)
    }

    /// Opens a checkpoint of a network: selects the dictionary with the most tensors that are named like one of `parameters`
    /// after a common prefix, and removes that prefix. Tensors without the prefix, which belong to other modules, are ignored.
    ///
    /// # Errors
    /// Returns an error under the conditions of [`Checkpoint::open`]. Whether all parameters are present is checked by
    /// [`ParameterSource::check`](super::parameters::ParameterSource::check).
    pub fn open_for(path: &Path, parameters: &[Parameter]) -> Result<Self> {
        Self::select(path, |dicts| dicts.best_match(parameters))
    }

    fn select(
        path: &Path,
        select: impl FnOnce(StateDicts) -> std::result::Result<BTreeMap<String, Tensor>, String>,
    ) -> Result<Self> {
        let source = Arc::new(Source::open(path)?);
        let invalid = |message: String| Error::Weights { path: path.into(), message };
        let start = source.read(0, source.len.min(9)).map_err(invalid)?;
        let dicts = torch::read(&source, |machine, root, locate| torch::state_dicts(&source, machine, root, locate));
        let dicts = match (dicts.map_err(invalid)?, start.as_slice()) {
            (Some(dicts), _) => dicts,
            (None, [.., b'{']) if start.len() == 9 => {
                safetensors::read(&source).map(StateDicts::from_tensors).map_err(invalid)?
            }
            _ => return Err(invalid("neither a PyTorch checkpoint (.pth) nor a .safetensors file".into())),
        };
        let keys = dicts.keys.clone();
        Ok(Self { path: path.into(), tensors: select(dicts).map_err(invalid)?, keys })
    }
}

#[cfg(test)]
mod tests;
