//! kinoprobe-inspect.

use std::fs;
use std::process::{Command, Stdio};

use super::{assert_figure, evaluate, inspect, kinoprobe, stores};
use crate::support::{assert_code, printed, run_python};

/// Changes the type of the ids in a copy of the store `weak`, and writes a manifest with ids of that length.
const RETYPE: &str = r#"
import sys, pathlib, shutil, h5py, numpy as np
directory = pathlib.Path(sys.argv[1])
types = {"utf8-12": h5py.string_dtype("utf-8", 12), "ascii": h5py.string_dtype("ascii"), "ascii-9": "S9",
         "utf8-70": h5py.string_dtype("utf-8", 70), "long": "S310", "longer": h5py.string_dtype("utf-8", 5000),
         "space": "space"}
for name, kind in types.items():
    shutil.copy(directory / "weak.h5", directory / f"{name}.h5")
    with h5py.File(directory / f"{name}.h5", "a") as store:
        ids = [id.decode() for id in store["clips/id"][:]]
        filler = {"utf8-70": "é" * 30, "long": "p" * 300, "longer": "ö" * 2400}.get(name, "")
        ids = [filler + id for id in ids]
        del store["clips/id"]
        if name == "space":
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(12)
            kind.set_strpad(h5py.h5t.STR_SPACEPAD)
            space = h5py.h5s.create_simple((len(ids),))
            dataset = h5py.h5d.create(store["clips"].id, b"id", kind, space)
            padded = np.array([id.ljust(12).encode() for id in ids], "S12")
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, padded, kind)
        else:
            store.create_dataset("clips/id", data=[id.encode() for id in ids], dtype=kind)
        store.attrs["model"] = np.bytes_(b"n" * 5000)
    lines = (directory / "clips.csv").read_text().splitlines()
    (directory / f"{name}.csv").write_text("\n".join([lines[0]] + [filler + line for line in lines[1:]]), encoding="utf-8")
print(*types)
"#;

#[test]
fn strings_of_any_type_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    for name in run_python(RETYPE, &[at]).split_whitespace() {
        let (store, manifest) = (format!("{name}.h5"), format!("{name}.csv"));
        let output = inspect(at, &[&store, "--manifest", &manifest]);
        assert_code(&output, 0);
        assert!(printed(&output).contains(&"n".repeat(5000)), "{name}: {}", printed(&output));
        let output = kinoprobe(
            env!("CARGO_BIN_EXE_kinoprobe-classify"),
            at,
            &["--features", &store, "--manifest", &manifest, "--out", "run", "--classifier", "knn", "--dry-run"],
        );
        assert_code(&output, 0);
        assert!(printed(&output).contains("60 train, 30 val, 45 test"), "{name}: {}", printed(&output));
    }
}

#[test]
fn stores_and_manifests_are_described() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    let output = inspect(at, &["weak.h5", "--manifest", "clips.csv", "--out", "out"]);
    assert_code(&output, 0);
    let text = printed(&output);
    for part in ["UNTRAINED", "135 rows × 6, 135 clips", "non-finite values: 0 of 810", "constant features: 0 of 6"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_figure(&at.join("out/projection.svg"));
    let statistics = fs::read_to_string(at.join("out/statistics.csv")).unwrap();
    assert!(statistics.starts_with("feature,not_finite,mean,std,min,max,constant\n0,0,"), "{statistics}");
    assert_eq!(statistics.lines().count(), 7);

    let output = inspect(at, &["clips.csv", "--out", "manifest"]);
    assert_code(&output, 0);
    let text = printed(&output);
    for part in ["135 clips", "groups: 27", "labels per clip: 1 (135 clips)"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_figure(&at.join("manifest/classes.svg"));

    for (arguments, code, expected) in [
        (&["none.h5"][..], 1, "inspect: none.h5"),
        (&["none.csv"], 1, "inspect: none.csv"),
        (&["clips.csv", "--out", "x", "--export", "npy"], 1, "--export requires a feature store"),
        (&["weak.h5", "--export", "npy"], 2, "--out"),
    ] {
        let output = inspect(at, arguments);
        assert_code(&output, code);
        assert!(printed(&output).contains(expected), "{arguments:?}: {}", printed(&output));
    }
}

#[test]
fn output_that_cannot_be_written_is_one_message() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let rows: String = (0..3000).map(|i| format!("{i},{i}.mp4,label {i}\n")).collect();
    fs::write(at.join("clips.csv"), format!("id,path,label\n{rows}")).unwrap();
    let inspect = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-inspect"));
        command.current_dir(at).args(["clips.csv", "--out", "out"]).stderr(Stdio::piped());
        command
    };
    // A closed pipe, as of `head -1`: the files are written.
    let mut child = inspect().stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert_eq!(printed(&output), "");
    assert!(at.join("out/classes.csv").is_file());

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = inspect().stdout(full).output().unwrap();
    assert_code(&output, 1);
    let expected = "inspect: cannot write to standard output: No space left on device (os error 28)\n";
    assert_eq!(printed(&output), expected);

    let output = evaluate(at, &["--predictions", "none.csv", "--out", "out"]);
    assert_code(&output, 1);
    assert_eq!(printed(&output), "evaluate: none.csv: No such file or directory (os error 2)\n");
    fs::create_dir(at.join("store.h5")).unwrap();
    let output = kinoprobe(env!("CARGO_BIN_EXE_kinoprobe-inspect"), at, &["store.h5"]);
    assert_code(&output, 1);
    assert_eq!(printed(&output), "inspect: store.h5: a directory, not a store\n");
}
