//! The library's error type.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Any error of this library.
///
/// Messages are concise and lowercase, name the file or clip, and end with the remedy if there is one. The library
/// returns errors and never prints them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read, written, created or renamed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file cannot be written because the disk is full.
    #[error("{}: the disk is full: {remedy}", .path.display())]
    FullDisk {
        /// The file.
        path: PathBuf,
        /// What to do, and what has been kept.
        remedy: &'static str,
    },
    /// A manifest, or a label or split in it, is invalid.
    #[error("{}{}: {message}", .path.display(), line_suffix(.line))]
    Manifest {
        /// The manifest, or the directory or list that is read as one.
        path: PathBuf,
        /// The invalid line, if the error concerns one; 1-based, with the header as line 1.
        line: Option<u64>,
        /// The problem and its remedy.
        message: String,
    },
    /// A table (predictions, metrics) is invalid.
    #[error("{}{}: {message}", .path.display(), line_suffix(.line))]
    Table {
        /// The file.
        path: PathBuf,
        /// The invalid line, if the error concerns one; 1-based, with the header as line 1.
        line: Option<u64>,
        /// The problem and its remedy.
        message: String,
    },
    /// A recipe (pipelines/*.toml) or a model card (models/*.toml) is invalid.
    #[error("{}: {message}", .path.display())]
    Config {
        /// The TOML file.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// A clip cannot be opened or decoded.
    #[error("{}: {message}", .path.display())]
    Media {
        /// The video, the image or the directory of frames.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// Weights are missing, do not have the expected hash, or do not fit the network.
    #[error("{}: {message}", .path.display())]
    Weights {
        /// The checkpoint or ONNX file.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// A runtime library or the requested device cannot be used, or a network fails to run.
    #[error("{0}")]
    Runtime(String),
    /// A feature store, descriptor store or codebook is damaged, has another format, or was created with other
    /// settings.
    #[error("{}: {message}", .path.display())]
    Store {
        /// The HDF5 file.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// Features of another program cannot be imported.
    #[error("{}: {message}", .path.display())]
    Import {
        /// The file, or the directory of files.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// The data do not support the requested operation: no training clips, a class without clips, incompatible shapes.
    #[error("{0}")]
    Data(String),
    /// The operation was cancelled by Ctrl-C or SIGTERM. Completed work is kept.
    #[error("interrupted; completed work is kept, run the same command again to resume")]
    Interrupted,
}

/// A `Result` with [`enum@Error`] as the default error type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn line_suffix(line: &Option<u64>) -> String {
    line.map(|n| format!(":{n}")).unwrap_or_default()
}

impl Error {
    /// Returns a function that adds the file to an I/O error, for `map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// Adds a remedy to the error of a full disk or an exceeded quota. Other errors are not changed.
    #[must_use]
    pub fn on_full_disk(self, remedy: &'static str) -> Error {
        match self {
            Error::Io { path, source }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                Error::FullDisk { path, remedy }
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_has_a_remedy() {
        let message = |kind| Error::io("x.cache")(kind).on_full_disk("free some space").to_string();
        let full = "x.cache: the disk is full: free some space";
        assert_eq!(message(ErrorKind::StorageFull.into()), full);
        assert_eq!(message(ErrorKind::QuotaExceeded.into()), full);
        assert_eq!(message(ErrorKind::PermissionDenied.into()), "x.cache: permission denied");
    }
}
