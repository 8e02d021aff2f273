//! Multi-label classification with the real binaries, from a store written by h5py to metrics.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{assert_code, printed, run_python};

/// Writes 240 clips with three to six rows and one to four labels, with a direction per label that is added to the rows, and
/// ten clips without a label.
const MAKE: &str = "
import sys, h5py, numpy as np
directory = sys.argv[1]
random = np.random.default_rng(4)
names = np.array(['action', 'comedy', 'drama', 'western'])
truth = random.random((250, 4)) < [0.5, 0.4, 0.3, 0.15]
truth[~truth.any(axis=1), 2] = True
lengths = random.integers(3, 7, 250)
clip = np.repeat(np.arange(250), lengths)
directions = np.linalg.qr(random.normal(size=(12, 4)))[0].T
features = truth[clip] @ directions * 3 + random.normal(size=(len(clip), 12))
with h5py.File(directory + '/made.h5', 'w') as f:
    f.attrs.update(format='kinoprobe-features', format_version=1)
    f['features'] = features.astype('f4')
    f['rows/clip'] = clip.astype('u4')
    f['clips/id'] = [f'clip{i}' for i in range(250)]
    f['clips/offset'] = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    f['clips/length'] = lengths
with open(directory + '/manifest.csv', 'w') as f:
    f.write('id,path,labels,split\\n')
    for i in range(250):
        open(f'{directory}/clip{i}.mp4', 'w').close()
        labels = '|'.join(names[truth[i]]) if i < 240 else ''
        f.write(f\"clip{i},clip{i}.mp4,{labels},{'train' if i < 150 else 'val' if i < 190 else 'test'}\\n\")
";

/// Computes the average precision of each label (step-wise) and the micro F1 at a threshold of 0.5 of the test clips from
/// predictions.csv and the manifest.
const MEASURE: &str = "
import csv, sys, numpy as np
directory, run = sys.argv[1:]
truth = {row['id']: row['labels'].split('|') for row in csv.DictReader(open(directory + '/manifest.csv')) if row['split'] == 'test' and row['labels']}
rows = [row for row in csv.DictReader(open(run + '/predictions.csv')) if row['id'] in truth]
assert len(rows) == 50
names = [column[6:] for column in rows[0] if column.startswith('score:')]
y = np.array([[name in truth[row['id']] for name in names] for row in rows])
scores = np.array([[float(row['score:' + name]) for name in names] for row in rows])
for k in range(len(names)):
    order = np.argsort(-scores[:, k], kind='stable')
    hits = y[order, k]
    ends = np.append(np.diff(scores[order, k]) != 0, True)
    precision = np.cumsum(hits)[ends] / (np.flatnonzero(ends) + 1)
    recall = np.cumsum(hits)[ends] / hits.sum()
    print((np.diff(recall, prepend=0) * precision).sum())
predicted = scores >= 0.5
print(2 * (predicted & y).sum() / (predicted.sum() + y.sum()))
";

fn kinoprobe(program: &str, directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert_code(&output, 0);
    printed(&output)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn classifiers_learn_several_labels_and_report_correct_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    run_python(MAKE, &[at]);
    let data = ["--features", "made.h5", "--manifest", "manifest.csv"];
    let quick = ["--hidden", "16", "--epochs", "40", "--batch", "16", "--patience", "40"];
    let attentive = ["--heads", "3", "--epochs", "40", "--batch", "16", "--patience", "40"];
    let transformer = [&quick[..], &["--heads", "3", "--readout", "cls", "--learning-rate", "0.002"]].concat();
    let (classify, evaluate) = (env!("CARGO_BIN_EXE_kinoprobe-classify"), env!("CARGO_BIN_EXE_kinoprobe-evaluate"));
    let map = |name: &str| {
        let metrics = json(&at.join(name).join("metrics.json"));
        assert_eq!(metrics["task"], "multi-label", "{name}");
        metrics["test"]["map"]["macro"].as_f64().unwrap()
    };
    let runs: [(&str, &[&str]); 12] = [
        ("constant", &[]),
        ("mlp", &quick),
        ("asymmetric", &["--loss", "asymmetric"]),
        ("focal", &["--loss", "focal", "--optimizer", "sgd", "--schedule", "step"]),
        ("logistic", &[]),
        ("bayes", &[]),
        ("gbdt", &[]),
        ("knn", &[]),
        ("bilstm", &quick),
        ("attentive", &attentive),
        ("transformer", &transformer),
        ("layers", &["--hidden", "32,16", "--epochs", "60", "--batch", "16", "--patience", "60"]),
    ];
    for (name, flags) in runs {
        let classifier = if ["asymmetric", "focal", "layers"].contains(&name) { "mlp" } else { name };
        let flags = [&data[..], &["--classifier", classifier, "--out", name], flags].concat();
        let text = kinoprobe(classify, at, &flags);
        assert!(text.contains("constant"), "every table has the constant baseline:\n{text}");
        // The metrics match an independent implementation, and kinoprobe-evaluate reproduces them.
        let measured = run_python(MEASURE, &[at, &at.join(name)]);
        let measured: Vec<f64> = measured.lines().map(|line| line.parse().unwrap()).collect();
        let metrics = json(&at.join(name).join("metrics.json"));
        let test = &metrics["test"];
        for (label, expected) in test["per_label"].as_array().unwrap().iter().zip(&measured) {
            let found = label["average_precision"].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-9, "{name}, {label}: {expected}");
        }
        let found = test["micro"]["f1"].as_f64().unwrap();
        assert!((found - measured[4]).abs() < 1e-9, "{name}: {found}, {}", measured[4]);
        let again = format!("{name}-again");
        kinoprobe(evaluate, at, &[&data[..], &["--model", name, "--out", &again]].concat());
        assert_eq!(json(&at.join(&again).join("metrics.json"))["test"]["map"], test["map"], "{name}");
        let submission = fs::read_to_string(at.join(name).join("submission.csv")).unwrap();
        assert_eq!((submission.lines().next(), submission.lines().count()), (Some("Id,Category"), 11), "{name}");
    }
    let constant = map("constant");
    for (name, _) in &runs[1..] {
        assert!(map(name) > constant + 0.3 && map(name) > 0.8, "{name}: {} vs. {constant}", map(name));
    }
    let report = fs::read_to_string(at.join("constant/REPORT.md")).unwrap();
    assert!(report.contains("collapsed: every clip"), "the report marks collapsed models:\n{report}");
}
