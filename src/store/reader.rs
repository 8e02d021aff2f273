//! Reading of stores.

use std::collections::HashSet;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use hdf5::{File, H5Type};
use ndarray::{Array2, Axis, s};

use super::attributes::{read_texts, store_error};
use super::cached_rows::CachedRows;
use super::clip::{ClipRows, Failure, RowSource, StoredClip, Values};
use super::pooling::Pooling;
use super::provenance::{Payload, Provenance};
use super::sources;
use crate::error::{Error, Result};
use crate::memory;

/// A store that is open for reading. Provenance, clips and failures are in memory; rows are read on demand.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    payload: Payload,
    provenance: Provenance,
    clips: Vec<StoredClip>,
    failures: Vec<Failure>,
    /// The stores that have the rows of a virtual store.
    sources: Vec<File>,
}

impl Store {
    /// Opens a feature store or descriptor store.
    ///
    /// # Errors
    /// Returns an error if the file is missing, is not an HDF5 file, is not a store or is damaged, or if it is virtual and one of its
    /// sources is missing or has changed.
    pub fn open(path: &Path) -> Result<Self> {
        let mut store = Self::open_without_rows(path)?;
        store.sources = sources::open(&store.file, path)?;
        Ok(store)
    }

    /// Does the same, but does not check the sources of a virtual store. Its rows must not be read.
    ///
    /// # Errors
    /// Returns an error if the file is missing, is not an HDF5 file, is not a store or is damaged.
    pub fn open_without_rows(path: &Path) -> Result<Self> {
        // HDF5 finds the sources of a virtual store from the directory of this path.
        let file = path.canonicalize().map_err(Error::io(path))?;
        if file.is_dir() {
            return Err(Error::Store { path: path.to_path_buf(), message: "a directory, not a store".into() });
        }
        let file = File::open(file).map_err(store_error(path))?;
        let (provenance, payload) = Provenance::read(&file, path)?;
        let mut store = Self {
            path: path.to_path_buf(),
            file,
            payload,
            provenance,
            clips: Vec::new(),
            failures: Vec::new(),
            sources: Vec::new(),
        };
        store.clips = store.read_clips()?;
        store.failures = store.read_failures()?;
        Ok(store)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `true` if the rows are in other stores.
    pub fn is_virtual(&self) -> bool {
        self.source_count() > 0
    }

    /// Returns the number of stores that have the rows of a virtual store; 0 for other stores.
    pub fn source_count(&self) -> usize {
        self.sources.len()
    }

    /// Returns the provenance.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns the kind of data.
    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// Returns the clips, in the order of the manifest.
    pub fn clips(&self) -> &[StoredClip] {
        &self.clips
    }

    /// Returns the clips that failed.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Returns `true` if the store records the start and end of clips. Stores of other programs may not.
    pub fn has_periods(&self) -> bool {
        self.has_dataset("clips/start")
    }

    /// Returns the number of rows R.
    pub fn row_count(&self) -> usize {
        self.clips.last().map_or(0, |clip| clip.offset + clip.length)
    }

    /// Returns the mean size of the features or descriptors of a row in bytes.
    pub(super) fn mean_row_bytes(&self) -> Result<usize> {
        Ok(match self.payload {
            Payload::Features { dim } => dim * size_of::<f32>(),
            Payload::Descriptors { dim } => self.len_of("descriptors")? * dim / self.row_count().max(1),
        })
    }

    /// Reads the source frames of all R rows.
    ///
    /// # Errors
    /// Returns an error if a dataset cannot be read.
    pub fn rows(&self) -> Result<Vec<RowSource>> {
        self.row_sources(0..self.row_count())
    }

    /// Checks the kind of data.
    ///
    /// # Errors
    /// Returns an error if the kind or the length of the vectors differs from `requested`.
    pub fn check_payload(&self, requested: Payload) -> Result<()> {
        if self.payload == requested {
            return Ok(());
        }
        Err(self.error(format!("contains {}, not {requested}; choose another store with --out", self.payload)))
    }

    /// Reads a clip with its rows.
    ///
    /// # Errors
    /// Returns an error if a dataset cannot be read.
    ///
    /// # Panics
    /// Panics if `index` is not less than the number of clips.
    pub fn read_clip(&self, index: usize) -> Result<ClipRows> {
        let first_descriptor = match self.payload {
            Payload::Features { .. } => 0,
            Payload::Descriptors { .. } => self.descriptor_offset(self.clips[index].offset)?,
        };
        let (mut clips, _) = self.read_block(index..index + 1, first_descriptor)?;
        Ok(clips.remove(0))
    }

    /// Reads consecutive clips; the descriptors of the first one start at `first_descriptor`. Returns them with the end of the
    /// descriptors of the last one.
    pub(super) fn read_block(&self, clips: Range<usize>, first_descriptor: usize) -> Result<(Vec<ClipRows>, usize)> {
        let clips = &self.clips[clips];
        let (Some(first), Some(last)) = (clips.first(), clips.last()) else {
            return Ok((Vec::new(), first_descriptor));
        };
        let range = first.offset..last.offset + last.length;
        let sources = self.row_sources(range.clone())?;
        let (counts, ends) = match self.payload {
            Payload::Features { .. } => (Vec::new(), Vec::new()),
            Payload::Descriptors { .. } => {
                let counts = self.vector::<u32>("rows/descriptors", range.clone())?;
                let ends = counts.iter().scan(0, |end, &count| {
                    *end += count as usize;
                    Some(*end)
                });
                (counts.clone(), ends.collect::<Vec<usize>>())
            }
        };
        let descriptors = ends.last().copied().unwrap_or(0);
        let end = first_descriptor + descriptors;
        let (features, descriptors) = match self.payload {
            Payload::Features { .. } => (self.matrix::<f32>("features", range.clone())?, None),
            Payload::Descriptors { .. } => {
                (Array2::zeros((0, 0)), Some(self.matrix::<u8>("descriptors", first_descriptor..end)?))
            }
        };
        let clip = |clip: &StoredClip| {
            let rows = clip.offset - range.start..clip.offset - range.start + clip.length;
            let values = match &descriptors {
                None => Values::Features(features.slice(s![rows.clone(), ..]).to_owned()),
                Some(descriptors) => {
                    let start = rows.start.checked_sub(1).map_or(0, |row| ends[row]);
                    let values = descriptors.slice(s![start..ends[rows.end - 1], ..]).to_owned();
                    Values::Descriptors { counts: counts[rows.clone()].to_vec(), values }
                }
            };
            clip.with_rows(sources[rows].to_vec(), values)
        };
        Ok((clips.iter().map(clip).collect(), end))
    }

    /// Returns the index of the first descriptor of a row.
    fn descriptor_offset(&self, row: usize) -> Result<usize> {
        Ok(self.vector::<u32>("rows/descriptors", 0..row)?.iter().map(|&count| count as usize).sum())
    }

    fn row_sources(&self, range: Range<usize>) -> Result<Vec<RowSource>> {
        let start_frame = self.vector::<u64>("rows/start_frame", range.clone())?;
        let start_seconds = self.vector::<f64>("rows/start_seconds", range.clone())?;
        let end_seconds = self.vector::<f64>("rows/end_seconds", range.clone())?;
        let padded = self.vector::<u8>("rows/padded", range.clone())?;
        let scale = match self.has_dataset("rows/scale") {
            true => self.vector::<f64>("rows/scale", range.clone())?,
            false => vec![1.0; range.len()],
        };
        Ok((0..range.len())
            .map(|i| RowSource {
                start_frame: start_frame[i],
                start_seconds: start_seconds[i],
                end_seconds: end_seconds[i],
                padded: padded[i] != 0,
                scale: scale[i],
            })
            .collect())
    }

    /// Reads the clips. Ids, offsets and lengths are required. Missing paths and times, which other programs may omit, are
    /// empty and 0. Clips are whole files if their start and end are missing.
    fn read_clips(&self) -> Result<Vec<StoredClip>> {
        let id = self.texts("clips/id")?;
        let offset = self.values::<u64>("clips/offset")?;
        let length = self.values::<u64>("clips/length")?;
        let count = id.len();
        let path = self.optional("clips/path", |name| self.texts(name), String::new(), count)?;
        let times = |name: &str, missing: f64| self.optional(name, |name| self.values(name), missing, count);
        let (fps, duration_seconds) = (times("clips/fps", 0.0)?, times("clips/duration_seconds", 0.0)?);
        let (start, end) = (times("clips/start", 0.0)?, times("clips/end", f64::INFINITY)?);
        let frame_count = self.optional("clips/frame_count", |name| self.values(name), 0_u64, count)?;
        // Earlier revisions decoded every video completely.
        let fully_decoded = self.optional("clips/fully_decoded", |name| self.values(name), 1_u8, count)?;
        let version = self.optional("clips/version", |name| self.texts(name), String::new(), count)?;
        let lengths = [path.len(), version.len(), offset.len(), length.len(), frame_count.len(), fully_decoded.len()];
        let times = [&fps, &duration_seconds, &start, &end].map(Vec::len);
        if lengths.iter().chain(&times).any(|&n| n != count) {
            return Err(self.error("damaged: the datasets of /clips differ in length".into()));
        }
        let mut known = HashSet::new();
        if let Some(id) = id.iter().find(|id| !known.insert(id.as_str())) {
            return Err(self.error(format!("damaged: two clips have the id {id}")));
        }
        let mut next = 0;
        let mut clips = Vec::with_capacity(count);
        for (i, ((id, path), version)) in id.into_iter().zip(path).zip(version).enumerate() {
            if offset[i] != next {
                return Err(self.error(format!("damaged: clip {id} starts at row {}, not {next}", offset[i])));
            }
            if length[i] == 0 {
                return Err(self.error(format!("damaged: clip {id} has no rows")));
            }
            next = (next.checked_add(length[i]))
                .ok_or_else(|| self.error(format!("damaged: clip {id} has {} rows", length[i])))?;
            clips.push(StoredClip {
                id,
                path,
                start: stored_start(start[i]),
                end: stored_end(end[i]),
                offset: offset[i] as usize,
                length: length[i] as usize,
                frame_count: frame_count[i],
                fps: fps[i],
                duration_seconds: duration_seconds[i],
                fully_decoded: fully_decoded[i] != 0,
                version,
            });
        }
        let rows = match self.payload {
            Payload::Features { .. } => self.len_of("features")?,
            Payload::Descriptors { .. } => self.len_of("rows/descriptors")?,
        };
        if rows as u64 != next {
            return Err(self.error(format!("damaged: the clips have {next} rows, but the store has {rows}")));
        }
        Ok(clips)
    }

    fn read_failures(&self) -> Result<Vec<Failure>> {
        if self.file.group("failures").is_err() {
            return Ok(Vec::new());
        }
        let id = self.texts("failures/id")?;
        let stage = self.texts("failures/stage")?;
        let error = self.texts("failures/error")?;
        let count = id.len();
        let path = self.optional("failures/path", |name| self.texts(name), String::new(), count)?;
        let start = self.optional("failures/start", |name| self.values(name), 0.0, count)?;
        let end = self.optional("failures/end", |name| self.values(name), f64::INFINITY, count)?;
        if [stage.len(), error.len(), path.len(), start.len(), end.len()].iter().any(|&n| n != count) {
            return Err(self.error("damaged: the datasets of /failures differ in length".into()));
        }
        let failure = |i: usize| Failure {
            id: id[i].clone(),
            path: path[i].clone(),
            start: stored_start(start[i]),
            end: stored_end(end[i]),
            stage: stage[i].clone(),
            error: error[i].clone(),
        };
        Ok((0..count).map(failure).collect())
    }

    /// Reads a dataset, or returns `count` times a default value if it is missing.
    fn optional<T: Clone>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<Vec<T>>,
        missing: T,
        count: usize,
    ) -> Result<Vec<T>> {
        if self.has_dataset(name) { read(name) } else { Ok(vec![missing; count]) }
    }

