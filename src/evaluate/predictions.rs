//! What was predicted for which clip, and its CSV form.
//!
//! Columns, in any order, with a header:
//!
//! | column | meaning |
//! |-|-|
//! | `id` | the clip; unique in the file |
//! | `label` | its true class; empty for an unlabelled clip |
//! | `predicted` | the predicted class; may be missing where there are scores |
//! | `split` | optional: `train`, `val` or `test` |
//! | `group` | optional: clips that belong together |
//! | `score:CLASS` | optional: one column per class, probabilities where the classifier gives them |
//!
//! With score columns, the classes are theirs, in their order; without, the classes are the sorted labels and
//! predictions. Scores may also stand in columns named by the classes alone, where at least one true or predicted label
//! has such a column. Where `predicted` is missing it is the class of the highest score, the leftmost of equal ones.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use ndarray::{Array2, Axis};

use crate::error::{Error, Result};
use crate::manifest::Split;

/// What a score column's name begins with.
const SCORE: &str = "score:";

/// The predictions for N clips over C classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Clip ids, N of them, unique.
    pub ids: Vec<String>,
    /// Clip groups, N of them; bootstrap intervals draw whole groups.
    pub groups: Vec<Option<String>>,
    /// True classes, N of them, each below C; `None` for an unlabelled clip.
    pub truth: Vec<Option<usize>>,
    /// Predicted classes, N of them, each below C.
    pub predicted: Vec<usize>,
    /// Scores, (N, C); probabilities where the classifier gives them.
    pub scores: Option<Array2<f32>>,
    /// Class names, C of them.
    pub classes: Vec<String>,
}

/// A file of predictions.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionTable {
    /// All of them, in the file's order.
    pub predictions: Predictions,
    /// The split of each, where the file says it.
    pub splits: Vec<Option<Split>>,
    /// What the user should know: unknown columns, unlabelled clips, labels that only occur as predictions.
    pub warnings: Vec<String>,
}

impl Predictions {
    /// Predicts for every clip the class of its highest score; of equal scores, the lower class index.
    ///
    /// `scores` is (N, C), where N is the length of `ids`, `groups` and `truth`, and C that of `classes`.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn from_scores(
        ids: Vec<String>,
        groups: Vec<Option<String>>,
        truth: Vec<Option<usize>>,
        scores: Array2<f32>,
        classes: Vec<String>,
    ) -> Self {
        assert_eq!(scores.dim(), (ids.len(), classes.len()), "one row of scores per clip, one column per class");
        assert_eq!((groups.len(), truth.len()), (ids.len(), ids.len()), "one group and one truth per clip");
        let predicted = scores.outer_iter().map(|row| argmax(row.iter().copied())).collect();
        Self { ids, groups, truth, predicted, scores: Some(scores), classes }
    }

    /// Number of clips N.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no clip.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The clips at `rows`, in that order.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            ids: rows.iter().map(|&i| self.ids[i].clone()).collect(),
            groups: rows.iter().map(|&i| self.groups[i].clone()).collect(),
            truth: rows.iter().map(|&i| self.truth[i]).collect(),
            predicted: rows.iter().map(|&i| self.predicted[i]).collect(),
            scores: self.scores.as_ref().map(|scores| scores.select(Axis(0), rows)),
            classes: self.classes.clone(),
        }
    }

    /// The same predictions over `classes`, which must hold every class that occurs; a class that was unknown scores 0.
    ///
    /// # Errors
    /// A true or predicted class is not among `classes`.
    pub fn over(&self, classes: &[String]) -> Result<Self> {
        let index: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let to: Vec<Option<usize>> = self.classes.iter().map(|name| index.get(name.as_str()).copied()).collect();
        let place = |class: usize| {
            to[class].ok_or_else(|| Error::Data(format!("class `{}` is not among the classes", self.classes[class])))
        };
        let scores = self.scores.as_ref().map(|scores| {
            let mut moved = Array2::zeros((self.len(), classes.len()));
            for (from, to) in to.iter().enumerate() {
                if let Some(to) = to {
                    moved.column_mut(*to).assign(&scores.column(from));
                }
            }
            moved
        });
        Ok(Self {
            ids: self.ids.clone(),
            groups: self.groups.clone(),
            truth: self.truth.iter().map(|truth| truth.map(place).transpose()).collect::<Result<_>>()?,
            predicted: self.predicted.iter().map(|&class| place(class)).collect::<Result<_>>()?,
            scores,
            classes: classes.to_vec(),
        })
    }
}

