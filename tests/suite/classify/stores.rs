//! Stores of other programs, and of other recipes and networks.

use std::fs;
use std::path::Path;

use super::{Bench, QUICK, separable};
use crate::support::{assert_code, printed, run_python};

#[test]
fn models_reject_features_of_another_method() {
    let bench = Bench::new(&separable(&["a", "b"], [6, 2, 0], 4));
    assert_code(&bench.classify("out", &QUICK), 0);
    bench.store(&separable(&["a", "b"], [6, 2, 0], 5), "registry", &[]);
    let output = bench.evaluate("out");
    assert_code(&output, 1);
    assert!(printed(&output).contains("5 dimensions, but the model was fitted to 4"), "{}", printed(&output));
}

/// Writes a complete store with h5py, with format and version as the only provenance.
const FOREIGN_STORE: &str = "
import sys, h5py, numpy as np
directory = sys.argv[1]
random = np.random.default_rng(0)
labels = [['x', 'y'][i % 2] for i in range(40)]
features = (random.normal(size=(40, 8)) + np.array([3.0 * (l == 'y') for l in labels])[:, None]).astype('f4')
with h5py.File(directory + '/made.h5', 'w') as f:
    f.attrs.update(format='kinoprobe-features', format_version=1, dim=8)
    f.create_dataset('features', data=features, chunks=True, compression='gzip', shuffle=True)
    for name, values in dict(clip=np.arange(40, dtype='u4'), start_frame=np.zeros(40, 'u8'), start_seconds=np.zeros(40),
                             end_seconds=np.ones(40), padded=np.zeros(40, 'u1')).items():
        f['rows/' + name] = values
    f['clips/id'] = np.array([f'clip{i}' for i in range(40)], dtype=h5py.string_dtype())
    f['clips/path'] = np.array([f'clip{i}.mp4' for i in range(40)], dtype=h5py.string_dtype())
    for name, values in dict(offset=np.arange(40, dtype='u8'), length=np.ones(40, 'u4'), frame_count=np.ones(40, 'u8'),
                             fps=np.full(40, 25.0), duration_seconds=np.ones(40)).items():
        f['clips/' + name] = values
    f['pooled/mean'] = features
    f['pooled/max'] = features
    for name in 'id', 'stage', 'error':
        f.create_dataset('failures/' + name, (0,), dtype=h5py.string_dtype())
with open(directory + '/manifest.csv', 'w') as f:
    f.write('id,path,label\\n')
    for i, label in enumerate(labels):
        open(f'{directory}/clip{i}.mp4', 'w').close()
        f.write(f'clip{i},clip{i}.mp4,{label}\\n')
";

#[test]
fn stores_of_other_programs_are_accepted() {
    let bench = Bench { directory: tempfile::tempdir().unwrap() };
    run_python(FOREIGN_STORE, &[bench.directory.path()]);
    assert_code(&bench.classify("out", &QUICK), 0);
    let metrics = bench.metrics("out");
    assert_eq!(metrics["val"]["accuracy"], 1.0);
    assert_eq!(metrics["method"], "made", "the method defaults to the file name");
}

/// Writes a store with the required data sets only, with h5py: sequences of three to nine rows, one of which indicates the
/// class.
const MINIMAL_STORE: &str = "
import sys, h5py, numpy as np
directory = sys.argv[1]
random = np.random.default_rng(0)
labels = [['x', 'y'][i % 2] for i in range(60)]
lengths = random.integers(3, 10, 60)
offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
features = random.normal(size=(lengths.sum(), 8)).astype('f4')
for label, offset, length in zip(labels, offsets, lengths):
    features[offset + random.integers(length), :4] += 9.0 if label == 'x' else -9.0
with h5py.File(directory + '/made.h5', 'w') as f:
    f.attrs.update(format='kinoprobe-features', format_version=1)
    f['features'] = features
    f['rows/clip'] = np.repeat(np.arange(60), lengths)
    f['clips/id'] = [f'clip{i}' for i in range(60)]
    f['clips/offset'] = offsets
    f['clips/length'] = lengths
with open(directory + '/manifest.csv', 'w') as f:
    f.write('id,path,label\\n')
    for i, label in enumerate(labels):
        open(f'{directory}/clip{i}.mp4', 'w').close()
        f.write(f'clip{i},clip{i}.mp4,{label}\\n')
";

