//! Import of features that other programs computed.
//!
//! The features of the clips are in one file ([`archive`]), or in one file per clip ([`directory`]). Either way, [`collect`] yields one
//! [`Item`] per clip, which is matched with a clip of the manifest by its id, read, checked and written.

mod archive;
mod directory;
mod ids;
mod pattern;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayD, Axis, Ix1, Ix2};
use sha2::{Digest, Sha256};

use super::{File, Kind, Variable, describe, describe_shape};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest};
use crate::store::{ClipRows, Failure, Payload, Provenance, RowSource, StoreWriter, Values};
pub use pattern::Pattern;

/// What to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// A file with the features of all clips, or a directory with one file per clip.
    pub source: PathBuf,
    /// Names of the files of a directory; `None` for every file of a supported format, with its name as id.
    pub files: Option<Pattern>,
    /// Name of the variable with the features; `None` for the only one. A pattern selects one variable per clip.
    pub key: Option<String>,
    /// Name of the variable with the ids; `None` for one that is named like an id, or the only list of strings.
    pub ids_key: Option<String>,
    /// File with the ids of the rows, in order.
    pub ids: Option<PathBuf>,
    /// Matrices have one clip or row per column.
    pub transposed: bool,
    /// Consecutive rows with the same id are the rows of one clip.
    pub sequences: bool,
    /// Clips of the manifest without features are recorded as failed, instead of an error.
    pub allow_missing: bool,
    /// Name of the method that the store records.
    pub method: String,
    /// What computed the features, which the store records as its model; empty if unknown.
    pub model: String,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSummary {
    /// Number of clips.
    pub clips: usize,
    /// Number of rows.
    pub rows: usize,
    /// Length D of a row.
    pub dim: usize,
    /// Where features and ids were found.
    pub origin: String,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Number of clips of the manifest without features.
    pub missing: usize,
}

/// The features of a clip.
struct Item {
    /// Id of the clip, or the name of its file without the extension.
    id: String,
    place: Place,
}

/// Where the features of a clip are.
enum Place {
    /// First row and number of rows in [`Items::matrix`].
    Rows(usize, usize),
    /// Index of a variable in [`Items::file`].
    Variable(usize),
    File(PathBuf),
}

/// The clips of a source.
struct Items {
    items: Vec<Item>,
    /// The ids are names of the clips' files, not their ids.
    by_stem: bool,
    /// Rows of all clips.
    matrix: Option<Array2<f32>>,
    /// File with one variable per clip.
    file: Option<Box<dyn File>>,
    origin: String,
}

/// Maximum number of ids that messages list.
const MAX_SHOWN: usize = 5;

/// Imports features into a new store. Clips have the order of the manifest or, without a manifest, of the source; their paths are then
/// their ids.
///
/// # Errors
/// Returns an error that names the file if the source cannot be read, ids are missing or not unique, a clip of the manifest has no
/// features (unless [`ImportOptions::allow_missing`] is set), features are not finite, or clips differ in the length of their rows.
pub fn import_features(
    options: &ImportOptions,
    manifest: Option<&Manifest>,
    out: &Path,
    cancel: &CancellationToken,
) -> Result<ImportSummary> {
    let mut found = collect(options)?;
    let (clips, missing, warnings) = match manifest {
        Some(manifest) => match_clips(options, manifest, &found)?,
        None => {
            (found.items.iter().enumerate().map(|(i, item)| (i, clip_without_manifest(item))).collect(), vec![], vec![])
        }
    };
    let mut hash = SourceHash::new(options)?;
    let mut writer: Option<StoreWriter> = None;
    let (mut rows, mut dim) = (0, 0);
    for (index, clip) in &clips {
        cancel.check()?;
        let (path, features) = read_item(options, &mut found, *index, &mut hash)?;
        let invalid = |message: String| Error::Import { path, message };
        check_finite(&clip.id, &features).map_err(invalid)?;
        if writer.is_none() {
            dim = features.ncols();
            let payload = Payload::Features { dim };
            writer = Some(StoreWriter::create(out, payload, &provenance(options, manifest))?);
        }
        if features.ncols() != dim {
            return Err(Error::Import {
                path: options.source.clone(),
                message: format!(
                    "clip `{}` has {} features, but `{}` has {dim}: select files of one kind with --files, or a variable with --key",
                    clip.id,
                    features.ncols(),
                    clips[0].1.id
                ),
            });
        }
        rows += features.nrows();
        writer.as_mut().expect("created above").push(clip_rows(clip, features))?;
    }
    let Some(mut writer) = writer else {
        return Err(Error::Import { path: options.source.clone(), message: "no clip has features".into() });
    };
    for clip in &missing {
        writer.push_failure(Failure {
            id: clip.id.clone(),
            path: clip.path.clone(),
            start: clip.start,
            end: clip.end,
            stage: "import".into(),
            error: format!("no features in {}", options.source.display()),
        });
    }
    writer.set_source_sha256(hash.finish());
    writer.finish()?;
    Ok(ImportSummary {
        clips: clips.len(),
        rows,
        dim,
        origin: std::mem::take(&mut found.origin),
        warnings,
        missing: missing.len(),
    })
}

