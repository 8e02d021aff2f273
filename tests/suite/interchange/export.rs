//! kinoprobe-inspect --export, and the examples of docs/store.md.

use std::fs;

use super::{clips, imported, inspect};
use crate::evaluate::stores;
use crate::support::{assert_code, printed, root, run_python};

/// Compares the exports with the store strong.h5 and clips.csv.
const COMPARE: &str = r#"
import os, sys, pathlib, io, json, tarfile, h5py, numpy as np, pandas as pd
directory = pathlib.Path(sys.argv[1])
with h5py.File(directory / "rows.h5") as store:
    rows, mean, peak = store["features"][:], store["pooled/mean"][:], store["pooled/max"][:]
    ids, offset, length = store["clips/id"].asstr()[:], store["clips/offset"][:], store["clips/length"][:]
clips = pd.read_csv(directory / "clips.csv").set_index("id").loc[ids]
owners = np.repeat(np.arange(len(ids)), length)

frame = pd.read_parquet(directory / "parquet/pooled_mean.parquet")
assert list(frame.columns) == ["id", "path", "label", "split", "group", "features"], frame.columns
assert (np.stack(frame.features) == mean).all() and np.stack(frame.features).dtype == "f4"
assert (frame.id == ids).all() and all((frame[c] == clips[c].values).all() for c in ["path", "label", "split", "group"])
frame = pd.read_parquet(directory / "parquet/features.parquet")
assert (np.stack(frame.features) == rows).all() and (frame.id == ids[owners]).all()
assert (frame.row == np.arange(len(rows)) - offset[owners]).all() and (frame.start_seconds == frame.row / 2).all()
assert (frame.label.values == clips.label.values[owners]).all()

assert (np.load(directory / "npy/pooled_max.npy") == peak).all()
table = pd.read_csv(directory / "npy/clips.csv")
assert (table.id == ids).all() and (table.label == clips.label.values).all() and (table.split == clips.split.values).all()
assert (np.load(directory / "npy-rows/features.npy") == rows).all()
table = pd.read_csv(directory / "npy-rows/rows.csv")
assert (table.id == ids[owners]).all() and (table.end_seconds == table.row / 2 + 0.5).all()

table = pd.read_csv(directory / "csv/pooled_mean.csv")
assert list(table.columns[:5]) == ["id", "path", "label", "split", "group"] and list(table.columns[5:]) == ["f0", "f1", "f2"]
assert (table.filter(regex="^f[0-9]").values.astype("f4") == mean).all() and (table.group == clips.group.values).all()

def shard(name):
    with tarfile.open(directory / name) as archive:
        members = [(m.name, m.mtime, archive.extractfile(m).read()) for m in archive]
    assert all(mtime == 0 for _, mtime, _ in members)
    for (a, _, array), (b, _, text) in zip(members[::2], members[1::2]):
        assert a.removesuffix(".npy") == b.removesuffix(".json") and "." not in a.removesuffix(".npy")
        yield np.load(io.BytesIO(array)), json.loads(text)
count = 0
for split in ["train", "val", "test"]:
    for features, clip in shard(f"shards/{split}-000000.tar"):
        i = list(ids).index(clip["id"])
        assert (features == rows[offset[i]:offset[i] + length[i]]).all() and features.ndim == 2
        assert clip["labels"] == [clips.label.iloc[i]] and clip["split"] == split == clips.split.iloc[i]
        assert clip["path"] == clips.path.iloc[i] and clip["group"] == clips.group.iloc[i]
        count += 1
assert count == len(ids), count
features, clip = next(shard("plain/clips-000000.tar"))
assert features.shape == (3,) and clip["labels"] == [] and clip["split"] is None

frame = pd.read_parquet(directory / "labels/pooled_mean.parquet")
assert [list(labels) for labels in frame.labels[:3]] == [["dog"], ["cat", "owl"], []], frame.labels[:3]
assert list(frame.split[:3]) == ["train", "test", None] and "group" not in frame

# All is well. On a busy machine, pyarrow's threads may abort the process when the interpreter ends, so it ends without that.
os._exit(0)
"#;

/// Writes rows.h5 with one to four rows per clip.
const WRITE: &str = r#"
import sys, pathlib, h5py, numpy as np
directory = pathlib.Path(sys.argv[1])
with h5py.File(directory / "strong.h5") as store, h5py.File(directory / "rows.h5", "w") as out:
    for name, value in store.attrs.items():
        out.attrs[name] = value
    ids = store["clips/id"][:]
    length = 1 + np.arange(len(ids)) % 4
    rows = np.random.default_rng(0).normal(size=(length.sum(), 3)).astype("f4")
    offset = np.cumsum(length) - length
    index = np.arange(len(rows)) - np.repeat(offset, length)
    out.attrs["dim"] = 3
    out["features"] = rows
    for name in ["clips/id", "clips/path", "clips/frame_count", "clips/fps", "clips/duration_seconds"]:
        out[name] = store[name][:]
    out["clips/offset"], out["clips/length"] = offset.astype("u8"), length.astype("u4")
    out["pooled/mean"] = np.stack([rows[o:o + n].astype("f8").mean(0) for o, n in zip(offset, length)]).astype("f4")
    out["pooled/max"] = np.stack([rows[o:o + n].max(0) for o, n in zip(offset, length)])
    out["rows/start_frame"], out["rows/padded"] = index.astype("u8"), np.zeros(len(rows), "u1")
    out["rows/start_seconds"], out["rows/end_seconds"] = index / 2, index / 2 + 0.5
