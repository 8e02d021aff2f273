//! Reading of one remote file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::block_cache::BlockCache;
use super::client::{Client, Opened, Version};
use super::url::RemoteUrl;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::read_at::{LocalFile, ReadAt};

/// Bytes per block.
const BLOCK: u64 = 256 << 10;
/// Maximum number of blocks per request, when a file is read in order.
const MAX_BLOCKS: u64 = 32;
/// Number of blocks of an open file in memory: two of the longest requests.
const BLOCKS_IN_MEMORY: usize = 2 * MAX_BLOCKS as usize;

/// Default of `KINOPROBE_REMOTE_CACHE_GB`.
const DEFAULT_CACHE_GB: f64 = 10.0;
/// Default of `KINOPROBE_REMOTE_RETRIES`.
const DEFAULT_RETRIES: usize = 10;

/// What the remote files of a process share.
struct Shared {
    client: Client,
    cache: BlockCache,
}

static CANCELLATION: OnceLock<CancellationToken> = OnceLock::new();

/// Sets the token that cancels requests in progress. Later calls have no effect, nor do calls after the first request.
pub fn cancel_with(token: &CancellationToken) {
    let _ = CANCELLATION.set(token.clone());
}

/// Checks the settings in the environment, before the first file is opened.
///
/// # Errors
/// Returns an error if a variable is invalid, or the directory of the cache cannot be used.
pub fn check_settings() -> Result<()> {
    Shared::of_process().map(|_| ())
}

impl Shared {
    /// Returns the settings and connections of this process, made from the environment on the first call.
    ///
    /// # Errors
    /// Returns an error if a variable is invalid, or the directory of the cache cannot be used.
    fn of_process() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::from_environment().map_err(|error| error.to_string()));
        shared.as_ref().map_err(|message| Error::Runtime(message.clone()))
    }

    fn from_environment() -> Result<Self> {
        let directory = variable("KINOPROBE_REMOTE_CACHE").map(PathBuf::from).or_else(default_directory);
        let directory = directory.ok_or_else(|| {
            Error::Runtime("remote files need a directory for their cache: set KINOPROBE_REMOTE_CACHE".into())
        })?;
        let gigabytes: f64 = number("KINOPROBE_REMOTE_CACHE_GB", DEFAULT_CACHE_GB)?;
        let retries = number("KINOPROBE_REMOTE_RETRIES", DEFAULT_RETRIES)?;
        let cancel = CANCELLATION.get().cloned().unwrap_or_default();
        let cache = BlockCache::new(directory, (gigabytes * 1e9) as u64)?;
        Ok(Self { client: Client::new(retries, cancel)?, cache })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr + PartialOrd + Default>(name: &str, default: T) -> Result<T> {
    let Some(value) = variable(name) else { return Ok(default) };
    let number = value.parse().ok().filter(|number| *number >= T::default());
    number.ok_or_else(|| Error::Runtime(format!("{name} must be a number >= 0, not `{value}`")))
}

/// Returns `remote` in the directory for all files that are fetched, or `kinoprobe/remote` in the user's directory for caches.
fn default_directory() -> Option<PathBuf> {
    if let Some(directory) = variable("KINOPROBE_CACHE") {
        return Some(Path::new(&directory).join("remote"));
    }
    let caches = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(Path::new(&variable("HOME")?).join(".cache")));
    Some(caches?.join("kinoprobe/remote"))
}

/// An open remote file.
pub struct RemoteFile {
    content: Content,
    version: String,
}

enum Content {
    /// The server sends parts.
    Parts(Parts),
    /// The server sent the whole file, which has no name on the disk, so that it is removed when it is closed.
    Whole(LocalFile),
}

impl RemoteFile {
    /// Opens a file, with the settings of the environment (see the page on remote files in `docs`).
    ///
    /// # Errors
    /// Returns an error that names the URL, without its signature, if the file cannot be read, does not fit into the cache although
    /// its server does not send parts, or if requests were cancelled.
    pub fn open(url: &RemoteUrl) -> Result<Self> {
        let shared = Shared::of_process()?;
        match shared.client.open(url, BLOCK)? {
            Opened::Parts(version, first) => {
                let name = match (&version.etag, version.modified) {
                    (Some(etag), _) => etag.clone(),
                    (None, 0) => String::new(),
                    (None, seconds) => format!("modified:{seconds}"),
                };
                // Without a version, blocks of an earlier run may be of another file.
                let identity = format!("{name} {}", version.len);
                let key = (!name.is_empty()).then(|| BlockCache::key(url.public(), &identity));
                let parts = Parts { shared, url: url.clone(), version, key, state: Mutex::default() };
                parts.keep(0, &first, &mut parts.lock());
                Ok(Self { content: Content::Parts(parts), version: name })
            }
            Opened::Whole => {
                let (file, sha256) = download(shared, url)?;
                Ok(Self { content: Content::Whole(file), version: format!("sha256:{sha256}") })
            }
        }
    }

