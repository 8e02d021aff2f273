//! Clips, splits and the file types they come from.

use std::path::{Path, PathBuf};

use super::resolve::resolve;
use crate::archives::is_archive;
use crate::remote::RemoteUrl;
use crate::suggest::did_you_mean;

/// Extensions of video files, lowercase. AVIF images are decoded as videos.
pub const VIDEO_EXTENSIONS: [&str; 17] = [
    "mp4", "avi", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "mjpg", "mjpeg", "wmv", "flv", "ogv", "ts", "3gp", "gif",
    "avif",
];

/// Extensions of image files, lowercase. HEIC images cannot be decoded; the error says how to convert them.
pub const IMAGE_EXTENSIONS: [&str; 12] =
    ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "ppm", "pgm", "pnm", "heic", "heif"];

/// The split of the data that a clip belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Fits the classifier, the codebook and the standardization.
    Train,
    /// Validation: decides early stopping and thresholds.
    Val,
    /// Held out: only evaluated.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// Returns `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }

    /// Parses the name of a split, ignoring case. `valid` and `validation` are aliases of `val`.
    pub fn parse(name: &str) -> Option<Split> {
        match name.to_lowercase().as_str() {
            "train" => Some(Split::Train),
            "val" | "valid" | "validation" => Some(Split::Val),
            "test" => Some(Split::Test),
            _ => None,
        }
    }

    /// Describes a name that [`Split::parse`] rejects, with the choices and the closest one.
    pub fn unknown(name: &str) -> String {
        let hint = did_you_mean(name, Split::ALL.map(Split::name));
        format!("unknown split `{name}`; expected train, val or test{hint}")
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A clip of the manifest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clip {
    /// Identifier, unique within the manifest.
    pub id: String,
    /// Path as written in the manifest. Of a URL, the parameters that sign it are omitted.
    pub path: String,
    /// Resolved path of the file or of the directory of frames: `path` relative to the root. Equal to `path` for a URL.
    pub file: PathBuf,
    /// The URL, if the file is remote.
    pub url: Option<RemoteUrl>,
    /// Labels; empty if the clip is unlabeled.
    pub labels: Vec<String>,
    /// Group (a film, a source video). All clips of a group belong to the same split.
    pub group: Option<String>,
    /// Split, if the manifest assigns one.
    pub split: Option<Split>,
    /// Start of the clip in seconds from the start of the file. Its first frame is the one that is displayed then.
    pub start: Option<f64>,
    /// End of the clip in seconds from the start of the file, exclusive.
    pub end: Option<f64>,
    /// Release year.
    pub year: Option<i32>,
}

impl Clip {
    /// Returns the number of frames if the clip is a directory of frames.
    pub fn frames(&self) -> Option<usize> {
        self.file.is_dir().then(|| frame_files(&self.file).len())
    }

    /// Returns `true` if the file has the extension of an image.
    pub fn is_image(&self) -> bool {
        self.url.as_ref().map_or_else(|| is_image(&self.file), |url| is_image(url.path()))
    }

    /// Returns the local tar archive that contains the file, and its name in the archive; `None` if it is a file of its own.
    pub fn archive(&self) -> Option<(PathBuf, String)> {
        if self.url.is_some() || self.file.exists() {
            return None;
        }
        let mut candidates = self.file.ancestors().skip(1).filter(|path| is_archive(path));
        let archive = candidates.find(|path| path.is_file())?;
        let name = self.file.strip_prefix(archive).ok()?.to_str()?;
        Some((archive.to_path_buf(), name.to_owned()))
    }

    /// Returns a clip without id of a path as written in a manifest: a URL, or a path relative to the root.
    ///
    /// # Errors
    /// Returns the reason if the path is a URL that cannot be read.
    pub(super) fn at(root: &Path, path: &str) -> Result<Self, String> {
        Ok(match RemoteUrl::parse(path)? {
            Some(url) => {
                Self { path: url.public().into(), file: url.public().into(), url: Some(url), ..Self::default() }
            }
            None => Self { path: path.into(), file: resolve(root, path), ..Self::default() },
        })
    }
}

/// Returns the images of a directory without hidden files, sorted by path; none if the directory cannot be read.
pub(super) fn frame_files(directory: &Path) -> Vec<PathBuf> {
    let visible = |path: &PathBuf| path.file_name().is_some_and(|name| !is_hidden(&name.to_string_lossy()));
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut frames: Vec<PathBuf> = files.filter(|path| visible(path) && is_image(path)).collect();
    frames.sort_unstable();
    frames
}

/// Returns `true` if the file has the extension of a video or image.
pub(super) fn is_media(path: &Path) -> bool {
    is_video(path) || is_image(path)
}

/// Returns `true` if the file has the extension of a video.
pub(super) fn is_video(path: &Path) -> bool {
    has_extension(path, &VIDEO_EXTENSIONS)
}

/// Returns `true` if the file has the extension of an image.
pub(crate) fn is_image(path: &Path) -> bool {
    has_extension(path, &IMAGE_EXTENSIONS)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| known.contains(&extension.as_str()))
}

/// Returns `true` for hidden files and for files that operating systems leave in directories.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name == "__MACOSX" || name == "Thumbs.db"
}
