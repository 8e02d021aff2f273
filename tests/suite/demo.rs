//! kinoprobe-demo.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::assert_code;

/// Reads all files below a directory, by relative path.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(self::files(&path).into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn output_is_deterministic() {
    let directory = tempfile::tempdir().unwrap();
    let clips: &[&str] = &["--clips", "1", "--multi-label"];
    let posters: &[&str] = &["--posters", "--years", "2", "--per-year", "4"];
    for (arguments, count) in [(clips, 15 + 3), (posters, 8 + 2)] {
        let runs = ["1", "3"].map(|threads| {
            let out = directory.path().join(format!("{count}-{threads}"));
            let run = Command::new(env!("CARGO_BIN_EXE_kinoprobe-demo"))
                .args(arguments)
                .args(["--quiet", "--out"])
                .arg(&out)
                .env("RAYON_NUM_THREADS", threads)
                .output()
                .unwrap();
            assert_code(&run, 0);
            files(&out)
        });
        assert_eq!(runs[0].len(), count, "{:?}", runs[0].keys());
        assert!(runs[0].keys().eq(runs[1].keys()));
        for (name, bytes) in &runs[0] {
            assert!(*bytes == runs[1][name], "{name} depends on the number of threads");
        }
    }
}
