//! Which clips: ids, paths, labels, groups and splits.
//!
//! [`Manifest::load`] takes a CSV with a header ([`csv`]), a folder per class, the lists of a course's homework
//! (`Id,Category` beside a folder of videos) or a plain list of paths ([`lists`]). [`import`] makes a manifest of published
//! data sets. Whatever is wrong is said in one
//! message with file, line and remedy, several problems at a time. [`split::assign`] draws a split where there is none.

mod columns;
mod csv;
pub mod imbalance;
pub mod import;
mod lists;
mod problems;
pub mod split;
mod stratify;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use problems::{Problems, several};

/// Extensions of videos, lower case.
pub const VIDEO_EXTENSIONS: [&str; 16] = [
    "mp4", "avi", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "mjpg", "mjpeg", "wmv", "flv", "ogv", "ts", "3gp", "gif",
];

/// Extensions of still images, lower case.
pub const IMAGE_EXTENSIONS: [&str; 10] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "ppm", "pgm", "pnm"];

/// Which part of the data a clip belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Fits the classifier (and the codebook, and the standardization).
    Train,
    /// Decides early stopping and thresholds.
    Val,
    /// Is only ever looked at.
    Test,
}

impl Split {
    /// `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }

    /// Reads a split's name; `valid` and `validation` are `val`, capitals do not matter.
    pub fn parse(name: &str) -> Option<Split> {
        match name.to_lowercase().as_str() {
            "train" => Some(Split::Train),
            "val" | "valid" | "validation" => Some(Split::Val),
            "test" => Some(Split::Test),
            _ => None,
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One clip of the manifest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clip {
    /// Unique within the manifest.
    pub id: String,
    /// The path as the manifest gives it.
    pub path: String,
    /// The file (or folder of frames) itself: `path` below the root.
    pub file: PathBuf,
    /// The labels; empty where the clip is unlabeled, one for single-label data.
    pub labels: Vec<String>,
    /// Clips of one group (a film, a source video) never stand in two splits.
    pub group: Option<String>,
    /// The split, where the manifest gives one.
    pub split: Option<Split>,
    /// First second to use.
    pub start: Option<f64>,
    /// Second to stop before.
    pub end: Option<f64>,
    /// The year it came out.
    pub year: Option<i32>,
}

impl Clip {
    /// The number of frames, where the clip is a folder of frames.
    pub fn frames(&self) -> Option<usize> {
        self.file.is_dir().then(|| frames_in(&self.file))
    }

    /// Whether its file is named like a picture.
    pub fn is_image(&self) -> bool {
        is_image(&self.file)
    }
}

/// The clips of a data set, in the order of the file.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file or folder it was read from.
    pub source: PathBuf,
    /// The clips.
    pub clips: Vec<Clip>,
    /// What the user should know: unknown columns, unlabeled clips left out.
    pub warnings: Vec<String>,
    /// SHA-256 of the clips' ids, paths, starts and ends, in hexadecimal.
    pub sha256: String,
}

/// The file that kinoprobe-demo leaves beside a manifest of what it made.
pub const DEMO_STAMP: &str = ".made";

/// A clip and the line it stands on (none for folders).
struct Entry {
    clip: Clip,
    line: Option<u64>,
}

/// What a reader of one format hands to the checks common to all.
#[derive(Default)]
struct Draft {
    entries: Vec<Entry>,
    warnings: Vec<String>,
}

impl Manifest {
    /// Reads a manifest, or what stands in its place.
    ///
    /// | `source` | read as |
    /// |-|-|
    /// | a text file with a header with `id` and `path` | CSV: `id,path,label` or `labels` (`\|` between them), `split`, `group`, `start`, `end`, `year`, in any order |
    /// | a text file with the header `Id,Category` or `Id` | homework list; the clip of an id is looked for below `root` |
    /// | any other text file | one path a line, unlabeled; blank lines and lines that begin with `#` are skipped |
    /// | a folder with a `manifest.csv` | that file |
    /// | a folder with homework lists | all of them; `train`, `val`, `test` in their names give the splits where more than one has labels |
    /// | any other folder | a folder per class, also below `train`, `val` and `test`; a folder of images inside a class is one clip |
    ///
    /// Paths are relative to `root`, which is the manifest's folder where it is not given. A label may be empty for
    /// clips of the split `test` only: they are predicted, never measured.
    ///
    /// # Errors
    /// In one message, with lines: missing files, duplicate ids, an unknown split, an empty label, a label without a
    /// training clip (where there are training clips), a misspelt header, a `start` or `end` that is no number or
    /// reversed, a `year` that is no whole number, a group in two splits, text that is not UTF-8, no clip at all.
    pub fn load(source: &Path, root: Option<&Path>) -> Result<Manifest> {
        let metadata = std::fs::metadata(source).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Manifest {
                path: source.to_path_buf(),
                line: None,
                message: "there is no such manifest, list or folder".into(),
            },
            _ => Error::Io { path: source.to_path_buf(), source: error },
        })?;
        let listed = source.join("manifest.csv");
        let (source, folder) =
            if metadata.is_dir() && listed.is_file() { (listed.as_path(), false) } else { (source, metadata.is_dir()) };
        let root =
            root.map_or_else(|| if folder { source.to_path_buf() } else { folder_of(source) }, Path::to_path_buf);
        let mut problems = Problems::new(source);
        let draft = if folder {
            lists::folder(source, &root, &mut problems)?
        } else {
            csv::file(source, &root, &mut problems)?
        };
        let mut warnings = draft.warnings;
        if draft.entries.is_empty() && problems.is_empty() {
            problems.add(None, "there is no clip in it");
        }
        check(&draft.entries, &root, &mut problems, &mut warnings);
        problems.finish()?;
        let clips: Vec<Clip> = draft.entries.into_iter().map(|entry| entry.clip).collect();
        let manifest = Manifest { source: source.to_path_buf(), sha256: digest(&clips), clips, warnings };
        if manifest.clips.iter().any(|clip| clip.split == Some(Split::Train)) {
            manifest.check_training()?;
        }
        Ok(manifest)
    }

