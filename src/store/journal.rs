//! Clips that are extracted but not yet in a store: append-only, so that a kill at any moment loses only the last record.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::layout::{Payload, Provenance};
use super::{ClipRows, Failure, Row, Values};
use crate::error::{Error, Result};

/// The first bytes of a journal.
const MAGIC: &[u8; 8] = b"kinojnl1";
/// A record longer than this is damage, not data.
const LONGEST_RECORD: u64 = 1 << 36;
/// How often records are made safe against a power cut, at the most.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// One record. On disk: length of the body (u64, little endian), body, CRC-32 of the body (u32). The body is the
/// length of the JSON (u32), the JSON of this, and for clips the values as little-endian numbers.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// The first record.
    Begin { payload: Payload, provenance: Provenance },
    /// A clip with its values.
    Clip(ClipHead),
    /// A clip that failed.
    Failure(Failure),
    /// More seconds of extraction.
    Seconds(f64),
    /// Another provider went on.
    Provider(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ClipHead {
    id: String,
    path: String,
    frame_count: u64,
    fps: f64,
    duration_seconds: f64,
    rows: Vec<Row>,
    /// Descriptors of each row; none for features.
    counts: Option<Vec<u32>>,
}

/// `NAME.h5.partial`: what was extracted so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: BufWriter<File>,
    end: u64,
    payload: Payload,
    provenance: Provenance,
    clips: HashMap<(String, String), u64>,
    failures: HashMap<String, Failure>,
    synced: Instant,
}

impl Journal {
    /// `NAME.h5.partial` for `NAME.h5`.
    pub fn path_for(store: &Path) -> PathBuf {
        let mut name = store.as_os_str().to_owned();
        name.push(".partial");
        PathBuf::from(name)
    }

    /// Begins the journal of `store`, or goes on with the one that an interrupted run left, cut back to its last whole
    /// record.
    ///
    /// # Errors
    /// The file cannot be made, another process works on it, or it was made differently than `wanted`.
    pub fn open(store: &Path, payload: Payload, wanted: &Provenance) -> Result<Self> {
        let path = Self::path_for(store);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(Error::io(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Store { path, message: "another process is extracting into it".into() });
            }
            // Some network file systems cannot lock: then nobody is kept out.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let found = scan(&mut file, &path)?;
        let mut journal = Self {
            file: BufWriter::new(file),
            end: found.end,
            payload,
            provenance: wanted.clone(),
            clips: found.clips,
            failures: found.failures,
            synced: Instant::now(),
            path,
        };
        journal.file.get_ref().set_len(found.end).map_err(Error::io(&journal.path))?;
        journal.file.seek(SeekFrom::Start(found.end)).map_err(Error::io(&journal.path))?;
        match found.begin {
            Some((had, provenance)) => {
                if had != payload {
                    let message = format!("it holds {had:?}, not {payload:?}; remove it to start over");
                    return Err(Error::Store { path: journal.path, message });
                }
                provenance.refuse_if_different(&journal.path, wanted)?;
                journal.provenance = provenance;
                if journal.provenance.provider != wanted.provider {
                    journal.provenance.add_provider(&wanted.provider);
                    journal.append(&Record::Provider(wanted.provider.clone()), &[])?;
                }
                journal.provenance.manifest_sha256 = wanted.manifest_sha256.clone();
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

    /// How the clips are made.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Whether it has the rows of this clip.
    pub fn has(&self, id: &str, path: &str) -> bool {
        self.clips.contains_key(&(id.to_string(), path.to_string()))
    }

    /// The failure of this clip, where it failed.
    pub fn failure(&self, id: &str) -> Option<&Failure> {
        self.failures.get(id)
    }

    /// Appends a clip.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn push(&mut self, clip: &ClipRows) -> Result<()> {
        let (counts, values) = match &clip.values {
            Values::Features(values) => (None, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
            Values::Descriptors { counts, values } => (Some(counts.clone()), values.iter().copied().collect()),
        };
        let head = ClipHead {
            id: clip.id.clone(),
            path: clip.path.clone(),
            frame_count: clip.frame_count,
            fps: clip.fps,
            duration_seconds: clip.duration_seconds,
            rows: clip.rows.clone(),
            counts,
        };
        self.failures.remove(&clip.id);
        let position = self.end;
        self.append(&Record::Clip(head), &values)?;
        self.clips.insert((clip.id.clone(), clip.path.clone()), position);
        Ok(())
    }

    /// Appends a clip that failed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn push_failure(&mut self, failure: Failure) -> Result<()> {
        let id = failure.id.clone();
        let record = Record::Failure(failure.clone());
        self.append(&record, &[])?;
        self.failures.insert(id, failure);
        Ok(())
    }

    /// Adds to the seconds of extraction and hands everything to the operating system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn checkpoint(&mut self, seconds: f64) -> Result<()> {
        self.provenance.extract_seconds += seconds;
        self.append(&Record::Seconds(seconds), &[])?;
        self.flush()
    }

    /// Reads a clip back.
    ///
    /// # Errors
    /// The file cannot be read, or the record is damaged.
    pub fn read(&mut self, id: &str, path: &str) -> Result<ClipRows> {
        self.flush()?;
        let wrong = |message: &str| Error::Store { path: self.path.clone(), message: message.into() };
        let position = *self
            .clips
            .get(&(id.to_string(), path.to_string()))
            .ok_or_else(|| wrong(&format!("it does not hold clip {id}")))?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(position)).map_err(Error::io(&self.path))?;
        let body = read_body(file, u64::MAX).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.end)).map_err(Error::io(&self.path))?;
        match body.and_then(|body| parse(&body)) {
            Some((Record::Clip(head), values)) => {
                clip_rows(head, &values, self.payload).ok_or_else(|| wrong("damaged: a clip has too few numbers"))
            }
            _ => Err(wrong("damaged: a record that was whole no longer is")),
        }
    }

    /// Removes the journal: the store has it all.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(Error::io(&self.path))
    }

    fn append(&mut self, record: &Record, values: &[u8]) -> Result<()> {
        let json = serde_json::to_vec(record).expect("a record is plain data");
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

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))?;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.file.get_ref().sync_data().map_err(Error::io(&self.path))?;
            self.synced = Instant::now();
        }
        Ok(())
    }
}

