use ndarray::{Array2, array};

use super::*;

mod mutations;

fn provenance() -> Provenance {
    Provenance { method: "cnn".into(), model: "net".into(), provider: "cpu".into(), ..Provenance::default() }
}

fn clip(id: &str, values: Values) -> ClipRows {
    let rows = match &values {
        Values::Features(values) => values.nrows(),
        Values::Descriptors { counts, .. } => counts.len(),
    };
    let rows = (0..rows)
        .map(|i| RowSource {
            start_frame: i as u64,
            start_seconds: i as f64 / 3.0,
            end_seconds: i as f64 + 0.5,
            padded: i % 2 == 1,
            scale: 1.0 / (i + 1) as f64,
        })
        .collect();
    let path = format!("{id}.mp4");
    let (start, end) = (None, None);
    ClipRows {
        id: id.into(),
        path,
        start,
        end,
        frame_count: 10,
        fps: 25.0,
        duration_seconds: 0.4,
        fully_decoded: false,
        version: String::new(),
        rows,
        values,
    }
}

fn descriptors(index: usize, counts: &[u32]) -> Values {
    let total = counts.iter().sum::<u32>() as usize;
    let values = Array2::from_shape_fn((total, 3), |(r, c)| (index * 31 + r * 3 + c) as u8);
    Values::Descriptors { counts: counts.to_vec(), values }
}

#[test]
fn reads_what_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cnn.h5");
    let mut writer = StoreWriter::create(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    let clips = [
        clip("a", Values::Features(array![[1.0, -4.0], [3.0, -2.0]])),
        ClipRows { start: Some(1.5), end: Some(3.1), ..clip("ü", Values::Features(array![[5.0, 6.0]])) },
    ];
    for clip in &clips {
        writer.push(clip.clone()).unwrap();
    }
    assert!(!path.exists(), "the store is renamed when it is complete");
    let failure = Failure {
        id: "c".into(),
        path: "c.mp4".into(),
        start: None,
        end: Some(2.5),
        stage: "decode".into(),
        error: "no".into(),
    };
    writer.push_failure(failure.clone());
    writer.finish().unwrap();

    let store = FeatureStore::open(&path).unwrap();
    assert_eq!(store.pooled(Pooling::Mean).unwrap(), array![[2.0, -3.0], [5.0, 6.0]]);
    assert_eq!(store.pooled(Pooling::Max).unwrap(), array![[3.0, -2.0], [5.0, 6.0]]);
    assert_eq!(store.failures(), [failure]);
    assert_eq!(store.clips()[1].offset, 2);
    for (i, clip) in clips.iter().enumerate() {
        assert_eq!(&store.read_clip(i).unwrap(), clip);
    }
    assert!(DescriptorStore::open(&path).is_err());
    assert_eq!(store.clips()[1].key().to_string(), "ü.mp4 from 1.5 s to 3.1 s");
}

#[test]
fn clips_without_a_recorded_period_are_whole_files() {
    let remove = |file: &hdf5::File| file.unlink("clips/start").and_then(|()| file.unlink("clips/end"));
    let (_directory, store) = damaged_store(Payload::Features { dim: 2 }, remove);
    assert!(!store.has_periods());
    assert_eq!((store.clips()[0].start, store.clips()[0].end), (None, None));
    assert_eq!(store.clips()[0].key(), ClipKey::new("0", "0.mp4", Some(-0.0), None));
}

#[test]
fn a_journal_with_other_settings_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cnn.h5");
    let mut journal = Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    journal.push(&clip("a", Values::Features(array![[1.0, 2.0]]))).unwrap();
    drop(journal);
    // The last record is incomplete.
    let mut bytes = std::fs::read(Journal::path_for(&path)).unwrap();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(Journal::path_for(&path), &bytes).unwrap();
    let wanted = Provenance { weights: "seeded".into(), ..provenance() };
    assert!(Journal::open(&path, Payload::Features { dim: 2 }, &wanted).is_err());
    assert!(Journal::open(&path, Payload::Features { dim: 3 }, &provenance()).is_err());
    assert_eq!(std::fs::read(Journal::path_for(&path)).unwrap(), bytes);
}

