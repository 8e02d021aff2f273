//! Manifests in the programs: errors, accepted formats and imported data sets.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kinoprobe::manifest::Manifest;
use kinoprobe::store::{ClipRows, Payload, Provenance, RowSource, StoreWriter, Values};
use ndarray::Array2;
use tempfile::TempDir;

use crate::support::{assert_code, printed};

/// Creates a directory with empty files; manifests do not open clips.
fn directory(files: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| write(&directory, file, ""));
    directory
}

fn write(directory: &TempDir, name: &str, text: &str) {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run(program: &str, directory: &Path, arguments: &[&str]) -> Output {
    // File locks would fail if another test writes a store.
    Command::new(program).args(arguments).env("HDF5_USE_FILE_LOCKING", "FALSE").current_dir(directory).output().unwrap()
}

fn inspect(directory: &TempDir, arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_kinoprobe-inspect"), directory.path(), arguments)
}

/// Inspects a manifest in a directory with a.mp4, b.mp4 and c.mp4, and expects exit code 1 and a message with these texts.
#[track_caller]
fn assert_error(text: &str, expected: &[&str]) {
    let directory = directory(&["a.mp4", "b.mp4", "c.mp4"]);
    write(&directory, "clips.csv", text);
    let output = inspect(&directory, &["clips.csv"]);
    assert_code(&output, 1);
    assert!(output.stdout.is_empty(), "{}", printed(&output));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("inspect: clips.csv"), "{message}");
    for words in expected {
        assert!(message.contains(words), "`{words}` not in: {message}");
    }
}

/// Returns the error of loading a manifest for extraction, which needs the files.
fn load_error(directory: &TempDir, name: &str) -> String {
    Manifest::load(&directory.path().join(name), None).unwrap_err().to_string()
}

#[track_caller]
fn assert_success(output: &Output, expected: &[&str]) {
    assert_code(output, 0);
    let message = printed(output);
    for words in expected {
        assert!(message.contains(words), "`{words}` not in: {message}");
    }
}

#[test]
fn missing_manifest_is_an_error() {
    let output = inspect(&directory(&[]), &["clips.csv"]);
    assert_code(&output, 1);
    assert_eq!(printed(&output), "inspect: clips.csv: no such manifest, list or directory\n");
}

#[test]
fn errors_have_line_and_remedy() {
    assert_error("id,path,lable\n1,a.mp4,x\n", &["clips.csv:1", "`lable`", "did you mean `label`?"]);
    assert_error(
        "id,path,label\n1,a.mp4,x\n2,b.mp4,x\n1,c.mp4,x\n",
        &["clips.csv:4", "duplicate id `1` (first on line 2)"],
    );
    assert_error(
        "id,path,label,split\n1,a.mp4,x,trian\n",
        &["clips.csv:2", "unknown split `trian`", "did you mean `train`?"],
    );
    assert_error("id,path,label\n1,a.mp4,x\n2,b.mp4,\n", &["clips.csv:3", "empty label of clip `2`", "fill it in"]);
    assert_error("id,path,labels\n1,a.mp4,x||y\n", &["clips.csv:2", "empty label"]);
    assert_error(
        "id,path,label,group,split\n1,a.mp4,x,film,train\n2,b.mp4,x,film,val\n",
        &["group `film` is in more than one split", "(line 2)", "(line 3)"],
    );
    assert_error(
        "id,path,label,split\n1,a.mp4,x,train\n2,b.mp4,y,val\n",
        &["label `y` has no training clip", "first `2`", "move one to train"],
    );
    let directory = directory(&[]);
    write(&directory, "clips.csv", "id,path,label\n1,gone.mp4,x\n");
    let message = load_error(&directory, "clips.csv");
    for words in ["clips.csv:2", "`gone.mp4`", "--root"] {
        assert!(message.contains(words), "`{words}` not in: {message}");
    }
    assert_error(
        "id,path,label,year\n1,a.mp4,x,MCMXCVII\n",
        &["clips.csv:2", "invalid year `MCMXCVII`", "such as 1997"],
    );
    assert_error(
        "id,path,label,split\n1,a.mp4,,trian\n1,b.mp4,x,\n",
        &["3 problems", "line 2: unknown split", "line 2: empty label of clip `1`", "line 3: duplicate id `1`"],
    );
}

