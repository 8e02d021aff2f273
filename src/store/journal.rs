//! The journal: an append-only file of extracted clips that are not in a store yet. If the process is killed, only the last
//! record is lost.
//!
//! A journal starts with 8 magic bytes. Each record consists of the length of its body (u64, little endian), the body, and
//! the CRC-32 of the body (u32). The body consists of the length of the JSON (u32), the JSON of a [`Record`], and for clips the
//! values as little-endian numbers.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::clip::{ClipKey, ClipRows, Failure, RowSource, Values};
use super::provenance::{Payload, Provenance};
use crate::error::{Error, Result};

/// The magic bytes.
const MAGIC: &[u8; 8] = b"kinojnl1";
/// Maximum length of a record's body in bytes.
const MAX_BODY_LEN: u64 = 1 << 36;
/// Bytes of a record besides its body: length and checksum.
const RECORD_OVERHEAD: u64 = 8 + 4;
/// Minimum time between two `fsync`s, which protect the records from a power failure.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// The JSON part of a record.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// The first record of a journal.
    Begin { payload: Payload, provenance: Provenance },
    /// A clip, followed by its values.
    Clip(ClipHeader),
    /// A clip that failed.
    Failure(Failure),
    /// Duration of extraction since the previous such record, in seconds.
    Seconds(f64),
    /// An execution provider that continued the extraction.
    Provider(String),
}

/// A clip without its values.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ClipHeader {
    id: String,
    path: String,
    #[serde(default)]
    start: Option<f64>,
    #[serde(default)]
    end: Option<f64>,
    frame_count: u64,
    fps: f64,
    duration_seconds: f64,
    #[serde(default)]
    fully_decoded: bool,
    rows: Vec<RowSource>,
    /// Number of descriptors of each row; `None` for features.
    counts: Option<Vec<u32>>,
}

/// The journal `NAME.h5.partial` of a store `NAME.h5`.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: BufWriter<File>,
    /// Length of the valid part in bytes.
    end: u64,
    payload: Payload,
    provenance: Provenance,
    /// Position of each clip's record.
    clips: HashMap<ClipKey, u64>,
    /// Failures by clip id.
    failures: HashMap<String, Failure>,
    last_sync: Instant,
}

impl Journal {
    /// Returns the path of a store's journal.
    pub fn path_for(store: &Path) -> PathBuf {
        let mut name = store.as_os_str().to_owned();
        name.push(".partial");
        PathBuf::from(name)
    }

    /// Opens the journal of a store, or creates it. A damaged or incomplete record and everything after it are removed.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created, is not a journal, is locked by another process, or was made with other
    /// settings than those in `provenance`.
    pub fn open(store: &Path, payload: Payload, provenance: &Provenance) -> Result<Self> {
        let path = Self::path_for(store);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(Error::io(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Store { path, message: "another process is writing to this file".into() });
            }
            // Some network file systems do not support locks; the file is not protected there.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let contents = JournalContents::read(&mut file, &path)?;
        // Before the file is truncated.
        if let Some((stored_payload, stored)) = &contents.begin {
            if *stored_payload != payload {
                let message = format!("contains {stored_payload}, not {payload}; remove the file to start over");
                return Err(Error::Store { path, message });
            }
            stored.check_compatible(&path, provenance)?;
        }
        let mut journal = Self {
            file: BufWriter::new(file),
            end: contents.end,
            payload,
            provenance: provenance.clone(),
            clips: contents.clips,
            failures: contents.failures,
            last_sync: Instant::now(),
            path,
        };
        journal.file.get_ref().set_len(contents.end).map_err(Error::io(&journal.path))?;
        journal.file.seek(SeekFrom::Start(contents.end)).map_err(Error::io(&journal.path))?;
        match contents.begin {
            Some((_, stored)) => {
                journal.provenance = stored;
                if journal.provenance.provider != provenance.provider {
                    journal.provenance.add_provider(&provenance.provider);
                    journal.append(&Record::Provider(provenance.provider.clone()), &[])?;
                }
                journal.provenance.manifest_sha256 = provenance.manifest_sha256.clone();
            }
            None => {
                journal.provenance.stamp();
                journal.file.write_all(MAGIC).map_err(Error::io(&journal.path))?;
                journal.end = MAGIC.len() as u64;
                let begin = Record::Begin { payload, provenance: journal.provenance.clone() };
                journal.append(&begin, &[])?;
            }
        }
        journal.flush()?;
        Ok(journal)
    }

