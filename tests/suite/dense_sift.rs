//! Dense SIFT: comparison with OpenCV-Python and NumPy, and the two stages from images and videos to histograms.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kinoprobe::Result;
use kinoprobe::extract::dense_sift::{DenseSift, grid};
use kinoprobe::extract::descriptors::{Describer as _, DescriptorSink};
use kinoprobe::extract::{DESCRIPTOR_LEN, DenseSiftSettings, POSITION_LEN};
use kinoprobe::manifest::Clip;
use kinoprobe::media::{self, BgrImage, Frame, FrameSink, Sampling, Window};
use kinoprobe::store::{DescriptorStore, FeatureStore, Pooling, Values};
use ndarray::{Array2, Axis, s};

use crate::support::{assert_code, fixture, printed, root};

const DIM: usize = DESCRIPTOR_LEN + POSITION_LEN;

fn settings(bin_widths: &[usize]) -> DenseSiftSettings {
    DenseSiftSettings { step: 8, bin_widths: bin_widths.to_vec(), sigma: 1.6, root_sift: true, max_side: 480 }
}

/// The computed image of `tests/goldens/dense_sift.py`.
fn computed(height: usize, width: usize) -> Vec<u8> {
    let value = |y: usize, x: usize, channel: usize| {
        ((x * x * (3 + channel) + 7 * x * y + y * y * 5 + 40 * channel) / 16 % 256) as u8
    };
    (0..height).flat_map(|y| (0..width).flat_map(move |x| [0, 1, 2].map(|channel| value(y, x, channel)))).collect()
}

fn describe(dense: &mut DenseSift, height: usize, width: usize, pixels: &[u8]) -> Array2<u8> {
    let mut bytes = Vec::new();
    let count = dense.describe(BgrImage::new(height, width, pixels), &mut bytes).unwrap();
    Array2::from_shape_vec((count, DIM), bytes).unwrap()
}

/// Keeps the pixels of one frame.
struct PixelSink {
    frame: usize,
    found: Option<(usize, usize, Vec<u8>)>,
}

impl FrameSink for PixelSink {
    fn begin(&mut self, _windows: &[Window], _wanted: &[usize]) -> Result<()> {
        Ok(())
    }

    fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
        if frame.index == self.frame {
            let image = frame.image();
            self.found = Some((image.height, image.width, image.data.to_vec()));
        }
        Ok(())
    }
}

fn clip(name: &str) -> Clip {
    let file = fixture("media").join(name);
    Clip { id: name.into(), path: file.display().to_string(), file, ..Clip::default() }
}

