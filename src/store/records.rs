//! Append-only files of checksummed records. If the process is killed, only the last record is lost.
//!
//! A file starts with 8 magic bytes. Each record consists of the length of its body (u64, little endian), the body, and the
//! CRC-32 of the body (u32). The body consists of the length of the JSON (u32), JSON, and bytes.

use std::fs::{File, TryLockError};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Maximum length of a record's body in bytes.
const MAX_BODY_LEN: u64 = 1 << 36;
/// Minimum time between two `fsync`s, which protect the records from a power failure.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// A file of records, locked for this process.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    file: BufWriter<File>,
    magic: &'static [u8; 8],
    /// Length of the valid part in bytes.
    end: u64,
    last_sync: Instant,
}

/// A record and its position.
#[derive(Debug)]
pub struct Positioned<R> {
    /// Position in the file of the record's length.
    pub position: u64,
    /// Position in the file of the bytes that follow the JSON.
    pub bytes: u64,
    /// The JSON.
    pub record: R,
}

impl RecordFile {
    /// Opens or creates a file, and passes its records up to the first one that is damaged or incomplete to `visit`. The file is not
    /// changed before [`RecordFile::begin`]. `what` is the kind of file in error messages.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created, starts with other magic bytes, or is locked by another process.
    pub fn open<R: DeserializeOwned>(
        path: &Path,
        magic: &'static [u8; 8],
        what: &str,
        mut visit: impl FnMut(Positioned<R>),
    ) -> Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(Error::io(path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let message = "another process is writing to this file".into();
                return Err(Error::Store { path: path.to_path_buf(), message });
            }
            // Some network file systems do not support locks; the file is not protected there.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let end = scan(&mut file, path, magic, what, &mut visit)?;
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file), magic, end, last_sync: Instant::now() })
    }

    /// Forgets all records: [`RecordFile::begin`] will remove them.
    pub fn forget_all(&mut self) {
        self.end = 0;
    }

    /// Removes everything after the last valid record, and prepares for appending.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn begin(&mut self) -> Result<()> {
        self.file.get_ref().set_len(self.end).map_err(Error::io(&self.path))?;
        self.file.seek(SeekFrom::Start(self.end)).map_err(Error::io(&self.path))?;
        if self.end == 0 {
            self.file.write_all(self.magic).map_err(Error::io(&self.path))?;
            self.end = self.magic.len() as u64;
        }
        Ok(())
    }

    /// Returns the length of the valid part in bytes, and thus the position of the next record.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends a record to the buffer. Returns the position in the file of `bytes`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn append(&mut self, record: &impl Serialize, bytes: &[u8]) -> Result<u64> {
        let json = serde_json::to_vec(record).expect("a record serializes to JSON");
        let mut hash = crc32fast::Hasher::new();
        let json_length = (json.len() as u32).to_le_bytes();
        for part in [&json_length[..], &json, bytes] {
            hash.update(part);
        }
        let length = (json_length.len() + json.len() + bytes.len()) as u64;
        let start = self.end + 8 + 4 + json.len() as u64;
        let parts = [&length.to_le_bytes()[..], &json_length, &json, bytes, &hash.finalize().to_le_bytes()];
        for part in parts {
            self.file.write_all(part).map_err(Error::io(&self.path))?;
            self.end += part.len() as u64;
        }
        Ok(start)
    }

    /// Writes the buffer, and syncs the file if [`SYNC_INTERVAL`] has passed since the last sync.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))?;
        if self.last_sync.elapsed() >= SYNC_INTERVAL {
            self.file.get_ref().sync_data().map_err(Error::io(&self.path))?;
            self.last_sync = Instant::now();
        }
        Ok(())
    }

    /// Reads the record at `position` and its bytes; `None` if it is damaged.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written or read.
    pub fn read<R: DeserializeOwned>(&mut self, position: u64) -> Result<Option<(R, Vec<u8>)>> {
        self.flush()?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(position)).map_err(Error::io(&self.path))?;
        let body = read_body(file, self.end.saturating_sub(position)).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.end)).map_err(Error::io(&self.path))?;
        let Some(mut body) = body else { return Ok(None) };
        let Some((record, start)) = parse(&body) else { return Ok(None) };
        Ok(Some((record, body.split_off(start))))
    }
}

