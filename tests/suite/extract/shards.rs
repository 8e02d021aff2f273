//! Shards: extraction by several tasks, their merge and status.

use std::fs;
use std::process::{Command, Output, Stdio};

use kinoprobe::cancel::CancellationToken;
use kinoprobe::lease::{Busy, Lease};
use serde_json::Value;

use super::{IDS, Workspace};
use crate::support::{assert_code, printed, root, run_python, send_signal};

impl Workspace {
    /// A manifest with clips of several files, two of which are damaged.
    pub(super) fn with_failures() -> Self {
        let workspace = Self::new(20);
        fs::write(workspace.path("text.mp4"), "no video").unwrap();
        fs::write(workspace.path("late.mp4"), "not yet").unwrap();
        let manifest = fs::read_to_string(workspace.path("manifest.csv")).unwrap();
        let (header, clips) = manifest.split_once('\n').unwrap();
        let manifest = format!("{header}\ntext,text.mp4,a,\n{clips}late,late.mp4,b,\n");
        fs::write(workspace.path("manifest.csv"), manifest).unwrap();
        workspace
    }

    pub(super) fn shard(&self, out: &str, shard: &str) -> Output {
        self.command(out).args(["--shard", shard]).output().unwrap()
    }

    pub(super) fn merge(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-merge"));
        command.current_dir(self.directory.path()).args(arguments).output().unwrap()
    }

    fn status(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-status"));
        let output = command.current_dir(self.directory.path()).args(arguments).output().unwrap();
        assert_code(&output, 0);
        printed(&output)
    }

    fn status_json(&self, directory: &str) -> Value {
        serde_json::from_str(&self.status(&[directory, "--json"])).unwrap()
    }
}

#[test]
fn tasks_check_their_own_files_only() {
    let workspace = Workspace::with_failures();
    assert_code(&workspace.command("tiny.h5").args(["--shard", "0/4", "--dry-run"]).output().unwrap(), 0);
    fs::remove_file(workspace.path("late.mp4")).unwrap();
    let output = workspace.shard("tiny.h5", "0/4");
    assert_code(&output, 1);
    assert!(printed(&output).contains("1 file of 22 missing"), "the first task checks all files: {}", printed(&output));
    fs::write(workspace.path("late.mp4"), "not yet").unwrap();
    // The plan exists after the first task.
    let first = workspace.shard("tiny.h5", "0/4").status.code();
    assert!(matches!(first, Some(0 | 3)), "{first:?}");
    fs::remove_file(workspace.path("late.mp4")).unwrap();
    let tasks: Vec<Output> = (0..4).map(|shard| workspace.shard("tiny.h5", &format!("{shard}/4"))).collect();
    let refused: Vec<String> = tasks.iter().filter(|task| task.status.code() == Some(1)).map(printed).collect();
    assert_eq!(refused.len(), 1, "{tasks:?}");
    assert!(refused[0].contains("1 file of") && refused[0].contains("missing: `late.mp4`; correct"), "{refused:?}");
}

