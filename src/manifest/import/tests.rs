//! Every format with a small generated sample.

use std::path::Path;

use tempfile::TempDir;

use super::*;

fn write(directory: &TempDir, name: &str, text: &str) {
    let path = directory.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn run(format: Format, source: &Path) -> Result<Imported> {
    import(format, source, &ImportOptions::default())
}

/// Writes the manifest, loads it without a root and returns `id labels split` of each clip.
fn write_and_load(imported: Imported, directory: &TempDir) -> Vec<String> {
    let path = directory.path().join("made/manifest.csv");
    imported.write_csv(&path).unwrap();
    let manifest = Manifest::load(&path, None).unwrap();
    let split = |clip: &Clip| clip.split.map_or("-", Split::name);
    manifest.clips.iter().map(|clip| format!("{} {} {}", clip.id, clip.labels.join("|"), split(clip))).collect()
}

#[track_caller]
fn assert_error(result: Result<Imported>, expected: &[&str]) {
    let message = result.expect_err("import fails").to_string();
    for words in expected {
        assert!(message.contains(words), "`{words}` not in: {message}");
    }
}

fn movienet() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (id, meta) in [
        ("tt0120338", r#"{"imdb_id": "tt0120338", "title": "Titanic (1997)", "genres": ["Drama", "Romance"]}"#),
        ("tt0133093", r#"{"title": "The Matrix", "year": 1999, "genres": ["Action", "Sci-Fi", "Adult"]}"#),
        ("tt0000009", r#"{"title": "No keyframes (1894)", "genres": ["Drama"]}"#),
        ("tt0000010", r#"{"title": "Another list", "genres": ["Short", "Adult"]}"#),
        ("tt0000011", r#"{"title": "No genres at all"}"#),
        ("tt0000012", r#"{"title": "An empty directory", "genres": ["War"]}"#),
    ] {
        write(&directory, &format!("meta/{id}.json"), meta);
    }
    for frame in ["shot_0000_img_0", "shot_0000_img_1", "shot_0002_img_0", "shot_0010_img_0"] {
        write(&directory, &format!("240P/tt0120338/{frame}.jpg"), "");
    }
    for id in ["tt0133093", "tt0000010", "tt0000011"] {
        write(&directory, &format!("240P/{id}/shot_0000_img_0.jpg"), "");
    }
    std::fs::create_dir(directory.path().join("240P/tt0000012")).unwrap();
    directory
}

#[test]
fn imports_movienet_keyframes_with_genres() {
    let directory = movienet();
    let imported = run(Format::Movienet, directory.path()).unwrap();
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
    for words in ["kept 2 clips of 6 titles", "dropped labels: 2 (3 uses): Adult 2, Short 1", "frames per clip: 1 to 4"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(write_and_load(imported, &directory), ["tt0120338 Drama|Romance -", "tt0133093 Action|Sci-Fi -"]);
}

#[test]
fn label_filter_selects_movienet_labels() {
    let directory = movienet();
    let with = |labels| {
        import(Format::Movienet, directory.path(), &ImportOptions { labels, ..ImportOptions::default() }).unwrap()
    };
    let all = with(LabelFilter::All);
    assert_eq!(all.manifest.classes(), ["Action", "Adult", "Drama", "Romance", "Sci-Fi", "Short"]);
    assert!(all.summary.dropped_labels.is_empty());
    assert_eq!(with(LabelFilter::Only(vec!["Drama".into()])).manifest.classes(), ["Drama"]);
    assert_error(
        import(
            Format::Movienet,
            directory.path(),
            &ImportOptions { labels: LabelFilter::Only(vec!["drama".into()]), ..ImportOptions::default() },
        ),
        &[
            "no clip remains of 6 titles",
            "6 without a kept label",
            "no title has the label `drama`; the labels are Action, Adult, Drama, Romance, Sci-Fi, Short, War; did you mean `Drama`?",
        ],
    );
}

#[test]
fn movienet_errors_name_the_file() {
    let directory = movienet();
    write(&directory, "meta/tt0000013.json", "{\n \"genres\": [\"Drama\",\n}");
    assert_error(run(Format::Movienet, directory.path()), &["tt0000013.json:3", "invalid JSON"]);
    write(&directory, "meta/tt0000013.json", r#"{"genres": "Drama"}"#);
    assert_error(run(Format::Movienet, directory.path()), &["tt0000013.json: `genres` is not a list"]);
    let empty = tempfile::tempdir().unwrap();
    assert_error(run(Format::Movienet, empty.path()), &["no metadata", "tt0123456.json"]);
    assert_error(run(Format::Movienet, &empty.path().join("none")), &["no such file or directory"]);
}

fn trailers85() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
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
    write(&directory, "train_test_split_dict.json", list);
    for (id, frames) in [("tt0000001", 3), ("tt0000002", 2), ("tt0000004", 80), ("tt0000005", 4), ("tt0000006", 4)] {
        for frame in 0..frames {
            write(&directory, &format!("frames/{id}/{frame}.png"), "");
        }
    }
    directory
}

#[test]
fn imports_trailers_with_85_labels() {
    let directory = trailers85();
    let imported = run(Format::Trailers85, directory.path()).unwrap();
    let summary = imported.summary.clone();
    assert_eq!(summary.missing, ["tt0000003"]);
    // `alien` has no training clip: it is dropped, and with it the title that has no other label.
    assert_eq!(summary.untrained_labels, [("alien".to_string(), 2)].into());
    assert_eq!(summary.without_label, ["tt0000005"]);
    assert_eq!(summary.unusual_frames, Some((1, (3, 80))));
    assert_eq!(
        write_and_load(imported, &directory),
        ["tt0000004 action test", "tt0000006  test", "tt0000001 crime|action train", "tt0000002 haunted house train",]
    );
}

#[test]
fn trailers85_errors_have_lines() {
    let directory = trailers85();
    let list = directory.path().join("train_test_split_dict.json");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, text.replace(r#"["haunted house"]"#, r#""haunted house""#)).unwrap();
    assert_error(run(Format::Trailers85, &list), &["dict.json:4", "labels of `tt0000002` (train)"]);
    std::fs::write(&list, text.replace("tt0000004", "tt0000001")).unwrap();
    assert_error(run(Format::Trailers85, &list), &["duplicate id `tt0000001`", "line"]);
    std::fs::write(&list, text.replace("\"test\"", "\"tset\"")).unwrap();
    assert_error(run(Format::Trailers85, &list), &["unknown split `tset`", "did you mean `test`?"]);
    std::fs::write(&list, &text[..40]).unwrap();
    assert_error(run(Format::Trailers85, &list), &["dict.json:3", "invalid JSON"]);
    std::fs::remove_file(&list).unwrap();
    assert_error(run(Format::Trailers85, directory.path()), &["no train_test_split_dict.json"]);
}

const MTGC: &str = "id,action,sci-fi,title,split0,split1,split2
tt1,1,0,One,0,1,2
tt2,1,1,Two,0,2,1
tt3,0,1,Three,1,0,0
tt4,0,1,Four,2,0,0
";

fn trailers12k() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(&directory, "mtgc.csv", MTGC);
    for name in ["trailers/tt1.mp4", "trailers/tt2.mp4", "trailers/tt3/0001.jpg", "trailers/tt4.webm"] {
        write(&directory, name, "");
    }
    directory
}

#[test]
fn imports_the_selected_split_of_trailers12k() {
    let directory = trailers12k();
    let with = |split| {
        let options = ImportOptions { split, ..ImportOptions::default() };
        write_and_load(import(Format::Trailers12k, directory.path(), &options).unwrap(), &directory)
    };
    assert_eq!(with(0), ["tt1 action train", "tt2 action|sci-fi train", "tt3 sci-fi val", "tt4 sci-fi test"]);
    // No training clip of split 1 has `action`: the other splits drop the label.
    assert_eq!(with(1), ["tt2 sci-fi test", "tt3 sci-fi train", "tt4 sci-fi train"]);
    let imported = run(Format::Trailers12k, directory.path()).unwrap();
    assert!(imported.manifest.warnings.iter().any(|warning| warning.contains("ignored columns: `title`")));
}

#[test]
fn trailers12k_errors_have_lines() {
    let directory = trailers12k();
    let with = |from: &str, to: &str| {
        write(&directory, "mtgc.csv", &MTGC.replace(from, to));
        run(Format::Trailers12k, directory.path())
    };
    assert_error(with("tt3,0,1", "tt3,0,2"), &["mtgc.csv:4", "invalid value `2` in column `sci-fi`; expected 0 or 1"]);
    assert_error(with("Three,1,", "Three,3,"), &["mtgc.csv:4", "unknown split `3`", "0 (train)"]);
    assert_error(with("split0", "fold"), &["mtgc.csv:1", "missing column `split0`"]);
    assert_error(with("tt4,", "tt1,"), &["line 5: duplicate id `tt1` (first on line 2)"]);
    assert_error(with("id,", "key,"), &["mtgc.csv:1", "missing column `id`"]);
    assert_error(with("tt2,1,1,", "tt2,1,1,,"), &["mtgc.csv:3", "8 fields, but the header has 7"]);
    write(&directory, "trailers/tt1.mkv", "");
    assert_error(with("", ""), &["mtgc.csv:2", "several files for title `tt1`", "--clips"]);
}

#[test]
fn imports_posters_with_python_lists_and_indicator_columns() {
    let directory = tempfile::tempdir().unwrap();
    let text = "Id,Genre,Action,Children's,N/A,Year\n\
                tt1,\"['Action', \"\"Children's\"\"]\",1,1,0,1994.0\n\
                tt2,['N/A'],0,0,1,\n\
                tt3,['Action'],0,1,0,2001\n\
                tt4,['Action'],1,0,0,\n";
    write(&directory, "train.csv", text);
    for id in ["tt1", "tt2", "tt3"] {
        write(&directory, &format!("Images/{id}.jpg"), "");
    }
    let imported = run(Format::Posters, directory.path()).unwrap();
    let years: Vec<_> = imported.manifest.clips.iter().map(|clip| clip.year).collect();
    assert_eq!(years, [Some(1994), Some(2001)]);
    assert_eq!(imported.summary.missing, ["tt4"]);
    assert_eq!(imported.summary.dropped_labels, [("N/A".to_string(), 1)].into());
    let warning = "`Genre` contradicts the 0/1 columns in 1 of 4 rows (first on line 4)";
    assert!(imported.manifest.warnings[0].contains(warning), "{:?}", imported.manifest.warnings);
    assert_eq!(write_and_load(imported, &directory), ["tt1 Action|Children's -", "tt3 Children's -"]);
    // Without 0/1 columns, the list is read.
    write(&directory, "train.csv", "Id,Genre\ntt1,\"['Action', 'Film-Noir']\"\ntt3,['Action']\n");
    let imported = run(Format::Posters, directory.path()).unwrap();
    assert_eq!(write_and_load(imported, &directory), ["tt1 Action|Film-Noir -", "tt3 Action -"]);
    write(&directory, "train.csv", "Id,Genre\ntt1,\"['Action', 'Film\"\n");
    assert_error(run(Format::Posters, directory.path()), &["train.csv:2", "invalid list"]);
    write(&directory, "test.csv", "Id\n");
    assert_error(run(Format::Posters, directory.path()), &["2 CSV files", "pass the list itself"]);
}

#[test]
fn imports_tables_with_labels_or_indicator_columns() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["clips/a.mp4", "clips/b.mp4", "clips/c/1.png"] {
        write(&directory, name, "");
    }
    let text = "path,Drama,Comedy,rating,split,group\nclips/a.mp4,1,0,7,train,x\nclips/b.mp4,1,1,1,train,y\nclips/c,0,1,9,val,z\n";
    write(&directory, "table.csv", text);
    let imported = run(Format::Csv, directory.path()).unwrap();
    assert_eq!(imported.manifest.clips[0].group.as_deref(), Some("x"));
    assert_eq!(
        write_and_load(imported, &directory),
        ["clips/a Drama train", "clips/b Drama|Comedy train", "clips/c Comedy val"]
    );
    // A column of labels has priority over 0/1 columns, which may have another meaning.
    write(&directory, "table.csv", "id,labels,sequel\na,\"Drama, Comedy\",1\nb,Drama,0\n");
    let options = ImportOptions { separator: Some(','), ..ImportOptions::default() };
    let imported = import(Format::Csv, directory.path(), &options).unwrap();
    assert!(imported.manifest.warnings[0].contains("`sequel`"));
    assert_eq!(write_and_load(imported, &directory), ["a Drama|Comedy -", "b Drama -"]);
    write(&directory, "table.csv", "id,title\na,A\n");
    assert_error(run(Format::Csv, directory.path()), &["table.csv:1", "no labels", "columns of 0 and 1"]);
    write(&directory, "table.csv", "id,labels,split,year\na,x,trian,\nb,y,,19x7\n");
    assert_error(run(Format::Csv, directory.path()), &["line 2: unknown split `trian`", "line 3: invalid year `19x7`"]);
    write(&directory, "table.csv", "id,labels\nq,x\n");
    assert_error(run(Format::Csv, directory.path()), &["no clip remains of 1 title", "such as `q`", "--clips"]);
    write(&directory, "table.csv", "id,labels,group,split\na,x,g,train\nb,x,g,val\n");
    assert_error(run(Format::Csv, directory.path()), &["group `g` is in more than one split"]);
}
