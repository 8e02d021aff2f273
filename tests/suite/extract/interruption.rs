//! Killed and interrupted runs, full disks and closed output.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{IDS, Workspace};
use crate::support::{assert_code, printed, root, run_python, send_signal};

/// Runs the command repeatedly, and kills it when its journal has each of `sizes`. Returns the number of kills.
fn kill_at(workspace: &Workspace, out: &str, sizes: impl Iterator<Item = u64>) -> usize {
    let journal = workspace.path(&format!("{out}.partial"));
    let mut kills = 0;
    for size in sizes {
        let mut child =
            workspace.command(out).arg("--quiet").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        loop {
            if child.try_wait().unwrap().is_some() {
                return kills;
            }
            if fs::metadata(&journal).is_ok_and(|journal| journal.len() >= size) {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break;
            }
            std::thread::yield_now();
        }
    }
    kills
}

#[test]
fn killed_runs_resume_and_produce_the_same_store() {
    let workspace = Workspace::new(60);
    assert_code(&workspace.command("complete.h5").output().unwrap(), 0);
    // From the first byte of the journal; every run continues the previous one.
    let kills = kill_at(&workspace, "killed.h5", (0..12).map(|i| i * 3_000));
    assert!(kills >= 3, "too many runs ended before they were killed: {kills} kills");
    let output = workspace.command("killed.h5").output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("already extracted"), "nothing was reused: {}", printed(&output));
    assert_eq!(workspace.fingerprint("killed.h5"), workspace.fingerprint("complete.h5"));
}

/// Starts a run, and sends a signal when its journal has some records.
pub(super) fn run_with_signal(workspace: &Workspace, out: &str, signal: &str) -> Output {
    let journal = workspace.path(&format!("{out}.partial"));
    let child = workspace.command(out).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    while !fs::metadata(&journal).is_ok_and(|journal| journal.len() > 2_000) {
        std::thread::yield_now();
    }
    send_signal(&child, signal);
    child.wait_with_output().unwrap()
}

#[test]
fn an_interrupted_run_can_be_continued() {
    let workspace = Workspace::new(60);
    assert_code(&workspace.command("complete.h5").output().unwrap(), 0);
    for (out, signal) in [("interrupted.h5", "-INT"), ("terminated.h5", "-TERM")] {
        let output = run_with_signal(&workspace, out, signal);
        assert_code(&output, 130);
        assert!(printed(&output).contains("run the same command again"), "{}", printed(&output));
        assert!(!workspace.path(out).exists());
        assert_code(&workspace.command(out).output().unwrap(), 0);
        assert_eq!(workspace.fingerprint(out), workspace.fingerprint("complete.h5"));
    }
}

/// Schedulers signal a program and the shell that started it, which passes the signal on.
#[test]
fn two_signals_at_once_are_one_request() {
    let workspace = Workspace::new(60);
    let journal = workspace.path("twice.h5.partial");
    let child = workspace.command("twice.h5").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    while !fs::metadata(&journal).is_ok_and(|journal| journal.len() > 2_000) {
        std::thread::yield_now();
    }
    send_signal(&child, "-TERM");
    send_signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 130);
    assert!(printed(&output).contains("run the same command again"), "ended at once: {}", printed(&output));
}

/// Runs a program in a terminal, closes the terminal when the file of the first argument exists, and prints the exit code.
const TERMINAL: &str = "
import os, pty, sys
program, terminal = pty.fork()
if program == 0:
    os.execv(sys.argv[2], sys.argv[2:])
os.set_blocking(terminal, False)
while not os.path.exists(sys.argv[1]):
    try:
        os.read(terminal, 1024) # the progress bar
    except BlockingIOError:
        pass
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]))
";

#[test]
fn extraction_goes_on_after_its_terminal_was_closed() {
    let workspace = Workspace::new(60);
    assert_code(&workspace.command("complete.h5").output().unwrap(), 0);
    let output = run_with_signal(&workspace, "signal.h5", "-HUP");
    assert_code(&output, 0);
    assert_eq!(workspace.fingerprint("signal.h5"), workspace.fingerprint("complete.h5"));
    for (out, flags) in [("bar.h5", &[][..]), ("json.h5", &["--log-json"])] {
        let journal = workspace.path(&format!("{out}.partial"));
        let mut command = workspace.command(out);
        command.args(flags);
        let arguments: Vec<&Path> =
            [command.get_program()].into_iter().chain(command.get_args()).map(Path::new).collect();
        let code = run_python(TERMINAL, &[&[journal.as_path()], &arguments[..]].concat());
        assert_eq!(code.trim(), "0", "{out}");
        assert_eq!(workspace.fingerprint(out), workspace.fingerprint("complete.h5"));
    }
}

