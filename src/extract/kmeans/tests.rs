use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_clustering::KMeansInit;
use ndarray::{Array2, ArrayView2, Axis, array, s};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{Clusters, KMeans, assign};

/// `per` rows of 16 bytes around each of `centers` random points. Rows of a center are consecutive.
fn blobs(centers: usize, per: usize, spread: f32, seed: u64) -> Array2<u8> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let points = Array2::from_shape_fn((centers, 16), |_| rng.gen_range(40.0..200.0f32));
    Array2::from_shape_fn((centers * per, 16), |(row, column)| {
        (points[[row / per, column]] + rng.gen_range(-spread..spread)) as u8
    })
}

fn settings(clusters: usize) -> KMeans {
    KMeans { clusters, max_iterations: 300, tolerance: 1e-4, seed: 0 }
}

fn threads(count: usize, body: impl FnOnce() -> Clusters + Send) -> Clusters {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap().install(body)
}

/// Checks that labels are nearest centers and that the inertia matches them.
fn check(data: ArrayView2<'_, u8>, found: &Clusters) {
    let distance = |row: usize, cluster: usize| -> f64 {
        let pairs = data.row(row).into_iter().zip(found.centroids.row(cluster)).map(|(&x, &c)| (f64::from(x), c));
        pairs.map(|(x, c)| (x - f64::from(c)).powi(2)).sum()
    };
    let mut inertia = 0.0;
    for (row, &label) in found.labels.iter().enumerate() {
        let own = distance(row, label as usize);
        for cluster in 0..found.centroids.nrows() {
            assert!(own <= distance(row, cluster) * (1.0 + 1e-6) + 1e-2, "row {row} is closer to {cluster}");
        }
        inertia += own;
    }
    assert!((found.inertia / inertia - 1.0).abs() < 1e-5, "{} {inertia}", found.inertia);
}

#[test]
fn finds_separate_blobs() {
    let data = blobs(12, 500, 6.0, 1);
    let found = settings(12).fit(data.view()).unwrap();
    check(data.view(), &found);
    for blob in found.labels.chunks(500) {
        assert!(blob.iter().all(|label| label == &blob[0]), "a blob is split");
    }
    let mean = data.slice(s![..500, ..]).mapv(f32::from).mean_axis(Axis(0)).unwrap();
    let center = found.centroids.row(found.labels[0] as usize);
    assert!(mean.iter().zip(center).all(|(a, b)| (a - b).abs() < 1e-3));
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let data = blobs(40, 211, 60.0, 2);
    let scaled = data.mapv(|value| f32::from(value) * 1.1);
    let bytes = threads(1, || settings(25).fit(data.view()).unwrap());
    let floats = threads(1, || settings(25).fit(scaled.view()).unwrap());
    check(data.view(), &bytes);
    for count in [2, 3, 7] {
        assert_eq!(threads(count, || settings(25).fit(data.view()).unwrap()), bytes);
        assert_eq!(threads(count, || settings(25).fit(scaled.view()).unwrap()), floats);
    }
    assert_ne!(KMeans { seed: 1, ..settings(25) }.fit(data.view()).unwrap().centroids, bytes.centroids);
}

#[test]
fn agrees_with_linfa_from_the_same_start() {
    let data = blobs(9, 300, 80.0, 3);
    let start = data.slice(s![..;300, ..]).mapv(f32::from);
    let ours = KMeans { tolerance: 0.0, ..settings(9) }.fit_from(data.view(), start.clone()).unwrap();
    let records = DatasetBase::from(data.mapv(f64::from));
    let theirs = linfa_clustering::KMeans::params(9)
        .init_method(KMeansInit::Precomputed(start.mapv(f64::from)))
        .n_runs(1)
        .max_n_iterations(300)
        .tolerance(1e-9)
        .fit(&records)
        .unwrap();
    let difference = ours.centroids.iter().zip(theirs.centroids()).map(|(a, b)| (f64::from(*a) - b).abs());
    assert!(difference.fold(0.0, f64::max) < 1e-3);
    // linfa's inertia is the mean.
    assert!((ours.inertia / data.nrows() as f64 / theirs.inertia() - 1.0).abs() < 1e-4);
}

