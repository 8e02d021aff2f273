//! Linear support vector machine.

use serde::{Deserialize, Serialize};

use super::definition::{non_negative, positive};
use super::linear::{ClassWeight, LinearFit, LinearModel, Link};
use super::{Capabilities, Classifier, ClassifierDefinition, FitContext, FitOutput, Model, Tensors, Trainer};
use crate::dataset::{Dataset, Task};
use crate::error::Result;
use crate::value_parsers;

/// Settings of the linear SVM; the table `[classify.svm]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct SvmSettings {
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

impl Default for SvmSettings {
    fn default() -> Self {
        Self { alpha: 1.0, class_weight: ClassWeight::None, max_iterations: 2000 }
    }
}

impl ClassifierDefinition for SvmSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };

    fn validate(&self) -> std::result::Result<(), String> {
        non_negative("classify.svm.alpha", self.alpha)?;
        positive("classify.svm.max_iterations", self.max_iterations as usize)
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(LinearSvm(self.clone()))
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(LinearModel::restore(tensors, task)?))
    }
}

/// One binary SVM per class or label, z = w·x + b, which minimizes Σ max(0, 1 − y·z)² + α/2·(‖w‖² + b²) with y = ±1 (scikit-learn's
/// `LinearSVC` with C = 1/α; several labels per clip: in a `OneVsRestClassifier`). Its scores, softmax(z) or σ(z), have the order of the
/// decision values; they are not calibrated probabilities.
pub struct LinearSvm(pub SvmSettings);

impl Classifier for LinearSvm {
    fn fit(&self, train: &Dataset, _: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        let SvmSettings { alpha, class_weight, max_iterations } = self.0;
        LinearFit { classifier: "svm", link: Link::SquaredHinge, alpha, class_weight, max_iterations }
            .fit(train, context)
    }
}
