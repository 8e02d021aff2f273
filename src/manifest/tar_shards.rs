//! Reader of tar archives of clips, such as the shards of [WebDataset](https://github.com/webdataset/webdataset).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::clip::{Clip, Split, is_hidden, is_media, is_video};
use super::directory::{Listing, clip_from_path, file_name, path_text, strip_extensions};
use super::parsed::{ParsedClip, ParsedManifest};
use super::problems::{Problems, count_of};
use crate::archives::{Member, is_archive, members};
use crate::error::Result;
use crate::read_at::{LocalFile, ReadAt as _};

/// Extension of the file with the label of a sample: the index or the name of its class, as text.
const LABEL_EXTENSION: &str = "cls";
/// Longest label in bytes.
const MAX_LABEL: u64 = 1024;

/// Returns the archives of a directory, and those of its directories `train`, `val` and `test`; none if there are other directories, whose
/// clips are not in archives.
///
/// # Errors
/// Returns an error if a directory cannot be read.
pub(super) fn archives(listing: &Listing) -> Result<Vec<PathBuf>> {
    if !listing.directories.iter().all(|directory| Split::parse(&file_name(directory)).is_some()) {
        return Ok(Vec::new());
    }
    let splits = listing.directories.iter().map(|path| Listing::read(path)).collect::<Result<Vec<Listing>>>()?;
    if splits.iter().any(|split| !split.directories.is_empty()) {
        return Ok(Vec::new());
    }
    let files = std::iter::once(listing).chain(&splits).flat_map(|listing| &listing.files);
    Ok(files.filter(|file| is_archive(file)).cloned().collect())
}

/// Reads the videos and images in archives below `root`. The files of a sample have the same name up to the first dot, as in WebDataset: its
/// label is in `NAME.cls`, and of a sample with a video, images are not clips. The name of the archive, or of its directory, may contain a split:
/// `train-000.tar`, `val/000.tar`.
///
/// # Errors
/// Returns an error if an archive cannot be read, is compressed or damaged.
pub(super) fn read(archives: &[PathBuf], root: &Path, problems: &mut Problems) -> Result<ParsedManifest> {
    let mut parsed = ParsedManifest::default();
    let mut images_of_videos = 0;
    for archive in archives {
        let prefix = path_text(archive.strip_prefix(root).unwrap_or(archive));
        let split = split_of(archive);
        let contents = Contents::read(archive, problems)?;
        let with_video: HashSet<&str> =
            contents.media.iter().filter(|name| is_video(Path::new(name))).map(|name| sample(name)).collect();
        for name in &contents.media {
            if !is_video(Path::new(name)) && with_video.contains(sample(name)) {
                images_of_videos += 1;
                continue;
            }
            let label = contents.labels.get(sample(name)).map(String::as_str);
            let clip = clip_from_path(root, format!("{prefix}/{name}"), label, split);
            // An absolute name would replace the path of the archive.
            let file = archive.join(name.trim_start_matches('/'));
            parsed.clips.push(ParsedClip { clip: Clip { file, ..clip }, line: None });
        }
    }
    if images_of_videos > 0 {
        parsed.warnings.push(format!("ignored {} of samples with a video", count_of(images_of_videos, "image")));
    }
    strip_extensions(&mut parsed.clips);
    Ok(parsed)
}

/// Returns the name of the sample of a file: its path up to the first dot of the file name.
fn sample(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    name[file..].find('.').map_or(name, |dot| &name[..file + dot])
}

/// Returns the split that a word in the name of the archive, or the name of its directory, says.
fn split_of(archive: &Path) -> Option<Split> {
    let name = file_name(archive);
    let in_name = name.split(|c: char| !c.is_alphanumeric()).find_map(Split::parse);
    in_name.or_else(|| Split::parse(&archive.parent().map(file_name).unwrap_or_default()))
}

/// The clips of an archive in their order, and the labels by sample.
#[derive(Default)]
struct Contents {
    media: Vec<String>,
    labels: HashMap<String, String>,
}

