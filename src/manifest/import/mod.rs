//! Converts published data sets into manifests.
//!
//! The reader of a format ([`movienet`], [`trailers85`], [`table`]) lists titles with their labels. [`import`] then applies
//! the label filter, finds the files of each title by its id, excludes titles without files or labels, and reports the counts
//! ([`Summary`]).

mod json;
mod movienet;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod title;
mod trailers85;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::clip::{Clip, Split, frame_files};
use super::directory::{find_by_id, select_candidates};
use super::parsed::ParsedClip;
use super::problems::{Problems, count_of};
use super::resolve::resolve;
use super::{Manifest, normalize, validate};
use crate::error::{Error, Result};
use crate::files::directory_of;
use crate::suggest::did_you_mean;
pub use movienet::GENRES;
pub use summary::Summary;
use title::{Title, TitleList};

/// A format that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// MovieNet: a directory `meta` with one JSON file per title, and keyframes `shot_0000_img_0.jpg` in one directory per title
    Movienet,
    /// 85 labels: `train_test_split_dict.json`, and a directory of PNG frames per title
    Trailers85,
    /// Trailers12k: `mtgc.csv` with 0/1 columns and `split0` to `split2`, and a video or a directory of frames per title
    Trailers12k,
    /// Posters: a CSV with `Id,Genre` and 0/1 columns, and `Images/ID.jpg`
    Posters,
    /// CSV with an id or a path, and `labels` or 0/1 columns
    Csv,
}

/// The labels to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LabelFilter {
    /// The default of the format: the 21 genres of MovieNet ([`GENRES`]); for other formats all labels except `N/A`.
    #[default]
    FormatDefault,
    /// All labels.
    All,
    /// Only these labels.
    Only(Vec<String>),
}

/// Options of [`import`].
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Directory of the videos, images and directories of frames; `None` for the directory of the source.
    pub clips: Option<PathBuf>,
    /// The labels to keep.
    pub labels: LabelFilter,
    /// Index of the split of Trailers12k, 0 to 2.
    pub split: u8,
    /// Separator of the labels in a column `labels`; `None` for `|`.
    pub separator: Option<char>,
}

/// The result of [`import`].
#[derive(Debug)]
pub struct Imported {
    /// The manifest. [`Imported::write_csv`] makes its paths relative.
    pub manifest: Manifest,
    /// Counts of kept, dropped and missing titles and labels.
    pub summary: Summary,
}

/// Imports a published data set. `source` is its list, or the directory of the list.
///
/// A title becomes a clip. The group of a clip is its title, unless the list has a column `group`; use that column for
/// several titles of one film. A title is excluded, and counted, if its files are missing or if none of its labels is
/// kept. Test titles that are listed without labels are kept for prediction. Labels without a training clip are dropped
/// from the other splits.
///
/// # Errors
/// Returns an error with file and line if the list is missing or malformed, an id is not unique, a title has several
/// files, a group is in two splits, or no clip remains.
pub fn import(format: Format, source: &Path, options: &ImportOptions) -> Result<Imported> {
    let list = find_list(format, source)?;
    let mut problems = Problems::new(&list);
    let TitleList { mut titles, mut warnings, frame_range } = match format {
        Format::Movienet => movienet::read(&list, &mut problems)?,
        Format::Trailers85 => trailers85::read(&list, &mut problems)?,
        Format::Trailers12k => table::read(&list, table::Schema::trailers12k(options.split), &mut problems)?,
        Format::Posters => table::read(&list, table::Schema::posters(), &mut problems)?,
        Format::Csv => table::read(&list, table::Schema::csv(options.separator), &mut problems)?,
    };
    let default_root = || if source.is_dir() { source.to_path_buf() } else { directory_of(source).to_path_buf() };
    let root = options.clips.clone().unwrap_or_else(default_root);
    if !root.is_dir() {
        let message = "no such directory; set the directory of the videos, images and frames with --clips".into();
        return Err(Error::Manifest { path: root, line: None, message });
    }
    let mut summary =
        Summary { format: format!("{format:?}").to_lowercase(), listed: titles.len(), ..Summary::default() };
    if titles.is_empty() && problems.is_empty() {
        problems.add(None, "the list has no titles");
    }
    let unknown_labels = unknown_labels(&titles, &options.labels);
    warnings.extend(unknown_labels.iter().cloned());
    filter_labels(&mut titles, format, &options.labels, &mut summary);
    let mut clips = find_clips(titles, &root, &mut summary, &mut problems)?;
    warnings.extend(normalize::normalize_labels(clips.iter_mut().map(|parsed| &mut parsed.clip)));
    if clips.is_empty() && problems.is_empty() {
        problems.add(None, no_clips_message(&summary, &root, &unknown_labels));
    }
    validate::validate(&clips, &mut problems, &mut warnings);
    validate::check_files(&clips, Some(&root), &mut problems);
    problems.finish()?;
    drop_labels_without_training_clips(&mut clips, &mut summary);
    summary.count(&clips, frame_range);
    let clips: Vec<Clip> = clips.into_iter().map(|parsed| parsed.clip).collect();
    let sha256 = validate::extraction_sha256(&clips);
    Ok(Imported { manifest: Manifest { source: list, clips, warnings, sha256 }, summary })
}

