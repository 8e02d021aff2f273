use ndarray::{Array2, array};

use super::*;
use crate::error::Error;
use crate::interchange::export::{ExportOptions, Format};
use crate::manifest::{Clip, Manifest, Split};
use crate::store::{ClipRows, Failure, Payload, Pooling, Provenance, RowSource, StoreWriter, Values};

fn store(path: &std::path::Path) {
    let provenance = Provenance {
        method: "cnn".into(),
        model: "net".into(),
        weights: "seeded".into(),
        extract_seconds: 2.0,
        ..Default::default()
    };
    let mut writer = StoreWriter::create(path, Payload::Features { dim: 3 }, &provenance).unwrap();
    for (i, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let values = array![[i as f32, 7.0, 1.0], [i as f32, 7.0, if i == 2 { f32::NAN } else { -1.0 }]];
        let row = |padded| RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 0.5, padded, scale: 1.0 };
        writer
            .push(ClipRows {
                id: id.into(),
                path: format!("{id}.mp4"),
                start: None,
                end: None,
                frame_count: 50,
                fps: 25.0,
                duration_seconds: 2.0,
                fully_decoded: false,
                version: String::new(),
                rows: vec![row(false), row(true)],
                values: Values::Features(values),
            })
            .unwrap();
    }
    writer.push_failure(Failure {
        id: "e".into(),
        stage: "decode".into(),
        error: "no frame".into(),
        ..Failure::default()
    });
    writer.finish().unwrap();
}

const EXPORT: ExportOptions<'static> = ExportOptions { format: Format::Npy, pooling: Pooling::None, manifest: None };

fn manifest() -> Manifest {
    let clip = |id: &str, label: Option<&str>, split| Clip {
        id: id.into(),
        path: format!("{id}.mp4"),
        file: format!("/nowhere/{id}.mp4").into(),
        labels: label.map(String::from).into_iter().collect(),
        group: Some("film".into()),
        split,
        ..Clip::default()
    };
    Manifest {
        source: "clips.csv".into(),
        clips: vec![
            clip("a", Some("cat"), Some(Split::Train)),
            clip("b", Some("cat"), Some(Split::Val)),
            clip("c", Some("<dog>"), Some(Split::Val)),
            clip("d", None, None),
        ],
        warnings: vec!["column `note` is not read".into()],
        sha256: String::new(),
    }
}

#[test]
fn store_is_described_plotted_and_exported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cnn.h5");
    store(&path);
    let out = directory.path().join("out");
    let inspection = inspect_store(&path, Some(&manifest()), Some(&out), Some(EXPORT)).unwrap();
    assert_eq!(inspection.failed, 1);
    for part in [
        "UNTRAINED",
        "8 rows × 3, 4 clips",
        "rows per clip: 2 to 2",
        "clip): 4 of 8",
        "e (decode): no frame",
        "non-finite values: 1 of 24",
        "constant features: 1 of 3 (1)",
        "2.00 clips/s",
    ] {
        assert!(inspection.text.contains(part), "no {part:?} in\n{}", inspection.text);
    }
    for file in &inspection.files {
        assert!(file.is_file(), "{}", file.display());
    }
    let npy = std::fs::read(out.join("features.npy")).unwrap();
    assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00");
    assert_eq!(npy.len(), 128 + 8 * 3 * 4);
    assert_eq!(npy[128 + 12..128 + 16], 0f32.to_le_bytes());
    assert_eq!(std::fs::read_to_string(out.join("rows.csv")).unwrap().lines().count(), 9);
    let picture = std::fs::read_to_string(out.join("projection.svg")).unwrap();
    assert!(picture.contains("&lt;dog&gt;") && picture.contains("unlabeled"), "{picture}");
}

#[test]
fn descriptor_store_is_described_but_not_exported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sift.h5");
    StoreWriter::create(&path, Payload::Descriptors { dim: 128 }, &Provenance::default()).unwrap().finish().unwrap();
    assert!(inspect_store(&path, None, None, None).unwrap().text.contains("descriptors, 0 frames"));
    let error = inspect_store(&path, None, Some(directory.path()), Some(EXPORT)).unwrap_err();
    assert!(matches!(&error, Error::Store { message, .. } if message.contains("kinoprobe-codebook")), "{error}");
}