impl Contents {
    fn read(path: &Path, problems: &mut Problems) -> Result<Self> {
        let archive = LocalFile::open(path)?;
        let mut contents = Self::default();
        let mut known = HashSet::new();
        for Member { name, start, len } in members(path, &archive)? {
            let file = Path::new(&name);
            if is_hidden(&file_name(file)) {
                continue;
            }
            if file.extension().is_some_and(|extension| extension == LABEL_EXTENSION) {
                let label = archive.read_vec(start, len.min(MAX_LABEL + 1))?;
                match String::from_utf8(label) {
                    Ok(label) if len <= MAX_LABEL && !label.trim().is_empty() => {
                        contents.labels.insert(sample(&name).to_owned(), label.trim().to_owned());
                    }
                    _ => {
                        problems.add(None, format!("{}/{name}: expected the index or name of a class", path.display()));
                    }
                }
            } else if is_media(file) && known.insert(name.clone()) {
                contents.media.push(name);
            }
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::manifest::Manifest;

    /// Writes an archive with these files, whose contents are given.
    fn archive(path: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        builder.finish().unwrap();
    }

    /// Returns `id path label split` of each clip.
    fn clips(source: &Path) -> Vec<String> {
        let line = |clip: &Clip| {
            let split = clip.split.map_or("-", Split::name);
            format!("{} {} {} {split}", clip.id, clip.path, clip.labels.join("|"))
        };
        Manifest::load(source, None).unwrap().clips.iter().map(line).collect()
    }

    #[test]
    fn samples_have_their_labels_and_splits() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let long = format!("{}/clip.mp4", "deep".repeat(40));
        archive(
            &at("flat/train-000.tar"),
            &[
                ("./a.mp4", "1"),
                ("./a.cls", "3\n"),
                ("./a.jpg", "thumbnail"),
                ("./a.json", "{}"),
                ("b.x/c.1.mp4", "2"),
                ("b.x/c.cls", "war"),
                (&long, "3"),
                (&long.replace(".mp4", ".cls"), "3"),
            ],
        );
        archive(
            &at("flat/latest_val.tar"),
            &[("a.jpg", "4"), ("a.cls", "3"), (".hidden.jpg", ""), ("d.txt", "caption")],
        );
        let long_id = long.trim_end_matches(".mp4");
        let train = [
            "train-000.tar/a train-000.tar/a.mp4 3 train".to_string(),
            "train-000.tar/b.x/c.1 train-000.tar/b.x/c.1.mp4 war train".to_string(),
            format!("train-000.tar/{long_id} train-000.tar/{long} 3 train"),
        ];
        let val = "latest_val.tar/a latest_val.tar/a.jpg 3 val".to_string();
        assert_eq!(clips(&at("flat")), [vec![val.clone()], train.to_vec()].concat());
        assert_eq!(clips(&at("flat/train-000.tar")), train);

        archive(&at("splits/train/0.tar"), &[("a.mp4", "1"), ("a.cls", "x")]);
        archive(&at("splits/test/0.tar"), &[("a.mp4", "1")]);
        assert_eq!(
            clips(&at("splits")),
            ["test/0.tar/a test/0.tar/a.mp4  test", "train/0.tar/a train/0.tar/a.mp4 x train"]
        );
        // An archive beside the directories that were unpacked from it is not read.
        for directory in ["unpacked", "unpacked/train"] {
            archive(&at(&format!("{directory}/all.tar")), &[("a.mp4", "1"), ("a.cls", "x")]);
            std::fs::create_dir_all(at(&format!("{directory}/y"))).unwrap();
            std::fs::write(at(&format!("{directory}/y/b.mp4")), "2").unwrap();
        }
        std::fs::remove_dir_all(at("unpacked/y")).unwrap();
        assert_eq!(clips(&at("unpacked")), ["train/y/b train/y/b.mp4 y train"]);
        assert_eq!(clips(&at("unpacked/train")), ["y/b y/b.mp4 y -"]);
        let loaded = Manifest::from_inputs(&[at("splits/test/0.tar")], None, false).unwrap();
        assert_eq!(loaded.clips[0].path, "0.tar/a.mp4");
        assert_eq!(loaded.clips[0].archive(), Some((at("splits/test/0.tar"), "a.mp4".into())));
    }

    #[test]
    fn errors_name_the_archive_and_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let error = |name: &str| Manifest::load(&at(name), None).unwrap_err().to_string();
        archive(&at("label.tar"), &[("a.mp4", "1"), ("a.cls", " \n")]);
        assert!(
            error("label.tar").contains("label.tar/a.cls: expected the index or name of a class"),
            "{}",
            error("label.tar")
        );
        archive(&at("none.tar"), &[("a.txt", "1")]);
        assert!(error("none.tar").contains("the manifest has no clips"), "{}", error("none.tar"));
        std::fs::write(at("gzip.tar"), [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(error("gzip.tar").contains("gunzip"), "{}", error("gzip.tar"));
        std::fs::write(at("text.tar"), "text".repeat(1000)).unwrap();
        assert!(error("text.tar").contains("text.tar: not a tar archive, or damaged"), "{}", error("text.tar"));
    }

    #[test]
    fn names_do_not_lead_out_of_the_archive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for name in ["/etc/absolute.mp4", "../../outside.mp4"] {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        builder.finish().unwrap();
        let manifest = Manifest::load(&path, None).unwrap();
        for clip in &manifest.clips {
            assert!(clip.file.starts_with(&path), "{}", clip.file.display());
        }
    }
}
