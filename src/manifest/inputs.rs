//! Clips to predict: files, directories and manifests, without labels.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::clip::{Clip, is_media};
use super::directory::path_text;
use super::parsed::ParsedClip;
use super::problems::Problems;
use super::validate::{self, extraction_sha256};
use super::{Manifest, MediaFiles, class_directories};
use crate::error::{Error, Result};

/// A clip with the id to use if its own is not unique.
struct Input {
    clip: Clip,
    /// `None` for the clips of a manifest, which keep their ids.
    alternative: Option<String>,
}

impl Manifest {
    /// Reads the clips of `inputs` without labels and splits:
    ///
    /// | input | clips | ids |
    /// |-|-|-|
    /// | video, image, or the URL of one | the file | its name without extension |
    /// | directory without `manifest.csv` | every video and image in it and its subdirectories; with `frame_directories`, a subdirectory that contains only images is one clip | the path below the directory without extension |
    /// | other file, or directory with `manifest.csv` | those of the manifest (see [`Manifest::load`]) | those of the manifest |
    ///
    /// An id that is not unique is replaced by the path, unless a manifest assigns it. A file that several inputs name is read
    /// once. The paths of manifests are relative to `root` and below it, or relative to the directory of the manifest without `root`.
    ///
    /// # Errors
    /// Returns an error if an input or a file of a manifest is missing, a manifest is invalid, a directory has no clips, or an id
    /// is not unique.
    pub fn from_inputs(inputs: &[PathBuf], root: Option<&Path>, frame_directories: bool) -> Result<Manifest> {
        let (mut found, mut warnings, mut has_manifest) = (Vec::new(), Vec::new(), false);
        for source in inputs {
            if let Some(clip) = remote(source)? {
                found.push(clip);
                continue;
            }
            let metadata = std::fs::metadata(source);
            if source.is_symlink() && metadata.is_err() {
                found.push(file(source)); // a broken link is a clip that fails
                continue;
            }
            let is_directory = metadata.map_err(Error::io(source))?.is_dir();
            if is_directory && !source.join("manifest.csv").is_file() {
                let mut problems = Problems::new(source);
                let parsed = class_directories::read_unlabeled(source, frame_directories, &mut problems)?;
                problems.finish()?;
                warnings.extend(parsed.warnings);
                found.extend(parsed.clips.into_iter().map(|ParsedClip { clip, .. }| below(source, clip)));
            } else if !is_directory && is_media(source) {
                found.push(file(source));
            } else {
                has_manifest = true;
                let (source, directory, read) = Self::locate(source, root)?;
                let mut problems = Problems::new(&source);
                let parsed = read(&source, &directory, MediaFiles::Required, &mut problems)?;
                validate::check_ids(&parsed.clips, &mut problems);
                if let Some(root) = root {
                    validate::check_below(&parsed.clips, root, &mut problems);
                }
                validate::check_files(&parsed.clips, Some(&directory), &mut problems);
                if parsed.clips.is_empty() && problems.is_empty() {
                    problems.add(None, "the manifest has no clips");
                }
                problems.finish()?;
                warnings.extend(parsed.warnings);
                found.extend(parsed.clips.into_iter().map(|ParsedClip { clip, .. }| Input { clip, alternative: None }));
            }
        }
        let source = match inputs {
            [source] => source.clone(),
            _ => inputs.iter().map(|input| path_text(input)).collect::<Vec<_>>().join(", ").into(),
        };
        if let Some(root) = root.filter(|_| !has_manifest) {
            let message = format!("--root {} does not apply: no input is a manifest", root.display());
            return Err(Error::Manifest { path: source, line: None, message });
        }
        let clips = unique(found, &source)?;
        let sha256 = extraction_sha256(&clips);
        Ok(Manifest { source, clips, warnings, sha256 })
    }
}

/// Returns the clip of a file.
fn file(path: &Path) -> Input {
    let text = path_text(path);
    let clip = Clip { id: stem(path), path: text.clone(), file: path.to_path_buf(), ..Clip::default() };
    Input { clip, alternative: Some(text) }
}

/// Returns the clip of a URL; `None` for a path.
fn remote(source: &Path) -> Result<Option<Input>> {
    let located = Clip::at(Path::new(""), &source.to_string_lossy()).map_err(Error::Data)?;
    Ok(located.url.clone().map(|url| {
        let alternative = Some(located.path.clone());
        Input { clip: Clip { id: stem(url.path()), ..located }, alternative }
    }))
}

