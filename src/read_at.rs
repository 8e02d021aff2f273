//! Files that are read at any position: local ones, parts of them, and remote ones.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A file that several threads can read at any position.
pub trait ReadAt: Send + Sync {
    /// Returns the number of bytes.
    fn len(&self) -> u64;

    /// Reads bytes from `offset` and returns their number, which is 0 at the end of the file only.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Returns `true` if the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads `len` bytes from `offset`; fewer at the end of the file.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read.
    fn read_vec(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len.min(self.len().saturating_sub(offset)) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read_at(offset + filled as u64, &mut bytes[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// A local file.
#[derive(Debug)]
pub struct LocalFile {
    /// For messages.
    path: PathBuf,
    file: File,
    len: u64,
}

impl LocalFile {
    /// Opens a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(path, File::open(path).map_err(Error::io(path))?)
    }

    /// Reads an open file. `path` is its name in messages.
    ///
    /// # Errors
    /// Returns an error if the length of the file cannot be determined.
    pub fn new(path: &Path, file: File) -> Result<Self> {
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self { path: path.to_path_buf(), file, len })
    }
}

impl ReadAt for LocalFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(buffer, offset).map_err(Error::io(&self.path))
    }
}

/// A part of another file.
pub struct Section {
    /// The file.
    pub file: Arc<dyn ReadAt>,
    /// The first byte of the part.
    pub start: u64,
    /// The number of bytes.
    pub len: u64,
}

impl ReadAt for Section {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let rest = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        if rest == 0 { Ok(0) } else { self.file.read_at(self.start + offset, &mut buffer[..rest]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_end_where_they_should() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("digits");
        std::fs::write(&path, "0123456789").unwrap();
        let file: Arc<dyn ReadAt> = Arc::new(LocalFile::open(&path).unwrap());
        let section = Section { file: Arc::clone(&file), start: 3, len: 4 };
        assert_eq!(section.read_vec(0, 100).unwrap(), b"3456");
        assert_eq!(section.read_vec(2, 1).unwrap(), b"5");
        assert_eq!(section.read_at(4, &mut [0; 8]).unwrap(), 0);
        assert_eq!(file.read_vec(8, 8).unwrap(), b"89");
    }
}
