//! Outputs that cannot be written: one message, the documented exit code, and nothing lost.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::evaluate::stores;
use crate::support::{assert_code, printed};

/// Programs with their arguments, except --out.
const PROGRAMS: [(&str, &str); 4] = [
    (
        env!("CARGO_BIN_EXE_kinoprobe-classify"),
        "--features strong.h5 --manifest clips.csv --recipe strong.toml --classifier knn",
    ),
    (env!("CARGO_BIN_EXE_kinoprobe-evaluate"), "--model run --features strong.h5 --manifest clips.csv"),
    (env!("CARGO_BIN_EXE_kinoprobe-compare"), "run"),
    (env!("CARGO_BIN_EXE_kinoprobe-inspect"), "clips.csv"),
];

fn command(directory: &Path, program: &str, arguments: &str, out: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments.split(' ')).args(["--out", out]);
    command
}

/// A directory with two stores, a run and a file.
fn workspace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    stores(directory.path());
    fs::write(directory.path().join("file"), "kept").unwrap();
    let (classify, arguments) = PROGRAMS[0];
    assert_code(&command(directory.path(), classify, arguments, "run").output().unwrap(), 0);
    directory
}

#[test]
fn directories_are_checked_before_the_work() {
    let directory = workspace();
    for (program, arguments) in PROGRAMS {
        let name = program.rsplit('-').next().unwrap();
        for (out, message) in [
            ("file", "file: not a directory: choose another --out"),
            ("file/below/it", "file: not a directory: choose another --out"),
            // Not even root can create files in /proc.
            ("/proc/new", "/proc: cannot be written to: No such file or directory (os error 2)"),
        ] {
            let output = command(directory.path(), program, arguments, out).output().unwrap();
            assert_code(&output, 1);
            assert_eq!(printed(&output), format!("{name}: {message}\n"));
        }
    }
    assert_eq!(fs::read_to_string(directory.path().join("file")).unwrap(), "kept");
    let codebook = env!("CARGO_BIN_EXE_kinoprobe-codebook");
    for (out, message) in [
        ("run", "run: a directory: write to a file in it with --out, such as run/sift.h5"),
        ("file/below.h5", "file: not a directory: choose another --out"),
    ] {
        let output = command(directory.path(), codebook, "--descriptors none.h5 --manifest clips.csv", out).output();
        let output = output.unwrap();
        assert_code(&output, 1);
        assert_eq!(printed(&output), format!("codebook: {message}\n"));
    }
}

#[cfg(all(feature = "media", feature = "onnx"))]
#[test]
fn files_are_checked_before_the_work() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "kept").unwrap();
    fs::create_dir(directory.path().join("folder")).unwrap();
    for (program, arguments, example) in [
        (env!("CARGO_BIN_EXE_kinoprobe-shots"), "none.mp4", "folder/shots.csv"),
        (env!("CARGO_BIN_EXE_kinoprobe-extract"), "--method none --manifest none.csv", "folder/NAME.h5"),
        (env!("CARGO_BIN_EXE_kinoprobe-predict"), "--model none none.mp4", "folder/predictions.csv"),
    ] {
        let name = program.rsplit('-').next().unwrap();
        for (out, message) in [
            ("folder", &*format!("folder: a directory: write to a file in it with --out, such as {example}")),
            ("file/below", "file: not a directory: choose another --out"),
            ("/proc/new", "/proc: cannot be written to: No such file or directory (os error 2)"),
        ] {
            let output = command(directory.path(), program, arguments, out).output().unwrap();
            assert_code(&output, 1);
            assert_eq!(printed(&output), format!("{name}: {message}\n"));
        }
    }
}

#[test]
fn results_are_complete_without_a_reader_of_the_terminal_output() {
    let directory = workspace();
    for ((program, arguments), file) in
        PROGRAMS.into_iter().zip(["metrics.json", "metrics.json", "report.html", "classes.csv"])
    {
        let name = program.rsplit('-').next().unwrap();
        // A closed pipe, as of `head -1`.
        let mut closed = command(directory.path(), program, arguments, &format!("closed-{name}"));
        let mut child = closed.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_code(&child.wait_with_output().unwrap(), 0);
        assert!(directory.path().join(format!("closed-{name}")).join(file).is_file(), "{name}");

        let full = File::options().write(true).open("/dev/full").unwrap();
        let output =
            command(directory.path(), program, arguments, &format!("full-{name}")).stdout(full).output().unwrap();
        assert_code(&output, 1);
        let expected = format!("{name}: cannot write to standard output: No space left on device (os error 28)\n");
        assert!(printed(&output).ends_with(&expected), "{}", printed(&output));
        assert!(directory.path().join(format!("full-{name}")).join(file).is_file(), "{name}");
    }
}
