//! Likely label errors: held-out clips whose given label the classifier confidently disagrees with.
//!
//! The rule is confident learning. The threshold of class j is the mean score of class j over the clips with the given label j.
//! A clip is confidently of class j if its score of j is at least that threshold, and no other class with this property has a
//! higher score. A clip that is confidently of another class than its given label is a likely label error. For several
//! labels per clip, the rule is applied to each label on its own, with the classes "has it" and "does not have it".
//!
//! Source: Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021), section 3.1; the clips are
//! those off the diagonal of the confident joint. Reference implementation: cleanlab,
//! `compute_confident_joint(return_indices_of_off_diagonals=True, calibrate=False)`.

use ndarray::{Array2, Axis, stack};

use super::predictions::Predictions;
use crate::dataset::Task;

/// A clip whose given label is likely wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelError {
    /// Row of the clip in the predictions.
    pub row: usize,
    /// The class that the clip is labeled with; `None` for a missing label of a multi-label clip.
    pub given: Option<usize>,
    /// The class that the scores suggest instead; `None` for a label of a multi-label clip that is likely wrong.
    pub suggested: Option<usize>,
    /// Score of the given label in [0, 1]; of a missing label, 1 − its score.
    pub given_score: f32,
    /// Score of the suggestion in [0, 1]; of a label that is likely wrong, 1 − its score.
    pub suggested_score: f32,
}

impl LabelError {
    /// Returns the difference of the two scores, the confidence of the disagreement.
    pub fn margin(&self) -> f32 {
        self.suggested_score - self.given_score
    }
}

/// Returns the likely label errors of held-out predictions (the classifier must not have been trained on these clips), the most
/// confident ones first (ties: by row). Unlabeled clips are ignored. Returns `None` if there are no scores in [0, 1], which have
/// to be probabilities.
pub fn find(predictions: &Predictions) -> Option<Vec<LabelError>> {
    let scores = predictions.scores.as_ref()?;
    if !scores.iter().all(|score| (0.0..=1.0).contains(score)) {
        return None;
    }
    let rows = predictions.labeled_rows();
    let scores = scores.select(Axis(0), &rows);
    let mut errors: Vec<LabelError> = match predictions.task {
        Task::SingleLabel => {
            let given: Vec<usize> = rows.iter().map(|&row| predictions.truth[row][0]).collect();
            let error = |(i, suggested): (usize, usize)| LabelError {
                row: rows[i],
                given: Some(given[i]),
                suggested: Some(suggested),
                given_score: scores[(i, given[i])],
                suggested_score: scores[(i, suggested)],
            };
            confidently_other(&given, &scores).into_iter().map(error).collect()
        }
        Task::MultiLabel => (0..predictions.classes.len())
            .flat_map(|class| {
                let given: Vec<usize> =
                    rows.iter().map(|&row| usize::from(predictions.truth[row].contains(&class))).collect();
                let has = scores.column(class).to_owned();
                let binary = stack![Axis(1), has.mapv(|score| 1.0 - score), has];
                let error = |(i, suggested): (usize, usize)| LabelError {
                    row: rows[i],
                    given: (given[i] == 1).then_some(class),
                    suggested: (suggested == 1).then_some(class),
                    given_score: binary[(i, given[i])],
                    suggested_score: binary[(i, suggested)],
                };
                confidently_other(&given, &binary).into_iter().map(error).collect::<Vec<_>>()
            })
            .collect(),
    };
    errors.sort_by(|a, b| b.margin().total_cmp(&a.margin()).then(a.row.cmp(&b.row)));
    Some(errors)
}

