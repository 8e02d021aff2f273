//! Reader of directory trees with one directory per class, optionally below one directory per split.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::clip::{Clip, Split, is_media};
use super::directory::{Listing, clip_from_path, file_name, path_text, strip_extensions};
use super::parsed::{ParsedClip, ParsedManifest};
use super::problems::{Problems, count_of};
use crate::error::{Error, Result};

/// Reads the clips below `root`; `listing` lists `root`. Each file and directory is read once.
///
/// # Errors
/// Returns an error if a directory cannot be read.
pub(super) fn read(root: &Path, listing: &Listing, problems: &mut Problems) -> Result<ParsedManifest> {
    // Links to what is below the root anyway are ignored, also those that are listed earlier: a file has the label of the
    // directory that contains it.
    let mut collector = Collector::new(root, Links::Ignore)?;
    collector.add_tree(listing, &mut Problems::new(root))?;
    let mut collector = Collector { known: collector.known, ..Collector::new(root, Links::Follow)? };
    collector.add_tree(listing, problems)?;
    Ok(collector.finish(problems))
}

/// Reads all videos and images below `root` as clips without labels. With `frame_directories`, a subdirectory that contains only
/// images is one clip.
///
/// # Errors
/// Returns an error if a directory cannot be read.
pub(super) fn read_unlabeled(root: &Path, frame_directories: bool, problems: &mut Problems) -> Result<ParsedManifest> {
    let mut known = HashSet::new();
    let mut collect = |links, problems: &mut Problems| -> Result<ParsedManifest> {
        let mut collector = Collector { known: std::mem::take(&mut known), ..Collector::new(root, links)? };
        collector.add_directory(root, None, None, frame_directories)?;
        known = std::mem::take(&mut collector.known);
        Ok(collector.finish(problems))
    };
    // As above, links to what is below the root anyway are ignored.
    collect(Links::Ignore, &mut Problems::new(root))?;
    collect(Links::Follow, problems)
}

/// Treatment of symbolic links.
#[derive(PartialEq)]
enum Links {
    Ignore,
    Follow,
}

/// Collects the clips below a directory and the files that are ignored.
struct Collector<'a> {
    root: &'a Path,
    canonical_root: PathBuf,
    links: Links,
    /// Canonical paths of the clips and directories.
    known: HashSet<PathBuf>,
    parsed: ParsedManifest,
    ignored: Vec<PathBuf>,
    /// Links to clips and directories that are read elsewhere.
    repeated: Vec<PathBuf>,
}

impl<'a> Collector<'a> {
    fn new(root: &'a Path, links: Links) -> Result<Self> {
        let canonical_root = root.canonicalize().map_err(Error::io(root))?;
        Ok(Self {
            root,
            links,
            canonical_root,
            known: HashSet::new(),
            parsed: ParsedManifest::default(),
            ignored: Vec::new(),
            repeated: Vec::new(),
        })
    }

    /// Adds the clips below the root.
    fn add_tree(&mut self, listing: &Listing, problems: &mut Problems) -> Result<()> {
        let splits: Vec<Option<Split>> =
            listing.directories.iter().map(|directory| Split::parse(&file_name(directory))).collect();
        if listing.directories.is_empty() {
            listing.files.iter().for_each(|file| self.add_file(file, None, None));
        } else if splits.iter().all(Option::is_some) {
            for (directory, split) in listing.directories.iter().zip(splits) {
                if self.is_new(directory) {
                    self.add_split(directory, split, problems)?;
                }
            }
        } else {
            self.add_classes(listing, None)?;
            let outside = listing.files.iter().filter(|file| is_media(file)).count();
            if outside > 0 {
                let warning = format!("ignored {} outside the class directories", count_of(outside, "clip"));
                self.parsed.warnings.push(warning);
            }
        }
        Ok(())
    }