    /// Returns the provenance of the clips.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns `true` if the journal has the rows of this clip.
    pub fn contains(&self, clip: &ClipKey) -> bool {
        self.clips.contains_key(clip)
    }

    /// Returns the clips, in the order in which they were appended.
    pub fn clips(&self) -> Vec<&ClipKey> {
        let mut clips: Vec<_> = self.clips.iter().collect();
        clips.sort_unstable_by_key(|(_, position)| **position);
        clips.into_iter().map(|(clip, _)| clip).collect()
    }

    /// Returns the failures, sorted by id.
    pub fn failures(&self) -> Vec<&Failure> {
        let mut failures: Vec<_> = self.failures.values().collect();
        failures.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        failures
    }

    /// Returns the failure of this clip, if it failed.
    pub fn failure(&self, id: &str) -> Option<&Failure> {
        self.failures.get(id)
    }

    /// Appends a clip.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn push(&mut self, clip: &ClipRows) -> Result<()> {
        let (counts, values) = match &clip.values {
            Values::Features(values) => (None, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
            Values::Descriptors { counts, values } => (Some(counts.clone()), values.iter().copied().collect()),
        };
        let header = ClipHeader {
            id: clip.id.clone(),
            path: clip.path.clone(),
            start: clip.start,
            end: clip.end,
            frame_count: clip.frame_count,
            fps: clip.fps,
            duration_seconds: clip.duration_seconds,
            fully_decoded: clip.fully_decoded,
            rows: clip.rows.clone(),
            counts,
        };
        self.failures.remove(&clip.id);
        let position = self.end;
        self.append(&Record::Clip(header), &values)?;
        self.clips.insert(clip.key(), position);
        Ok(())
    }

    /// Appends a failure.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn push_failure(&mut self, failure: Failure) -> Result<()> {
        let id = failure.id.clone();
        let record = Record::Failure(failure.clone());
        self.append(&record, &[])?;
        self.failures.insert(id, failure);
        Ok(())
    }

    /// Adds to the duration of extraction and writes all buffered records.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn checkpoint(&mut self, seconds: f64) -> Result<()> {
        self.provenance.extract_seconds += seconds;
        self.append(&Record::Seconds(seconds), &[])?;
        self.flush()
    }

    /// Reads a clip.
    ///
    /// # Errors
    /// Returns an error if the journal does not contain the clip, the file cannot be read or the record is damaged.
    pub fn read(&mut self, clip: &ClipKey) -> Result<ClipRows> {
        self.flush()?;
        let error = |message: &str| Error::Store { path: self.path.clone(), message: message.into() };
        let position = *self.clips.get(clip).ok_or_else(|| error(&format!("clip {} is missing", clip.id)))?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(position)).map_err(Error::io(&self.path))?;
        let body = read_body(file, self.end.saturating_sub(position)).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.end)).map_err(Error::io(&self.path))?;
        match body.as_deref().and_then(parse) {
            Some((Record::Clip(header), values)) => clip_rows(header, values, self.payload)
                .ok_or_else(|| error("damaged: a clip has a wrong number of values")),
            _ => Err(error("damaged while it was in use")),
        }
    }

    /// Removes the file, after the store is written.
    ///
    /// # Errors
    /// Returns an error if the file cannot be removed.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(Error::io(&self.path))
    }

    /// Appends a record to the buffer.
    fn append(&mut self, record: &Record, values: &[u8]) -> Result<()> {
        let json = serde_json::to_vec(record).expect("a record serializes to JSON");
        let mut hash = crc32fast::Hasher::new();
        let json_length = (json.len() as u32).to_le_bytes();
        for part in [&json_length[..], &json, values] {
            hash.update(part);
        }
        let length = (json_length.len() + json.len() + values.len()) as u64;
        let parts = [&length.to_le_bytes()[..], &json_length, &json, values, &hash.finalize().to_le_bytes()];
        for part in parts {
            self.file.write_all(part).map_err(Error::io(&self.path))?;
            self.end += part.len() as u64;
        }
        Ok(())
    }

    /// Writes the buffer, and syncs the file if [`SYNC_INTERVAL`] has passed since the last sync.
    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))?;
        if self.last_sync.elapsed() >= SYNC_INTERVAL {
            self.file.get_ref().sync_data().map_err(Error::io(&self.path))?;
            self.last_sync = Instant::now();
        }
        Ok(())
    }
}

