//! Selection of the state_dict among the dictionaries of a checkpoint, and of the prefix of its names.

use std::collections::{BTreeMap, BTreeSet};

use super::tensor::Tensor;
use crate::models::graph::Parameter;

/// Maximum number of keys that messages list.
const MAX_SHOWN: usize = 12;
/// Maximum number of prefixes that are tried for a dictionary.
const MAX_PREFIXES: usize = 64;

/// The dictionaries of a checkpoint that contain tensors.
#[derive(Debug, Default)]
pub(super) struct StateDicts {
    /// In order of preference. A dictionary with a malformed tensor is an error only if it is selected.
    pub dicts: Vec<Result<BTreeMap<String, Tensor>, String>>,
    /// The top-level keys of the file.
    pub keys: Vec<String>,
}

impl StateDicts {
    /// Returns the dictionary of a file that has only one.
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>) -> Self {
        let keys = tensors.keys().cloned().collect();
        Self { dicts: vec![Ok(tensors)], keys }
    }

    /// Returns the first dictionary. If all names have a prefix that wrappers add, `module.` (DataParallel) or `_orig_mod.`
    /// (torch.compile), it is removed.
    ///
    /// # Errors
    /// Returns an error if there is no tensor, or the dictionary has a malformed tensor.
    pub fn first(mut self) -> Result<BTreeMap<String, Tensor>, String> {
        if self.dicts.is_empty() {
            return Err(self.no_tensors());
        }
        let mut tensors = self.dicts.swap_remove(0)?;
        if tensors.is_empty() {
            return Err(self.no_tensors());
        }
        while let Some(prefix) =
            ["module.", "_orig_mod."].into_iter().find(|prefix| tensors.keys().all(|name| name.starts_with(prefix)))
        {
            tensors = strip_prefix(tensors, prefix);
        }
        Ok(tensors)
    }

    /// Returns the dictionary and prefix with the most of `parameters`, without that prefix. Ties are decided by the order of
    /// the dictionaries, then by the shortest prefix. Without any match, returns [`StateDicts::first`].
    ///
    /// # Errors
    /// Returns an error if there is no tensor, or the selected dictionary has a malformed tensor.
    pub fn best_match(mut self, parameters: &[Parameter]) -> Result<BTreeMap<String, Tensor>, String> {
        let mut best: Option<(usize, usize, String)> = None;
        for (index, tensors) in self.dicts.iter().enumerate() {
            let Ok(tensors) = tensors else { continue };
            for prefix in prefixes(tensors, parameters) {
                let is_present = |parameter: &&Parameter| tensors.contains_key(&format!("{prefix}{}", parameter.name));
                let count = parameters.iter().filter(is_present).count();
                if count > best.as_ref().map_or(0, |(count, ..)| *count) {
                    best = Some((count, index, prefix));
                }
            }
        }
        match best {
            Some((_, index, prefix)) => Ok(strip_prefix(self.dicts.swap_remove(index)?, &prefix)),
            None => self.first(),
        }
    }

    fn no_tensors(&self) -> String {
        match self.keys.as_slice() {
            [] => "no tensors in the checkpoint".into(),
            keys => format!("no tensors in the checkpoint; its keys are {}", abbreviate(keys)),
        }
    }
}

/// Returns the prefixes that precede the name of one of the first parameters in a name of `tensors`, shortest first.
fn prefixes(tensors: &BTreeMap<String, Tensor>, parameters: &[Parameter]) -> Vec<String> {
    let mut prefixes = BTreeSet::new();
    for parameter in parameters.iter().take(8) {
        let prefixes_of = |name: &'_ String| Some(name.strip_suffix(&parameter.name)?.to_owned());
        let complete = |prefix: &String| prefix.is_empty() || prefix.ends_with('.');
        prefixes.extend(tensors.keys().filter_map(prefixes_of).filter(complete).map(|prefix| (prefix.len(), prefix)));
    }
    prefixes.into_iter().take(MAX_PREFIXES).map(|(_, prefix)| prefix).collect()
}

/// Removes a prefix, and the tensors whose names lack it.
fn strip_prefix(tensors: BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let strip = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor));
    tensors.into_iter().filter_map(strip).collect()
}

/// Joins the first names of a list and counts the others.
pub(in crate::models) fn abbreviate(names: &[String]) -> String {
    let shown = names[..names.len().min(MAX_SHOWN)].join(", ");
    match names.len().saturating_sub(MAX_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
