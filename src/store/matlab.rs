//! MATLAB files of version 7.3, which are HDF5 files. Arrays have their axes in reverse order; strings are arrays of UTF-16 units;
//! cells are references to objects.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use hdf5::{Dataset, File, ObjectReference1, ReferencedObject};

use super::attributes::{read_text, store_error};
use crate::error::{Error, Result};

/// Maximum number of UTF-16 units of a string, and of cells.
const MAX_TEXT_LEN: usize = 1 << 16;
const MAX_CELLS: usize = 1 << 24;

/// A MATLAB file of version 7.3 that is open for reading.
#[derive(Debug)]
pub struct MatlabFile {
    path: PathBuf,
    file: File,
}

impl MatlabFile {
    /// Returns `true` if the file has the signature of HDF5, at its start or after MATLAB's header.
    pub fn is_hdf5(path: &Path) -> bool {
        let signature_at = |position: u64| {
            let mut bytes = [0; 8];
            let mut file = fs::File::open(path)?;
            file.seek(SeekFrom::Start(position))?;
            file.read_exact(&mut bytes)?;
            std::io::Result::Ok(&bytes == b"\x89HDF\r\n\x1a\n")
        };
        [0, 512].into_iter().any(|position| signature_at(position).unwrap_or(false))
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or is truncated.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(store_error(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Returns the names of the variables.
    ///
    /// # Errors
    /// Returns an error if the file is damaged.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = self.file.member_names().map_err(store_error(&self.path))?;
        // Groups with such names hold the contents of cells and objects.
        Ok(names.into_iter().filter(|name| !name.starts_with('#') && self.file.dataset(name).is_ok()).collect())
    }

    /// Returns the class of a variable, such as `double`; empty if it is not recorded.
    ///
    /// # Errors
    /// Returns an error if there is no such variable.
    pub fn class(&self, name: &str) -> Result<String> {
        let dataset = self.dataset(name)?;
        Ok(read_text(&dataset, "MATLAB_class").unwrap_or_default())
    }

    /// Returns the shape of a variable in MATLAB's order of axes.
    ///
    /// # Errors
    /// Returns an error if there is no such variable.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let dataset = self.dataset(name)?;
        if is_empty(&dataset) {
            return Ok(vec![0, 0]);
        }
        Ok(dataset.shape().into_iter().rev().collect())
    }

    /// Reads the numbers of a variable as f32, in MATLAB's column-major order.
    ///
    /// # Errors
    /// Returns an error if the values are no real numbers or cannot be read.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        let dataset = self.dataset(name)?;
        let bytes = dataset.size().saturating_mul(dataset.dtype().map_err(store_error(&self.path))?.size()) as u64;
        // MATLAB stores all chunks, which deflate makes at most 1032 times smaller.
        if bytes / 1032 > dataset.storage_size() {
            return Err(self.error(format!("truncated or damaged: `{name}` declares {bytes} bytes")));
        }
        dataset.read_raw::<f32>().map_err(|error| match error.to_string() {
            reason if reason.contains("conversion") => self.error(format!("`{name}` contains no real numbers")),
            _ => store_error(&self.path)(error),
        })
    }

    /// Reads a string, or the strings of a cell array.
    ///
    /// # Errors
    /// Returns an error if a value is not a string or cannot be read.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let dataset = self.dataset(name)?;
        if self.class(name)? == "char" {
            return Ok(vec![self.text(&dataset)?]);
        }
        if dataset.size() > MAX_CELLS {
            return Err(self.error(format!("`{name}` has {} cells, too many for ids", dataset.size())));
        }
        let cells = dataset.read_raw::<ObjectReference1>().map_err(store_error(&self.path))?;
        cells
            .iter()
            .map(|cell| match self.file.dereference(cell) {
                Ok(ReferencedObject::Dataset(cell)) => self.text(&cell),
                _ => Err(self.error(format!("damaged: a cell of `{name}` does not exist"))),
            })
            .collect()
    }

    fn text(&self, dataset: &Dataset) -> Result<String> {
        if is_empty(dataset) {
            return Ok(String::new());
        }
        let is_text = read_text(dataset, "MATLAB_class").is_some_and(|class| class == "char");
        if !is_text || dataset.size() > MAX_TEXT_LEN || dataset.shape().iter().filter(|&&n| n != 1).count() > 1 {
            return Err(self.error("a cell does not contain one string".into()));
        }
        let units = dataset.read_raw::<u16>().map_err(store_error(&self.path))?;
        String::from_utf16(&units).map_err(|_| self.error("damaged: a string is not Unicode".into()))
    }

    fn dataset(&self, name: &str) -> Result<Dataset> {
        self.file.dataset(name).map_err(|_| self.error(format!("damaged: variable `{name}` is missing")))
    }

    fn error(&self, message: String) -> Error {
        Error::Import { path: self.path.clone(), message }
    }
}

/// Returns `true` for an empty array, whose data is its shape.
fn is_empty(dataset: &Dataset) -> bool {
    dataset.attr("MATLAB_empty").is_ok_and(|attribute| attribute.read_scalar::<u8>().is_ok_and(|empty| empty != 0))
}
