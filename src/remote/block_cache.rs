//! A cache of blocks of remote files in a directory, which several processes may share.

use std::fs::{File, FileTimes};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Share of the limit that is left after old blocks are removed.
const KEPT: f64 = 0.9;
/// Share of the limit that a process writes before it counts the files again, which other processes may have added.
const COUNTED: f64 = 0.05;
/// Hexadecimal digits of a key: 128 bits.
const KEY_LEN: usize = 32;
/// Bytes of the checksum (CRC-32C) at the end of each file.
const CHECKSUM: usize = 4;

/// Files `KEY-BLOCK`, which are written under another name and renamed. The ones that were not used for the longest time are removed
/// if all of them exceed a limit.
#[derive(Debug)]
pub(super) struct BlockCache {
    directory: PathBuf,
    limit: u64,
    /// Bytes that this process may write before it counts the files again.
    until_count: AtomicI64,
    trimming: Mutex<()>,
}

impl BlockCache {
    /// Creates the directory, which only its owner may read.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be created or read.
    pub(super) fn new(directory: PathBuf, limit: u64) -> Result<Self> {
        let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        created.map_err(Error::io(&directory))?;
        let cache = Self { directory, limit, until_count: AtomicI64::new(0), trimming: Mutex::new(()) };
        cache.trim()?;
        Ok(cache)
    }

    pub(super) fn directory(&self) -> &PathBuf {
        &self.directory
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the name of a version of a file in the cache.
    pub(super) fn key(url: &str, version: &str) -> String {
        let hash = Sha256::new().chain_update(url).chain_update([0]).chain_update(version).finalize();
        format!("{hash:x}")[..KEY_LEN].to_owned()
    }

    /// Returns a block of this length; `None` if it is not in the cache, or is damaged.
    pub(super) fn read(&self, key: &str, block: u64, len: usize) -> Option<Vec<u8>> {
        let path = self.path(key, block);
        let mut bytes = std::fs::read(&path).ok()?;
        let checksum = bytes.split_off(bytes.len().checked_sub(CHECKSUM)?);
        if bytes.len() != len || checksum != crc32c::crc32c(&bytes).to_le_bytes() {
            return None;
        }
        // So that blocks in use are removed last. Without the permission to do so, they are removed by age.
        let used_now = FileTimes::new().set_modified(SystemTime::now());
        let _ = File::options().append(true).open(&path).and_then(|file| file.set_times(used_now));
        Some(bytes)
    }

    /// Adds a block. A cache that cannot be written costs time only, so errors are ignored.
    pub(super) fn write(&self, key: &str, block: u64, bytes: &[u8]) {
        let written = tempfile::NamedTempFile::new_in(&self.directory).and_then(|mut file| {
            file.write_all(bytes)?;
            file.write_all(&crc32c::crc32c(bytes).to_le_bytes())?;
            file.persist(self.path(key, block)).map_err(|error| error.error)
        });
        if written.is_ok() {
            let len = bytes.len() as i64;
            if self.until_count.fetch_sub(len, Ordering::Relaxed) < len {
                let _ = self.trim();
            }
        }
    }

    fn path(&self, key: &str, block: u64) -> PathBuf {
        self.directory.join(format!("{key}-{block}"))
    }

    /// Counts the files. If they exceed the limit, removes the ones that were not used for the longest time. Files that other processes have
    /// open stay readable for them.
    fn trim(&self) -> Result<()> {
        let Ok(_guard) = self.trimming.try_lock() else { return Ok(()) };
        let mut files = self.files()?;
        files.sort_by_key(|file| file.modified);
        let mut used: u64 = files.iter().map(|file| file.bytes).sum();
        let target = if used > self.limit { (self.limit as f64 * KEPT) as u64 } else { self.limit };
        for file in files {
            if used <= target {
                break;
            }
            if std::fs::remove_file(&file.path).is_ok() {
                used -= file.bytes;
            }
        }
        let until_limit = self.limit.saturating_sub(used) as f64;
        self.until_count.store(until_limit.min(self.limit as f64 * COUNTED) as i64, Ordering::Relaxed);
        Ok(())
    }

    /// Lists the blocks, and files of processes that were killed.
    fn files(&self) -> Result<Vec<CachedFile>> {
        let entries = std::fs::read_dir(&self.directory).map_err(Error::io(&self.directory))?;
        // Other processes may remove files at the same time.
        let files = entries.flatten().filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            Some(CachedFile { path: entry.path(), bytes: metadata.len(), modified })
        });
        Ok(files.collect())
    }
}

struct CachedFile {
    path: PathBuf,
    bytes: u64,
    modified: (i64, i64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_blocks_are_not_returned() {
        let directory = tempfile::tempdir().unwrap();
        let cache = BlockCache::new(directory.path().join("new/cache"), 1 << 20).unwrap();
        let key = BlockCache::key("https://host/a", "1");
        assert_ne!(key, BlockCache::key("https://host/a", "2"));
        assert_eq!(cache.read(&key, 0, 3), None);
        cache.write(&key, 0, b"abc");
        assert_eq!(cache.read(&key, 0, 3).unwrap(), b"abc");
        assert_eq!(cache.read(&key, 0, 4), None, "another length");
        assert_eq!(cache.read(&key, 1, 3), None, "another block");
        let path = cache.path(&key, 0);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(cache.read(&key, 0, 3), None, "a bit has changed");
    }

    #[test]
    fn the_oldest_blocks_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = BlockCache::new(directory.path().into(), 10_000).unwrap();
        let age = |block: u64, seconds: u64| {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = File::options().append(true).open(cache.path("key", block)).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        };
        for block in 0..9 {
            cache.write("key", block, &[block as u8; 1000]);
            age(block, 100 + block);
        }
        // A block that is read becomes the newest one.
        assert!(cache.read("key", 0, 1000).is_some());
        for block in 9..12 {
            cache.write("key", block, &[block as u8; 1000]);
        }
        let kept: Vec<u64> = (0..12).filter(|&block| cache.read("key", block, 1000).is_some()).collect();
        assert!(kept.len() <= 10 && kept.contains(&0) && kept.contains(&11) && !kept.contains(&1), "{kept:?}");
        // Another process adds blocks, which this one counts.
        let other = BlockCache::new(directory.path().into(), 10_000).unwrap();
        for block in 12..40 {
            [&cache, &other][block as usize % 2].write("key", block, &[0; 1000]);
        }
        let bytes: u64 = cache.files().unwrap().iter().map(|file| file.bytes).sum();
        assert!(bytes <= 10_000 + 2 * 1_004, "{bytes}");
    }
}