(directory / "labels.csv").write_text("id,path,labels,split\ntrain00,a.mp4,dog,train\ntrain01,b.mp4,cat|owl,test\nx,x.mp4,owl|cat,train\n")
"#;

#[test]
fn exports_are_read_by_other_programs() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    run_python(WRITE, &[at]);
    for (arguments, files) in [
        ("--manifest clips.csv --export parquet --out parquet", &["parquet/pooled_mean.parquet"][..]),
        ("--manifest clips.csv --export parquet --pooling none --out parquet", &["parquet/features.parquet"]),
        ("--manifest clips.csv --export npy --pooling max --out npy", &["npy/pooled_max.npy", "npy/clips.csv"]),
        ("--export npy --pooling none --out npy-rows", &["npy-rows/features.npy", "npy-rows/rows.csv"]),
        ("--manifest clips.csv --export csv --out csv", &["csv/pooled_mean.csv"]),
        (
            "--manifest clips.csv --export webdataset --pooling none --out shards",
            &["shards/train-000000.tar", "shards/val-000000.tar", "shards/test-000000.tar"],
        ),
        ("--export webdataset --out plain", &["plain/clips-000000.tar"]),
        ("--manifest labels.csv --export parquet --out labels", &["labels/pooled_mean.parquet"]),
    ] {
        let arguments: Vec<&str> = std::iter::once("rows.h5").chain(arguments.split(' ')).collect();
        let output = inspect(at, &arguments);
        assert_code(&output, 0);
        for file in files {
            assert!(printed(&output).contains(&format!("inspect: wrote {file}\n")), "{}", printed(&output));
        }
    }
    run_python(COMPARE, &[at]);

    // What was exported can be imported.
    let expected = clips(&at.join("rows.h5"));
    assert_eq!(imported(at, &["parquet/features.parquet", "--sequences"]), expected);
    assert_eq!(imported(at, &["npy-rows/features.npy", "--ids", "npy-rows/rows.csv", "--sequences"]), expected);
    assert_eq!(imported(at, &["csv/pooled_mean.csv"]), imported(at, &["parquet/pooled_mean.parquet"]));
    // The list of clips is a manifest.
    let pooled = imported(at, &["npy/pooled_max.npy", "--ids", "npy/clips.csv", "--manifest", "npy/clips.csv"]);
    assert_eq!(pooled.len(), expected.len());
}

#[test]
fn exports_do_not_overwrite() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    fs::create_dir(at.join("out")).unwrap();
    for (format, pooling, file) in [
        ("parquet", "mean", "pooled_mean.parquet"),
        ("npy", "none", "rows.csv"),
        ("npy", "max", "pooled_max.npy"),
        ("csv", "mean", "pooled_mean.csv"),
        ("webdataset", "mean", "old.tar"),
    ] {
        fs::write(at.join("out").join(file), "kept").unwrap();
        let output = inspect(at, &["strong.h5", "--export", format, "--pooling", pooling, "--out", "out"]);
        assert_code(&output, 1);
        assert_eq!(
            printed(&output),
            format!("inspect: out/{file}: exists already: remove it, or choose another --out\n")
        );
        assert_eq!(fs::read_to_string(at.join("out").join(file)).unwrap(), "kept");
    }
    assert_eq!(fs::read_dir(at.join("out")).unwrap().count(), 5);
    for arguments in [&["strong.h5", "--export", "csv"][..], &["strong.h5", "--pooling", "max", "--out", "new"]] {
        assert_code(&inspect(at, arguments), 2);
    }
}

/// The examples of docs/store.md run as they are written.
#[test]
fn documented_examples_open_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    fs::create_dir(at.join("features")).unwrap();
    fs::rename(at.join("strong.h5"), at.join("features/cnn.h5")).unwrap();
    let text = fs::read_to_string(root().join("docs/store.md")).unwrap();
    let examples: Vec<&str> = text.split("```python\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 3);
    let check = "\nassert clips.shape == (135, 6) and clips.index[3] == 'train03' and rows.shape == (135, 6)\n\
                 assert (rows.loc['val07'].values == clips.loc['val07'].values).all()\n\
                 assert len(labeled) == 135 and labeled.label['test01'] == 'dog' and labeled[0].dtype == 'f4'\n";
    let script = format!("import os, sys\nos.chdir(sys.argv[1])\n{}{check}", examples.concat());
    run_python(&script, &[at]);
}
