//! Files of features that are truncated or mutated: reading them neither panics nor allocates what they declare.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ndarray::Array2;
use proptest::prelude::*;
use proptest::sample::Index;

use super::export::{ExportOptions, Format, export};
use super::{Kind, open};
use crate::store::byte_mutation::ByteMutation;
use crate::store::{ClipRows, FeatureStore, Payload, Pooling, Provenance, RowSource, StoreWriter, Values};

/// Extension and contents of valid files.
static FILES: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("x.h5");
    let mut writer = StoreWriter::create(&store, Payload::Features { dim: 3 }, &Provenance::default()).unwrap();
    for id in ["a", "b", "c"] {
        let row = RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 0.5, padded: false, scale: 1.0 };
        let values = Values::Features(Array2::from_shape_fn((2, 3), |(i, j)| i as f32 - j as f32));
        let clip = ClipRows {
            id: id.into(),
            path: id.into(),
            start: None,
            end: None,
            frame_count: 0,
            fps: 0.0,
            duration_seconds: 0.0,
            fully_decoded: false,
            version: String::new(),
            rows: vec![row; 2],
            values,
        };
        writer.push(clip).unwrap();
    }
    writer.finish().unwrap();
    let store = FeatureStore::open(&store).unwrap();
    let exported = |format, name: &str| {
        let options = ExportOptions { format, pooling: Pooling::None, manifest: None };
        export(&store, &options, directory.path()).unwrap();
        std::fs::read(directory.path().join(name)).unwrap()
    };
    let npy = exported(Format::Npy, "features.npy");
    let mut npz = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, method) in [("x.npy", zip::CompressionMethod::Stored), ("y.npy", zip::CompressionMethod::Deflated)] {
        npz.start_file(name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        npz.write_all(&npy).unwrap();
    }
    let fixture = |name: &str| std::fs::read(PathBuf::from("fixtures/features").join(name)).unwrap();
    vec![
        ("npy", npy),
        ("npz", npz.finish().unwrap().into_inner()),
        ("parquet", exported(Format::Parquet, "features.parquet")),
        ("csv", exported(Format::Csv, "features.csv")),
        ("mat", fixture("rows.mat")),
        ("mat", fixture("columns.mat")),
        ("mat", fixture("matlab/testmatrix_6.1_SOL2.mat")),
        ("pt", fixture("named.pt")),
        ("pt", fixture("legacy.pt")),
    ]
});

#[derive(Debug, Clone)]
enum Mutation {
    Bytes(ByteMutation),
    /// Replaces a digit, such as of a shape in text.
    SetDigits(Index, u64),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let length =
        prop_oneof![Just(u64::MAX), Just(u64::from(u32::MAX)), Just(1 << 31), Just(1 << 40), 0..512u64, any::<u64>()];
    prop_oneof![
        5 => ByteMutation::any(length.clone()).prop_map(Mutation::Bytes),
        1 => (any::<Index>(), length).prop_map(|(at, n)| Mutation::SetDigits(at, n)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    match mutation {
        Mutation::Bytes(mutation) => mutation.apply(bytes),
        Mutation::SetDigits(at, number) => {
            let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
            if !digits.is_empty() {
                let at = digits[at.index(digits.len())];
                bytes.splice(at..=at, number.to_string().bytes());
            }
        }
    }
}

/// Reads all variables of a file. Returns the number of values and strings.
fn read_all(extension: &str, bytes: &[u8], directory: &Path) -> Result<usize, String> {
    let path = directory.join("file").with_extension(extension);
    std::fs::write(&path, bytes).unwrap();
    let mut file = open(&path).map_err(|error| error.to_string())?;
    let kinds: Vec<Kind> = file.variables().iter().map(|variable| variable.kind.clone()).collect();
    let mut count = 0;
    for (i, kind) in kinds.iter().enumerate() {
        count += match kind {
            Kind::Numbers(_) => file.numbers(i)?.len(),
            Kind::Texts(_) => file.texts(i)?.len(),
            Kind::Other(_) => 0,
        };
    }
    Ok(count)
}

#[test]
fn valid_files_are_read_and_prefixes_are_not() {
    let directory = tempfile::tempdir().unwrap();
    for (extension, bytes) in FILES.iter() {
        assert!(read_all(extension, bytes, directory.path()).unwrap() > 0, "{extension}");
        // A prefix of a CSV file may be a CSV file.
        for length in (0..bytes.len()).step_by(7).filter(|_| *extension != "csv") {
            let result = read_all(extension, &bytes[..length], directory.path());
            // A prefix of a MATLAB file may end between two variables.
            assert!(result.is_err() || *extension == "mat", "{extension}, {length} of {} bytes", bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn mutated_files_do_not_panic(file in any::<Index>(), mutations in prop::collection::vec(mutation(), 1..4)) {
        let (extension, bytes) = file.get(&FILES);
        let mut bytes = bytes.clone();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        let directory = tempfile::tempdir().unwrap();
        if let Ok(count) = read_all(extension, &bytes, directory.path()) {
            // Deflate makes at most 1032 bytes of one.
            prop_assert!(count <= bytes.len() * 1032, "{} values", count);
        }
    }
}
