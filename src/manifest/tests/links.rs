//! Symbolic links, names that are not UTF-8, and clips with the same content.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::{Clip, Manifest, Split, duplicate_warning};
use super::{directory, write};

fn load(directory: &Path) -> Manifest {
    Manifest::load(directory, None).unwrap()
}

fn ids(clips: &[Clip]) -> Vec<&str> {
    clips.iter().map(|clip| clip.id.as_str()).collect()
}

#[test]
fn links_that_form_loops_are_not_followed() {
    let directory = directory(&["a/1.mp4", "a/2.mp4", "b/3.mp4"]);
    let root = directory.path();
    symlink(".", root.join("a/again")).unwrap();
    symlink("..", root.join("b/up")).unwrap();
    symlink("../..", root.join("b/above")).unwrap();
    let manifest = load(root);
    assert_eq!(ids(&manifest.clips), ["a/1", "a/2", "b/3"]);
    let expected = format!("ignored 3 links to what is read elsewhere, such as {}/a/again", root.display());
    assert!(manifest.warnings.contains(&expected), "{:?}", manifest.warnings);
    // Also if the root is a link.
    let link = tempfile::tempdir().unwrap();
    symlink(root, link.path().join("clips")).unwrap();
    assert_eq!(ids(&load(&link.path().join("clips")).clips), ["a/1", "a/2", "b/3"]);
}

#[test]
fn each_file_has_the_label_of_its_directory() {
    let elsewhere = directory(&["5.mp4", "shots/1.jpg"]);
    let directory = directory(&["b/1.mp4", "c/x/2.mp4"]);
    let root = directory.path();
    std::fs::create_dir(root.join("a")).unwrap();
    symlink("../b/1.mp4", root.join("a/1.mp4")).unwrap();
    symlink("../c/x", root.join("a/x")).unwrap();
    for link in ["a/5.mp4", "b/6.mp4"] {
        symlink(elsewhere.path().join("5.mp4"), root.join(link)).unwrap();
    }
    for link in ["a/shots", "b/scenes"] {
        symlink(elsewhere.path().join("shots"), root.join(link)).unwrap();
    }
    let manifest = load(root);
    let found: Vec<(&str, &str)> = manifest.clips.iter().map(|c| (c.id.as_str(), c.labels[0].as_str())).collect();
    assert_eq!(found, [("a/5", "a"), ("a/shots", "a"), ("b/1", "b"), ("c/x/2", "c")]);
    assert!(manifest.warnings.iter().any(|warning| warning.contains("ignored 4 links")), "{:?}", manifest.warnings);
    // A test clip that is a link to a training clip.
    let splits = super::directory(&["train/a/1.mp4", "train/b/2.mp4"]);
    std::fs::create_dir_all(splits.path().join("test/a")).unwrap();
    symlink("../../train/a/1.mp4", splits.path().join("test/a/1.mp4")).unwrap();
    let manifest = load(splits.path());
    assert_eq!(ids(&manifest.clips), ["train/a/1", "train/b/2"]);
}

