//! Reliability of scores as probabilities: bins of a reliability diagram, and the expected calibration error.

use super::predictions::{Predictions, argmax};
use crate::dataset::Task;

/// Number of bins of equal width, as in Guo et al. (2017).
pub const BINS: usize = 15;

/// The scores in ((b − 1) / 15, b / 15] for the bin b = 1, …, 15; the first also includes 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Number of scores.
    pub count: u64,
    /// Number of scores whose prediction is true.
    pub hits: u64,
    /// Sum of the scores.
    pub sum: f64,
}

/// The bins of scores.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reliability {
    /// The bins, by increasing score.
    pub bins: [Bin; BINS],
}

impl Reliability {
    /// Adds a score in [0, 1] and whether its prediction is true.
    fn add(&mut self, score: f32, hit: bool) {
        let score = f64::from(score);
        let bin = &mut self.bins[((score * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
        bin.count += 1;
        bin.hits += u64::from(hit);
        bin.sum += score;
    }

    /// Computes the expected calibration error, in [0, 1]: Σ over the bins of (fraction of the scores in the bin) × |fraction of true
    /// predictions − mean score|. 0 without scores.
    ///
    /// Source: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015), with the bins of
    /// Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, eq. 3).
    pub fn error(&self) -> f64 {
        let count: u64 = self.bins.iter().map(|bin| bin.count).sum();
        // |fraction − mean score| × scores in the bin = |hits − sum of scores|.
        let total: f64 = self.bins.iter().map(|bin| (bin.hits as f64 - bin.sum).abs()).sum();
        if count == 0 { 0.0 } else { total / count as f64 }
    }
}

/// Returns the reliability of the labeled clips. Single-label: one element, that of the highest score of each clip (ties: the lower class)
/// as the probability that the class is the true one. Multi-label: one per label, that of its scores as probabilities of the label.
/// `None` without scores, or if one of a labeled clip is not in [0, 1] (NaN included).
pub fn of_predictions(predictions: &Predictions) -> Option<Vec<Reliability>> {
    let (scores, rows) = (predictions.scores.as_ref()?, predictions.labeled_rows());
    if rows.iter().any(|&row| scores.row(row).iter().any(|score| !(0.0..=1.0).contains(score))) {
        return None;
    }
    let truth = &predictions.truth;
    Some(match predictions.task {
        Task::SingleLabel => {
            let mut reliability = Reliability::default();
            for row in rows {
                let predicted = argmax(scores.row(row).iter().copied());
                reliability.add(scores[(row, predicted)], truth[row].first() == Some(&predicted));
            }
            vec![reliability]
        }
        Task::MultiLabel => {
            let of_label = |class: usize| {
                let mut reliability = Reliability::default();
                rows.iter().for_each(|&row| reliability.add(scores[(row, class)], truth[row].contains(&class)));
                reliability
            };
            (0..predictions.classes.len()).map(of_label).collect()
        }
    })
}

/// Computes the expected calibration error of predictions: the mean over the elements of [`of_predictions`], `None` if there are none.
/// For several labels per clip, this is the classwise calibration error (Kull et al. 2019), which includes labels without clips.
pub fn calibration_error(predictions: &Predictions) -> Option<f64> {
    let parts = of_predictions(predictions).filter(|parts| !parts.is_empty())?;
    Some(parts.iter().map(Reliability::error).sum::<f64>() / parts.len() as f64)
}

/// Adds up the bins of several labels.
pub fn pool(parts: &[Reliability]) -> Reliability {
    let mut pooled = Reliability::default();
    for (bin, other) in parts.iter().flat_map(|part| part.bins.iter().enumerate()) {
        let bin = &mut pooled.bins[bin];
        (bin.count, bin.hits, bin.sum) = (bin.count + other.count, bin.hits + other.hits, bin.sum + other.sum);
    }
    pooled
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn predictions(task: Task, truth: &[Vec<usize>], scores: ndarray::Array2<f32>) -> Predictions {
        let ids = (0..truth.len()).map(|i| i.to_string()).collect();
        let classes = (0..scores.ncols()).map(|class| class.to_string()).collect();
        Predictions::from_scores(task, ids, vec![None; truth.len()], truth.to_vec(), scores, classes)
    }

    #[test]
    fn scores_at_the_edges_belong_to_the_lower_bin() {
        let mut reliability = Reliability::default();
        for (score, hit) in [(0.0, false), (0.2, true), (0.200_001, false), (1.0, true)] {
            reliability.add(score, hit);
        }
        let filled: Vec<(usize, u64, u64)> = reliability
            .bins
            .iter()
            .enumerate()
            .filter(|(_, bin)| bin.count > 0)
            .map(|(i, bin)| (i, bin.count, bin.hits))
            .collect();
        // 0.2 as f32 is above 3/15.
        assert_eq!(filled, [(0, 1, 0), (3, 2, 1), (14, 1, 1)]);
    }

    #[test]
    fn labels_have_their_own_bins() {
        let truth = [vec![0], vec![0, 1], vec![]];
        let clips = predictions(Task::MultiLabel, &truth, array![[0.75, 0.25], [0.75, 0.5], [f32::NAN, 0.0]]);
        let parts = of_predictions(&clips).unwrap();
        assert_eq!(parts.iter().map(Reliability::error).collect::<Vec<_>>(), [0.25, 0.375]);
        assert_eq!(calibration_error(&clips), Some(0.3125));
        let pooled = pool(&parts);
        assert_eq!(
            pooled.bins.iter().map(|bin| (bin.count, bin.hits)).filter(|bin| bin.0 > 0).collect::<Vec<_>>(),
            [(1, 0), (1, 1), (2, 2)]
        );
    }

    #[test]
    fn scores_that_are_no_probabilities_have_no_error() {
        for score in [f32::NAN, -0.5, 1.5] {
            for task in [Task::SingleLabel, Task::MultiLabel] {
                let clips = predictions(task, &[vec![0], vec![1]], array![[0.5, 0.5], [score, 0.75]]);
                assert_eq!(calibration_error(&clips), None, "{score}");
            }
        }
    }
}
