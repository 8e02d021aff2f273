//! Training on sequences that are read from a store, compared with training on the same sequences in memory.

use ndarray::Array2;

use super::{fit, quick, sequences};
use crate::classify::{ClassifierKind, Standardizer, Tensor};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::manifest::{Clip, Manifest, Split};
use crate::store::{ClipRows, FeatureStore, Payload, Pooling, Provenance, RowSource, StoreWriter, Values};

/// Writes the clips of `data` to a store, in reverse order.
fn write_store(path: &std::path::Path, data: &Dataset) {
    let provenance = Provenance { method: "made".into(), model: "numbers".into(), ..Provenance::default() };
    let mut writer = StoreWriter::create(path, Payload::Features { dim: data.dim() }, &provenance).unwrap();
    for i in (0..data.len()).rev() {
        let features = data.clip(i).unwrap().into_owned();
        let row = |_| RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 1.0, padded: false, scale: 1.0 };
        writer
            .push(ClipRows {
                id: data.ids[i].clone(),
                path: format!("{}.mp4", data.ids[i]),
                start: None,
                end: None,
                frame_count: 1,
                fps: 1.0,
                duration_seconds: 1.0,
                fully_decoded: false,
                version: String::new(),
                rows: (0..features.nrows()).map(row).collect(),
                values: Values::Features(features),
            })
            .unwrap();
    }
    writer.finish().unwrap();
}

/// Lists the clips of `data`: every fourth one belongs to the validation split.
fn manifest(data: &Dataset) -> Manifest {
    let labels = data.single_labels().unwrap();
    let clip = |i: usize| Clip {
        id: data.ids[i].clone(),
        labels: vec![data.classes[labels[i]].clone()],
        split: Some(if i % 4 == 3 { Split::Val } else { Split::Train }),
        ..Clip::default()
    };
    let clips = (0..data.len()).map(clip).collect();
    Manifest { source: "clips.csv".into(), clips, warnings: vec![], sha256: String::new() }
}

/// Clips of one to four rows with features of class means and noise.
fn clips() -> Dataset {
    let value =
        |i: usize, d: usize| ((i * 7919 + d * 104_729) % 1009) as f32 / 500.0 + if i % 4 == d { 5.0 } else { 90.0 };
    let rows = Array2::from_shape_fn((150, 6), |(i, d)| value(i, d));
    let targets = Array2::from_shape_fn((150, 4), |(i, c)| f32::from(i % 4 == c));
    sequences(&super::dataset(rows.view(), targets))
}

/// Returns the tensors of a model that is trained on the standardized sequences, and its scores of the validation clips.
fn train(kind: ClassifierKind, data: &DatasetSplits) -> (Vec<Tensor>, Array2<f32>) {
    let fitted = fit(&quick(kind, true), Task::SingleLabel, &data.train, &data.val, 1);
    (fitted.model.tensors(), fitted.model.scores(&data.val).unwrap())
}

#[test]
fn models_do_not_depend_on_where_the_rows_are() {
    let (directory, data) = (tempfile::tempdir().unwrap(), clips());
    let path = directory.path().join("made.h5");
    write_store(&path, &data);
    let manifest = manifest(&data);
    let split = |split: Split| {
        let chosen = |i: &usize| manifest.clips[*i].split == Some(split);
        data.select(&(0..data.len()).filter(chosen).collect::<Vec<_>>())
    };
    let stored = |memory: Option<u64>| {
        let mut store = FeatureStore::open(&path).unwrap();
        memory.into_iter().for_each(|bytes| store.set_cache_memory(bytes));
        Dataset::join(&store, &manifest, Pooling::None).unwrap()
    };
    let in_memory = DatasetSplits { train: split(Split::Train), val: split(Split::Val), ..stored(None) };
    let kinds: Vec<_> = ClassifierKind::ALL.iter().copied().filter(|kind| kind.capabilities().sequences).collect();
    assert!(!kinds.is_empty());
    for kind in kinds {
        let expected = train(kind, &in_memory);
        // Half of the rows, none, all.
        for memory in [Some(1800), Some(1), None] {
            assert_eq!(train(kind, &stored(memory)), expected, "{kind:?}, {memory:?}");
        }
        // Clips of clips, as in cross-validation.
        let chosen: Vec<usize> = (0..in_memory.train.len()).rev().step_by(2).collect();
        let of_chosen = |data: DatasetSplits| DatasetSplits { train: data.train.select(&chosen), ..data };
        assert_eq!(train(kind, &of_chosen(stored(Some(1)))), train(kind, &of_chosen(in_memory.clone())), "{kind:?}");
    }
    let statistics = Standardizer::fit(&in_memory.train).unwrap();
    assert_eq!(Standardizer::fit(&stored(Some(1)).train).unwrap(), statistics);
}

#[test]
fn features_that_are_not_finite_are_reported_with_their_clip() {
    let (directory, data) = (tempfile::tempdir().unwrap(), clips());
    let clip = (0..data.len()).find(|&i| data.offsets[i + 1] - data.offsets[i] == 3).unwrap();
    let mut rows = super::all_rows(&data);
    rows[(data.offsets[clip] + 2, 4)] = f32::NAN;
    let path = directory.path().join("made.h5");
    write_store(&path, &data.with_rows(rows));
    let error = Dataset::join(&FeatureStore::open(&path).unwrap(), &manifest(&data), Pooling::None).unwrap_err();
    let expected = format!("feature 4 of row 2 of clip {} is NaN; extract the clip again", data.ids[clip]);
    assert!(error.to_string().contains(&expected), "{error}");
}
