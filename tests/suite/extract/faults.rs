//! System calls that fail; `make test-faults` tests more of them.

use std::fs;
use std::process::{Command, Output};

use super::Workspace;
use crate::support::{assert_code, printed, root};

/// Compiles the library that makes system calls fail; see its source.
pub fn library(workspace: &Workspace) {
    let library = workspace.path("fault.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(root().join("tests/faults/fault.c"));
    assert_code(&compiler.output().unwrap(), 0);
}

/// Runs a command whose call number `call` of one of these kinds fails. Returns its output and the call, if there was one.
pub fn with_fault(
    workspace: &Workspace,
    mut command: Command,
    kinds: &str,
    call: usize,
    action: &str,
) -> (Output, Option<String>) {
    let log = workspace.path("fault.log");
    let _ = fs::remove_file(&log);
    command.env("LD_PRELOAD", workspace.path("fault.so")).env("FAULT_LOG", &log).env("FAULT_CALLS", kinds);
    let directory = workspace.directory.path().canonicalize().unwrap();
    command.env("FAULT_DIRECTORY", directory).env("FAULT_CALL", call.to_string()).env("FAULT_ACTION", action);
    let output = command.output().unwrap();
    // The library creates the file, and writes to it when it makes a call fail.
    (output, fs::read_to_string(log).ok().filter(|call| !call.is_empty()))
}

/// Returns whether no store that is being written remains.
fn no_incomplete_store(workspace: &Workspace) -> bool {
    let mut files = fs::read_dir(workspace.path("out")).unwrap();
    files.all(|file| !file.unwrap().file_name().to_string_lossy().contains(".new"))
}

/// HDF5 does not report the errors of writes that closing a dataset causes.
#[test]
fn a_single_write_that_fails_is_an_error() {
    let workspace = Workspace::new(2);
    library(&workspace);
    assert_code(&workspace.command("fresh.h5").output().unwrap(), 0);
    let expected = workspace.fingerprint("fresh.h5");
    let mut failed = 0;
    for call in 1.. {
        fs::create_dir_all(workspace.path("out")).unwrap();
        let eio = libc::EIO.to_string();
        let (output, made) = with_fault(&workspace, workspace.command("out/x.h5"), "write", call, &eio);
        if made.is_none() {
            break;
        }
        assert_code(&output, 1);
        let text = printed(&output);
        assert!(text.contains("x.h5") && text.contains("Input/output error"), "{made:?}: {text}");
        assert!(!workspace.path("out/x.h5").exists() && no_incomplete_store(&workspace), "{made:?}");
        assert_code(&workspace.command("out/x.h5").output().unwrap(), 0);
        assert_eq!(workspace.fingerprint("out/x.h5"), expected, "{made:?}");
        fs::remove_dir_all(workspace.path("out")).unwrap();
        failed += 1;
    }
    assert!(failed > 10, "{failed}");
}

/// A network file system makes a request again if the reply is lost, and then reports that the file exists already, or no longer.
#[test]
fn a_rename_that_is_reported_as_failed_is_done() {
    let workspace = Workspace::new(2);
    library(&workspace);
    for action in [libc::EEXIST, libc::ENOENT, libc::EIO].map(|error| format!("after {error}")) {
        for call in 1.. {
            fs::create_dir_all(workspace.path("out")).unwrap();
            let mut command = workspace.command("out/x.h5");
            command.args(["--shard", "0/2"]);
            let (output, made) = with_fault(&workspace, command, "rename", call, &action);
            if made.is_none() {
                assert!(call > 3, "the plan, the lease and the store are renamed");
                break;
            }
            assert_code(&output, 0);
            let mut names: Vec<_> = fs::read_dir(workspace.path("out/x.shards"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["0000-of-0002.h5", "shards.json"], "{made:?}");
            fs::remove_dir_all(workspace.path("out")).unwrap();
        }
    }
}
