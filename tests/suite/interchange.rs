//! Import and export of features, through the programs, with files that other programs wrote and read.

mod errors;
mod export;
mod import;

use std::path::Path;
use std::process::{Command, Output};

use kinoprobe::store::{FeatureStore, Values};
use ndarray::{Array2, Axis};

use crate::support::{assert_code, printed};

/// Runs kinoprobe-import features in a directory.
fn import(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-import"));
    command.current_dir(directory).arg("features").args(arguments).output().unwrap()
}

fn inspect(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kinoprobe-inspect")).current_dir(directory).args(arguments).output().unwrap()
}

/// Imports into x.h5, which is replaced, and returns the ids and rows of the clips.
#[track_caller]
fn imported(directory: &Path, arguments: &[&str]) -> Vec<(String, Array2<f32>)> {
    let _ = std::fs::remove_file(directory.join("x.h5"));
    let output = import(directory, &[arguments, &["--out", "x.h5"]].concat());
    assert_code(&output, 0);
    assert!(printed(&output).ends_with("import: wrote x.h5\n"), "{}", printed(&output));
    clips(&directory.join("x.h5"))
}

/// Returns the ids and rows of the clips of a store.
fn clips(path: &Path) -> Vec<(String, Array2<f32>)> {
    let store = FeatureStore::open(path).unwrap();
    (0..store.clips().len())
        .map(|i| match store.read_clip(i).unwrap() {
            clip if clip.rows.is_empty() => unreachable!("a clip has rows"),
            clip => match clip.values {
                Values::Features(rows) => (clip.id, rows),
                Values::Descriptors { .. } => unreachable!("a feature store"),
            },
        })
        .collect()
}

/// The six clips of fixtures/features: feature j of clip i is i + j / 8.
fn ramp() -> Vec<(String, Array2<f32>)> {
    let features = Array2::from_shape_fn((6, 4), |(i, j)| i as f32 + j as f32 / 8.0);
    features
        .axis_iter(Axis(0))
        .zip('a'..)
        .map(|(row, id)| (id.to_string(), row.to_owned().insert_axis(Axis(0))))
        .collect()
}
