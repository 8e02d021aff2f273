use ndarray::{Array2, array};
use proptest::prelude::*;

use super::*;

fn provenance() -> Provenance {
    Provenance { method: "cnn".into(), model: "net".into(), provider: "cpu".into(), ..Provenance::default() }
}

fn clip(id: &str, values: Values) -> ClipRows {
    let rows = match &values {
        Values::Features(values) => values.nrows(),
        Values::Descriptors { counts, .. } => counts.len(),
    };
    let rows = (0..rows)
        .map(|i| Row {
            start_frame: i as u64,
            start_seconds: i as f64 / 3.0,
            end_seconds: i as f64 + 0.5,
            padded: i % 2 == 1,
        })
        .collect();
    let path = format!("{id}.mp4");
    ClipRows { id: id.into(), path, frame_count: 10, fps: 25.0, duration_seconds: 0.4, rows, values }
}

fn descriptors(index: usize, counts: &[u32]) -> Values {
    let total = counts.iter().sum::<u32>() as usize;
    let values = Array2::from_shape_fn((total, 3), |(r, c)| (index * 31 + r * 3 + c) as u8);
    Values::Descriptors { counts: counts.to_vec(), values }
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.h5");
    let mut writer = StoreWriter::create(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    let clips = [
        clip("a", Values::Features(array![[1.0, -4.0], [3.0, -2.0]])),
        clip("ü", Values::Features(array![[5.0, 6.0]])),
    ];
    for clip in &clips {
        writer.push(clip.clone()).unwrap();
    }
    assert!(!path.exists(), "a store takes its name only when it is whole");
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
    drop(Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap());
    let wanted = Provenance { weights: "seeded".into(), ..provenance() };
    let error = Journal::open(&path, Payload::Features { dim: 2 }, &wanted).unwrap_err().to_string();
    assert!(error.contains("weights: it has nothing, asked for seeded"), "{error}");
    assert!(Journal::open(&path, Payload::Features { dim: 3 }, &provenance()).is_err());
}

#[test]
fn two_processes_do_not_write_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.h5");
    let _first = Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    let error = Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
}

#[test]
fn a_provider_that_goes_on_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.h5");
    for provider in ["cuda", "openvino", "cuda"] {
        let wanted = Provenance { provider: provider.into(), ..provenance() };
        drop(Journal::open(&path, Payload::Features { dim: 2 }, &wanted).unwrap());
    }
    let journal = Journal::open(&path, Payload::Features { dim: 2 }, &provenance()).unwrap();
    assert_eq!(journal.provenance().provider, "cuda+openvino+cpu");
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.h5");
    std::fs::write(&text, "hello").unwrap();
    assert!(Store::open(&text).is_err());
    std::fs::write(Journal::path_for(&text), "somebody's notes").unwrap();
    assert!(Journal::open(&text, Payload::Features { dim: 2 }, &provenance()).is_err());
    let empty = folder.path().join("empty.h5");
    drop(hdf5::File::create(&empty).unwrap());
    let error = Store::open(&empty).unwrap_err().to_string();
    assert!(error.contains("no attribute `format`"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut off at any byte, a journal gives back every clip that was whole, and goes on.
    #[test]
    fn a_cut_loses_only_the_last_record(counts in prop::collection::vec(prop::collection::vec(0u32..5, 1..4), 1..6), cut in 0.0..1.0f64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sift.h5");
        let payload = Payload::Descriptors { dim: 3 };
        let clips: Vec<ClipRows> = counts.iter().enumerate().map(|(i, c)| clip(&i.to_string(), descriptors(i, c))).collect();
        let mut ends = Vec::new();
        let mut journal = Journal::open(&path, payload, &provenance()).unwrap();
        for clip in &clips {
            journal.push(clip).unwrap();
            journal.checkpoint(0.5).unwrap();
            ends.push(std::fs::metadata(Journal::path_for(&path)).unwrap().len());
        }
        drop(journal);
        let size = *ends.last().unwrap();
        let kept = (size as f64 * cut) as u64;
        std::fs::File::options().write(true).open(Journal::path_for(&path)).unwrap().set_len(kept).unwrap();
        let mut journal = Journal::open(&path, payload, &provenance()).unwrap();
        for (clip, end) in clips.iter().zip(&ends) {
            if *end <= kept {
                prop_assert!(journal.has(&clip.id, &clip.path));
            }
            if !journal.has(&clip.id, &clip.path) {
                journal.push(clip).unwrap();
            }
            prop_assert_eq!(&journal.read(&clip.id, &clip.path).unwrap(), clip);
        }
    }

    /// Whatever bytes are damaged, no clip comes back other than it was written.
    #[test]
    fn damage_is_noticed(at in 8usize..2000, flip in 1u8..) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cnn.h5");
        let payload = Payload::Features { dim: 4 };
        let clips: Vec<ClipRows> = (0..4).map(|i| clip(&i.to_string(), Values::Features(Array2::from_elem((2, 4), i as f32)))).collect();
        let mut journal = Journal::open(&path, payload, &provenance()).unwrap();
        for clip in &clips { journal.push(clip).unwrap(); }
        journal.checkpoint(0.0).unwrap();
        drop(journal);
        let file = Journal::path_for(&path);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        std::fs::write(&file, bytes).unwrap();
        if let Ok(mut journal) = Journal::open(&path, payload, &provenance()) {
            for clip in &clips {
                if journal.has(&clip.id, &clip.path) {
                    prop_assert_eq!(&journal.read(&clip.id, &clip.path).unwrap(), clip);
                }
            }
        }
    }
}
