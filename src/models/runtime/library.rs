//! Location of the runtimes' shared libraries.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Returns the first file whose name begins with `stem` in the library directories.
pub(super) fn find(directory: &str, stem: &str) -> Option<PathBuf> {
    let directories = [
        std::env::var_os("KINOPROBE_RUNTIME").map(PathBuf::from),
        Some(Path::new("third_party").join(directory)),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("third_party").join(directory)),
    ];
    directories.into_iter().flatten().find_map(|directory| {
        let paths = std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = paths
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem)))
            .collect();
        found.sort();
        found.into_iter().next()?.canonicalize().ok()
    })
}

/// Returns the path of a library.
///
/// # Errors
/// Returns an error with the `remedy` if the library is missing.
pub fn require(directory: &str, stem: &str, remedy: &str) -> Result<PathBuf> {
    find(directory, stem).ok_or_else(|| {
        Error::Runtime(format!(
            "{stem} not found in third_party/{directory}: {remedy}, or set KINOPROBE_RUNTIME to its directory"
        ))
    })
}
