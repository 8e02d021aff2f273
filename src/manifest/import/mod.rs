//! Data sets in the layout they are published in, made into a manifest.
//!
//! A reader of one layout ([`movienet`], [`trailers85`], [`table`]) lists titles with their labels. What is common
//! follows here: labels outside the wanted ones are dropped, the files of each title are looked for by its id, titles
//! without files or labels are left out, and all of it is counted ([`Summary`]).

mod movienet;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod trailers85;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::problems::{Problems, several};
use super::{Clip, Entry, Manifest, Split, check, digest, folder_of, lists};
use crate::error::{Error, Result};
pub use movienet::GENRES;
pub use summary::Summary;

/// A layout that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// MovieNet: a folder `meta` of one JSON a title, and a folder of keyframes `shot_0000_img_0.jpg` per title
    Movienet,
    /// 85 labels: `train_test_split_dict.json`, and a folder of PNG frames per title
    Trailers85,
    /// Trailers12k: `mtgc.csv` with 0/1 columns and `split0` to `split2`, and a video or a folder of frames per title
    Trailers12k,
    /// Posters: a CSV with `Id,Genre` and 0/1 columns, and `Images/ID.jpg`
    Posters,
    /// Any CSV with an id or a path, and `labels` or 0/1 columns
    Csv,
}

/// Which labels become labels of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Labels {
    /// Those of the layout: MovieNet's 21 genres ([`GENRES`]); elsewhere all but `N/A`.
    #[default]
    Usual,
    /// All.
    All,
    /// These.
    Only(Vec<String>),
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The folder below which videos, images and folders of frames lie; `None` for the source's own folder.
    pub clips: Option<PathBuf>,
    /// Which labels to keep.
    pub labels: Labels,
    /// Which of the three splits of Trailers12k.
    pub split: u8,
    /// What stands between the labels of a column `labels`, other than `|`.
    pub separator: Option<char>,
}

/// A manifest, and what became of the data set.
#[derive(Debug)]
pub struct Imported {
    /// The clips; their paths are absolute until written.
    pub manifest: Manifest,
    /// What was kept, dropped and missing.
    pub summary: Summary,
}

/// A title as its data set lists it.
#[derive(Debug, Default)]
struct Title {
    id: String,
    /// The file, where the list names it; else it is found by the id.
    path: Option<String>,
    labels: Vec<String>,
    split: Option<Split>,
    group: Option<String>,
    year: Option<i32>,
    line: Option<u64>,
}

/// What the reader of a layout found.
#[derive(Debug, Default)]
struct Listed {
    titles: Vec<Title>,
    warnings: Vec<String>,
    /// How many frames a title is published with, least and most.
    frames: Option<(usize, usize)>,
}

/// Reads a data set in its published layout. `source` is its list, or the folder in which the list lies.
///
/// A title becomes a clip whose group is itself, unless the list names another; several titles of one film want a column
/// `group`. A title is left out, and counted, where its files are missing or none of its labels is kept; titles of the
/// test split that are listed without any label stay, to be predicted. A label that no training clip has is dropped from
/// the other splits.
///
/// # Errors
/// The list is missing or malformed (file and line are named), an id stands twice, a title has files at two places, a
/// group stands in two splits, or nothing is left.
pub fn import(format: Format, source: &Path, settings: &Settings) -> Result<Imported> {
    let list = list_of(format, source)?;
    let mut problems = Problems::new(&list);
    let listed = match format {
        Format::Movienet => movienet::read(&list, &mut problems)?,
        Format::Trailers85 => trailers85::read(&list, &mut problems)?,
        Format::Trailers12k => table::read(&list, table::Layout::trailers12k(settings.split), &mut problems)?,
        Format::Posters => table::read(&list, table::Layout::posters(), &mut problems)?,
        Format::Csv => table::read(&list, table::Layout::any(settings.separator), &mut problems)?,
    };
    // MovieNet's list is the folder `meta`, or its parent where the user named that.
    let beside = if source.is_dir() { source.to_path_buf() } else { folder_of(source) };
    let root = settings.clips.clone().unwrap_or(beside);
    if !root.is_dir() {
        let message = "no such folder; --clips names the one below which videos, images and frames lie".into();
        return Err(Error::Manifest { path: root, line: None, message });
    }
    let Listed { mut titles, mut warnings, frames } = listed;
    let mut summary =
        Summary { format: format!("{format:?}").to_lowercase(), listed: titles.len(), ..Summary::default() };
    if titles.is_empty() && problems.is_empty() {
        problems.add(None, "it lists no title");
    }
    choose_labels(&mut titles, format, &settings.labels, &mut summary);
    let mut entries = locate(titles, &root, &mut summary, &mut problems)?;
    check(&entries, &root, &mut problems, &mut warnings);
    problems.finish()?;
    drop_untrained(&mut entries, &mut summary);
    summary.count(&entries, frames);
    let clips: Vec<Clip> = entries.into_iter().map(|entry| entry.clip).collect();
    Ok(Imported { manifest: Manifest { sha256: digest(&clips), source: list, clips, warnings }, summary })
}