#[test]
fn paths_stay_below_the_root() {
    let directory = directory(&["clips/a.mp4", "clips/deep/b.mp4", "other/c.mp4"]);
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::os::unix::fs::symlink(directory.path().join("other"), directory.path().join("clips/link")).unwrap();
    let clips = |path: &str| format!("id,path,label\n1,a.mp4,x\n2,{path},x\n");
    for root in ["clips", "./clips/", "clips/deep/..", &at("clips")] {
        for path in ["deep/b.mp4", "./deep/b.mp4", "link/c.mp4", "deep\\b.mp4", &at("clips/deep/b.mp4")] {
            write(&directory, "list.csv", &clips(path));
            assert_success(&inspect(&directory, &["list.csv", "--root", root]), &["2 clips"]);
        }
        for path in
            ["../other/c.mp4", "deep/../../other/c.mp4", "link/../other/c.mp4", "..\\other\\c.mp4", &at("other/c.mp4")]
        {
            write(&directory, "list.csv", &clips(path));
            let output = inspect(&directory, &["list.csv", "--root", root]);
            assert_code(&output, 1);
            let message = printed(&output);
            for words in ["list.csv:3: 1 path of 2 outside of --root", path, "(line 3)", "leave out --root"] {
                assert!(message.contains(words), "`{words}` not in: {message}");
            }
        }
    }
    // Without --root, any file may be named.
    write(&directory, "clips/list.csv", &clips("../other/c.mp4"));
    assert_success(&inspect(&directory, &["clips/list.csv"]), &["2 clips"]);
    write(&directory, "list.txt", "a.mp4\n../other/c.mp4\n");
    let predicted = Manifest::from_inputs(&[at("list.txt").into()], Some(&directory.path().join("clips")), false);
    assert!(predicted.unwrap_err().to_string().contains("1 path of 2 outside of --root"));
}

#[test]
fn id_lists_are_read() {
    let directory = directory(&["videos/1.mp4", "videos/2.avi", "videos/3.mp4"]);
    write(&directory, "train.csv", "Id,Category\n1,7\n2,0\n");
    write(&directory, "test.csv", "Id\n3\n");
    assert_success(&inspect(&directory, &["train.csv"]), &["train.csv: 2 clips", "classes: 2, with 1 to 1 clips"]);
    assert_success(&inspect(&directory, &["."]), &[".: 3 clips", "1 clip without a label: predicted, not evaluated"]);
    write(&directory, "train.csv", "Id,Category\n1,7\n9,0\n");
    // Only extraction needs the files.
    let expected = ["train.csv: 2 clips", "files missing: 1 of 2\n  9: ./9"];
    assert_success(&inspect(&directory, &["train.csv"]), &expected);
    let message = load_error(&directory, "train.csv");
    assert!(
        message.contains("no file or directory for 1 id below ") && message.contains(": `9` (line 3)"),
        "{message}"
    );
}

#[test]
fn class_directories_and_path_lists_are_read() {
    let directory =
        directory(&["clips/cat/1.mp4", "clips/cat/2.mp4", "clips/dog/shots/1.jpg", "clips/dog/shots/2.jpg"]);
    let expected = ["clips: 3 clips", "frame directories: 1, with 2 to 2 frames"];
    assert_success(&inspect(&directory, &["clips"]), &expected);
    write(&directory, "list.txt", "# two clips\nclips/cat/1.mp4\nclips/dog/shots\n");
    assert_success(&inspect(&directory, &["list.txt"]), &["list.txt: 2 clips", "no clip has a label"]);
    write(&directory, "list.txt", "clips/cat/9.mp4\n");
    let expected = ["list.txt: 1 clips", "files missing: 1 of 1\n  clips/cat/9: ./clips/cat/9.mp4"];
    assert_success(&inspect(&directory, &["list.txt"]), &expected);
    let message = load_error(&directory, "list.txt");
    assert!(message.contains("list.txt:1"), "{message}");
}

#[test]
fn clips_with_the_same_content_are_listed() {
    let directory = directory(&[]);
    for name in ["train/x/a.mp4", "train/y/b.mp4", "test/x/c.mp4", "test/y/d.mp4"] {
        write(&directory, name, if name.starts_with("test/y") { "d" } else { &name[6..7] });
    }
    write(&directory, "test/x/copy.mp4", "y");
    let output = inspect(&directory, &[".", "--out", "out"]);
    let expected = [
        "warning: 1 group of clips with the same content: `test/x/copy` (test) = `train/y/b` (train)",
        "1 group is in more than one split",
        "inspect: wrote out/duplicates.csv",
    ];
    assert_success(&output, &expected);
    let text = fs::read_to_string(directory.path().join("out/duplicates.csv")).unwrap();
    assert!(text.contains("group,id,split,path\n1,"), "{text}");
}

