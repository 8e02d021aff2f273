//! Peak memory of classification.

use std::fs;
use std::path::Path;

use super::Bench;
use crate::support::{peak_memory, run_python};

/// Writes an uncompressed store of sys.argv[2] clips with sys.argv[3] rows of sys.argv[4] features, and its manifest.
const STORE: &str = "
import sys, h5py, numpy as np
directory, (clips, length, dim) = sys.argv[1], map(int, sys.argv[2:])
random = np.random.default_rng(0)
classes = np.arange(clips) % 5
with h5py.File(directory + '/made.h5', 'w') as f:
    f.attrs.update(format='kinoprobe-features', format_version=1)
    features = f.create_dataset('features', (clips * length, dim), 'f4')
    for start in range(0, clips, 50):
        part = classes[start:start + 50]
        values = random.standard_normal((len(part), length, dim), dtype='f4') + part[:, None, None]
        features[start * length:(start + len(part)) * length] = values.reshape(-1, dim)
    if length == 1:
        f['pooled/mean'] = features
    f['rows/clip'] = np.repeat(np.arange(clips), length)
    f['clips/id'] = [f'clip{i}' for i in range(clips)]
    f['clips/offset'] = np.arange(clips) * length
    f['clips/length'] = np.full(clips, length)
with open(directory + '/manifest.csv', 'w') as f:
    f.write('id,path,label,split\\n')
    for i, c in enumerate(classes):
        f.write(f'clip{i},clip{i}.mp4,class{c},{dict(enumerate((\"val\", \"test\"))).get(i // 5 % 100, \"train\")}\\n')
";

fn bench(clips: usize, length: usize, dim: usize) -> Bench {
    let bench = Bench { directory: tempfile::tempdir().unwrap() };
    let sizes = [clips, length, dim].map(|size| size.to_string());
    let mut arguments = vec![bench.directory.path()];
    arguments.extend(sizes.iter().map(Path::new));
    run_python(STORE, &arguments);
    bench
}

/// Runs kinoprobe-classify and returns its peak memory in MiB.
fn peak(bench: &Bench, out: &str, flags: &str) -> u64 {
    let [store, manifest, out] = ["made.h5", "manifest.csv", out].map(|name| bench.path(name));
    let mut arguments = vec![Path::new("--features"), &store, Path::new("--manifest"), &manifest];
    arguments.extend([Path::new("--out"), &out]);
    arguments.extend(flags.split(' ').map(Path::new));
    peak_memory(env!("CARGO_BIN_EXE_kinoprobe-classify"), &arguments)
}

#[test]
fn sequences_larger_than_the_budget_are_read_in_parts() {
    let bench = bench(400, 100, 512);
    let flags = "--classifier bilstm --hidden 4 --length 6 --epochs 2 --batch 8 --threads 1";
    let whole = peak(&bench, "whole", flags);
    let parts = peak(&bench, "parts", &format!("{flags} --memory 4M"));
    // The features have 78 MiB.
    assert!(parts + 55 < whole, "{parts} and {whole} MiB");
    for file in ["model.safetensors", "predictions.csv"] {
        let read = |run: &str| fs::read(bench.path(run).join(file)).unwrap();
        assert!(read("whole") == read("parts"), "{file}");
    }
}

#[test]
fn classifiers_copy_the_features_at_most_once() {
    let small = peak(&bench(40, 1, 16), "small", "--classifier constant");
    let bench = bench(40_000, 1, 256);
    let constant = peak(&bench, "out", "--classifier constant");
    // The features have 39 MiB, and the clips of the store, the manifest and the data set almost as much. The constant classifier does
    // not copy the features; the page of the run centers them for the search of similar clips.
    assert!(constant - small < 140, "{constant} and {small} MiB");
    for (flags, more) in [
        ("--classifier mlp --hidden 8 --epochs 1", 20),
        ("--classifier logistic --max-iterations 3", 55),
        ("--classifier svm --max-iterations 3", 55),
        // The predictions of all clips.
        ("--classifier logistic --max-iterations 3 --folds 2", 95),
        // The model is the features, which its files share.
        ("--classifier knn", 30),
    ] {
        let peak = peak(&bench, "out", flags);
        assert!(peak < constant + more, "{flags}: {peak} MiB, constant {constant} MiB");
    }
}