impl PredictionTable {
    /// Reads a file of predictions (see the module's head for the columns).
    ///
    /// # Errors
    /// The file cannot be read; a column is missing, or doubled; an id is empty or doubled; a label or prediction has no
    /// score column where there are score columns; a score is no finite number; a split is unknown; there is no clip, or
    /// none with a label.
    pub fn read_csv(path: &Path) -> Result<Self> {
        Reader::open(path)?.read()
    }

    /// The clips of one split.
    pub fn part(&self, split: Split) -> Predictions {
        let rows: Vec<usize> = (0..self.splits.len()).filter(|&i| self.splits[i] == Some(split)).collect();
        self.predictions.select(&rows)
    }

    /// The splits that occur.
    pub fn splits_present(&self) -> BTreeSet<Split> {
        self.splits.iter().flatten().copied().collect()
    }
}

/// The index of the highest value; of equal ones the first. Not-a-number is never the highest.
pub fn argmax(values: impl IntoIterator<Item = f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// Writes predictions as CSV, one part after the other; the parts have the same classes.
///
/// `split` and `group` are written where a part, or a clip, has one; scores where all parts have them.
///
/// # Errors
/// The file cannot be written.
pub fn write_csv(path: &Path, parts: &[(Option<Split>, &Predictions)]) -> Result<()> {
    let with_split = parts.iter().any(|(split, _)| split.is_some());
    let with_group = parts.iter().any(|(_, part)| part.groups.iter().any(Option::is_some));
    let with_scores = !parts.is_empty() && parts.iter().all(|(_, part)| part.scores.is_some());
    let mut header = vec!["id".to_string()];
    header.extend(with_split.then(|| "split".into()));
    header.extend(with_group.then(|| "group".into()));
    header.extend(["label".into(), "predicted".into()]);
    if with_scores {
        header.extend(parts[0].1.classes.iter().map(|class| format!("{SCORE}{class}")));
    }
    let mut writer = csv::Writer::from_path(path).map_err(csv_error(path))?;
    writer.write_record(&header).map_err(csv_error(path))?;
    for (split, part) in parts {
        for i in 0..part.len() {
            let mut record = vec![part.ids[i].clone()];
            record.extend(with_split.then(|| split.map(Split::name).unwrap_or_default().into()));
            record.extend(with_group.then(|| part.groups[i].clone().unwrap_or_default()));
            record.push(part.truth[i].map(|class| part.classes[class].clone()).unwrap_or_default());
            record.push(part.classes[part.predicted[i]].clone());
            if let Some(scores) = part.scores.as_ref().filter(|_| with_scores) {
                record.extend(scores.row(i).iter().map(|score| score.to_string()));
            }
            writer.write_record(&record).map_err(csv_error(path))?;
        }
    }
    writer.flush().map_err(Error::io(path))
}

/// A CSV error as an error about the file (and line).
pub(crate) fn csv_error(path: &Path) -> impl Fn(csv::Error) -> Error {
    let path = path.to_path_buf();
    move |error| {
        let line = error.position().map(|position| position.line());
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::Io { path: path.clone(), source },
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Error::Table {
                path: path.clone(),
                line,
                message: format!("{len} fields where the header has {expected_len}"),
            },
            csv::ErrorKind::Utf8 { .. } => {
                Error::Table { path: path.clone(), line, message: "not UTF-8 text; save it as UTF-8".into() }
            }
            kind => Error::Table { path: path.clone(), line, message: format!("no readable CSV: {kind:?}") },
        }
    }
}

