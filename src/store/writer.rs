//! Writing a store, clip after clip, so that a kill at any moment loses at most the last batch.

use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, H5Type};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use super::layout::{Payload, Provenance, put, put_text, text, wrong};
use super::{ClipRows, Failure, Store, Values};
use crate::error::{Error, Result};

/// Rows a chunk of `/features`: small, since the last chunk is compressed again at every flush.
const CHUNK_ROWS: usize = 64;
/// Entries a chunk of the one-dimensional datasets.
const CHUNK_ENTRIES: usize = 1024;
/// gzip's fastest level: embeddings hardly compress, and every reader has gzip.
const GZIP_LEVEL: u8 = 1;

/// Writes `NAME.h5.partial`; [`StoreWriter::finish`] renames it to `NAME.h5`.
///
/// Clips stand in the order in which they are pushed. Nothing is visible to a later run before [`StoreWriter::flush`].
pub struct StoreWriter {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    payload: Payload,
    provenance: Provenance,
    clips: usize,
    rows: usize,
    values: usize,
    failures: usize,
    pending: Vec<ClipRows>,
    pending_failures: Vec<Failure>,
}

impl StoreWriter {
    /// `NAME.h5.partial` for `NAME.h5`.
    pub fn partial_path(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        PathBuf::from(name)
    }

    /// Begins a new store, replacing a partial one.
    ///
    /// # Errors
    /// The folder cannot be made or the file cannot be created.
    pub fn create(path: &Path, payload: Payload, provenance: &Provenance) -> Result<Self> {
        let partial = Self::partial_path(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let mut provenance = provenance.clone();
        provenance.tool_version = env!("CARGO_PKG_VERSION").into();
        provenance.created = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let file = File::create(&partial).map_err(wrong(&partial))?;
        lay_out(&file, payload).and_then(|()| provenance.write(&file, payload)).map_err(wrong(&partial))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            partial,
            file,
            payload,
            provenance,
            clips: 0,
            rows: 0,
            values: 0,
            failures: 0,
            pending: Vec::new(),
            pending_failures: Vec::new(),
        };
        writer.flush()?;
        Ok(writer)
    }

    /// Goes on with `NAME.h5.partial`, cut back to its last complete clip.
    ///
    /// # Errors
    /// The file is damaged, is locked by another process, or was made differently than `wanted`.
    pub fn resume(path: &Path, payload: Payload, wanted: &Provenance) -> Result<Self> {
        let partial = Self::partial_path(path);
        let file = File::open_rw(&partial).map_err(wrong(&partial))?;
        let store = Store::from_file(file.clone(), &partial)?;
        store.refuse_if_different(payload, wanted)?;
        let mut provenance = store.provenance().clone();
        for provider in wanted.provider.split('+') {
            if !provenance.provider.split('+').any(|known| known == provider) {
                provenance.provider = format!("{}+{provider}", provenance.provider);
            }
        }
        let clips = store.clips().len();
        let rows = store.clips().last().map_or(0, |clip| clip.offset + clip.length);
        let values = store.value_offset(rows)?;
        let mut writer = Self {
            path: path.to_path_buf(),
            partial,
            file,
            payload,
            provenance,
            clips,
            rows,
            values,
            failures: store.failures().len(),
            pending: Vec::new(),
            pending_failures: Vec::new(),
        };
        writer.cut().map_err(wrong(&writer.partial))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Clips written or pending.
    pub fn len(&self) -> usize {
        self.clips + self.pending.len()
    }

    /// Whether no clip was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the store grows.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Takes the next clip.
    pub fn push(&mut self, clip: ClipRows) {
        self.pending.push(clip);
    }

    /// Takes a clip that failed.
    pub fn push_failure(&mut self, failure: Failure) {
        self.pending_failures.push(failure);
    }

    /// Adds to the seconds of extraction.
    pub fn add_seconds(&mut self, seconds: f64) {
        self.provenance.extract_seconds += seconds;
    }

    /// Writes what is pending and hands it to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        let clips = std::mem::take(&mut self.pending);
        let failures = std::mem::take(&mut self.pending_failures);
        self.write(&clips, &failures).map_err(wrong(&self.partial))
    }

