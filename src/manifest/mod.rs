//! Manifests: the ids, paths, labels, groups and splits of the clips of a data set.
//!
//! [`Manifest::load`] detects the format ([`formats`]) and calls its reader: a CSV manifest ([`csv`]), one directory per
//! class ([`class_directories`]), tar archives ([`tar_shards`]), id lists (`Id,Category`) next to a directory of videos
//! ([`id_lists`]) or a list of paths. [`import`] converts published data sets. [`validate`] holds the checks that all
//! formats share; one error reports several problems, each with its line and remedy ([`problems`]). [`split::assign`] draws
//! a split if there is none.

mod class_directories;
mod clip;
mod columns;
mod csv;
mod directory;
mod duplicates;
mod formats;
mod id_lists;
pub mod imbalance;
pub mod import;
mod inputs;
mod normalize;
mod parsed;
mod problems;
mod resolve;
pub mod split;
mod stratify;
mod table;
mod tar_shards;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::directory_of;
#[cfg(feature = "media")]
pub(crate) use clip::is_image;
pub use clip::{Clip, IMAGE_EXTENSIONS, Split, VIDEO_EXTENSIONS};
pub use duplicates::duplicate_warning;
pub use normalize::normalize_label;
use parsed::ParsedClip;
use problems::{Problems, count_of};

/// The clips of a data set, in the order of the file.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file or directory it was read from.
    pub source: PathBuf,
    /// The clips.
    pub clips: Vec<Clip>,
    /// Warnings for the user, such as ignored columns and unlabeled clips.
    pub warnings: Vec<String>,
    /// SHA-256 of the ids, paths, starts and ends of the clips, in hexadecimal.
    pub sha256: String,
}

/// Whether the media files of a manifest must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaFiles {
    Required,
    Optional,
}

/// File that kinoprobe-demo writes next to the manifest of the clips it generates.
pub const DEMO_MARKER: &str = ".made";

impl Manifest {
    /// Reads a manifest. The format is detected from `source`:
    ///
    /// | `source` | format |
    /// |-|-|
    /// | text file with `id` and `path` in its header | CSV with the columns `id,path`, `label` or `labels` (separated by `\|`), `split`, `group`, `start`, `end`, `year`, in any order |
    /// | text file with the header `Id,Category` or `Id` | id list; the clip of an id is searched below `root` |
    /// | tar archive | its videos and images; the label of `NAME.mp4` is in `NAME.cls`, as in WebDataset |
    /// | other text file | one path per line, unlabeled; blank lines and lines that start with `#` are skipped |
    /// | directory with a `manifest.csv` | that file |
    /// | directory with id lists | all lists; if more than one has labels, `train`, `val` and `test` in their names determine the splits |
    /// | directory with tar archives, also in `train`, `val` and `test`, and without other directories | all archives; the split may be a word of their names |
    /// | other directory | one directory per class, optionally below `train`, `val` and `test`; a directory of images inside a class is one clip |
    ///
    /// Files and directories that several links lead to are read once, with the label of the directory that contains them. A
    /// broken link, or a file whose name is not UTF-8, is a clip that fails when it is decoded.
    ///
    /// Labels are converted to Unicode normalization form C, with a warning. Paths are relative to `root`, and
    /// below it. Without `root` they are relative to the directory of the manifest, and may name any file. Only clips of the
    /// split `test` may have an empty label: they are predicted, but not evaluated.
    ///
    /// # Errors
    /// Returns one error with the problems and their lines: missing files, paths that lead out of `root`, duplicate ids,
    /// unknown splits, empty labels, labels without a training clip (if there are training clips), misspelled columns, an
    /// invalid `start`, `end` or `year`, groups in two splits, text that is not UTF-8, or no clips.
    pub fn load(source: &Path, root: Option<&Path>) -> Result<Manifest> {
        Self::read(source, root, root, MediaFiles::Required)
    }

    /// Reads a manifest as [`Manifest::load`] does, for its ids, labels and splits. The media files need not exist. A clip of
    /// an id list whose file does not exist has its id as path.
    ///
    /// # Errors
    /// Returns an error under the conditions of [`Manifest::load`], except for missing files.
    pub fn load_labels(source: &Path, root: Option<&Path>) -> Result<Manifest> {
        Self::read(source, root, root, MediaFiles::Optional)
    }

