//! Reader of directory trees with one directory per class, optionally below one directory per split.

use std::path::{Path, PathBuf};

use super::clip::{Split, is_media};
use super::directory::{Listing, clip_from_path, file_name, strip_extensions};
use super::parsed::{ParsedClip, ParsedManifest};
use super::problems::{Problems, count_of};
use crate::error::Result;

/// Reads the clips below `root`; `listing` lists `root`.
///
/// # Errors
/// Returns an error if a directory cannot be read.
pub(super) fn read(root: &Path, listing: &Listing, problems: &mut Problems) -> Result<ParsedManifest> {
    let mut collector = Collector { root, parsed: ParsedManifest::default(), ignored: Vec::new() };
    let splits: Vec<Option<Split>> =
        listing.directories.iter().map(|directory| Split::parse(&file_name(directory))).collect();
    if listing.directories.is_empty() {
        for file in &listing.files {
            collector.add_file(file, None, None);
        }
    } else if splits.iter().all(Option::is_some) {
        for (directory, split) in listing.directories.iter().zip(splits) {
            let inner = Listing::read(directory)?;
            // A test split may be unlabeled: its clips are not in class directories.
            if inner.directories.is_empty() && split != Some(Split::Test) {
                problems.add(None, format!("{} has no class directories", directory.display()));
            }
            collector.add_classes(&inner, split)?;
            if split == Some(Split::Test) {
                inner.files.iter().for_each(|file| collector.add_file(file, None, split));
            }
        }
    } else {
        collector.add_classes(listing, None)?;
        let outside = listing.files.iter().filter(|file| is_media(file)).count();
        if outside > 0 {
            let warning = format!("ignored {} outside the class directories", count_of(outside, "clip"));
            collector.parsed.warnings.push(warning);
        }
    }
    if let Some(first) = collector.ignored.first() {
        let count = count_of(collector.ignored.len(), "file");
        let warning = format!("ignored {count} that are neither videos nor images, such as {}", first.display());
        collector.parsed.warnings.push(warning);
    }
    let mut parsed = collector.parsed;
    if parsed.clips.is_empty() && problems.is_empty() {
        problems.add(
            None,
            "no video, image or directory of frames found; expected one directory per class, or a CSV with the header id,path,label",
        );
    }
    strip_extensions(&mut parsed.clips);
    Ok(parsed)
}

/// Collects the clips below a directory and the files that are ignored.
struct Collector<'a> {
    root: &'a Path,
    parsed: ParsedManifest,
    ignored: Vec<PathBuf>,
}

impl Collector<'_> {
    /// Adds the clips of every class directory of `listing`.
    fn add_classes(&mut self, listing: &Listing, split: Option<Split>) -> Result<()> {
        for directory in &listing.directories {
            let before = self.parsed.clips.len();
            self.add_class(directory, &file_name(directory), split)?;
            if self.parsed.clips.len() == before {
                self.parsed.warnings.push(format!("ignored directory {} without clips", directory.display()));
            }
        }
        Ok(())
    }

    /// Adds all clips below a class directory; a subdirectory that contains only images is one clip.
    fn add_class(&mut self, directory: &Path, label: &str, split: Option<Split>) -> Result<()> {
        let listing = Listing::read(directory)?;
        for file in &listing.files {
            self.add_file(file, Some(label), split);
        }
        for inner in &listing.directories {
            if Listing::read(inner)?.is_frame_directory() {
                self.add_clip(inner, Some(label), split);
            } else {
                self.add_class(inner, label, split)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path, label: Option<&str>, split: Option<Split>) {
        if is_media(file) {
            self.add_clip(file, label, split);
        } else {
            self.ignored.push(file.to_path_buf());
        }
    }

    fn add_clip(&mut self, file: &Path, label: Option<&str>, split: Option<Split>) {
        let path = file.strip_prefix(self.root).unwrap_or(file).to_string_lossy().into_owned();
        self.parsed.clips.push(ParsedClip { clip: clip_from_path(self.root, path, label, split), line: None });
    }
}
