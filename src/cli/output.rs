//! Checks of `--out` before the work, so that its results are not lost.

use std::path::Path;

use anyhow::{Context, bail, ensure};

/// Checks that a file can be written to `path`; `example` is a file name for the error message.
///
/// # Errors
/// Returns an error if `path` is a directory, or its directory does not exist and cannot be created, or cannot be written to.
pub fn check_file(path: &Path, example: &str) -> anyhow::Result<()> {
    if path.is_dir() {
        let example = path.join(example);
        bail!("{}: a directory: write to a file in it with --out, such as {}", path.display(), example.display());
    }
    check_directory(path.parent().unwrap_or(path))
}

/// Checks that a new file can be written to `path`; `example` is a file name for the error message.
///
/// # Errors
/// Returns an error under the conditions of [`check_file`], or if the file exists already.
pub fn check_new_file(path: &Path, example: &str) -> anyhow::Result<()> {
    check_file(path, example)?;
    ensure!(path.symlink_metadata().is_err(), "{}: exists already: remove it, or choose another --out", path.display());
    Ok(())
}

/// Checks that files can be written to the directory `path`, which need not exist.
///
/// # Errors
/// Returns an error if `path` or a part of it is a file, or the closest directory that exists cannot be written to.
pub fn check_directory(path: &Path) -> anyhow::Result<()> {
    let existing = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    if !existing.is_dir() {
        bail!("{}: not a directory: choose another --out", existing.display());
    }
    // The file has no name, so nothing is left behind.
    tempfile::tempfile_in(existing).with_context(|| format!("{}: cannot be written to", existing.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_checked_without_traces() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        for path in ["new", "new/deep/er", "file"] {
            check_file(&at(path), "x").unwrap();
        }
        check_directory(&at("new/deep")).unwrap();
        check_directory(directory.path()).unwrap();
        check_file(Path::new("relative"), "x").unwrap();
        for error in
            [check_directory(&at("file")), check_directory(&at("file/below")), check_file(&at("file/below"), "x")]
        {
            let error = error.unwrap_err().to_string();
            assert_eq!(error, format!("{}: not a directory: choose another --out", at("file").display()));
        }
        let error = check_file(directory.path(), "x.csv").unwrap_err().to_string();
        assert!(error.ends_with(&format!("such as {}", at("x.csv").display())), "{error}");
        // Nothing can be created in /proc, not even by root.
        let error = format!("{:#}", check_directory(Path::new("/proc/new")).unwrap_err());
        assert!(error.starts_with("/proc: cannot be written to: "), "{error}");
        let names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
    }
}
