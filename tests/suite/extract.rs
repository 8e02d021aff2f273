//! kinoprobe-extract on real videos. Stores are read with h5py.

mod arguments;
mod failures;
mod faults;
mod interruption;
mod kubernetes;
mod memory;
mod networks;
mod precisions;
#[cfg(feature = "remote")]
mod remote;
mod sampling;
mod shards;
mod stores;
mod untrusted;
mod virtual_stores;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{fixture, root, run_python};

/// Prints a hash of the contents of a store, without times and versions.
const FINGERPRINT: &str = "
import h5py, sys, hashlib
digest = hashlib.sha256()
with h5py.File(sys.argv[1]) as store:
    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            values = item.asstr()[:].tolist() if h5py.check_string_dtype(item.dtype) else item[:].tobytes()
            digest.update(repr((name, item.shape, str(item.dtype), values)).encode())
    store.visititems(visit)
    keys = ['format', 'format_version', 'method', 'model', 'weights', 'model_sha256', 'recipe', 'dim', 'decoder', 'precision']
    digest.update(repr([(key, store.attrs[key]) for key in keys]).encode())
print(digest.hexdigest())
";

/// A directory with a manifest of clips that are parts of one video.
struct Workspace {
    directory: TempDir,
}

impl Workspace {
    fn new(clips: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::copy(fixture("media/plain.mp4"), directory.path().join("video.mp4")).unwrap();
        let mut manifest = String::from("id,path,label,start\n");
        for i in 0..clips {
            manifest += &format!("clip{i:03},video.mp4,{},{:.2}\n", ["a", "b"][i % 2], i as f64 * 1.5 / clips as f64);
        }
        fs::write(directory.path().join("manifest.csv"), manifest).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, out: &str) -> Command {
        self.command_with_models(out, &fixture("models"))
    }

    fn command_with_models(&self, out: &str, models: &Path) -> Command {
        self.command_with_recipe(out, models, &fixture("pipelines/tiny.toml"))
    }

    fn command_with_recipe(&self, out: &str, models: &Path, recipe: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
        command.current_dir(root());
        command.args(["--method", "tiny", "--recipe"]).arg(recipe);
        command.arg("--models").arg(models);
        command.arg("--manifest").arg(self.path("manifest.csv")).arg("--out").arg(self.path(out));
        command
    }

    fn fingerprint(&self, out: &str) -> String {
        run_python(FINGERPRINT, &[&self.path(out)])
    }
}

/// Prints the ids of the clips and failures of a store.
const IDS: &str = "
import h5py, sys
with h5py.File(sys.argv[1]) as store:
    print(*store['clips/id'].asstr()[:], '|', *store['failures/id'].asstr()[:], '|', store['features'].shape[0])
";
