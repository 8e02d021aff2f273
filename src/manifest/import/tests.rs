//! Each layout on a small sample of it, made here.

use std::path::Path;

use tempfile::TempDir;

use super::*;

fn put(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn run(format: Format, source: &Path) -> Result<Imported> {
    import(format, source, &Settings::default())
}

/// `id labels split` of each clip, after writing the manifest and reading it again without a root.
fn written(imported: Imported, folder: &TempDir) -> Vec<String> {
    let path = folder.path().join("made/manifest.csv");
    imported.write_csv(&path).unwrap();
    let manifest = Manifest::load(&path, None).unwrap();
    let split = |clip: &Clip| clip.split.map_or("-", Split::name);
    manifest.clips.iter().map(|clip| format!("{} {} {}", clip.id, clip.labels.join("|"), split(clip))).collect()
}

#[track_caller]
fn refused(result: Result<Imported>, said: &[&str]) {
    let message = result.expect_err("refused").to_string();
    for words in said {
        assert!(message.contains(words), "`{words}` is not in: {message}");
    }
}

fn movienet() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (id, meta) in [
        ("tt0120338", r#"{"imdb_id": "tt0120338", "title": "Titanic (1997)", "genres": ["Drama", "Romance"]}"#),
        ("tt0133093", r#"{"title": "The Matrix", "year": 1999, "genres": ["Action", "Sci-Fi", "Adult"]}"#),
        ("tt0000009", r#"{"title": "No keyframes (1894)", "genres": ["Drama"]}"#),
        ("tt0000010", r#"{"title": "Another list", "genres": ["Short", "Adult"]}"#),
        ("tt0000011", r#"{"title": "No genres at all"}"#),
        ("tt0000012", r#"{"title": "An empty folder", "genres": ["War"]}"#),
    ] {
        put(&folder, &format!("meta/{id}.json"), meta);
    }
    for frame in ["shot_0000_img_0", "shot_0000_img_1", "shot_0002_img_0", "shot_0010_img_0"] {
        put(&folder, &format!("240P/tt0120338/{frame}.jpg"), "");
    }
    for id in ["tt0133093", "tt0000010", "tt0000011"] {
        put(&folder, &format!("240P/{id}/shot_0000_img_0.jpg"), "");
    }
    std::fs::create_dir(folder.path().join("240P/tt0000012")).unwrap();
    folder
}

#[test]
fn movienet_keyframes_with_their_genres() {
    let folder = movienet();
    let imported = run(Format::Movienet, folder.path()).unwrap();
    let clip = &imported.manifest.clips[0];
    assert_eq!((clip.id.as_str(), clip.year, clip.group.as_deref()), ("tt0120338", Some(1997), Some("tt0120338")));
    assert_eq!(imported.manifest.clips[1].year, Some(1999));
    let summary = imported.summary.clone();
    assert_eq!((summary.listed, summary.kept), (6, 2));
    assert_eq!(summary.dropped_labels, [("Adult".to_string(), 2), ("Short".to_string(), 1)].into());
    assert_eq!(summary.without_label, ["tt0000010", "tt0000011"]);
    assert_eq!(summary.missing, ["tt0000009", "tt0000012"]);
    assert_eq!(summary.frames, [1, 4]);
    let text = summary.to_string();
    for words in ["2 clips kept of 6 titles", "labels dropped: 2 (3 uses): Adult 2, Short 1", "frames a clip: 1 to 4"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(written(imported, &folder), ["tt0120338 Drama|Romance -", "tt0133093 Action|Sci-Fi -"]);
}

#[test]
fn movienet_labels_by_choice() {
    let folder = movienet();
    let with = |labels| import(Format::Movienet, folder.path(), &Settings { labels, ..Settings::default() }).unwrap();
    let all = with(Labels::All);
    assert_eq!(all.manifest.classes(), ["Action", "Adult", "Drama", "Romance", "Sci-Fi", "Short"]);
    assert!(all.summary.dropped_labels.is_empty());
    assert_eq!(with(Labels::Only(vec!["Drama".into()])).manifest.classes(), ["Drama"]);
    refused(
        import(
            Format::Movienet,
            folder.path(),
            &Settings { labels: Labels::Only(vec!["drama".into()]), ..Settings::default() },
        ),
        &["nothing is left of 6 titles", "6 without a wanted label"],
    );
}

#[test]
fn movienet_says_what_is_wrong() {
    let folder = movienet();
    put(&folder, "meta/tt0000013.json", "{\n \"genres\": [\"Drama\",\n}");
    refused(run(Format::Movienet, folder.path()), &["tt0000013.json:3", "not readable as JSON"]);
    put(&folder, "meta/tt0000013.json", r#"{"genres": "Drama"}"#);
    refused(run(Format::Movienet, folder.path()), &["tt0000013.json: `genres` is not a list"]);
    let empty = tempfile::tempdir().unwrap();
    refused(run(Format::Movienet, empty.path()), &["no metadata", "tt0123456.json"]);
    refused(run(Format::Movienet, &empty.path().join("none")), &["no such file or folder"]);
}

fn trailers85() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let list = r#"{
  "train": {
    "tt0000001": ["crime", "action"],
    "tt0000002": ["haunted house"],
    "tt0000003": ["action"]
  },
  "test": {
    "tt0000004": ["action", "alien"],
    "tt0000005": ["alien"],
    "tt0000006": []
  }
}"#;
    put(&folder, "train_test_split_dict.json", list);
    for (id, frames) in [("tt0000001", 3), ("tt0000002", 2), ("tt0000004", 80), ("tt0000005", 4), ("tt0000006", 4)] {
        for frame in 0..frames {
            put(&folder, &format!("frames/{id}/{frame}.png"), "");
        }
    }
    folder
}

#[test]
fn trailers_with_85_labels() {
    let folder = trailers85();
    let imported = run(Format::Trailers85, folder.path()).unwrap();
    let summary = imported.summary.clone();
    assert_eq!(summary.missing, ["tt0000003"]);
    // `alien` has no training clip: it goes, and with it the title that has no other label.
    assert_eq!(summary.untrained_labels, [("alien".to_string(), 2)].into());
    assert_eq!(summary.without_label, ["tt0000005"]);
    assert_eq!(summary.unusual_frames, Some((1, (3, 80))));
    assert_eq!(
        written(imported, &folder),
        ["tt0000004 action test", "tt0000006  test", "tt0000001 crime|action train", "tt0000002 haunted house train",]
    );
}

#[test]
fn trailers85_says_what_is_wrong() {
    let folder = trailers85();
    let list = folder.path().join("train_test_split_dict.json");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, text.replace(r#"["haunted house"]"#, r#""haunted house""#)).unwrap();
    refused(run(Format::Trailers85, &list), &["dict.json:4", "labels of `tt0000002` (train)"]);
    std::fs::write(&list, text.replace("tt0000004", "tt0000001")).unwrap();
    refused(run(Format::Trailers85, &list), &["`tt0000001` stands twice", "line"]);
    std::fs::write(&list, text.replace("\"test\"", "\"tset\"")).unwrap();
    refused(run(Format::Trailers85, &list), &["unknown split `tset`"]);
    std::fs::write(&list, &text[..40]).unwrap();
    refused(run(Format::Trailers85, &list), &["dict.json:3", "not readable as JSON"]);
    std::fs::remove_file(&list).unwrap();
    refused(run(Format::Trailers85, folder.path()), &["no train_test_split_dict.json"]);
}

const MTGC: &str = "id,action,sci-fi,title,split0,split1,split2
tt1,1,0,One,0,1,2
tt2,1,1,Two,0,2,1
tt3,0,1,Three,1,0,0
tt4,0,1,Four,2,0,0
";

fn trailers12k() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    put(&folder, "mtgc.csv", MTGC);
    for name in ["trailers/tt1.mp4", "trailers/tt2.mp4", "trailers/tt3/0001.jpg", "trailers/tt4.webm"] {
        put(&folder, name, "");
    }
    folder
}

#[test]
fn trailers12k_with_the_chosen_split() {
    let folder = trailers12k();
    let with = |split| {
        let settings = Settings { split, ..Settings::default() };
        written(import(Format::Trailers12k, folder.path(), &settings).unwrap(), &folder)
    };
    assert_eq!(with(0), ["tt1 action train", "tt2 action|sci-fi train", "tt3 sci-fi val", "tt4 sci-fi test"]);
    // In split 1 no training clip has `action`: the label goes from the others.
    assert_eq!(with(1), ["tt2 sci-fi test", "tt3 sci-fi train", "tt4 sci-fi train"]);
    let imported = run(Format::Trailers12k, folder.path()).unwrap();
    assert!(imported.manifest.warnings.iter().any(|warning| warning.contains("passed over: `title`")));
}

#[test]
fn trailers12k_says_what_is_wrong() {
    let folder = trailers12k();
    let with = |from: &str, to: &str| {
        put(&folder, "mtgc.csv", &MTGC.replace(from, to));
        run(Format::Trailers12k, folder.path())
    };
    refused(with("tt3,0,1", "tt3,0,2"), &["mtgc.csv:4", "`sci-fi` is `2` where others are 0 or 1"]);
    refused(with("Three,1,", "Three,3,"), &["mtgc.csv:4", "unknown split `3`", "0 (train)"]);
    refused(with("split0", "fold"), &["mtgc.csv:1", "no column `split0`"]);
    refused(with("tt4,", "tt1,"), &["line 5: the id `tt1` stands twice (first on line 2)"]);
    refused(with("id,", "key,"), &["mtgc.csv:1", "no column `id`"]);
    refused(with("tt2,1,1,", "tt2,1,1,,"), &["mtgc.csv:3", "8 fields where the header has 7"]);
    put(&folder, "trailers/tt1.mkv", "");
    refused(with("", ""), &["mtgc.csv:2", "`tt1` is found twice", "--clips"]);
}

#[test]
fn posters_with_a_python_list_and_columns() {
    let folder = tempfile::tempdir().unwrap();
    let text = "Id,Genre,Action,Children's,N/A,Year\n\
                tt1,\"['Action', \"\"Children's\"\"]\",1,1,0,1994.0\n\
                tt2,['N/A'],0,0,1,\n\
                tt3,['Action'],0,1,0,2001\n\
                tt4,['Action'],1,0,0,\n";
    put(&folder, "train.csv", text);
    for id in ["tt1", "tt2", "tt3"] {
        put(&folder, &format!("Images/{id}.jpg"), "");
    }
    let imported = run(Format::Posters, folder.path()).unwrap();
    let years: Vec<_> = imported.manifest.clips.iter().map(|clip| clip.year).collect();
    assert_eq!(years, [Some(1994), Some(2001)]);
    assert_eq!(imported.summary.missing, ["tt4"]);
    assert_eq!(imported.summary.dropped_labels, [("N/A".to_string(), 1)].into());
    let warning = "`Genre` says other than the 0/1 columns in 1 of 4 rows, the first on line 4";
    assert!(imported.manifest.warnings[0].contains(warning), "{:?}", imported.manifest.warnings);
    assert_eq!(written(imported, &folder), ["tt1 Action|Children's -", "tt3 Children's -"]);
    // Without the columns the list serves.
    put(&folder, "train.csv", "Id,Genre\ntt1,\"['Action', 'Film-Noir']\"\ntt3,['Action']\n");
    let imported = run(Format::Posters, folder.path()).unwrap();
    assert_eq!(written(imported, &folder), ["tt1 Action|Film-Noir -", "tt3 Action -"]);
    put(&folder, "train.csv", "Id,Genre\ntt1,\"['Action', 'Film\"\n");
    refused(run(Format::Posters, folder.path()), &["train.csv:2", "is not a list such as"]);
    put(&folder, "test.csv", "Id\n");
    refused(run(Format::Posters, folder.path()), &["2 CSV files", "name the one"]);
}

#[test]
fn any_table_with_labels_or_columns() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["clips/a.mp4", "clips/b.mp4", "clips/c/1.png"] {
        put(&folder, name, "");
    }
    let text = "path,Drama,Comedy,rating,split,group\nclips/a.mp4,1,0,7,train,x\nclips/b.mp4,1,1,1,train,y\nclips/c,0,1,9,val,z\n";
    put(&folder, "table.csv", text);
    let imported = run(Format::Csv, folder.path()).unwrap();
    assert_eq!(imported.manifest.clips[0].group.as_deref(), Some("x"));
    assert_eq!(written(imported, &folder), ["clips/a Drama train", "clips/b Drama|Comedy train", "clips/c Comedy val"]);
    // A column of labels goes before 0/1 columns, which may mean something else.
    put(&folder, "table.csv", "id,labels,sequel\na,\"Drama, Comedy\",1\nb,Drama,0\n");
    let settings = Settings { separator: Some(','), ..Settings::default() };
    let imported = import(Format::Csv, folder.path(), &settings).unwrap();
    assert!(imported.manifest.warnings[0].contains("`sequel`"));
    assert_eq!(written(imported, &folder), ["a Drama|Comedy -", "b Drama -"]);
    put(&folder, "table.csv", "id,title\na,A\n");
    refused(run(Format::Csv, folder.path()), &["table.csv:1", "no labels", "columns of 0 and 1"]);
    put(&folder, "table.csv", "id,labels,split,year\na,x,trian,\nb,y,,19x7\n");
    refused(run(Format::Csv, folder.path()), &["line 2: unknown split `trian`", "line 3: year is `19x7`"]);
    put(&folder, "table.csv", "id,labels\nq,x\n");
    refused(run(Format::Csv, folder.path()), &["nothing is left of 1 title", "such as `q`", "--clips"]);
    put(&folder, "table.csv", "id,labels,group,split\na,x,g,train\nb,x,g,val\n");
    refused(run(Format::Csv, folder.path()), &["the group `g` stands in more than one split"]);
}
