//! Clips that fail.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{IDS, Workspace};
use crate::support::{assert_code, fixture, printed, root, run_python};

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
fn corrected_clips_are_extracted_without_a_flag() {
    let workspace = Workspace::new(0);
    let extract = |rows: &str, code: i32| {
        fs::write(workspace.path("manifest.csv"), format!("id,path,label,start\none,video.mp4,a,\n{rows}")).unwrap();
        let output = workspace.command("tiny.h5").output().unwrap();
        assert_code(&output, code);
        printed(&output)
    };
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    let text = extract("two,text.mp4,a,\nthree,video.mp4,a,99\n", 3);
    assert!(text.contains("no frame after start 99 s"), "{text}");
    assert!(extract("two,text.mp4,a,\nthree,video.mp4,a,99\n", 3).contains("up to date"));
    let text = extract("two,video.mp4,a,\nthree,video.mp4,a,1\n", 0);
    assert!(text.contains("2 of 3 clips to extract; 1 already extracted, 0 failed earlier"), "{text}");
    assert_eq!(run_python(IDS, &[&workspace.path("tiny.h5")]).trim(), "one two three | | 18");
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

#[test]
fn broken_links_and_names_that_are_not_utf8_fail_alone() {
    let workspace = Workspace::new(0);
    let classes = workspace.path("classes");
    fs::create_dir_all(classes.join("a")).unwrap();
    for name in [&b"one.mp4"[..], b"caf\xe9.mp4", b"\xff.png"] {
        fs::copy(workspace.path("video.mp4"), classes.join("a").join(OsStr::from_bytes(name))).unwrap();
    }
    symlink("nowhere.mp4", classes.join("a/broken.mp4")).unwrap();
    symlink(".", classes.join("a/again")).unwrap();
    fs::write(classes.join("a/photo.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    command.current_dir(root()).args(["--method", "tiny", "--recipe"]).arg(fixture("pipelines/tiny.toml"));
    command.arg("--models").arg(fixture("models")).arg("--manifest").arg(&classes);
    let output = command.arg("--out").arg(workspace.path("tiny.h5")).output().unwrap();
    assert_code(&output, 3);
    let text = printed(&output);
    for message in [
        "2 paths not in UTF-8",
        "ignored 1 link to what is read elsewhere",
        "a/broken.mp4: a link to a file that does not exist",
        "clip a/caf%E9 failed: ",
        "the path is not UTF-8: rename the file",
        "a/photo.heic: HEIC images are not supported: convert to JPEG",
        "4 failed",
    ] {
        assert!(text.contains(message), "{message}: {text}");
    }
    assert_eq!(run_python(IDS, &[&workspace.path("tiny.h5")]).trim(), "a/one | a/%FF a/broken a/caf%E9 a/photo | 6");
}

#[test]
fn copies_of_clips_are_reported() {
    let workspace = Workspace::new(0);
    fs::copy(workspace.path("video.mp4"), workspace.path("copy.mp4")).unwrap();
    let rows = "one,video.mp4,a,train,\nother,video.mp4,b,train,2\ntwo,copy.mp4,a,val,\n";
    fs::write(workspace.path("manifest.csv"), format!("id,path,label,split,start\n{rows}")).unwrap();
    let output = workspace.command("tiny.h5").output().unwrap();
    assert_code(&output, 0);
    let text = printed(&output);
    let expected =
        "1 group of clips with the same content: `one` (train) = `two` (val); 1 group is in more than one split";
    assert!(text.contains(expected), "{text}");
    // The features show it without the files.
    fs::remove_file(workspace.path("copy.mp4")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-classify"));
    command.current_dir(workspace.directory.path()).args(["--features", "tiny.h5", "--manifest", "manifest.csv"]);
    let output = command.args(["--out", "run", "--classifier", "knn", "--dry-run"]).output().unwrap();
    let expected =
        "1 of 1 validation and test clips have the same features as a training clip, such as `two` and `one`";
    assert!(printed(&output).contains(expected), "{}", printed(&output));
}
