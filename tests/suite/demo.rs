//! kinoprobe-demo.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::{assert_code, printed};

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

#[test]
fn results_are_split_into_texture_and_motion() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let run =
        |program: &str, arguments: &[&str]| Command::new(program).current_dir(at).args(arguments).output().unwrap();
    let classes = ["blobs-pan", "blobs-still", "dots-pan"];
    let rows = |wrong: &str| -> String {
        let rows = (0..8).map(|i| {
            let (split, truth) = (["val", "test"][i % 2], classes[i % 3]);
            format!("{i},{split},{truth},{}\n", if i == 0 { wrong } else { truth })
        });
        format!("id,split,label,predicted\n{}", rows.collect::<String>())
    };
    for (name, wrong) in [("texture", "blobs-still"), ("motion", "dots-pan")] {
        std::fs::write(at.join("p.csv"), rows(wrong)).unwrap();
        let arguments = ["--predictions", "p.csv", "--out", &format!("runs/{name}")];
        assert_code(&run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &arguments), 0);
    }
    let demo = env!("CARGO_BIN_EXE_kinoprobe-demo");
    let output = run(demo, &["--results", "runs"]);
    assert_code(&output, 0);
    let text = printed(&output);
    let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in ["motion 8 87.5 % 100.0 % 87.5 %", "texture 8 100.0 % 87.5 % 87.5 %"] {
        assert!(cells.iter().any(|cells| cells.join(" ") == row), "no {row:?} in {text}");
    }
    std::fs::write(at.join("p.csv"), "id,label,predicted\n1,a-b,a-b\n").unwrap();
    assert_code(&run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &["--predictions", "p.csv", "--out", "others/one"]), 0);
    let others = run(demo, &["--results", "others"]);
    assert_code(&others, 1);
    assert!(printed(&others).contains("the labels are not those of the demo clips"), "{}", printed(&others));
    assert_code(&run(demo, &["--results", "runs", "--out", "x"]), 2);
}