impl Imported {
    /// Writes the manifest. Paths below its folder are written relative to it, others absolute, so that it is read
    /// without `--root`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_csv(mut self, path: &Path) -> Result<()> {
        let folder = folder_of(path);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let folder = folder.canonicalize().map_err(Error::io(&folder))?;
        for clip in &mut self.manifest.clips {
            let file = clip.file.canonicalize().map_err(Error::io(&clip.file))?;
            clip.path = file.strip_prefix(&folder).unwrap_or(&file).to_string_lossy().into_owned();
        }
        self.manifest.write_csv(path)
    }
}

/// The list itself: `source`, or what a folder calls it.
fn list_of(format: Format, source: &Path) -> Result<PathBuf> {
    let wrong = |message: String| Err(Error::Manifest { path: source.to_path_buf(), line: None, message });
    if !source.exists() {
        return wrong("there is no such file or folder".into());
    }
    if !source.is_dir() || format == Format::Movienet {
        return Ok(source.to_path_buf());
    }
    let names: &[&str] = match format {
        Format::Trailers85 => &["train_test_split_dict.json"],
        Format::Trailers12k => &["mtgc.csv"],
        _ => &[],
    };
    if let Some(list) = names.iter().map(|name| source.join(name)).find(|list| list.is_file()) {
        return Ok(list);
    }
    // Posters and other tables go by any name: a folder with one CSV leaves no doubt.
    let children = std::fs::read_dir(source).map_err(Error::io(source))?.flatten().map(|child| child.path());
    let mut tables: Vec<PathBuf> =
        children.filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))).collect();
    match (names, tables.len()) {
        ([], 1) => Ok(tables.remove(0)),
        ([], count) => wrong(format!("{} in this folder; name the one to import", several(count, "CSV file"))),
        ([name, ..], _) => wrong(format!("no {name} in this folder; name the list itself if it is called otherwise")),
    }
}

/// Keeps the labels asked for and counts the others.
fn choose_labels(titles: &mut [Title], format: Format, wanted: &Labels, summary: &mut Summary) {
    let keeps = |label: &str| match wanted {
        Labels::All => true,
        Labels::Only(labels) => labels.iter().any(|kept| kept == label),
        Labels::Usual if format == Format::Movienet => GENRES.contains(&label),
        Labels::Usual => label != "N/A",
    };
    for title in titles {
        let labels = std::mem::take(&mut title.labels);
        let listed = !labels.is_empty();
        for label in labels {
            if !keeps(&label) {
                *summary.dropped_labels.entry(label).or_default() += 1;
            } else if !title.labels.contains(&label) {
                title.labels.push(label);
            }
        }
        if title.labels.is_empty() && (listed || title.split != Some(Split::Test)) {
            summary.without_label.push(title.id.clone());
        }
    }
}

/// Finds the files of the titles that kept a label.
fn locate(titles: Vec<Title>, root: &Path, summary: &mut Summary, problems: &mut Problems) -> Result<Vec<Entry>> {
    let left_out: HashSet<String> = summary.without_label.iter().cloned().collect();
    let titles: Vec<Title> = titles.into_iter().filter(|title| !left_out.contains(&title.id)).collect();
    let wanted: HashSet<&str> = titles.iter().filter(|t| t.path.is_none()).map(|title| title.id.as_str()).collect();
    let found = if wanted.is_empty() { BTreeMap::new() } else { lists::search(root, &wanted)? };
    let mut entries = Vec::new();
    for title in titles {
        let files = match &title.path {
            Some(path) => vec![lists::resolve(root, path)],
            None => found.get(&title.id).map(|files| lists::nearest(files, None)).unwrap_or_default(),
        };
        if let [first, second, ..] = files.as_slice() {
            let message = format!("title `{}` is found twice: {} and {}", title.id, first.display(), second.display());
            problems.add(title.line, message + "; name the folder of the right ones with --clips");
            continue;
        }
        let file = files.into_iter().next().filter(|file| file.exists());
        let Some(file) = file.filter(|file| !file.is_dir() || super::frames_in(file) > 0) else {
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
        entries.push(Entry { clip, line: title.line });
    }
    if entries.is_empty() && problems.is_empty() {
        let mut message = format!("nothing is left of {}", several(summary.listed, "title"));
        if let Some(first) = summary.without_label.first() {
            message += &format!("; {} without a wanted label, such as `{first}`", summary.without_label.len());
        }
        if let Some(first) = summary.missing.first() {
            let below = root.display();
            message += &format!(
                "; {} without files below {below}, such as `{first}`: name their folder with --clips",
                summary.missing.len()
            );
        }
        problems.add(None, message);
    }
    Ok(entries)
}

/// Where there is a training split: drops the labels that no training clip has, which nothing could learn.
fn drop_untrained(entries: &mut Vec<Entry>, summary: &mut Summary) {
    let training = |entry: &&Entry| entry.clip.split == Some(Split::Train);
    let trained: BTreeSet<String> = entries.iter().filter(training).flat_map(|e| e.clip.labels.clone()).collect();
    if trained.is_empty() {
        return;
    }
    entries.retain_mut(|entry| {
        let labeled = !entry.clip.labels.is_empty();
        entry.clip.labels.retain(|label| {
            let kept = trained.contains(label) || entry.clip.split.is_none();
            if !kept {
                *summary.untrained_labels.entry(label.clone()).or_default() += 1;
            }
            kept
        });
        let kept = !labeled || !entry.clip.labels.is_empty();
        if !kept {
            summary.without_label.push(entry.clip.id.clone());
        }
        kept
    });
}