fn provenance(options: &ImportOptions, manifest: Option<&Manifest>) -> Provenance {
    Provenance {
        method: options.method.clone(),
        model: options.model.clone(),
        weights: "imported".into(),
        manifest_sha256: manifest.map(|manifest| manifest.sha256.clone()).unwrap_or_default(),
        precision: "f32".into(),
        source: options.source.display().to_string(),
        ..Provenance::default()
    }
}

/// Finds the clips of the source.
fn collect(options: &ImportOptions) -> Result<Items> {
    let invalid = |message: String| Error::Import { path: options.source.clone(), message };
    let is_directory = std::fs::metadata(&options.source).map_err(Error::io(&options.source))?.is_dir();
    let found = if is_directory {
        let unused = [
            ("--ids", options.ids.is_some()),
            ("--ids-key", options.ids_key.is_some()),
            ("--sequences", options.sequences),
        ];
        if let Some((flag, _)) = unused.into_iter().find(|(_, is_set)| *is_set) {
            return Err(invalid(format!(
                "{flag} applies to a file with all clips, not to a directory with one file per clip"
            )));
        }
        directory::collect(options)?
    } else if options.files.is_some() {
        return Err(invalid("--files applies to a directory with one file per clip, not to a file".into()));
    } else {
        archive::collect(options)?
    };
    let mut known = HashMap::new();
    for (i, item) in found.items.iter().enumerate() {
        if item.id.trim().is_empty() {
            return Err(invalid(format!("the id of row {i} is empty")));
        }
        if known.insert(item.id.as_str(), i).is_some() {
            let remedy = if is_directory { "select the files with --files" } else { "make the ids unique" };
            let rows = if is_directory { "" } else { ", or pass --sequences if its rows are the rows of one clip" };
            return Err(invalid(format!("duplicate id `{}`: {remedy}{rows}", item.id)));
        }
    }
    if found.items.is_empty() {
        return Err(invalid("contains no clips".into()));
    }
    Ok(found)
}

/// Clips with the indices of their items, clips without an item, and warnings.
type Matched = (Vec<(usize, Clip)>, Vec<Clip>, Vec<String>);