#[test]
fn merged_shards_equal_the_store_of_one_run() {
    let workspace = Workspace::with_failures();
    assert_code(&workspace.command("single.h5").output().unwrap(), 3);
    let codes: Vec<Option<i32>> =
        ["2/3", "0/3", "1/3"].iter().map(|shard| workspace.shard("tiny.h5", shard).status.code()).collect();
    assert!(codes.contains(&Some(3)), "{codes:?}");
    let status = workspace.status(&["tiny.shards"]);
    assert!(status.contains("3 shards: 3 done\n20 of 22 clips done, 2 failed, 0 missing"), "{status}");
    let output = workspace.merge(&["tiny.shards", "--out", "tiny.h5"]);
    assert_code(&output, 3);
    assert!(printed(&output).contains("tiny.h5: 20 clips of 3 shards merged, 2 failed"), "{}", printed(&output));
    assert_eq!(workspace.fingerprint("tiny.h5"), workspace.fingerprint("single.h5"));

    // The store is up to date for an extraction without shards, which compares the manifest and all settings.
    let output = workspace.command("tiny.h5").output().unwrap();
    assert!(printed(&output).contains("up to date (20 clips)"), "{}", printed(&output));

    // A clip that failed is retried in its shard only.
    assert_eq!(workspace.status(&["tiny.shards", "--list", "shards"]), "\n");
    assert!(workspace.status(&["tiny.shards", "--list", "retry"]).len() > 1);
    let failed = workspace.status(&["tiny.shards", "--list", "failed"]);
    let ids: Vec<&str> = failed.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert!(ids.contains(&"late") && ids.contains(&"text") && failed.contains("late.mp4"), "{failed}");
    fs::copy(workspace.path("video.mp4"), workspace.path("late.mp4")).unwrap();
    for shard in ["0/3", "1/3", "2/3"] {
        let output = workspace.command("tiny.h5").args(["--shard", shard, "--retry-failed"]).output().unwrap();
        assert!(!printed(&output).contains("20 clips"), "{}", printed(&output));
    }
    assert_code(&workspace.merge(&["tiny.shards", "--out", "tiny.h5"]), 3);
    assert_code(&workspace.command("single.h5").arg("--retry-failed").output().unwrap(), 3);
    assert_eq!(workspace.fingerprint("tiny.h5"), workspace.fingerprint("single.h5"));
}

#[test]
fn shards_of_descriptors_are_merged() {
    let workspace = Workspace::with_failures();
    let sift = |out: &str, shard: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
        command.current_dir(root()).args(["--method", "sift", "--frames", "2", "--manifest"]);
        command.arg(workspace.path("manifest.csv")).arg("--out").arg(workspace.path(out));
        assert_code(&command.args(shard.map(|shard| ["--shard", shard]).into_iter().flatten()).output().unwrap(), 3);
    };
    sift("single.h5", None);
    // The two clips that fail are in different shards of two.
    sift("merged.h5", Some("0/2"));
    sift("merged.h5", Some("1/2"));
    assert_code(&workspace.merge(&["merged.shards", "--out", "merged.h5"]), 3);
    assert_eq!(workspace.fingerprint("merged.h5"), workspace.fingerprint("single.h5"));
}

#[test]
fn more_shards_are_merged_than_the_soft_limit_of_open_files() {
    let workspace = Workspace::new(12);
    let shards: Vec<String> = (0..12).map(|shard| format!("{shard}/12")).collect();
    shards.iter().for_each(|shard| assert_code(&workspace.shard("tiny.h5", shard), 0));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 12 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_kinoprobe-merge")]);
    command.current_dir(workspace.directory.path()).args(["tiny.shards", "--out", "tiny.h5"]);
    assert_code(&command.output().unwrap(), 0);
    assert_eq!(run_python(IDS, &[&workspace.path("tiny.h5")]).matches("clip").count(), 12);
}

/// The order of the manifest and the order in which the shards are extracted do not matter.
#[test]
fn tasks_with_other_settings_are_refused() {
    let workspace = Workspace::new(8);
    assert_code(&workspace.shard("tiny.h5", "1/2"), 0);
    let manifest = fs::read_to_string(workspace.path("manifest.csv")).unwrap();
    let refused = |output: Output, expected: &str| {
        assert_code(&output, 1);
        let text = printed(&output);
        assert!(text.contains("tiny.shards/shards.json: the first task was started with other settings"), "{text}");
        assert!(text.contains(expected), "{text}");
    };
    refused(workspace.shard("tiny.h5", "0/3"), "shards: 2, requested 3");
    refused(workspace.command("tiny.h5").args(["--shard", "0/2", "--frames", "5"]).output().unwrap(), "recipe: {");
    let renamed = manifest.replace("clip003", "other");
    fs::write(workspace.path("manifest.csv"), &renamed).unwrap();
    refused(
        workspace.shard("tiny.h5", "0/2"),
        "manifest: clips that are missing: 1 (clip003); clips that are new: 1 (other)",
    );
    fs::write(workspace.path("manifest.csv"), manifest.replace("1.31", "1.3")).unwrap();
    refused(workspace.shard("tiny.h5", "0/2"), "manifest: the same ids, but other paths, starts or ends");
    // A dry run refuses too.
    refused(
        workspace.command("tiny.h5").args(["--shard", "0/2", "--dry-run"]).output().unwrap(),
        "manifest: the same ids",
    );

    let mut lines: Vec<&str> = manifest.lines().collect();
    lines[1..].reverse();
    fs::write(workspace.path("manifest.csv"), lines.join("\n") + "\n").unwrap();
    assert_code(&workspace.shard("tiny.h5", "0/2"), 0);
    assert_code(&workspace.merge(&["tiny.shards", "--out", "tiny.h5"]), 0);
    fs::write(workspace.path("manifest.csv"), manifest).unwrap();
    assert_code(&workspace.command("single.h5").output().unwrap(), 0);
    assert_eq!(workspace.fingerprint("tiny.h5"), workspace.fingerprint("single.h5"));
}

