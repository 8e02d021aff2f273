use std::path::Path;

use tempfile::TempDir;

use super::split::{Fractions, assign};
use super::{Manifest, Split};

/// A folder with empty files: loading looks at names only.
fn folder(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        put(folder.path(), file, "");
    }
    folder
}

fn put(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Loads `text` as manifest.csv beside a.mp4, b.mp4, c.mp4.
fn load(text: impl AsRef<[u8]>) -> crate::Result<Manifest> {
    let folder = folder(&["a.mp4", "b.mp4", "c.mp4"]);
    put(folder.path(), "manifest.csv", text);
    Manifest::load(&folder.path().join("manifest.csv"), None)
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>, said: &[&str]) {
    let message = load(text).expect_err("refused").to_string();
    for words in said {
        assert!(message.contains(words), "`{words}` is not in: {message}");
    }
}

#[test]
fn reads_columns_in_any_order_with_byte_order_mark_crlf_and_quotes() {
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
fn reads_several_labels_tabs_and_semicolons() {
    let manifest = load("id;path;labels\n1;a.mp4;Drama|Comedy | Drama\n2;b.mp4;Drama\n").unwrap();
    assert_eq!(manifest.clips[0].labels, ["Drama", "Comedy"]);
    assert_eq!(manifest.classes(), ["Comedy", "Drama"]);
    assert!(manifest.is_multi_label());
    assert_eq!(load("id\tpath\tlabel\n1\ta.mp4\tx|y\n").unwrap().clips[0].labels, ["x|y"]);
}

#[test]
fn classes_stand_in_natural_order() {
    let manifest = load("id,path,label\n1,a.mp4,10\n2,b.mp4,2\n3,c.mp4,0\n").unwrap();
    assert_eq!(manifest.classes(), ["0", "2", "10"]);
}

#[test]
fn refuses_with_line_and_remedy() {
    refused("id,path,lable\n1,a.mp4,x\n", &["manifest.csv:1", "`lable`", "did you mean `label`?"]);
    refused("id,path,label,gruop\n1,a.mp4,x,g\n", &["did you mean `group`?"]);
    refused(
        "name,file,label\n1,a.mp4,x\n",
        &["`id` is missing", "is it `name`?", "`path` is missing", "is it `file`?"],
    );
    refused("id,path,label,label\n1,a.mp4,x,y\n", &["`label` stands twice"]);
    refused("id,path,label,labels\n1,a.mp4,x,y\n", &["both `label` and `labels`"]);
    refused("id,path,label\n1,a.mp4,x\n\n\n1,b.mp4,x\n", &["manifest.csv:5", "`1` stands twice", "first on line 2"]);
    refused(
        "id,path,label,split\n1,a.mp4,x,trian\n",
        &["manifest.csv:2", "unknown split `trian`", "train, val or test"],
    );
    refused("id,path,label\n1,a.mp4,\n", &["manifest.csv:2", "empty label"]);
    refused("id,path,labels\n1,a.mp4,x|\n", &["manifest.csv:2", "empty label"]);
    refused(
        "id,path,label\n1,a.mp4,x\n2,nowhere.mp4,x\n",
        &["manifest.csv:3", "1 file of 2 missing", "`nowhere.mp4`", "--root"],
    );
    refused("id,path,label,start,end\n1,a.mp4,x,1,soon\n", &["manifest.csv:2", "end is `soon`"]);
    refused("id,path,label,start,end\n1,a.mp4,x,3,2\n", &["manifest.csv:2", "end (2) is not after start (3)"]);
    refused("id,path,label,end\n1,a.mp4,x,nan\n", &["end is `nan`"]);
    refused("id,path,label,year\n1,a.mp4,x,1997\n2,b.mp4,x,soon\n", &["manifest.csv:3", "year is `soon`"]);
    refused("id,path,label,year\n1,a.mp4,x,1997.5\n", &["manifest.csv:2", "year is `1997.5`"]);
    refused(
        "id,path,label,group,split\n1,a.mp4,x,film,train\n2,b.mp4,x,film,test\n",
        &["`film`", "more than one split", "train (`a.mp4` (line 2))", "test (`b.mp4` (line 3))"],
    );
    refused(
        "id,path,label,split\n1,a.mp4,x,train\n2,b.mp4,y,val\n",
        &["`y` has no training clip", "first `2`", "move one to train"],
    );
    refused(b"id,path,label\n1,a.mp4,x\n2,b.mp4,caf\xe9\n", &["manifest.csv:3", "not UTF-8"]);
    refused(b"\xff\xfei\0d\0", &["UTF-16"]);
    refused("", &["it is empty"]);
    refused("id,path,label\n", &["no clip in it"]);
    refused("id,path,label\n1,a,b.mp4,x\n", &["manifest.csv:2", "4 fields where the header has 3"]);
    refused("id,path,label\n1,a.mp4,\"x\n2,b.mp4,x\n", &["manifest.csv:2", "quote not closed"]);
    refused("id,path,label\n,a.mp4,x\n", &["manifest.csv:2", "the id is empty"]);
}

#[test]
fn tells_several_problems_at_once_and_counts_the_rest() {
    let mut text = String::from("id,path,label,split\n");
    for i in 0..30 {
        text.push_str(&format!("{i},a.mp4,,never\n"));
    }
    refused(&text, &["60 problems", "line 2: unknown split", "line 2: clip `0` has an empty label", "and 50 more"]);
    refused(
        "id,path,label\n1,d.mp4,\n1,e.mp4,x\n",
        &["3 problems", "2 files of 2 missing", "stands twice", "empty label"],
    );
}

#[test]
fn a_label_may_be_empty_in_the_test_split() {
    let manifest = load("id,path,label,split\n1,a.mp4,x,train\n2,b.mp4,,test\n").unwrap();
    assert!(manifest.clips[1].labels.is_empty());
    assert!(manifest.warnings.iter().any(|warning| warning.contains("1 clip without a label")));
}

#[test]
fn warns_of_unknown_columns_capitals_and_double_use() {
    let manifest = load("id,path,label,genre,fold\n1,a.mp4,Fight,x,1\n2,a.mp4,fight,x,2\n").unwrap();
    let warnings = manifest.warnings.join("\n");
    assert!(warnings.contains("unknown columns passed over: `genre`, `fold` (`split` is meant?)"), "{warnings}");
    assert!(warnings.contains("`Fight`, `fight`"), "{warnings}");
    assert!(warnings.contains("1 file also under another id, such as `2`"), "{warnings}");
}

#[test]
fn says_what_is_no_manifest() {
    let folder = folder(&["a.mp4", "notes/readme.txt"]);
    let message = |name: &str| Manifest::load(&folder.path().join(name), None).unwrap_err().to_string();
    assert!(message("a.mp4").contains("a clip, not a manifest"));
    assert!(message("none.csv").contains("no such manifest"));
    assert!(message("notes").contains("wanted is one folder per class"), "{}", message("notes"));
}

#[test]
fn reads_a_folder_per_class() {
    let folder = folder(&[
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
    let manifest = Manifest::load(folder.path(), None).unwrap();
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
    for words in ["empty holds no clip", "1 clip beside", "2 files that are neither"] {
        assert!(warnings.contains(words), "{words}: {warnings}");
    }
}

#[test]
fn reads_splits_from_folders() {
    let folder = folder(&["train/x/1.mp4", "train/y/2.mp4", "validation/x/3.mp4", "test/4.mp4"]);
    let manifest = Manifest::load(folder.path(), None).unwrap();
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
fn a_folder_with_a_manifest_is_read_by_it() {
    let folder = folder(&["x/1.mp4", "x/2.mp4"]);
    put(folder.path(), "manifest.csv", "id,path,label\nonly,x/2.mp4,x\n");
    let manifest = Manifest::load(folder.path(), None).unwrap();
    assert_eq!(manifest.clips.len(), 1);
    assert!(manifest.source.ends_with("manifest.csv"));
}

#[test]
fn reads_homework_lists() {
    let folder = folder(&["videos/1.mp4", "videos/2.avi", "videos/3/f1.jpg", "videos/4.mp4", "videos/10.mkv"]);
    put(folder.path(), "train.csv", "Id,Category\n1,7\n2,0\n3,7\n");
    put(folder.path(), "test.csv", "Id\n4\n10.mkv\n");
    let train = Manifest::load(&folder.path().join("train.csv"), None).unwrap();
    let paths: Vec<&str> = train.clips.iter().map(|clip| clip.path.as_str()).collect();
    assert_eq!(paths, ["videos/1.mp4", "videos/2.avi", "videos/3"]);
    assert_eq!(train.classes(), ["0", "7"]);
    let test = Manifest::load(&folder.path().join("test.csv"), Some(&folder.path().join("videos"))).unwrap();
    assert_eq!(test.clips[1].id, "10.mkv");
    assert!(test.clips.iter().all(|clip| clip.labels.is_empty()));
    // The folder in place of a list: all of them, the unlabeled to be predicted.
    let both = Manifest::load(folder.path(), None).unwrap();
    assert_eq!(both.clips.len(), 5);
    assert!(both.clips.iter().all(|clip| clip.split.is_none()), "one labeled list names no split");
    put(folder.path(), "val.csv", "Id,Category\n4,0\n");
    put(folder.path(), "test.csv", "Id\n10\n");
    let all = Manifest::load(folder.path(), None).unwrap();
    let splits: Vec<_> = all.clips.iter().map(|clip| (clip.id.as_str(), clip.split)).collect();
    let (train, val) = (Some(Split::Train), Some(Split::Val));
    assert_eq!(splits, [("10", None), ("1", train), ("2", train), ("3", train), ("4", val)]);
}

#[test]
fn homework_lists_prefer_the_folder_of_their_name_and_refuse_doubt() {
    let folder = folder(&["data/train/1.mp4", "data/test/1.mp4"]);
    put(folder.path(), "train.csv", "Id,Category\n1,7\n");
    put(folder.path(), "list.csv", "Id,Category\n1,7\n");
    let train = Manifest::load(&folder.path().join("train.csv"), None).unwrap();
    assert_eq!(train.clips[0].path, "data/train/1.mp4");
    let message = Manifest::load(&folder.path().join("list.csv"), None).unwrap_err().to_string();
    assert!(message.contains("list.csv:2") && message.contains("found twice"), "{message}");
    put(folder.path(), "gone.csv", "Id,Category\n1,\n9,2\n");
    let message = Manifest::load(&folder.path().join("gone.csv"), None).unwrap_err().to_string();
    for words in ["line 2: the category is empty", "no file or folder for 1 id", "`9` (line 3)", "--root"] {
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn reads_a_list_of_paths() {
    let folder = folder(&["clips/a, b.mp4", "clips/c.mp4", "frames/1.png"]);
    put(folder.path(), "list.txt", "clips/a, b.mp4\r\n\r\n# a comment\nclips\\c.mp4\nframes\n");
    let manifest = Manifest::load(&folder.path().join("list.txt"), None).unwrap();
    let ids: Vec<&str> = manifest.clips.iter().map(|clip| clip.id.as_str()).collect();
    assert_eq!(ids, ["clips/a, b", "clips/c", "frames"]);
    assert!(manifest.warnings[0].contains("no clip has a label"));
    put(folder.path(), "list.txt", "clips/c.mp4\nclips/none.mp4\n");
    let message = Manifest::load(&folder.path().join("list.txt"), None).unwrap_err().to_string();
    assert!(message.contains("list.txt:2") && message.contains("missing"), "{message}");
}

#[test]
fn hash_covers_what_decides_extraction() {
    let hash = |text: &str| load(text).unwrap().sha256;
    let base = hash("id,path,label\n1,a.mp4,x\n");
    assert_eq!(base.len(), 64);
    assert_eq!(base, hash("path,id,label,split\na.mp4,1,y,train\n"), "labels and splits do not decide extraction");
    assert_ne!(base, hash("id,path,label\n1,b.mp4,x\n"));
    assert_ne!(base, hash("id,path,label\n2,a.mp4,x\n"));
    assert_ne!(base, hash("id,path,label,start\n1,a.mp4,x,1\n"));
    assert_ne!(hash("id,path,label,start\n1,a.mp4,x,1\n"), hash("id,path,label,end\n1,a.mp4,x,1\n"));
}

#[test]
fn what_is_written_reads_the_same() {
    let folder = folder(&["a.mp4", "b.mp4", "c.mp4", "d.mp4"]);
    let text = "id,path,labels,group,start,end,year\n1,a.mp4,\"x, y|z\",g,0.1,2,1997\n2,b.mp4,z,,,,\n3,c.mp4,z,h,,3.25,2003\n4,d.mp4,\"x, y\",,,,\n";
    put(folder.path(), "manifest.csv", text);
    let mut manifest = Manifest::load(folder.path(), None).unwrap();
    assert!(assign(&mut manifest, Fractions::default(), 0).unwrap());
    let written = folder.path().join("runs/split.csv");
    manifest.write_csv(&written).unwrap();
    let mut again = Manifest::load(&written, Some(folder.path())).unwrap();
    assert_eq!(again.clips, manifest.clips);
    assert_eq!(again.clips[0].year, Some(1997));
    assert_eq!(again.sha256, manifest.sha256);
    assert!(!assign(&mut again, Fractions::default(), 1).unwrap(), "a split that is there is kept");
}

#[test]
fn unlabeled_clips_survive_writing() {
    let folder = folder(&["videos/1.mp4", "videos/2.mp4", "videos/3.mp4", "videos/4.mp4"]);
    put(folder.path(), "train.csv", "Id,Category\n1,a\n2,a\n3,a\n");
    put(folder.path(), "test.csv", "Id\n4\n");
    let mut manifest = Manifest::load(folder.path(), None).unwrap();
    assert!(assign(&mut manifest, Fractions::default(), 3).unwrap());
    let written = folder.path().join("split.csv");
    manifest.write_csv(&written).unwrap();
    let again = Manifest::load(&written, None).unwrap();
    assert!(again.clips[0].labels.is_empty() && again.clips[0].split == Some(Split::Test));
    assert_eq!(again.clips[1..], manifest.clips[1..]);
}

mod splitting {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::{Clip, Manifest, Split};
    use super::*;

    fn manifest(clips: Vec<Clip>) -> Manifest {
        Manifest { source: "test".into(), clips, warnings: Vec::new(), sha256: String::new() }
    }

    fn clip(i: usize, label: usize, group: Option<usize>) -> Clip {
        Clip {
            id: format!("clip{i}"),
            path: format!("{i}.mp4"),
            file: PathBuf::from(format!("{i}.mp4")),
            labels: vec![format!("class{label}")],
            group: group.map(|group| format!("group{group}")),
            ..Clip::default()
        }
    }

    fn of(manifest: &Manifest) -> BTreeMap<&str, Option<Split>> {
        manifest.clips.iter().map(|clip| (clip.id.as_str(), clip.split)).collect()
    }

    fn count(manifest: &Manifest, split: Split, label: &str) -> usize {
        manifest.clips.iter().filter(|c| c.split == Some(split) && c.labels.iter().any(|l| l == label)).count()
    }

    #[test]
    fn six_thousand_and_fifteen_hundred() {
        let mut data = manifest((0..7500).map(|i| clip(i, i % 15, None)).collect());
        assert!(assign(&mut data, Fractions::default(), 0).unwrap());
        for class in data.classes() {
            assert_eq!((count(&data, Split::Train, &class), count(&data, Split::Val, &class)), (400, 100));
        }
        let first = data.clone();
        data.clips.iter_mut().for_each(|clip| clip.split = None);
        assign(&mut data, Fractions::default(), 1).unwrap();
        assert_ne!(of(&first), of(&data), "another seed splits otherwise");
    }

    #[test]
    fn clips_of_one_file_stay_together_without_being_told() {
        let mut clips: Vec<Clip> = (0..40).map(|i| clip(i, i % 2, None)).collect();
        for (i, clip) in clips.iter_mut().enumerate() {
            clip.file = PathBuf::from(format!("film{}.mp4", i / 4));
            (clip.start, clip.end) = (Some(i as f64), Some(i as f64 + 1.0));
        }
        let mut data = manifest(clips);
        assign(&mut data, Fractions::default(), 5).unwrap();
        for film in data.clips.chunks(4) {
            assert_eq!(film.iter().map(|clip| clip.split).collect::<BTreeSet<_>>().len(), 1);
        }
        assert_eq!(data.clips.iter().filter(|clip| clip.split == Some(Split::Val)).count(), 8);
    }

    #[test]
    fn validation_is_carved_out_of_train_and_test_is_left_alone() {
        let mut clips: Vec<Clip> = (0..100).map(|i| clip(i, i % 4, None)).collect();
        clips.iter_mut().enumerate().for_each(|(i, c)| c.split = Some(if i < 60 { Split::Train } else { Split::Test }));
        clips.push(Clip { labels: Vec::new(), ..clip(100, 0, None) });
        let mut data = manifest(clips);
        assert!(assign(&mut data, Fractions::default(), 5).unwrap());
        let number = |split| data.clips.iter().filter(|clip| clip.split == Some(split)).count();
        assert_eq!((number(Split::Train), number(Split::Val), number(Split::Test)), (48, 12, 40));
        assert_eq!(data.clips[100].split, None, "an unlabeled clip gets no split");
        assert!(data.clips[60..100].iter().all(|clip| clip.split == Some(Split::Test)));
    }

    #[test]
    fn says_when_nothing_can_be_held_out() {
        let mut one_group = manifest((0..10).map(|i| clip(i, i % 2, Some(0))).collect());
        let message = assign(&mut one_group, Fractions::default(), 0).unwrap_err().to_string();
        assert!(message.contains("cannot hold val clips out of 10 labeled clips in 1 groups"), "{message}");
        let mut single = manifest(vec![clip(0, 0, None)]);
        assert!(assign(&mut single, Fractions::default(), 0).is_err());
        let mut none = manifest(Vec::new());
        assert!(!assign(&mut none, Fractions::default(), 0).unwrap());
        assert!(assign(&mut none, Fractions { val: 0.6, test: 0.4 }, 0).is_err());
    }

    #[test]
    fn a_label_that_one_group_alone_has_trains() {
        for seed in 0..20 {
            let mut clips: Vec<Clip> = (0..40).map(|i| clip(i, 0, Some(i / 4))).collect();
            clips.extend((40..44).map(|i| clip(i, 1, Some(100))));
            let mut data = manifest(clips);
            assign(&mut data, Fractions::default(), seed).unwrap();
            assert_eq!(count(&data, Split::Train, "class1"), 4);
        }
    }

    proptest! {
        /// Without groups: every clip once, every class within one clip of its share and with one to train on, and the
        /// same whatever the order of the rows.
        #[test]
        fn stratified_is_exact(
            sizes in prop::collection::vec(1usize..40, 1..8),
            (val, test) in (0.05f64..0.5, prop_oneof![Just(0.0), 0.05f64..0.4]),
            seed in any::<u64>(),
        ) {
            let labels: Vec<usize> = sizes.iter().enumerate().flat_map(|(c, &n)| vec![c; n]).collect();
            let mut data = manifest(labels.iter().enumerate().map(|(i, &label)| clip(i, label, None)).collect());
            let mut reversed = manifest(data.clips.iter().rev().cloned().collect());
            let fractions = Fractions { val, test };
            match assign(&mut data, fractions, seed) {
                Ok(assigned) => prop_assert!(assigned),
                Err(_) => {
                    prop_assert!(sizes.iter().map(|n| n - 1).sum::<usize>() < 2 * sizes.len(), "gave up on {sizes:?}");
                    return Ok(());
                }
            }
            prop_assert!(data.clips.iter().all(|clip| clip.split.is_some()));
            for (c, &size) in sizes.iter().enumerate() {
                let class = format!("class{c}");
                prop_assert!(count(&data, Split::Train, &class) >= 1);
                for (split, share) in [(Split::Val, val), (Split::Test, test)] {
                    let number = count(&data, split, &class) as f64;
                    let wanted = share * size as f64;
                    let kept_back = count(&data, Split::Train, &class) == 1;
                    prop_assert!(number < wanted + 1.0 + 1e-6 && (number > wanted - 1.0 - 1e-6 || kept_back));
                }
            }
            assign(&mut reversed, fractions, seed).unwrap();
            prop_assert_eq!(of(&data), of(&reversed));
        }

        /// With groups: none in two splits, every clip once, each label trains, and where the groups are small the
        /// validation split is near its share.
        #[test]
        fn groups_stay_together(
            rows in prop::collection::vec((0usize..4, 0usize..25), 30..200),
            seed in any::<u64>(),
        ) {
            let clips = rows.iter().enumerate().map(|(i, &(label, group))| clip(i, label, Some(group))).collect();
            let mut data = manifest(clips);
            let mut reversed = manifest(data.clips.iter().rev().cloned().collect());
            prop_assert!(assign(&mut data, Fractions::default(), seed).unwrap());
            let mut splits: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
            let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
            for clip in &data.clips {
                splits.entry(clip.group.as_deref().unwrap()).or_default().insert(clip.split.unwrap());
                *sizes.entry(clip.group.as_deref().unwrap()).or_default() += 1;
            }
            prop_assert!(splits.values().all(|splits| splits.len() == 1));
            for class in data.classes() {
                prop_assert!(count(&data, Split::Train, &class) >= 1);
            }
            let val = data.clips.iter().filter(|clip| clip.split == Some(Split::Val)).count() as f64;
            let largest = *sizes.values().max().unwrap() as f64;
            prop_assert!((val - 0.2 * rows.len() as f64).abs() <= largest, "{val} of {}", rows.len());
            assign(&mut reversed, Fractions::default(), seed).unwrap();
            prop_assert_eq!(of(&data), of(&reversed));
        }

        /// Several labels without groups: each label's share is near, none is lost.
        #[test]
        fn several_labels_balance(sets in prop::collection::vec(1u8..16, 60..150), seed in any::<u64>()) {
            let clips = sets.iter().enumerate().map(|(i, set)| Clip {
                labels: (0..4).filter(|bit| set & (1 << bit) != 0).map(|bit| format!("class{bit}")).collect(),
                ..clip(i, 0, None)
            });
            let mut data = manifest(clips.collect());
            let fractions = Fractions { val: 0.2, test: 0.1 };
            prop_assert!(assign(&mut data, fractions, seed).unwrap());
            for class in data.classes() {
                let total = data.clips.iter().filter(|clip| clip.labels.contains(&class)).count() as f64;
                for (split, share) in [(Split::Val, 0.2), (Split::Test, 0.1)] {
                    prop_assert!((count(&data, split, &class) as f64 - share * total).abs() <= 3.0);
                }
            }
        }

        /// Several labels and groups: none in two splits, every label near its share but for what its two largest groups
        /// weigh (groups are given out one by one, for five labels at once: no rule can promise less), every label trains,
        /// and the same whatever the order of the rows.
        #[test]
        fn several_labels_in_groups_balance(
            rows in prop::collection::vec((1u8..32, 0usize..40), 120..240),
            seed in any::<u64>(),
        ) {
            let clips = rows.iter().enumerate().map(|(i, &(set, group))| Clip {
                labels: (0..5).filter(|bit| set & (1 << bit) != 0).map(|bit| format!("class{bit}")).collect(),
                ..clip(i, 0, Some(group))
            });
            let mut data = manifest(clips.collect());
            let mut reversed = manifest(data.clips.iter().rev().cloned().collect());
            let fractions = Fractions { val: 0.2, test: 0.2 };
            prop_assert!(assign(&mut data, fractions, seed).unwrap());
            let mut splits: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
            for clip in &data.clips {
                splits.entry(clip.group.as_deref().unwrap()).or_default().insert(clip.split.unwrap());
            }
            prop_assert!(splits.values().all(|splits| splits.len() == 1));
            for class in data.classes() {
                let mut of_group: BTreeMap<&str, usize> = BTreeMap::new();
                for clip in data.clips.iter().filter(|clip| clip.labels.contains(&class)) {
                    *of_group.entry(clip.group.as_deref().unwrap()).or_default() += 1;
                }
                let (total, largest) = (of_group.values().sum::<usize>(), *of_group.values().max().unwrap());
                for split in [Split::Val, Split::Test] {
                    let off = (count(&data, split, &class) as f64 - 0.2 * total as f64).abs();
                    prop_assert!(off <= 2.0 * largest as f64 + 1.0, "{class}: {off} off, largest group {largest}");
                }
                prop_assert!(count(&data, Split::Train, &class) >= 1);
            }
            assign(&mut reversed, fractions, seed).unwrap();
            prop_assert_eq!(of(&data), of(&reversed));
        }
    }
}