#[test]
fn a_journal_with_other_settings_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cnn.h5");
    drop(Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap());
    let wanted = Provenance { weights: "seeded".into(), ..provenance() };
    let error = Journal::open(&path, Payload::Features { dim: 2 }, &wanted).unwrap_err().to_string();
    assert!(error.contains("weights: stored none, requested seeded"), "{error}");
    assert!(Journal::open(&path, Payload::Features { dim: 3 }, &provenance()).is_err());
}

#[test]
fn a_journal_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cnn.h5");
    let _first = Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    let error = Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
}

#[test]
fn a_journal_records_all_providers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cnn.h5");
    for provider in ["cuda", "openvino", "cuda"] {
        let wanted = Provenance { provider: provider.into(), ..provenance() };
        drop(Journal::open(&path, Payload::Features { dim: 2 }, &wanted).unwrap());
    }
    let journal = Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    assert_eq!(journal.provenance().provider, "cuda+openvino+cpu");
}

#[test]
fn other_files_are_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text.h5");
    std::fs::write(&text, "hello").unwrap();
    assert!(Store::open(&text).is_err());
    std::fs::write(Journal::path_for(&text), "notes").unwrap();
    assert!(Journal::open(&text, Payload::Features { dim: 2 }, &provenance()).is_err());
    let empty = directory.path().join("empty.h5");
    drop(hdf5::File::create(&empty).unwrap());
    let error = Store::open(&empty).unwrap_err().to_string();
    assert!(error.contains("attribute `format` is missing"), "{error}");
}

/// A store with two clips, changed by a function.
fn damaged_store(payload: Payload, damage: impl Fn(&hdf5::File) -> hdf5::Result<()>) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.h5");
    let mut writer = StoreWriter::create(&path, payload, &provenance()).unwrap();
    for i in 0..2 {
        let values = match payload {
            Payload::Features { dim } => Values::Features(Array2::from_elem((3, dim), i as f32)),
            Payload::Descriptors { .. } => descriptors(i, &[2, 0, 1]),
        };
        writer.push(clip(&i.to_string(), values)).unwrap();
    }
    writer.finish().unwrap();
    let file = hdf5::File::open_rw(&path).unwrap();
    damage(&file).unwrap();
    file.close().unwrap();
    let store = Store::open(&path);
    (directory, store.unwrap())
}

#[test]
fn clips_with_the_same_id_are_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.h5");
    let mut writer = StoreWriter::create(&path, Payload::Features { dim: 1 }, &provenance()).unwrap();
    (0..2).for_each(|_| writer.push(clip("a", Values::Features(array![[1.0]]))).unwrap());
    writer.finish().unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("damaged: two clips have the id a"), "{error}");
}

#[test]
fn descriptors_are_counted_before_memory_is_allocated() {
    let (directory, store) =
        damaged_store(Payload::Descriptors { dim: 3 }, |file| file.dataset("rows/descriptors")?.write(&[u32::MAX; 6]));
    drop(store);
    let store = DescriptorStore::open(&directory.path().join("store.h5")).unwrap();
    let error = store.descriptor_counts().unwrap_err().to_string();
    assert!(error.contains("damaged: the rows have 25769803770 descriptors, but the store has 6"), "{error}");
}

#[test]
fn damaged_datasets_are_errors() {
    let features = Payload::Features { dim: 2 };
    for name in ["rows/start_frame", "rows/start_seconds", "rows/end_seconds", "rows/padded"] {
        let (_directory, store) = damaged_store(features, |file| file.dataset(name)?.resize(4));
        let error = store.read_clip(1).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("[4]"), "{error}");
        assert!(store.read_clip(0).is_ok());
    }
    let (directory, store) = damaged_store(features, |file| {
        file.dataset("pooled/mean")?.resize((1, 2))?;
        file.dataset("pooled/max")?.resize((2, 0))
    });
    drop(store);
    let store = FeatureStore::open(&directory.path().join("store.h5")).unwrap();
    assert!(store.pooled(Pooling::Mean).unwrap_err().to_string().contains("[1, 2]"));
    assert!(store.pooled(Pooling::Max).unwrap_err().to_string().contains("[2, 0]"));
    assert!(store.features(0..7).is_err());

    let (_directory, store) =
        damaged_store(Payload::Descriptors { dim: 3 }, |file| file.dataset("descriptors")?.resize((5, 3)));
    assert!(store.read_clip(0).is_ok());
    assert!(store.read_clip(1).unwrap_err().to_string().contains("/descriptors has shape [5, 3]"));
}

