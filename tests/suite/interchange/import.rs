//! kinoprobe-import features.

use std::fs;
use std::path::Path;
use std::process::Command;

use kinoprobe::store::{FeatureStore, Pooling};
use ndarray::{Array2, array};

use super::{clips, import, imported, ramp};
use crate::evaluate::stores;
use crate::support::{assert_code, fixture, printed, run_python};

/// Writes the features of strong.h5 in every format that Python's usual packages write.
const WRITE: &str = r##"
import sys, pathlib, h5py, numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq
directory = pathlib.Path(sys.argv[1])
with h5py.File(directory / "strong.h5") as store:
    features, ids = store["features"][:], list(store["clips/id"].asstr()[:])
n, d = features.shape
(directory / "ids.txt").write_text("\n".join(ids) + "\n")
np.save(directory / "ids.npy", np.array(ids))
np.save(directory / "fortran.npy", np.asfortranarray(features.astype("f8")))
np.save(directory / "columns.npy", features.T.astype(">f4"))
np.save(directory / "axes.npy", features.reshape(n, d, 1, 1))
np.savez(directory / "stored.npz", features=features, ids=np.array(ids), labels=np.arange(n), fps=25.0)
np.savez_compressed(directory / "packed.npz", x=features, names=np.array(ids).astype("S"), objects=np.array([None]))
np.savez_compressed(directory / "clips.npz", **{f"{id}/feature": row for id, row in zip(ids, features)})
frame = pd.DataFrame(features.astype("f8"), columns=[f"f{i}" for i in range(d)])
frame.insert(0, "label", "x")
frame.insert(0, "id", ids)
frame["year"] = 1999
frame.to_csv(directory / "frame.csv", index=False)
frame.to_parquet(directory / "wide.parquet")
pd.DataFrame(features.astype("f8"), index=ids).to_csv(directory / "index.csv")
np.savetxt(directory / "bare.csv", features.astype("f8"), delimiter=",")
for compression in ["none", "gzip", "zstd"]:
    table = pa.table({"clip": ids, "vector": list(features), "seconds": np.ones(n)})
    pq.write_table(table, directory / f"{compression}.parquet", compression=compression, row_group_size=50,
        use_dictionary=compression != "none", data_page_version="2.0" if compression == "gzip" else "1.0")
fixed = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), d)
pq.write_table(pa.table({"id": ids, "embedding": fixed}), directory / "fixed.parquet")
with h5py.File(directory / "matlab73.mat", "w", userblock_size=512) as file:
    def text(group, name, value):
        data = group.create_dataset(name, data=np.array([[ord(c)] for c in value], "u2"))
        data.attrs["MATLAB_class"] = np.bytes_("char")
        return data.ref
    # MATLAB's X of shape (n, d) has the shape (d, n) in HDF5.
    x = file.create_dataset("X", data=features.T.astype("f8"), chunks=True, compression="gzip")
    x.attrs["MATLAB_class"] = np.bytes_("double")
    refs = file.create_group("#refs#")
    names = np.array([[text(refs, str(i), id) for i, id in enumerate(ids)]], dtype=h5py.ref_dtype)
    file.create_dataset("names", data=names, dtype=h5py.ref_dtype).attrs["MATLAB_class"] = np.bytes_("cell")
with open(directory / "matlab73.mat", "r+b") as file:
    file.write(b"MATLAB 7.3 MAT-file".ljust(126) + b"IM")
for i, (id, row) in enumerate(zip(ids, features)):
    name = directory / "clips_r21d" / ("a" if i % 2 else "b")
    name.mkdir(parents=True, exist_ok=True)
    np.save(name / f"{id}_r21d.npy", row[None])
    np.save(name / f"{id}_fps.npy", np.array(25.0))
    np.save(name / f"{id}_timestamps_ms.npy", np.arange(3.0))
"##;

/// Arguments that import the files of [`WRITE`].
const FILES: [&[&str]; 19] = [
    &["fortran.npy", "--ids", "ids.txt"],
    &["fortran.npy", "--ids", "ids.npy"],
    &["fortran.npy", "--ids", "clips.csv"],
    &["columns.npy", "--ids", "ids.txt", "--transpose"],
    &["axes.npy", "--ids", "ids.txt"],
    &["stored.npz"],
    &["packed.npz"],
    &["packed.npz", "--key", "x", "--ids-key", "names"],
    &["clips.npz", "--key", "{id}/feature"],
    &["frame.csv"],
    &["index.csv", "--ids", "ids.txt"],
    &["bare.csv", "--ids", "ids.txt"],
    &["wide.parquet"],
    &["none.parquet"],
    &["gzip.parquet"],
    &["zstd.parquet", "--key", "vector", "--ids-key", "clip"],
    &["fixed.parquet"],
    &["matlab73.mat"],
    &["clips_r21d", "--files", "{stem}_r21d.npy", "--manifest", "clips.csv"],
];

