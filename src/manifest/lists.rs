//! What is accepted in place of a CSV manifest: a folder per class, homework lists, a list of paths.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::csv::{Table, read_text};
use super::problems::{Problems, several};
use super::{Clip, Draft, Entry, Split, is_hidden, is_image, is_media};
use crate::error::{Error, Result};

/// How deep below the root the clips of homework lists are looked for.
const SEARCH_DEPTH: usize = 3;

/// `path` below `root`; a path written with backslashes is understood where it is not there as written.
pub(super) fn resolve(root: &Path, path: &str) -> PathBuf {
    let file = root.join(path);
    if path.contains('\\') && !file.exists() {
        let slashed = root.join(path.replace('\\', "/"));
        if slashed.exists() {
            return slashed;
        }
    }
    file
}

/// One path a line; the id is the path without its extension, or with it where that would not be unique.
pub(super) fn paths(text: &str, root: &Path) -> Draft {
    let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
    let entries = lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(path, line)| Entry { clip: clip(root, path.to_string(), None, None), line: Some(line) })
        .collect();
    let mut draft = Draft { entries, warnings: Vec::new() };
    shorten_ids(&mut draft.entries);
    draft
}

/// A clip whose id is its path, to be shortened by [`shorten_ids`].
fn clip(root: &Path, path: String, label: Option<&str>, split: Option<Split>) -> Clip {
    Clip {
        id: path.replace('\\', "/"),
        file: resolve(root, &path),
        path,
        labels: label.map(str::to_string).into_iter().collect(),
        split,
        ..Clip::default()
    }
}

/// Drops the extensions from the ids that stay unique without.
fn shorten_ids(entries: &mut [Entry]) {
    let short = |id: &str| -> String {
        let path = Path::new(id);
        if is_media(path) { path.with_extension("").to_string_lossy().into_owned() } else { id.to_string() }
    };
    let mut uses: HashMap<String, usize> = HashMap::new();
    for entry in entries.iter() {
        *uses.entry(short(&entry.clip.id)).or_default() += 1;
    }
    for entry in entries {
        let id = short(&entry.clip.id);
        if uses[&id] == 1 {
            entry.clip.id = id;
        }
    }
}

/// A folder: homework lists, or a folder per class.
pub(super) fn folder(source: &Path, root: &Path, problems: &mut Problems) -> Result<Draft> {
    let listing = Listing::of(source)?;
    let mut lists = Vec::new();
    for file in listing.files.iter().filter(|file| file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))) {
        let table = Table::parse(&read_text(file)?, file)?;
        if is_homework(&table.header) {
            lists.push((file.as_path(), table));
        }
    }
    if !lists.is_empty() {
        return homework(&lists, root, problems);
    }
    folder_per_class(source, &listing, problems)
}

/// The visible children of a folder, in natural order.
struct Listing {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Listing {
    fn of(folder: &Path) -> Result<Listing> {
        let mut listing = Listing { folders: Vec::new(), files: Vec::new() };
        for child in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = child.map_err(Error::io(folder))?.path();
            if is_hidden(&name_of(&path)) {
                continue;
            }
            if path.is_dir() {
                listing.folders.push(path);
            } else {
                listing.files.push(path);
            }
        }
        for paths in [&mut listing.folders, &mut listing.files] {
            paths.sort_by(|a, b| {
                let (a, b) = (name_of(a), name_of(b));
                natord::compare(&a, &b).then_with(|| a.cmp(&b))
            });
        }
        Ok(listing)
    }

    fn is_folder_of_frames(&self) -> bool {
        self.folders.is_empty()
            && self.files.iter().any(|file| is_image(file))
            && !self.files.iter().any(|f| is_video(f))
    }
}

fn is_video(path: &Path) -> bool {
    is_media(path) && !is_image(path)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The clips found below a folder, and the files passed over.
struct Finder<'a> {
    root: &'a Path,
    draft: Draft,
    passed_over: Vec<PathBuf>,
}

