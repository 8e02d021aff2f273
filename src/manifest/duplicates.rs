//! Clips with the same content: repeated entries, links and copies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Manifest;
use super::clip::{Clip, frame_files};
use super::problems::count_of;

/// Length in bytes of the parts at the start, in the middle and at the end of a file that are compared before the whole file.
const SAMPLE_LEN: u64 = 4096;

/// Maximum number of groups in a warning.
const MAX_SHOWN: usize = 5;

impl Manifest {
    /// Returns the groups of clips that show the same period of equal files or directories of frames: the same file, links to
    /// it, or copies. Groups and clips are in the order of the manifest. Files that are missing, empty or unreadable are
    /// compared by their paths only.
    ///
    /// Files of equal size are compared by a sample of their bytes, and files with equal samples by their SHA-256.
    pub fn duplicates(&self) -> Vec<Vec<&Clip>> {
        let canonical = |clip: &Clip| clip.file.canonicalize().unwrap_or_else(|_| clip.file.clone());
        let paths: Vec<PathBuf> = self.clips.par_iter().map(canonical).collect();
        let distinct: BTreeSet<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let groups = split_by(vec![distinct.into_iter().collect()], file_sizes);
        let groups = split_by(groups, |path| hash(path, read_sample));
        let groups = split_by(groups, |path| hash(path, io::copy));
        let originals: HashMap<&Path, &Path> =
            groups.iter().flat_map(|paths| paths.iter().map(|&path| (path, paths[0]))).collect();
        let mut clips: HashMap<_, Vec<usize>> = HashMap::new();
        for (position, (clip, path)) in self.clips.iter().zip(&paths).enumerate() {
            let original = originals.get(path.as_path()).copied().unwrap_or(path);
            let period = [clip.start.unwrap_or(0.0), clip.end.unwrap_or(f64::INFINITY)].map(f64::to_bits);
            clips.entry((original, period)).or_default().push(position);
        }
        let mut groups: Vec<Vec<usize>> = clips.into_values().filter(|positions| positions.len() > 1).collect();
        groups.sort_unstable();
        groups.into_iter().map(|group| group.into_iter().map(|position| &self.clips[position]).collect()).collect()
    }
}

/// Returns a warning that lists groups of [`Manifest::duplicates`], those with several splits first; `None` if there are none.
pub fn duplicate_warning(groups: &[Vec<&Clip>]) -> Option<String> {
    let is_split = |group: &&Vec<&Clip>| group.iter().filter_map(|clip| clip.split).collect::<BTreeSet<_>>().len() > 1;
    let name = |clip: &&Clip| {
        let split = clip.split.map(|split| format!(" ({split})")).unwrap_or_default();
        format!("`{}`{split}", clip.id)
    };
    let (leaking, others): (Vec<_>, Vec<_>) = groups.iter().partition(is_split);
    let shown = leaking.iter().chain(&others).take(MAX_SHOWN);
    let shown: Vec<String> = shown.map(|group| group.iter().map(name).collect::<Vec<_>>().join(" = ")).collect();
    let more = if groups.len() > MAX_SHOWN { ", …" } else { "" };
    let leakage = match leaking.len() {
        0 => String::new(),
        1 => "; 1 group is in more than one split, so results on held-out clips are too high".into(),
        count => format!("; {count} groups are in more than one split, so results on held-out clips are too high"),
    };
    let remedy = "keep one clip of each group, or give its clips one value in the column `group`";
    (!groups.is_empty()).then(|| {
        let count = count_of(groups.len(), "group");
        format!("{count} of clips with the same content: {}{more}{leakage}; {remedy}", shown.join(", "))
    })
}

/// Splits groups by a key and returns the parts with more than one path. Paths without a key are dropped.
fn split_by<K: Ord + Send>(groups: Vec<Vec<&Path>>, key: impl Fn(&Path) -> Option<K> + Sync) -> Vec<Vec<&Path>> {
    let mut parts = Vec::new();
    for paths in groups {
        let keys: Vec<Option<K>> = paths.par_iter().map(|path| key(path)).collect();
        let mut by_key: BTreeMap<K, Vec<&Path>> = BTreeMap::new();
        for (key, path) in keys.into_iter().zip(paths) {
            if let Some(key) = key {
                by_key.entry(key).or_default().push(path);
            }
        }
        parts.extend(by_key.into_values().filter(|paths| paths.len() > 1));
    }
    parts
}

/// Returns the files of a clip: the file itself, or the frames of a directory.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() { frame_files(path) } else { vec![path.to_path_buf()] }
}

/// Returns the sizes of the files of a clip in bytes; `None` if there is no file, or one is empty or not a regular file.
fn file_sizes(path: &Path) -> Option<Vec<u64>> {
    let size = |file: PathBuf| {
        let metadata = file.metadata().ok()?;
        (metadata.is_file() && metadata.len() > 0).then_some(metadata.len())
    };
    let sizes = files(path).into_iter().map(size).collect::<Option<Vec<u64>>>()?;
    (!sizes.is_empty()).then_some(sizes)
}

/// Returns the SHA-256 of the bytes that `read` reads from the files of a clip; `None` if a file cannot be read.
fn hash(path: &Path, read: fn(&mut File, &mut Sha256) -> io::Result<u64>) -> Option<[u8; 32]> {
    let mut hasher = Sha256::new();
    for file in files(path) {
        read(&mut File::open(file).ok()?, &mut hasher).ok()?;
    }
    Some(hasher.finalize().into())
}

/// Reads [`SAMPLE_LEN`] bytes at the start, in the middle and at the end of a file.
fn read_sample(file: &mut File, hasher: &mut Sha256) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let mut read = 0;
    for start in [0, len / 2, len.saturating_sub(SAMPLE_LEN)] {
        file.seek(SeekFrom::Start(start))?;
        read += io::copy(&mut file.take(SAMPLE_LEN), hasher)?;
    }
    Ok(read)
}