#[test]
fn shard_of_the_environment_is_extracted() {
    let workspace = Workspace::new(4);
    let run = |variables: &[(&str, &str)], shard: &str| {
        let mut command = workspace.command("tiny.h5");
        command.args(["--shard", shard]).env_remove("RANK").envs(variables.iter().copied()).output().unwrap()
    };
    assert_code(&run(&[("SLURM_ARRAY_TASK_ID", "1"), ("SLURM_ARRAY_TASK_COUNT", "1")], "auto/2"), 0);
    assert_code(&run(&[("RANK", "0"), ("WORLD_SIZE", "2")], "auto"), 0);
    assert!(workspace.path("tiny.shards/0000-of-0002.h5").exists());
    assert!(workspace.path("tiny.shards/0001-of-0002.h5").exists());
    let output = run(&[], "auto");
    assert_code(&output, 1);
    assert!(printed(&output).contains("pass --shard I/N"), "{}", printed(&output));
    let output = workspace.shard("tiny.h5", "2/2");
    assert_code(&output, 2);
    assert!(printed(&output).contains("shards are numbered from 0 to 1"), "{}", printed(&output));
    let output = workspace.shard("many.h5", "0/5");
    assert_code(&output, 1);
    assert!(printed(&output).contains("4 clips cannot be split into 5 shards"), "{}", printed(&output));
}

#[test]
fn dry_run_of_a_shard_writes_nothing() {
    let workspace = Workspace::new(8);
    let output = workspace.command("tiny.h5").args(["--shard", "1/2", "--dry-run"]).output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("4 of 4 clips to extract"), "{}", printed(&output));
    assert!(!workspace.path("tiny.shards").exists());
}

#[test]
fn two_tasks_do_not_extract_the_same_shard() {
    let workspace = Workspace::new(8);
    assert_code(&workspace.shard("tiny.h5", "0/2"), 0);
    let path = workspace.path("tiny.shards/0001-of-0002.lease");
    let lease = Lease::acquire(&path, Busy::Fail, &CancellationToken::default(), &|_| ()).unwrap();
    let output = workspace.shard("tiny.h5", "1/2");
    assert_code(&output, 1);
    let expected = format!("0001-of-0002.lease: process {} on ", std::process::id());
    assert!(printed(&output).contains(&expected), "{}", printed(&output));
    let status = workspace.status_json("tiny.shards");
    assert_eq!(
        (&status["shards"][1]["state"], &status["shards"][1]["pid"]),
        (&"running".into(), &std::process::id().into())
    );
    assert_eq!(workspace.status(&["tiny.shards", "--list", "shards"]), "1\n", "it is not complete");
    drop(lease);
    assert_code(&workspace.shard("tiny.h5", "1/2"), 0);
    let left: Vec<String> = fs::read_dir(workspace.path("tiny.shards"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".h5"))
        .collect();
    assert_eq!(left, ["shards.json"]);
}

