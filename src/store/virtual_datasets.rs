//! Writing of the datasets of virtual stores, see [`super::sources`].

use std::path::{Component, Path, PathBuf};

use hdf5::types::{FloatSize, TypeDescriptor, VarLenUnicode};
use hdf5::{Dataset, Extents, File, Selection};
use ndarray::s;

use super::attributes::{hdf5_text, store_error};
use super::reader::Store;
use super::sources::{canonical_directory, fingerprint};
use crate::error::{Error, Result};

/// The datasets of a virtual store that are those of its sources, one after the other. The others have indices, or are small.
const VIRTUAL_DATASETS: [&str; 10] = [
    "features",
    "descriptors",
    "pooled/mean",
    "pooled/max",
    "rows/start_frame",
    "rows/start_seconds",
    "rows/end_seconds",
    "rows/padded",
    "rows/scale",
    "rows/descriptors",
];

/// Creates the virtual datasets of `sources` and the list of the sources in `file`, which is at `path` and will be renamed to `out`.
///
/// # Errors
/// Returns an error if a source is virtual itself, is `out`, or has other datasets than the first one, or the file cannot be written.
pub(super) fn write(file: &File, path: &Path, out: &Path, sources: &[Store]) -> Result<()> {
    let directory = canonical_directory(path)?;
    let out = out.canonicalize().ok();
    let mut names = Vec::with_capacity(sources.len());
    for store in sources {
        if store.is_virtual() {
            let message = "virtual: pass the stores that it refers to, or merge without --virtual";
            return Err(Error::Store { path: store.path().into(), message: message.into() });
        }
        let source = store.path().canonicalize().map_err(Error::io(store.path()))?;
        if out.as_ref() == Some(&source) {
            let message = "a virtual store refers to this store and cannot replace it: choose another --out";
            return Err(Error::Store { path: store.path().into(), message: message.into() });
        }
        let relative = relative(&directory, &source);
        let name = relative.to_str().ok_or_else(|| Error::Store {
            path: source.clone(),
            message: "a virtual store cannot refer to a path that is not UTF-8".into(),
        })?;
        names.push(name.to_string());
    }
    for dataset in VIRTUAL_DATASETS {
        let datasets: Vec<(&str, Option<Dataset>)> =
            names.iter().zip(sources).map(|(name, store)| (name.as_str(), store.find_dataset(dataset))).collect();
        let Some(first) = datasets.iter().find_map(|(_, dataset)| dataset.as_ref()) else { continue };
        if let Some(lacking) = datasets.iter().position(|(_, dataset)| dataset.is_none()) {
            let message = format!("has no dataset /{dataset}, unlike other sources: merge without --virtual");
            return Err(Error::Store { path: sources[lacking].path().into(), message });
        }
        let parts = datasets.iter().map(|(name, dataset)| (*name, dataset.as_ref().expect("none is missing")));
        write_dataset(file, dataset, first, parts).map_err(store_error(path))?;
    }
    let fingerprints =
        sources.iter().map(|store| fingerprint(store.file(), store.path())).collect::<Result<Vec<String>>>()?;
    write_list(file, &names, &fingerprints).map_err(store_error(path))
}

fn write_dataset<'a>(
    file: &File,
    name: &str,
    first: &Dataset,
    parts: impl Iterator<Item = (&'a str, &'a Dataset)> + Clone,
) -> hdf5::Result<()> {
    let columns = first.shape().get(1).copied();
    let extents = |rows: usize| match columns {
        Some(columns) => Extents::from((rows, columns)),
        None => Extents::from(rows),
    };
    let rows = |dataset: &Dataset| dataset.shape().first().copied().unwrap_or(0);
    let total: usize = parts.clone().map(|(_, dataset)| rows(dataset)).sum();
    let descriptor = first.dtype()?.to_descriptor()?;
    let mut builder = file.new_dataset_builder().empty_as(&descriptor).shape(extents(total));
    // Readers that do not check the sources do not mistake missing features for features.
    builder = match descriptor {
        TypeDescriptor::Float(FloatSize::U4) => builder.fill_value(f32::NAN),
        TypeDescriptor::Float(FloatSize::U8) => builder.fill_value(f64::NAN),
        _ => builder,
    };
    let mut start = 0;
    for (source, dataset) in parts {
        if dataset.shape().get(1).copied() != columns {
            return Err(format!("/{name} of {source} has shape {:?}", dataset.shape()).into());
        }
        let end = start + rows(dataset);
        if end > start {
            let selection: Selection = match columns {
                Some(_) => s![start..end, ..].try_into()?,
                None => s![start..end].try_into()?,
            };
            // HDF5 replaces %b by the number of a block.
            let source = source.replace('%', "%%");
            builder = builder.virtual_map(source, name, extents(end - start), .., extents(total), selection);
        }
        start = end;
    }
    builder.create(name).map(|_| ())
}

/// Writes the paths of the sources, relative to the directory of the store, and their fingerprints.
fn write_list(file: &File, names: &[String], fingerprints: &[String]) -> hdf5::Result<()> {
    let group = file.create_group("sources")?;
    for (name, texts) in [("path", names), ("fingerprint", fingerprints)] {
        let texts: Vec<VarLenUnicode> = texts.iter().map(|text| hdf5_text(text)).collect();
        let dataset = group.new_dataset_builder().with_data(&texts).create(name)?;
        // HDF5 does not report the errors of writes that closing a dataset causes.
        file.flush()?;
        drop(dataset);
    }
    Ok(())
}

/// Returns the path of `file` relative to `directory`; both are absolute, without `..`.
fn relative(directory: &Path, file: &Path) -> PathBuf {
    let common = directory.components().zip(file.components()).take_while(|(a, b)| a == b).count();
    let up = directory.components().skip(common).map(|_| Component::ParentDir);
    up.chain(file.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_directory() {
        for (directory, file, expected) in [
            ("/a/b", "/a/b/c.shards/0.h5", "c.shards/0.h5"),
            ("/a/b", "/a/c/0.h5", "../c/0.h5"),
            ("/a/b/c", "/d/0.h5", "../../../d/0.h5"),
            ("/", "/d/0.h5", "d/0.h5"),
        ] {
            assert_eq!(relative(Path::new(directory), Path::new(file)), Path::new(expected));
        }
    }
}