#[test]
fn all_formats_yield_the_same_store() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    run_python(WRITE, &[at]);
    let expected = clips(&at.join("strong.h5"));
    for arguments in FILES {
        assert_eq!(imported(at, arguments), expected, "{arguments:?}");
    }
    // With a manifest, clips have its order and paths.
    let manifest: String =
        fs::read_to_string(at.join("clips.csv")).unwrap().lines().take(31).map(|line| format!("{line}\n")).collect();
    fs::write(at.join("some.csv"), manifest).unwrap();
    let some = imported(at, &["stored.npz", "--manifest", "some.csv", "--method", "gist", "--model", "GIST 1.1"]);
    assert_eq!(some, expected[..30]);
    let store = FeatureStore::open(&at.join("x.h5")).unwrap();
    assert_eq!(store.clips()[7].path, "clips/train07.mp4");
    let provenance = store.provenance();
    let sha256 = run_python(
        "import sys, hashlib; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest(), end='')",
        &[&at.join("stored.npz")],
    );
    let recorded =
        [&provenance.method, &provenance.model, &provenance.weights, &provenance.source, &provenance.source_sha256];
    assert_eq!(recorded, ["gist", "GIST 1.1", "imported", "stored.npz", &sha256]);
    assert_eq!(provenance.precision, "f32");
}

#[test]
fn files_of_matlab_scipy_and_torch_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::write(at.join("ids.txt"), "a\nb\nc\nd\ne\nf\n").unwrap();
    let path = |name: &str| fixture("features").join(name).to_str().unwrap().to_string();
    for arguments in [
        &["columns.mat", "--key", "X", "--transpose"][..],
        &["rows.mat"],
        &["tensor.pt", "--ids", "ids.txt"],
        &["legacy.pt", "--ids", "ids.txt"],
        &["named.pt"],
        &["clips.pt", "--key", "{id}"],
    ] {
        let file = path(arguments[0]);
        assert_eq!(imported(at, &[&[file.as_str()], &arguments[1..]].concat()), ramp(), "{arguments:?}");
    }
    let integers = imported(at, &[&path("integers.mat")]);
    assert_eq!(integers[5], ("f".into(), array![[20.0, 21.0, 22.0, 23.0]]));
    let rows = imported(at, &[&path("rows.pt"), "--key", "{id}/rows"]);
    assert_eq!(rows[4], ("e".into(), array![[4.0, 4.125, 4.25, 4.375], [5.0, 5.125, 5.25, 5.375]]));
    let sequences = imported(at, &[&path("sequences.mat")]);
    assert_eq!(
        sequences.iter().map(|(id, rows)| (id.as_str(), rows.dim())).collect::<Vec<_>>(),
        [("α", (3, 4)), ("long name", (3, 4))]
    );
    assert_eq!(sequences[1].1.row(0), ramp()[3].1.row(0));
    // Files that MATLAB wrote: big-endian with small integers, three axes, and version 7.3.
    fs::write(at.join("three.txt"), "x\ny\nz\n").unwrap();
    let matrix = imported(at, &[&path("matlab/testmatrix_6.1_SOL2.mat"), "--ids", "three.txt"]);
    assert_eq!(matrix[0].1, array![[1.0, 2.0, 3.0, 4.0, 5.0]]);
    assert_eq!(matrix[2].1, array![[3.0, 0.0, 0.0, 0.0, 0.0]]);
    for strings in ["teststringarray_7.4_GLNX86.mat", "teststringarray_6.1_SOL2.mat"] {
        let ids = path(&format!("matlab/{strings}"));
        let named = imported(at, &[&path("matlab/testmatrix_6.1_SOL2.mat"), "--ids", &ids]);
        assert_eq!(named.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["one", "two", "three"]);
    }
    fs::write(at.join("two.txt"), "x\ny\n").unwrap();
    let axes = imported(at, &[&path("matlab/test3dmatrix_7.4_GLNX86.mat"), "--ids", "two.txt"]);
    assert_eq!(axes[1].1, array![[2.0, 8.0, 14.0, 20.0], [4.0, 10.0, 16.0, 22.0], [6.0, 12.0, 18.0, 24.0]]);
    fs::write(at.join("one.txt"), "x\n").unwrap();
    let version73 = imported(at, &[&path("matlab/testhdf5_7.4_GLNX86.mat"), "--ids", "one.txt"]);
    let expected = Array2::from_shape_fn((1, 9), |(_, i)| (i as f64 * std::f64::consts::FRAC_PI_4) as f32);
    assert_eq!(version73[0].1, expected);
}