#[test]
fn manifest_is_described_and_plotted() {
    let directory = tempfile::tempdir().unwrap();
    let inspection = inspect_manifest(&manifest(), Some(directory.path())).unwrap();
    for part in [
        "files missing: 4 of 4",
        "labels per clip: 0 (1 clips), 1 (3 clips)",
        "groups: 1",
        "column `note`",
        "`<dog>` has no training clips",
    ] {
        assert!(inspection.text.contains(part), "no {part:?} in\n{}", inspection.text);
    }
    let table = std::fs::read_to_string(directory.path().join("classes.csv")).unwrap();
    assert_eq!(table, "class,train,val,no split,all\n<dog>,0,1,0,1\ncat,1,1,0,2\n(clips),1,2,1,4\n");
    assert!(std::fs::read_to_string(directory.path().join("classes.svg")).unwrap().contains("&lt;dog&gt;"));
}

#[test]
fn multi_label_manifest_is_analyzed() {
    let directory = tempfile::tempdir().unwrap();
    for (title, frames) in [("a", 3), ("b", 12)] {
        std::fs::create_dir(directory.path().join(title)).unwrap();
        for frame in 0..frames {
            std::fs::write(directory.path().join(format!("{title}/{frame}.png")), "").unwrap();
        }
    }
    let clip = |id: &str, labels: &[&str], split| Clip {
        id: id.into(),
        file: directory.path().join(id),
        labels: labels.iter().map(|label| label.to_string()).collect(),
        split: Some(split),
        ..Clip::default()
    };
    let manifest = Manifest {
        source: "clips.csv".into(),
        clips: vec![
            clip("a", &["drama", "war"], Split::Train),
            clip("b", &["drama"], Split::Train),
            clip("c", &["war", "drama"], Split::Train),
            clip("d", &["<action>", "drama"], Split::Train),
            clip("e", &["<action>"], Split::Val),
        ],
        warnings: Vec::new(),
        sha256: String::new(),
    };
    let out = directory.path().join("out");
    let inspection = inspect_manifest(&manifest, Some(&out)).unwrap();
    for part in [
        "labels per clip: 1 (2 clips), 2 (3 clips)",
        "frame directories: 2, with 3 to 12 frames, median 12",
        "train        4         1.75           3",
        "drama + war: 2 clips, 1.25 × expected",
    ] {
        assert!(inspection.text.contains(part), "no {part:?} in\n{}", inspection.text);
    }
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("cooccurrence.csv"), "class,<action>,drama,war\n<action>,2,1,0\ndrama,1,4,2\nwar,0,2,2\n");
    assert_eq!(read("frames.csv"), "id,frames\na,3\nb,12\n");
    // Two of four training clips have the label war, so its weight is 4 / (3 · 2).
    assert!(read("weights.csv").contains("\nwar,2,0.5000,0.6667,0.8165,1.0000,"), "{}", read("weights.csv"));
    assert!(read("compose.csv").starts_with("labels,before,share,after,share\ndrama|war,2,50.00 %,1,"));
    for figure in ["cooccurrence.svg", "labels_per_clip.svg", "frames.svg"] {
        assert!(read(figure).starts_with("<svg"));
    }
    assert!(read("cooccurrence.svg").contains("&lt;action&gt; and drama: 1 of 2"));
    assert_eq!(inspection.files.len(), 10);
}

#[test]
fn projection_finds_plane() {
    // Points in a plane of a five-dimensional space, with more variance along one axis.
    let (u, v) = ([0.6, 0.0, 0.8, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0]);
    let points = Array2::from_shape_fn((40, 5), |(i, d)| {
        let angle = i as f64 * 0.7;
        (3.0 * angle.cos() * u[d] + angle.sin() * v[d] + 10.0) as f32
    });
    let projection = project(&points);
    assert!((projection.explained[0] + projection.explained[1] - 1.0).abs() < 1e-6, "{:?}", projection.explained);
    assert!((projection.explained[0] - 0.9).abs() < 0.02);
    let radius = |i: usize| (projection.points[i].0 / 3.0).hypot(projection.points[i].1);
    assert!((0..40).all(|i| (radius(i) - 1.0).abs() < 0.1));
    assert_eq!(project(&points), projection);
    // Fewer points than dimensions are projected without the scatter matrix.
    let few = points.slice(ndarray::s![..4, ..]).to_owned();
    assert!((project(&few).explained.iter().sum::<f64>() - 1.0).abs() < 1e-6);
}

#[test]
fn degenerate_features_project_to_the_origin() {
    for features in [Array2::zeros((3, 2)), Array2::from_elem((1, 4), f32::NAN), Array2::zeros((4, 1))] {
        let projection = project(&features);
        assert_eq!(projection.points, vec![(0.0, 0.0); features.nrows()]);
        assert_eq!(projection.explained, [0.0, 0.0]);
    }
}