#[test]
fn inconsistent_failures_are_rejected() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["failures/stage", "failures/error"] {
        let path = directory.path().join("cnn.h5");
        let mut writer = StoreWriter::create(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
        writer.push_failure(Failure {
            id: "a".into(),
            stage: "decode".into(),
            error: "truncated".into(),
            ..Failure::default()
        });
        writer.finish().unwrap();
        assert_eq!(Store::open(&path).unwrap().failures().len(), 1);
        let file = hdf5::File::open_rw(&path).unwrap();
        file.dataset(name).unwrap().resize(0).unwrap();
        file.close().unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("the datasets of /failures differ in length"), "{error}");
    }
}

#[test]
fn inconsistent_clips_are_rejected() {
    let open = |name: &str, values: [u64; 2]| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cnn.h5");
        let mut writer = StoreWriter::create(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
        for id in ["a", "b"] {
            writer.push(clip(id, Values::Features(array![[1.0, 2.0]]))).unwrap();
        }
        writer.finish().unwrap();
        let file = hdf5::File::open_rw(&path).unwrap();
        file.unlink(name).unwrap();
        file.new_dataset_builder().with_data(&values).create(name).unwrap();
        file.close().unwrap();
        Store::open(&path).unwrap_err().to_string()
    };
    for (name, values, expected) in [
        ("clips/offset", [0, 2], "clip b starts at row 2, not 1"),
        ("clips/length", [0, 2], "clip a has no rows"),
        ("clips/length", [1, 2], "the clips have 3 rows, but the store has 2"),
        ("clips/length", [1, u64::MAX], "clip b has 18446744073709551615 rows"),
    ] {
        let error = open(name, values);
        assert!(error.contains(expected), "{error}");
    }
}

/// Rows of different decoders never share a store. Stores of earlier revisions do not record the decoder.
#[test]
fn a_different_decoder_is_a_difference() {
    let requested = Provenance { decoder: "2".into(), ..provenance() };
    let error = provenance().check_compatible(std::path::Path::new("cnn.h5"), &requested).unwrap_err().to_string();
    assert!(error.contains("decoder: stored none, requested 2"), "{error}");
}

#[test]
fn a_different_batch_size_is_no_difference() {
    let differ = |stored: &str, requested: &str| {
        let provenance = |recipe: &str| Provenance { recipe: recipe.into(), ..provenance() };
        !provenance(stored).differences(&provenance(requested)).is_empty()
    };
    let recipe = |frames: u32, batch: &str| {
        format!(r#"{{"sampling":{{"frames":{frames}}},"extractor":{{"kind":"network","card":"x"{batch}}}}}"#)
    };
    assert!(!differ(&recipe(8, r#","batch":2"#), &recipe(8, r#","batch":1"#)));
    assert!(!differ(&recipe(8, r#","batch":2"#), &recipe(8, "")));
    assert!(differ(&recipe(8, r#","batch":2"#), &recipe(4, r#","batch":2"#)));
    // Recipes without an extractor, such as those of shots.
    assert!(differ(r#"{"threshold":0.5}"#, r#"{"threshold":0.4}"#));
    assert!(differ("", r#"{"threshold":0.4}"#));
}

/// Rows of different precision never share a store.
#[test]
fn a_different_precision_is_a_difference() {
    let stored = Provenance { precision: "f32".into(), ..provenance() };
    let requested = Provenance { precision: "bf16".into(), ..stored.clone() };
    let attributes: Vec<&str> = stored.differences(&requested).iter().map(|difference| difference.attribute).collect();
    assert_eq!(attributes, ["precision"]);
}