#[test]
fn descriptors_match_opencv_python_and_numpy() {
    let golden = fs::read_to_string(fixture("media/dense_sift.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let bytes = fs::read(fixture("media/dense_sift.bin")).unwrap();
    let mut remaining = bytes.as_slice();
    let (mut values, mut different) = (0, 0);
    for case in golden["cases"].as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap_or_else(|| panic!("{case}: {key}")) as usize;
        let settings = DenseSiftSettings {
            step: number("step"),
            bin_widths: serde_json::from_value(case["bin_widths"].clone()).unwrap(),
            sigma: case["sigma"].as_f64().unwrap(),
            root_sift: case["root_sift"].as_bool().unwrap(),
            max_side: number("max_side"),
        };
        let (height, width, pixels) = match case["source"].as_str().unwrap() {
            "computed" => (number("height"), number("width"), computed(number("height"), number("width"))),
            _ => {
                let mut sink = PixelSink { frame: number("index"), found: None };
                let all = Sampling::Even { frames: usize::MAX };
                media::decode(&clip(case["name"].as_str().unwrap()), &all, &mut sink).unwrap();
                sink.found.unwrap()
            }
        };
        let found = describe(&mut DenseSift::new(settings), height, width, &pixels);
        let (expected, rest) = remaining.split_at(number("points") * DESCRIPTOR_LEN);
        remaining = rest;
        let expected = Array2::from_shape_vec((number("points"), DESCRIPTOR_LEN), expected.to_vec()).unwrap();
        let found = found.slice(s![.., ..DESCRIPTOR_LEN]);
        assert_eq!(found.dim(), expected.dim(), "{case}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.abs_diff(*expected) <= 1, "{case}: {found}, {expected}");
            (values, different) = (values + 1, different + usize::from(found != expected));
        }
    }
    assert!(remaining.is_empty());
    // Rounding, and the approximation of the arctangent that OpenCV and kinoprobe use and NumPy does not.
    assert!(500 * different <= values, "{different} of {values} values differ by one step");
}

#[test]
fn positions_are_those_of_the_grid_in_any_frame() {
    // Wider than the grid, smaller than a step, scaled down by three.
    for (height, width) in [(37, 100), (5, 3), (1, 1), (600, 1440)] {
        let mut dense = DenseSift::new(settings(&[4, 6]));
        let [scaled_height, scaled_width] = dense.scaled_size(height, width);
        let found = describe(&mut dense, height, width, &computed(height, width));
        let columns = || grid(scaled_width, 8).map(|x| (x * 256 / scaled_width) as u8);
        let points: Vec<[u8; 2]> =
            grid(scaled_height, 8).flat_map(|y| columns().map(move |x| [(y * 256 / scaled_height) as u8, x])).collect();
        let positions: Vec<[u8; 2]> = found.rows().into_iter().map(|row| [row[128], row[129]]).collect();
        assert_eq!(positions, [points.clone(), points].concat());
    }
}

#[test]
fn a_constant_image_has_zero_descriptors() {
    for (height, width) in [(64, 40), (1000, 333)] {
        let found = describe(&mut DenseSift::new(settings(&[4, 9])), height, width, &vec![200; 3 * height * width]);
        assert!(found.nrows() > 0);
        assert!(found.slice(s![.., ..DESCRIPTOR_LEN]).iter().all(|value| *value == 0));
    }
}

#[test]
fn buffers_do_not_carry_over_from_other_frames() {
    let mut dense = DenseSift::new(settings(&[4]));
    for (height, width) in [(40, 61), (90, 20), (3, 50), (600, 500), (40, 61)] {
        let pixels = computed(height, width);
        let alone = describe(&mut DenseSift::new(settings(&[4])), height, width, &pixels);
        assert_eq!(describe(&mut dense, height, width, &pixels), alone);
    }
}

#[test]
fn a_sink_returns_the_descriptors_of_each_frame_in_order() {
    let mut sink = DescriptorSink::new(Box::new(DenseSift::new(settings(&[4, 6]))));
    media::decode(&clip("plain.mp4"), &Sampling::Even { frames: 3 }, &mut sink).unwrap();
    let Values::Descriptors { counts, values } = sink.take() else { panic!("the sink returns descriptors") };
    assert_eq!(counts.len(), 3);
    assert!(counts.iter().all(|count| *count == counts[0] && *count > 0));
    assert_eq!(values.dim(), (3 * counts[0] as usize, DIM));
    assert_eq!(sink.scales(), [1.0; 3]);
}

/// A directory with images, a video, and a manifest.
fn workspace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let save = |name: &str, height: usize, width: usize, pixels: Vec<u8>| {
        let image = image::RgbImage::from_raw(width as u32, height as u32, pixels).unwrap();
        image.save(directory.path().join(name)).unwrap();
    };
    save("color.png", 80, 100, computed(80, 100));
    save("constant.png", 80, 100, vec![77; 3 * 80 * 100]);
    save("tiny.png", 3, 5, computed(3, 5));
    let gray = image::GrayImage::from_fn(90, 64, |x, y| image::Luma([(x * y % 251) as u8]));
    gray.save(directory.path().join("gray.png")).unwrap();
    fs::copy(fixture("media/plain.mp4"), directory.path().join("video.mp4")).unwrap();
    let rows = ["color.png,a,train", "gray.png,b,train", "video.mp4,a,train", "constant.png,b,test", "tiny.png,a,test"];
    let rows: String = rows.iter().map(|row| format!("{},{row}\n", &row[..row.find('.').unwrap()])).collect();
    fs::write(directory.path().join("manifest.csv"), format!("id,path,label,split\n{rows}")).unwrap();
    directory
}

fn run(program: &str, directory: &Path, arguments: &str) -> Output {
    let mut command = Command::new(program);
    // A child process of another test, forked while this process wrote a store, may briefly hold its lock.
    command.env("HDF5_USE_FILE_LOCKING", "FALSE").current_dir(directory);
    command.arg("--recipe").arg(root().join("pipelines/sift-dense.toml")).args([
        "--manifest",
        "manifest.csv",
        "--quiet",
    ]);
    command.args(arguments.split(' ')).output().unwrap()
}

