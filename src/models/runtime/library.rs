//! Location of the runtimes' shared libraries.

use std::error::Error as _;
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

/// Loads a library, which remains loaded, from a path, or by its name from where the dynamic linker finds it. Libraries that depend on it then
/// find it by its name: the dynamic linker compares names with those of the loaded libraries before it searches the system.
///
/// # Errors
/// Returns the message of the dynamic linker, which names the library.
pub(super) fn load(path: &Path) -> Result<(), String> {
    ort::util::preload_dylib(path).map_err(|error| message(&error))
}

/// Returns the cause of an error, which its message lacks.
pub(super) fn message(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| cause.to_string())
}
