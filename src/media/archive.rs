//! Files in tar archives, such as the shards of WebDataset, without unpacking them.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::archives::members;
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
            let members = members(archive, content.as_ref())?.into_iter();
            let files: Arc<Files> = Arc::new(members.map(|file| (file.name, (file.start, file.len))).collect());
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
