//! Files in tar archives, such as the shards of WebDataset, without unpacking them.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::read_at::ReadAt;

/// Number of archives whose lists of files are kept.
const MAX_LISTS: usize = 16;

/// First byte and length of each file of an archive by its name.
type Files = HashMap<String, (u64, u64)>;

/// An archive, its version and its files.
type List = (PathBuf, String, u64, Arc<Files>);

/// Returns the first byte and the length of a file in an archive. The last file counts if several have the same name, as in tar.
///
/// # Errors
/// Returns an error if the archive is compressed or damaged, or does not contain the file.
pub(super) fn find(archive: &Path, version: &str, content: &Arc<dyn ReadAt>, name: &str) -> Result<(u64, u64)> {
    static LISTS: Mutex<VecDeque<List>> = Mutex::new(VecDeque::new());
    let known = |lists: &VecDeque<List>| {
        let is_same = |list: &&List| (list.0.as_path(), list.1.as_str(), list.2) == (archive, version, content.len());
        lists.iter().find(is_same).map(|list| Arc::clone(&list.3))
    };
    let found = known(&LISTS.lock().unwrap_or_else(PoisonError::into_inner));
    let files = match found {
        Some(files) => files,
        None => {
            let files = Arc::new(list(archive, content)?);
            let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
            lists.push_back((archive.to_path_buf(), version.to_owned(), content.len(), Arc::clone(&files)));
            if lists.len() > MAX_LISTS {
                lists.pop_front();
            }
            files
        }
    };
    let (start, len) = files.get(name).copied().ok_or_else(|| {
        let message = format!("the archive {} has no such file ({} others)", archive.display(), files.len());
        Error::Media { path: archive.join(name), message }
    })?;
    if len == 0 {
        return Err(Error::Media { path: archive.join(name), message: "the file is empty".into() });
    }
    Ok((start, len))
}

/// Reads the headers of an archive.
fn list(archive: &Path, content: &Arc<dyn ReadAt>) -> Result<Files> {
    let failed = |message: String| Error::Media { path: archive.to_path_buf(), message };
    if content.read_vec(0, 2)? == [0x1f, 0x8b] {
        return Err(failed("the archive is compressed: decompress it with gunzip".into()));
    }
    let mut failure = None;
    let reader = ArchiveReader { content, position: 0, failure: &mut failure };
    let read = || -> std::io::Result<Files> {
        let mut files = Files::new();
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(files)
    };
    let files = read();
    match (files, failure) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(failed(format!("not a tar archive, or damaged: {error}"))),
        (Ok(files), None) => match files.values().find(|(start, len)| start.saturating_add(*len) > content.len()) {
            Some(_) => Err(failed("the archive is truncated".into())),
            None => Ok(files),
        },
    }
}

/// Reads a file from the beginning to the end and keeps the error of the file, which names it.
struct ArchiveReader<'a> {
    content: &'a Arc<dyn ReadAt>,
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