    fn write(&mut self, clips: &[ClipRows], failures: &[Failure]) -> hdf5::Result<()> {
        if !clips.is_empty() {
            self.write_rows(clips)?;
            self.write_clips(clips)?;
        }
        if !failures.is_empty() {
            let at = self.failures;
            self.append_text("failures/id", at, failures.iter().map(|f| f.id.as_str()))?;
            self.append_text("failures/stage", at, failures.iter().map(|f| f.stage.as_str()))?;
            self.append_text("failures/error", at, failures.iter().map(|f| f.error.as_str()))?;
            self.failures += failures.len();
        }
        put_text(&self.file, "provider", &self.provenance.provider)?;
        put(&self.file, "extract_seconds", self.provenance.extract_seconds)?;
        self.file.flush()
    }

    fn write_rows(&mut self, clips: &[ClipRows]) -> hdf5::Result<()> {
        let rows: Vec<_> = clips.iter().flat_map(|clip| &clip.rows).collect();
        let owner = clips.iter().enumerate().flat_map(|(i, clip)| {
            let clip_index = (self.clips + i) as u32;
            clip.rows.iter().map(move |_| clip_index)
        });
        let at = self.rows;
        self.append("rows/clip", at, owner)?;
        self.append("rows/start_frame", at, rows.iter().map(|row| row.start_frame))?;
        self.append("rows/start_seconds", at, rows.iter().map(|row| row.start_seconds))?;
        self.append("rows/end_seconds", at, rows.iter().map(|row| row.end_seconds))?;
        self.append("rows/padded", at, rows.iter().map(|row| row.padded as u8))?;
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
                self.append("rows/descriptors", at, counts.iter().copied().flatten().copied())?;
                let block = stack(&blocks, dim);
                append_matrix(&self.file.dataset("descriptors")?, self.values, block.view())?;
                self.values += block.nrows();
            }
        }
        Ok(())
    }

    /// The clips' own entries come last: a clip counts as written only when they are there.
    fn write_clips(&mut self, clips: &[ClipRows]) -> hdf5::Result<()> {
        let at = self.clips;
        let mut next = self.rows;
        let offsets: Vec<u64> = clips
            .iter()
            .map(|clip| {
                let offset = next;
                next += clip.rows.len();
                offset as u64
            })
            .collect();
        self.append("clips/offset", at, offsets)?;
        self.append("clips/length", at, clips.iter().map(|clip| clip.rows.len() as u32))?;
        self.append("clips/frame_count", at, clips.iter().map(|clip| clip.frame_count))?;
        self.append("clips/fps", at, clips.iter().map(|clip| clip.fps))?;
        self.append("clips/duration_seconds", at, clips.iter().map(|clip| clip.duration_seconds))?;
        self.append_text("clips/path", at, clips.iter().map(|clip| clip.path.as_str()))?;
        self.append_text("clips/id", at, clips.iter().map(|clip| clip.id.as_str()))?;
        self.rows = next;
        self.clips += clips.len();
        Ok(())
    }

    /// Adds a dataset beside the contract's (the codebook's centroids).
    pub fn write_matrix(&mut self, name: &str, values: ArrayView2<'_, f32>) -> Result<()> {
        self.file.new_dataset_builder().with_data(values).create(name).map(|_| ()).map_err(wrong(&self.partial))
    }

    /// Writes what is pending, closes the file, makes it durable and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.file.close().map_err(wrong(&self.partial))?;
        let durable = std::fs::File::open(&self.partial).and_then(|file| file.sync_all());
        durable.and_then(|()| std::fs::rename(&self.partial, &self.path)).map_err(Error::io(&self.path))
    }

    fn append<T: H5Type>(&self, name: &str, at: usize, values: impl IntoIterator<Item = T>) -> hdf5::Result<()> {
        let values = Array1::from_iter(values);
        append_vector(&self.file.dataset(name)?, at, values.view())
    }

    fn append_text<'a>(&self, name: &str, at: usize, values: impl Iterator<Item = &'a str>) -> hdf5::Result<()> {
        self.append::<VarLenUnicode>(name, at, values.map(text))
    }

    /// Cuts every dataset back to the complete clips.
    fn cut(&self) -> hdf5::Result<()> {
        for (name, length) in [
            ("rows/clip", self.rows),
            ("rows/start_frame", self.rows),
            ("rows/start_seconds", self.rows),
            ("rows/end_seconds", self.rows),
            ("rows/padded", self.rows),
            ("clips/offset", self.clips),
            ("clips/length", self.clips),
            ("clips/frame_count", self.clips),
            ("clips/fps", self.clips),
            ("clips/duration_seconds", self.clips),
            ("clips/path", self.clips),
            ("clips/id", self.clips),
            ("failures/id", self.failures),
            ("failures/stage", self.failures),
            ("failures/error", self.failures),
        ] {
            self.file.dataset(name)?.resize(length)?;
        }
        match self.payload {
            Payload::Features { dim } => {
                self.file.dataset("features")?.resize((self.rows, dim))?;
                self.file.dataset("pooled/mean")?.resize((self.clips, dim))?;
                self.file.dataset("pooled/max")?.resize((self.clips, dim))
            }
            Payload::Descriptors { dim } => {
                self.file.dataset("rows/descriptors")?.resize(self.rows)?;
                self.file.dataset("descriptors")?.resize((self.values, dim))
            }
        }
    }
}