#[test]
fn an_empty_cluster_gets_the_farthest_row() {
    let data: Array2<u8> = array![[0, 0], [2, 0], [100, 0], [103, 0], [200, 90], [102, 0]];
    let start = array![[1f32, 0.0], [101.0, 0.0], [250.0, 250.0], [255.0, 255.0]];
    // No row is nearest to the last center; row 4 is nearest to the third.
    let found = settings(4).fit_from(data.view(), start).unwrap();
    check(data.view(), &found);
    let mut used = found.labels.clone();
    used.sort();
    used.dedup();
    assert_eq!(used, [0, 1, 2, 3]);
}

#[test]
fn terminates_with_fewer_distinct_rows_than_centers() {
    let data = Array2::from_shape_fn((50, 3), |(row, _)| (row % 2) as u8 * 200);
    let found = settings(5).fit(data.view()).unwrap();
    assert_eq!(found.inertia, 0.0);
    assert!(found.centroids.iter().all(|value| value.is_finite()));
}

#[test]
fn rejects_invalid_data() {
    let message = settings(5).fit(Array2::<u8>::zeros((4, 3)).view()).unwrap_err().to_string();
    assert!(message.contains("4 rows are too few for 5 clusters"), "{message}");
    assert!(settings(0).fit(Array2::<u8>::zeros((4, 3)).view()).is_err());
    assert!(settings(1).fit(array![[f32::NAN]].view()).is_err());
    assert!(settings(2).fit_from(Array2::<u8>::zeros((4, 3)).view(), Array2::zeros((2, 2))).is_err());
}

#[test]
fn assigns_the_first_center_in_case_of_ties() {
    let centers = array![[0f32, 0.0], [10.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
    let rows: Array2<u8> = array![[5, 0], [10, 0], [11, 1], [1, 9], [0, 0]];
    assert_eq!(assign(rows.view(), &centers), [0, 1, 1, 3, 0]);
    assert_eq!(assign(Array2::<u8>::zeros((0, 2)).view(), &centers), [0u32; 0]);
    // A view without standard layout.
    let transposed = rows.t().to_owned();
    assert_eq!(assign(transposed.t(), &centers), [0, 1, 1, 3, 0]);
}

/// scikit-learn from the same centers: `tests/goldens/kmeans.py`.
#[test]
fn agrees_with_scikit_learn_from_the_same_start() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/kmeans.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let raw = |name: String| {
        let tensor = tensors.tensor(&name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    };
    let floats = |name: String| -> Array2<f32> {
        let (shape, data) = raw(name);
        let values = data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    };
    let doubles = |name: String| f64::from_le_bytes(raw(name).1.try_into().unwrap());
    let integers = |name: String| -> Vec<u32> {
        raw(name).1.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    for case in ["overlapping", "stopped", "empty"] {
        let (shape, data) = raw(format!("{case}.data"));
        let data = Array2::from_shape_vec((shape[0], shape[1]), data).unwrap();
        let start = floats(format!("{case}.start"));
        let tolerance = doubles(format!("{case}.tolerance"));
        let found = KMeans { tolerance, ..settings(start.nrows()) }.fit_from(data.view(), start).unwrap();
        assert_eq!(found.labels, integers(format!("{case}.labels")), "{case}");
        assert_eq!([found.iterations as u32], integers(format!("{case}.iterations"))[..], "{case}");
        let expected = floats(format!("{case}.centroids"));
        let off =
            found.centroids.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
        assert!(off < 1e-4, "{case}: centers are off by {off}");
        let inertia = doubles(format!("{case}.inertia"));
        assert!((found.inertia / inertia - 1.0).abs() < 1e-5, "{case}: {} {inertia}", found.inertia);
    }
}
