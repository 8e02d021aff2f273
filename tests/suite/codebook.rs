//! kinoprobe-codebook on generated descriptor stores.

use std::path::Path;

use assert_cmd::Command;
use kinoprobe::store::{ClipRows, Failure, FeatureStore, Payload, Pooling, Provenance, RowSource, StoreWriter, Values};
use ndarray::{Array2, Axis, s};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tempfile::TempDir;

const FRAMES: usize = 3;
const DIM: usize = 128;

/// 20 clips of 3 frames. Frame `f` of clip `i` has `(i + 5 f) % 12` random descriptors; those of clip `changed` have another seed.
fn workspace(changed: Option<usize>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let provenance = Provenance {
        method: "sift".into(),
        model: "sift".into(),
        weights: "none".into(),
        recipe: r#"{"sampling":{"kind":"even","frames":3},"extractor":{"kind":"sift","keypoints":12}}"#.into(),
        precision: "u8".into(),
        extract_seconds: 2.0,
        ..Provenance::default()
    };
    let path = directory.path().join("sift.descriptors.h5");
    let mut writer = StoreWriter::create(&path, Payload::Descriptors { dim: DIM }, &provenance).unwrap();
    let mut manifest = String::from("id,path,label,split\n");
    for i in 0..20 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(if changed == Some(i) { 1000 } else { i as u64 });
        let counts: Vec<u32> = (0..FRAMES).map(|f| ((i + 5 * f) % 12) as u32).collect();
        let total = counts.iter().sum::<u32>() as usize;
        let rows = (0..FRAMES).map(|f| RowSource {
            start_frame: f as u64,
            start_seconds: f as f64 / 25.0,
            end_seconds: (f + 1) as f64 / 25.0,
            padded: false,
            scale: 1.0,
        });
        let clip = ClipRows {
            id: format!("c{i}"),
            path: format!("{i}.mp4"),
            start: None,
            end: None,
            frame_count: 75,
            fps: 25.0,
            duration_seconds: 3.0,
            fully_decoded: false,
            version: String::new(),
            rows: rows.collect(),
            values: Values::Descriptors { counts, values: Array2::from_shape_fn((total, DIM), |_| random.r#gen()) },
        };
        writer.push(clip).unwrap();
        std::fs::write(directory.path().join(format!("{i}.mp4")), "").unwrap();
        let split = ["train", "val", "test"][usize::from(i >= 14) + usize::from(i >= 17)];
        manifest.push_str(&format!("c{i},{i}.mp4,{},{split}\n", if i == 19 { "" } else { ["x", "y"][i % 2] }));
    }
    writer.push_failure(Failure {
        id: "gone".into(),
        stage: "decode".into(),
        error: "no frame".into(),
        ..Failure::default()
    });
    writer.finish().unwrap();
    std::fs::write(directory.path().join("manifest.csv"), manifest).unwrap();
    directory
}

fn codebook(directory: &Path, flags: &[&str]) -> assert_cmd::assert::Assert {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/sift.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-codebook"));
    // A child process of another test, forked while this process wrote the store, may briefly hold its lock.
    command.env("HDF5_USE_FILE_LOCKING", "FALSE");
    command.current_dir(directory).args(["--descriptors", "sift.descriptors.h5", "--manifest", "manifest.csv"]);
    command
        .args(["--out", "sift.h5", "--recipe"])
        .arg(recipe)
        .args(if flags.contains(&"--words") { &[][..] } else { &["--words", "8"] })
        .args(flags)
        .assert()
}

fn store(directory: &Path) -> FeatureStore {
    FeatureStore::open(&directory.join("sift.h5")).unwrap()
}

#[test]
fn every_frame_gets_a_histogram_of_its_keypoints() {
    let directory = workspace(None);
    codebook(directory.path(), &[]).success();
    let store = store(directory.path());
    assert_eq!(store.dim(), 8);
    let ids: Vec<String> = store.clips().iter().map(|clip| clip.id.clone()).collect();
    assert_eq!(ids, (0..20).map(|i| format!("c{i}")).collect::<Vec<_>>());
    assert!(store.clips().iter().all(|clip| clip.length == FRAMES && clip.frame_count == 75 && clip.fps == 25.0));
    assert_eq!(store.rows().unwrap()[4].start_seconds, 0.04);
    assert_eq!((store.failures().len(), store.failures()[0].id.as_str()), (1, "gone"));
    let histograms = store.features(0..20 * FRAMES).unwrap();
    let sums: Vec<usize> = histograms.sum_axis(Axis(1)).iter().map(|&sum| sum as usize).collect();
    let counts: Vec<usize> = (0..20).flat_map(|i| (0..FRAMES).map(move |f| (i + 5 * f) % 12)).collect();
    assert_eq!(sums, counts);
    assert!(sums.contains(&0), "some frame has no keypoints");
    let pooled = store.pooled(Pooling::Max).unwrap();
    let first = histograms.slice(s![..FRAMES, ..]).fold_axis(Axis(0), 0f32, |max, &count| max.max(count));
    assert_eq!(pooled.row(0), first);
    let provenance = store.provenance();
    assert_eq!((provenance.method.as_str(), provenance.weights.as_str()), ("sift", "kmeans"));
    assert!(provenance.recipe.contains(r#""words":8"#) && provenance.recipe.contains(r#""keypoints":12"#));
    assert_eq!(provenance.model_sha256.len(), 64);
    assert!(provenance.extract_seconds > 2.0);
}

#[test]
fn words_depend_on_the_training_split_only() {
    let sha256 = |changed| {
        let directory = workspace(changed);
        codebook(directory.path(), &[]).success();
        store(directory.path()).provenance().model_sha256.clone()
    };
    let base = sha256(None);
    assert_eq!(base, sha256(Some(15)), "the words depend on a validation clip");
    assert_eq!(base, sha256(Some(18)), "the words depend on a test clip");
    assert_eq!(base, sha256(Some(19)), "the words depend on an unlabeled clip");
    assert_ne!(base, sha256(Some(3)));
}

#[test]
fn flags_set_normalization_and_seed() {
    let directory = workspace(None);
    codebook(directory.path(), &["--normalize", "l1"]).success();
    let sums = store(directory.path()).features(0..20 * FRAMES).unwrap().sum_axis(Axis(1));
    assert!(sums.iter().all(|&sum| sum == 0.0 || (sum - 1.0).abs() < 1e-6));
    let first = store(directory.path()).provenance().model_sha256.clone();
    codebook(directory.path(), &["--seed", "7"]).success();
    assert_ne!(store(directory.path()).provenance().model_sha256, first);
}

#[test]
fn a_sample_of_the_training_descriptors_is_clustered() {
    let directory = workspace(None);
    let sha256 = |flags: &[&str]| {
        codebook(directory.path(), flags).success();
        store(directory.path()).provenance().model_sha256.clone()
    };
    let all = sha256(&[]);
    // 14 training clips have 3 × 77 = 231 descriptors.
    assert_eq!(sha256(&["--samples", "231"]), all);
    let sample = sha256(&["--samples", "100"]);
    assert_ne!(sample, all);
    assert_eq!(sha256(&["--samples", "100"]), sample);
    assert_ne!(sha256(&["--samples", "100", "--seed", "1"]), sample);
    let output = codebook(directory.path(), &["--samples", "100"]).success().get_output().stderr.clone();
    let message = String::from_utf8(output).unwrap();
    assert!(message.contains("100 of 231 descriptors of 14 training clips"), "{message}");
    assert!(store(directory.path()).provenance().recipe.contains(r#""samples":100"#));
}

#[test]
fn rejects_a_pyramid_of_descriptors_without_positions() {
    let directory = workspace(None);
    let output = codebook(directory.path(), &["--pyramid", "1,2"]).failure().code(1).get_output().stderr.clone();
    let message = String::from_utf8(output).unwrap();
    assert!(message.contains("codebook.pyramid applies to extractor kind dense-sift only"), "{message}");
    // A pyramid of a recipe of a dense grid does not fit the store.
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/sift-dense.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-codebook"));
    command.env("HDF5_USE_FILE_LOCKING", "FALSE").current_dir(directory.path());
    command.args([
        "--descriptors",
        "sift.descriptors.h5",
        "--manifest",
        "manifest.csv",
        "--out",
        "sift.h5",
        "--pyramid",
        "1,2",
        "--recipe",
    ]);
    let output = command.arg(recipe).assert().failure().code(1).get_output().stderr.clone();
    let message = String::from_utf8(output).unwrap();
    assert!(message.contains("its descriptors have no positions, which a pyramid needs"), "{message}");
    assert!(!directory.path().join("sift.h5").exists());
}

#[test]
fn rejects_too_little_data() {
    let directory = workspace(None);
    let error = |flags: &[&str], manifest: Option<&str>| {
        if let Some(text) = manifest {
            std::fs::write(directory.path().join("manifest.csv"), text).unwrap();
        }
        let output = codebook(directory.path(), flags).failure().code(1).get_output().stderr.clone();
        String::from_utf8(output).unwrap()
    };
    let message = error(&["--split-seed", "3"], None);
    assert!(message.contains("--split-seed does not apply: the manifest has splits"), "{message}");
    let message = error(&["--words", "5000"], None);
    assert!(message.contains("are too few for 5000 words; reduce --words"), "{message}");
    let message = error(&[], Some("id,path,label,split\nother,0.mp4,x,train\nc1,1.mp4,x,val\n"));
    assert!(message.contains("none of its 20 clips is a training clip"), "{message}");
    assert!(!directory.path().join("sift.h5").exists());
}