    fn has_dataset(&self, name: &str) -> bool {
        self.find_dataset(name).is_some()
    }

    pub(super) fn find_dataset(&self, name: &str) -> Option<hdf5::Dataset> {
        self.file.dataset(name).ok()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn dataset(&self, name: &str) -> Result<hdf5::Dataset> {
        self.file.dataset(name).map_err(|_| self.error(format!("damaged: dataset /{name} is missing")))
    }

    /// Returns the size of the first dimension of a dataset.
    pub(super) fn len_of(&self, name: &str) -> Result<usize> {
        Ok(self.dataset(name)?.shape().first().copied().unwrap_or(0))
    }

    /// Reads all values of a dataset.
    fn values<T: H5Type>(&self, name: &str) -> Result<Vec<T>> {
        self.dataset(name)?.read_raw::<T>().map_err(store_error(&self.path))
    }

    /// Reads all strings of a dataset.
    fn texts(&self, name: &str) -> Result<Vec<String>> {
        read_texts(&*self.dataset(name)?)
            .map_err(|error| self.error(format!("damaged: dataset /{name} does not contain strings: {error}")))
    }

    /// Reads a range of a one-dimensional dataset.
    pub(super) fn vector<T: H5Type>(&self, name: &str, range: Range<usize>) -> Result<Vec<T>> {
        let dataset = self.dataset(name)?;
        if dataset.ndim() != 1 || dataset.shape()[0] < range.end {
            let shape = dataset.shape();
            return Err(self.error(format!("damaged: dataset /{name} has shape {shape:?}, not [{}]", range.end)));
        }
        let values = dataset.read_slice_1d::<T, _>(s![range]).map_err(store_error(&self.path))?;
        Ok(values.into_raw_vec_and_offset().0)
    }

    /// Reads a range of rows of a two-dimensional dataset with D columns.
    pub(super) fn matrix<T: H5Type>(&self, name: &str, range: Range<usize>) -> Result<Array2<T>> {
        let (dataset, dim) = (self.dataset(name)?, self.payload.dim());
        if range.is_empty() {
            return Ok(Array2::from_shape_fn((0, dim), |_| unreachable!("the array is empty")));
        }
        let shape = dataset.shape();
        if shape.len() != 2 || shape[0] < range.end || shape[1] != dim {
            let expected = [range.end, dim];
            return Err(self.error(format!("damaged: dataset /{name} has shape {shape:?}, not {expected:?}")));
        }
        dataset.read_slice_2d::<T, _>(s![range, ..]).map_err(store_error(&self.path))
    }

    /// Reads a dataset that is not part of the format (see [`StoreWriter::write_matrix`](super::StoreWriter::write_matrix));
    /// `None` if the store does not have it.
    ///
    /// # Errors
    /// Returns an error if the dataset is not a matrix or cannot be read.
    pub fn read_matrix(&self, name: &str) -> Result<Option<Array2<f32>>> {
        if !self.has_dataset(name) {
            return Ok(None);
        }
        self.dataset(name)?.read_2d::<f32>().map(Some).map_err(store_error(&self.path))
    }

    pub(super) fn error(&self, message: String) -> Error {
        Error::Store { path: self.path.clone(), message }
    }
}

/// Returns the start of a clip as it is stored; 0 stands for none.
fn stored_start(start: f64) -> Option<f64> {
    Some(start).filter(|&start| start > 0.0)
}

/// Returns the end of a clip as it is stored; infinity stands for none.
fn stored_end(end: f64) -> Option<f64> {
    Some(end).filter(|end| end.is_finite())
}

/// A store of features.
#[derive(Debug)]
pub struct FeatureStore {
    store: Store,
    /// Bytes of rows that [`FeatureStore::cached_rows`] keeps in memory.
    cache_memory: u64,
}

impl FeatureStore {
    /// Opens a feature store.
    ///
    /// # Errors
    /// Returns an error under the conditions of [`Store::open`], or if the file is a descriptor store.
    pub fn open(path: &Path) -> Result<Self> {
        let store = Store::open(path)?;
        match store.payload {
            Payload::Features { .. } => {
                Ok(Self { store, cache_memory: memory::available().map_or(u64::MAX, |bytes| bytes / 2) })
            }
            Payload::Descriptors { .. } => {
                Err(store.error("a descriptor store: convert it to a feature store with kinoprobe-codebook".into()))
            }
        }
    }