    /// Reads a manifest as [`Manifest::load_labels`] does. Its paths are relative to `directory`, but may lead out of it.
    ///
    /// # Errors
    /// Returns an error under the conditions of [`Manifest::load_labels`], except for paths that lead out of the root.
    pub fn load_labels_relative_to(source: &Path, directory: &Path) -> Result<Manifest> {
        Self::read(source, Some(directory), None, MediaFiles::Optional)
    }

    /// Reads a manifest whose paths are relative to `directory` (`None`: its own) and stay below `root`, if there is one.
    fn read(source: &Path, directory: Option<&Path>, root: Option<&Path>, media: MediaFiles) -> Result<Manifest> {
        let (source, directory, read) = Self::locate(source, directory)?;
        let mut problems = Problems::new(&source);
        let mut parsed = read(&source, &directory, media, &mut problems)?;
        let mut warnings = parsed.warnings;
        warnings.extend(normalize::normalize_labels(parsed.clips.iter_mut().map(|parsed| &mut parsed.clip)));
        if parsed.clips.is_empty() && problems.is_empty() {
            problems.add(None, "the manifest has no clips");
        }
        validate::validate(&parsed.clips, &mut problems, &mut warnings);
        if let Some(root) = root {
            validate::check_below(&parsed.clips, root, &mut problems);
        }
        if media == MediaFiles::Required {
            validate::check_files(&parsed.clips, Some(&directory), &mut problems);
        }
        problems.finish()?;
        let clips: Vec<Clip> = parsed.clips.into_iter().map(|parsed| parsed.clip).collect();
        let sha256 = validate::extraction_sha256(&clips);
        let manifest = Manifest { source, clips, warnings, sha256 };
        if manifest.clips.iter().any(|clip| clip.split == Some(Split::Train)) {
            manifest.check_training()?;
        }
        Ok(manifest)
    }

    /// Checks the files of a manifest that [`Manifest::load_labels`] has read, as [`Manifest::load`] does.
    ///
    /// # Errors
    /// Returns an error that lists the first missing files.
    pub fn check_files(&self) -> Result<()> {
        let clips: Vec<ParsedClip> =
            self.clips.iter().map(|clip| ParsedClip { clip: clip.clone(), line: None }).collect();
        let mut problems = Problems::new(&self.source);
        validate::check_files(&clips, None, &mut problems);
        problems.finish()
    }

