//! Hashes of files.

use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Returns the SHA-256 of a file as 64 hex digits.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(Error::io(path))?;
    Ok(format!("{:x}", hasher.finalize()))
}

/// Returns the SHA-256 of a byte string as 64 hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Checks that the SHA-256 of a file starts with `expected` (8 to 64 hex digits).
///
/// # Errors
/// Returns an error if the file cannot be read or has another hash. The file is not changed.
pub fn check_sha256(path: &Path, expected: &str) -> Result<()> {
    match sha256_mismatch(path, expected)? {
        None => Ok(()),
        Some(mismatch) => {
            let message =
                format!("{mismatch}: the file is damaged or a different one; move it away to download it again");
            Err(Error::Weights { path: path.into(), message })
        }
    }
}

/// Compares the SHA-256 of a file with its expected start; returns a description if they differ.
pub(super) fn sha256_mismatch(path: &Path, expected: &str) -> Result<Option<String>> {
    let actual = sha256_file(path)?;
    if actual.starts_with(&expected.to_ascii_lowercase()) {
        return Ok(None);
    }
    let actual = &actual[..expected.len().min(actual.len())];
    Ok(Some(format!("SHA-256 is {actual}, expected {expected}")))
}
