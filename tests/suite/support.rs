//! Helpers shared by the integration tests: fixtures, programs, Python.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path of a file in fixtures/.
pub fn fixture(name: &str) -> PathBuf {
    root().join("fixtures").join(name)
}

/// Returns the Python interpreter with h5py: `KINOPROBE_PYTHON`, otherwise the virtual environment of `make test`.
pub fn python() -> PathBuf {
    let python =
        std::env::var_os("KINOPROBE_PYTHON").map_or_else(|| root().join(".venv-test/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is missing: run `make test`, which creates it", python.display());
    python
}

/// Runs a Python script and returns its standard output.
pub fn run_python(script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(python()).arg("-c").arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program, and prints its exit code and its peak memory in MiB.
const PEAK: &str = "
import os, resource, subprocess, sys
environment = os.environ | {'HDF5_USE_FILE_LOCKING': 'FALSE'}
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, env=environment).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
";

/// Runs a program, asserts that it succeeds, and returns its peak memory in MiB.
#[track_caller]
pub fn peak_memory(program: &str, arguments: &[&Path]) -> u64 {
    let output = run_python(PEAK, &[&[Path::new(program)], arguments].concat());
    let (code, peak) = output.trim().split_once(' ').unwrap();
    assert_eq!(code, "0", "{program}");
    peak.parse().unwrap()
}

/// Returns the standard output and standard error of a program.
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asserts the exit code, and prints the output if it differs.
#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", printed(output));
}

/// Reads the request line and the fields of an HTTP request; `None` at the end of the connection.
pub fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// Sends a signal, such as `-INT`, to a process. Uses the shell's `kill`, because a minimal system has no `kill` executable.
#[cfg(all(feature = "media", feature = "onnx"))]
pub fn send_signal(process: &std::process::Child, signal: &str) {
    let status =
        Command::new("sh").args(["-c", "kill \"$0\" \"$1\"", signal, &process.id().to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal}: {status}");
}
