//! kinoprobe-shots, and extraction with sampling by shots.
//!
//! Most tests need TransNet V2's published weights, which `kinoprobe-models fetch transnet_v2` downloads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kinoprobe::cancel::CancellationToken;
use kinoprobe::lease::{Busy, Lease};
use tempfile::TempDir;

use crate::support::{assert_code, fixture, printed, root, run_python};

/// A directory with a manifest of two clips, one with five scenes and one with a single scene.
struct Workspace {
    directory: TempDir,
}

impl Workspace {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (scenes, one) = (fixture("media/shots.mp4"), fixture("media/plain.mp4"));
        let lines = format!("id,path,label\nscenes,{},a\none,{},b\n", scenes.display(), one.display());
        fs::write(directory.path().join("manifest.csv"), lines).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn shots(&self, out: &str, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-shots"));
        command.current_dir(root()).arg("--out").arg(self.path(out)).args(flags).output().unwrap()
    }

    fn extract(&self, out: &str, flags: &[&str]) -> Output {
        let recipe = self.path("tiny.toml");
        let tiny = fs::read_to_string(fixture("pipelines/tiny.toml")).unwrap();
        fs::write(&recipe, tiny.replace("kind = \"even\"\nframes = 6", "kind = \"shots\"\nframes = 1")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
        command.current_dir(root()).args(["--method", "tiny", "--recipe"]).arg(&recipe);
        command.arg("--models").arg(fixture("models")).arg("--manifest").arg(self.path("manifest.csv"));
        command.arg("--out").arg(self.path(out)).args(flags).output().unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Reads a list: the id and the other columns as numbers.
fn read(path: &Path) -> Vec<(String, Vec<f64>)> {
    let list = fs::read_to_string(path).unwrap();
    let mut lines = list.lines();
    assert_eq!(lines.next(), Some("id,shot,start_frame,end_frame,start_seconds,end_seconds,probability"));
    lines
        .map(|line| {
            let mut fields = line.split(',').map(str::to_owned);
            (fields.next().unwrap(), fields.map(|field| field.parse().unwrap()).collect())
        })
        .collect()
}

#[test]
fn shots_match_the_transnet_package() {
    let workspace = Workspace::new();
    let golden: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(fixture("media/shots.json")).unwrap()).unwrap();
    let expected: Vec<[usize; 2]> = serde_json::from_value(golden["shots"].clone()).unwrap();
    let probabilities: Vec<f64> = serde_json::from_value(golden["probabilities"].clone()).unwrap();
    for device in ["auto", "cpu"] {
        let manifest = workspace.path("manifest.csv");
        let output = workspace.shots("shots.csv", &["--manifest", text(&manifest), "--device", device]);
        assert_code(&output, 0);
        let list = read(&workspace.path("shots.csv"));
        let scenes: Vec<&Vec<f64>> = list.iter().filter(|(id, _)| id == "scenes").map(|(_, shot)| shot).collect();
        let found: Vec<[usize; 2]> = scenes.iter().map(|shot| [shot[1] as usize, shot[2] as usize]).collect();
        assert_eq!(found, expected, "{device}");
        let mut max_error: f64 = 0.0;
        for (number, shot) in scenes.iter().enumerate() {
            assert_eq!(shot[0], number as f64);
            assert!((shot[3] - shot[1] / 25.0).abs() < 1e-3 && (shot[4] - (shot[2] + 1.0) / 25.0).abs() < 1e-3);
            max_error = max_error.max((shot[5] - probabilities[shot[2] as usize]).abs());
        }
        println!("{device}: probabilities within {max_error:.1e}");
        assert!(max_error <= 1e-4, "{device}: error {max_error}");
        let single: Vec<_> = list.iter().filter(|(id, _)| id == "one").collect();
        assert_eq!((single.len(), single[0].1[1], single[0].1[2]), (1, 0.0, 99.0));
    }
}

#[test]
fn a_store_has_one_row_per_shot() {
    let workspace = Workspace::new();
    let list = "id,start_frame,end_frame\nscenes,0,37\nscenes,38,94\nscenes,181,240\none,0,99\n";
    fs::write(workspace.path("shots.csv"), list).unwrap();
    let shots = workspace.path("shots.csv");
    assert_code(&workspace.extract("tiny.h5", &["--shots", text(&shots)]), 0);
    let script = "
import h5py, sys
with h5py.File(sys.argv[1]) as store:
    print(store['rows/start_frame'][:].tolist(), store['clips/length'][:].tolist())
";
    assert_eq!(run_python(script, &[&workspace.path("tiny.h5")]).trim(), "[19, 66, 211, 50] [3, 1]");

    // Another list is another setting, so the store is rejected.
    fs::write(&shots, list.replace("181", "182")).unwrap();
    let output = workspace.extract("tiny.h5", &["--shots", text(&shots)]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("made with other settings"), "{}", printed(&output));
}

#[test]
fn clips_without_shots_are_rejected() {
    let workspace = Workspace::new();
    let output = workspace.extract("tiny.h5", &[]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("--shots FILE"), "{}", printed(&output));

    let shots = workspace.path("shots.csv");
    fs::write(&shots, "id,start_frame,end_frame\nscenes,0,37\none,400,500\n").unwrap();
    let output = workspace.extract("tiny.h5", &["--shots", text(&shots)]);
    assert_code(&output, 3);
    assert!(printed(&output).contains("none of its shots is within the clip"), "{}", printed(&output));
    fs::write(&shots, "id,start_frame,end_frame\nscenes,0,37\n").unwrap();
    let output = workspace.extract("other.h5", &["--shots", text(&shots)]);
    assert_code(&output, 3);
    assert!(printed(&output).contains("no shots of clip one"), "{}", printed(&output));
}

#[test]
fn ids_are_paths_and_failures_are_reported() {
    let workspace = Workspace::new();
    let (video, text_file) = (fixture("media/ten.mp4"), workspace.path("text.mp4"));
    fs::write(&text_file, "no video").unwrap();
    let output = workspace.shots("shots.csv", &[text(&video), text(&text_file), "--quiet"]);
    assert_code(&output, 3);
    assert!(printed(&output).contains("text.mp4: no video stream"), "{}", printed(&output));
    let list = read(&workspace.path("shots.csv"));
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].0.as_str(), list[0].1[2]), (text(&video), 9.0));

    let output = workspace.shots("none.csv", &[text(&text_file)]);
    assert_code(&output, 1);
    assert!(!workspace.path("none.csv").exists());
    let output = workspace.shots("none.csv", &[text(&video), "--card", "clip_vit_b32"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("not a shot detector"), "{}", printed(&output));
}

