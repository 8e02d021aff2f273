//! Features in the files of other programs: import into stores, and export from stores.
//!
//! A file is a list of [`Variable`]s: the array of an .npy file, the arrays of an .npz archive, the variables of a .mat file, the
//! tensors of a .pt file, the columns of a table. Files are untrusted: no code in them is executed, and sizes that they declare are
//! compared with the size of the file and with the available memory before memory is allocated.

mod elements;
pub mod export;
pub mod import;
mod mat;
mod npy;
mod npz;
mod parquet;
mod table;
mod tensors;
#[cfg(test)]
mod tests;
mod text_table;

use std::path::Path;

use ndarray::ArrayD;

use crate::error::{Error, Result};
use crate::store::MatlabFile;
pub use npy::write_npy;

/// Extensions of the files that can be imported, as messages list them.
const EXTENSIONS: &str = ".npy, .npz, .mat, .parquet, .csv, .pt and .pth";

/// A named array or list of strings in a file.
#[derive(Debug, Clone, PartialEq)]
struct Variable {
    /// Name; empty if the file has one array without a name.
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Numbers of this shape.
    Numbers(Vec<usize>),
    /// This many strings.
    Texts(usize),
    /// Values that cannot be imported, with the reason.
    Other(String),
}

/// A file that is open for reading. Variables are read by their index in [`File::variables`].
trait File {
    fn variables(&self) -> &[Variable];

    /// Reads numbers as f32, in row-major order.
    fn numbers(&mut self, index: usize) -> Result<ArrayD<f32>, String>;

    /// Reads strings.
    fn texts(&mut self, index: usize) -> Result<Vec<String>, String>;
}

/// Opens a file; its extension determines the format.
fn open(path: &Path) -> Result<Box<dyn File>> {
    let invalid = |message: String| Error::Import { path: path.to_path_buf(), message };
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if !metadata.is_file() {
        return Err(invalid("not a regular file".into()));
    }
    fn boxed<F: File + 'static>(file: Result<F, String>) -> Result<Box<dyn File>, String> {
        file.map(|file| Box::new(file) as Box<dyn File>)
    }
    match extension(path).as_str() {
        "npy" => boxed(npy::NpyFile::open(path)),
        "npz" => boxed(npz::NpzFile::open(path)),
        "mat" if MatlabFile::is_hdf5(path) => return Ok(Box::new(mat::Version73::open(path)?)),
        "mat" => boxed(mat::Version5::open(path)),
        "parquet" | "pq" => boxed(parquet::ParquetFile::open(path)),
        "csv" => boxed(text_table::TextTable::open(path)),
        "pt" | "pth" => return Ok(Box::new(tensors::TensorFile::open(path)?)),
        _ => Err(format!("not a file of features: {EXTENSIONS} can be imported")),
    }
    .map_err(invalid)
}

/// Returns the extension in lowercase.
fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Returns `true` if the extension is one of [`EXTENSIONS`].
fn is_supported(path: &Path) -> bool {
    matches!(extension(path).as_str(), "npy" | "npz" | "mat" | "parquet" | "pq" | "csv" | "pt" | "pth")
}

/// Describes a variable for messages: `features (135 × 512)`.
fn describe(variable: &Variable) -> String {
    let kind = match &variable.kind {
        Kind::Numbers(shape) => describe_shape(shape),
        Kind::Texts(count) => format!("{count} strings"),
        Kind::Other(reason) => reason.clone(),
    };
    match variable.name.as_str() {
        "" => format!("an array ({kind})"),
        name => format!("`{name}` ({kind})"),
    }
}

/// Formats a shape: `135 × 512`; `a scalar` if it has no axes.
fn describe_shape(shape: &[usize]) -> String {
    match shape {
        [] => "a scalar".into(),
        shape => shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" × "),
    }
}