#[test]
fn sequences_are_imported_and_classified() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    let script = r#"
import sys, pathlib, numpy as np, pandas as pd
directory = pathlib.Path(sys.argv[1])
ids = [line.split(",")[0] for line in (directory / "clips.csv").read_text().split()[1:]]
rows = [np.random.default_rng(i).normal(size=(1 + i % 4, 3)).astype("f4") for i in range(len(ids))]
(directory / "rows").mkdir()
for id, values in zip(ids, rows):
    np.save(directory / "rows" / f"{id}.npy", values)
frame = pd.DataFrame(np.concatenate(rows), columns=["x", "y", "z"])
frame["id"] = np.repeat(ids, [len(values) for values in rows])
frame.to_parquet(directory / "rows.parquet")
frame.sample(frac=1, random_state=0).to_parquet(directory / "shuffled.parquet")
np.savez(directory / "rows.npz", **dict(zip(ids, rows)))
np.savez(directory / "equal.npz", features=np.stack([rows[3]] * 5), ids=np.array(ids[:5]))
"#;
    run_python(script, &[at]);
    let expected = imported(at, &["rows", "--manifest", "clips.csv"]);
    let lengths: Vec<usize> = expected.iter().take(6).map(|(_, rows)| rows.nrows()).collect();
    assert_eq!(lengths, [1, 2, 3, 4, 1, 2]);
    assert_eq!(imported(at, &["rows.parquet", "--sequences"]), expected);
    assert_eq!(imported(at, &["rows.npz", "--key", "{id}", "--manifest", "clips.csv"]), expected);
    let equal = imported(at, &["equal.npz"]);
    assert!(equal.len() == 5 && equal.iter().all(|(_, rows)| *rows == expected[3].1));
    let output = import(at, &["shuffled.parquet", "--sequences", "--out", "y.h5"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("are not consecutive: sort the rows by clip"), "{}", printed(&output));

    imported(at, &["rows", "--manifest", "clips.csv"]);
    let mut classify = Command::new(env!("CARGO_BIN_EXE_kinoprobe-classify"));
    classify.args("--features x.h5 --manifest clips.csv --out run --classifier bilstm --epochs 2 --quiet".split(' '));
    assert_code(&classify.current_dir(at).output().unwrap(), 0);
}

