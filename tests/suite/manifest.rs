//! Manifests through the real programs: what is refused and how, what is accepted in a manifest's place, what is imported.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kinoprobe::store::{ClipRows, Payload, Provenance, Row, StoreWriter, Values};
use ndarray::Array2;
use tempfile::TempDir;

use crate::support::{assert_code, printed};

/// A folder with empty files: manifests look at names only.
fn folder(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| put(&folder, file, ""));
    folder
}

fn put(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run(program: &str, folder: &Path, arguments: &[&str]) -> Output {
    // As in the other tests: a store that is written meanwhile may be locked.
    Command::new(program).args(arguments).env("HDF5_USE_FILE_LOCKING", "FALSE").current_dir(folder).output().unwrap()
}

fn inspect(folder: &TempDir, arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_kinoprobe-inspect"), folder.path(), arguments)
}

/// Inspects the text as a manifest beside a.mp4, b.mp4 and c.mp4, and expects exit code 1, one line `inspect: …` and these
/// words.
#[track_caller]
fn refused(text: &str, said: &[&str]) {
    let folder = folder(&["a.mp4", "b.mp4", "c.mp4"]);
    put(&folder, "clips.csv", text);
    let output = inspect(&folder, &["clips.csv"]);
    assert_code(&output, 1);
    assert!(output.stdout.is_empty(), "{}", printed(&output));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("inspect: clips.csv"), "{message}");
    for words in said {
        assert!(message.contains(words), "`{words}` is not in: {message}");
    }
}

#[track_caller]
fn accepted(output: &Output, said: &[&str]) {
    assert_code(output, 0);
    let message = printed(output);
    for words in said {
        assert!(message.contains(words), "`{words}` is not in: {message}");
    }
}

#[test]
fn a_missing_manifest_is_named() {
    let output = inspect(&folder(&[]), &["clips.csv"]);
    assert_code(&output, 1);
    assert_eq!(printed(&output), "inspect: clips.csv: there is no such manifest, list or folder\n");
}

#[test]
fn mistakes_are_refused_with_line_and_remedy() {
    refused("id,path,lable\n1,a.mp4,x\n", &["clips.csv:1", "`lable`", "did you mean `label`?"]);
    refused("id,path,label\n1,a.mp4,x\n2,b.mp4,x\n1,c.mp4,x\n", &["clips.csv:4", "`1` stands twice (first on line 2)"]);
    refused("id,path,label,split\n1,a.mp4,x,trian\n", &["clips.csv:2", "unknown split `trian`", "train, val or test"]);
    refused("id,path,label\n1,a.mp4,x\n2,b.mp4,\n", &["clips.csv:3", "clip `2` has an empty label", "fill it in"]);
    refused("id,path,labels\n1,a.mp4,x||y\n", &["clips.csv:2", "empty label"]);
    refused(
        "id,path,label,group,split\n1,a.mp4,x,film,train\n2,b.mp4,x,film,val\n",
        &["the group `film` stands in more than one split", "(line 2)", "(line 3)"],
    );
    refused(
        "id,path,label,split\n1,a.mp4,x,train\n2,b.mp4,y,val\n",
        &["the label `y` has no training clip", "first `2`", "move one to train"],
    );
    refused("id,path,label\n1,gone.mp4,x\n", &["clips.csv:2", "`gone.mp4`", "--root"]);
    refused("id,path,label,year\n1,a.mp4,x,MCMXCVII\n", &["clips.csv:2", "year is `MCMXCVII`", "such as 1997"]);
    refused(
        "id,path,label,split\n1,a.mp4,,trian\n1,b.mp4,x,\n",
        &["3 problems", "line 2: unknown split", "line 2: clip `1` has an empty label", "line 3: the id `1`"],
    );
}

