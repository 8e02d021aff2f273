//! Directories of frames.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::{IMAGE_EXTENSIONS, is_image};

/// Returns the image files of a directory in natural order of their names, without hidden files and subdirectories.
///
/// # Errors
/// Returns an error if the directory cannot be read or has no images.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // A broken link is a frame that cannot be read, and fails.
        let is_file = path.metadata().map_or(true, |metadata| metadata.is_file());
        if !hidden && is_image(&path) && is_file {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let message = format!("the directory has no frames: no file with extension {}", IMAGE_EXTENSIONS.join(", "));
        return Err(Error::Media { path: directory.to_path_buf(), message });
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.sort_by(|a, b| natural_order(&name(a), &name(b)).then_with(|| a.cmp(b)));
    Ok(paths)
}

/// Compares names in natural order: runs of digits compare as integers, so 2 is before 10 and equal to 02.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (number_a, number_b) = (leading_digits(a), leading_digits(b));
        if number_a.is_empty() || number_b.is_empty() {
            let (mut rest_a, mut rest_b) = (a.chars(), b.chars());
            match (rest_a.next(), rest_b.next()) {
                (Some(x), Some(y)) if x == y => (a, b) = (rest_a.as_str(), rest_b.as_str()),
                (x, y) => return x.cmp(&y),
            }
        } else {
            let value = |number: &str| {
                let number = number.trim_start_matches('0');
                (number.len(), number.to_owned())
            };
            let order = value(number_a).cmp(&value(number_b));
            if order.is_ne() {
                return order;
            }
            (a, b) = (&a[number_a.len()..], &b[number_b.len()..]);
        }
    }
}

/// Returns the leading digits of a text.
fn leading_digits(text: &str) -> &str {
    &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_frames_in_natural_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["shot_10.png", "shot_2.PNG", "shot_1.jpg", ".shot_0.png", "notes.txt", "shot_02.png"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(directory.path().join("shot_3.png")).unwrap();
        let names: Vec<String> = list(directory.path())
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["shot_1.jpg", "shot_2.PNG", "shot_02.png", "shot_10.png"]);
    }

    #[test]
    fn lists_keyframes_by_shot_and_image() {
        let directory = tempfile::tempdir().unwrap();
        let ordered = [
            "shot_0000_img_0.jpg",
            "shot_0000_img_1.jpg",
            "shot_0002_img_0.jpg",
            "shot_0002_img_2.jpg",
            "shot_0002_img_10.jpg",
            "shot_0010_img_0.jpg",
            "shot_9999_img_0.jpg",
            "shot_10000_img_0.jpg",
        ];
        ordered.iter().rev().for_each(|name| std::fs::write(directory.path().join(name), "x").unwrap());
        let listed = list(directory.path()).unwrap();
        let names: Vec<_> = listed.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ordered);
    }

    #[test]
    fn rejects_a_directory_without_images() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("clip.mp4"), "x").unwrap();
        let error = list(directory.path()).unwrap_err().to_string();
        assert!(error.contains("has no frames"), "{error}");
    }
}
