//! Writing of stores in one pass.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, H5Type};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use tempfile::TempPath;

use super::attributes::{hdf5_text, store_error};
use super::clip::{ClipRows, Failure, StoredClip, Values};
use super::provenance::{Payload, Provenance};
use super::reader::Store;
use super::virtual_datasets;
use crate::error::{Error, Result};
use crate::files::{self, directory_of};

/// Rows per chunk of `/features`.
const CHUNK_ROWS: usize = 64;
/// Elements per chunk of one-dimensional datasets.
const CHUNK_LEN: usize = 1024;
/// Chunks of one-dimensional datasets that HDF5 keeps in memory, in bytes.
const CACHE_BYTES: usize = 16 * CHUNK_LEN;
/// Slots of the hash table of these chunks; a prime number.
const CACHE_SLOTS: usize = 13;
/// gzip's fastest level, since embeddings hardly compress. All readers support gzip.
const GZIP_LEVEL: u8 = 1;

/// The dataset of versions of remote files.
const VERSIONS: &str = "clips/version";

/// Number of rows that are buffered. Complete chunks are written, so that none is compressed twice.
const BUFFER_ROWS: usize = 16 * CHUNK_ROWS;

/// Checks that a store can be written to `path`.
///
/// # Errors
/// Returns an error if `path` is a directory.
pub fn check_output(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    let example = path.join("NAME.h5");
    let message = format!("a directory: write to a file in it with --out, such as {}", example.display());
    Err(Error::Store { path: path.to_path_buf(), message })
}

/// Writes `NAME.h5.new-RANDOM`, which [`StoreWriter::finish`] renames to `NAME.h5`. Clips keep the order in which they are pushed.
///
/// Each process has its own file: HDF5 truncates a file before it finds that another process has locked it.
pub struct StoreWriter {
    path: PathBuf,
    /// All datasets by name. They stay open until the file is flushed: when one is closed, HDF5 writes what it has buffered, and an error of
    /// these writes is lost. Declared before `file`, so that they are closed first.
    datasets: HashMap<String, Dataset>,
    file: File,
    /// Removes the file. Declared after `file`, so that it is closed before.
    partial_path: TempPath,
    payload: Payload,
    provenance: Provenance,
    /// Number of clips in the file.
    clips: usize,
    /// Number of rows in the file.
    rows: usize,
    /// Number of descriptors in the file.
    descriptors: usize,
    pending: Vec<ClipRows>,
    pending_rows: usize,
    failures: Vec<Failure>,
}

impl StoreWriter {
    /// Creates a store.
    ///
    /// # Errors
    /// Returns an error if `path` is a directory, or the file or its directory cannot be created.
    pub fn create(path: &Path, payload: Payload, provenance: &Provenance) -> Result<Self> {
        let mut writer = Self::create_tables(path, payload, provenance)?;
        let mut datasets = Datasets { file: &writer.file, by_name: &mut writer.datasets };
        create_row_datasets(&mut datasets, payload).map_err(store_error(&writer.partial_path))?;
        Ok(writer)
    }

    /// Creates a virtual store with the clips of `sources`, one after the other: its rows are those of the sources, which must stay where
    /// they are relative to it. No clips can be appended.
    ///
    /// # Errors
    /// Returns an error if `path` is a directory or one of the sources, a source is virtual itself or has other datasets than the first one,
    /// or the file or its directory cannot be created.
    ///
    /// # Panics
    /// Panics if there are no sources.
    pub fn create_virtual(path: &Path, sources: &[Store], provenance: &Provenance) -> Result<Self> {
        let mut writer = Self::create_tables(path, sources[0].payload(), provenance)?;
        virtual_datasets::write(&writer.file, &writer.partial_path, path, sources)?;
        for source in sources {
            let first = writer.rows;
            let clips: Vec<StoredClip> =
                source.clips().iter().map(|clip| StoredClip { offset: first + clip.offset, ..clip.clone() }).collect();
            writer.write_clips(&clips).map_err(store_error(&writer.partial_path))?;
        }
        Ok(writer)
    }