fn folder_per_class(root: &Path, listing: &Listing, problems: &mut Problems) -> Result<Draft> {
    let mut finder = Finder { root, draft: Draft::default(), passed_over: Vec::new() };
    let splits: Vec<Option<Split>> = listing.folders.iter().map(|folder| Split::parse(&name_of(folder))).collect();
    if listing.folders.is_empty() {
        for file in &listing.files {
            finder.take(file, None, None);
        }
    } else if splits.iter().all(Option::is_some) {
        for (folder, split) in listing.folders.iter().zip(splits) {
            let inner = Listing::of(folder)?;
            // Clips without class folders inside are a test set without labels; elsewhere a label is missing.
            if inner.folders.is_empty() && split != Some(Split::Test) {
                problems.add(None, format!("{} has no folder per class in it", folder.display()));
            }
            finder.classes(&inner, split)?;
            if split == Some(Split::Test) {
                inner.files.iter().for_each(|file| finder.take(file, None, split));
            }
        }
    } else {
        finder.classes(listing, None)?;
        let beside = listing.files.iter().filter(|file| is_media(file)).count();
        if beside > 0 {
            let warning = format!("{} beside the class folders passed over", several(beside, "clip"));
            finder.draft.warnings.push(warning);
        }
    }
    if let Some(first) = finder.passed_over.first() {
        let count = several(finder.passed_over.len(), "file");
        let warning = format!("{count} that are neither video nor image passed over, the first: {}", first.display());
        finder.draft.warnings.push(warning);
    }
    let mut draft = finder.draft;
    if draft.entries.is_empty() && problems.is_empty() {
        problems.add(
            None,
            "no video, image or folder of frames in its folders; wanted is one folder per class with the clips in it, or a CSV with the header id,path,label",
        );
    }
    shorten_ids(&mut draft.entries);
    Ok(draft)
}

