//! Checks that all manifest formats share, and the hash of a manifest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

use super::clip::{Clip, Split};
use super::parsed::ParsedClip;
use super::problems::{Problems, count_of};

/// Number of clips that a message lists.
const MAX_SHOWN: usize = 5;

/// Checks ids and groups, and warns about missing labels and splits.
pub(super) fn validate(clips: &[ParsedClip], problems: &mut Problems, warnings: &mut Vec<String>) {
    check_ids(clips, problems);
    check_groups(clips, problems);
    warn_of_missing_labels(clips, warnings);
    warn_of_label_case(clips, warnings);
}

pub(super) fn check_ids(clips: &[ParsedClip], problems: &mut Problems) {
    let mut first_lines: HashMap<&str, Option<u64>> = HashMap::new();
    for parsed in clips {
        let id = &parsed.clip.id;
        match first_lines.get(id.as_str()) {
            Some(line) => {
                let first = line.map(|line| format!(" (first on line {line})")).unwrap_or_default();
                problems.add(parsed.line, format!("duplicate id `{id}`{first}; ids must be unique"));
            }
            None => {
                first_lines.insert(id, parsed.line);
            }
        }
    }
}

/// Checks that the file or archive of every clip exists. A broken link is not missing: it is a clip that fails. So is a file that is
/// not in its archive, and a remote file.
pub(super) fn check_files(clips: &[ParsedClip], root: Option<&Path>, problems: &mut Problems) {
    let exists =
        |clip: &Clip| clip.url.is_some() || clip.file.exists() || clip.file.is_symlink() || clip.archive().is_some();
    let missing: Vec<&ParsedClip> = clips.iter().filter(|parsed| !exists(&parsed.clip)).collect();
    let Some(first) = missing.first() else { return };
    problems.add(
        if missing.len() == 1 { first.line } else { None },
        format!(
            "{} of {} missing{}: {}; correct the paths, or set their directory with --root",
            count_of(missing.len(), "file"),
            clips.len(),
            root.map(|root| format!(" below {}", root.display())).unwrap_or_default(),
            shown(&missing)
        ),
    );
}

/// Checks that no path leads out of `root`: neither an absolute path nor `..`. Links are followed, so `..` is refused anywhere:
/// `link/..` may be another directory.
pub(super) fn check_below(clips: &[ParsedClip], root: &Path, problems: &mut Problems) {
    let roots = [Some(root.to_path_buf()), std::path::absolute(root).ok(), root.canonicalize().ok()];
    let is_below = |file: &Path| {
        let rest = roots.iter().flatten().find_map(|root| file.strip_prefix(root).ok());
        rest.is_some_and(|rest| !rest.components().any(|component| component == Component::ParentDir))
    };
    let outside: Vec<&ParsedClip> =
        clips.iter().filter(|parsed| parsed.clip.url.is_none() && !is_below(&parsed.clip.file)).collect();
    let Some(first) = outside.first() else { return };
    problems.add(
        if outside.len() == 1 { first.line } else { None },
        format!(
            "{} of {} outside of --root {}: {}; give a directory above all files, or leave out --root if the manifest may name any file",
            count_of(outside.len(), "path"),
            clips.len(),
            root.display(),
            shown(&outside)
        ),
    );
}

fn check_groups(clips: &[ParsedClip], problems: &mut Problems) {
    let mut groups: BTreeMap<&str, BTreeMap<Split, &ParsedClip>> = BTreeMap::new();
    for parsed in clips {
        if let (Some(group), Some(split)) = (&parsed.clip.group, parsed.clip.split) {
            groups.entry(group).or_default().entry(split).or_insert(parsed);
        }
    }
    for (group, splits) in groups.iter().filter(|(_, splits)| splits.len() > 1) {
        let splits: Vec<String> =
            splits.iter().map(|(split, parsed)| format!("{split} ({})", path_and_line(parsed))).collect();
        problems.add(
            None,
            format!(
                "group `{group}` is in more than one split: {}; assign its clips to one split to avoid leakage",
                splits.join(", ")
            ),
        );
    }
}

fn warn_of_missing_labels(clips: &[ParsedClip], warnings: &mut Vec<String>) {
    let unlabeled = clips.iter().filter(|parsed| parsed.clip.labels.is_empty()).count();
    if unlabeled == clips.len() && unlabeled > 0 {
        warnings.push("no clip has a label: usable for feature extraction, not for training".into());
    } else if unlabeled > 0 {
        warnings.push(format!("{} without a label: predicted, not evaluated", count_of(unlabeled, "clip")));
    }
    let labeled = || clips.iter().filter(|parsed| !parsed.clip.labels.is_empty());
    let without_split = labeled().filter(|parsed| parsed.clip.split.is_none()).count();
    if without_split > 0 && labeled().any(|parsed| parsed.clip.split.is_some()) {
        warnings.push(format!(
            "ignored {} without a split, because other labeled clips have one",
            count_of(without_split, "labeled clip")
        ));
    }
}

fn warn_of_label_case(clips: &[ParsedClip], warnings: &mut Vec<String>) {
    let mut spellings: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for label in clips.iter().flat_map(|parsed| &parsed.clip.labels) {
        spellings.entry(label.to_lowercase()).or_default().insert(label);
    }
    for labels in spellings.values().filter(|labels| labels.len() > 1) {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        warnings.push(format!("labels differ only in case and count as different classes: {}", labels.join(", ")));
    }
}

/// Lists the paths of the first clips.
fn shown(clips: &[&ParsedClip]) -> String {
    let paths: Vec<String> = clips.iter().take(MAX_SHOWN).map(|parsed| path_and_line(parsed)).collect();
    format!("{}{}", paths.join(", "), if clips.len() > paths.len() { ", …" } else { "" })
}

fn path_and_line(parsed: &ParsedClip) -> String {
    match parsed.line {
        Some(line) => format!("`{}` (line {line})", parsed.clip.path),
        None => format!("`{}`", parsed.clip.path),
    }
}

/// Computes the SHA-256 of the fields that determine extraction: id, path, start and end.
pub(super) fn extraction_sha256<'a>(clips: impl IntoIterator<Item = &'a Clip>) -> String {
    let mut hasher = Sha256::new();
    for clip in clips {
        for text in [&clip.id, &clip.path] {
            // The length prefix makes the encoding of the fields unambiguous.
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for seconds in [clip.start, clip.end] {
            // -1 is not a valid start or end.
            hasher.update(seconds.unwrap_or(-1.0).to_le_bytes());
        }
    }
    format!("{:x}", hasher.finalize())
}