#[test]
fn broken_links_and_names_that_are_not_utf8_are_single_clips() {
    let directory = directory(&["a/1.mp4"]);
    let root = directory.path();
    symlink("nowhere.mp4", root.join("a/2.mp4")).unwrap();
    symlink("3.mp4", root.join("a/3.mp4")).unwrap();
    for name in [b"a/caf\xe9.mp4", b"a/caf\xe8.mp4"] {
        std::fs::write(root.join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let manifest = load(root);
    assert_eq!(ids(&manifest.clips), ["a/1", "a/2", "a/3", "a/caf%E8", "a/caf%E9"]);
    assert_eq!(manifest.clips[4].path, "a/caf%E9.mp4");
    assert!(manifest.clips[4].file.is_file());
    let expected = "2 paths not in UTF-8, such as a/caf%E8.mp4: these clips fail, rename them";
    assert!(manifest.warnings.contains(&expected.to_string()), "{:?}", manifest.warnings);
    // A broken link that a manifest lists fails like one in a directory.
    write(root, "clips.csv", "id,path,label\n1,a/1.mp4,x\n2,a/2.mp4,x\n");
    assert_eq!(Manifest::load(&root.join("clips.csv"), None).unwrap().clips.len(), 2);
}

#[test]
fn ids_are_found_once() {
    let directory = directory(&["videos/1.mp4", "videos/2.mp4"]);
    let root = directory.path();
    symlink(".", root.join("videos/again")).unwrap();
    symlink("videos", root.join("more")).unwrap();
    symlink("1.mp4", root.join("videos/1.mkv")).unwrap();
    write(root, "train.csv", "Id,Category\n1,7\n2,0\n");
    let manifest = Manifest::load(&root.join("train.csv"), None).unwrap();
    let paths: Vec<&str> = manifest.clips.iter().map(|clip| clip.path.as_str()).collect();
    assert_eq!(paths, ["more/1.mkv", "more/2.mp4"]);
}

#[test]
fn image_formats_of_phones_are_clips() {
    let directory = directory(&["a/1.avif", "a/2.HEIC", "a/3.heif", "b/frames/1.heic"]);
    assert_eq!(ids(&load(directory.path()).clips), ["a/1", "a/2", "a/3", "b/frames"]);
}

/// Returns the ids of the groups of duplicates.
fn groups(manifest: &Manifest) -> Vec<Vec<&str>> {
    manifest.duplicates().into_iter().map(|group| group.into_iter().map(|clip| clip.id.as_str()).collect()).collect()
}

#[test]
fn equal_files_are_grouped() {
    let directory = directory(&["empty.mp4", "nothing.mp4"]);
    let root = directory.path();
    // Longer than the samples that are compared first: `other` differs between them.
    let mut content = vec![7; 100_000];
    for name in ["a.mp4", "copy.mp4", "frames/1.jpg", "shots/1.jpg", "single/1.jpg"] {
        write(root, name, &content);
    }
    content[30_000] = 8;
    write(root, "other.mp4", &content);
    write(root, "shots/2.jpg", "2");
    write(root, "frames/2.jpg", "2");
    symlink("a.mp4", root.join("link.mp4")).unwrap();
    std::fs::hard_link(root.join("other.mp4"), root.join("hard.mp4")).unwrap();
    let paths = [
        "a.mp4",
        "copy.mp4",
        "other.mp4",
        "link.mp4",
        "hard.mp4",
        "empty.mp4",
        "nothing.mp4",
        "frames",
        "shots",
        "single",
        "gone.mp4",
        "gone.mp4",
        "./a.mp4",
    ];
    let rows: String = paths.iter().enumerate().map(|(i, path)| format!("{i},{path},x\n")).collect();
    write(root, "clips.csv", format!("id,path,label\n{rows}"));
    let manifest = Manifest::load_labels(&root.join("clips.csv"), None).unwrap();
    assert_eq!(groups(&manifest), [vec!["0", "1", "3", "9", "12"], vec!["2", "4"], vec!["7", "8"], vec!["10", "11"]]);
}

#[test]
fn periods_of_one_file_are_duplicates_if_they_are_equal() {
    let directory = directory(&[]);
    write(directory.path(), "a.mp4", "a");
    let rows = "1,a.mp4,x,0,5,train\n2,a.mp4,x,5,10,train\n3,a.mp4,x,,5,test\n4,a.mp4,x,,,train\n5,a.mp4,x,0,,train\n";
    write(directory.path(), "clips.csv", format!("id,path,label,start,end,split\n{rows}"));
    let manifest = Manifest::load(&directory.path().join("clips.csv"), None).unwrap();
    assert_eq!(groups(&manifest), [["1", "3"], ["4", "5"]]);
    let expected = "2 groups of clips with the same content: `1` (train) = `3` (test), `4` (train) = `5` (train); 1 group is \
                    in more than one split, so results on held-out clips are too high; keep one clip of each group, or give \
                    its clips one value in the column `group`";
    assert_eq!(duplicate_warning(&manifest.duplicates()).unwrap(), expected);
    assert_eq!(duplicate_warning(&[]), None);
}

#[test]
fn groups_in_several_splits_are_listed_first() {
    let clip = |id: &str, split| Clip { id: id.into(), split, ..Clip::default() };
    let clips: Vec<Clip> = (0..6).map(|i| clip(&i.to_string(), None)).collect();
    let mut groups: Vec<Vec<&Clip>> = clips.iter().map(|clip| vec![clip, clip]).collect();
    let leaking = [clip("a", Some(Split::Train)), clip("b", Some(Split::Val))];
    groups.push(leaking.iter().collect());
    let warning = duplicate_warning(&groups).unwrap();
    assert!(warning.contains("content: `a` (train) = `b` (val), `0` = `0`, "), "{warning}");
    assert!(warning.contains("`3` = `3`, …; 1 group"), "{warning}");
}
