//! A folder of frames.

use std::path::{Path, PathBuf};

use super::image;
use crate::error::{Error, Result};

/// The image files of a folder in natural order of their names; hidden files and subfolders left out.
///
/// # Errors
/// The folder cannot be read or has no image.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && image::is_named_like_one(&path) && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let message = format!("the folder has no frames: no file ending in {}", image::EXTENSIONS.join(", "));
        return Err(Error::Media { path: folder.to_path_buf(), message });
    }
    let name = |path: &Path| unpadded(&path.file_name().unwrap_or_default().to_string_lossy());
    // Names that differ only in leading zeros are equal to the natural order: their spelling decides.
    paths.sort_by(|a, b| natord::compare(&name(a), &name(b)).then_with(|| a.cmp(b)));
    Ok(paths)
}

/// The name with its numbers' leading zeros left out: `natord` takes a number that begins with one for a fraction.
fn unpadded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let begins = character == '0' && !out.ends_with(|c: char| c.is_ascii_digit());
        if !(begins && characters.peek().is_some_and(char::is_ascii_digit)) {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_listed_in_natural_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["shot_10.png", "shot_2.PNG", "shot_1.jpg", ".shot_0.png", "notes.txt", "shot_02.png"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("shot_3.png")).unwrap();
        let names: Vec<String> = list(folder.path())
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["shot_1.jpg", "shot_02.png", "shot_2.PNG", "shot_10.png"]);
    }

    #[test]
    fn a_folder_without_images_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("clip.mp4"), "x").unwrap();
        let error = list(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no frames"), "{error}");
    }
}
