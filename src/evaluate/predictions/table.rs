//! Predictions as CSV.
//!
//! The columns may be in any order; the first row is the header:
//!
//! | column | value |
//! |-|-|
//! | `id` | id of the clip, unique in the file |
//! | `label` | true class; empty for an unlabeled clip |
//! | `labels` | for multi-label tasks, instead of `label`: the true classes, separated by `\|` |
//! | `predicted` | predicted class, or classes separated by `\|`; optional if there are scores |
//! | `split` | optional: `train`, `val` or `test` |
//! | `group` | optional: group of the clip |
//! | `score:CLASS` | optional: the score of a class; probabilities if the classifier computes them |
//!
//! With score columns, the classes are those of the columns, in their order; otherwise, the sorted labels and predictions.
//! The prefix `score:` may be missing if a column is named like a true or predicted class. Without `predicted`, the classes
//! are predicted from the scores ([`Predictions::from_scores`]).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use ndarray::Array2;

pub(crate) use super::LABEL_SEPARATOR;
use super::{Predictions, predict_classes};
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::manifest::{Split, normalize_label};
use crate::suggest::did_you_mean;

/// Prefix of score columns.
pub(crate) const SCORE_PREFIX: &str = "score:";
/// Number of classes that messages list.
const MAX_SHOWN: usize = 8;

/// The predictions of a CSV file.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionTable {
    /// All predictions, in the order of the file.
    pub predictions: Predictions,
    /// The split of each clip, if the file has it.
    pub splits: Vec<Option<Split>>,
    /// Warnings for the user: ignored columns, unlabeled clips, labels that occur only as predictions.
    pub warnings: Vec<String>,
}

impl PredictionTable {
    /// Reads a CSV file with the columns of [this module](self). Without `task`, a column `label` means single-label and a
    /// column `labels` multi-label.
    ///
    /// # Errors
    /// Returns an error with the line if the file cannot be read, a column is missing or duplicate, an id is empty or not
    /// unique, a label or prediction has no score column although there are score columns, a score is not finite, a split
    /// is unknown, a clip of a single-label task has several labels, or no clip has a label.
    pub fn read_csv(path: &Path, task: Option<Task>) -> Result<Self> {
        Reader::open(path, task)?.read()
    }

    /// Selects the clips of a split.
    pub fn select_split(&self, split: Split) -> Predictions {
        let rows: Vec<usize> = (0..self.splits.len()).filter(|&i| self.splits[i] == Some(split)).collect();
        self.predictions.select(&rows)
    }

    /// Returns the splits that occur.
    pub fn splits_present(&self) -> BTreeSet<Split> {
        self.splits.iter().flatten().copied().collect()
    }
}

/// Writes predictions as CSV, one split after the other; all have the same classes.
///
/// The columns `split` and `group` are written if a split or group is known, scores if all predictions have them.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_csv(path: &Path, splits: &[(Option<Split>, &Predictions)]) -> Result<()> {
    let with_split = splits.iter().any(|(split, _)| split.is_some());
    let with_group = splits.iter().any(|(_, predictions)| predictions.groups.iter().any(Option::is_some));
    let with_scores = !splits.is_empty() && splits.iter().all(|(_, predictions)| predictions.scores.is_some());
    let mut header = vec!["id".to_string()];
    header.extend(with_split.then(|| "split".into()));
    header.extend(with_group.then(|| "group".into()));
    let task = splits.first().map_or(Task::SingleLabel, |(_, predictions)| predictions.task);
    header.extend([label_column(task).into(), "predicted".into()]);
    if with_scores {
        header.extend(splits[0].1.classes.iter().map(|class| format!("{SCORE_PREFIX}{class}")));
    }
    let mut writer = csv::Writer::from_path(path).map_err(csv_error(path))?;
    writer.write_record(&header).map_err(csv_error(path))?;
    for (split, predictions) in splits {
        for i in 0..predictions.len() {
            let mut record = vec![predictions.ids[i].clone()];
            record.extend(with_split.then(|| split.map(Split::name).unwrap_or_default().into()));
            record.extend(with_group.then(|| predictions.groups[i].clone().unwrap_or_default()));
            let names = [&predictions.truth[i], &predictions.predicted[i]].map(|set| predictions.label_names(set));
            record.extend(names);
            if let Some(scores) = predictions.scores.as_ref().filter(|_| with_scores) {
                record.extend(scores.row(i).iter().map(|score| score.to_string()));
            }
            writer.write_record(&record).map_err(csv_error(path))?;
        }
    }
    writer.flush().map_err(Error::io(path))
}

