use std::collections::BTreeSet;

use ndarray::array;

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
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.csv");
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
    assert_eq!(table.part(Split::Val), val);
    assert_eq!(table.part(Split::Test), test);
    assert_eq!(table.warnings, Vec::<String>::new());
    assert_eq!(table.splits_present(), BTreeSet::from([Split::Val, Split::Test]));
}

#[test]
fn predictions_come_from_scores_where_there_are_none() {
    let table = read("\u{feff}id,label,score:b,score:a\n1,a,0.5,0.5\n2,b,0.1,0.9\n").unwrap();
    assert_eq!(table.predictions.classes, ["b", "a"]);
    assert_eq!(table.predictions.predicted, [[0], [1]]);
    let plain = read("id,label,dog,cat,bird\n1,cat,0.5,0.75,0\n").unwrap();
    assert_eq!(plain.predictions.classes, ["dog", "cat", "bird"]);
    assert_eq!(plain.predictions.predicted, [[1]]);
}

#[test]
fn other_columns_are_named_and_left_out() {
    let table = read("id,note,label,predicted\n1,x,a,b\n2,,,a\n").unwrap();
    assert_eq!(table.predictions.scores, None);
    assert_eq!(table.predictions.truth, [vec![0], vec![]]);
    let warnings = table.warnings.join("\n");
    for part in ["`note`", "`b`", "1 of 2 clips have no label"] {
        assert!(warnings.contains(part), "{warnings}");
    }
}

#[test]
fn over_other_classes_the_scores_move_along() {
    let table = read("id,label,score:b,score:a\n1,a,0.25,0.75\n").unwrap();
    let moved = table.predictions.over(&names(&["a", "b", "c"])).unwrap();
    assert_eq!(moved.scores, Some(array![[0.75, 0.25, 0.0]]));
    assert_eq!((&moved.truth[0], &moved.predicted[0]), (&vec![0], &vec![0]));
    assert!(table.predictions.over(&names(&["b"])).is_err());
}

#[test]
fn wrong_files_get_a_sentence_with_the_line() {
    for (text, expected) in [
        ("", ":1: column `id` is missing; the header has nothing"),
        ("id,label,predicted\n", "no predictions"),
        ("clip,label,predicted\n1,a,a\n", ":1: column `id` is missing; the header has clip, label, predicted"),
        ("id,predicted\n1,a\n", ":1: column `label` is missing"),
        ("id,label\n1,a\n", ":1: column `predicted` is missing and there are no scores"),
        ("id,label,label,predicted\n1,a,a,a\n", ":1: column `label` stands twice"),
        ("id,label,predicted\n1,a,a\n1,b,b\n", ":3: id `1` stands already in line 2"),
        ("id,label,predicted\n,a,a\n", ":2: the id is empty"),
        ("id,label,predicted\n1,a,\n", ":2: the prediction is empty"),
        ("id,label,predicted\n1,,a\n", "no clip has a label"),
        ("id,label,predicted\n1,a\n", ":2: 2 fields where the header has 3"),
        ("id,label,predicted,split\n1,a,a,dev\n", ":2: split `dev` is not train, val or test"),
        ("id,label,predicted,score:a\n1,a,b,1\n", ":2: prediction `b` has no score column; the classes are a"),
        ("id,label,score:a\n1,c,1\n", ":2: label `c` has no score column"),
        ("id,label,score:a\n1,a,high\n", ":2: the score of `a` is `high`, not a finite number"),
        ("id,label,score:a\n1,a,NaN\n", ":2: the score of `a` is `NaN`, not a finite number"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn sets_of_labels_are_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.csv");
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
    assert_eq!(table.part(Split::Test), val);
    assert_eq!(table.warnings, ["1 of 3 clips have no label and are not measured"]);
}

#[test]
fn the_column_says_the_task_unless_the_caller_does() {
    let several = read("id,labels,predicted\n1, a | b|a,b\n2,b,\n").unwrap().predictions;
    assert_eq!((several.task, &several.classes[..]), (Task::MultiLabel, &names(&["a", "b"])[..]));
    assert_eq!((several.truth, several.predicted), (vec![vec![0, 1], vec![1]], vec![vec![1], vec![]]));
    assert_eq!(read("id,label,predicted\n1,a|b,a|b\n").unwrap().predictions.classes, ["a|b"]);
    let asked = read_as("id,label,predicted\n1,a|b,a\n", Task::MultiLabel).unwrap().predictions;
    assert_eq!(asked.truth, [[0, 1]]);
    assert_eq!(read_as("id,labels,predicted\n1,a,b\n", Task::SingleLabel).unwrap().predictions.truth, [[0]]);
    let error = read_as("id,labels,predicted\n1,a|b,b\n", Task::SingleLabel).unwrap_err().to_string();
    assert!(error.contains(":2: several labels (a|b) where one is asked for"), "{error}");
}