/// Prints what TensorBoard reads from the event files of a run.
const TENSORBOARD: &str = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
for part in 'train', 'val':
    events = EventAccumulator(f'{sys.argv[1]}/tensorboard/{part}')
    events.Reload()
    tags = events.Tags()
    print(part, sorted(tags['scalars']), sorted(tags['tensors']))
    print(len(events.Scalars('loss')), events.Scalars('loss')[-1].step)
    for tag in tags['tensors']:
        print(events.SummaryMetadata(tag).plugin_data.plugin_name, tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto).shape)
";

#[test]
fn bilstm_learns_from_a_minimal_store_and_a_recipe_repeats_its_run() {
    let bench = Bench { directory: tempfile::tempdir().unwrap() };
    run_python(MINIMAL_STORE, &[bench.directory.path()]);
    let quick = ["--hidden", "8", "--epochs", "30", "--batch", "8", "--patience", "30", "--split-seed", "3"];
    let flags = [&quick[..], &["--classifier", "bilstm", "--sample", "random-window", "--length", "8"]].concat();
    let output = bench.classify("out", &flags);
    assert_code(&output, 0);
    let metrics = bench.metrics("out");
    assert!(metrics["val"]["accuracy"].as_f64().unwrap() > 0.9, "{metrics}");
    assert_eq!(metrics["method"], "made");

    // Pooled features are computed from the rows.
    assert_code(&bench.classify("pooled", &[&QUICK[..], &["--pooling", "max"]].concat()), 0);

    let evaluated = bench.evaluate("out");
    assert_code(&evaluated, 0);

    let read = |file: &str| fs::read(bench.path(file)).unwrap();
    let before = read("out/predictions.csv");
    let classify = env!("CARGO_BIN_EXE_kinoprobe-classify");
    assert_code(&bench.run(classify, &["--recipe", "out/recipe.toml", "--out", "again"]), 0);
    assert!(
        before == read("again/predictions.csv") && read("out/model.safetensors") == read("again/model.safetensors")
    );
    fs::remove_file(bench.path("out/predictions.csv")).unwrap();
    assert_code(&bench.run(classify, &["--recipe", "out/recipe.toml"]), 0);
    assert!(before == read("out/predictions.csv"));
    let output = bench.run(classify, &["--out", "nothing"]);
    assert_code(&output, 2);

    let text = run_python(TENSORBOARD, &[&bench.path("out")]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["train ['accuracy', 'learning_rate', 'loss'] []", "30 30"]);
    assert_eq!(lines[2..4], ["val ['accuracy', 'loss'] ['pr/x', 'pr/y']", "30 30"]);
    assert_eq!(lines[4..], ["pr_curves (6, 201)"; 2]);
}

#[test]
fn features_of_another_recipe_or_network_are_noticed() {
    let bench = Bench::new(&separable(&["a", "b"], [8, 4, 4], 4));
    assert_code(&bench.classify("run", &["--classifier", "knn"]), 0);
    let text = printed(&bench.evaluate("run"));
    assert!(!text.contains("warning"), "{text}");
    let set = |attribute: &str, from: &str, to: &str| {
        let script = "
import h5py, sys
with h5py.File(sys.argv[1], 'a') as store:
    store.attrs[sys.argv[2]] = store.attrs[sys.argv[2]].replace(sys.argv[3], sys.argv[4])
";
        run_python(script, &[&bench.path("made.h5"), Path::new(attribute), Path::new(from), Path::new(to)]);
    };
    set("recipe", "\"batch\":1", "\"batch\":8");
    assert!(!printed(&bench.evaluate("run")).contains("warning"));
    set("recipe", "\"frames\":3", "\"frames\":2");
    let output = bench.evaluate("run");
    assert_code(&output, 0);
    let expected =
        "made.h5: extracted with other settings than the model's features: sampling.frames is 2, the model's 3";
    assert_eq!(printed(&output).matches(expected).count(), 1, "{}", printed(&output));
    set("model_sha256", "abc", "def");
    let output = bench.evaluate("run");
    assert_code(&output, 1);
    let expected = "evaluate: made.h5: computed by another network, numbers (registry weights, SHA-256 def…), than the \
                    model's features, numbers (registry weights, SHA-256 abc…)";
    assert!(printed(&output).starts_with(expected) && printed(&output).contains("--force"), "{}", printed(&output));
    let arguments =
        ["--features", "made.h5", "--manifest", "manifest.csv", "--out", "forced", "--model", "run", "--force"];
    let output = bench.run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &arguments);
    assert_code(&output, 0);
    assert!(printed(&output).contains("warning: made.h5: computed by another network"), "{}", printed(&output));
}
