//! Tar archives, such as the shards of WebDataset, without unpacking them.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};
use crate::read_at::ReadAt;

/// A regular file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path in the archive, without `./`.
    pub name: String,
    /// Position of its first byte in the archive.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

/// Returns `true` if a path has the extension of a tar archive.
pub fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// Lists the regular files of an archive in their order. Only its headers are read.
///
/// # Errors
/// Returns an error if the archive cannot be read, is compressed, damaged or truncated.
pub fn members(archive: &Path, content: &dyn ReadAt) -> Result<Vec<Member>> {
    let failed = |message: String| Error::Media { path: archive.to_path_buf(), message };
    if content.read_vec(0, 2)? == [0x1f, 0x8b] {
        return Err(failed("the archive is compressed: decompress it with gunzip".into()));
    }
    let mut failure = None;
    let reader = ArchiveReader { content, position: 0, failure: &mut failure };
    let read = || -> std::io::Result<Vec<Member>> {
        let mut members = Vec::new();
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
                members.push(Member { name, start: entry.raw_file_position(), len: entry.size() });
            }
        }
        Ok(members)
    };
    let members = read();
    match (members, failure) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(failed(format!("not a tar archive, or damaged: {error}"))),
        (Ok(members), None) => match members.iter().find(|file| file.start.saturating_add(file.len) > content.len()) {
            Some(_) => Err(failed("the archive is truncated".into())),
            None => Ok(members),
        },
    }
}

/// Reads a file from the beginning to the end and keeps the error of the file, which names it.
struct ArchiveReader<'a> {
    content: &'a dyn ReadAt,
    position: u64,
    failure: &'a mut Option<Error>,
}

impl Read for ArchiveReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.content.read_at(self.position, buffer) {
            Ok(read) => {
                self.position += read as u64;
                Ok(read)
            }
            Err(error) => {
                let text = error.to_string();
                *self.failure = Some(error);
                Err(std::io::Error::other(text))
            }
        }
    }
}

impl Seek for ArchiveReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.content.len().checked_add_signed(offset),
        };
        self.position = position.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
