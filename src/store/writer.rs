//! Writing of stores in one pass.

use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, H5Type};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use super::attributes::{hdf5_text, store_error};
use super::clip::{ClipRows, Failure, StoredClip, Values};
use super::provenance::{Payload, Provenance};
use super::reader::Store;
use super::virtual_datasets;
use crate::error::{Error, Result};

/// Rows per chunk of `/features`.
const CHUNK_ROWS: usize = 64;
/// Elements per chunk of one-dimensional datasets.
const CHUNK_LEN: usize = 1024;
/// gzip's fastest level, since embeddings hardly compress. All readers support gzip.
const GZIP_LEVEL: u8 = 1;

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

/// A file that is removed when it is dropped, if it has not been renamed.
struct PartialFile(PathBuf);

impl Drop for PartialFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes `NAME.h5.new`, which [`StoreWriter::finish`] renames to `NAME.h5`. Clips keep the order in which they are pushed.
pub struct StoreWriter {
    path: PathBuf,
    partial_path: PathBuf,
    file: File,
    /// Declared after `file`, so that the file is closed before it is removed.
    _partial: PartialFile,
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
        let writer = Self::create_tables(path, payload, provenance)?;
        create_row_datasets(&writer.file, payload).map_err(store_error(&writer.partial_path))?;
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
        let mut partial_path = path.as_os_str().to_owned();
        partial_path.push(".new");
        let partial_path = PathBuf::from(partial_path);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        }
        let mut provenance = provenance.clone();
        provenance.stamp();
        let file = File::create(&partial_path).map_err(store_error(&partial_path))?;
        let partial = PartialFile(partial_path.clone());
        create_clip_datasets(&file).map_err(store_error(&partial_path))?;
        Ok(Self {
            path: path.to_path_buf(),
            partial_path,
            file,
            _partial: partial,
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
                append_matrix(&self.file.dataset("features")?, self.rows, stack(&blocks, dim).view())?;
                let (mean, max): (Vec<_>, Vec<_>) = blocks.iter().map(|block| pool(*block)).unzip();
                for (name, pooled) in [("pooled/mean", mean), ("pooled/max", max)] {
                    let views: Vec<_> = pooled.iter().map(|row| row.view().insert_axis(Axis(0))).collect();
                    append_matrix(&self.file.dataset(name)?, self.clips, stack(&views, dim).view())?;
                }
            }
            Payload::Descriptors { dim } => {
                let (counts, blocks): (Vec<_>, Vec<_>) = clips.iter().map(|clip| descriptors(&clip.values)).unzip();
                self.append("rows/descriptors", start, counts.iter().copied().flatten().copied())?;
                let block = stack(&blocks, dim);
                append_matrix(&self.file.dataset("descriptors")?, self.descriptors, block.view())?;
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
        self.append_text("clips/path", start, clips.iter().map(|clip| clip.path.as_str()))?;
        self.append_text("clips/id", start, clips.iter().map(|clip| clip.id.as_str()))?;
        self.rows += clips.iter().map(|clip| clip.length).sum::<usize>();
        self.clips += clips.len();
        Ok(())
    }

    /// Adds a dataset that is not part of the format, such as the codebook's centroids.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_matrix(&mut self, name: &str, values: ArrayView2<'_, f32>) -> Result<()> {
        self.file
            .new_dataset_builder()
            .with_data(values)
            .create(name)
            .map(|_| ())
            .map_err(store_error(&self.partial_path))
    }

    /// Writes the buffered rows, the failures and the provenance, syncs the file and renames it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written or renamed.
    pub fn finish(mut self) -> Result<()> {
        self.write_pending()?;
        self.write_failures()
            .and_then(|()| self.provenance.write(&self.file, self.payload))
            .and_then(|()| self.file.close())
            .map_err(store_error(&self.partial_path))?;
        let synced = std::fs::File::open(&self.partial_path).and_then(|file| file.sync_all());
        synced.and_then(|()| std::fs::rename(&self.partial_path, &self.path)).map_err(Error::io(&self.path))
    }

    /// Appends values to a one-dimensional dataset at position `start`.
    fn append<T: H5Type>(&self, name: &str, start: usize, values: impl IntoIterator<Item = T>) -> hdf5::Result<()> {
        let values = Array1::from_iter(values);
        append_vector(&self.file.dataset(name)?, start, values.view())
    }

    fn append_text<'a>(&self, name: &str, start: usize, values: impl Iterator<Item = &'a str>) -> hdf5::Result<()> {
        self.append::<VarLenUnicode>(name, start, values.map(hdf5_text))
    }
}

/// Creates the datasets of the clips and failures, without elements.
fn create_clip_datasets(file: &File) -> hdf5::Result<()> {
    create_vector::<u32>(&file.create_group("rows")?, "clip")?;
    let clips = file.create_group("clips")?;
    create_vector::<VarLenUnicode>(&clips, "id")?;
    create_vector::<VarLenUnicode>(&clips, "path")?;
    create_vector::<u64>(&clips, "offset")?;
    create_vector::<u32>(&clips, "length")?;
    create_vector::<u64>(&clips, "frame_count")?;
    create_vector::<f64>(&clips, "fps")?;
    create_vector::<f64>(&clips, "duration_seconds")?;
    create_vector::<u8>(&clips, "fully_decoded")?;
    create_vector::<f64>(&clips, "start")?;
    create_vector::<f64>(&clips, "end")?;
    let failures = file.create_group("failures")?;
    for name in ["id", "path", "stage", "error"] {
        create_vector::<VarLenUnicode>(&failures, name)?;
    }
    create_vector::<f64>(&failures, "start")?;
    create_vector::<f64>(&failures, "end")
}

/// Creates the other datasets, without elements.
fn create_row_datasets(file: &File, payload: Payload) -> hdf5::Result<()> {
    let rows = file.group("rows")?;
    create_vector::<u64>(&rows, "start_frame")?;
    create_vector::<f64>(&rows, "start_seconds")?;
    create_vector::<f64>(&rows, "end_seconds")?;
    create_vector::<u8>(&rows, "padded")?;
    create_vector::<f64>(&rows, "scale")?;
    match payload {
        Payload::Features { dim } => {
            create_matrix::<f32>(file, "features", dim, CHUNK_ROWS)?;
            let pooled = file.create_group("pooled")?;
            create_matrix::<f32>(&pooled, "mean", dim, CHUNK_ROWS)?;
            create_matrix::<f32>(&pooled, "max", dim, CHUNK_ROWS)
        }
        Payload::Descriptors { dim } => {
            create_vector::<u32>(&rows, "descriptors")?;
            create_matrix::<u8>(file, "descriptors", dim, CHUNK_ROWS * 32)
        }
    }
}

fn create_vector<T: H5Type>(group: &hdf5::Group, name: &str) -> hdf5::Result<()> {
    group.new_dataset::<T>().chunk(CHUNK_LEN).shape(0..).create(name).map(|_| ())
}

fn create_matrix<T: H5Type>(group: &hdf5::Group, name: &str, dim: usize, chunk_rows: usize) -> hdf5::Result<()> {
    let builder = group.new_dataset::<T>().chunk((chunk_rows, dim.max(1))).shuffle().deflate(GZIP_LEVEL);
    builder.shape((0.., dim)).create(name).map(|_| ())
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