/// Returns the name of the column with the true classes.
fn label_column(task: Task) -> &'static str {
    match task {
        Task::SingleLabel => "label",
        Task::MultiLabel => "labels",
    }
}

/// Converts a CSV error into an error with the file and the line.
pub(crate) fn csv_error(path: &Path) -> impl Fn(csv::Error) -> Error {
    let path = path.to_path_buf();
    move |error| {
        let line = error.position().map(|position| position.line());
        let table_error = |message: String| Error::Table { path: path.clone(), line, message };
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::Io { path: path.clone(), source },
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                table_error(format!("{len} fields, but the header has {expected_len}"))
            }
            csv::ErrorKind::Utf8 { .. } => table_error("not UTF-8; save the file as UTF-8".into()),
            kind => table_error(format!("invalid CSV: {kind:?}")),
        }
    }
}

/// An open file: its records and the indices of its columns.
struct Reader<'a> {
    path: &'a Path,
    task: Task,
    records: Vec<(u64, csv::StringRecord)>,
    id: usize,
    label: usize,
    /// `true` if the true classes are in a column `labels`.
    label_column_is_multi: bool,
    predicted: Option<usize>,
    split: Option<usize>,
    group: Option<usize>,
    /// Class and column of each score.
    scores: Vec<(String, usize)>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path, task: Option<Task>) -> Result<Self> {
        let header_error = |message: String| Error::Table { path: path.to_path_buf(), line: Some(1), message };
        let mut csv = csv::Reader::from_path(path).map_err(csv_error(path))?;
        let header: Vec<String> = csv
            .headers()
            .map_err(csv_error(path))?
            .iter()
            .map(|name| normalize_label(name.trim().trim_start_matches('\u{feff}')).into_owned())
            .collect();
        let records = csv
            .into_records()
            .map(|record| {
                record.map(|record| (record.position().map_or(0, csv::Position::line), record)).map_err(csv_error(path))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut seen = HashSet::new();
        if let Some(name) = header.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(header_error(format!("duplicate column `{name}`")));
        }
        let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
        let required = |name: &str| {
            column(name).ok_or_else(|| {
                let hint = did_you_mean(name, header.iter().map(String::as_str));
                let columns = if header.iter().all(String::is_empty) { "empty".into() } else { header.join(", ") };
                header_error(format!("missing column `{name}`; the header is {columns}{hint}"))
            })
        };
        let id = required("id")?;
        let task = task.unwrap_or(match (column("label"), column("labels")) {
            (None, Some(_)) => Task::MultiLabel,
            _ => Task::SingleLabel,
        });
        // If the caller sets the task, the column of the other task is accepted too.
        let label = match task {
            Task::SingleLabel => column("label").or(column("labels")),
            Task::MultiLabel => column("labels").or(column("label")),
        };
        let label = label.map_or_else(|| required(label_column(task)), Ok)?;
        let (predicted, split, group) = (column("predicted"), column("split"), column("group"));
        let records: Vec<(u64, csv::StringRecord)> = records
            .into_iter()
            .map(|(line, record)| (line, normalize_columns(&record, &[Some(label), predicted])))
            .collect();
        let known: HashSet<usize> = [Some(id), Some(label), predicted, split, group].into_iter().flatten().collect();
        let (mut scores, mut others) = (Vec::new(), Vec::new());
        for (i, name) in header.iter().enumerate().filter(|(i, _)| !known.contains(i)) {
            match name.strip_prefix(SCORE_PREFIX) {
                Some(class) => scores.push((class.to_string(), i)),
                None => others.push((name.clone(), i)),
            }
        }
        if scores.is_empty() {
            let names_a_column = |column: usize| {
                let names: HashSet<&str> =
                    records.iter().flat_map(|(_, record)| parse_labels(task, &record[column])).collect();
                others.iter().any(|(name, _)| names.contains(name.as_str()))
            };
            if names_a_column(label) || predicted.is_some_and(names_a_column) {
                scores = std::mem::take(&mut others);
            }
        }
        if predicted.is_none() && scores.is_empty() {
            return Err(header_error("missing column `predicted`; add it, or score columns (`score:CLASS`)".into()));
        }
        let mut warnings = Vec::new();
        if !others.is_empty() {
            let names: Vec<String> = others.iter().map(|(name, _)| format!("`{name}`")).collect();
            warnings.push(format!("ignored columns: {}", names.join(", ")));
        }
        let label_column_is_multi = Some(label) == column(label_column(Task::MultiLabel));
        Ok(Self { path, task, records, id, label, label_column_is_multi, predicted, split, group, scores, warnings })
    }

    fn error(&self, line: Option<u64>, message: impl Into<String>) -> Error {
        Error::Table { path: self.path.to_path_buf(), line, message: message.into() }
    }

    /// Returns the class names, and warns of classes that are only predicted.
    fn classes(&mut self) -> Vec<String> {
        if !self.scores.is_empty() {
            return self.scores.iter().map(|(class, _)| class.clone()).collect();
        }
        let distinct = |column: usize| -> BTreeSet<&str> {
            self.records.iter().flat_map(|(_, record)| parse_labels(self.task, &record[column])).collect()
        };
        let (labels, predictions) = (distinct(self.label), self.predicted.map(distinct).unwrap_or_default());
        let only_predicted: Vec<String> = predictions.difference(&labels).map(|name| format!("`{name}`")).collect();
        let classes = labels.union(&predictions).map(|name| name.to_string()).collect();
        if !only_predicted.is_empty() {
            self.warnings.push(format!(
                "predicted classes without a labeled clip: {}; check the spelling",
                only_predicted.join(", ")
            ));
        }
        classes
    }

    fn read(mut self) -> Result<PredictionTable> {
        if self.records.is_empty() {
            return Err(self.error(None, "no predictions: the file has only a header"));
        }
        let classes = self.classes();
        let class_index: HashMap<&str, usize> =
            classes.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
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
        let mut line_of_id: HashMap<&str, u64> = HashMap::with_capacity(n);
        for (row, (line, record)) in self.records.iter().enumerate() {
            let line = *line;
            let id = record[self.id].trim();
            if id.is_empty() {
                return Err(self.error(Some(line), "empty id"));
            }
            if let Some(first) = line_of_id.insert(id, line) {
                return Err(self.error(Some(line), format!("duplicate id `{id}` (first on line {first})")));
            }
            let parse_set = |kind: &str, text: &str| -> Result<Vec<usize>> {
                let class = |name: &str| {
                    class_index.get(name).copied().ok_or_else(|| {
                        let hint = did_you_mean(name, classes.iter().map(String::as_str));
                        let message = format!(
                            "no score column for the {kind} `{name}`; the classes are {}{hint}",
                            first_names(&classes)
                        );
                        self.error(Some(line), message)
                    })
                };
                let set = parse_labels(self.task, text).into_iter().map(class).collect::<Result<BTreeSet<_>>>();
                set.map(Vec::from_iter)
            };
            for (k, (name, column)) in self.scores.iter().enumerate() {
                let text = record[*column].trim();
                scores[[row, k]] = text.parse().ok().filter(|score: &f32| score.is_finite()).ok_or_else(|| {
                    self.error(Some(line), format!("invalid score `{text}` of `{name}`; expected a finite number"))
                })?;
            }
            let label = &record[self.label];
            if self.task == Task::SingleLabel && self.label_column_is_multi && label.contains(LABEL_SEPARATOR) {
                return Err(self.error(Some(line), format!("several labels ({label}) in a single-label task")));
            }
            let truth = parse_set("label", label)?;
            let predicted = match self.predicted.map(|column| record[column].trim()) {
                None => predict_classes(self.task, scores.row(row)),
                Some("") if self.task == Task::SingleLabel => {
                    return Err(self.error(Some(line), "empty prediction"));
                }
                Some(text) => parse_set("prediction", text)?,
            };
            let split = match self.split.map(|column| record[column].trim()).unwrap_or_default() {
                "" => None,
                name => Some(Split::parse(name).ok_or_else(|| self.error(Some(line), Split::unknown(name)))?),
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
            return Err(self.error(None, "no clip has a label"));
        }
        let mut warnings = self.warnings;
        if unlabeled > 0 {
            warnings.push(format!("{unlabeled} of {n} clips have no label and are not evaluated"));
        }
        predictions.scores = (!self.scores.is_empty()).then_some(scores);
        Ok(PredictionTable { predictions, splits, warnings })
    }
}

/// Returns the record with the fields of `columns` in Unicode normalization form C, as labels of manifests are.
fn normalize_columns(record: &csv::StringRecord, columns: &[Option<usize>]) -> csv::StringRecord {
    let normalize = |(column, field)| match columns.contains(&Some(column)) {
        true => normalize_label(field),
        false => Cow::Borrowed(field),
    };
    record.iter().enumerate().map(normalize).collect()
}

/// Splits a field into class names: at most one for single-label tasks, none if the field is empty.
fn parse_labels(task: Task, field: &str) -> Vec<&str> {
    let names: Vec<&str> = match task {
        Task::SingleLabel => vec![field],
        Task::MultiLabel => field.split(LABEL_SEPARATOR).collect(),
    };
    names.into_iter().map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// Joins the first names and the number of the others.
fn first_names(names: &[String]) -> String {
    let shown = names.iter().take(MAX_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
