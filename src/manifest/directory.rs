//! Directory listings and the search for clips by their ids.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::clip::{Clip, Split, is_hidden, is_image, is_media, is_video};
use super::parsed::ParsedClip;
use super::resolve::resolve;
use crate::error::{Error, Result};

/// Number of directory levels below the root that [`find_by_id`] searches.
const SEARCH_DEPTH: usize = 3;

/// The visible entries of a directory in natural order (`2` before `10`).
pub(super) struct Listing {
    pub(super) directories: Vec<PathBuf>,
    pub(super) files: Vec<PathBuf>,
}

impl Listing {
    /// Lists a directory.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be read.
    pub(super) fn read(directory: &Path) -> Result<Listing> {
        let mut listing = Listing { directories: Vec::new(), files: Vec::new() };
        for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
            let path = entry.map_err(Error::io(directory))?.path();
            if is_hidden(&file_name(&path)) {
                continue;
            }
            if path.is_dir() {
                listing.directories.push(path);
            } else {
                listing.files.push(path);
            }
        }
        for paths in [&mut listing.directories, &mut listing.files] {
            paths.sort_by(|a, b| {
                let (a, b) = (file_name(a), file_name(b));
                natord::compare(&a, &b).then_with(|| a.cmp(&b))
            });
        }
        Ok(listing)
    }

    /// Returns `true` if the directory is one clip: images without videos and subdirectories.
    pub(super) fn is_frame_directory(&self) -> bool {
        self.directories.is_empty()
            && self.files.iter().any(|file| is_image(file))
            && !self.files.iter().any(|file| is_video(file))
    }
}

/// Converts a path to text. Bytes that are not UTF-8 are written in hexadecimal, as `%FF`.
pub(super) fn path_text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    text
}

/// Returns the last component of a path; see [`path_text`].
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| path_text(Path::new(name))).unwrap_or_default()
}

/// Builds a clip whose id is its path; [`strip_extensions`] shortens the id.
pub(super) fn clip_from_path(root: &Path, path: String, label: Option<&str>, split: Option<Split>) -> Clip {
    Clip {
        id: path.replace('\\', "/"),
        file: resolve(root, &path),
        path,
        labels: label.map(str::to_string).into_iter().collect(),
        split,
        ..Clip::default()
    }
}

/// Removes the extension from every id that stays unique without it.
pub(super) fn strip_extensions(clips: &mut [ParsedClip]) {
    let strip = |id: &str| -> String {
        let path = Path::new(id);
        if is_media(path) { path.with_extension("").to_string_lossy().into_owned() } else { id.to_string() }
    };
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for parsed in clips.iter() {
        *uses.entry(strip(&parsed.clip.id)).or_default() += 1;
    }
    for parsed in clips {
        let id = strip(&parsed.clip.id);
        if uses[&id] == 1 {
            parsed.clip.id = id;
        }
    }
}

/// Returns the split that a name contains: `train`, `val` or `test`.
pub(super) fn split_in_name(name: &str) -> Option<Split> {
    let name = name.to_lowercase();
    Split::ALL.into_iter().find(|split| name.contains(split.name()))
}

/// Selects among files with the same id: those in a directory named after `split` if there are any, otherwise those
/// closest to the root.
pub(super) fn select_candidates(files: &[PathBuf], split: Option<Split>) -> Vec<PathBuf> {
    let in_split =
        |file: &&PathBuf| split.is_some() && split_in_name(&file.parent().map(file_name).unwrap_or_default()) == split;
    let named: Vec<PathBuf> = files.iter().filter(in_split).cloned().collect();
    if !named.is_empty() {
        return named;
    }
    let depth = |file: &Path| file.components().count();
    let min_depth = files.iter().map(|file| depth(file)).min().unwrap_or(0);
    files.iter().filter(|file| depth(file) == min_depth).cloned().collect()
}

/// Finds the media files and directories below `root` whose name, with or without extension, is one of `ids`. Files and
/// directories that several links lead to are found once, at the first path of those closest to the root.
///
/// # Errors
/// Returns an error if a directory cannot be read.
pub(super) fn find_by_id(root: &Path, ids: &HashSet<&str>) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut known: HashSet<PathBuf> = root.canonicalize().into_iter().collect();
    // A broken link has no canonical path.
    let mut is_new = |path: &Path| path.canonicalize().map_or(true, |path| known.insert(path));
    let mut level = vec![root.to_path_buf()];
    for depth in 0..SEARCH_DEPTH {
        let mut next_level = Vec::new();
        for directory in std::mem::take(&mut level) {
            let listing = Listing::read(&directory)?;
            for file in listing.files.into_iter().filter(|file| is_media(file)) {
                let (name, stem) = (file_name(&file), file_name(&file.with_extension("")));
                let id = if ids.contains(name.as_str()) { name } else { stem };
                if ids.contains(id.as_str()) && is_new(&file) {
                    found.entry(id).or_default().push(file);
                }
            }
            for directory in listing.directories.into_iter().filter(|directory| is_new(directory)) {
                let name = file_name(&directory);
                if ids.contains(name.as_str()) {
                    found.entry(name).or_default().push(directory);
                } else if depth + 1 < SEARCH_DEPTH {
                    next_level.push(directory);
                }
            }
        }
        level = next_level;
    }
    Ok(found)
}
