//! Logistic regression.

use super::linear::{LinearLoss, LinearSettings, Link};

/// Cross-entropy. For one label per clip, p(class | x) = softmax(W·x + b), where W and b minimize the summed cross-entropy + α/2·‖W‖²
/// (scikit-learn's `LogisticRegression` with C = 1/α). For several labels per clip, one binary regression per label:
/// p(label | x) = σ(w·x + b) (scikit-learn's `OneVsRestClassifier`). All labels are fitted together, in one pass over the features per
/// step of L-BFGS.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy;

impl LinearLoss for CrossEntropy {
    const CLASSIFIER: &'static str = "logistic";
    const LINK: Link = Link::Softmax;
    const MAX_ITERATIONS: u64 = 300;
    const ALPHAS: &'static str = "log:1e-4..1e5";
}

/// Settings of logistic regression; the table `[classify.logistic]` of a recipe.
pub type LogisticSettings = LinearSettings<CrossEntropy>;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::{Array2, Axis};

    use super::*;
    use crate::classify::linear::LinearClassifier;
    use crate::classify::tests::{dataset, noise};
    use crate::classify::{Classifier, FitContext};
    use crate::dataset::{Standardizer, Task};

    #[test]
    fn converges_on_imbalanced_classes_and_skewed_features() {
        let mut noise = noise(9);
        let class = |i: usize| if i.is_multiple_of(3) { 0 } else { i % 6 };
        let rows = Array2::from_shape_fn((3000, 60), |(i, d)| {
            (2.0 * noise() + if d % 6 == class(i) { 0.8 } else { 0.0 }).exp()
        });
        let targets = Array2::from_shape_fn((3000, 6), |(i, c)| f32::from(class(i) == c));
        // Class 3 never occurs.
        let targets = targets.select(Axis(1), &[0, 1, 2, 4, 5]);
        let train = dataset(rows.view(), targets);
        let train = train.standardized(&Arc::new(Standardizer::fit(&train).unwrap())).unwrap();
        let mut ignore = |_: &_| {};
        let mut context = FitContext::new(0, Task::SingleLabel, 1, &mut ignore);
        let fitted = LinearClassifier(LogisticSettings::default()).fit(&train, &train, &mut context).unwrap();
        assert!(fitted.notes.is_empty(), "{:?}", fitted.notes);
    }
}