fn extract(directory: &Path, arguments: &str) -> Output {
    run(env!("CARGO_BIN_EXE_kinoprobe-extract"), directory, &format!("--method sift-dense {arguments}"))
}

/// Histograms of a pyramid, which are not the recipe's features.
const PYRAMID: &str = "--encoding histogram --pyramid 1,2,4";

fn codebook(directory: &Path, arguments: &str) -> Output {
    run(env!("CARGO_BIN_EXE_kinoprobe-codebook"), directory, &format!("--descriptors d.h5 --words 16 {arguments}"))
}

#[test]
fn images_and_videos_become_histograms_over_a_pyramid() {
    let directory = workspace();
    let path = |name: &str| directory.path().join(name);
    assert_code(&extract(directory.path(), "--out d.h5 --frames 3"), 0);
    let store = DescriptorStore::open(&path("d.h5")).unwrap();
    let lengths: Vec<usize> = store.clips().iter().map(|clip| clip.length).collect();
    assert_eq!(lengths, [1, 1, 3, 1, 1]);
    let counts = store.descriptor_counts().unwrap();
    // Four bin widths for each point of the grid; the tiny image has one point.
    assert_eq!((counts[0], counts[1], counts[6]), (4 * 10 * 12, 4 * 8 * 11, 4));
    drop(store);

    assert_code(&codebook(directory.path(), &format!("--out f.h5 {PYRAMID} --normalize none")), 0);
    let store = FeatureStore::open(&path("f.h5")).unwrap();
    assert_eq!(store.dim(), 16 * (1 + 4 + 16));
    let rows = store.features(0..7).unwrap();
    let level = |first: usize, cells: usize| rows.slice(s![.., 16 * first..16 * (first + cells)]).sum_axis(Axis(1));
    // Each level counts each descriptor once. Those of the constant image are zero and have no word.
    let expected: Vec<f32> = counts.iter().enumerate().map(|(row, &n)| if row == 5 { 0.0 } else { n as f32 }).collect();
    for (first, cells) in [(0, 1), (1, 4), (5, 16)] {
        assert_eq!(level(first, cells).to_vec(), expected);
    }
    // The histogram of a video is the mean over its frames.
    let mean = rows.slice(s![2..5, ..]).mean_axis(Axis(0)).unwrap();
    let pooled = store.pooled(Pooling::Mean).unwrap();
    assert!(pooled.row(2).iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-4));
    let recipe: serde_json::Value = serde_json::from_str(&store.provenance().recipe).unwrap();
    let expected = serde_json::json!({"kind": "dense-sift", "step": 8, "bin_widths": [4, 6, 8, 10], "sigma": 1.6,
        "root_sift": true, "max_side": 480});
    assert_eq!(recipe["extractor"], expected);
    assert_eq!((&recipe["codebook"]["samples"], &recipe["codebook"]["pyramid"]), (&100_000.into(), &[1, 2, 4].into()));
    drop(store);

    for (normalize, dim) in [("power", 16 * 21), ("chi2", 3 * 16 * 21)] {
        assert_code(&codebook(directory.path(), &format!("--out {normalize}.h5 {PYRAMID} --normalize {normalize}")), 0);
        let store = FeatureStore::open(&path(&format!("{normalize}.h5"))).unwrap();
        assert_eq!(store.dim(), dim);
        let rows = store.features(0..7).unwrap();
        assert!(rows.iter().all(|value| value.is_finite()));
        for (row, values) in rows.rows().into_iter().enumerate() {
            let norm = values.dot(&values).sqrt();
            let expected = if row == 5 { 0.0..=0.0 } else { 0.93..=1.00001 };
            assert!(expected.contains(&norm), "{normalize}, row {row}: {norm}");
        }
    }
}