impl Imported {
    /// Writes the manifest. Paths below its directory are written relative to it, other paths absolute, so that it loads
    /// without `--root`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_csv(mut self, path: &Path) -> Result<()> {
        let directory = directory_of(path);
        std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        let directory = directory.canonicalize().map_err(Error::io(&directory))?;
        for clip in &mut self.manifest.clips {
            let file = clip.file.canonicalize().map_err(Error::io(&clip.file))?;
            clip.path = file.strip_prefix(&directory).unwrap_or(&file).to_string_lossy().into_owned();
        }
        self.manifest.write_csv(path)
    }
}

/// Returns the path of the list: `source`, or the list in the directory `source`.
fn find_list(format: Format, source: &Path) -> Result<PathBuf> {
    let error = |message: String| Err(Error::Manifest { path: source.to_path_buf(), line: None, message });
    if !source.exists() {
        return error("no such file or directory".into());
    }
    if !source.is_dir() || format == Format::Movienet {
        return Ok(source.to_path_buf());
    }
    let fixed_name = match format {
        Format::Trailers85 => Some("train_test_split_dict.json"),
        Format::Trailers12k => Some("mtgc.csv"),
        _ => None,
    };
    if let Some(name) = fixed_name {
        let list = source.join(name);
        return if list.is_file() {
            Ok(list)
        } else {
            error(format!("no {name} in this directory; pass the list itself"))
        };
    }
    // The other formats have no fixed name: the list is the only CSV file.
    let entries = std::fs::read_dir(source).map_err(Error::io(source))?.flatten().map(|entry| entry.path());
    let mut tables: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))).collect();
    match tables.len() {
        1 => Ok(tables.remove(0)),
        count => error(format!("{} in this directory; pass the list itself", count_of(count, "CSV file"))),
    }
}

/// Returns a message for each label of the filter that no title has, with the most similar label.
fn unknown_labels(titles: &[Title], filter: &LabelFilter) -> Vec<String> {
    let LabelFilter::Only(requested) = filter else { return Vec::new() };
    let labels: BTreeSet<&str> = titles.iter().flat_map(|title| title.labels.iter().map(String::as_str)).collect();
    let choices = labels.iter().copied().collect::<Vec<_>>().join(", ");
    let unknown = requested.iter().filter(|label| !labels.contains(label.as_str()));
    unknown
        .map(|label| {
            let hint = did_you_mean(label, labels.iter().copied());
            format!("no title has the label `{label}`; the labels are {choices}{hint}")
        })
        .collect()
}