    /// Creates the file with the datasets that are written clip by clip.
    fn create_tables(path: &Path, payload: Payload, provenance: &Provenance) -> Result<Self> {
        check_output(path)?;
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".new");
        let directory = directory_of(path);
        std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        remove_abandoned(directory, &prefix).map_err(Error::io(directory))?;
        prefix.push("-");
        let partial =
            tempfile::Builder::new().prefix(&prefix).permissions(Permissions::from_mode(0o644)).tempfile_in(directory);
        let partial_path = partial.map_err(Error::io(path))?.into_temp_path();
        let mut provenance = provenance.clone();
        provenance.stamp();
        let file = File::create(&partial_path).map_err(store_error(&partial_path))?;
        let mut datasets = HashMap::new();
        create_clip_datasets(&mut Datasets { file: &file, by_name: &mut datasets })
            .map_err(store_error(&partial_path))?;
        Ok(Self {
            path: path.to_path_buf(),
            datasets,
            file,
            partial_path,
            payload,
            provenance,
            clips: 0,
            rows: 0,
            descriptors: 0,
            pending: Vec::new(),
            pending_rows: 0,
            failures: Vec::new(),
        })
    }

    /// Appends a clip.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn push(&mut self, clip: ClipRows) -> Result<()> {
        self.pending_rows += clip.rows.len();
        self.pending.push(clip);
        if self.pending_rows >= BUFFER_ROWS { self.write_pending() } else { Ok(()) }
    }

    /// Sets the hash of the files that the features are imported from.
    pub fn set_source_sha256(&mut self, sha256: String) {
        self.provenance.source_sha256 = sha256;
    }

    /// Appends a failure.
    pub fn push_failure(&mut self, failure: Failure) {
        self.failures.push(failure);
    }

    fn write_pending(&mut self) -> Result<()> {
        self.pending_rows = 0;
        let clips = std::mem::take(&mut self.pending);
        if clips.is_empty() {
            return Ok(());
        }
        let mut next = self.rows;
        let clip_at = |clip: &ClipRows| {
            let clip = clip.at(next);
            next += clip.length;
            clip
        };
        let table: Vec<StoredClip> = clips.iter().map(clip_at).collect();
        self.write_rows(&clips).and_then(|()| self.write_clips(&table)).map_err(store_error(&self.partial_path))
    }

    fn write_failures(&self) -> hdf5::Result<()> {
        self.append_text("failures/id", 0, self.failures.iter().map(|f| f.id.as_str()))?;
        self.append_text("failures/path", 0, self.failures.iter().map(|f| f.path.as_str()))?;
        self.append("failures/start", 0, self.failures.iter().map(|f| f.start.unwrap_or(0.0)))?;
        self.append("failures/end", 0, self.failures.iter().map(|f| f.end.unwrap_or(f64::INFINITY)))?;
        self.append_text("failures/stage", 0, self.failures.iter().map(|f| f.stage.as_str()))?;
        self.append_text("failures/error", 0, self.failures.iter().map(|f| f.error.as_str()))
    }

    fn write_rows(&mut self, clips: &[ClipRows]) -> hdf5::Result<()> {
        let rows: Vec<_> = clips.iter().flat_map(|clip| &clip.rows).collect();
        let start = self.rows;
        self.append("rows/start_frame", start, rows.iter().map(|row| row.start_frame))?;
        self.append("rows/start_seconds", start, rows.iter().map(|row| row.start_seconds))?;
        self.append("rows/end_seconds", start, rows.iter().map(|row| row.end_seconds))?;
        self.append("rows/padded", start, rows.iter().map(|row| row.padded as u8))?;
        self.append("rows/scale", start, rows.iter().map(|row| row.scale))?;
        match self.payload {
            Payload::Features { dim } => {
                let blocks: Vec<ArrayView2<f32>> = clips.iter().map(|clip| features(&clip.values)).collect();
                append_matrix(self.dataset("features")?, self.rows, stack(&blocks, dim).view())?;
                let (mean, max): (Vec<_>, Vec<_>) = blocks.iter().map(|block| pool(*block)).unzip();
                for (name, pooled) in [("pooled/mean", mean), ("pooled/max", max)] {
                    let views: Vec<_> = pooled.iter().map(|row| row.view().insert_axis(Axis(0))).collect();
                    append_matrix(self.dataset(name)?, self.clips, stack(&views, dim).view())?;
                }
            }
            Payload::Descriptors { dim } => {
                let (counts, blocks): (Vec<_>, Vec<_>) = clips.iter().map(|clip| descriptors(&clip.values)).unzip();
                self.append("rows/descriptors", start, counts.iter().copied().flatten().copied())?;
                let block = stack(&blocks, dim);
                append_matrix(self.dataset("descriptors")?, self.descriptors, block.view())?;
                self.descriptors += block.nrows();
            }
        }
        Ok(())
    }

    /// Writes clips whose rows follow those of the clips in the file.
    fn write_clips(&mut self, clips: &[StoredClip]) -> hdf5::Result<()> {
        let start = self.clips;
        let indices = clips.iter().zip(start as u32..);
        let indices = indices.flat_map(|(clip, index)| std::iter::repeat_n(index, clip.length));
        self.append("rows/clip", self.rows, indices)?;
        self.append("clips/offset", start, clips.iter().map(|clip| clip.offset as u64))?;
        self.append("clips/length", start, clips.iter().map(|clip| clip.length as u32))?;
        self.append("clips/frame_count", start, clips.iter().map(|clip| clip.frame_count))?;
        self.append("clips/fps", start, clips.iter().map(|clip| clip.fps))?;
        self.append("clips/duration_seconds", start, clips.iter().map(|clip| clip.duration_seconds))?;
        let [starts, ends]: [Vec<f64>; 2] = [0, 1].map(|i| clips.iter().map(|clip| clip.key().period()[i]).collect());
        self.append("clips/start", start, starts)?;
        self.append("clips/end", start, ends)?;
        self.append("clips/fully_decoded", start, clips.iter().map(|clip| u8::from(clip.fully_decoded)))?;
        self.write_versions(start, clips)?;
        self.append_text("clips/path", start, clips.iter().map(|clip| clip.path.as_str()))?;
        self.append_text("clips/id", start, clips.iter().map(|clip| clip.id.as_str()))?;
        self.rows += clips.iter().map(|clip| clip.length).sum::<usize>();
        self.clips += clips.len();
        Ok(())
    }

    /// Appends the versions of remote files. A store of local files has none.
    fn write_versions(&mut self, start: usize, clips: &[StoredClip]) -> hdf5::Result<()> {
        if !self.datasets.contains_key(VERSIONS) {
            if clips.iter().all(|clip| clip.version.is_empty()) {
                return Ok(());
            }
            Datasets { file: &self.file, by_name: &mut self.datasets }.vector::<VarLenUnicode>(VERSIONS)?;
            self.append_text(VERSIONS, 0, std::iter::repeat_n("", start))?;
        }
        self.append_text(VERSIONS, start, clips.iter().map(|clip| clip.version.as_str()))
    }

    /// Adds a dataset that is not part of the format, such as the codebook's centroids.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_matrix(&mut self, name: &str, values: ArrayView2<'_, f32>) -> Result<()> {
        let created = self.file.new_dataset_builder().with_data(values).create(name);
        self.datasets.insert(name.into(), created.map_err(store_error(&self.partial_path))?);
        Ok(())
    }

    /// Writes the buffered rows, the failures and the provenance, syncs the file and renames it.
    /// HDF5 reports the errors of buffered writes only if it is told to flush.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written or renamed.
    pub fn finish(mut self) -> Result<()> {
        self.write_pending()?;
        self.write_failures()
            .and_then(|()| self.provenance.write(&self.file, self.payload))
            .and_then(|()| self.file.flush())
            .map_err(store_error(&self.partial_path))?;
        self.datasets.clear();
        self.file.close().map_err(store_error(&self.partial_path))?;
        let synced = std::fs::File::open(&self.partial_path).and_then(|file| file.sync_all());
        synced.and_then(|()| files::rename(&self.partial_path, &self.path)).map_err(Error::io(&self.path))
    }

    fn dataset(&self, name: &str) -> hdf5::Result<&Dataset> {
        self.datasets.get(name).ok_or_else(|| format!("no dataset {name}").into())
    }

    /// Appends values to a one-dimensional dataset at position `start`.
    fn append<T: H5Type>(&self, name: &str, start: usize, values: impl IntoIterator<Item = T>) -> hdf5::Result<()> {
        let values = Array1::from_iter(values);
        append_vector(self.dataset(name)?, start, values.view())
    }

    fn append_text<'a>(&self, name: &str, start: usize, values: impl Iterator<Item = &'a str>) -> hdf5::Result<()> {
        self.append::<VarLenUnicode>(name, start, values.map(hdf5_text))
    }
}

