//! Export of the features of a store for other programs, with ids, labels and splits.

mod clips;
mod parquet;
mod webdataset;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::write_npy;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::store::{FeatureStore, Pooling};
use clips::ClipTable;

/// Number of rows, or of clips, that are in memory at once.
const BLOCK_ROWS: usize = 4096;

/// Format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// NAME.parquet with the columns id, path, label or labels, split, group and features (a list of float32)
    Parquet,
    /// NAME.npy, float32, and clips.csv or rows.csv with the id, label and split of each row
    Npy,
    /// NAME.csv with the columns id, path, label or labels, split, group, and f0, f1, … for the features
    Csv,
    /// SPLIT-000000.tar, …: one .npy and one .json per clip
    Webdataset,
}

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions<'a> {
    /// The format.
    pub format: Format,
    /// One vector per clip, or all rows.
    pub pooling: Pooling,
    /// Labels, splits and groups of the clips.
    pub manifest: Option<&'a Manifest>,
}

impl ExportOptions<'_> {
    /// Returns the name of the exported file without its extension: `pooled_mean`, `pooled_max`, or `features` for all rows.
    fn name(&self) -> &'static str {
        match self.pooling {
            Pooling::Mean => "pooled_mean",
            Pooling::Max => "pooled_max",
            Pooling::None => "features",
        }
    }

    /// Returns the names of the exported files, except of archives, whose number is not known in advance.
    fn files(&self) -> Vec<String> {
        let name = self.name();
        match self.format {
            Format::Parquet => vec![format!("{name}.parquet")],
            Format::Npy => {
                let clips = if self.pooling == Pooling::None { "rows.csv" } else { "clips.csv" };
                vec![format!("{name}.npy"), clips.into()]
            }
            Format::Csv => vec![format!("{name}.csv")],
            Format::Webdataset => Vec::new(),
        }
    }

    /// Checks that no file in the directory `out` would be overwritten.
    ///
    /// # Errors
    /// Returns an error that names the file if there is one.
    pub fn check_output(&self, out: &Path) -> Result<()> {
        let mut existing: Vec<PathBuf> =
            self.files().iter().map(|name| out.join(name)).filter(|path| path.exists()).collect();
        if self.format == Format::Webdataset {
            let entries = std::fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.path());
            existing.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "tar")));
        }
        match existing.into_iter().min() {
            Some(path) => Err(exists(&path)),
            None => Ok(()),
        }
    }
}

/// Returns the error of a file that exists already.
fn exists(path: &Path) -> Error {
    Error::Config { path: path.to_path_buf(), message: "exists already: remove it, or choose another --out".into() }
}

/// Creates a file that does not exist yet.
fn create(path: &Path) -> Result<BufWriter<File>> {
    match File::create_new(path) {
        Ok(file) => Ok(BufWriter::new(file)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// Writes the features of a store into the directory `out`, which is created if it does not exist. Clips keep the order of the store;
/// those that are not in the manifest have neither labels nor a split. Returns the files.
///
/// # Errors
/// Returns an error if a file exists already or cannot be written, or the store cannot be read.
pub fn export(store: &FeatureStore, options: &ExportOptions<'_>, out: &Path) -> Result<Vec<PathBuf>> {
    options.check_output(out)?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let clips = ClipTable::new(store, options.manifest, options.pooling)?;
    let features = Features { store, pooled: pooled(store, options.pooling)? };
    let files: Vec<PathBuf> = options.files().iter().map(|name| out.join(name)).collect();
    match options.format {
        Format::Parquet => parquet::write(&files[0], &clips, &features)?,
        Format::Npy => {
            write_npy(create(&files[0])?, &files[0], (features.rows(), store.dim()), features.blocks())?;
            clips.write_csv(&files[1], None)?;
        }
        Format::Csv => clips.write_csv(&files[0], Some(&features))?,
        Format::Webdataset => return webdataset::write(out, &clips, &features),
    }
    Ok(files)
}

fn pooled(store: &FeatureStore, pooling: Pooling) -> Result<Option<Array2<f32>>> {
    match pooling {
        Pooling::None => Ok(None),
        pooling => store.pooled(pooling).map(Some),
    }
}

/// The exported features: one vector per clip, or all rows, which are read in blocks.
struct Features<'a> {
    store: &'a FeatureStore,
    /// One vector per clip, (N, D).
    pooled: Option<Array2<f32>>,
}

impl Features<'_> {
    /// Returns the number of vectors.
    fn rows(&self) -> usize {
        self.pooled.as_ref().map_or_else(|| self.store.row_count(), Array2::nrows)
    }

    /// Reads vectors, (rows, D).
    fn read(&self, rows: std::ops::Range<usize>) -> Result<Array2<f32>> {
        match &self.pooled {
            Some(pooled) => Ok(pooled.slice(ndarray::s![rows, ..]).to_owned()),
            None => self.store.features(rows),
        }
    }

    /// Reads all vectors in blocks.
    fn blocks(&self) -> impl Iterator<Item = Result<Array2<f32>>> + '_ {
        let rows = self.rows();
        (0..rows).step_by(BLOCK_ROWS).map(move |start| self.read(start..rows.min(start + BLOCK_ROWS)))
    }
}