/// One file being read: which column is which.
struct Reader<'a> {
    path: &'a Path,
    records: Vec<(u64, csv::StringRecord)>,
    id: usize,
    label: usize,
    predicted: Option<usize>,
    split: Option<usize>,
    group: Option<usize>,
    /// Class and column.
    scores: Vec<(String, usize)>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let wrong = |line: Option<u64>, message: String| Error::Table { path: path.to_path_buf(), line, message };
        let mut csv = csv::Reader::from_path(path).map_err(csv_error(path))?;
        let header: Vec<String> = csv
            .headers()
            .map_err(csv_error(path))?
            .iter()
            .map(|name| name.trim().trim_start_matches('\u{feff}').to_string())
            .collect();
        let records = csv
            .into_records()
            .map(|record| {
                record.map(|record| (record.position().map_or(0, csv::Position::line), record)).map_err(csv_error(path))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut seen = HashSet::new();
        if let Some(name) = header.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(wrong(Some(1), format!("column `{name}` stands twice")));
        }
        let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
        let needed = |name: &str| {
            column(name).ok_or_else(|| {
                let found = if header.iter().all(String::is_empty) { "nothing".into() } else { header.join(", ") };
                wrong(Some(1), format!("column `{name}` is missing; the header has {found}"))
            })
        };
        let id = needed("id")?;
        if column("labels").is_some() && column("label").is_none() {
            return Err(wrong(
                Some(1),
                "column `labels`: several labels a clip are not measured yet; give one in `label`".into(),
            ));
        }
        let label = needed("label")?;
        let (predicted, split, group) = (column("predicted"), column("split"), column("group"));
        let known: HashSet<usize> = [Some(id), Some(label), predicted, split, group].into_iter().flatten().collect();
        let (mut scores, mut others) = (Vec::new(), Vec::new());
        for (i, name) in header.iter().enumerate().filter(|(i, _)| !known.contains(i)) {
            match name.strip_prefix(SCORE) {
                Some(class) => scores.push((class.to_string(), i)),
                None => others.push((name.clone(), i)),
            }
        }
        if scores.is_empty() {
            let named = |column: usize| {
                let names: HashSet<&str> = records.iter().map(|(_, record)| record[column].trim()).collect();
                others.iter().any(|(name, _)| names.contains(name.as_str()))
            };
            if named(label) || predicted.is_some_and(named) {
                scores = std::mem::take(&mut others);
            }
        }
        if predicted.is_none() && scores.is_empty() {
            return Err(wrong(
                Some(1),
                "column `predicted` is missing and there are no scores (`score:CLASS`) to take it from".into(),
            ));
        }
        let mut warnings = Vec::new();
        if !others.is_empty() {
            let names: Vec<String> = others.iter().map(|(name, _)| format!("`{name}`")).collect();
            warnings.push(format!("columns not read: {}", names.join(", ")));
        }
        Ok(Self { path, records, id, label, predicted, split, group, scores, warnings })
    }

    fn wrong(&self, line: Option<u64>, message: impl Into<String>) -> Error {
        Error::Table { path: self.path.to_path_buf(), line, message: message.into() }
    }

    fn classes(&mut self) -> Vec<String> {
        if !self.scores.is_empty() {
            return self.scores.iter().map(|(class, _)| class.clone()).collect();
        }
        let names = |column: usize| -> BTreeSet<&str> {
            self.records.iter().map(|(_, record)| record[column].trim()).filter(|name| !name.is_empty()).collect()
        };
        let (labels, predictions) = (names(self.label), self.predicted.map(names).unwrap_or_default());
        let only_predicted: Vec<String> = predictions.difference(&labels).map(|name| format!("`{name}`")).collect();
        let classes = labels.union(&predictions).map(|name| name.to_string()).collect();
        if !only_predicted.is_empty() {
            self.warnings.push(format!(
                "predicted, but no clip's label: {} (counted as classes without clips; check the spelling)",
                only_predicted.join(", ")
            ));
        }
        classes
    }

    fn read(mut self) -> Result<PredictionTable> {
        if self.records.is_empty() {
            return Err(self.wrong(None, "no predictions: the file has no line below its header"));
        }
        let classes = self.classes();
        let index: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let n = self.records.len();
        let mut scores = Array2::<f32>::zeros((n, self.scores.len()));
        let mut predictions = Predictions {
            ids: Vec::with_capacity(n),
            groups: Vec::with_capacity(n),
            truth: Vec::with_capacity(n),
            predicted: Vec::with_capacity(n),
            scores: None,
            classes: classes.clone(),
        };
        let mut splits = Vec::with_capacity(n);
        let mut lines: HashMap<&str, u64> = HashMap::with_capacity(n);
        for (row, (line, record)) in self.records.iter().enumerate() {
            let line = *line;
            let id = record[self.id].trim();
            if id.is_empty() {
                return Err(self.wrong(Some(line), "the id is empty"));
            }
            if let Some(first) = lines.insert(id, line) {
                return Err(self.wrong(Some(line), format!("id `{id}` stands already in line {first}")));
            }
            let class = |what: &str, name: &str| {
                index.get(name).copied().ok_or_else(|| {
                    self.wrong(
                        Some(line),
                        format!("{what} `{name}` has no score column; the classes are {}", listed(&classes)),
                    )
                })
            };
            for (k, (name, column)) in self.scores.iter().enumerate() {
                let text = record[*column].trim();
                scores[[row, k]] = text.parse().ok().filter(|score: &f32| score.is_finite()).ok_or_else(|| {
                    self.wrong(Some(line), format!("the score of `{name}` is `{text}`, not a finite number"))
                })?;
            }
            let truth = match record[self.label].trim() {
                "" => None,
                name => Some(class("label", name)?),
            };
            let predicted = match self.predicted.map(|column| record[column].trim()) {
                None => argmax(scores.row(row).iter().copied()),
                Some("") => return Err(self.wrong(Some(line), "the prediction is empty")),
                Some(name) => class("prediction", name)?,
            };
            let split = match self.split.map(|column| record[column].trim()).unwrap_or_default() {
                "" => None,
                name => Some(
                    Split::parse(name)
                        .ok_or_else(|| self.wrong(Some(line), format!("split `{name}` is not train, val or test")))?,
                ),
            };
            let group = self.group.map(|column| record[column].trim()).filter(|group| !group.is_empty());
            predictions.ids.push(id.to_string());
            predictions.groups.push(group.map(String::from));
            predictions.truth.push(truth);
            predictions.predicted.push(predicted);
            splits.push(split);
        }
        let unlabelled = predictions.truth.iter().filter(|truth| truth.is_none()).count();
        if unlabelled == n {
            return Err(self.wrong(None, "no clip has a label to compare its prediction with"));
        }
        let mut warnings = self.warnings;
        if unlabelled > 0 {
            warnings.push(format!("{unlabelled} of {n} clips have no label and are not measured"));
        }
        predictions.scores = (!self.scores.is_empty()).then_some(scores);
        Ok(PredictionTable { predictions, splits, warnings })
    }
}