/// Removes the files in `directory` whose names start with `prefix` and that no process is writing, since it was killed: HDF5 locks files that it
/// writes. On a file system without locks, they are kept.
fn remove_abandoned(directory: &Path, prefix: &OsStr) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let matches = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        if matches && std::fs::File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Creates the datasets of the clips and failures, without elements.
fn create_clip_datasets(datasets: &mut Datasets<'_>) -> hdf5::Result<()> {
    datasets.file.create_group("rows")?;
    datasets.vector::<u32>("rows/clip")?;
    datasets.file.create_group("clips")?;
    datasets.vector::<VarLenUnicode>("clips/id")?;
    datasets.vector::<VarLenUnicode>("clips/path")?;
    datasets.vector::<u64>("clips/offset")?;
    datasets.vector::<u32>("clips/length")?;
    datasets.vector::<u64>("clips/frame_count")?;
    datasets.vector::<f64>("clips/fps")?;
    datasets.vector::<f64>("clips/duration_seconds")?;
    datasets.vector::<u8>("clips/fully_decoded")?;
    datasets.vector::<f64>("clips/start")?;
    datasets.vector::<f64>("clips/end")?;
    datasets.file.create_group("failures")?;
    for name in ["failures/id", "failures/path", "failures/stage", "failures/error"] {
        datasets.vector::<VarLenUnicode>(name)?;
    }
    datasets.vector::<f64>("failures/start")?;
    datasets.vector::<f64>("failures/end")
}