/// Matches the clips of the manifest with the items by id or by the name of their file.
fn match_clips(options: &ImportOptions, manifest: &Manifest, found: &Items) -> Result<Matched> {
    let index: HashMap<&str, usize> = found.items.iter().enumerate().map(|(i, item)| (item.id.as_str(), i)).collect();
    let key = |clip: &Clip| match found.by_stem {
        true => Path::new(&clip.path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        false => clip.id.clone(),
    };
    let (mut clips, mut missing) = (Vec::new(), Vec::new());
    for clip in &manifest.clips {
        match index.get(key(clip).as_str()) {
            Some(&i) => clips.push((i, clip.clone())),
            None => missing.push(clip.clone()),
        }
    }
    let shown = |ids: &[String]| {
        let more = ids.len().saturating_sub(MAX_SHOWN);
        let first = ids.iter().take(MAX_SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{first} and {more} more") } else { first }
    };
    if !missing.is_empty() && (!options.allow_missing || clips.is_empty()) {
        let ids: Vec<String> = missing.iter().map(|clip| clip.id.clone()).collect();
        let hint = naming_hint(&missing, found);
        let remedy = if clips.is_empty() { "" } else { ", or pass --allow-missing to record them as failed" };
        return Err(Error::Import {
            path: options.source.clone(),
            message: format!(
                "no features of {} of the {} clips of {}: {}; {hint}{remedy}",
                missing.len(),
                manifest.clips.len(),
                manifest.source.display(),
                shown(&ids)
            ),
        });
    }
    let used: std::collections::HashSet<usize> = clips.iter().map(|(i, _)| *i).collect();
    let unused: Vec<String> =
        (0..found.items.len()).filter(|i| !used.contains(i)).map(|i| found.items[i].id.clone()).collect();
    let mut warnings = manifest.warnings.clone();
    if !unused.is_empty() {
        warnings.push(format!("excluded {} clips that are not in the manifest: {}", unused.len(), shown(&unused)));
    }
    Ok((clips, missing, warnings))
}

/// Suggests how ids and names differ.
fn naming_hint(missing: &[Clip], found: &Items) -> String {
    let similar = missing.iter().find_map(|clip| {
        let stem = Path::new(&clip.path).file_stem()?.to_str()?;
        found.items.iter().find_map(|item| {
            // In subdirectories, the name of the file without its directory is compared.
            let base = item.id.rsplit('/').next().filter(|base| found.by_stem || *base != item.id);
            let (placeholder, name, id) = match (base, &item.place) {
                (Some(base), Place::File(_)) => ("{stem}", stem, base),
                _ => ("{id}", clip.id.as_str(), item.id.as_str()),
            };
            (!name.is_empty() && id.contains(name)).then(|| (id.replacen(name, placeholder, 1), &item.place))
        })
    });
    match similar {
        Some((pattern, Place::File(file))) => {
            format!("select the files with --files, such as --files '{pattern}.{}'", super::extension(file))
        }
        Some((pattern, Place::Variable(_))) => format!("pass --key '{pattern}'"),
        _ => format!("the ids of the source are such as `{}`: use the ids of the manifest", found.items[0].id),
    }
}

fn clip_without_manifest(item: &Item) -> Clip {
    Clip { id: item.id.clone(), path: item.id.clone(), ..Clip::default() }
}

/// Reads the rows of an item, (rows, D). Also returns the file that contains them.
fn read_item(
    options: &ImportOptions,
    found: &mut Items,
    index: usize,
    hash: &mut SourceHash,
) -> Result<(PathBuf, Array2<f32>)> {
    let path = match &found.items[index].place {
        Place::File(path) => path.clone(),
        _ => options.source.clone(),
    };
    let invalid = |message: String| Error::Import { path: path.clone(), message };
    let features = match &found.items[index].place {
        Place::Rows(start, count) => {
            let matrix = found.matrix.as_ref().expect("rows are in the matrix");
            Ok(matrix.slice(ndarray::s![*start..start + count, ..]).to_owned())
        }
        Place::Variable(variable) => {
            let file = found.file.as_mut().expect("variables are in the file");
            file.numbers(*variable).and_then(|array| clip_matrix(array, options.transposed))
        }
        Place::File(_) => {
            hash.add(&options.source, &path)?;
            let mut file = super::open(&path)?;
            let variable = select_numbers(file.as_ref(), options.key.as_deref()).map_err(invalid)?;
            file.numbers(variable).and_then(|array| clip_matrix(array, options.transposed))
        }
    };
    Ok((path.clone(), features.map_err(|message| invalid(format!("clip `{}`: {message}", found.items[index].id)))?))
}

/// Selects the variable with the features.
fn select_numbers(file: &dyn File, key: Option<&str>) -> Result<usize, String> {
    let variables = file.variables();
    let list = |variables: &[&Variable]| variables.iter().map(|v| describe(v)).collect::<Vec<_>>().join(", ");
    let all: Vec<&Variable> = variables.iter().collect();
    let check = |index: usize| match &variables[index].kind {
        Kind::Numbers(_) => Ok(index),
        Kind::Texts(_) => Err(format!("{} contains no numbers", describe(&variables[index]))),
        Kind::Other(reason) if variables[index].name.is_empty() => Err(reason.clone()),
        Kind::Other(reason) => Err(format!("`{}`: {reason}", variables[index].name)),
    };
    if let Some(key) = key {
        return match variables.iter().position(|variable| variable.name == key) {
            Some(index) => check(index),
            None => Err(format!("has no variable `{key}`, but {}: select one with --key", list(&all))),
        };
    }
    let numeric: Vec<usize> = (0..variables.len()).filter(|&i| matches!(variables[i].kind, Kind::Numbers(_))).collect();
    // Labels and frame rates are vectors and scalars.
    let axes = |i: &usize| match &variables[*i].kind {
        Kind::Numbers(shape) => shape.iter().filter(|&&n| n != 1).count(),
        _ => 0,
    };
    let matrices: Vec<usize> = numeric.iter().copied().filter(|i| axes(i) >= 2).collect();
    match (matrices.as_slice(), numeric.as_slice(), variables) {
        ([index], ..) | ([], [index], _) => Ok(*index),
        (_, [], [_]) => check(0),
        (_, [], []) => Err("contains no variables".into()),
        (_, [], _) => Err(format!("contains no numbers, but {}", list(&all))),
        _ => {
            let numeric: Vec<&Variable> = numeric.iter().map(|&i| &variables[i]).collect();
            Err(format!(
                "has several arrays: {}; select one with --key NAME, or one per clip with --key '{{id}}'",
                list(&numeric)
            ))
        }
    }
}

/// Returns the rows of one clip: a vector is one row, a matrix (T, D) has T rows. Axes of length 1 are ignored.
fn clip_matrix(array: ArrayD<f32>, transposed: bool) -> Result<Array2<f32>, String> {
    let shape = array.shape().to_vec();
    let mut array = array;
    while let Some(axis) = array.shape().iter().position(|&n| n == 1) {
        array = array.remove_axis(Axis(axis));
    }
    let matrix = match array.ndim() {
        0 | 1 => {
            let vector =
                array.into_shape_with_order(shape.iter().product::<usize>()).map_err(|error| error.to_string())?;
            vector.into_dimensionality::<Ix1>().expect("one axis").insert_axis(Axis(0))
        }
        2 => {
            let matrix = array.into_dimensionality::<Ix2>().expect("two axes");
            if transposed { matrix.reversed_axes().as_standard_layout().into_owned() } else { matrix }
        }
        _ => {
            let shape = describe_shape(&shape);
            return Err(format!(
                "has {shape} values: a clip needs a vector (D) or a matrix (T × D); average the other axes"
            ));
        }
    };
    if matrix.is_empty() {
        return Err(format!("is empty ({})", describe_shape(&shape)));
    }
    Ok(matrix)
}

fn check_finite(id: &str, features: &Array2<f32>) -> Result<(), String> {
    match features.indexed_iter().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some(((row, column), value)) => Err(format!(
            "clip `{id}`, row {row}, feature {column} is {value}, which no classifier accepts: compute it again, or remove the clip"
        )),
    }
}

fn clip_rows(clip: &Clip, features: Array2<f32>) -> ClipRows {
    // Frames and times are unknown.
    let row = RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 0.0, padded: false, scale: 1.0 };
    ClipRows {
        id: clip.id.clone(),
        path: clip.path.clone(),
        start: clip.start,
        end: clip.end,
        frame_count: 0,
        fps: 0.0,
        duration_seconds: 0.0,
        fully_decoded: false,
        version: String::new(),
        rows: vec![row; features.nrows()],
        values: Values::Features(features),
    }
}

/// SHA-256 of a file or, for a directory, of the names and contents of the files that were read.
struct SourceHash(Sha256);

impl SourceHash {
    fn new(options: &ImportOptions) -> Result<Self> {
        let mut hash = Sha256::new();
        if options.source.is_file() {
            copy_into(&mut hash, &options.source)?;
        }
        Ok(Self(hash))
    }

    /// Adds a file of a directory.
    fn add(&mut self, directory: &Path, path: &Path) -> Result<()> {
        let mut hash = Sha256::new();
        copy_into(&mut hash, path)?;
        let name = path.strip_prefix(directory).unwrap_or(path);
        self.0.update(name.as_os_str().as_encoded_bytes());
        self.0.update([0]);
        self.0.update(hash.finalize());
        Ok(())
    }

    fn finish(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}

fn copy_into(hash: &mut Sha256, path: &Path) -> Result<()> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    std::io::copy(&mut file, hash).map_err(Error::io(path))?;
    Ok(())
}