    /// The distinct labels in natural order (`2` before `10`).
    pub fn classes(&self) -> Vec<String> {
        let mut classes: Vec<String> =
            self.clips.iter().flat_map(|clip| &clip.labels).collect::<BTreeSet<_>>().into_iter().cloned().collect();
        classes.sort_by(|a, b| natord::compare(a, b).then_with(|| a.cmp(b)));
        classes
    }

    /// Whether kinoprobe-demo made the clips: it leaves [`DEMO_STAMP`] beside their manifest.
    pub fn is_demo(&self) -> bool {
        self.source.with_file_name(DEMO_STAMP).is_file()
    }

    /// Whether a clip has more than one label.
    pub fn is_multi_label(&self) -> bool {
        self.clips.iter().any(|clip| clip.labels.len() > 1)
    }

    /// Checks that every label of the validation and test clips also has a training clip.
    ///
    /// # Errors
    /// There is no labeled training clip, or a label has none.
    pub fn check_training(&self) -> Result<()> {
        let mut with: BTreeSet<&str> = BTreeSet::new();
        let mut elsewhere: BTreeMap<&str, Vec<&Clip>> = BTreeMap::new();
        for clip in &self.clips {
            for label in &clip.labels {
                match clip.split {
                    Some(Split::Train) => {
                        with.insert(label);
                    }
                    Some(_) => elsewhere.entry(label).or_default().push(clip),
                    None => {}
                }
            }
        }
        let mut problems = Problems::new(&self.source);
        if with.is_empty() {
            problems.add(None, "there is no labeled clip of the split train");
        }
        for (label, clips) in elsewhere.into_iter().filter(|(label, _)| !with.contains(label)) {
            problems.add(
                None,
                format!(
                    "the label `{label}` has no training clip, but {} (first `{}`) in val or test; move one to train, or leave the label out",
                    several(clips.len(), "clip"),
                    clips[0].id
                ),
            );
        }
        problems.finish()
    }

    /// Writes the clips as CSV: `id,path`, `label` (or `labels`), `split`, and `group`, `start`, `end`, `year` where a clip
    /// has one. Paths stay as they were given: read it again with the same root. Unlabeled clips are written with the
    /// split `test`, the only one in which a label may be empty.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let has = |of: fn(&Clip) -> bool| self.clips.iter().any(of);
        let labeled = has(|clip| !clip.labels.is_empty());
        // A label may itself hold the separator of `labels`: then it stands alone, in the column `label`.
        let label = if self.is_multi_label() { "labels" } else { "label" };
        let columns: Vec<&str> = [
            ("id", true),
            ("path", true),
            (label, labeled),
            ("split", true),
            ("group", has(|clip| clip.group.is_some())),
            ("start", has(|clip| clip.start.is_some())),
            ("end", has(|clip| clip.end.is_some())),
            ("year", has(|clip| clip.year.is_some())),
        ]
        .into_iter()
        .filter_map(|(name, used)| used.then_some(name))
        .collect();
        let number = |value: Option<f64>| value.map(|seconds| seconds.to_string()).unwrap_or_default();
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(&columns).expect("writing to memory");
        for clip in &self.clips {
            let predicted_only = labeled && clip.labels.is_empty();
            let split = clip.split.or(predicted_only.then_some(Split::Test)).map_or("", Split::name);
            let fields = columns.iter().map(|column| match *column {
                "id" => clip.id.clone(),
                "path" => clip.path.clone(),
                "split" => split.to_string(),
                "group" => clip.group.clone().unwrap_or_default(),
                "start" => number(clip.start),
                "end" => number(clip.end),
                "year" => clip.year.map(|year| year.to_string()).unwrap_or_default(),
                _ => clip.labels.join("|"),
            });
            writer.write_record(fields).expect("writing to memory");
        }
        let bytes = writer.into_inner().expect("writing to memory");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        std::fs::write(path, bytes).map_err(Error::io(path))
    }
}

