//! Generates sample data: video [`clips`] and [`posters`].

mod canvas;
pub mod clips;
mod encoder;
pub mod posters;
mod scene;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::manifest::DEMO_MARKER;
use crate::progress::{Event, ProgressSink, Unit};

/// Numbers of files of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCounts {
    /// Files that were created.
    pub created: usize,
    /// Files of an earlier run with the same settings.
    pub kept: usize,
}

/// Creates `directory`, and empties it if the stamp file in `out` differs from `stamp`, which describes the settings.
fn prepare_directory(out: &Path, directory: &Path, stamp: &str) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let stamp_file = out.join(DEMO_MARKER);
    if std::fs::read_to_string(&stamp_file).unwrap_or_default() != stamp {
        std::fs::remove_dir_all(directory).map_err(Error::io(directory))?;
        std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        std::fs::write(&stamp_file, stamp).map_err(Error::io(&stamp_file))?;
    }
    Ok(())
}

/// Runs `create` in parallel for every job whose file does not exist.
fn create_missing<J: Sync>(
    jobs: &[J],
    file: impl Fn(&J) -> &PathBuf + Sync,
    create: impl Fn(&J) -> Result<()> + Sync,
    progress: &dyn ProgressSink,
) -> Result<FileCounts> {
    progress.report(Event::Started { task: "demo", unit: Unit::Files, total: Some(jobs.len() as u64), done: 0 });
    let created = AtomicUsize::new(0);
    jobs.par_iter().try_for_each(|job| {
        if !file(job).exists() {
            create(job)?;
            created.fetch_add(1, Ordering::Relaxed);
        }
        progress.report(Event::Advanced(1));
        Ok(())
    })?;
    progress.report(Event::Finished);
    let created = created.into_inner();
    Ok(FileCounts { created, kept: jobs.len() - created })
}

/// Writes a text file. A file with the same content keeps its modification time, so that Make does not rebuild its
/// dependents.
fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|current| current == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(Error::io(path))
}

/// Returns the split of the clip or poster `instance` of a class or year: of every six, four are for training, one for
/// validation and one for test.
fn split_of(instance: usize) -> &'static str {
    match instance % 6 {
        4 => "val",
        5 => "test",
        _ => "train",
    }
}
