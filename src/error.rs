//! The library's one error type. Every variant names the file or clip it is about.

use std::path::{Path, PathBuf};

/// What went wrong, and where. Messages are concise, lowercase and end with the remedy where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, written, created or renamed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A manifest, a label or a split is wrong. `line` is 1-based, the header being line 1.
    #[error("{}{}: {message}", .path.display(), line_suffix(.line))]
    Manifest {
        /// The manifest (or the folder or list read in its place).
        path: PathBuf,
        /// The offending line, where one is to blame.
        line: Option<u64>,
        /// What is wrong and what to do.
        message: String,
    },
    /// A table (predictions, metrics) is wrong. `line` is 1-based, the header being line 1.
    #[error("{}{}: {message}", .path.display(), line_suffix(.line))]
    Table {
        /// The file.
        path: PathBuf,
        /// The offending line, where one is to blame.
        line: Option<u64>,
        /// What is wrong and what to do.
        message: String,
    },
    /// A recipe (pipelines/*.toml) or a model card (models/*.toml) is wrong.
    #[error("{}: {message}", .path.display())]
    Config {
        /// The TOML file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A clip cannot be opened or decoded.
    #[error("{}: {message}", .path.display())]
    Media {
        /// The video, image or folder of frames.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// Weights are missing, fail their hash, or do not fit their network.
    #[error("{}: {message}", .path.display())]
    Weights {
        /// The checkpoint or ONNX file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// ONNX Runtime, or the asked-for execution provider, cannot be used.
    #[error("{0}")]
    Runtime(String),
    /// A feature store, descriptor store or codebook is damaged, of another format, or made differently.
    #[error("{}: {message}", .path.display())]
    Store {
        /// The HDF5 file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The data cannot be used as asked: no training clip, a class without clips, shapes that do not fit.
    #[error("{0}")]
    Data(String),
    /// The user pressed Ctrl-C (or sent SIGTERM); what was finished is kept.
    #[error("interrupted; what was finished is kept, run the same command again to go on")]
    Interrupted,
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn line_suffix(line: &Option<u64>) -> String {
    line.map(|n| format!(":{n}")).unwrap_or_default()
}

impl Error {
    /// Wraps an I/O error with the file it is about; for `map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }
}