    /// Returns a manifest with some of the clips, and without warnings.
    #[must_use]
    pub fn with_clips<'a>(&self, clips: impl IntoIterator<Item = &'a Clip>) -> Self {
        let clips: Vec<Clip> = clips.into_iter().cloned().collect();
        let sha256 = validate::extraction_sha256(&clips);
        Self { source: self.source.clone(), clips, warnings: Vec::new(), sha256 }
    }

    /// Returns [`Manifest::sha256`] of the clips in the order of their ids.
    pub fn unordered_sha256(&self) -> String {
        let mut clips: Vec<&Clip> = self.clips.iter().collect();
        clips.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        validate::extraction_sha256(clips)
    }

    /// Returns the file or directory to read for `source`, the root of its paths, and its reader.
    ///
    /// # Errors
    /// Returns an error if `source` does not exist.
    fn locate(source: &Path, root: Option<&Path>) -> Result<(PathBuf, PathBuf, formats::Reader)> {
        let metadata = std::fs::metadata(source).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Manifest {
                path: source.to_path_buf(),
                line: None,
                message: "no such manifest, list or directory".into(),
            },
            _ => Error::Io { path: source.to_path_buf(), source: error },
        })?;
        let contained = source.join("manifest.csv");
        let (source, is_directory) = if metadata.is_dir() && contained.is_file() {
            (contained, false)
        } else {
            (source.to_path_buf(), metadata.is_dir())
        };
        let default_root = || if is_directory { source.clone() } else { directory_of(&source).to_path_buf() };
        let root = root.map_or_else(default_root, Path::to_path_buf);
        Ok((source, root, if is_directory { formats::read_directory } else { formats::read_file }))
    }

    /// Returns the distinct labels in natural order (`2` before `10`).
    pub fn classes(&self) -> Vec<String> {
        let mut classes: Vec<String> =
            self.clips.iter().flat_map(|clip| &clip.labels).collect::<BTreeSet<_>>().into_iter().cloned().collect();
        classes.sort_by(|a, b| natord::compare(a, b).then_with(|| a.cmp(b)));
        classes
    }

    /// Returns `true` if kinoprobe-demo generated the clips (see [`DEMO_MARKER`]).
    pub fn is_demo(&self) -> bool {
        self.source.with_file_name(DEMO_MARKER).is_file()
    }

    /// Returns `true` if a clip has more than one label.
    pub fn is_multi_label(&self) -> bool {
        self.clips.iter().any(|clip| clip.labels.len() > 1)
    }

    /// Checks that every label of the validation and test clips also has a training clip.
    ///
    /// # Errors
    /// Returns an error if there is no labeled training clip, or if a label has none.
    pub fn check_training(&self) -> Result<()> {
        let mut trained: BTreeSet<&str> = BTreeSet::new();
        let mut held_out: BTreeMap<&str, Vec<&Clip>> = BTreeMap::new();
        for clip in &self.clips {
            for label in &clip.labels {
                match clip.split {
                    Some(Split::Train) => {
                        trained.insert(label);
                    }
                    Some(_) => held_out.entry(label).or_default().push(clip),
                    None => {}
                }
            }
        }
        let mut problems = Problems::new(&self.source);
        if trained.is_empty() {
            problems.add(None, "no labeled clip in the split train");
        }
        for (label, clips) in held_out.into_iter().filter(|(label, _)| !trained.contains(label)) {
            problems.add(
                None,
                format!(
                    "label `{label}` has no training clip, but {} in val or test (first `{}`); move one to train, or remove the label",
                    count_of(clips.len(), "clip"),
                    clips[0].id
                ),
            );
        }
        problems.finish()
    }

    /// Writes the clips as CSV with the columns `id,path`, `label` or `labels`, `split`, and those of `group`, `start`,
    /// `end` and `year` that a clip has. Paths are written as they were read, URLs with their signatures: load the file with the same
    /// root. If other
    /// clips are labeled, unlabeled clips get the split `test`, the only one that allows an empty label.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let any_clip = |predicate: fn(&Clip) -> bool| self.clips.iter().any(predicate);
        let labeled = any_clip(|clip| !clip.labels.is_empty());
        // The column `label` is not split at `|`, so a single label may contain it.
        let label = if self.is_multi_label() { "labels" } else { "label" };
        let columns: Vec<&str> = [
            ("id", true),
            ("path", true),
            (label, labeled),
            ("split", true),
            ("group", any_clip(|clip| clip.group.is_some())),
            ("start", any_clip(|clip| clip.start.is_some())),
            ("end", any_clip(|clip| clip.end.is_some())),
            ("year", any_clip(|clip| clip.year.is_some())),
        ]
        .into_iter()
        .filter_map(|(name, used)| used.then_some(name))
        .collect();
        let number = |value: Option<f64>| value.map(|seconds| seconds.to_string()).unwrap_or_default();
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(&columns).expect("writes to memory do not fail");
        for clip in &self.clips {
            let needs_test = labeled && clip.labels.is_empty();
            let split = clip.split.or(needs_test.then_some(Split::Test)).map_or("", Split::name);
            let fields = columns.iter().map(|column| match *column {
                "id" => clip.id.clone(),
                "path" => clip.url.as_ref().map_or_else(|| clip.path.clone(), |url| url.reveal().to_owned()),
                "split" => split.to_string(),
                "group" => clip.group.clone().unwrap_or_default(),
                "start" => number(clip.start),
                "end" => number(clip.end),
                "year" => clip.year.map(|year| year.to_string()).unwrap_or_default(),
                _ => clip.labels.join("|"),
            });
            writer.write_record(fields).expect("writes to memory do not fail");
        }
        let bytes = writer.into_inner().expect("writes to memory do not fail");
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        }
        std::fs::write(path, bytes).map_err(Error::io(path))
    }
}
