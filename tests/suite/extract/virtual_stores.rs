//! Stores that refer to the rows of shards (kinoprobe-merge --virtual).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::Workspace;
use crate::support::{assert_code, printed, root, run_python};

/// Prints the contents of a store by clip, without times and versions.
const BY_CLIP: &str = "
import h5py, sys, numpy
with h5py.File(sys.argv[1]) as store:
    ids = store['clips/id'].asstr()[:]
    assert (store['rows/clip'][:] == numpy.repeat(numpy.arange(len(ids)), store['clips/length'][:])).all()
    counts = store['rows/descriptors'][:] if 'descriptors' in store else None
    for i in numpy.argsort(ids):
        rows = slice(store['clips/offset'][i], store['clips/offset'][i] + store['clips/length'][i])
        print(ids[i], [store['clips'][name][i] for name in sorted(store['clips']) if name != 'offset'])
        print([store['rows'][name][rows].tolist() for name in sorted(store['rows']) if name != 'clip'])
        if counts is None:
            print([store[name].dtype for name in ('features', 'pooled/mean', 'pooled/max')])
            print(store['features'][rows].tobytes(), store['pooled/mean'][i].tobytes(), store['pooled/max'][i].tobytes())
        else:
            ends = counts.cumsum()
            print(store['descriptors'][ends[rows][0] - counts[rows][0]:ends[rows][-1]].tobytes())
    print(sorted(store['failures/id'].asstr()[:]), store.attrs['manifest_sha256'], store.attrs['provider'], store.attrs['dim'])
";

/// Prints whether the features are in other files, and the number of features that are NaN.
const VIRTUAL: &str = "
import h5py, sys, numpy
with h5py.File(sys.argv[1]) as store:
    print(store['features'].is_virtual, numpy.isnan(store['features'][:]).sum() // store['features'].shape[1])
";

fn inspect(store: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kinoprobe-inspect")).arg(store).output().unwrap()
}

/// Writes a manifest with a split, since the clips are parts of one video.
fn split_manifest(workspace: &Workspace) -> PathBuf {
    let mut manifest = String::from("id,path,label,split,start\n");
    for (i, line) in fs::read_to_string(workspace.path("manifest.csv")).unwrap().lines().skip(1).enumerate() {
        let (fields, start) = line.rsplit_once(',').unwrap();
        manifest += &format!("{fields},{},{start}\n", ["train", "val", "train", "test", "val"][i % 5]);
    }
    fs::write(workspace.path("split.csv"), manifest).unwrap();
    workspace.path("split.csv")
}

fn classify(workspace: &Workspace, store: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-classify"));
    command.current_dir(root()).args(["--classifier", "logistic"]).arg("--features").arg(workspace.path(store));
    command.arg("--manifest").arg(split_manifest(workspace)).arg("--out").arg(workspace.path("run"));
    command.output().unwrap()
}

/// A workspace with three shards, one of which has no features, and their virtual store, in a directory whose name HDF5 would interpret.
fn virtual_store() -> Workspace {
    let workspace = Workspace::with_failures();
    for shard in ["0/3", "1/3", "2/3"] {
        workspace.shard("run%b/tiny.h5", shard);
    }
    let output = workspace.merge(&["run%b/tiny.shards", "--out", "run%b/tiny.h5", "--virtual"]);
    assert_code(&output, 3);
    assert!(printed(&output).contains("tiny.h5: 20 clips of 3 shards merged, 2 failed"), "{}", printed(&output));
    workspace
}

#[track_caller]
fn assert_refused(output: &Output, expected: &str) {
    assert_code(output, 1);
    assert!(printed(output).contains(expected), "{}", printed(output));
}

#[test]
fn virtual_store_has_the_rows_of_the_shards() {
    let workspace = virtual_store();
    assert_code(&workspace.merge(&["run%b/tiny.shards", "--out", "copy.h5"]), 3);
    let by_clip = |store: &str| run_python(BY_CLIP, &[&workspace.path(store)]);
    assert_eq!(by_clip("run%b/tiny.h5"), by_clip("copy.h5"));
    assert_eq!(run_python(VIRTUAL, &[&workspace.path("run%b/tiny.h5")]).trim(), "True 0");

    // It moves together with the shards, and may be opened by a link.
    fs::create_dir(workspace.path("elsewhere")).unwrap();
    fs::rename(workspace.path("run%b"), workspace.path("elsewhere/moved")).unwrap();
    std::os::unix::fs::symlink("elsewhere/moved/tiny.h5", workspace.path("link.h5")).unwrap();
    assert_eq!(by_clip("link.h5"), by_clip("copy.h5"));
    let output = inspect(&workspace.path("link.h5"));
    assert!(printed(&output).contains("the rows are in 3 other stores"), "{}", printed(&output));
    let predictions = |store: &str| {
        assert_code(&classify(&workspace, store), 0);
        let predictions = fs::read_to_string(workspace.path("run/predictions.csv")).unwrap();
        fs::remove_dir_all(workspace.path("run")).unwrap();
        predictions
    };
    assert_eq!(predictions("link.h5"), predictions("copy.h5"));

    // A merge copies its rows, in its order.
    assert_code(&workspace.merge(&["link.h5", "--out", "second.h5"]), 3);
    assert_eq!(by_clip("second.h5"), by_clip("copy.h5"));
    assert_eq!(run_python(VIRTUAL, &[&workspace.path("second.h5")]).trim(), "False 0");
    assert_refused(
        &workspace.merge(&["link.h5", "--out", "x.h5", "--virtual"]),
        "link.h5: virtual: pass the stores that it refers to",
    );
    assert_refused(
        &workspace.merge(&["second.h5", "--out", "second.h5", "--virtual"]),
        "second.h5: a virtual store refers to this store and cannot replace it",
    );
    let left = fs::read_dir(workspace.directory.path()).unwrap();
    assert!(left.into_iter().all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".new")));
}