/// Returns the name of a file without its extension.
fn stem(path: &Path) -> String {
    path_text(Path::new(path.file_stem().unwrap_or(path.as_os_str())))
}

/// Returns the clip of a file below a directory, with the path from the working directory.
fn below(directory: &Path, clip: Clip) -> Input {
    let path = path_text(&directory.join(&clip.path));
    Input { clip: Clip { path: path.clone(), ..clip }, alternative: Some(path) }
}

/// Makes the ids unique, and omits the files of `found` that are listed already. Parts of a file are different clips.
fn unique(found: Vec<Input>, source: &Path) -> Result<Vec<Clip>> {
    let mut known = HashSet::new();
    let is_new = |input: &Input| {
        let Clip { file, start, end, .. } = &input.clip;
        let canonical = file.canonicalize().unwrap_or_else(|_| file.clone());
        // A manifest may list a file several times, under different ids.
        let id = input.alternative.is_none().then(|| input.clip.id.clone());
        let period = [start.unwrap_or(0.0), end.unwrap_or(f64::INFINITY)].map(f64::to_bits);
        (canonical, period, id)
    };
    let mut inputs: Vec<Input> = found.into_iter().filter(|input| known.insert(is_new(input))).collect();
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for input in &inputs {
        *uses.entry(input.clip.id.clone()).or_default() += 1;
    }
    for Input { clip, alternative } in &mut inputs {
        if uses[&clip.id] > 1
            && let Some(alternative) = alternative.take()
        {
            clip.id = alternative;
        }
    }
    let mut ids = HashSet::new();
    for Input { clip, .. } in &inputs {
        if !ids.insert(&clip.id) {
            let message = format!("duplicate id `{}`; ids must be unique: predict the inputs one by one", clip.id);
            return Err(Error::Manifest { path: source.to_path_buf(), line: None, message });
        }
    }
    Ok(inputs.into_iter().map(|Input { clip, .. }| Clip { labels: Vec::new(), split: None, ..clip }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(inputs: &[&Path], frame_directories: bool) -> Vec<String> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|input| input.to_path_buf()).collect();
        let manifest = Manifest::from_inputs(&inputs, None, frame_directories).unwrap();
        assert!(manifest.clips.iter().all(|clip| clip.file.exists() && clip.labels.is_empty() && clip.split.is_none()));
        manifest.clips.into_iter().map(|clip| clip.id).collect()
    }

    #[test]
    fn files_directories_and_manifests_are_combined() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in [
            "one.mp4",
            "clips/one.mp4",
            "clips/deep/two.mkv",
            "clips/deep/text.txt",
            "frames/x/1.jpg",
            "frames/x/2.jpg",
        ] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), name).unwrap();
        }
        std::fs::write(at("list.csv"), "id,path,label,split\na,one.mp4,x,train\nb,one.mp4,y,test\n").unwrap();
        assert_eq!(ids(&[&at("clips")], false), ["one", "deep/two"]);
        assert_eq!(ids(&[&at("frames")], false), ["x/1", "x/2"]);
        assert_eq!(ids(&[&at("frames")], true), ["x"]);
        assert_eq!(ids(&[&at("clips/one.mp4"), &at("clips")], false), ["one", "deep/two"]);
        assert_eq!(ids(&[&at("list.csv"), &at("clips/deep")], false), ["a", "b", "two"]);
        // The same id of two files.
        let paths = [at("one.mp4"), at("clips/one.mp4")].map(|path| path.display().to_string());
        assert_eq!(ids(&[&at("one.mp4"), &at("clips/one.mp4")], false), paths);

        let error = |inputs: &[PathBuf], root: Option<&Path>| {
            Manifest::from_inputs(inputs, root, false).unwrap_err().to_string()
        };
        assert!(
            error(&[at("none.mp4")], None).contains("none.mp4: No such file"),
            "{}",
            error(&[at("none.mp4")], None)
        );
        std::fs::create_dir(at("empty")).unwrap();
        assert!(error(&[at("empty")], None).contains("empty: no video, image or directory of frames found"));
        assert!(error(&[at("clips")], Some(directory.path())).contains("does not apply: no input is a manifest"));
        std::fs::write(at("more.csv"), "id,path\na,one.mp4\nc,gone.mp4\n").unwrap();
        assert!(error(&[at("more.csv")], None).contains("gone.mp4"));
        std::fs::write(at("more.csv"), "id,path\na,clips/one.mp4\n").unwrap();
        assert!(error(&[at("list.csv"), at("more.csv")], None).contains("duplicate id `a`"));
    }
}