/// Up to eight names, and how many more there are.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(8) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn read(text: &str) -> Result<PredictionTable> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        PredictionTable::read_csv(file.path())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.csv");
        let val = Predictions::from_scores(
            names(&["a", "b, \"quoted\""]),
            vec![Some("film".into()), None],
            vec![Some(1), Some(0)],
            array![[0.25, 0.75], [1.0 / 3.0, 2.0 / 3.0]],
            names(&["cat", "dog"]),
        );
        let test = Predictions { ids: names(&["c", "d"]), ..val.clone() };
        write_csv(&path, &[(Some(Split::Val), &val), (Some(Split::Test), &test)]).unwrap();
        let table = PredictionTable::read_csv(&path).unwrap();
        assert_eq!(table.part(Split::Val), val);
        assert_eq!(table.part(Split::Test), test);
        assert_eq!(table.warnings, Vec::<String>::new());
        assert_eq!(table.splits_present(), BTreeSet::from([Split::Val, Split::Test]));
    }

    #[test]
    fn predictions_come_from_scores_where_there_are_none() {
        let table = read("\u{feff}id,label,score:b,score:a\n1,a,0.5,0.5\n2,b,0.1,0.9\n").unwrap();
        assert_eq!(table.predictions.classes, ["b", "a"]);
        assert_eq!(table.predictions.predicted, [0, 1]);
        let plain = read("id,label,dog,cat,bird\n1,cat,0.5,0.75,0\n").unwrap();
        assert_eq!(plain.predictions.classes, ["dog", "cat", "bird"]);
        assert_eq!(plain.predictions.predicted, [1]);
    }

    #[test]
    fn other_columns_are_named_and_left_out() {
        let table = read("id,note,label,predicted\n1,x,a,b\n2,,,a\n").unwrap();
        assert_eq!(table.predictions.scores, None);
        assert_eq!(table.predictions.truth, [Some(0), None]);
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
        assert_eq!((moved.truth[0], moved.predicted[0]), (Some(0), 0));
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
            ("id,labels,predicted\n1,a|b,a\n", ":1: column `labels`: several labels"),
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
}