/// What a journal holds up to its last whole record.
#[derive(Default)]
struct Found {
    begin: Option<(Payload, Provenance)>,
    clips: HashMap<(String, String), u64>,
    failures: HashMap<String, Failure>,
    end: u64,
}

fn scan(file: &mut File, path: &Path) -> Result<Found> {
    let size = file.metadata().map_err(Error::io(path))?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut found = Found::default();
    let mut magic = Vec::new();
    (&mut reader).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(Error::io(path))?;
    if magic != MAGIC {
        // A run killed at its very beginning may have left the first bytes only.
        if MAGIC.starts_with(&magic) {
            return Ok(found);
        }
        let message = "not a partial store of kinoprobe: move it away to start over".into();
        return Err(Error::Store { path: path.to_path_buf(), message });
    }
    let mut end = MAGIC.len() as u64;
    while let Some(body) = read_body(&mut reader, size - end).map_err(Error::io(path))? {
        match parse(&body) {
            Some((Record::Begin { payload, provenance }, _)) => found.begin = Some((payload, provenance)),
            Some((Record::Clip(head), _)) => {
                found.failures.remove(&head.id);
                found.clips.insert((head.id, head.path), end);
            }
            Some((Record::Failure(failure), _)) => {
                found.failures.insert(failure.id.clone(), failure);
            }
            Some((Record::Seconds(seconds), _)) => {
                if let Some((_, provenance)) = &mut found.begin {
                    provenance.extract_seconds += seconds;
                }
            }
            Some((Record::Provider(provider), _)) => {
                if let Some((_, provenance)) = &mut found.begin {
                    provenance.add_provider(&provider);
                }
            }
            None => break,
        }
        end += 8 + body.len() as u64 + 4;
    }
    found.end = if found.begin.is_some() { end } else { 0 };
    Ok(found)
}

/// The next record's body, or nothing where it is cut off or its checksum is wrong.
fn read_body(reader: &mut impl Read, available: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut word = [0; 8];
    let mut read = |buffer: &mut [u8]| match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    if !read(&mut word)? {
        return Ok(None);
    }
    let length = u64::from_le_bytes(word);
    if length > LONGEST_RECORD || length.saturating_add(12) > available {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    let mut checksum = [0; 4];
    if !read(&mut body)? || !read(&mut checksum)? || crc32fast::hash(&body) != u32::from_le_bytes(checksum) {
        return Ok(None);
    }
    Ok(Some(body))
}

/// A body's record and values.
fn parse(body: &[u8]) -> Option<(Record, Vec<u8>)> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let (json, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((serde_json::from_slice(json).ok()?, values.to_vec()))
}

fn clip_rows(head: ClipHead, values: &[u8], payload: Payload) -> Option<ClipRows> {
    let dim = payload.dim();
    let values = match (payload, head.counts) {
        (Payload::Features { .. }, _) => {
            let numbers = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Values::Features(Array2::from_shape_vec((head.rows.len(), dim), numbers).ok()?)
        }
        (Payload::Descriptors { .. }, Some(counts)) => {
            let total = counts.iter().map(|&n| n as usize).sum();
            Values::Descriptors { counts, values: Array2::from_shape_vec((total, dim), values.to_vec()).ok()? }
        }
        (Payload::Descriptors { .. }, None) => return None,
    };
    Some(ClipRows {
        id: head.id,
        path: head.path,
        frame_count: head.frame_count,
        fps: head.fps,
        duration_seconds: head.duration_seconds,
        rows: head.rows,
        values,
    })
}
