//! What tests of several rooms share: fixtures, binaries, Python.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file below fixtures/.
pub fn fixture(name: &str) -> PathBuf {
    root().join("fixtures").join(name)
}

/// The Python with h5py: `KINOPROBE_PYTHON`, else the one that `make test` set up.
pub fn python() -> PathBuf {
    let python =
        std::env::var_os("KINOPROBE_PYTHON").map_or_else(|| root().join(".venv-test/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is missing: run the tests with `make test`, which sets it up", python.display());
    python
}

/// Runs a Python script and returns what it printed.
pub fn run_python(script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(python()).arg("-c").arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a finished program printed, both streams.
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asserts the exit code, showing what was printed where it is another.
#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", printed(output));
}

/// Sends a signal, such as `-INT`, to a process. Uses the shell's `kill`, because a minimal system has no `kill` executable.
#[cfg(all(feature = "media", feature = "onnx"))]
pub fn send_signal(process: &Child, signal: &str) {
    let status =
        Command::new("sh").args(["-c", "kill \"$0\" \"$1\"", signal, &process.id().to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal}: {status}");
}
