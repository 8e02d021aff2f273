//! The journal: an append-only file of extracted clips that are not in a store yet. If the process is killed, only the last
//! record is lost.
//!
//! A journal is a [`RecordFile`]: the JSON of each record is a [`Record`], and the bytes are the values of clips as little-endian
//! numbers.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::clip::{ClipKey, ClipRows, Failure, RowSource, Values};
use super::provenance::{Payload, Provenance};
use super::records::{Positioned, RecordFile, peek};
use crate::error::{Error, Result};

/// The magic bytes.
const MAGIC: &[u8; 8] = b"kinojnl1";

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
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    rows: Vec<RowSource>,
    /// Number of descriptors of each row; `None` for features.
    counts: Option<Vec<u32>>,
}

/// What a journal contains.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JournalSummary {
    /// Ids of the clips that were extracted.
    pub clips: HashSet<String>,
    /// Ids of the clips that failed.
    pub failures: HashSet<String>,
    /// Duration of extraction in seconds.
    pub seconds: f64,
}

impl JournalSummary {
    /// Reads the journal of a store, which another process may be writing. Empty if there is none.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a journal.
    pub fn read(store: &Path) -> Result<Self> {
        let mut summary = Self::default();
        peek(&Journal::path_for(store), MAGIC, "journal", |record| match record {
            Record::Clip(clip) => {
                summary.failures.remove(&clip.id);
                summary.clips.insert(clip.id);
            }
            Record::Failure(failure) => {
                summary.failures.insert(failure.id);
            }
            Record::Seconds(seconds) => summary.seconds += seconds,
            Record::Begin { .. } | Record::Provider(_) => {}
        })?;
        Ok(summary)
    }
}

/// The journal `NAME.h5.partial` of a store `NAME.h5`.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    records: RecordFile,
    payload: Payload,
    provenance: Provenance,
    /// Position of each clip's record.
    clips: HashMap<ClipKey, u64>,
    /// Failures by clip id.
    failures: HashMap<String, Failure>,
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
        let mut contents = JournalContents::default();
        let mut records = RecordFile::open(&path, MAGIC, "journal", |record| contents.add(record))?;
        if contents.begin.is_none() {
            contents = JournalContents::default();
            records.forget_all();
        }
        // Before the file is truncated.
        if let Some((stored_payload, stored)) = &contents.begin {
            if *stored_payload != payload {
                let message = format!("contains {stored_payload}, not {payload}; remove the file to start over");
                return Err(Error::Store { path, message });
            }
            stored.check_compatible(&path, provenance)?;
        }
        records.begin()?;
        let mut journal = Self {
            records,
            payload,
            provenance: provenance.clone(),
            clips: contents.clips,
            failures: contents.failures,
            path,
        };
        match contents.begin {
            Some((_, stored)) => {
                journal.provenance = stored;
                if journal.provenance.provider != provenance.provider {
                    journal.provenance.add_provider(&provenance.provider);
                    journal.records.append(&Record::Provider(provenance.provider.clone()), &[])?;
                }
                journal.provenance.manifest_sha256 = provenance.manifest_sha256.clone();
            }
            None => {
                journal.provenance.stamp();
                let begin = Record::Begin { payload, provenance: journal.provenance.clone() };
                journal.records.append(&begin, &[])?;
            }
        }
        journal.records.flush()?;
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
            version: clip.version.clone(),
            rows: clip.rows.clone(),
            counts,
        };
        self.failures.remove(&clip.id);
        let position = self.records.end();
        self.records.append(&Record::Clip(header), &values)?;
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
        self.records.append(&record, &[])?;
        self.failures.insert(id, failure);
        Ok(())
    }

    /// Adds to the duration of extraction and writes all buffered records.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn checkpoint(&mut self, seconds: f64) -> Result<()> {
        self.provenance.extract_seconds += seconds;
        self.records.append(&Record::Seconds(seconds), &[])?;
        self.records.flush()
    }

    /// Reads a clip.
    ///
    /// # Errors
    /// Returns an error if the journal does not contain the clip, the file cannot be read or the record is damaged.
    pub fn read(&mut self, clip: &ClipKey) -> Result<ClipRows> {
        let error = |message: &str| Error::Store { path: self.path.clone(), message: message.into() };
        let position = *self.clips.get(clip).ok_or_else(|| error(&format!("clip {} is missing", clip.id)))?;
        match self.records.read(position)? {
            Some((Record::Clip(header), values)) => clip_rows(header, &values, self.payload)
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
}

/// Contents of a journal up to its last valid record.
#[derive(Default)]
struct JournalContents {
    begin: Option<(Payload, Provenance)>,
    clips: HashMap<ClipKey, u64>,
    failures: HashMap<String, Failure>,
}

impl JournalContents {
    fn add(&mut self, Positioned { position, record, .. }: Positioned<Record>) {
        match record {
            Record::Begin { payload, provenance } => self.begin = Some((payload, provenance)),
            Record::Clip(header) => {
                self.failures.remove(&header.id);
                self.clips.insert(ClipKey::new(&header.id, &header.path, header.start, header.end), position);
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
        version: header.version,
        rows: header.rows,
        values,
    })
}
