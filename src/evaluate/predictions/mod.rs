//! What was predicted for which clip.
//!
//! Truth and predictions are sets of classes, whatever the task: with one label a clip each set holds exactly one class.
//! [`table`] is their CSV form.

pub mod table;

use std::collections::HashMap;

use ndarray::{Array2, ArrayView1, Axis, concatenate};

pub use table::{PredictionTable, write_csv};

use crate::dataset::Task;
use crate::error::{Error, Result};

/// A label is predicted from this score on, where nothing else is said.
pub const THRESHOLD: f32 = 0.5;

/// The predictions for N clips over C classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Whether classes exclude each other.
    pub task: Task,
    /// Clip ids, N of them, unique.
    pub ids: Vec<String>,
    /// Clip groups, N of them; bootstrap intervals draw whole groups.
    pub groups: Vec<Option<String>>,
    /// True classes of N clips, each below C and rising; empty for an unlabeled clip.
    pub truth: Vec<Vec<usize>>,
    /// Predicted classes of N clips, each below C and rising. Single-label: exactly one each. Multi-label: may be empty.
    pub predicted: Vec<Vec<usize>>,
    /// Scores, (N, C); probabilities where the classifier gives them.
    pub scores: Option<Array2<f32>>,
    /// Class names, C of them.
    pub classes: Vec<String>,
}

impl Predictions {
    /// Predicts from scores. Single-label: the class of the highest score; of equal scores, the lower class index.
    /// Multi-label: every class that scores at least [`THRESHOLD`].
    ///
    /// `scores` is (N, C), where N is the length of `ids`, `groups` and `truth`, and C that of `classes`.
    ///
    /// # Panics
    /// If the lengths do not agree.
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
        let predicted = scores.outer_iter().map(|row| decide(task, row)).collect();
        Self { task, ids, groups, truth, predicted, scores: Some(scores), classes }
    }

    /// Number of clips N.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no clip.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The indices of the clips that have a label.
    pub fn labeled(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| !self.truth[i].is_empty()).collect()
    }

    /// The clips at `rows`, in that order.
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

    /// These predictions and then `others`, which are over the same classes; scores where both have them.
    pub fn followed_by(mut self, others: Self) -> Self {
        assert_eq!(self.classes, others.classes, "predictions over the same classes");
        self.ids.extend(others.ids);
        self.groups.extend(others.groups);
        self.truth.extend(others.truth);
        self.predicted.extend(others.predicted);
        self.scores = self.scores.zip(others.scores).map(|(above, below)| concatenate![Axis(0), above, below]);
        self
    }

    /// The same predictions over `classes`, which must hold every class that occurs; a class that was unknown scores 0.
    ///
    /// # Errors
    /// A true or predicted class is not among `classes`.
    pub fn over(&self, classes: &[String]) -> Result<Self> {
        let index: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let to: Vec<Option<usize>> = self.classes.iter().map(|name| index.get(name.as_str()).copied()).collect();
        let place = |set: &Vec<usize>| -> Result<Vec<usize>> {
            let unknown =
                |class: usize| Error::Data(format!("class `{}` is not among the classes", self.classes[class]));
            let mut set =
                set.iter().map(|&class| to[class].ok_or_else(|| unknown(class))).collect::<Result<Vec<_>>>()?;
            set.sort_unstable();
            Ok(set)
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
            task: self.task,
            ids: self.ids.clone(),
            groups: self.groups.clone(),
            truth: self.truth.iter().map(place).collect::<Result<_>>()?,
            predicted: self.predicted.iter().map(place).collect::<Result<_>>()?,
            scores,
            classes: classes.to_vec(),
        })
    }

    /// The names of a set of classes, as files have them: joined by `|`.
    pub fn names(&self, set: &[usize]) -> String {
        set.iter().map(|&class| self.classes[class].as_str()).collect::<Vec<_>>().join(LABEL_SEPARATOR)
    }
}

/// What stands between the labels of one clip.
const LABEL_SEPARATOR: &str = "|";

/// The classes that a clip's scores predict.
fn decide(task: Task, scores: ArrayView1<'_, f32>) -> Vec<usize> {
    match task {
        Task::SingleLabel => vec![argmax(scores.iter().copied())],
        Task::MultiLabel => (0..scores.len()).filter(|&class| scores[class] >= THRESHOLD).collect(),
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

/// The two of several classes over the classes of both, in natural order, so that their numbers can be compared.
///
/// # Errors
/// As [`Predictions::over`]; not where every set is within its own classes.
pub fn over_common_classes(members: &[&Predictions]) -> Result<Vec<Predictions>> {
    let mut classes: Vec<String> = members.iter().flat_map(|member| member.classes.iter().cloned()).collect();
    classes.sort_by(|a, b| natord::compare(a, b).then_with(|| a.cmp(b)));
    classes.dedup();
    members.iter().map(|member| member.over(&classes)).collect()
}

#[cfg(test)]
mod tests;
