use std::collections::BTreeSet;

use ndarray::array;
use proptest::prelude::*;

use super::*;
use crate::manifest::Split;

fn read(text: &str) -> Result<PredictionTable> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    PredictionTable::read_csv(file.path(), None)
}

fn read_as(text: &str, task: Task) -> Result<PredictionTable> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    PredictionTable::read_csv(file.path(), Some(task))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

#[test]
fn written_predictions_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("predictions.csv");
    let val = Predictions::from_scores(
        Task::SingleLabel,
        names(&["a", "b, \"quoted\""]),
        vec![Some("film".into()), None],
        vec![vec![1], vec![0]],
        array![[0.25, 0.75], [1.0 / 3.0, 2.0 / 3.0]],
        names(&["cat", "dog"]),
    );
    let test = Predictions { ids: names(&["c", "d"]), ..val.clone() };
    write_csv(&path, &[(Some(Split::Val), &val), (Some(Split::Test), &test)]).unwrap();
    let table = PredictionTable::read_csv(&path, None).unwrap();
    assert_eq!(table.select_split(Split::Val), val);
    assert_eq!(table.select_split(Split::Test), test);
    assert_eq!(table.warnings, Vec::<String>::new());
    assert_eq!(table.splits_present(), BTreeSet::from([Split::Val, Split::Test]));
}

#[test]
fn classes_are_predicted_from_scores() {
    let table = read("\u{feff}id,label,score:b,score:a\n1,a,0.5,0.5\n2,b,0.1,0.9\n").unwrap();
    assert_eq!(table.predictions.classes, ["b", "a"]);
    assert_eq!(table.predictions.predicted, [[0], [1]]);
    let plain = read("id,label,dog,cat,bird\n1,cat,0.5,0.75,0\n").unwrap();
    assert_eq!(plain.predictions.classes, ["dog", "cat", "bird"]);
    assert_eq!(plain.predictions.predicted, [[1]]);
}

#[test]
fn unknown_columns_are_ignored_with_a_warning() {
    let table = read("id,note,label,predicted\n1,x,a,b\n2,,,a\n").unwrap();
    assert_eq!(table.predictions.scores, None);
    assert_eq!(table.predictions.truth, [vec![0], vec![]]);
    let warnings = table.warnings.join("\n");
    for text in ["`note`", "`b`", "1 of 2 clips have no label"] {
        assert!(warnings.contains(text), "{warnings}");
    }
}

#[test]
fn with_classes_moves_scores() {
    let table = read("id,label,score:b,score:a\n1,a,0.25,0.75\n").unwrap();
    let moved = table.predictions.with_classes(&names(&["a", "b", "c"])).unwrap();
    assert_eq!(moved.scores, Some(array![[0.75, 0.25, 0.0]]));
    assert_eq!((&moved.truth[0], &moved.predicted[0]), (&vec![0], &vec![0]));
    assert!(table.predictions.with_classes(&names(&["b"])).is_err());
}

