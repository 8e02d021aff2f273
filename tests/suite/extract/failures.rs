//! Clips that fail.

use std::fs;

use super::Workspace;
use crate::support::{assert_code, printed, run_python};

#[test]
fn failed_clips_are_recorded_skipped_and_retried() {
    let workspace = Workspace::new(3);
    for (name, content) in [("text.mp4", "no video"), ("empty.mp4", ""), ("late.mp4", "not yet")] {
        fs::write(workspace.path(name), content).unwrap();
    }
    let manifest =
        "id,path,label\none,video.mp4,a\ntext,text.mp4,a\nlate,late.mp4,b\nempty,empty.mp4,b\ntwo,video.mp4,b\n";
    fs::write(workspace.path("manifest.csv"), manifest).unwrap();
    let output = workspace.command("tiny.h5").output().unwrap();
    assert_code(&output, 3);
    assert!(printed(&output).contains("3 failed"), "{}", printed(&output));
    let failures = "
import h5py, sys
with h5py.File(sys.argv[1]) as store:
    print(store['clips/id'].asstr()[:].tolist(), store['failures/id'].asstr()[:].tolist(), set(store['failures/stage'].asstr()[:]))
";
    let listed = run_python(failures, &[&workspace.path("tiny.h5")]);
    assert_eq!(listed.trim(), "['one', 'two'] ['text', 'late', 'empty'] {'decode'}");

    // Again: nothing is retried, and the exit code is the same.
    let output = workspace.command("tiny.h5").output().unwrap();
    assert_code(&output, 3);
    assert!(printed(&output).contains("up to date"), "{}", printed(&output));

    fs::copy(workspace.path("video.mp4"), workspace.path("late.mp4")).unwrap();
    assert_code(&workspace.command("tiny.h5").arg("--retry-failed").output().unwrap(), 3);
    let listed = run_python(failures, &[&workspace.path("tiny.h5")]);
    assert_eq!(listed.trim(), "['one', 'late', 'two'] ['text', 'empty'] {'decode'}");
}

#[test]
fn the_json_log_has_one_object_per_line() {
    let workspace = Workspace::new(3);
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    fs::write(workspace.path("manifest.csv"), "id,path,label\none,video.mp4,a\ntext,text.mp4,a\n").unwrap();
    let output = workspace.command("tiny.h5").arg("--log-json").output().unwrap();
    assert_code(&output, 3);
    let events: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(events.iter().any(|event| event["event"] == "failure" && event["id"] == "text"), "{events:?}");
    assert!(
        events.iter().any(|event| event["event"] == "finished" && event["clips"] == 1 && event["failed"] == 1),
        "{events:?}"
    );
}