/// Contents of a journal up to its last valid record.
#[derive(Default)]
struct JournalContents {
    begin: Option<(Payload, Provenance)>,
    clips: HashMap<ClipKey, u64>,
    failures: HashMap<String, Failure>,
    /// End of the last valid record; 0 if there is no valid [`Record::Begin`].
    end: u64,
}

impl JournalContents {
    fn read(file: &mut File, path: &Path) -> Result<Self> {
        let size = file.metadata().map_err(Error::io(path))?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut magic = Vec::new();
        (&mut reader).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(Error::io(path))?;
        if magic != MAGIC {
            // A process that was killed at the start may have written only some of the magic bytes.
            if MAGIC.starts_with(&magic) {
                return Ok(Self::default());
            }
            let message = "not a journal of kinoprobe: move it away to start over".into();
            return Err(Error::Store { path: path.to_path_buf(), message });
        }
        let mut contents = Self { end: MAGIC.len() as u64, ..Self::default() };
        while let Some(body) = read_body(&mut reader, size - contents.end).map_err(Error::io(path))? {
            let Some((record, _)) = parse(&body) else { break };
            contents.add(record);
            contents.end += RECORD_OVERHEAD + body.len() as u64;
        }
        if contents.begin.is_none() {
            return Ok(Self::default());
        }
        Ok(contents)
    }

    /// Adds the record at `self.end`.
    fn add(&mut self, record: Record) {
        match record {
            Record::Begin { payload, provenance } => self.begin = Some((payload, provenance)),
            Record::Clip(header) => {
                self.failures.remove(&header.id);
                self.clips.insert(ClipKey::new(&header.id, &header.path, header.start, header.end), self.end);
            }
            Record::Failure(failure) => {
                self.failures.insert(failure.id.clone(), failure);
            }
            Record::Seconds(seconds) => {
                if let Some((_, provenance)) = &mut self.begin {
                    provenance.extract_seconds += seconds;
                }
            }
            Record::Provider(provider) => {
                if let Some((_, provenance)) = &mut self.begin {
                    provenance.add_provider(&provider);
                }
            }
        }
    }
}

/// Reads the body of the next record. `available` is the number of bytes up to the end of the file. Returns `None` if the
/// record is incomplete or its checksum is wrong.
fn read_body(reader: &mut impl Read, available: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut read = |buffer: &mut [u8]| match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    let mut length = [0; 8];
    if !read(&mut length)? {
        return Ok(None);
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_BODY_LEN || length + RECORD_OVERHEAD > available {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    let mut checksum = [0; 4];
    if !read(&mut body)? || !read(&mut checksum)? || crc32fast::hash(&body) != u32::from_le_bytes(checksum) {
        return Ok(None);
    }
    Ok(Some(body))
}

/// Splits a body into its record and its values.
fn parse(body: &[u8]) -> Option<(Record, &[u8])> {
    let (json_len, rest) = body.split_first_chunk::<4>()?;
    let (json, values) = rest.split_at_checked(u32::from_le_bytes(*json_len) as usize)?;
    Some((serde_json::from_slice(json).ok()?, values))
}

/// Returns the clip, or `None` if the number of values does not match the number of rows.
fn clip_rows(header: ClipHeader, values: &[u8], payload: Payload) -> Option<ClipRows> {
    let (rows, dim) = (header.rows.len(), payload.dim());
    let values = match (payload, header.counts) {
        (Payload::Features { .. }, None) => {
            let (values, []) = values.as_chunks::<4>() else { return None };
            let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            Values::Features(Array2::from_shape_vec((rows, dim), values).ok()?)
        }
        (Payload::Descriptors { .. }, Some(counts)) if counts.len() == rows => {
            let total = counts.iter().map(|&count| count as usize).sum();
            Values::Descriptors { counts, values: Array2::from_shape_vec((total, dim), values.to_vec()).ok()? }
        }
        _ => return None,
    };
    (rows > 0).then_some(ClipRows {
        id: header.id,
        path: header.path,
        start: header.start,
        end: header.end,
        frame_count: header.frame_count,
        fps: header.fps,
        duration_seconds: header.duration_seconds,
        fully_decoded: header.fully_decoded,
        rows: header.rows,
        values,
    })
}