/// The checks that all formats have in common.
fn check(entries: &[Entry], root: &Path, problems: &mut Problems, warnings: &mut Vec<String>) {
    let mut first: HashMap<&str, Option<u64>> = HashMap::new();
    for entry in entries {
        match first.get(entry.clip.id.as_str()) {
            Some(line) => {
                let before = line.map(|line| format!(" (first on line {line})")).unwrap_or_default();
                problems.add(entry.line, format!("the id `{}` stands twice{before}; ids must differ", entry.clip.id));
            }
            None => {
                first.insert(&entry.clip.id, entry.line);
            }
        }
    }
    let missing: Vec<&Entry> = entries.iter().filter(|entry| !entry.clip.file.exists()).collect();
    if let Some(entry) = missing.first() {
        let shown: Vec<String> = missing.iter().take(5).map(|entry| named(entry)).collect();
        problems.add(
            if missing.len() == 1 { entry.line } else { None },
            format!(
                "{} of {} missing below {}: {}{}; correct the paths, or give their folder with --root",
                several(missing.len(), "file"),
                entries.len(),
                root.display(),
                shown.join(", "),
                if missing.len() > shown.len() { ", …" } else { "" }
            ),
        );
    }
    check_groups(entries, problems);
    let unlabeled = entries.iter().filter(|entry| entry.clip.labels.is_empty()).count();
    if unlabeled == entries.len() && unlabeled > 0 {
        warnings.push("no clip has a label: good for features, not for training".into());
    } else if unlabeled > 0 {
        warnings.push(format!("{} without a label: predicted only", several(unlabeled, "clip")));
    }
    let unsplit = entries.iter().filter(|e| e.clip.split.is_none() && !e.clip.labels.is_empty()).count();
    if unsplit > 0 && entries.iter().any(|e| e.clip.split.is_some() && !e.clip.labels.is_empty()) {
        warnings.push(format!(
            "{} with a label but without a split, where others have one: left out",
            several(unsplit, "clip")
        ));
    }
    let mut spellings: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for label in entries.iter().flat_map(|entry| &entry.clip.labels) {
        spellings.entry(label.to_lowercase()).or_default().insert(label);
    }
    for labels in spellings.values().filter(|labels| labels.len() > 1) {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        warnings.push(format!("labels that differ in capitals only count as different: {}", labels.join(", ")));
    }
    let whole = entries.iter().filter(|e| e.clip.start.is_none() && e.clip.end.is_none());
    let mut owners: HashMap<&Path, &str> = HashMap::new();
    let twice: Vec<&str> = whole
        .filter_map(|entry| owners.insert(&entry.clip.file, &entry.clip.id).map(|_| entry.clip.id.as_str()))
        .collect();
    if let Some(id) = twice.first() {
        warnings.push(format!("{} also under another id, such as `{id}`", several(twice.len(), "file")));
    }
}

/// A group must not stand in two splits.
fn check_groups(entries: &[Entry], problems: &mut Problems) {
    let mut groups: BTreeMap<&str, BTreeMap<Split, &Entry>> = BTreeMap::new();
    for entry in entries {
        if let (Some(group), Some(split)) = (&entry.clip.group, entry.clip.split) {
            groups.entry(group).or_default().entry(split).or_insert(entry);
        }
    }
    for (group, splits) in groups.iter().filter(|(_, splits)| splits.len() > 1) {
        let where_: Vec<String> = splits.iter().map(|(split, entry)| format!("{split} ({})", named(entry))).collect();
        problems.add(
            None,
            format!(
                "the group `{group}` stands in more than one split: {}; one group belongs to one split, or the score is a lie",
                where_.join(", ")
            ),
        );
    }
}

fn named(entry: &Entry) -> String {
    match entry.line {
        Some(line) => format!("`{}` (line {line})", entry.clip.path),
        None => format!("`{}`", entry.clip.path),
    }
}

/// SHA-256 of what decides extraction, every field ended so that none can run into the next.
fn digest(clips: &[Clip]) -> String {
    let mut hasher = Sha256::new();
    for clip in clips {
        for text in [&clip.id, &clip.path] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for seconds in [clip.start, clip.end] {
            // -1 is no start or end a clip can have.
            hasher.update(seconds.unwrap_or(-1.0).to_le_bytes());
        }
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder a file stands in.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// How many images a folder has.
fn frames_in(folder: &Path) -> usize {
    let visible = |path: &PathBuf| path.file_name().is_some_and(|name| !is_hidden(&name.to_string_lossy()));
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|child| child.path());
    files.filter(|path| visible(path) && is_image(path)).count()
}

/// Whether a file's extension is one of a video or image.
fn is_media(path: &Path) -> bool {
    has_extension(path, &VIDEO_EXTENSIONS) || is_image(path)
}

fn is_image(path: &Path) -> bool {
    has_extension(path, &IMAGE_EXTENSIONS)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| known.contains(&extension.as_str()))
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name == "__MACOSX" || name == "Thumbs.db"
}
