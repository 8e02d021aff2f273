//! Resolution of paths in manifests.

use std::path::{Path, PathBuf};

/// Joins `path` to `root`. Backslashes are read as separators if the path does not exist as written.
pub(super) fn resolve(root: &Path, path: &str) -> PathBuf {
    let file = root.join(path);
    if path.contains('\\') && !file.exists() {
        let slashed = root.join(path.replace('\\', "/"));
        if slashed.exists() {
            return slashed;
        }
    }
    file
}
