//! What was predicted for which clip, and its CSV form.

use std::path::Path;

use ndarray::Array2;

use crate::error::Result;
use crate::manifest::Split;

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

/// Writes predictions as CSV, one part after the other (see the module's head for the columns).
pub fn write_csv(path: &Path, parts: &[(Option<Split>, &Predictions)]) -> Result<()> {
    let _ = (path, parts);
    todo!()
}