#[test]
fn label_statistics_are_written() {
    let directory = directory(&["a.mp4", "b.mp4", "c.mp4"]);
    write(
        &directory,
        "clips.csv",
        "id,path,labels,year\n1,a.mp4,war|drama,1998\n2,b.mp4,drama,1942\n3,c.mp4,drama|war,\n",
    );
    let output = inspect(&directory, &["clips.csv", "--out", "out"]);
    assert_success(&output, &["labels per clip: 1 (1 clips), 2 (2 clips)", "drama + war: 2 clips, 1.00 × expected"]);
    for file in ["classes.csv", "balance.csv", "weights.csv", "cooccurrence.csv", "cooccurrence.svg", "compose.csv"] {
        assert!(printed(&output).contains(&format!("inspect: wrote out/{file}")), "{}", printed(&output));
        assert!(directory.path().join("out").join(file).is_file());
    }
}

/// kinoprobe-classify reports the same errors as kinoprobe-inspect, and draws a split that keeps groups together.
#[test]
fn classify_reports_manifest_errors_and_splits_by_group() {
    let directory = tempfile::tempdir().unwrap();
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
        StoreWriter::create(&directory.path().join("made.h5"), Payload::Features { dim: 2 }, &provenance).unwrap();
    let mut text = String::from("id,path,label,group\n");
    for i in 0..20 {
        write(&directory, &format!("{i}.mp4"), "");
        text += &format!("{i},{i}.mp4,{},film{}\n", ["x", "y"][i % 2], i / 2);
        writer
            .push(ClipRows {
                id: i.to_string(),
                path: format!("{i}.mp4"),
                start: None,
                end: None,
                frame_count: 1,
                fps: 25.0,
                duration_seconds: 0.04,
                fully_decoded: false,
                version: String::new(),
                rows: vec![RowSource {
                    start_frame: 0,
                    start_seconds: 0.0,
                    end_seconds: 0.04,
                    padded: false,
                    scale: 1.0,
                }],
                values: Values::Features(Array2::from_elem((1, 2), i as f32)),
            })
            .unwrap();
    }
    writer.finish().unwrap();
    let classify = || {
        let arguments = ["--features", "made.h5", "--manifest", "clips.csv", "--out", "run", "--dry-run"];
        run(env!("CARGO_BIN_EXE_kinoprobe-classify"), directory.path(), &arguments)
    };
    write(&directory, "clips.csv", &text);
    assert_success(&classify(), &["2 classes, 16 train, 4 val, 0 test, 0 unlabeled clips"]);
    write(&directory, "clips.csv", &text.replace("\n5,", "\n4,"));
    let output = classify();
    assert_code(&output, 1);
    let message = printed(&output);
    assert!(message.contains("classify: clips.csv:7: duplicate id `4` (first on line 6)"), "{message}");
}

#[test]
fn imported_manifest_is_read() {
    let import = |directory: &TempDir, arguments: &[&str]| {
        run(env!("CARGO_BIN_EXE_kinoprobe-import"), directory.path(), arguments)
    };
    let directory = directory(&["images/Images/tt1.jpg", "images/Images/tt2.jpg"]);
    let text = "Id,Genre,Action,War\ntt1,\"['Action', 'War']\",1,1\ntt2,['War'],0,1\ntt3,['War'],0,1\n";
    write(&directory, "posters.csv", text);
    let output = import(&directory, &["posters", "posters.csv", "--clips", "images", "--out", "made/clips.csv"]);
    let expected = ["kept 2 clips of 3 titles", "excluded, no file: 1 title (tt3)", "import: wrote made/clips.csv"];
    assert_success(&output, &expected);
    // Paths are relative if the images are below the directory of the manifest, otherwise absolute.
    assert!(fs::read_to_string(directory.path().join("made/clips.csv")).unwrap().contains(",/"));
    assert_success(&inspect(&directory, &["made/clips.csv"]), &["2 clips", "Action + War: 1 clips"]);
    assert_success(&import(&directory, &["posters", ".", "--out", "clips.csv"]), &["kept 2 clips"]);
    let manifest = fs::read_to_string(directory.path().join("clips.csv")).unwrap();
    assert!(manifest.contains("tt1,images/Images/tt1.jpg,Action|War,,tt1"), "{manifest}");
    write(&directory, "posters.csv", &text.replace(",0,1\ntt3", ",0,yes\ntt3"));
    let output = import(&directory, &["posters", "posters.csv", "--out", "other.csv"]);
    assert_code(&output, 1);
    let message = printed(&output);
    assert!(
        message.contains("import: posters.csv:3: invalid value `yes` in column `War`; expected 0 or 1"),
        "{message}"
    );
    let output = import(&directory, &["posters", "posters.csv", "--split", "1", "--out", "clips.csv"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("--split applies to trailers12k only"));
    assert_code(&import(&directory, &["imagenet", ".", "--out", "clips.csv"]), 2);
}
