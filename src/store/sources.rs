//! The sources of virtual stores: the stores that have their rows.
//!
//! The datasets of the rows are virtual datasets of HDF5, which refer to the same datasets of the sources by path. If a source is missing,
//! HDF5 returns fill values without an error. A virtual store therefore records its sources, and they are checked when it is opened.

use std::path::{Path, PathBuf};

use hdf5::File;
use sha2::{Digest, Sha256};

use super::attributes::{read_texts, store_error};
use super::provenance::Provenance;
use crate::error::{Error, Result};
use crate::files::directory_of;

/// Opens the sources of the store `file`, at `path`; none if it is not virtual. They stay open as long as the store, since HDF5 opens them
/// for each read otherwise.
///
/// # Errors
/// Returns an error if a source is missing or has changed.
pub(super) fn open(file: &File, path: &Path) -> Result<Vec<File>> {
    let error = |message: String| Error::Store { path: path.to_path_buf(), message };
    let Ok(group) = file.group("sources") else { return Ok(Vec::new()) };
    let texts = |name: &str| {
        let texts = group.dataset(name).and_then(|dataset| read_texts(&dataset));
        texts.map_err(|e| error(format!("damaged: /sources/{name}: {e}")))
    };
    let (names, fingerprints) = (texts("path")?, texts("fingerprint")?);
    if names.len() != fingerprints.len() {
        return Err(error("damaged: the datasets of /sources differ in length".into()));
    }
    let directory = canonical_directory(path)?;
    let open = |(name, expected): (&String, &String)| {
        let source = directory.join(name);
        if !source.exists() {
            return Err(error(format!(
                "virtual, and its source {} is missing: put it back, or merge again (kinoprobe-merge --virtual)",
                source.display()
            )));
        }
        let file = File::open(&source).map_err(store_error(&source))?;
        if fingerprint(&file, &source)? != *expected {
            return Err(error(format!(
                "virtual, and its source {} has changed since the merge: merge again (kinoprobe-merge --virtual)",
                source.display()
            )));
        }
        Ok(file)
    };
    names.iter().zip(&fingerprints).map(open).collect()
}

/// Returns the SHA-256, in hexadecimal, of what distinguishes a store from others in its place: its attributes, among them the time and the
/// duration of its extraction, and its size in bytes. A copy of a store has the same fingerprint.
pub(super) fn fingerprint(file: &File, path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let identity = serde_json::to_vec(&(size, Provenance::read(file, path)?)).expect("attributes serialize to JSON");
    Ok(format!("{:x}", Sha256::digest(&identity)))
}

/// Returns the directory of a file, without symbolic links. HDF5 resolves the paths of sources from there, if the file is opened by the
/// path without symbolic links.
pub(super) fn canonical_directory(file: &Path) -> Result<PathBuf> {
    let file = file.canonicalize().map_err(Error::io(file))?;
    Ok(directory_of(&file).to_path_buf())
}
