//! Shared by the fuzz targets: the readers take paths, so every input becomes a file in memory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub mod readers;

/// Writes `data` to this process's file `name`, in memory if the system has /dev/shm, and returns its path.
pub fn file(name: &str, data: &[u8]) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        tempfile::Builder::new().prefix("fuzz-readers").tempdir_in(parent).expect("a temporary directory").keep()
    });
    let path = directory.join(name);
    std::fs::write(&path, data).expect("a file in a temporary directory");
    path
}
