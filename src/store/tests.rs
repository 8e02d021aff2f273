use ndarray::{Array2, array};
use proptest::prelude::*;

use super::*;
use crate::recipe::Pooling;

fn provenance() -> Provenance {
    Provenance { method: "cnn".into(), model: "net".into(), provider: "cpu".into(), ..Provenance::default() }
}

fn clip(id: &str, values: Array2<f32>) -> ClipRows {
    let rows = (0..values.nrows())
        .map(|i| Row {
            start_frame: i as u64,
            start_seconds: i as f64,
            end_seconds: i as f64 + 0.5,
            padded: i % 2 == 1,
        })
        .collect();
    ClipRows {
        id: id.into(),
        path: format!("{id}.mp4"),
        frame_count: 10,
        fps: 25.0,
        duration_seconds: 0.4,
        rows,
        values: Values::Features(values),
    }
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.h5");
    let mut writer = StoreWriter::create(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    let clips = [clip("a", array![[1.0, -4.0], [3.0, -2.0]]), clip("ü", array![[5.0, 6.0]])];
    writer.push(clips[0].clone());
    writer.flush().unwrap();
    assert!(!path.exists());
    writer.push(clips[1].clone());
    writer.push_failure(Failure { id: "c".into(), stage: "decode".into(), error: "no".into() });
    writer.finish().unwrap();

    let store = FeatureStore::open(&path).unwrap();
    assert_eq!(store.pooled(Pooling::Mean).unwrap(), array![[2.0, -3.0], [5.0, 6.0]]);
    assert_eq!(store.pooled(Pooling::Max).unwrap(), array![[3.0, -2.0], [5.0, 6.0]]);
    assert_eq!(store.failures()[0].id, "c");
    assert_eq!(store.clips()[1].offset, 2);
    for (i, clip) in clips.iter().enumerate() {
        assert_eq!(&store.read_clip(i).unwrap(), clip);
    }
    assert!(DescriptorStore::open(&path).is_err());
}

#[test]
fn another_recipe_is_refused_with_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.h5");
    drop(StoreWriter::create(&path, Payload::Features { dim: 2 }, &provenance()).unwrap());
    let wanted = Provenance { weights: "seeded".into(), ..provenance() };
    let error = StoreWriter::resume(&path, Payload::Features { dim: 2 }, &wanted).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("weights: it has nothing, asked for seeded"), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.h5");
    std::fs::write(&text, "hello").unwrap();
    assert!(Store::open(&text).is_err());
    let empty = folder.path().join("empty.h5");
    drop(hdf5::File::create(&empty).unwrap());
    let error = Store::open(&empty).unwrap_err().to_string();
    assert!(error.contains("no attribute `format`"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Dropped without `finish` and resumed at any clip, a store reads as one written in a single run.
    #[test]
    fn resuming_changes_nothing(counts in prop::collection::vec(prop::collection::vec(0u32..5, 1..4), 1..6), stop in 0usize..6) {
        let folder = tempfile::tempdir().unwrap();
        let payload = Payload::Descriptors { dim: 3 };
        let clips: Vec<ClipRows> = counts.iter().enumerate().map(|(i, counts)| {
            let total = counts.iter().sum::<u32>() as usize;
            let mut clip = clip(&i.to_string(), Array2::zeros((counts.len(), 1)));
            clip.values = Values::Descriptors {
                counts: counts.clone(),
                values: Array2::from_shape_fn((total, 3), |(r, c)| (i * 31 + r * 3 + c) as u8),
            };
            clip
        }).collect();
        let stop = stop.min(clips.len());
        let path = folder.path().join("sift.h5");
        let mut writer = StoreWriter::create(&path, payload, &provenance()).unwrap();
        for clip in &clips[..stop] { writer.push(clip.clone()); }
        writer.flush().unwrap();
        for clip in &clips[stop..] { writer.push(clip.clone()); }
        drop(writer); // the pending clips are lost
        let mut writer = StoreWriter::resume(&path, payload, &provenance()).unwrap();
        prop_assert_eq!(writer.len(), stop);
        for clip in &clips[stop..] { writer.push(clip.clone()); }
        writer.finish().unwrap();
        let store = DescriptorStore::open(&path).unwrap();
        prop_assert_eq!(store.clips().len(), clips.len());
        for (i, clip) in clips.iter().enumerate() {
            prop_assert_eq!(&store.read_clip(i).unwrap(), clip);
        }
    }
}
