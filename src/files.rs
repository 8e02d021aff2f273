//! Files that are never incomplete under their name.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Returns the directory of a file; `.` if its path has none.
pub fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a temporary file in the directory of `path`, which is created too. Its mode is 644, since the file is renamed to `path` later.
///
/// # Errors
/// Returns an error if the directory or the file cannot be created.
pub fn temporary(path: &Path) -> Result<NamedTempFile> {
    let directory = directory_of(path);
    std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-").permissions(Permissions::from_mode(0o644));
    builder.tempfile_in(directory).map_err(Error::io(directory))
}

/// Writes a file under a temporary name and renames it. An existing file is replaced.
///
/// # Errors
/// Returns an error if the directory or the file cannot be written.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    complete(path, bytes)?.persist(path).map(|_| ()).map_err(|error| Error::io(path)(error.error))
}

/// Does the same, unless the file exists: then returns `None`. Of several processes, also on several machines, one creates the file.
///
/// # Errors
/// Returns an error if the directory or the file cannot be written.
pub fn create_new(path: &Path, bytes: &[u8]) -> Result<Option<File>> {
    match complete(path, bytes)?.persist_noclobber(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(Error::io(path)(error.error)),
    }
}

fn complete(path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    let mut file = temporary(path)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(Error::io(path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_or_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/file");
        assert!(create_new(&path, b"first").unwrap().is_some());
        assert!(create_new(&path, b"second").unwrap().is_none());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        write_atomic(&path, b"third").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"third");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(directory_of(&path)).unwrap().count(), 1, "no temporary files remain");
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
    }
}
