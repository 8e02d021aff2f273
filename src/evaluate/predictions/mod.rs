//! Predictions of clips.
//!
//! Truth and predictions are sets of class indices for every task: for single-label tasks each set has exactly one class.
//! [`table`] reads and writes their CSV format.

pub mod table;

use std::collections::HashMap;

use ndarray::{Array2, ArrayView1, Axis, concatenate};

pub use table::{PredictionTable, write_csv};

use crate::dataset::Task;
use crate::error::{Error, Result};

/// Minimum score of a predicted label, unless thresholds were tuned.
pub const DEFAULT_THRESHOLD: f32 = 0.5;

/// Predictions of N clips over C classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Single-label (classes are mutually exclusive) or multi-label.
    pub task: Task,
    /// Unique ids of the clips (N).
    pub ids: Vec<String>,
    /// Groups of the clips (N); bootstrap intervals resample groups.
    pub groups: Vec<Option<String>>,
    /// True classes of the clips (N), ascending and below C; empty for an unlabeled clip.
    pub truth: Vec<Vec<usize>>,
    /// Predicted classes of the clips (N), ascending and below C. Single-label: exactly one. Multi-label: may be empty.
    pub predicted: Vec<Vec<usize>>,
    /// Scores, (N, C), if known; probabilities if the classifier computes them.
    pub scores: Option<Array2<f32>>,
    /// Class names (C).
    pub classes: Vec<String>,
}

impl Predictions {
    /// Predicts classes from scores. Single-label: the class with the highest score (ties: the lower class index).
    /// Multi-label: every class with a score of at least [`DEFAULT_THRESHOLD`].
    ///
    /// `scores` is (N, C), where N is the length of `ids`, `groups` and `truth`, and C that of `classes`.
    ///
    /// # Panics
    /// Panics if the lengths differ.
    pub fn from_scores(
        task: Task,
        ids: Vec<String>,
        groups: Vec<Option<String>>,
        truth: Vec<Vec<usize>>,
        scores: Array2<f32>,
        classes: Vec<String>,
    ) -> Self {
        assert_eq!(scores.dim(), (ids.len(), classes.len()), "one row of scores per clip, one column per class");
        assert_eq!((groups.len(), truth.len()), (ids.len(), ids.len()), "one group and one truth per clip");
        let predicted = scores.outer_iter().map(|row| predict_classes(task, row)).collect();
        Self { task, ids, groups, truth, predicted, scores: Some(scores), classes }
    }

    /// Returns the number of clips, N.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns `true` if there are no clips.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the indices of the labeled clips.
    pub fn labeled_rows(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| !self.truth[i].is_empty()).collect()
    }

    /// Selects the clips at `rows`, in that order.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            task: self.task,
            ids: rows.iter().map(|&i| self.ids[i].clone()).collect(),
            groups: rows.iter().map(|&i| self.groups[i].clone()).collect(),
            truth: rows.iter().map(|&i| self.truth[i].clone()).collect(),
            predicted: rows.iter().map(|&i| self.predicted[i].clone()).collect(),
            scores: self.scores.as_ref().map(|scores| scores.select(Axis(0), rows)),
            classes: self.classes.clone(),
        }
    }

    /// Selects the clips `ids`, in that order. Ids without a prediction are omitted.
    pub fn select_ids(&self, ids: &[String]) -> Self {
        let index: HashMap<&str, usize> = self.ids.iter().map(String::as_str).zip(0..).collect();
        self.select(&ids.iter().filter_map(|id| index.get(id.as_str()).copied()).collect::<Vec<_>>())
    }

    /// Appends `others`. Scores are kept if both have them.
    ///
    /// # Panics
    /// Panics if the classes differ.
    pub fn concat(mut self, others: Self) -> Self {
        assert_eq!(self.classes, others.classes, "predictions over different classes");
        self.ids.extend(others.ids);
        self.groups.extend(others.groups);
        self.truth.extend(others.truth);
        self.predicted.extend(others.predicted);
        self.scores = self.scores.zip(others.scores).map(|(above, below)| concatenate![Axis(0), above, below]);
        self
    }

    /// Converts the predictions to other classes, matched by name. A class without a score gets score 0.
    ///
    /// # Errors
    /// Returns an error if a true or predicted class is not in `classes`.
    pub fn with_classes(&self, classes: &[String]) -> Result<Self> {
        let index: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let new_index: Vec<Option<usize>> = self.classes.iter().map(|name| index.get(name.as_str()).copied()).collect();
        let convert = |set: &Vec<usize>| -> Result<Vec<usize>> {
            let unknown =
                |class: usize| Error::Data(format!("class `{}` is not in the target classes", self.classes[class]));
            let mut set =
                set.iter().map(|&class| new_index[class].ok_or_else(|| unknown(class))).collect::<Result<Vec<_>>>()?;
            set.sort_unstable();
            Ok(set)
        };
        let scores = self.scores.as_ref().map(|scores| {
            let mut converted = Array2::zeros((self.len(), classes.len()));
            for (old, new) in new_index.iter().enumerate() {
                if let Some(new) = new {
                    converted.column_mut(*new).assign(&scores.column(old));
                }
            }
            converted
        });
        Ok(Self {
            task: self.task,
            ids: self.ids.clone(),
            groups: self.groups.clone(),
            truth: self.truth.iter().map(convert).collect::<Result<_>>()?,
            predicted: self.predicted.iter().map(convert).collect::<Result<_>>()?,
            scores,
            classes: classes.to_vec(),
        })
    }

    /// Predicts the classes of multi-label clips again: those whose score reaches the threshold of the class. `thresholds` has C
    /// values.
    ///
    /// # Panics
    /// Panics if there are no scores.
    pub fn apply_thresholds(&mut self, thresholds: &[f32]) {
        let scores = self.scores.as_ref().expect("predictions with scores");
        let reaches =
            |row: ArrayView1<'_, f32>| (0..row.len()).filter(|&class| row[class] >= thresholds[class]).collect();
        self.predicted = scores.outer_iter().map(reaches).collect();
    }

    /// Joins the names of a set of classes with `|`, as in CSV files.
    pub fn label_names(&self, set: &[usize]) -> String {
        set.iter().map(|&class| self.classes[class].as_str()).collect::<Vec<_>>().join(LABEL_SEPARATOR)
    }
}

/// Separator of the labels of a clip.
pub(crate) const LABEL_SEPARATOR: &str = "|";

/// Predicts the classes of a clip from its scores (see [`Predictions::from_scores`]).
fn predict_classes(task: Task, scores: ArrayView1<'_, f32>) -> Vec<usize> {
    match task {
        Task::SingleLabel => vec![argmax(scores.iter().copied())],
        Task::MultiLabel => (0..scores.len()).filter(|&class| scores[class] >= DEFAULT_THRESHOLD).collect(),
    }
}

/// Returns the index of the highest value (ties: the first), ignoring NaN; 0 if no value is greater than −∞.
pub fn argmax(values: impl IntoIterator<Item = f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// Converts predictions to the union of their classes in natural order, so that they can be compared.
///
/// # Errors
/// Returns the error of [`Predictions::with_classes`]. It does not occur for valid predictions, since the union contains every
/// class.
pub fn align_classes(predictions: &[&Predictions]) -> Result<Vec<Predictions>> {
    let mut classes: Vec<String> = predictions.iter().flat_map(|member| member.classes.iter().cloned()).collect();
    classes.sort_by(|a, b| natord::compare(a, b).then_with(|| a.cmp(b)));
    classes.dedup();
    predictions.iter().map(|member| member.with_classes(&classes)).collect()
}

#[cfg(test)]
mod tests;