#[test]
fn homework_lists_are_read() {
    let folder = folder(&["videos/1.mp4", "videos/2.avi", "videos/3.mp4"]);
    put(&folder, "train.csv", "Id,Category\n1,7\n2,0\n");
    put(&folder, "test.csv", "Id\n3\n");
    accepted(&inspect(&folder, &["train.csv"]), &["train.csv: 2 clips", "classes: 2, of 1 to 1 clips"]);
    accepted(&inspect(&folder, &["."]), &[".: 3 clips", "1 clip without a label: predicted only"]);
    put(&folder, "train.csv", "Id,Category\n1,7\n9,0\n");
    let output = inspect(&folder, &["train.csv"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("no file or folder for 1 id below .: `9` (line 3)"), "{}", printed(&output));
}

#[test]
fn a_folder_per_class_and_a_plain_list_are_read() {
    let folder = folder(&["clips/cat/1.mp4", "clips/cat/2.mp4", "clips/dog/shots/1.jpg", "clips/dog/shots/2.jpg"]);
    let said = ["clips: 3 clips", "folders of frames: 1, of 2 to 2 frames"];
    accepted(&inspect(&folder, &["clips"]), &said);
    put(&folder, "list.txt", "# two clips\nclips/cat/1.mp4\nclips/dog/shots\n");
    accepted(&inspect(&folder, &["list.txt"]), &["list.txt: 2 clips", "no clip has a label"]);
    put(&folder, "list.txt", "clips/cat/9.mp4\n");
    let output = inspect(&folder, &["list.txt"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("list.txt:1"), "{}", printed(&output));
}

#[test]
fn several_labels_are_analyzed_and_drawn() {
    let folder = folder(&["a.mp4", "b.mp4", "c.mp4"]);
    put(&folder, "clips.csv", "id,path,labels,year\n1,a.mp4,war|drama,1998\n2,b.mp4,drama,1942\n3,c.mp4,drama|war,\n");
    let output = inspect(&folder, &["clips.csv", "--out", "out"]);
    accepted(&output, &["labels a clip: 1 in 1 clips, 2 in 2 clips", "drama + war: 2 clips, 1.00 × chance"]);
    for file in ["classes.csv", "balance.csv", "weights.csv", "cooccurrence.csv", "cooccurrence.svg", "compose.csv"] {
        assert!(printed(&output).contains(&format!("inspect: wrote out/{file}")), "{}", printed(&output));
        assert!(folder.path().join("out").join(file).is_file());
    }
}

/// kinoprobe-classify says the same as kinoprobe-inspect, and draws a split that keeps groups whole.
#[test]
fn classify_refuses_the_same_and_splits_by_group() {
    let folder = tempfile::tempdir().unwrap();
    let provenance = Provenance {
        method: "made".into(),
        model: "numbers".into(),
        weights: "registry".into(),
        model_sha256: "abc".into(),
        recipe: r#"{"sampling":{"kind":"even","frames":3},"extractor":{"kind":"network","card":"numbers","batch":1}}"#
            .into(),
        ..Provenance::default()
    };
    let mut writer =
        StoreWriter::create(&folder.path().join("made.h5"), Payload::Features { dim: 2 }, &provenance).unwrap();
    let mut text = String::from("id,path,label,group\n");
    for i in 0..20 {
        put(&folder, &format!("{i}.mp4"), "");
        text += &format!("{i},{i}.mp4,{},film{}\n", ["x", "y"][i % 2], i / 2);
        writer
            .push(ClipRows {
                id: i.to_string(),
                path: format!("{i}.mp4"),
                frame_count: 1,
                fps: 25.0,
                duration_seconds: 0.04,
                rows: vec![Row { start_frame: 0, start_seconds: 0.0, end_seconds: 0.04, padded: false }],
                values: Values::Features(Array2::from_elem((1, 2), i as f32)),
            })
            .unwrap();
    }
    writer.finish().unwrap();
    let classify = || {
        let arguments = ["--features", "made.h5", "--manifest", "clips.csv", "--out", "run", "--dry-run"];
        run(env!("CARGO_BIN_EXE_kinoprobe-classify"), folder.path(), &arguments)
    };
    put(&folder, "clips.csv", &text);
    accepted(&classify(), &["2 classes, 16 train, 4 val, 0 test, 0 unlabeled clips"]);
    put(&folder, "clips.csv", &text.replace("\n5,", "\n4,"));
    let output = classify();
    assert_code(&output, 1);
    let message = printed(&output);
    assert!(message.contains("classify: clips.csv:7: the id `4` stands twice (first on line 6)"), "{message}");
}

#[test]
fn a_data_set_is_imported_and_its_manifest_read() {
    let import =
        |folder: &TempDir, arguments: &[&str]| run(env!("CARGO_BIN_EXE_kinoprobe-import"), folder.path(), arguments);
    let folder = folder(&["images/Images/tt1.jpg", "images/Images/tt2.jpg"]);
    let text = "Id,Genre,Action,War\ntt1,\"['Action', 'War']\",1,1\ntt2,['War'],0,1\ntt3,['War'],0,1\n";
    put(&folder, "posters.csv", text);
    let output = import(&folder, &["posters", "posters.csv", "--clips", "images", "--out", "made/clips.csv"]);
    let said = ["2 clips kept of 3 titles", "titles without files, left out: 1 (tt3)", "import: wrote made/clips.csv"];
    accepted(&output, &said);
    // Beside the images the manifest speaks of them by relative paths and can be moved with them; elsewhere it cannot.
    assert!(fs::read_to_string(folder.path().join("made/clips.csv")).unwrap().contains(",/"));
    accepted(&inspect(&folder, &["made/clips.csv"]), &["2 clips", "Action + War: 1 clips"]);
    accepted(&import(&folder, &["posters", ".", "--out", "clips.csv"]), &["2 clips kept"]);
    let manifest = fs::read_to_string(folder.path().join("clips.csv")).unwrap();
    assert!(manifest.contains("tt1,images/Images/tt1.jpg,Action|War,,tt1"), "{manifest}");
    put(&folder, "posters.csv", &text.replace(",0,1\ntt3", ",0,yes\ntt3"));
    let output = import(&folder, &["posters", "posters.csv", "--out", "clips.csv"]);
    assert_code(&output, 1);
    let message = printed(&output);
    assert!(message.contains("import: posters.csv:3: `War` is `yes` where others are 0 or 1"), "{message}");
    let output = import(&folder, &["posters", "posters.csv", "--split", "1", "--out", "clips.csv"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("--split applies to trailers12k only"));
    assert_code(&import(&folder, &["imagenet", ".", "--out", "clips.csv"]), 2);
}