/// Passes the records of a file that another process may be writing to `visit`, up to the first one that is incomplete; none if there is
/// no file. The bytes that follow the JSON, and the checksums, are not read.
///
/// # Errors
/// Returns an error if the file cannot be read, or starts with other magic bytes.
pub fn peek<R: DeserializeOwned>(path: &Path, magic: &[u8; 8], what: &str, mut visit: impl FnMut(R)) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let size = file.metadata().map_err(Error::io(path))?.len();
    let mut reader = BufReader::new(file);
    if !check_magic(&mut reader, path, magic, what)? {
        return Ok(());
    }
    let mut end = magic.len() as u64;
    let mut lengths = [0; 12];
    while size - end > lengths.len() as u64 {
        if !read_complete(&mut reader, &mut lengths).map_err(Error::io(path))? {
            break;
        }
        let (length, json) = lengths.split_first_chunk::<8>().expect("twelve bytes");
        let length = u64::from_le_bytes(*length);
        let json = u32::from_le_bytes(json.try_into().expect("four bytes"));
        if length > MAX_BODY_LEN || u64::from(json) + 4 > length || length + 8 + 4 > size - end {
            break;
        }
        let mut text = vec![0; json as usize];
        // The file is shorter than before if its process has been started again.
        if !read_complete(&mut reader, &mut text).map_err(Error::io(path))? {
            break;
        }
        let Ok(record) = serde_json::from_slice(&text) else { break };
        visit(record);
        reader.seek_relative((length - u64::from(json)) as i64).map_err(Error::io(path))?;
        end += 8 + length + 4;
    }
    Ok(())
}

/// Returns `false` if the file has only the first of the magic bytes: a process may have been killed when it wrote them.
fn check_magic(reader: &mut impl Read, path: &Path, magic: &[u8; 8], what: &str) -> Result<bool> {
    let mut found = Vec::new();
    reader.take(magic.len() as u64).read_to_end(&mut found).map_err(Error::io(path))?;
    if found != magic && !magic.starts_with(&found) {
        let message = format!("not a {what} of kinoprobe: move it away to start over");
        return Err(Error::Store { path: path.to_path_buf(), message });
    }
    Ok(found == magic)
}

/// Passes the valid records to `visit`. Returns the end of the last one, or 0 if the file has no complete magic bytes.
fn scan<R: DeserializeOwned>(
    file: &mut File,
    path: &Path,
    magic: &[u8; 8],
    what: &str,
    visit: &mut impl FnMut(Positioned<R>),
) -> Result<u64> {
    let size = file.metadata().map_err(Error::io(path))?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    if !check_magic(&mut reader, path, magic, what)? {
        return Ok(0);
    }
    let mut end = magic.len() as u64;
    while let Some(body) = read_body(&mut reader, size - end).map_err(Error::io(path))? {
        let Some((record, start)) = parse(&body) else { break };
        visit(Positioned { position: end, bytes: end + 8 + start as u64, record });
        end += 8 + body.len() as u64 + 4;
    }
    Ok(end)
}

/// Reads the body of the next record. `available` is the number of bytes up to the end of the file. Returns `None` if the
/// record is incomplete or its checksum is wrong.
fn read_body(reader: &mut impl Read, available: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    if !read_complete(reader, &mut length)? {
        return Ok(None);
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_BODY_LEN || length + 8 + 4 > available {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    let mut checksum = [0; 4];
    let complete = read_complete(reader, &mut body)? && read_complete(reader, &mut checksum)?;
    if !complete || crc32fast::hash(&body) != u32::from_le_bytes(checksum) {
        return Ok(None);
    }
    Ok(Some(body))
}

/// Fills the buffer. Returns `false` if the file ends before.
fn read_complete(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Parses the JSON of a body. Returns it with the position in the body of the bytes that follow.
fn parse<R: DeserializeOwned>(body: &[u8]) -> Option<(R, usize)> {
    let (json_len, rest) = body.split_first_chunk::<4>()?;
    let json_len = u32::from_le_bytes(*json_len) as usize;
    let (json, _) = rest.split_at_checked(json_len)?;
    Some((serde_json::from_slice(json).ok()?, 4 + json_len))
}