/// Creates the other datasets, without elements.
fn create_row_datasets(datasets: &mut Datasets<'_>, payload: Payload) -> hdf5::Result<()> {
    datasets.vector::<u64>("rows/start_frame")?;
    datasets.vector::<f64>("rows/start_seconds")?;
    datasets.vector::<f64>("rows/end_seconds")?;
    datasets.vector::<u8>("rows/padded")?;
    datasets.vector::<f64>("rows/scale")?;
    match payload {
        Payload::Features { dim } => {
            datasets.matrix::<f32>("features", dim, CHUNK_ROWS)?;
            datasets.file.create_group("pooled")?;
            datasets.matrix::<f32>("pooled/mean", dim, CHUNK_ROWS)?;
            datasets.matrix::<f32>("pooled/max", dim, CHUNK_ROWS)
        }
        Payload::Descriptors { dim } => {
            datasets.vector::<u32>("rows/descriptors")?;
            datasets.matrix::<u8>("descriptors", dim, CHUNK_ROWS * 32)
        }
    }
}

/// The datasets of a new file.
struct Datasets<'a> {
    file: &'a File,
    by_name: &'a mut HashMap<String, Dataset>,
}

impl Datasets<'_> {
    fn vector<T: H5Type>(&mut self, name: &str) -> hdf5::Result<()> {
        let builder = self.file.new_dataset::<T>().chunk_cache(CACHE_SLOTS, CACHE_BYTES, 1.0).chunk(CHUNK_LEN);
        self.by_name.insert(name.into(), builder.shape(0..).create(name)?);
        Ok(())
    }

    fn matrix<T: H5Type>(&mut self, name: &str, dim: usize, chunk_rows: usize) -> hdf5::Result<()> {
        let builder = self.file.new_dataset::<T>().chunk((chunk_rows, dim.max(1))).shuffle().deflate(GZIP_LEVEL);
        self.by_name.insert(name.into(), builder.shape((0.., dim)).create(name)?);
        Ok(())
    }
}

fn append_vector<T: H5Type>(dataset: &Dataset, start: usize, values: ArrayView1<'_, T>) -> hdf5::Result<()> {
    dataset.resize(start + values.len())?;
    dataset.write_slice(values, s![start..])
}

fn append_matrix<T: H5Type>(dataset: &Dataset, start: usize, values: ArrayView2<'_, T>) -> hdf5::Result<()> {
    dataset.resize((start + values.nrows(), values.ncols()))?;
    if values.nrows() == 0 {
        return Ok(());
    }
    dataset.write_slice(values, s![start.., ..])
}

/// Concatenates rows.
fn stack<T: Clone>(blocks: &[ArrayView2<'_, T>], dim: usize) -> Array2<T> {
    let rows = blocks.iter().map(|block| block.nrows()).sum();
    let values = blocks.iter().flat_map(|block| block.iter().cloned()).collect();
    Array2::from_shape_vec((rows, dim), values).expect("every block has dim columns")
}

fn features(values: &Values) -> ArrayView2<'_, f32> {
    match values {
        Values::Features(rows) => rows.view(),
        Values::Descriptors { .. } => unreachable!("a feature store contains features"),
    }
}

fn descriptors(values: &Values) -> (&Vec<u32>, ArrayView2<'_, u8>) {
    match values {
        Values::Descriptors { counts, values } => (counts, values.view()),
        Values::Features(_) => unreachable!("a descriptor store contains descriptors"),
    }
}

/// Computes mean (in f64) and maximum over the rows of one clip.
fn pool(rows: ArrayView2<'_, f32>) -> (Array1<f32>, Array1<f32>) {
    let mut sum = Array1::<f64>::zeros(rows.ncols());
    let mut max = Array1::from_elem(rows.ncols(), f32::NEG_INFINITY);
    for row in rows.rows() {
        for ((sum, max), &value) in sum.iter_mut().zip(&mut max).zip(row) {
            *sum += f64::from(value);
            *max = max.max(value);
        }
    }
    (sum.mapv(|sum| (sum / rows.nrows() as f64) as f32), max)
}