    /// Returns the number of features per row, D.
    pub fn dim(&self) -> usize {
        self.payload.dim()
    }

    /// Reads a range of rows, (rows, D).
    ///
    /// # Errors
    /// Returns an error if the range exceeds the dataset, or it cannot be read.
    pub fn features(&self, range: Range<usize>) -> Result<Array2<f32>> {
        self.matrix("features", range)
    }

    /// Sets the memory in bytes that [`FeatureStore::cached_rows`] may use; by default, half of the available memory.
    pub fn set_cache_memory(&mut self, bytes: u64) {
        self.cache_memory = bytes;
    }

    /// Returns the rows for reading clip by clip, in any order and repeatedly.
    ///
    /// # Errors
    /// Returns an error if the store is damaged.
    pub fn cached_rows(&self) -> Result<CachedRows> {
        let features = self.dataset("features")?;
        let (shape, expected) = (features.shape(), [self.row_count(), self.dim()]);
        if shape != expected {
            return Err(self.error(format!("damaged: dataset /features has shape {shape:?}, not {expected:?}")));
        }
        let clips = self.clips.iter().map(|clip| (clip.offset, clip.id.clone())).collect();
        Ok(CachedRows::new(self.path.clone(), features, clips, self.cache_memory))
    }

    /// Reads one vector per clip, (N, D). If the store has no pooled features, they are computed from the rows.
    ///
    /// # Errors
    /// Returns an error for [`Pooling::None`], or if the features cannot be read.
    pub fn pooled(&self, pooling: Pooling) -> Result<Array2<f32>> {
        let name = match pooling {
            Pooling::Mean => "pooled/mean",
            Pooling::Max => "pooled/max",
            Pooling::None => return Err(self.error("pooling none yields sequences, not one vector per clip".into())),
        };
        if self.has_dataset(name) {
            return self.matrix(name, 0..self.clips.len());
        }
        let mut pooled = Array2::zeros((self.clips.len(), self.dim()));
        for (clip, mut vector) in self.clips.iter().zip(pooled.rows_mut()) {
            let rows = self.features(clip.offset..clip.offset + clip.length)?;
            match pooling {
                Pooling::Max => vector.assign(&rows.fold_axis(Axis(0), f32::NEG_INFINITY, |max, &x| max.max(x))),
                _ => vector.assign(&(rows.mapv(f64::from).sum_axis(Axis(0)) / rows.nrows() as f64).mapv(|x| x as f32)),
            }
        }
        Ok(pooled)
    }

    /// Returns `true` if the features come from untrained (seeded) weights.
    pub fn untrained(&self) -> bool {
        self.provenance.untrained()
    }
}

impl Deref for FeatureStore {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}