/// Starts a shard, and sends a signal when its journal has this many bytes. Returns `false` if it ended before.
fn signal_at(workspace: &Workspace, shard: &str, size: u64, signal: &str) -> bool {
    let journal = workspace.path("tiny.shards/0001-of-0002.h5.partial");
    let mut command = workspace.command("tiny.h5");
    let mut child = command.args(["--shard", shard, "--quiet"]).stderr(Stdio::null()).spawn().unwrap();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if fs::metadata(&journal).is_ok_and(|journal| journal.len() >= size) {
            send_signal(&child, signal);
            child.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
}

#[test]
fn killed_shards_continue_and_equal_the_store_of_one_run() {
    let workspace = Workspace::new(80);
    assert_code(&workspace.command("single.h5").output().unwrap(), 0);
    assert_code(&workspace.shard("tiny.h5", "0/2"), 0);
    let kills = (1..8).take_while(|i| signal_at(&workspace, "1/2", i * 3_000, "-KILL")).count();
    assert!(kills >= 3, "the shard ended before it was killed: {kills} kills");
    // The lease of the killed task is stale, because its process has ended.
    let status = workspace.status_json("tiny.shards");
    let shard = &status["shards"][1];
    assert_eq!(shard["state"], "interrupted", "{status}");
    assert!(shard["done"].as_u64().unwrap() > 0 && shard["missing"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(workspace.status(&["tiny.shards", "--list", "shards"]), "1\n");
    let missing = workspace.status(&["tiny.shards", "--list", "missing"]);
    assert_eq!(missing.lines().count() as u64, shard["missing"].as_u64().unwrap());

    let output = workspace.merge(&["tiny.shards", "--out", "tiny.h5"]);
    assert_code(&output, 1);
    assert!(
        printed(&output).contains("1 of 2 shards are not complete (1), with 40 of 80 clips"),
        "{}",
        printed(&output)
    );
    let output = workspace.merge(&["tiny.shards", "--out", "tiny.h5", "--partial"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("40 clips of 1 shard merged, 40 missing"), "{}", printed(&output));

    let output = workspace.shard("tiny.h5", "1/2");
    assert_code(&output, 0);
    assert!(printed(&output).contains("already extracted"), "{}", printed(&output));
    // The complete store replaces the partial one, whose clips it contains.
    assert_code(&workspace.merge(&["tiny.shards", "--out", "tiny.h5"]), 0);
    assert_eq!(workspace.fingerprint("tiny.h5"), workspace.fingerprint("single.h5"));
}

#[test]
fn terminated_shard_keeps_its_clips_and_releases_its_lease() {
    let workspace = Workspace::new(80);
    assert_code(&workspace.shard("tiny.h5", "0/2"), 0);
    assert!(signal_at(&workspace, "1/2", 3_000, "-TERM"));
    assert!(!workspace.path("tiny.shards/0001-of-0002.lease").exists());
    let done = workspace.status_json("tiny.shards")["shards"][1]["done"].as_u64().unwrap();
    let output = workspace.shard("tiny.h5", "1/2");
    assert_code(&output, 0);
    assert!(printed(&output).contains(&format!("{done} already extracted")), "{done}: {}", printed(&output));
}

#[test]
fn shard_whose_clips_all_fail_is_complete() {
    let workspace = Workspace::new(0);
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    fs::write(workspace.path("manifest.csv"), "id,path,label\na,text.mp4,x\nb,video.mp4,x\n").unwrap();
    let mut codes = ["0/2", "1/2"].map(|shard| workspace.shard("tiny.h5", shard).status.code());
    codes.sort();
    assert_eq!(codes, [Some(0), Some(3)]);
    assert_code(&workspace.merge(&["tiny.shards", "--out", "tiny.h5"]), 3);
    assert_eq!(run_python(IDS, &[&workspace.path("tiny.h5")]).trim(), "b | a | 6");
}

#[test]
fn stores_are_concatenated_and_other_clips_are_not_lost() {
    let workspace = Workspace::new(4);
    let manifest = fs::read_to_string(workspace.path("manifest.csv")).unwrap();
    let lines: Vec<&str> = manifest.lines().collect();
    for (name, rows) in [("a", &lines[1..3]), ("b", &lines[3..5])] {
        fs::write(workspace.path("manifest.csv"), format!("{}\n{}\n", lines[0], rows.join("\n"))).unwrap();
        assert_code(&workspace.command(&format!("{name}.h5")).output().unwrap(), 0);
    }
    fs::write(workspace.path("manifest.csv"), &manifest).unwrap();
    assert_code(&workspace.command("single.h5").output().unwrap(), 0);
    assert_code(&workspace.merge(&["a.h5", "b.h5", "--out", "ab.h5"]), 0);
    assert_eq!(workspace.fingerprint("ab.h5"), workspace.fingerprint("single.h5"));

    let failed = |arguments: &[&str], expected: &str| {
        let output = workspace.merge(arguments);
        assert_code(&output, 1);
        assert!(printed(&output).contains(expected), "{}", printed(&output));
    };
    failed(&["a.h5", "single.h5", "--out", "x.h5"], "single.h5: clip clip000 is also in a.h5");
    failed(
        &["a.h5", "--out", "b.h5"],
        "b.h5: exists, with features of 2 clips that the shards do not have (clip002, clip003)",
    );
    failed(&["a.h5", "b.h5", "--out", "x.h5", "--partial"], "--partial does not apply to stores");
    failed(&[".", "--out", "x.h5"], "no shards.json");
    let other = workspace.command("other.h5").args(["--frames", "5"]).output().unwrap();
    assert_code(&other, 0);
    failed(&["a.h5", "other.h5", "--out", "x.h5"], "other.h5: made with other settings than a.h5:\n  recipe: ");
    failed(&["a.h5", "--out", "other.h5"], "other.h5: made with other settings");
    assert!(!workspace.path("x.h5").exists());
    // A store that contains its inputs replaces one of them.
    assert_code(&workspace.merge(&["a.h5", "b.h5", "--out", "a.h5"]), 0);
    assert_eq!(workspace.fingerprint("a.h5"), workspace.fingerprint("single.h5"));
}

#[test]
fn damaged_shards_are_named() {
    let workspace = Workspace::new(8);
    for shard in ["0/2", "1/2"] {
        assert_code(&workspace.shard("tiny.h5", shard), 0);
    }
    let shard = |index: usize| workspace.path(&format!("tiny.shards/000{index}-of-0002.h5"));
    let [first, second] = [0, 1].map(|index| fs::read(shard(index)).unwrap());
    let failed = |expected: &str| {
        let output = workspace.merge(&["tiny.shards", "--out", "tiny.h5"]);
        assert_code(&output, 1);
        assert!(printed(&output).contains(expected), "{}", printed(&output));
        assert!(!workspace.path("tiny.h5").exists());
    };
    // A shard under the name of another one.
    fs::write(shard(1), &first).unwrap();
    failed("0001-of-0002.h5: damaged: clip ");
    fs::write(shard(1), &second[..second.len() / 2]).unwrap();
    failed("0001-of-0002.h5: ");
    fs::write(shard(1), &second).unwrap();
    let plan = fs::read_to_string(workspace.path("tiny.shards/shards.json")).unwrap();
    for (wrong, expected) in [
        (plan[..plan.len() / 2].to_string(), "shards.json: damaged: "),
        (plan.replace("\"shards\":2", "\"shards\":1"), "is in shard 1 of 1"),
        (plan.replace("clip001", "clip000"), "two clips have the id clip000"),
        (plan.replace("\"format_version\":1", "\"format_version\":2"), "kinoprobe-shards 2 is not kinoprobe-shards 1"),
        (plan.replace("clip001", "clip900"), "clip clip900 of shards.json is missing"),
    ] {
        fs::write(workspace.path("tiny.shards/shards.json"), wrong).unwrap();
        failed(expected);
    }
}