    /// Adds the class directories of a split.
    fn add_split(&mut self, directory: &Path, split: Option<Split>, problems: &mut Problems) -> Result<()> {
        let inner = Listing::read(directory)?;
        // A test split may be unlabeled: its clips are not in class directories.
        if inner.directories.is_empty() && split != Some(Split::Test) {
            problems.add(None, format!("{} has no class directories", directory.display()));
        }
        self.add_classes(&inner, split)?;
        if split == Some(Split::Test) {
            inner.files.iter().for_each(|file| self.add_file(file, None, split));
        }
        Ok(())
    }

    /// Adds the clips of every class directory of `listing`.
    fn add_classes(&mut self, listing: &Listing, split: Option<Split>) -> Result<()> {
        for directory in &listing.directories {
            if !self.is_new(directory) {
                continue;
            }
            let before = self.parsed.clips.len();
            self.add_directory(directory, Some(&file_name(directory)), split, true)?;
            if self.parsed.clips.len() == before {
                self.parsed.warnings.push(format!("ignored directory {} without clips", directory.display()));
            }
        }
        Ok(())
    }

    /// Adds all clips below a directory. With `frame_directories`, a subdirectory that contains only images is one clip.
    fn add_directory(
        &mut self,
        directory: &Path,
        label: Option<&str>,
        split: Option<Split>,
        frame_directories: bool,
    ) -> Result<()> {
        let listing = Listing::read(directory)?;
        for file in &listing.files {
            self.add_file(file, label, split);
        }
        for inner in &listing.directories {
            if !self.is_new(inner) {
                continue;
            }
            if frame_directories && Listing::read(inner)?.is_frame_directory() {
                self.add_clip(inner, label, split);
            } else {
                self.add_directory(inner, label, split, frame_directories)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path, label: Option<&str>, split: Option<Split>) {
        if !is_media(file) {
            self.ignored.push(file.to_path_buf());
        } else if self.is_new(file) {
            self.add_clip(file, label, split);
        }
    }

    fn add_clip(&mut self, file: &Path, label: Option<&str>, split: Option<Split>) {
        let path = path_text(file.strip_prefix(self.root).unwrap_or(file));
        // Text does not always lead back to the file: its name may not be UTF-8.
        let clip = Clip { file: file.to_path_buf(), ..clip_from_path(self.root, path, label, split) };
        self.parsed.clips.push(ParsedClip { clip, line: None });
    }

    /// Returns `true` if a clip or directory is to be read, which is the case for one path to it.
    fn is_new(&mut self, path: &Path) -> bool {
        let Ok(canonical) = path.canonicalize() else {
            // A broken link is a clip that fails.
            return true;
        };
        let is_link = canonical != self.canonical_root.join(path.strip_prefix(self.root).unwrap_or(path));
        if is_link && self.links == Links::Ignore {
            return false;
        }
        let contains_root = self.canonical_root.starts_with(&canonical);
        let is_new = !contains_root && self.known.insert(canonical) || !is_link;
        if !is_new {
            self.repeated.push(path.to_path_buf());
        }
        is_new
    }

    /// Returns the clips, with warnings.
    fn finish(self, problems: &mut Problems) -> ParsedManifest {
        let Self { mut parsed, ignored, repeated, .. } = self;
        if let Some(first) = ignored.first() {
            let count = count_of(ignored.len(), "file");
            let warning = format!("ignored {count} that are neither videos nor images, such as {}", first.display());
            parsed.warnings.push(warning);
        }
        if let Some(first) = repeated.first() {
            let count = count_of(repeated.len(), "link");
            let warning = format!("ignored {count} to what is read elsewhere, such as {}", first.display());
            parsed.warnings.push(warning);
        }
        let unnamed: Vec<&Clip> =
            parsed.clips.iter().map(|parsed| &parsed.clip).filter(|clip| clip.file.to_str().is_none()).collect();
        if let Some(first) = unnamed.first() {
            let (count, name) = (count_of(unnamed.len(), "path"), &first.path);
            parsed.warnings.push(format!("{count} not in UTF-8, such as {name}: these clips fail, rename them"));
        }
        if parsed.clips.is_empty() && problems.is_empty() {
            problems.add(
                None,
                "no video, image or directory of frames found; expected one directory per class, or a CSV with the header id,path,label",
            );
        }
        strip_extensions(&mut parsed.clips);
        parsed
    }
}
