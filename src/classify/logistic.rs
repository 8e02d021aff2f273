//! Logistic regression.

use serde::{Deserialize, Serialize};

use super::definition::{non_negative, positive};
use super::linear::{ClassWeight, LinearFit, LinearModel, Link};
use super::{Capabilities, Classifier, ClassifierDefinition, FitContext, FitOutput, Model, Tensors, Trainer};
use crate::dataset::{Dataset, Task};
use crate::error::Result;
use crate::value_parsers;

/// Settings of logistic regression; the table `[classify.logistic]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct LogisticSettings {
    /// L2 penalty on the summed loss (scikit-learn's 1/C).
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub alpha: f64,
    /// Class weights.
    #[arg(id = "class_weight", long, value_name = "RULE")]
    pub class_weight: ClassWeight,
    /// Maximum number of L-BFGS iterations.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_u64))]
    pub max_iterations: u64,
}

impl Default for LogisticSettings {
    fn default() -> Self {
        Self { alpha: 1.0, class_weight: ClassWeight::None, max_iterations: 300 }
    }
}

impl ClassifierDefinition for LogisticSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };

    fn validate(&self) -> std::result::Result<(), String> {
        non_negative("classify.logistic.alpha", self.alpha)?;
        positive("classify.logistic.max_iterations", self.max_iterations as usize)
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(LogisticRegression(self.clone()))
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(LinearModel::restore(tensors, task)?))
    }
}

/// For one label per clip, p(class | x) = softmax(W·x + b), where W and b minimize the summed cross-entropy + α/2·‖W‖²
/// (scikit-learn's `LogisticRegression` with C = 1/α). For several labels per clip, one binary regression per label:
/// p(label | x) = σ(w·x + b) (scikit-learn's `OneVsRestClassifier`). All labels are fitted together, in one pass over the features per
/// step of L-BFGS.
pub struct LogisticRegression(pub LogisticSettings);

impl Classifier for LogisticRegression {
    fn fit(&self, train: &Dataset, _: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        let LogisticSettings { alpha, class_weight, max_iterations } = self.0;
        LinearFit { classifier: "logistic", link: Link::Softmax, alpha, class_weight, max_iterations }
            .fit(train, context)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis};

    use super::*;
    use crate::classify::tests::dataset;

    #[test]
    fn converges_on_imbalanced_classes_and_skewed_features() {
        let mut state = 9u64;
        let mut noise = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        };
        let class = |i: usize| if i.is_multiple_of(3) { 0 } else { i % 6 };
        let rows = Array2::from_shape_fn((3000, 60), |(i, d)| {
            (2.0 * noise() + if d % 6 == class(i) { 0.8 } else { 0.0 }).exp()
        });
        let targets = Array2::from_shape_fn((3000, 6), |(i, c)| f32::from(class(i) == c));
        let rows = crate::classify::Standardizer::fit(rows.view()).apply(rows.view()).unwrap();
        // Class 3 never occurs.
        let targets = targets.select(Axis(1), &[0, 1, 2, 4, 5]);
        let train = dataset(rows.view(), targets);
        let mut context = FitContext { seed: 0, task: Task::SingleLabel, threads: 1, progress: &mut |_| {} };
        let fitted = LogisticRegression(LogisticSettings::default()).fit(&train, &train, &mut context).unwrap();
        assert!(fitted.notes.is_empty(), "{:?}", fitted.notes);
    }
}
