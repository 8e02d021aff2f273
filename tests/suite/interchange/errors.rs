//! Files that cannot be imported: the message names the file and the remedy, and no store is left.

use std::fs;
use std::process::Command;

use super::import;
use crate::support::{assert_code, fixture, printed, run_python};

const WRITE: &str = r#"
import sys, pathlib, io, struct, zipfile, zlib, numpy as np, pyarrow as pa, pyarrow.parquet as pq
directory = pathlib.Path(sys.argv[1])
ids = np.array(["a", "b", "c"])
features = np.arange(12, dtype="f4").reshape(3, 4)
def save(name, array, **kwargs):
    np.save(directory / name, array, **kwargs)
(directory / "ids").write_text("a\nb\nc\n")
(directory / "two").write_text("a\nb\n")
(directory / "four").write_text("a\nb\nc\nd\n")
(directory / "twice").write_text("a\nb\na\n")
(directory / "blank.csv").write_text('id,x\na,1\n"",2\nc,3\n')
(directory / "table").write_text("clip,x\na,1\n")
save("good.npy", features)
save("nan.npy", np.where(features == 6, np.nan, features))
save("large.npy", np.where(features == 6, 1e39, features.astype("f8")))
save("complex.npy", features.astype("c8"))
save("object.npy", np.array([[1], None, "x"], dtype=object), allow_pickle=True)
save("fields.npy", np.zeros(3, dtype=[("x", "f4"), ("y", "f4")]))
save("text.npy", ids)
save("vector.npy", features[:, 0])
save("empty.npy", features[:, :0])
save("axes.npy", np.zeros((3, 2, 2, 2), "f4"))
np.savez(directory / "unnamed.npz", x=features)
np.savez(directory / "several.npz", x=features, y=features, ids=ids)
np.savez(directory / "numbers.npz", x=features, ids=np.arange(3))
data = (directory / "good.npy").read_bytes()
(directory / "short.npy").write_bytes(data[:-1])
(directory / "header.npy").write_bytes(data[:40])
(directory / "note.npy").write_text("not an array at all")
def huge(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(48)
(directory / "huge.npy").write_bytes(huge((1 << 40, 1 << 10)))
(directory / "beyond.npy").write_bytes(huge((1 << 62, 1 << 62)))
archive = (directory / "several.npz").read_bytes()
(directory / "short.npz").write_bytes(archive[: len(archive) // 2])
with zipfile.ZipFile(directory / "huge.npz", "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr("x.npy", huge((1 << 32, 4)))
    file.writestr("ids.npy", b"\x93NUMPY\x01\x00" + b"\x00\x00")
flipped = bytearray(archive)
flipped[archive.index(b"x.npy") + 200] ^= 1
(directory / "flipped.npz").write_bytes(flipped)
pq.write_table(pa.table({"id": ids, "v": [[1.0, 2.0], [3.0], [4.0, 5.0]]}), directory / "ragged.parquet")
pq.write_table(pa.table({"id": ids, "v": [[1.0, None], [3.0, 4.0], [4.0, 5.0]]}), directory / "null.parquet")
pq.write_table(pa.table({"id": ids, "v": [[1.0, 2.0]] * 3}), directory / "brotli.parquet", compression="brotli")
pq.write_table(pa.table({"id": ids}), directory / "without.parquet")
pq.write_table(pa.table({"id": ids, "f0": features[:, 0], "f1": features[:, 1]}), directory / "good.parquet")
table = (directory / "good.parquet").read_bytes()
(directory / "short.parquet").write_bytes(table[:-20])
(directory / "ragged.csv").write_text("id,f0,f1\na,1,2\nb,3\n")
(directory / "word.csv").write_text("id,f0,f1\na,1,2\nb,3,many\n")
(directory / "inf.csv").write_text("id,f0,f1\na,1,2\nb,3,inf\n")
(directory / "header.csv").write_text("id,f0,f1\n")
(directory / "features.txt").write_text("1 2 3\n")
def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)
def matlab(shape, values):
    body = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, b"X") + values
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 256, b"IM") + element(14, body)
(directory / "huge.mat").write_bytes(matlab((2**31 - 1, 2**31 - 1), struct.pack("<II", 9, 2**32 - 8) + bytes(64)))
(directory / "short.mat").write_bytes(matlab((3, 4), element(9, bytes(96)))[:-30])
bomb = zlib.compress(element(14, b"")[:4] + struct.pack("<I", 2**32 - 1) + bytes(10000))
(directory / "bomb.mat").write_bytes(b"MATLAB".ljust(124) + struct.pack("<H2s", 256, b"IM") + struct.pack("<II", 15, len(bomb)) + bomb)
(directory / "note.mat").write_bytes(b"not a MATLAB file" * 20)
(directory / "none").mkdir()
for name, array in [("a_x", features), ("a_y", features[:, :2]), ("b_x", features)]:
    (directory / "mixed").mkdir(exist_ok=True)
    save(f"mixed/{name}.npy", array)
(directory / "damaged").mkdir()
save("damaged/a.npy", features)
save("damaged/b.npy", np.full((2, 4), np.inf))
"#;

#[test]
fn errors_name_the_file_and_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    run_python(WRITE, &[at]);
    for name in ["code.pt", "numpy.pt", "tensor.pt", "rows.mat"] {
        fs::copy(fixture("features").join(name), at.join(name)).unwrap();
    }
    fs::write(at.join("short.pt"), &fs::read(at.join("tensor.pt")).unwrap()[..900]).unwrap();
    for (arguments, parts) in [
        (&["absent.npy"][..], &["absent.npy: No such file"][..]),
        (&["features.txt"], &["features.txt: not a file of features: .npy, .npz, .mat, .parquet, .csv, .pt and .pth"]),
        (&["good.npy"], &["good.npy: no ids of the rows of an array (3 × 4): pass --ids FILE with one id per line"]),
        (
            &["good.npy", "--ids", "two"],
            &["good.npy: has 3 rows (3 × 4), but 2 ids; each row needs an id (ids from two)"],
        ),
        (&["good.npy", "--ids", "four"], &["but 4 ids; its columns are the clips: pass --transpose"]),
        (&["good.npy", "--ids", "twice"], &["good.npy: duplicate id `a`: make the ids unique, or pass --sequences"]),
        (&["good.npy", "--ids", "blank.csv"], &["good.npy: the id of row 1 is empty"]),
        (&["good.npy", "--ids", "table"], &["table: has no column `id`"]),
        (&["good.npy", "--ids", "absent"], &["absent: No such file"]),
        (&["good.npy", "--ids", "good.npy"], &["good.npy: contains no strings: write ids as strings"]),
        (&["good.npy", "--files", "{id}.npy"], &["--files applies to a directory with one file per clip"]),
        (&["nan.npy", "--ids", "ids"], &["nan.npy: clip `b`, row 0, feature 2 is NaN", "remove the clip"]),
        (&["large.npy", "--ids", "ids"], &["large.npy: clip `b`, row 0, feature 2 is inf"]),
        (
            &["complex.npy", "--ids", "ids"],
            &["complex.npy: complex numbers (dtype <c8): convert it with array.astype('float32')"],
        ),
        (&["object.npy", "--ids", "ids"], &["object.npy: pickled Python objects, which are not executed (dtype |O)"]),
        (&["fields.npy", "--ids", "ids"], &["fields.npy: a structured array: save one of its fields"]),
        (&["text.npy", "--ids", "ids"], &["text.npy: an array (3 strings) contains no numbers"]),
        (&["vector.npy", "--ids", "ids"], &["vector.npy: has 3 values: it needs the axes N × D, or N × T × D"]),
        (&["empty.npy", "--ids", "ids"], &["empty.npy: is empty (3 × 0)"]),
        (&["axes.npy", "--ids", "ids"], &["axes.npy: has 3 × 2 × 2 × 2 values"]),
        (
            &["short.npy", "--ids", "ids"],
            &["short.npy: truncated or damaged: it declares 3 × 4 values of 4 bytes, but has 47"],
        ),
        (&["header.npy", "--ids", "ids"], &["header.npy: truncated in its header"]),
        (&["note.npy", "--ids", "ids"], &["note.npy: not a NumPy file"]),
        (&["huge.npy", "--ids", "ids"], &["huge.npy: truncated or damaged: it declares 1099511627776 × 1024 values"]),
        (&["beyond.npy", "--ids", "ids"], &["beyond.npy: damaged: it declares"]),
        (&["unnamed.npz"], &["unnamed.npz: no ids of the rows of `x` (3 × 4)"]),
        (&["several.npz"], &["several.npz: has several arrays: `x` (3 × 4), `y` (3 × 4); select one with --key NAME"]),
        (&["several.npz", "--key", "z"], &["several.npz: has no variable `z`, but `x` (3 × 4)"]),
        (&["several.npz", "--key", "z/{id}"], &["several.npz: no variable matches 'z/{id}'"]),
        (&["several.npz", "--key", "{id}{id}"], &["--key {id}{id}: needs one {id}"]),
        (&["several.npz", "--key", "x", "--ids-key", "w"], &["has no variable `w` with ids"]),
        (&["numbers.npz", "--ids-key", "ids", "--key", "x"], &["numbers.npz: `ids` (3) contains no strings"]),
        (&["short.npz"], &["short.npz: truncated, or not an archive of numpy.savez"]),
        (&["huge.npz", "--key", "x", "--ids", "ids"], &["huge.npz: "]),
        (&["flipped.npz", "--key", "x"], &["flipped.npz: x.npy: damaged"]),
        (&["ragged.parquet"], &["ragged.parquet: the lists of `v` differ in length (row 1)"]),
        (&["null.parquet"], &["null.parquet: column `v`: has missing values (null)", "remove these rows"]),
        (
            &["brotli.parquet"],
            &[
                "brotli.parquet: column `v`: its compression is not supported",
                "write it with compression snappy, gzip, zstd or none",
            ],
        ),
        (&["without.parquet"], &["without.parquet: ", "contains no numbers"]),
        (&["short.parquet"], &["short.parquet: truncated, or not a Parquet file"]),
        (&["ragged.csv"], &["ragged.csv: line 3 has 2 fields instead of 3"]),
        (&["word.csv"], &["word.csv: line 3, column 3: `many` is not a number"]),
        (&["inf.csv"], &["inf.csv: clip `b`, row 0, feature 1 is inf"]),
        (&["header.csv"], &["header.csv: has a header, but no rows"]),
        (&["huge.mat", "--ids", "ids"], &["huge.mat: "]),
        (&["short.mat", "--ids", "ids"], &["short.mat: truncated"]),
        (&["bomb.mat", "--ids", "ids"], &["bomb.mat: damaged: a compressed variable is not a matrix"]),
        (&["note.mat", "--ids", "ids"], &["note.mat: not a MATLAB file of version 5 or 7.3"]),
        (&["rows.mat", "--key", "phase"], &["rows.mat: `phase`: complex numbers: save a full numeric matrix"]),
        (&["rows.mat", "--key", "mask"], &["rows.mat: `mask`: a sparse matrix"]),
        (&["rows.mat", "--key", "options"], &["rows.mat: `options`: a structure"]),
        (
            &["code.pt"],
            &["code.pt: the pickle refers to pathlib.PurePosixPath, which is not executed; save only tensors"],
        ),
        (&["numpy.pt"], &["numpy.pt: the pickle refers to numpy", "which is not executed; save only tensors"]),
        (&["short.pt", "--ids", "ids"], &["short.pt: truncated or invalid zip archive"]),
        (&["none"], &["none: contains no file with features"]),
        (
            &["mixed", "--files", "{id}.mat"],
            &["mixed: contains no ", "file that matches {id}.mat, but files such as a_x.npy"],
        ),
        (&["mixed", "--ids", "ids"], &["--ids applies to a file with all clips"]),
        (&["mixed"], &["mixed: clip `a_y` has 2 features, but `a_x` has 4", "--files"]),
        (&["damaged"], &["damaged/b.npy: clip `b`, row 0, feature 0 is inf"]),
    ] {
        // An address space of 4 GB, as a limit on allocations.
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "ulimit -v 4000000 && exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_kinoprobe-import"),
            "features",
        ]);
        let output = command.current_dir(at).args(arguments).args(["--out", "x.h5"]).output().unwrap();
        assert_code(&output, 1);
        let message = printed(&output);
        assert!(message.starts_with("import: ") && message.lines().count() == 1, "{arguments:?}: {message}");
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: no {part:?} in {message}");
        }
        let stores = std::fs::read_dir(at)
            .unwrap()
            .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("x.h5"));
        assert_eq!(stores.count(), 0, "{arguments:?}");
    }
}

#[test]
fn usage_errors_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["f.csv"][..], "--out"),
        (&["f.csv", "--out", "x.h5", "--files", "x.npy"], "needs one {id} or one {stem}"),
        (&["f.csv", "--out", "x.h5", "--allow-missing"], "--manifest"),
        (&["f.csv", "--out", "x.h5", "--ids", "a", "--ids-key", "b"], "cannot be used with"),
    ] {
        let output = import(directory.path(), arguments);
        assert_code(&output, 2);
        assert!(printed(&output).contains(part), "{arguments:?}: {}", printed(&output));
    }
    let help = printed(&import(directory.path(), &["--help"]));
    for part in ["--files '{id}_r21d.npy'", "--sequences", "no code in it is executed", "make classify METHOD=gist"] {
        assert!(help.contains(part), "no {part:?} in\n{help}");
    }
}