/// Applies the label filter and counts the dropped labels.
fn filter_labels(titles: &mut [Title], format: Format, filter: &LabelFilter, summary: &mut Summary) {
    let keep = |label: &str| match filter {
        LabelFilter::All => true,
        LabelFilter::Only(labels) => labels.iter().any(|kept| kept == label),
        LabelFilter::FormatDefault if format == Format::Movienet => GENRES.contains(&label),
        LabelFilter::FormatDefault => label != "N/A",
    };
    for title in titles {
        let labels = std::mem::take(&mut title.labels);
        let was_labeled = !labels.is_empty();
        for label in labels {
            if !keep(&label) {
                *summary.dropped_labels.entry(label).or_default() += 1;
            } else if !title.labels.contains(&label) {
                title.labels.push(label);
            }
        }
        if title.labels.is_empty() && (was_labeled || title.split != Some(Split::Test)) {
            summary.without_label.push(title.id.clone());
        }
    }
}

/// Finds the files of the titles that have a kept label.
fn find_clips(
    titles: Vec<Title>,
    root: &Path,
    summary: &mut Summary,
    problems: &mut Problems,
) -> Result<Vec<ParsedClip>> {
    let excluded_ids: HashSet<String> = summary.without_label.iter().cloned().collect();
    let titles: Vec<Title> = titles.into_iter().filter(|title| !excluded_ids.contains(&title.id)).collect();
    let ids: HashSet<&str> = titles.iter().filter(|t| t.path.is_none()).map(|title| title.id.as_str()).collect();
    let candidates = if ids.is_empty() { BTreeMap::new() } else { find_by_id(root, &ids)? };
    let mut clips = Vec::new();
    for title in titles {
        let files = match &title.path {
            Some(path) => vec![resolve(root, path)],
            None => candidates.get(&title.id).map(|files| select_candidates(files, None)).unwrap_or_default(),
        };
        if let [first, second, ..] = files.as_slice() {
            let message = format!(
                "several files for title `{}`: {} and {}; select their directory with --clips",
                title.id,
                first.display(),
                second.display()
            );
            problems.add(title.line, message);
            continue;
        }
        let file = files.into_iter().next().filter(|file| file.exists());
        let Some(file) = file.filter(|file| !file.is_dir() || !frame_files(file).is_empty()) else {
            summary.missing.push(title.id);
            continue;
        };
        let clip = Clip {
            path: file.to_string_lossy().into_owned(),
            group: title.group.or_else(|| Some(title.id.clone())),
            id: title.id,
            file,
            labels: title.labels,
            split: title.split,
            year: title.year,
            ..Clip::default()
        };
        clips.push(ParsedClip { clip, line: title.line });
    }
    Ok(clips)
}

/// Returns the error message if no clip remains.
fn no_clips_message(summary: &Summary, root: &Path, unknown_labels: &[String]) -> String {
    let mut message = format!("no clip remains of {}", count_of(summary.listed, "title"));
    if let Some(first) = summary.without_label.first() {
        message += &format!("; {} without a kept label, such as `{first}`", summary.without_label.len());
    }
    if let Some(first) = summary.missing.first() {
        let (missing, root) = (summary.missing.len(), root.display());
        message +=
            &format!("; {missing} without files below {root}, such as `{first}`: set their directory with --clips");
    }
    for unknown in unknown_labels {
        message += &format!("; {unknown}");
    }
    message
}

/// Drops the labels without a training clip, if there is a training split, and the clips that have no other label.
fn drop_labels_without_training_clips(clips: &mut Vec<ParsedClip>, summary: &mut Summary) {
    let training = clips.iter().map(|parsed| &parsed.clip).filter(|clip| clip.split == Some(Split::Train));
    let trained: BTreeSet<String> = training.flat_map(|clip| clip.labels.iter().cloned()).collect();
    if trained.is_empty() {
        return;
    }
    clips.retain_mut(|ParsedClip { clip, .. }| {
        let was_labeled = !clip.labels.is_empty();
        clip.labels.retain(|label| {
            let keep = trained.contains(label) || clip.split.is_none();
            if !keep {
                *summary.untrained_labels.entry(label.clone()).or_default() += 1;
            }
            keep
        });
        let keep = !was_labeled || !clip.labels.is_empty();
        if !keep {
            summary.without_label.push(clip.id.clone());
        }
        keep
    });
}