impl Finder<'_> {
    fn classes(&mut self, listing: &Listing, split: Option<Split>) -> Result<()> {
        for folder in &listing.folders {
            let before = self.draft.entries.len();
            let label = name_of(folder);
            self.class(folder, &label, split)?;
            if self.draft.entries.len() == before {
                self.draft.warnings.push(format!("the folder {} holds no clip: no class made of it", folder.display()));
            }
        }
        Ok(())
    }

    /// Everything below a class's folder; a folder with only images in it is one clip.
    fn class(&mut self, folder: &Path, label: &str, split: Option<Split>) -> Result<()> {
        let listing = Listing::of(folder)?;
        for file in &listing.files {
            self.take(file, Some(label), split);
        }
        for inner in &listing.folders {
            if Listing::of(inner)?.is_folder_of_frames() {
                self.push(inner, Some(label), split);
            } else {
                self.class(inner, label, split)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, file: &Path, label: Option<&str>, split: Option<Split>) {
        if is_media(file) {
            self.push(file, label, split);
        } else {
            self.passed_over.push(file.to_path_buf());
        }
    }

    fn push(&mut self, file: &Path, label: Option<&str>, split: Option<Split>) {
        let path = file.strip_prefix(self.root).unwrap_or(file).to_string_lossy().into_owned();
        self.draft.entries.push(Entry { clip: clip(self.root, path, label, split), line: None });
    }
}

/// Whether a header is that of a homework list: `Id,Category`, or `Id` alone.
pub(super) fn is_homework(header: &[String]) -> bool {
    let names: Vec<String> = header.iter().map(|name| name.to_lowercase()).collect();
    names.iter().any(|name| name == "id") && names.iter().all(|name| name == "id" || name == "category")
}

/// Homework lists: the clips are looked for below the root, in the folders nearest to it first.
pub(super) fn homework(lists: &[(&Path, Table)], root: &Path, problems: &mut Problems) -> Result<Draft> {
    let mut draft = Draft::default();
    let column = |table: &Table, wanted: &str| table.header.iter().position(|name| name.eq_ignore_ascii_case(wanted));
    let mut wanted: HashSet<&str> = HashSet::new();
    for (_, table) in lists {
        let id = column(table, "id").expect("a homework list has the column Id");
        wanted.extend(table.rows.iter().filter_map(|(_, fields)| fields.get(id)).map(String::as_str));
    }
    let found = search(root, &wanted)?;
    let labeled = |table: &Table| {
        let category = column(table, "category");
        category.is_some_and(|c| table.rows.iter().any(|(_, f)| f.get(c).is_some_and(|label| !label.is_empty())))
    };
    let several_labeled = lists.iter().filter(|(_, table)| labeled(table)).count() > 1;
    for (source, table) in lists {
        let id_column = column(table, "id").expect("a homework list has the column Id");
        let category = column(table, "category").filter(|_| labeled(table));
        let purpose = split_in_name(&name_of(source));
        let mut missing: Vec<String> = Vec::new();
        for (line, fields) in &table.rows {
            // Several lists share one report: a line means nothing without its file.
            let place = |message: String| match lists.len() {
                1 => (Some(*line), message),
                _ => (None, format!("{}:{line}: {message}", source.display())),
            };
            let id = fields.get(id_column).map(String::as_str).unwrap_or_default();
            let label = category.map(|category| fields.get(category).map(String::as_str).unwrap_or_default());
            if id.is_empty() || label == Some("") {
                let what = if id.is_empty() { "the id is empty" } else { "the category is empty; fill it in" };
                let (line, message) = place(what.to_string());
                problems.add(line, message);
                continue;
            }
            let nearest = found.get(id).map(|files| nearest(files, purpose));
            let file = match nearest.as_deref() {
                Some([file]) => file.clone(),
                Some([first, second, ..]) => {
                    let message = format!("clip `{id}` is found twice: {} and {}", first.display(), second.display());
                    let (line, message) = place(message + "; write a manifest with the header id,path,label");
                    problems.add(line, message);
                    continue;
                }
                _ => {
                    missing.push(format!("`{id}` (line {line})"));
                    continue;
                }
            };
            let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            let split = purpose.filter(|_| several_labeled && label.is_some());
            let clip = Clip { id: id.to_string(), file, ..clip(root, path, label, split) };
            draft.entries.push(Entry { clip, line: (lists.len() == 1).then_some(*line) });
        }
        if !missing.is_empty() {
            problems.add(
                None,
                format!(
                    "{}: no file or folder for {} below {}: {}{}; give the folder of the videos with --root",
                    source.display(),
                    several(missing.len(), "id"),
                    root.display(),
                    missing[..missing.len().min(5)].join(", "),
                    if missing.len() > 5 { ", …" } else { "" }
                ),
            );
        }
    }
    Ok(draft)
}

/// `train`, `val` or `test` where a list's name says so.
fn split_in_name(name: &str) -> Option<Split> {
    let name = name.to_lowercase();
    [("train", Split::Train), ("val", Split::Val), ("test", Split::Test)]
        .into_iter()
        .find(|(word, _)| name.contains(word))
        .map(|(_, split)| split)
}

/// Of several files with the same name: those in a folder that the list's name speaks of, else those nearest the root.
pub(super) fn nearest(files: &[PathBuf], purpose: Option<Split>) -> Vec<PathBuf> {
    let depth = |file: &Path| file.components().count();
    let least = files.iter().map(|file| depth(file)).min().unwrap_or(0);
    let shallow = || files.iter().filter(|file| depth(file) == least).cloned().collect::<Vec<_>>();
    let meant = |file: &&PathBuf| {
        let folder = file.parent().map(name_of).unwrap_or_default();
        purpose.is_some() && split_in_name(&folder) == purpose
    };
    let of_purpose: Vec<PathBuf> = files.iter().filter(meant).cloned().collect();
    if of_purpose.is_empty() { shallow() } else { of_purpose }
}

/// The files and folders below `root` whose name, with or without its extension, is one of `wanted`.
pub(super) fn search(root: &Path, wanted: &HashSet<&str>) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    for depth in 0..SEARCH_DEPTH {
        let mut deeper = Vec::new();
        for folder in std::mem::take(&mut folders) {
            let listing = Listing::of(&folder)?;
            for file in listing.files.into_iter().filter(|file| is_media(file)) {
                let (name, stem) = (name_of(&file), name_of(&file.with_extension("")));
                let id = if wanted.contains(name.as_str()) { name } else { stem };
                if wanted.contains(id.as_str()) {
                    found.entry(id).or_default().push(file);
                }
            }
            for inner in listing.folders {
                let name = name_of(&inner);
                if wanted.contains(name.as_str()) {
                    found.entry(name).or_default().push(inner);
                } else if depth + 1 < SEARCH_DEPTH {
                    deeper.push(inner);
                }
            }
        }
        folders = deeper;
    }
    Ok(found)
}