#[test]
fn merged_shards_equal_the_list_of_one_run() {
    let workspace = Workspace::new();
    let mut lines = String::from("id,path,label\ntext,text.mp4,a\n");
    for (id, file) in [("b", "ten.mp4"), ("a", "shots.mp4"), ("\"c, d\"", "vfr.mp4"), ("e", "short.mkv")] {
        lines += &format!("{id},{},a\n", fixture("media").join(file).display());
    }
    fs::write(workspace.path("manifest.csv"), &lines).unwrap();
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    let manifest = workspace.path("manifest.csv");
    let shots = |out: &str, flags: &[&str]| {
        workspace.shots(out, &[&["--manifest", text(&manifest), "--weights", "seeded"][..], flags].concat())
    };
    let run = |program: &str, flags: &[&str]| {
        Command::new(program).current_dir(workspace.directory.path()).args(flags).output().unwrap()
    };
    let merge = |flags: &[&str]| run(env!("CARGO_BIN_EXE_kinoprobe-merge"), flags);
    let status = |flags: &[&str]| printed(&run(env!("CARGO_BIN_EXE_kinoprobe-status"), flags));
    let refused = |output: &Output, expected: &str| {
        assert_code(output, 1);
        assert!(printed(output).contains(expected), "{}", printed(output));
    };
    assert_code(&shots("single.csv", &[]), 3);

    // The clip that fails is in one shard, and decides its exit code also when the shard is complete.
    let code = |shard: &str| shots("shots.csv", &["--shard", shard]).status.code();
    let mut codes = [code("1/2"), code("1/2")];
    refused(&shots("shots.csv", &["--shard", "0/3"]), "shards: 2, requested 3");
    refused(&shots("shots.csv", &["--shard", "0/2", "--threshold", "0.4"]), "recipe: {\"threshold\":0.5}, requested");
    refused(&merge(&["shots.shards", "--out", "shots.csv"]), "1 of 2 shards are not complete (0), with ");
    let text = status(&["shots.shards"]);
    assert!(text.contains("(shots): 2 shards: 1 done, 1 waiting"), "{text}");
    assert_eq!(codes[0], codes[1]);
    let path = workspace.path("shots.shards/0000-of-0002.lease");
    let lease = Lease::acquire(&path, Busy::Fail, &CancellationToken::default(), &|_| ()).unwrap();
    refused(&shots("shots.csv", &["--shard", "0/2"]), "0000-of-0002.lease: process ");
    drop(lease);
    codes[1] = code("0/2");
    codes.sort();
    assert_eq!(codes, [Some(0), Some(3)]);
    let output = shots("shots.csv", &["--shard", "0/2", "--allow-failed-clips"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("0000-of-0002.csv: up to date ("), "{}", printed(&output));
    let text = status(&["shots.shards"]);
    assert!(text.contains("2 shards: 2 done\n4 of 5 clips done, 1 failed, 0 missing"), "{text}");
    assert_eq!(status(&["shots.shards", "--list", "failed"]), "text\t\n");

    refused(&merge(&["shots.shards", "--out", "shots.csv", "--virtual"]), "--virtual does not apply");
    let output = merge(&["shots.shards", "--out", "shots.csv"]);
    assert_code(&output, 3);
    assert!(printed(&output).contains("shots.csv: 4 clips of 2 shards merged, 1 failed"), "{}", printed(&output));
    assert_eq!(fs::read(workspace.path("shots.csv")).unwrap(), fs::read(workspace.path("single.csv")).unwrap());

    let list = fs::read_to_string(workspace.path("single.csv")).unwrap();
    fs::write(workspace.path("other.csv"), format!("{list}f,0,0,9,0.000,0.400,0.500000\n")).unwrap();
    refused(&merge(&["shots.shards", "--out", "other.csv"]), "other.csv: exists, with shots of 1 clips that");
    fs::copy(workspace.path("single.csv"), workspace.path("shots.shards/0001-of-0002.csv")).unwrap();
    refused(&merge(&["shots.shards", "--out", "shots.csv"]), "0001-of-0002.csv: damaged: clip ");
    // Extraction with the same directory is another kind of data.
    let list = workspace.path("single.csv");
    let output = workspace.extract("shots.h5", &["--shard", "0/2", "--shots", list.to_str().unwrap()]);
    refused(&output, "data: shots, requested features of length");
}