#[test]
fn imported_features_are_classified_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    run_python(WRITE, &[at]);
    let run = |program: &str, arguments: &str| {
        let output = Command::new(program).current_dir(at).args(arguments.split(' ')).output().unwrap();
        assert_code(&output, 0);
        printed(&output)
    };
    for (source, method) in [("stored.npz", "zip"), ("matlab73.mat", "mat")] {
        assert_code(&import(at, &[source, "--out", &format!("features/{method}.h5")]), 0);
        let arguments =
            format!("--features features/{method}.h5 --manifest clips.csv --out runs/{method} --classifier logistic");
        let text = run(env!("CARGO_BIN_EXE_kinoprobe-classify"), &arguments);
        assert!(text.contains(&format!("{method} · logistic: 6 features, 3 classes, 60 train")), "{text}");
    }
    let metrics = |method: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(at.join(format!("runs/{method}/metrics.json"))).unwrap()).unwrap()
    };
    assert_eq!(metrics("zip")["splits"], metrics("mat")["splits"]);
    let text = run(env!("CARGO_BIN_EXE_kinoprobe-compare"), "runs --out comparison");
    assert!(text.contains("zip") && text.contains("mat"), "{text}");
    // Features of the same model in another file are accepted.
    assert_code(&import(at, &["frame.csv", "--out", "features/other.h5"]), 0);
    run(
        env!("CARGO_BIN_EXE_kinoprobe-evaluate"),
        "--model runs/zip --features features/other.h5 --manifest clips.csv --out evaluated",
    );
    let text = run(env!("CARGO_BIN_EXE_kinoprobe-inspect"), "features/zip.h5");
    for part in ["weights        imported", "source         stored.npz", "source sha-256"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn clips_without_features_are_recorded_if_requested() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::write(at.join("f.csv"), "id,f0,f1\na,1,2\nb,3,4\nz,5,6\n").unwrap();
    fs::write(at.join("clips.csv"), "id,path,start\nb,videos/b.mp4,2\nc,videos/c.mp4,\n").unwrap();
    let output = import(at, &["f.csv", "--manifest", "clips.csv", "--out", "x.h5"]);
    assert_code(&output, 1);
    let expected = "import: f.csv: no features of 1 of the 2 clips of clips.csv: c; the ids of the source are such as `a`: use the ids \
                    of the manifest, or pass --allow-missing to record them as failed\n";
    assert_eq!(printed(&output), expected);
    let output = import(at, &["f.csv", "--manifest", "clips.csv", "--out", "x.h5", "--allow-missing"]);
    assert_code(&output, 3);
    let text = printed(&output);
    for part in [
        "import: 1 clips, 1 rows × 2 features, from f.csv",
        "excluded 2 clips that are not in the manifest: a, z",
        "1 failed",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let store = FeatureStore::open(&at.join("x.h5")).unwrap();
    let (clip, failure) = (&store.clips()[0], &store.failures()[0]);
    assert_eq!((clip.id.as_str(), clip.path.as_str(), clip.start), ("b", "videos/b.mp4", Some(2.0)));
    assert_eq!(
        (failure.id.as_str(), failure.stage.as_str(), failure.error.as_str()),
        ("c", "import", "no features in f.csv")
    );
    assert_eq!(store.pooled(Pooling::Mean).unwrap(), array![[3.0, 4.0]]);
}

#[test]
fn names_suggest_a_pattern() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    run_python(WRITE, &[at]);
    for (arguments, hint) in [
        (&["clips_r21d"][..], "such as --files '{stem}_fps.npy'"),
        (&["clips_r21d", "--files", "{stem}.npy"], "such as --files '{stem}_fps.npy'"),
        (&["clips.npz", "--key", "{id}"], "pass --key '{id}/feature'"),
    ] {
        let output = import(at, &[arguments, &["--manifest", "clips.csv", "--out", "x.h5"]].concat());
        assert_code(&output, 1);
        assert!(printed(&output).contains(hint), "{arguments:?}: {}", printed(&output));
    }
}

#[test]
fn existing_files_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::write(at.join("f.csv"), "id,f0,f1\na,1,2\n").unwrap();
    fs::write(at.join("x.h5"), "kept").unwrap();
    fs::write(at.join("clips.csv"), "kept").unwrap();
    fs::write(at.join("a.mp4"), "").unwrap();
    fs::write(at.join("list.csv"), "id,path,labels\na,a.mp4,x\n").unwrap();
    let output = import(at, &["f.csv", "--out", "x.h5"]);
    assert_code(&output, 1);
    assert_eq!(printed(&output), "import: x.h5: exists already: remove it, or choose another --out\n");
    let mut manifest = Command::new(env!("CARGO_BIN_EXE_kinoprobe-import"));
    let output = manifest.current_dir(at).args(["csv", "list.csv", "--out", "clips.csv"]).output().unwrap();
    assert_code(&output, 1);
    assert_eq!(printed(&output), "import: clips.csv: exists already: remove it, or choose another --out\n");
    assert_eq!(
        fs::read_to_string(at.join("x.h5")).unwrap() + &fs::read_to_string(at.join("clips.csv")).unwrap(),
        "keptkept"
    );
    for (out, message) in [
        (".", ".: a directory: write to a file in it with --out, such as ./NAME.h5"),
        ("f.csv/below.h5", "f.csv: not a directory: choose another --out"),
        ("store.hdf", "store.hdf: the name of a store ends with .h5: choose another --out"),
    ] {
        let output = import(at, &["f.csv", "--out", out]);
        assert_code(&output, 1);
        assert_eq!(printed(&output), format!("import: {message}\n"));
    }
    assert_eq!(fs::read_dir(Path::new(at)).unwrap().count(), 5);
}