/// Returns the clips that are confidently of another class than the given one, with that class. `scores` is (N, C). A class
/// without clips has no threshold and is never confident.
fn confidently_other(given: &[usize], scores: &Array2<f32>) -> Vec<(usize, usize)> {
    let classes = scores.ncols();
    let (mut sums, mut counts) = (vec![0.0f64; classes], vec![0.0f64; classes]);
    for (i, &class) in given.iter().enumerate() {
        sums[class] += f64::from(scores[(i, class)]);
        counts[class] += 1.0;
    }
    let thresholds: Vec<f64> =
        sums.iter().zip(&counts).map(|(sum, &count)| if count > 0.0 { sum / count } else { f64::INFINITY }).collect();
    let confident = |i: usize| {
        let above = (0..classes).filter(|&class| f64::from(scores[(i, class)]) >= thresholds[class] - TOLERANCE);
        // Of equal scores, the given class is kept.
        above.max_by(|&a, &b| scores[(i, a)].total_cmp(&scores[(i, b)]).then((a == given[i]).cmp(&(b == given[i]))))
    };
    (0..given.len()).filter_map(|i| Some((i, confident(i).filter(|&class| class != given[i])?))).collect()
}

/// Tolerance of the comparison with a threshold, as in cleanlab: a mean of equal scores is not below them.
const TOLERANCE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        given: Vec<usize>,
        scores: Vec<Vec<f32>>,
        errors: Vec<(usize, usize)>,
    }

    fn predictions(task: Task, truth: Vec<Vec<usize>>, scores: Array2<f32>) -> Predictions {
        let ids = (0..truth.len()).map(|i| i.to_string()).collect();
        let classes = (0..scores.ncols()).map(|class| class.to_string()).collect();
        Predictions::from_scores(task, ids, vec![None; truth.len()], truth, scores, classes)
    }

    #[test]
    fn label_errors_equal_cleanlab() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../fixtures/label_errors.json")).unwrap();
        for Case { name, given, scores, errors } in cases {
            let scores = Array2::from_shape_fn((given.len(), scores[0].len()), |(i, class)| scores[i][class]);
            let truth: Vec<Vec<usize>> = given.iter().map(|&class| vec![class]).collect();
            let found = find(&predictions(Task::SingleLabel, truth, scores)).unwrap();
            assert!(found.windows(2).all(|pair| pair[0].margin() >= pair[1].margin()), "{name}");
            let mut pairs: Vec<(usize, usize)> =
                found.iter().map(|error| (error.row, error.suggested.unwrap())).collect();
            pairs.sort_unstable();
            assert_eq!(pairs, errors, "{name}");
            assert!(found.iter().all(|error| error.given == Some(given[error.row])));
        }
    }

    /// Each label on its own is the binary case of the golden: the second class is "has the label".
    #[test]
    fn labels_of_a_clip_are_judged_one_by_one() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../fixtures/label_errors.json")).unwrap();
        let Case { given, scores, errors, .. } = cases.into_iter().find(|case| case.name == "binary").unwrap();
        // The first label is the golden, the second one is right and certain. The third clip has no labels and is skipped.
        let n = given.len();
        let truth: Vec<Vec<usize>> =
            (0..n).map(|i| if given[i] == 1 { vec![0, 1] } else { vec![1] }).chain([vec![]]).collect();
        let scores = Array2::from_shape_fn((n + 1, 2), |(i, class)| match class {
            0 if i < n => scores[i][1],
            _ => 1.0,
        });
        let found = find(&predictions(Task::MultiLabel, truth, scores)).unwrap();
        let mut pairs: Vec<(usize, usize)> =
            found.iter().map(|error| (error.row, usize::from(error.suggested.is_some()))).collect();
        pairs.sort_unstable();
        assert_eq!(pairs, errors);
        assert!(found.iter().all(|error| error.given.is_none() == (error.suggested == Some(0))));
    }

    #[test]
    fn scores_must_be_probabilities() {
        let logits = predictions(Task::SingleLabel, vec![vec![0]], ndarray::array![[3.0, -2.0]]);
        assert_eq!(find(&logits), None);
        assert_eq!(find(&Predictions { scores: None, ..logits }), None);
        let equal = predictions(Task::SingleLabel, vec![vec![0], vec![1]], ndarray::array![[0.5, 0.5], [0.5, 0.5]]);
        assert_eq!(find(&equal), Some(vec![]), "of equal scores, the given class is kept");
        // A class without clips has no threshold.
        let absent = predictions(Task::SingleLabel, vec![vec![0], vec![0]], ndarray::array![[0.9, 0.1], [0.1, 0.9]]);
        assert_eq!(find(&absent), Some(vec![]));
    }
}