#[test]
fn fisher_vectors_have_the_moments_of_each_word() {
    let directory = workspace();
    assert_code(&extract(directory.path(), "--out d.h5 --frames 3"), 0);
    let flags = "--encoding fisher --components 5 --pyramid 1,2";
    for normalize in ["none", "power"] {
        assert_code(&codebook(directory.path(), &format!("--out {normalize}.h5 {flags} --normalize {normalize}")), 0);
    }
    let [sums, power] =
        ["none", "power"].map(|name| FeatureStore::open(&directory.path().join(format!("{name}.h5"))).unwrap());
    let word = 2 * 5;
    assert_eq!((sums.dim(), power.dim()), (16 * word * 5, 16 * word * 5));
    // The sums over the four quarters are those of the frame. The constant image has no word.
    let rows = sums.features(0..7).unwrap();
    let cell = |cell: usize| rows.slice(s![.., 16 * word * cell..16 * word * (cell + 1)]);
    let quarters = (2..5).fold(cell(1).to_owned(), |sum, quarter| sum + cell(quarter));
    for (whole, sum) in cell(0).iter().zip(&quarters) {
        assert!((whole - sum).abs() <= 1e-3 * (1.0 + whole.abs()), "{whole}, {sum}");
    }
    assert!(rows.row(5).iter().all(|&value| value == 0.0));
    for (row, values) in power.features(0..7).unwrap().rows().into_iter().enumerate() {
        let root = rows.row(row).mapv(|value| value.abs().sqrt().copysign(value));
        let norm = root.dot(&root).sqrt().max(f32::MIN_POSITIVE);
        assert!(values.iter().zip(&root).all(|(value, root)| (value - root / norm).abs() < 1e-5), "row {row}");
    }
    let recipe: serde_json::Value = serde_json::from_str(&power.provenance().recipe).unwrap();
    assert_eq!((&recipe["codebook"]["encoding"], &recipe["codebook"]["components"]), (&"fisher".into(), &5.into()));
    let output = codebook(directory.path(), "--out chi2.h5 --encoding fisher --normalize chi2");
    assert_code(&output, 1);
    let expected = "codebook.normalize must be none, l2 or power for codebook.encoding = \"fisher\"";
    assert!(printed(&output).contains(expected), "{}", printed(&output));
}

#[test]
fn stores_do_not_depend_on_the_number_of_threads() {
    let directory = workspace();
    for threads in ["1", "3"] {
        assert_code(&extract(directory.path(), &format!("--out d.h5 --frames 4 --workers {threads}")), 0);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-codebook"));
        command.env("HDF5_USE_FILE_LOCKING", "FALSE").env("RAYON_NUM_THREADS", threads).current_dir(directory.path());
        command.arg("--recipe").arg(root().join("pipelines/sift-dense.toml"));
        command.args(["--manifest", "manifest.csv", "--descriptors", "d.h5", "--words", "20", "--samples", "2000"]);
        assert_code(&command.args(["--out", &format!("f{threads}.h5")]).output().unwrap(), 0);
        fs::rename(directory.path().join("d.h5"), directory.path().join(format!("d{threads}.h5"))).unwrap();
    }
    let [one, three] = ["d1.h5", "d3.h5"].map(|name| DescriptorStore::open(&directory.path().join(name)).unwrap());
    let total = one.descriptor_counts().unwrap().iter().sum::<u32>() as usize;
    assert_eq!(one.descriptors(0..total).unwrap(), three.descriptors(0..total).unwrap());
    let [one, three] = ["f1.h5", "f3.h5"].map(|name| FeatureStore::open(&directory.path().join(name)).unwrap());
    assert_eq!(one.features(0..8).unwrap(), three.features(0..8).unwrap());
    assert_eq!(one.provenance().model_sha256, three.provenance().model_sha256);
}

#[test]
fn other_settings_refuse_the_store() {
    let directory = workspace();
    assert_code(&extract(directory.path(), "--out d.h5"), 0);
    assert_code(&extract(directory.path(), "--out d.h5"), 0);
    for flags in ["--step 7", "--bin-widths 4,6", "--sigma 2", "--root-sift false", "--max-side 300"] {
        let output = extract(directory.path(), &format!("--out d.h5 {flags}"));
        assert_code(&output, 1);
        assert!(printed(&output).contains("made with other settings"), "{flags}: {}", printed(&output));
    }
    for (flags, expected) in [
        ("--keypoints 3", "--keypoints does not apply"),
        ("--weights seeded", "--weights does not apply to sift-dense: its extractor is dense-sift, not a network"),
        ("--sigma 1e9", "extractor.sigma must be from 0 to 64 pixels"),
    ] {
        let output = extract(directory.path(), &format!("--out other.h5 {flags}"));
        assert_code(&output, 1);
        assert!(printed(&output).contains(expected), "{flags}: {}", printed(&output));
    }
    let output = codebook(directory.path(), "--out f.h5 --samples 15");
    assert_code(&output, 1);
    assert!(printed(&output).contains("codebook.samples must be at least codebook.words"), "{}", printed(&output));
    assert!(!directory.path().join("f.h5").exists());
}