#[test]
fn virtual_store_of_descriptors_has_the_rows_of_the_shards() {
    let workspace = Workspace::new(6);
    for shard in ["0/2", "1/2"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
        command.current_dir(root()).args(["--method", "sift", "--frames", "2", "--shard", shard, "--manifest"]);
        command.arg(workspace.path("manifest.csv")).arg("--out").arg(workspace.path("sift.h5"));
        assert_code(&command.output().unwrap(), 0);
    }
    assert_code(&workspace.merge(&["sift.shards", "--out", "copy.h5"]), 0);
    assert_code(&workspace.merge(&["sift.shards", "--out", "sift.h5", "--virtual"]), 0);
    let by_clip = |store: &str| run_python(BY_CLIP, &[&workspace.path(store)]);
    assert_eq!(by_clip("sift.h5"), by_clip("copy.h5"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-codebook"));
    command.current_dir(root()).arg("--descriptors").arg(workspace.path("sift.h5")).args(["--words", "4"]);
    command.arg("--manifest").arg(split_manifest(&workspace)).arg("--out").arg(workspace.path("words.h5"));
    assert_code(&command.output().unwrap(), 0);
}

#[test]
fn missing_and_replaced_shards_are_errors() {
    let workspace = virtual_store();
    let (store, shard) = (workspace.path("run%b/tiny.h5"), workspace.path("run%b/tiny.shards/0001-of-0003.h5"));
    let rows = |script: &str| run_python(script, &[&store]);
    let before = rows(BY_CLIP);
    fs::rename(&shard, workspace.path("aside.h5")).unwrap();
    let missing = "tiny.shards/0001-of-0003.h5 is missing: put it back, or merge again (kinoprobe-merge --virtual)";
    assert_refused(&inspect(&store), "run%b/tiny.h5: virtual, and its source ");
    assert_refused(&inspect(&store), missing);
    assert_refused(&classify(&workspace, "run%b/tiny.h5"), missing);
    // HDF5 does not report it, but the features are not zeros.
    assert!(rows(VIRTUAL).trim().strip_prefix("True ").unwrap().parse::<usize>().unwrap() > 0);

    // A copy is the same source; a shard that was extracted again is not.
    fs::copy(workspace.path("aside.h5"), &shard).unwrap();
    assert_code(&inspect(&store), 0);
    fs::remove_file(&shard).unwrap();
    workspace.shard("run%b/tiny.h5", "1/3");
    let changed = "tiny.shards/0001-of-0003.h5 has changed since the merge: merge again";
    assert_refused(&inspect(&store), changed);
    assert_refused(&classify(&workspace, "run%b/tiny.h5"), changed);
    assert_code(&workspace.merge(&["run%b/tiny.shards", "--out", "run%b/tiny.h5", "--virtual"]), 3);
    assert_code(&inspect(&store), 0);
    assert_eq!(rows(BY_CLIP), before);
}

#[test]
fn extraction_does_not_change_a_virtual_store() {
    let workspace = virtual_store();
    let extract = |store: &str| workspace.command(store).output().unwrap();
    let output = extract("run%b/tiny.h5");
    assert!(printed(&output).contains("up to date (20 clips)"), "{}", printed(&output));
    let manifest = fs::read_to_string(workspace.path("manifest.csv")).unwrap();
    fs::write(workspace.path("manifest.csv"), format!("{manifest}more,video.mp4,a,0.1\n")).unwrap();
    assert_refused(&extract("run%b/tiny.h5"), "tiny.h5: virtual: its rows are in shards");
    assert!(!workspace.path("run%b/tiny.h5.partial").exists());
    assert_code(&workspace.merge(&["run%b/tiny.h5", "--out", "copy.h5"]), 3);
    let output = extract("copy.h5");
    assert!(printed(&output).contains("1 of 23 clips to extract"), "{}", printed(&output));
}
