//! Loading and writing of manifests. Split assignment is tested in [`splitting`], robustness in [`mutations`], links and
//! duplicates in [`links`].

mod links;
mod mutations;
mod splitting;

use std::path::Path;

use tempfile::TempDir;

use super::split::{Fractions, assign};
use super::{Manifest, Split};

/// Creates a directory with empty files; loading does not open clips.
fn directory(files: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        write(directory.path(), file, "");
    }
    directory
}

fn write(directory: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Loads `text` as manifest.csv in a directory with a.mp4, b.mp4 and c.mp4.
fn load(text: impl AsRef<[u8]>) -> crate::Result<Manifest> {
    let directory = directory(&["a.mp4", "b.mp4", "c.mp4"]);
    write(directory.path(), "manifest.csv", text);
    Manifest::load(&directory.path().join("manifest.csv"), None)
}

#[track_caller]
fn assert_error(text: impl AsRef<[u8]>, expected: &[&str]) {
    let message = load(text).expect_err("loading fails").to_string();
    for words in expected {
        assert!(message.contains(words), "`{words}` not in: {message}");
    }
}

#[test]
fn reads_any_column_order_byte_order_mark_crlf_and_quotes() {
    let text = "\u{feff}label,Path,ID,end,split,start,group\r\n\"a \"\"big\"\" fight, here\",a.mp4,1,2.5,Training,0.5,film\r\n";
    assert!(load(text).unwrap_err().to_string().contains("unknown split `Training`"));
    let manifest = load(text.replace("Training", "TRAIN")).unwrap();
    let clip = &manifest.clips[0];
    assert_eq!((clip.id.as_str(), clip.path.as_str()), ("1", "a.mp4"));
    assert!(clip.file.is_absolute() && clip.file.ends_with("a.mp4"));
    assert_eq!(clip.labels, ["a \"big\" fight, here"]);
    assert_eq!((clip.start, clip.end, clip.split), (Some(0.5), Some(2.5), Some(Split::Train)));
    assert_eq!(clip.group.as_deref(), Some("film"));
    assert!(manifest.warnings.is_empty(), "{:?}", manifest.warnings);
}

#[test]
fn reads_multiple_labels_tabs_and_semicolons() {
    let manifest = load("id;path;labels\n1;a.mp4;Drama|Comedy | Drama\n2;b.mp4;Drama\n").unwrap();
    assert_eq!(manifest.clips[0].labels, ["Drama", "Comedy"]);
    assert_eq!(manifest.classes(), ["Comedy", "Drama"]);
    assert!(manifest.is_multi_label());
    assert_eq!(load("id\tpath\tlabel\n1\ta.mp4\tx|y\n").unwrap().clips[0].labels, ["x|y"]);
}

#[test]
fn classes_are_in_natural_order() {
    let manifest = load("id,path,label\n1,a.mp4,10\n2,b.mp4,2\n3,c.mp4,0\n").unwrap();
    assert_eq!(manifest.classes(), ["0", "2", "10"]);
}

#[test]
fn errors_have_line_and_remedy() {
    assert_error("id,path,lable\n1,a.mp4,x\n", &["manifest.csv:1", "`lable`", "did you mean `label`?"]);
    assert_error("id,path,label,gruop\n1,a.mp4,x,g\n", &["did you mean `group`?"]);
    assert_error(
        "name,file,label\n1,a.mp4,x\n",
        &["missing column `id`", "rename `name`", "missing column `path`", "rename `file`"],
    );
    assert_error("id,path,label,label\n1,a.mp4,x,y\n", &["duplicate column `label`"]);
    assert_error("id,path,label,labels\n1,a.mp4,x,y\n", &["both `label` and `labels`"]);
    assert_error(
        "id,path,label\n1,a.mp4,x\n\n\n1,b.mp4,x\n",
        &["manifest.csv:5", "duplicate id `1`", "first on line 2"],
    );
    assert_error(
        "id,path,label,split\n1,a.mp4,x,trian\n",
        &["manifest.csv:2", "unknown split `trian`; expected train, val or test; did you mean `train`?"],
    );
    assert_error("id,path,label\n1,a.mp4,\n", &["manifest.csv:2", "empty label"]);
    assert_error("id,path,labels\n1,a.mp4,x|\n", &["manifest.csv:2", "empty label"]);
    assert_error(
        "id,path,label\n1,a.mp4,x\n2,nowhere.mp4,x\n",
        &["manifest.csv:3", "1 file of 2 missing", "`nowhere.mp4`", "--root"],
    );
    assert_error("id,path,label,start,end\n1,a.mp4,x,1,soon\n", &["manifest.csv:2", "invalid end `soon`"]);
    assert_error("id,path,label,start,end\n1,a.mp4,x,3,2\n", &["manifest.csv:2", "end (2) is not after start (3)"]);
    assert_error("id,path,label,end\n1,a.mp4,x,nan\n", &["invalid end `nan`"]);
    assert_error("id,path,label,year\n1,a.mp4,x,1997\n2,b.mp4,x,soon\n", &["manifest.csv:3", "invalid year `soon`"]);
    assert_error("id,path,label,year\n1,a.mp4,x,1997.5\n", &["manifest.csv:2", "invalid year `1997.5`"]);
    assert_error(
        "id,path,label,group,split\n1,a.mp4,x,film,train\n2,b.mp4,x,film,test\n",
        &["`film`", "more than one split", "train (`a.mp4` (line 2))", "test (`b.mp4` (line 3))"],
    );
    assert_error(
        "id,path,label,split\n1,a.mp4,x,train\n2,b.mp4,y,val\n",
        &["`y` has no training clip", "first `2`", "move one to train"],
    );
    assert_error(b"id,path,label\n1,a.mp4,x\n2,b.mp4,caf\xe9\n", &["manifest.csv:3", "not UTF-8"]);
    assert_error(b"\xff\xfei\0d\0", &["UTF-16"]);
    assert_error("", &["empty file"]);
    assert_error("id,path,label\n", &["no clips"]);
    assert_error("id,path,label\n1,a,b.mp4,x\n", &["manifest.csv:2", "4 fields, but the header has 3"]);
    assert_error("id,path,label\n1,a.mp4,\"x\n2,b.mp4,x\n", &["manifest.csv:2", "unclosed quote"]);
    assert_error("id,path,label\n,a.mp4,x\n", &["manifest.csv:2", "empty id"]);
}

#[test]
fn reports_several_problems_and_counts_the_others() {
    let mut text = String::from("id,path,label,split\n");
    for i in 0..30 {
        text.push_str(&format!("{i},a.mp4,,never\n"));
    }
    assert_error(&text, &["60 problems", "line 2: unknown split", "line 2: empty label of clip `0`", "and 50 more"]);
    assert_error(
        "id,path,label\n1,d.mp4,\n1,e.mp4,x\n",
        &["3 problems", "2 files of 2 missing", "duplicate id", "empty label"],
    );
}

#[test]
fn test_clips_may_be_unlabeled() {
    let manifest = load("id,path,label,split\n1,a.mp4,x,train\n2,b.mp4,,test\n").unwrap();
    assert!(manifest.clips[1].labels.is_empty());
    assert!(manifest.warnings.iter().any(|warning| warning.contains("1 clip without a label")));
}

#[test]
fn warns_of_unknown_columns_and_label_case() {
    let manifest = load("id,path,label,genre,fold\n1,a.mp4,Fight,x,1\n2,a.mp4,fight,x,2\n").unwrap();
    let warnings = manifest.warnings.join("\n");
    assert!(warnings.contains("ignored unknown columns: `genre`, `fold` (did you mean `split`?)"), "{warnings}");
    assert!(warnings.contains("`Fight`, `fight`"), "{warnings}");
}

#[test]
fn rejects_clips_missing_files_and_directories_without_clips() {
    let directory = directory(&["a.mp4", "notes/readme.txt"]);
    let message = |name: &str| Manifest::load(&directory.path().join(name), None).unwrap_err().to_string();
    assert!(message("a.mp4").contains("a clip, not a manifest"));
    assert!(message("none.csv").contains("no such manifest"));
    assert!(message("notes").contains("expected one directory per class"), "{}", message("notes"));
}

#[test]
fn reads_one_directory_per_class() {
    let directory = directory(&[
        "dog/a.mp4",
        "dog/b.avi",
        "dog/b.mp4",
        "dog/more/d.webm",
        "dog/.hidden.mp4",
        "dog/notes.txt",
        "cat/shot_10/frame_1.jpg",
        "cat/shot_10/frame_2.jpg",
        "cat/shot_2/frame_1.png",
        "cat/still.png",
        ".git/x.mp4",
        "empty/readme.md",
        "beside.mp4",
    ]);
    let manifest = Manifest::load(directory.path(), None).unwrap();
    let clips: Vec<(&str, &str)> = manifest.clips.iter().map(|c| (c.id.as_str(), c.labels[0].as_str())).collect();
    assert_eq!(
        clips,
        [
            ("cat/still", "cat"),
            ("cat/shot_2", "cat"),
            ("cat/shot_10", "cat"),
            ("dog/a", "dog"),
            ("dog/b.avi", "dog"),
            ("dog/b.mp4", "dog"),
            ("dog/more/d", "dog"),
        ]
    );
    assert_eq!(manifest.clips[3].path, "dog/a.mp4");
    let warnings = manifest.warnings.join("\n");
    for words in ["empty without clips", "1 clip outside", "2 files that are neither"] {
        assert!(warnings.contains(words), "{words}: {warnings}");
    }
}

#[test]
fn reads_splits_from_directories() {
    let directory = directory(&["train/x/1.mp4", "train/y/2.mp4", "validation/x/3.mp4", "test/4.mp4"]);
    let manifest = Manifest::load(directory.path(), None).unwrap();
    let found: Vec<_> = manifest.clips.iter().map(|c| (c.id.as_str(), c.split, c.labels.join("|"))).collect();
    assert_eq!(
        found,
        [
            ("test/4", Some(Split::Test), "".into()),
            ("train/x/1", Some(Split::Train), "x".into()),
            ("train/y/2", Some(Split::Train), "y".into()),
            ("validation/x/3", Some(Split::Val), "x".into()),
        ]
    );
}

#[test]
fn directory_with_manifest_csv_is_read_through_it() {
    let directory = directory(&["x/1.mp4", "x/2.mp4"]);
    write(directory.path(), "manifest.csv", "id,path,label\nonly,x/2.mp4,x\n");
    let manifest = Manifest::load(directory.path(), None).unwrap();
    assert_eq!(manifest.clips.len(), 1);
    assert!(manifest.source.ends_with("manifest.csv"));
}

#[test]
fn reads_id_lists() {
    let directory = directory(&["videos/1.mp4", "videos/2.avi", "videos/3/f1.jpg", "videos/4.mp4", "videos/10.mkv"]);
    write(directory.path(), "train.csv", "Id,Category\n1,7\n2,0\n3,7\n");
    write(directory.path(), "test.csv", "Id\n4\n10.mkv\n");
    let train = Manifest::load(&directory.path().join("train.csv"), None).unwrap();
    let paths: Vec<&str> = train.clips.iter().map(|clip| clip.path.as_str()).collect();
    assert_eq!(paths, ["videos/1.mp4", "videos/2.avi", "videos/3"]);
    assert_eq!(train.classes(), ["0", "7"]);
    let test = Manifest::load(&directory.path().join("test.csv"), Some(&directory.path().join("videos"))).unwrap();
    assert_eq!(test.clips[1].id, "10.mkv");
    assert!(test.clips.iter().all(|clip| clip.labels.is_empty()));
    // The directory loads all lists.
    let both = Manifest::load(directory.path(), None).unwrap();
    assert_eq!(both.clips.len(), 5);
    assert!(both.clips.iter().all(|clip| clip.split.is_none()), "a single labeled list assigns no split");
    write(directory.path(), "val.csv", "Id,Category\n4,0\n");
    write(directory.path(), "test.csv", "Id\n10\n");
    let all = Manifest::load(directory.path(), None).unwrap();
    let splits: Vec<_> = all.clips.iter().map(|clip| (clip.id.as_str(), clip.split)).collect();
    let (train, val) = (Some(Split::Train), Some(Split::Val));
    assert_eq!(splits, [("10", None), ("1", train), ("2", train), ("3", train), ("4", val)]);
}

#[test]
fn id_lists_prefer_the_directory_of_their_split_and_reject_ambiguity() {
    let directory = directory(&["data/train/1.mp4", "data/test/1.mp4"]);
    write(directory.path(), "train.csv", "Id,Category\n1,7\n");
    write(directory.path(), "list.csv", "Id,Category\n1,7\n");
    let train = Manifest::load(&directory.path().join("train.csv"), None).unwrap();
    assert_eq!(train.clips[0].path, "data/train/1.mp4");
    let message = Manifest::load(&directory.path().join("list.csv"), None).unwrap_err().to_string();
    assert!(message.contains("list.csv:2") && message.contains("several files for `1`"), "{message}");
    write(directory.path(), "gone.csv", "Id,Category\n1,\n9,2\n");
    let message = Manifest::load(&directory.path().join("gone.csv"), None).unwrap_err().to_string();
    for words in ["line 2: empty category of `1`", "no file or directory for 1 id", "`9` (line 3)", "--root"] {
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn reads_a_list_of_paths() {
    let directory = directory(&["clips/a, b.mp4", "clips/c.mp4", "frames/1.png"]);
    write(directory.path(), "list.txt", "clips/a, b.mp4\r\n\r\n# a comment\nclips\\c.mp4\nframes\n");
    let manifest = Manifest::load(&directory.path().join("list.txt"), None).unwrap();
    let ids: Vec<&str> = manifest.clips.iter().map(|clip| clip.id.as_str()).collect();
    assert_eq!(ids, ["clips/a, b", "clips/c", "frames"]);
    assert!(manifest.warnings[0].contains("no clip has a label"));
    write(directory.path(), "list.txt", "clips/c.mp4\nclips/none.mp4\n");
    let message = Manifest::load(&directory.path().join("list.txt"), None).unwrap_err().to_string();
    assert!(message.contains("list.txt:2") && message.contains("missing"), "{message}");
}

#[test]
fn hash_covers_the_fields_that_determine_extraction() {
    let hash = |text: &str| load(text).unwrap().sha256;
    let base = hash("id,path,label\n1,a.mp4,x\n");
    assert_eq!(base.len(), 64);
    assert_eq!(base, hash("path,id,label,split\na.mp4,1,y,train\n"), "labels and splits do not affect extraction");
    assert_ne!(base, hash("id,path,label\n1,b.mp4,x\n"));
    assert_ne!(base, hash("id,path,label\n2,a.mp4,x\n"));
    assert_ne!(base, hash("id,path,label,start\n1,a.mp4,x,1\n"));
    assert_ne!(hash("id,path,label,start\n1,a.mp4,x,1\n"), hash("id,path,label,end\n1,a.mp4,x,1\n"));
}

#[test]
fn written_manifest_loads_equal() {
    let directory = directory(&["a.mp4", "b.mp4", "c.mp4", "d.mp4"]);
    let text = "id,path,labels,group,start,end,year\n1,a.mp4,\"x, y|z\",g,0.1,2,1997\n2,b.mp4,z,,,,\n3,c.mp4,z,h,,3.25,2003\n4,d.mp4,\"x, y\",,,,\n";
    write(directory.path(), "manifest.csv", text);
    let mut manifest = Manifest::load(directory.path(), None).unwrap();
    assert!(assign(&mut manifest, Fractions::default(), 0).unwrap());
    let written = directory.path().join("runs/split.csv");
    manifest.write_csv(&written).unwrap();
    let mut again = Manifest::load(&written, Some(directory.path())).unwrap();
    assert_eq!(again.clips, manifest.clips);
    assert_eq!(again.clips[0].year, Some(1997));
    assert_eq!(again.sha256, manifest.sha256);
    assert!(!assign(&mut again, Fractions::default(), 1).unwrap(), "existing splits are kept");
}

#[test]
fn unlabeled_clips_are_written_and_loaded() {
    let directory = directory(&["videos/1.mp4", "videos/2.mp4", "videos/3.mp4", "videos/4.mp4"]);
    write(directory.path(), "train.csv", "Id,Category\n1,a\n2,a\n3,a\n");
    write(directory.path(), "test.csv", "Id\n4\n");
    let mut manifest = Manifest::load(directory.path(), None).unwrap();
    assert!(assign(&mut manifest, Fractions::default(), 3).unwrap());
    let written = directory.path().join("split.csv");
    manifest.write_csv(&written).unwrap();
    let again = Manifest::load(&written, None).unwrap();
    assert!(again.clips[0].labels.is_empty() && again.clips[0].split == Some(Split::Test));
    assert_eq!(again.clips[1..], manifest.clips[1..]);
}

#[test]
fn labels_are_normalized() {
    let manifest = load("id,path,labels\n1,a.mp4,Come\u{301}die|Drama\n2,b.mp4,Com\u{e9}die|Come\u{301}die\n").unwrap();
    assert_eq!(manifest.classes(), ["Com\u{e9}die", "Drama"]);
    assert_eq!(manifest.clips[1].labels, ["Com\u{e9}die"]);
    let expected = "Unicode normalization (NFC) changed 1 label, such as `Com\u{e9}die`";
    assert!(manifest.warnings.contains(&expected.to_string()), "{:?}", manifest.warnings);
    let manifest = load("id,path,label\n1,a.mp4,Com\u{e9}die\n2,b.mp4,x\n").unwrap();
    assert!(manifest.warnings.is_empty(), "{:?}", manifest.warnings);
}

#[test]
fn labels_are_read_without_the_files() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "list.csv", "Id,Category\n1,x\n2,y\n");
    write(directory.path(), "clips.csv", "id,path,label\n1,gone/1.mp4,x\n");
    let nowhere = directory.path().join("nowhere");
    for root in [None, Some(nowhere.as_path())] {
        let manifest = Manifest::load_labels(&directory.path().join("list.csv"), root).unwrap();
        assert_eq!(manifest.classes(), ["x", "y"]);
        assert_eq!((manifest.clips[1].id.as_str(), manifest.clips[1].path.as_str()), ("2", "2"));
        assert_eq!(Manifest::load_labels(&directory.path().join("clips.csv"), root).unwrap().clips.len(), 1);
    }
    assert!(Manifest::load(&directory.path().join("clips.csv"), None).is_err());
    assert!(Manifest::load_labels(&directory.path().join("absent.csv"), None).is_err());
}