    /// Returns what identifies the version of the file: the server's entity tag (ETag), or `sha256:` and the hash of a file that was
    /// read completely, or `modified:` and the time of its last modification in seconds since 1970. Empty if the server tells nothing.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl ReadAt for RemoteFile {
    fn len(&self) -> u64 {
        match &self.content {
            Content::Parts(parts) => parts.version.len,
            Content::Whole(file) => file.len(),
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.content {
            Content::Parts(parts) => parts.read_at(offset, buffer),
            Content::Whole(file) => file.read_at(offset, buffer),
        }
    }
}

/// Downloads a whole file. Returns it with its hash.
fn download(shared: &Shared, url: &RemoteUrl) -> Result<(LocalFile, String)> {
    let directory = shared.cache.directory();
    let begin = |version: &Version| {
        if version.len > shared.cache.limit() {
            let (size, limit) = (version.len as f64 / 1e9, shared.cache.limit() as f64 / 1e9);
            let message = format!(
                "the server does not send parts of files, and all {size:.1} GB exceed the limit of {limit:.1} GB: \
                 increase KINOPROBE_REMOTE_CACHE_GB"
            );
            return Err(Error::Media { path: url.public().into(), message });
        }
        Ok((tempfile::tempfile_in(directory).map_err(Error::io(directory))?, Sha256::new()))
    };
    let (_, (file, hash)) = shared.client.whole(url, begin, |(file, hash), bytes| {
        hash.update(bytes);
        std::io::Write::write_all(file, bytes).map_err(Error::io(directory))
    })?;
    let file = LocalFile::new(Path::new(url.public()), file)?;
    if file.is_empty() {
        return Err(Error::Media { path: url.public().into(), message: "the file is empty".into() });
    }
    Ok((file, format!("{:x}", hash.finalize())))
}

/// A remote file that is read in parts.
struct Parts {
    shared: &'static Shared,
    url: RemoteUrl,
    version: Version,
    /// Name in the cache; `None` if the server does not tell versions apart.
    key: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Blocks in memory by their index, with the time of their last use.
    blocks: BTreeMap<u64, (Bytes, u64)>,
    time: u64,
    /// The block after the last one that was requested, and the number of blocks of that request.
    next: u64,
    requested: u64,
}

impl Parts {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if offset >= self.version.len || buffer.is_empty() {
            return Ok(0);
        }
        let bytes = self.block(offset / BLOCK)?;
        let bytes = &bytes[(offset % BLOCK) as usize..];
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    /// Returns the length of a block.
    fn block_len(&self, block: u64) -> u64 {
        BLOCK.min(self.version.len - block * BLOCK)
    }

    fn block(&self, block: u64) -> Result<Bytes> {
        let state = &mut *self.lock();
        if let Some(bytes) = self.known(block, state) {
            return Ok(bytes);
        }
        // Requests become longer while a file is read in order.
        let wanted = if block == state.next { (2 * state.requested).clamp(1, MAX_BLOCKS) } else { 1 };
        let last = (self.version.len - 1) / BLOCK;
        let mut end = block + 1;
        while end < block + wanted && end <= last && self.known(end, state).is_none() {
            end += 1;
        }
        let bytes =
            self.shared.client.part(&self.url, block * BLOCK..(end * BLOCK).min(self.version.len), &self.version)?;
        (state.next, state.requested) = (end, end - block);
        self.keep(block, &bytes, state);
        Ok(bytes.slice(..self.block_len(block) as usize))
    }

    /// Returns a block from memory or from the cache.
    fn known(&self, block: u64, state: &mut State) -> Option<Bytes> {
        state.time += 1;
        if let Some((bytes, used)) = state.blocks.get_mut(&block) {
            *used = state.time;
            return Some(bytes.clone());
        }
        let bytes = self.shared.cache.read(self.key.as_ref()?, block, self.block_len(block) as usize)?;
        let bytes = Bytes::from(bytes);
        state.insert(block, bytes.clone());
        Some(bytes)
    }

    /// Keeps consecutive blocks.
    fn keep(&self, first: u64, bytes: &Bytes, state: &mut State) {
        for start in (0..bytes.len()).step_by(BLOCK as usize) {
            let (block, end) = (first + start as u64 / BLOCK, bytes.len().min(start + BLOCK as usize));
            // A copy, so that a block does not keep the whole response in memory.
            let bytes = Bytes::copy_from_slice(&bytes[start..end]);
            if let Some(key) = &self.key {
                self.shared.cache.write(key, block, &bytes);
            }
            state.insert(block, bytes);
        }
    }
}

impl State {
    fn insert(&mut self, block: u64, bytes: Bytes) {
        self.time += 1;
        self.blocks.insert(block, (bytes, self.time));
        if self.blocks.len() > BLOCKS_IN_MEMORY
            && let Some(oldest) = self.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(&block, _)| block)
        {
            self.blocks.remove(&oldest);
        }
    }
}