/// Creates the empty datasets.
fn lay_out(file: &File, payload: Payload) -> hdf5::Result<()> {
    let rows = file.create_group("rows")?;
    vector::<u32>(&rows, "clip")?;
    vector::<u64>(&rows, "start_frame")?;
    vector::<f64>(&rows, "start_seconds")?;
    vector::<f64>(&rows, "end_seconds")?;
    vector::<u8>(&rows, "padded")?;
    let clips = file.create_group("clips")?;
    vector::<VarLenUnicode>(&clips, "id")?;
    vector::<VarLenUnicode>(&clips, "path")?;
    vector::<u64>(&clips, "offset")?;
    vector::<u32>(&clips, "length")?;
    vector::<u64>(&clips, "frame_count")?;
    vector::<f64>(&clips, "fps")?;
    vector::<f64>(&clips, "duration_seconds")?;
    let failures = file.create_group("failures")?;
    for name in ["id", "stage", "error"] {
        vector::<VarLenUnicode>(&failures, name)?;
    }
    match payload {
        Payload::Features { dim } => {
            matrix::<f32>(file, "features", dim, CHUNK_ROWS)?;
            let pooled = file.create_group("pooled")?;
            matrix::<f32>(&pooled, "mean", dim, CHUNK_ROWS)?;
            matrix::<f32>(&pooled, "max", dim, CHUNK_ROWS)
        }
        Payload::Descriptors { dim } => {
            vector::<u32>(&rows, "descriptors")?;
            matrix::<u8>(file, "descriptors", dim, CHUNK_ROWS * 32)
        }
    }
}

fn vector<T: H5Type>(group: &hdf5::Group, name: &str) -> hdf5::Result<()> {
    group.new_dataset::<T>().chunk(CHUNK_ENTRIES).shape(0..).create(name).map(|_| ())
}

fn matrix<T: H5Type>(group: &hdf5::Group, name: &str, dim: usize, chunk_rows: usize) -> hdf5::Result<()> {
    let builder = group.new_dataset::<T>().chunk((chunk_rows, dim.max(1))).shuffle().deflate(GZIP_LEVEL);
    builder.shape((0.., dim)).create(name).map(|_| ())
}

fn append_vector<T: H5Type>(dataset: &Dataset, at: usize, values: ArrayView1<'_, T>) -> hdf5::Result<()> {
    dataset.resize(at + values.len())?;
    dataset.write_slice(values, s![at..])
}

fn append_matrix<T: H5Type>(dataset: &Dataset, at: usize, values: ArrayView2<'_, T>) -> hdf5::Result<()> {
    dataset.resize((at + values.nrows(), values.ncols()))?;
    if values.nrows() == 0 {
        return Ok(());
    }
    dataset.write_slice(values, s![at.., ..])
}

fn stack<T: Clone>(blocks: &[ArrayView2<'_, T>], dim: usize) -> Array2<T> {
    let rows = blocks.iter().map(|block| block.nrows()).sum();
    let values = blocks.iter().flat_map(|block| block.iter().cloned()).collect();
    Array2::from_shape_vec((rows, dim), values).expect("every block has dim columns")
}

fn features(values: &Values) -> ArrayView2<'_, f32> {
    match values {
        Values::Features(rows) => rows.view(),
        Values::Descriptors { .. } => unreachable!("a feature store takes features"),
    }
}

fn descriptors(values: &Values) -> (&Vec<u32>, ArrayView2<'_, u8>) {
    match values {
        Values::Descriptors { counts, values } => (counts, values.view()),
        Values::Features(_) => unreachable!("a descriptor store takes descriptors"),
    }
}

/// Mean (summed in f64) and maximum over the rows of one clip.
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