#[test]
fn an_interrupted_run_of_another_manifest_is_not_lost() {
    let workspace = Workspace::new(60);
    let kills = kill_at(&workspace, "store.h5", [3_000].into_iter());
    assert_eq!(kills, 1);
    fs::write(workspace.path("manifest.csv"), "id,path,label\nother,video.mp4,a\n").unwrap();
    let output = workspace.command("store.h5").output().unwrap();
    assert_code(&output, 0);
    let ids = run_python(IDS, &[&workspace.path("store.h5")]);
    assert!(ids.starts_with("other clip000 clip001"), "{ids}");
}

#[test]
fn extraction_goes_on_without_readers_of_its_output() {
    let workspace = Workspace::new(3);
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    fs::write(workspace.path("manifest.csv"), "id,path,label\none,video.mp4,a\ntext,text.mp4,a\n").unwrap();
    for (out, flags) in [("plain.h5", &["--quiet"][..]), ("json.h5", &["--log-json"])] {
        let mut command = workspace.command(out);
        let mut child = command.args(flags).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(run_python(IDS, &[&workspace.path(out)]).trim(), "one | text | 6");
    }
}

/// Returns whether a store that was not completed remains.
fn has_new_store(workspace: &Workspace) -> bool {
    fs::read_dir(workspace.directory.path())
        .unwrap()
        .any(|file| file.unwrap().file_name().to_string_lossy().contains(".h5.new"))
}

#[test]
fn a_full_disk_is_one_message_and_loses_nothing() {
    let workspace = Workspace::new(60);
    assert_code(&workspace.command("complete.h5").output().unwrap(), 0);
    // Files are limited to 512 bytes times these. The signal is ignored, so that writes fail as on a full disk.
    let mut failed_with_journal = 0;
    for blocks in [0, 1, 8, 24, 48] {
        let command = workspace.command("full.h5");
        let mut limited = Command::new("sh");
        limited.current_dir(root()).args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        let output = limited.arg(command.get_program()).args(command.get_args()).arg("--quiet").output().unwrap();
        assert_code(&output, 1);
        let message = String::from_utf8_lossy(&output.stderr);
        let found = message.lines().count() == 1 && message.matches("File too large").count() == 1;
        assert!(found && message.contains("full.h5"), "{blocks}: {message}");
        assert!(!workspace.path("full.h5").exists() && !has_new_store(&workspace));
        failed_with_journal += usize::from(workspace.path("full.h5.partial").exists());
    }
    assert!(failed_with_journal > 2);
    let output = workspace.command("full.h5").output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("already extracted"), "{}", printed(&output));
    assert_eq!(workspace.fingerprint("full.h5"), workspace.fingerprint("complete.h5"));
}

#[test]
fn an_interrupted_run_with_another_start_is_not_reused() {
    let workspace = Workspace::new(60);
    assert_eq!(kill_at(&workspace, "store.h5", [9_000].into_iter()), 1);
    let manifest = fs::read_to_string(workspace.path("manifest.csv")).unwrap();
    fs::write(workspace.path("manifest.csv"), manifest.replace("clip000,video.mp4,a,0.00", "clip000,video.mp4,a,2"))
        .unwrap();
    let output = workspace.command("store.h5").args(["--dry-run", "--prune"]).output().unwrap();
    assert!(printed(&output).contains("1 clips are not in the manifest and are removed"), "{}", printed(&output));
    assert_code(&workspace.command("store.h5").output().unwrap(), 1);
    assert_code(&workspace.command("store.h5").arg("--prune").output().unwrap(), 0);
    assert_code(&workspace.command("fresh.h5").output().unwrap(), 0);
    assert_eq!(workspace.fingerprint("store.h5"), workspace.fingerprint("fresh.h5"));
}
