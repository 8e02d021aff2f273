//! Files that are never incomplete under their name.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
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
    persist(complete(path, bytes)?, path)
}

/// Renames a [`temporary`] file to `path`. An existing file is replaced.
///
/// # Errors
/// Returns an error if the file cannot be renamed.
pub fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    match file.persist(path) {
        Err(error) if !is_at(error.file.as_file(), path) => Err(Error::io(path)(error.error)),
        _ => Ok(()),
    }
}

/// Renames a file. An existing file is replaced. If the reply of a network file system is lost, the request is made again, and fails although
/// the file has been renamed; that is no error here.
///
/// # Errors
/// Returns an error if the file does not exist or cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    let file = File::open(from)?;
    std::fs::rename(from, to).or_else(|error| if is_at(&file, to) { Ok(()) } else { Err(error) })
}

/// Returns whether `path` is this open file. Opening a file on a network file system updates its attributes.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((identity(file), File::open(path).and_then(|found| identity(&found))), (Ok(a), Ok(b)) if a == b)
}

/// Writes a file as [`write_atomic`] does, unless it exists: then returns `None`. Of several processes, also on several machines, one creates the file.
///
/// # Errors
/// Returns an error if the directory or the file cannot be written.
pub fn create_new(path: &Path, bytes: &[u8]) -> Result<Option<File>> {
    match complete(path, bytes)?.persist_noclobber(path) {
        Ok(file) => Ok(Some(file)),
        // As for `rename`.
        Err(error) if is_at(error.file.as_file(), path) => Ok(Some(error.file.into_file())),
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

    #[test]
    fn files_are_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();
        let file = File::open(&from).unwrap();
        assert!(!is_at(&file, &to));
        rename(&from, &to).unwrap();
        assert!(is_at(&file, &to) && !is_at(&file, &from));
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(rename(&from, &to).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