#[test]
fn errors_have_lines() {
    for (text, expected) in [
        ("", ":1: missing column `id`; the header is empty"),
        ("id,label,predicted\n", "no predictions"),
        ("clip,label,predicted\n1,a,a\n", ":1: missing column `id`; the header is clip, label, predicted"),
        ("id,predicted\n1,a\n", ":1: missing column `label`"),
        ("id,label\n1,a\n", ":1: missing column `predicted`; add it, or score columns"),
        ("id,label,label,predicted\n1,a,a,a\n", ":1: duplicate column `label`"),
        ("id,label,predicted\n1,a,a\n1,b,b\n", ":3: duplicate id `1` (first on line 2)"),
        ("id,label,predicted\n,a,a\n", ":2: empty id"),
        ("id,label,predicted\n1,a,\n", ":2: empty prediction"),
        ("id,label,predicted\n1,,a\n", "no clip has a label"),
        ("id,label,predicted\n1,a\n", ":2: 2 fields, but the header has 3"),
        ("id,label,predicted,split\n1,a,a,dev\n", ":2: unknown split `dev`; expected train, val or test"),
        ("id,label,predicted,score:a\n1,a,b,1\n", ":2: no score column for the prediction `b`; the classes are a"),
        ("id,label,score:a\n1,c,1\n", ":2: no score column for the label `c`"),
        ("id,label,score:a\n1,a,high\n", ":2: invalid score `high` of `a`; expected a finite number"),
        ("id,label,score:a\n1,a,NaN\n", ":2: invalid score `NaN` of `a`; expected a finite number"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn multi_label_predictions_are_written_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("predictions.csv");
    let val = Predictions::from_scores(
        Task::MultiLabel,
        names(&["a", "b", "c"]),
        vec![Some("film".into()), None, None],
        vec![vec![0, 2], vec![1], vec![]],
        array![[0.75, 0.5, 0.25], [0.1, 0.2, 0.3], [0.9, 0.1, 0.6]],
        names(&["drama", "war", "thriller"]),
    );
    assert_eq!(val.predicted, [vec![0, 1], vec![], vec![0, 2]]);
    write_csv(&path, &[(Some(Split::Test), &val)]).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let header = "id,split,group,labels,predicted,score:drama,score:war,score:thriller\n";
    assert!(text.starts_with(&format!("{header}a,test,film,drama|thriller,drama|war,0.75,")), "{text}");
    let table = PredictionTable::read_csv(&path, None).unwrap();
    assert_eq!(table.select_split(Split::Test), val);
    assert_eq!(table.warnings, ["1 of 3 clips have no label and are not evaluated"]);
}

#[test]
fn task_is_inferred_from_the_column_unless_given() {
    let several = read("id,labels,predicted\n1, a | b|a,b\n2,b,\n").unwrap().predictions;
    assert_eq!((several.task, &several.classes[..]), (Task::MultiLabel, &names(&["a", "b"])[..]));
    assert_eq!((several.truth, several.predicted), (vec![vec![0, 1], vec![1]], vec![vec![1], vec![]]));
    assert_eq!(read("id,label,predicted\n1,a|b,a|b\n").unwrap().predictions.classes, ["a|b"]);
    let requested = read_as("id,label,predicted\n1,a|b,a\n", Task::MultiLabel).unwrap().predictions;
    assert_eq!(requested.truth, [[0, 1]]);
    assert_eq!(read_as("id,labels,predicted\n1,a,b\n", Task::SingleLabel).unwrap().predictions.truth, [[0]]);
    let error = read_as("id,labels,predicted\n1,a|b,b\n", Task::SingleLabel).unwrap_err().to_string();
    assert!(error.contains(":2: several labels (a|b) in a single-label task"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Malformed files are errors, never panics.
    #[test]
    fn reader_does_not_panic(
        text in prop::sample::select(&[
            "id,label,predicted,split,group\n1,a,b,val,g\n2,,\"a\",,\n",
            "id,labels,predicted,score:a,score:b\n1,a|b,a,0.5,0.25\n2,b,,1e-3,0\n",
            "id,label,dog,cat\n1,cat,0.5,0.75\n",
        ][..]),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..20, prop::collection::vec(
                prop_oneof![prop::sample::select(b",|\"\r\n:eE-+\xff\x00abid".to_vec()), any::<u8>()], 0..4)),
            1..6,
        ),
        task in prop::option::of(prop_oneof![Just(Task::SingleLabel), Just(Task::MultiLabel)]),
    ) {
        let mut bytes = text.as_bytes().to_vec();
        for (position, removed, inserted) in edits {
            let start = position.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, inserted);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        if let Ok(table) = PredictionTable::read_csv(file.path(), task) {
            crate::evaluate::evaluate_splits(&std::collections::BTreeMap::from([((), table.predictions)]), ());
        }
    }
}
