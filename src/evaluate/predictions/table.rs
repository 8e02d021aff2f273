//! Predictions as CSV.
//!
//! Columns, in any order, with a header:
//!
//! | column | meaning |
//! |-|-|
//! | `id` | the clip; unique in the file |
//! | `label` | its true class; empty for an unlabeled clip |
//! | `labels` | in place of `label` where a clip may have several: the true classes, `|` between them |
//! | `predicted` | the predicted class, or classes with `|` between; may be missing where there are scores |
//! | `split` | optional: `train`, `val` or `test` |
//! | `group` | optional: clips that belong together |
//! | `score:CLASS` | optional: one column per class, probabilities where the classifier gives them |
//!
//! With score columns, the classes are theirs, in their order; without, the classes are the sorted labels and
//! predictions. Scores may also stand in columns named by the classes alone, where at least one true or predicted label
//! has such a column. Where `predicted` is missing, scores decide as in [`Predictions::from_scores`].

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use ndarray::Array2;

use super::{LABEL_SEPARATOR, Predictions, decide};
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::manifest::Split;

/// What a score column's name begins with.
const SCORE: &str = "score:";

/// A file of predictions.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionTable {
    /// All of them, in the file's order.
    pub predictions: Predictions,
    /// The split of each, where the file says it.
    pub splits: Vec<Option<Split>>,
    /// What the user should know: unknown columns, unlabeled clips, labels that only occur as predictions.
    pub warnings: Vec<String>,
}

impl PredictionTable {
    /// Reads a file of predictions (see the module's head for the columns). Where `task` is not given, a column `label`
    /// means one label a clip, and a column `labels` several.
    ///
    /// # Errors
    /// The file cannot be read; a column is missing, or doubled; an id is empty or doubled; a label or prediction has no
    /// score column where there are score columns; a score is no finite number; a split is unknown; a clip has several
    /// labels where the task allows one; there is no clip, or none with a label.
    pub fn read_csv(path: &Path, task: Option<Task>) -> Result<Self> {
        Reader::open(path, task)?.read()
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
    let task = parts.first().map_or(Task::SingleLabel, |(_, part)| part.task);
    header.extend([label_column(task).into(), "predicted".into()]);
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
            record.extend([part.names(&part.truth[i]), part.names(&part.predicted[i])]);
            if let Some(scores) = part.scores.as_ref().filter(|_| with_scores) {
                record.extend(scores.row(i).iter().map(|score| score.to_string()));
            }
            writer.write_record(&record).map_err(csv_error(path))?;
        }
    }
    writer.flush().map_err(Error::io(path))
}

/// The column that holds the truth.
fn label_column(task: Task) -> &'static str {
    match task {
        Task::SingleLabel => "label",
        Task::MultiLabel => "labels",
    }
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
    task: Task,
    records: Vec<(u64, csv::StringRecord)>,
    id: usize,
    label: usize,
    /// Whether the column of labels is the one for several.
    sets: bool,
    predicted: Option<usize>,
    split: Option<usize>,
    group: Option<usize>,
    /// Class and column.
    scores: Vec<(String, usize)>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path, task: Option<Task>) -> Result<Self> {
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
        let task = task.unwrap_or(match (column("label"), column("labels")) {
            (None, Some(_)) => Task::MultiLabel,
            _ => Task::SingleLabel,
        });
        // The task's own column first; a task that was asked for reads the other one too.
        let label = match task {
            Task::SingleLabel => column("label").or(column("labels")),
            Task::MultiLabel => column("labels").or(column("label")),
        };
        let label = label.map_or_else(|| needed(label_column(task)), Ok)?;
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
                let names: HashSet<&str> =
                    records.iter().flat_map(|(_, record)| names(task, &record[column])).collect();
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
        let sets = Some(label) == column(label_column(Task::MultiLabel));
        Ok(Self { path, task, records, id, label, sets, predicted, split, group, scores, warnings })
    }

    fn wrong(&self, line: Option<u64>, message: impl Into<String>) -> Error {
        Error::Table { path: self.path.to_path_buf(), line, message: message.into() }
    }

    fn classes(&mut self) -> Vec<String> {
        if !self.scores.is_empty() {
            return self.scores.iter().map(|(class, _)| class.clone()).collect();
        }
        let occurring = |column: usize| -> BTreeSet<&str> {
            self.records.iter().flat_map(|(_, record)| names(self.task, &record[column])).collect()
        };
        let (labels, predictions) = (occurring(self.label), self.predicted.map(occurring).unwrap_or_default());
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
            task: self.task,
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
            let set = |what: &str, text: &str| -> Result<Vec<usize>> {
                let class = |name: &str| {
                    index.get(name).copied().ok_or_else(|| {
                        self.wrong(
                            Some(line),
                            format!("{what} `{name}` has no score column; the classes are {}", listed(&classes)),
                        )
                    })
                };
                names(self.task, text).into_iter().map(class).collect::<Result<BTreeSet<_>>>().map(Vec::from_iter)
            };
            for (k, (name, column)) in self.scores.iter().enumerate() {
                let text = record[*column].trim();
                scores[[row, k]] = text.parse().ok().filter(|score: &f32| score.is_finite()).ok_or_else(|| {
                    self.wrong(Some(line), format!("the score of `{name}` is `{text}`, not a finite number"))
                })?;
            }
            if self.task == Task::SingleLabel && self.sets && record[self.label].contains(LABEL_SEPARATOR) {
                let message = format!("several labels ({}) where one is asked for", &record[self.label]);
                return Err(self.wrong(Some(line), message));
            }
            let truth = set("label", &record[self.label])?;
            let predicted = match self.predicted.map(|column| record[column].trim()) {
                None => decide(self.task, scores.row(row)),
                Some("") if self.task == Task::SingleLabel => {
                    return Err(self.wrong(Some(line), "the prediction is empty"));
                }
                Some(text) => set("prediction", text)?,
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
        let unlabeled = predictions.truth.iter().filter(|truth| truth.is_empty()).count();
        if unlabeled == n {
            return Err(self.wrong(None, "no clip has a label to compare its prediction with"));
        }
        let mut warnings = self.warnings;
        if unlabeled > 0 {
            warnings.push(format!("{unlabeled} of {n} clips have no label and are not measured"));
        }
        predictions.scores = (!self.scores.is_empty()).then_some(scores);
        Ok(PredictionTable { predictions, splits, warnings })
    }
}

/// The names in a cell: none where it is empty, several only where the task allows several.
fn names(task: Task, cell: &str) -> Vec<&str> {
    let parts: Vec<&str> = match task {
        Task::SingleLabel => vec![cell],
        Task::MultiLabel => cell.split(LABEL_SEPARATOR).collect(),
    };
    parts.into_iter().map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// Up to eight names, and how many more there are.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(8) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
